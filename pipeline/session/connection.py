"""One connection from dial to close: a conversation, given a socket and a clock."""

from __future__ import annotations

import math
from collections import deque

import attrs
import trio

from pipeline.model.errors import Retryable
from pipeline.session.conversation import Conversation
from pipeline.session.failures import describe, settle
from pipeline.session.limits import Limits, within
from pipeline.session.transport import Dial, Transport


class Alarm:
    """Wakes one sleeper at a deadline that others may move forward; a wake-up may come for nothing."""

    def __init__(self) -> None:
        self._scope: trio.CancelScope | None = None
        self._rung = False

    def ring(self) -> None:
        """Wake the sleeper now; if it is awake, its next sleep ends at once."""
        self._rung = True
        if self._scope is not None:
            self._scope.deadline = -math.inf

    def no_later_than(self, deadline: float) -> None:
        """Wake the sleeper at `deadline` if it meant to sleep longer. Cheap when there is nothing to change."""
        # A deadline that moves back is left alone: waking up once for nothing costs less than moving it per message.
        if self._scope is not None and deadline < self._scope.deadline:
            self._scope.deadline = deadline

    async def sleep_until(self, deadline: float) -> None:
        """Sleep until then, or until woken."""
        if not self._rung:
            with trio.CancelScope(deadline=deadline) as self._scope:
                await trio.sleep_forever()
            self._scope = None
        self._rung = False


async def run_connection(
    dial: Dial,
    conversation: Conversation,
    limits: Limits,
    *,
    alarm: Alarm | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run one connection, dial to close; never returns, but raises why it ended: as a rule one bare `SessionError`.

    A bug in the conversation comes out as itself, in a group if other things failed with it. `task_status` is
    told once the conversation is ready. Whoever gives the conversation something to send from outside of its own
    methods calls `alarm.ring()`. Wait for rate limits before, not inside `dial`: it is given
    `limits.connect + 2 * limits.handshake` seconds.
    """
    alarm = Alarm() if alarm is None else alarm
    try:
        async with trio.open_nursery() as wire:
            with within(limits.connect + 2 * limits.handshake, "connecting"):
                transport = await dial(wire)
            try:
                await _converse(transport, conversation, limits, alarm, task_status)
            finally:
                # The transport bounds its own good-bye; this is for one that does not.
                with trio.move_on_after(2 * limits.close, shield=True):
                    await transport.aclose()
                wire.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        end = settle(group)
    raise end


async def _converse(
    transport: Transport,
    conversation: Conversation,
    limits: Limits,
    alarm: Alarm,
    task_status: trio.TaskStatus[None],
) -> None:
    talk = _Talk(transport, conversation, limits, alarm, task_status)
    try:
        conversation.start(trio.current_time())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.keep_time)
            await talk.read()
    except BaseException as error:
        conversation.closed(trio.current_time(), describe(settle(error)))
        raise


@attrs.define
class _Talk:
    transport: Transport
    conversation: Conversation
    limits: Limits
    alarm: Alarm
    task_status: trio.TaskStatus[None]
    outbox: deque[str] = attrs.field(factory=deque, init=False)
    ready_by: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    ready: bool = attrs.field(default=False, init=False)

    async def read(self) -> None:
        receive, conversation, alarm = self.transport.receive, self.conversation, self.alarm
        with within(self.limits.ready, "logins and subscriptions") as self.ready_by:
            self.note_ready()
            while True:
                messages = await receive()
                conversation.receive(messages, trio.current_time())
                if not self.ready:
                    self.note_ready()
                # Sending may have to wait, and this task must not: pongs and data queue behind it.
                if texts := conversation.data_to_send():
                    self.outbox.extend(texts)
                    alarm.ring()
                else:
                    alarm.no_later_than(conversation.next_deadline())

    async def keep_time(self) -> None:
        conversation, outbox = self.conversation, self.outbox
        while True:
            outbox.extend(conversation.data_to_send())
            while outbox:
                await self.send(outbox.popleft())
                outbox.extend(conversation.data_to_send())
            now = trio.current_time()
            if now >= conversation.next_deadline():
                conversation.on_deadline(now)
                if not self.ready:
                    self.note_ready()
                # A deadline that is not moved on would otherwise starve the other tasks.
                await trio.lowlevel.checkpoint()
            else:
                await self.alarm.sleep_until(conversation.next_deadline())

    async def send(self, text: str) -> None:
        try:
            await self.transport.send(text)
        except Retryable:
            # The reader may still have the peer's close frame before it, which says more than a failed send.
            with trio.move_on_after(self.limits.close):
                await trio.sleep_forever()
            raise

    def note_ready(self) -> None:
        if self.conversation.ready:
            self.ready = True
            self.ready_by.deadline = math.inf
            self.task_status.started()
