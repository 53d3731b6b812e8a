"""The service with picows on uvloop in the place of Trio's sockets and our reader; everything else is the same.

Trio runs as a guest of uvloop and goes on doing what it does beside reading: delivery reports, spool, catalogue,
deadlines, metrics. What picows takes out of one read is handed to the same conversation, in one batch, from its
callback: no task is switched for it.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any
from unittest.mock import patch

import picows
import trio
import uvloop

from pipeline.bench.contestants.ours import configuration, measured
from pipeline.bench.measure import Figures, Task
from pipeline.config import Config
from pipeline.feeds import link
from pipeline.model.errors import ConnectionLost
from pipeline.observe.logs import configure
from pipeline.session.connection import Alarm
from pipeline.session.conversation import Conversation
from pipeline.session.limits import Limits, within
from pipeline.session.transport import Dial, Transport


def run(task: Task) -> Figures:
    """Run the service until the whole stream is in Kafka."""
    config = configuration(task)
    configure(config.log)
    with patch.object(link, "run_connection", run_connection):
        figures: Figures = uvloop.run(_host(task, config))
    return figures


async def _host(task: Task, config: Config) -> Figures:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Any] = loop.create_future()
    trio.lowlevel.start_guest_run(
        measured,
        task,
        config,
        open_websocket,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        run_sync_soon_not_threadsafe=loop.call_soon,
        done_callback=ended.set_result,
        host_uses_signal_set_wakeup_fd=True,
    )
    figures: Figures = (await ended).unwrap()
    return figures


async def open_websocket(
    nursery: trio.Nursery,
    url: str,
    *,
    limits: Limits,
    tls: ssl.SSLContext | None = None,
    compression: bool = False,
) -> Transport:
    """An `OpenWebSocket`; what it opens is read by `run_connection` here and by nobody else."""
    socket: Transport = await _on_host(_Socket.open(url, tls, limits))
    return socket


async def run_connection(
    dial: Dial,
    conversation: Conversation,
    limits: Limits,
    *,
    alarm: Alarm | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """As `session.connection.run_connection`."""
    alarm = Alarm() if alarm is None else alarm
    async with trio.open_nursery() as wire:
        with within(limits.connect + 2 * limits.handshake, "connecting"):
            socket = await dial(wire)
        assert isinstance(socket, _Socket)
        try:
            conversation.start(trio.current_time())
            wire.start_soon(_keep_time, socket, conversation, alarm, task_status)
            socket.converse(conversation, alarm)
            await socket.ended.wait()
            raise socket.failure or ConnectionLost("closed")
        except BaseException as error:
            conversation.closed(trio.current_time(), repr(error))
            raise
        finally:
            await socket.aclose()
            wire.cancel_scope.cancel()


async def _keep_time(
    socket: _Socket, conversation: Conversation, alarm: Alarm, task_status: trio.TaskStatus[None]
) -> None:
    is_ready = False
    while True:
        for text in conversation.data_to_send():
            await socket.send(text)
        if not is_ready and conversation.ready:
            is_ready = True
            task_status.started()
        now = trio.current_time()
        if now >= conversation.next_deadline():
            conversation.on_deadline(now)
            await trio.lowlevel.checkpoint()
        else:
            # A deadline that moves forward in between is seen at the feed's next tick, which is never far off.
            await alarm.sleep_until(conversation.next_deadline())


class _Socket(picows.WSListener):  # type: ignore[misc]
    """A `Transport` that hands over what it has read instead of being asked."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.failure: Exception | None = None
        self._batch: list[bytes] = []
        self._conversation: Conversation | None = None
        self._alarm = Alarm()
        self._transport: Any = None
        self._is_ready = False

    @classmethod
    async def open(cls, url: str, tls: ssl.SSLContext | None, limits: Limits) -> _Socket:
        transport, listener = await picows.ws_connect(
            cls, url, ssl_context=tls, max_frame_size=limits.max_message_bytes, disconnect_on_exception=False
        )
        listener._transport = transport
        found: _Socket = listener
        return found

    def converse(self, conversation: Conversation, alarm: Alarm) -> None:
        """Hand messages to this conversation, those that have come already first."""
        self._conversation, self._alarm = conversation, alarm
        if self._batch:
            self._hand_over(conversation)

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """A frame has come."""
        self._batch.append(frame.get_payload_as_bytes())
        if frame.last_in_buffer and self._conversation is not None:
            self._hand_over(self._conversation)

    def _hand_over(self, conversation: Conversation) -> None:
        messages, self._batch = self._batch, []
        try:
            conversation.receive(messages, trio.current_time())
            if not self._is_ready:
                self._is_ready = conversation.ready
                self._alarm.ring()
        except Exception as error:  # noqa: BLE001 - raised by `run_connection`, whose task this would be
            self.failure = error
            self.ended.set()

    def on_ws_disconnected(self, transport: Any) -> None:
        """The connection has ended."""
        self.failure = self.failure or ConnectionLost("connection lost")
        self.ended.set()

    async def receive(self) -> list[bytes]:
        """Nobody asks: `run_connection` is handed what comes."""
        raise RuntimeError("this socket hands over what it reads")

    async def send(self, text: str) -> None:
        """As `Transport`."""
        self._transport.send(picows.WSMsgType.TEXT, text.encode())

    async def aclose(self) -> None:
        """As `Transport`."""
        self._transport.disconnect()


async def _on_host(coroutine: Any) -> Any:
    """Wait in Trio for a coroutine of the loop that Trio is a guest of."""
    ended = trio.Event()
    task = asyncio.get_running_loop().create_task(coroutine)
    task.add_done_callback(lambda _: ended.set())
    await ended.wait()
    return task.result()
