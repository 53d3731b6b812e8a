"""The load generator: one port that speaks REST, WebSocket and TLS, and sends what was made up beforehand.

It runs in a process of its own: `python -m pipeline.bench.load JSON`. Frames are built before the first is sent,
and while sending, one message costs it little more than its encryption, so that it is never what is measured.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import trio
from wsproto.events import CloseConnection, Ping, TextMessage
from wsproto.utilities import RemoteProtocolError

from pipeline.bench.exchange import rest_answers
from pipeline.bench.laps import Laps
from pipeline.bench.moments import Moments
from pipeline.bench.stream import Subject, subject
from pipeline.session.tls import BatchTLSStream
from pipeline.sim.http import Request, Response
from pipeline.sim.server import Handover, serve_stream

_TLS_HANDSHAKE = b"\x16"
_TEXT_FRAME = b"\x81"
_CHUNK = 128
"""Messages per write to the socket when flat out: enough to fill it, and few enough to look at requests between."""


@attrs.frozen
class LoadSettings:
    """What the generator is told."""

    venue: str
    stream: str
    """A file with one wire message per line."""
    total: int
    """Messages to send; more than the file has are sent by going over it again, numbered on."""
    instruments: int
    certificate: str
    """PEM file with key and chain, for clients that speak TLS."""
    rate: float | None = None
    """Messages per second; None is flat out."""
    burst: int = 1
    """Messages that leave at the same moment, when there is a rate."""
    moments: str | None = None
    """A file for the time at which each message was sent."""


class RecordStream(BatchTLSStream):
    """TLS that puts many messages into one write to the socket, each in a record of its own."""

    async def send_each(self, pieces: Sequence[bytes]) -> None:
        """Send every piece as one TLS record."""
        async with self._sending:
            write = self._tls.write
            for piece in pieces:
                write(piece)
            await self._flush_locked()


def frame(message: bytes) -> bytes:
    """An unmasked WebSocket text frame."""
    length = len(message)
    if length < 126:
        return _TEXT_FRAME + bytes((length,)) + message
    if length < 1 << 16:
        return _TEXT_FRAME + b"\x7e" + length.to_bytes(2, "big") + message
    return _TEXT_FRAME + b"\x7f" + length.to_bytes(8, "big") + message


@attrs.define(eq=False)
class Load:
    """A server that begins to send once every subject of the stream has a subscriber."""

    settings: LoadSettings
    frames: list[bytes] = attrs.field(init=False)
    """Of the first lap."""
    subjects: list[Subject] = attrs.field(init=False)
    _laps: Laps | None = attrs.field(default=None, init=False)
    _missing: set[Subject] = attrs.field(init=False)
    _started: trio.Event = attrs.field(factory=trio.Event, init=False)
    _start_ns: int = attrs.field(default=0, init=False)
    _rest: Callable[[Request], Response] = attrs.field(init=False)
    _tls: ssl.SSLContext = attrs.field(init=False)
    _moments: Moments | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        settings = self.settings
        lines = Path(settings.stream).read_bytes().splitlines()
        self.frames = [frame(line) for line in lines]
        self.subjects = [subject(line) for line in lines]
        self._missing = set(self.subjects)
        if settings.total > len(lines):
            self._laps = Laps(lines)
        self._rest = rest_answers(settings.venue, settings.instruments)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(settings.certificate)
        if settings.moments is not None:
            self._moments = Moments.create(Path(settings.moments), settings.total)

    async def run(self) -> None:
        """Serve until standard input ends; prints the port."""
        async with trio.open_nursery() as nursery:
            port = await nursery.start(self.serve)
            sys.stdout.write(f"{port}\n")
            sys.stdout.flush()
            await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
            nursery.cancel_scope.cancel()

    async def serve(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; the task's status is the port."""
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started(listener.socket.getsockname()[1])
        await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, raw: trio.SocketStream) -> None:
        stream: trio.abc.Stream = raw
        try:
            if await raw.socket.recv(1, socket.MSG_PEEK) == _TLS_HANDSHAKE:
                stream = RecordStream(raw, self._tls, server_side=True)
                await stream.do_handshake()
            handover = await serve_stream(stream, None, self._rest, lambda request: None)
            if handover is not None:
                await self._converse(handover)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, RemoteProtocolError, OSError):
            pass  # the client has gone
        finally:
            await trio.aclose_forcefully(stream)

    async def _converse(self, handover: Handover) -> None:
        stream, websocket = handover.stream, handover.websocket
        subscribed: set[Subject] = set()
        answers: list[bytes] = []
        sending = trio.Lock()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, stream, subscribed, sending)
            while True:
                for event in websocket.events():
                    if isinstance(event, TextMessage):
                        answers += map(frame, self._answer(event.data, subscribed))
                    elif isinstance(event, Ping):
                        answers.append(websocket.send(event.response()))
                    elif isinstance(event, CloseConnection):
                        await stream.send_all(websocket.send(event.response()))
                        nursery.cancel_scope.cancel()
                        return
                async with sending:
                    await self._send_answers(stream, answers)
                data = await stream.receive_some(65_536)
                if not data:
                    nursery.cancel_scope.cancel()
                    return
                websocket.receive_data(bytes(data))

    async def _send_answers(self, stream: trio.abc.Stream, answers: list[bytes]) -> None:
        while answers:
            await stream.send_all(answers.pop(0))
        if not self._missing and not self._started.is_set():
            self._start_ns = time.monotonic_ns()
            if self._moments is not None:
                self._moments.begin(self._start_ns)
            self._started.set()

    def _answer(self, text: str, subscribed: set[Subject]) -> list[bytes]:
        if text == "ping":
            return [b"pong"]
        request: dict[str, Any] = json.loads(text)
        if request["op"] == "ping":
            return [json.dumps({"success": True, "ret_msg": "pong", "conn_id": "load", **request}).encode()]
        wanted = request["args"]
        added = {Subject(a["channel"], a["instId"]) if isinstance(a, dict) else Subject.of_topic(a) for a in wanted}
        if request["op"] == "subscribe":
            subscribed |= added
            self._missing -= added
        if self.settings.venue == "bybit":
            answer = {"success": True, "ret_msg": "", "conn_id": "load", "op": request["op"]}
            return [json.dumps({**answer, "req_id": request.get("req_id", "")}).encode()]
        head = {"event": request["op"], "connId": "load"} | ({"id": request["id"]} if "id" in request else {})
        return [json.dumps({**head, "arg": arg}).encode() for arg in wanted]

    async def _send(self, stream: trio.abc.Stream, subscribed: set[Subject], sending: trio.Lock) -> None:
        await self._started.wait()
        numbers = self._numbers(subscribed)
        if self.settings.rate is not None:
            await self._send_paced(stream, sending, list(numbers), self.settings.rate)
            return
        while chosen := list(islice(numbers, _CHUNK)):
            await self._send_each(stream, sending, chosen)

    async def _send_paced(
        self, stream: trio.abc.Stream, sending: trio.Lock, numbers: Sequence[int], rate: float
    ) -> None:
        """Send each when it is due, and at once all that are: who is late catches up."""
        burst = self.settings.burst
        most = max(_CHUNK, burst)
        due_ns = [self._start_ns + round((number - number % burst) / rate * 1e9) for number in numbers]
        at = 0
        while at < len(numbers):
            await trio.sleep(max(0.0, (due_ns[at] - time.monotonic_ns()) / 1e9))
            end = min(max(at + 1, bisect_right(due_ns, time.monotonic_ns())), at + most)
            await self._send_each(stream, sending, numbers[at:end])
            at = end

    async def _send_each(self, stream: trio.abc.Stream, sending: trio.Lock, numbers: Sequence[int]) -> None:
        pieces = [self._frame(number) for number in numbers]
        async with sending:
            if self._moments is not None:
                self._moments.note(numbers, time.monotonic_ns())
            if isinstance(stream, RecordStream):
                await stream.send_each(pieces)
            else:
                await stream.send_all(b"".join(pieces))

    def _numbers(self, subscribed: set[Subject]) -> Iterator[int]:
        """Of the messages for these subjects, up to the end of the last lap."""
        one_lap = [number for number, each in enumerate(self.subjects) if each in subscribed]
        size, total = len(self.subjects), self.settings.total
        laps = range(-(-total // size))
        return (number for lap in laps for each in one_lap if (number := lap * size + each) < total)

    def _frame(self, number: int) -> bytes:
        if number < len(self.frames):
            return self.frames[number]
        assert self._laps is not None
        lap, number = divmod(number, len(self.frames))
        return frame(self._laps.message(number, lap))


async def main(text: str) -> None:
    """Serve as `text`, the settings in JSON, says."""
    await Load(LoadSettings(**json.loads(text))).run()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
