"""One connection under a mock clock, with a transport in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from pipeline.model.errors import ConnectionLost, DeadlineMissed, HeartbeatLost, Refused
from pipeline.session.connection import Alarm, run_connection
from pipeline.session.errors import ConnectionClosed
from pipeline.session.limits import Limits
from pipeline.session.transport import Transport

LIMITS = Limits(connect=10, handshake=5, ready=30, send=10, close=5)


@attrs.define
class Wire:
    """A transport in memory, as the venue's end sees it."""

    sent: list[tuple[float, str]] = attrs.field(factory=list)
    closed_at: list[float] = attrs.field(factory=list)
    fails_to_send: bool = False
    close_takes: float = 0.0
    dial_takes: float = 0.0
    to_client: trio.MemorySendChannel[list[bytes] | Exception] = attrs.field(init=False)
    _from_venue: trio.MemoryReceiveChannel[list[bytes] | Exception] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.to_client, self._from_venue = trio.open_memory_channel[list[bytes] | Exception](math.inf)

    async def dial(self, nursery: trio.Nursery) -> Transport:
        await trio.sleep(self.dial_takes)
        return self

    async def receive(self) -> list[bytes]:
        got = await self._from_venue.receive()
        if isinstance(got, Exception):
            raise got
        return got

    async def send(self, text: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.fails_to_send:
            raise ConnectionLost("broken pipe")
        self.sent.append((trio.current_time(), text))

    async def aclose(self) -> None:
        self.closed_at.append(trio.current_time())
        await trio.sleep(self.close_takes)


@attrs.define
class Talk:
    """Subscribes, is ready with the first message, pings each `ping_every` s, wants any message within `silence` s."""

    ping_every: float = 20.0
    silence: float = 50.0
    answer: dict[bytes, str] = attrs.field(factory=dict)
    on_message: Callable[[bytes], None] = lambda message: None
    ready: bool = False
    flowing: bool = False
    received: list[tuple[float, bytes]] = attrs.field(factory=list)
    ends: list[tuple[float, str]] = attrs.field(factory=list)
    queued: list[str] = attrs.field(factory=list)
    ping_at: float = math.inf
    silent_at: float = math.inf

    def start(self, now: float) -> None:
        self.queued.append("subscribe")
        self.ping_at, self.silent_at = now + self.ping_every, now + self.silence

    def receive(self, messages: list[bytes], now: float) -> None:
        self.ready = self.flowing = True
        self.silent_at = now + self.silence
        for message in messages:
            self.received.append((now, message))
            self.on_message(message)
            if message in self.answer:
                self.queued.append(self.answer[message])

    def next_deadline(self) -> float:
        return min(self.ping_at, self.silent_at)

    def on_deadline(self, now: float) -> None:
        if now >= self.silent_at:
            raise HeartbeatLost(f"nothing for {self.silence:g} s")
        self.queued.append("ping")
        self.ping_at = now + self.ping_every

    def data_to_send(self) -> list[str]:
        queued, self.queued = self.queued, []
        return queued

    def closed(self, now: float, reason: str) -> None:
        self.ends.append((now, reason))


async def test_pings_and_missed_deadlines_at_their_exact_times(autojump_clock: MockClock) -> None:
    wire, talk = Wire(), Talk()
    wire.to_client.send_nowait([b"ack"])
    with pytest.raises(HeartbeatLost, match="nothing for 50 s"):
        await run_connection(wire.dial, talk, LIMITS)
    assert trio.current_time() == 50
    assert wire.sent == [(0, "subscribe"), (20, "ping"), (40, "ping")]
    assert talk.ends == [(50, "nothing for 50 s")]
    assert wire.closed_at == [50]


async def test_a_deadline_that_moved_back_is_kept_at_its_new_time(autojump_clock: MockClock) -> None:
    wire, talk = Wire(), Talk(ping_every=math.inf)

    async def venue() -> None:
        for _ in range(3):
            wire.to_client.send_nowait([b"data"])
            await trio.sleep(30)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(venue)
        with pytest.raises(HeartbeatLost):
            await run_connection(wire.dial, talk, LIMITS)
    assert trio.current_time() == 60 + 50


async def test_a_deadline_that_a_message_moved_forward_is_kept(autojump_clock: MockClock) -> None:
    wire, talk = Wire(), Talk()

    def hurry(message: bytes) -> None:
        talk.ping_at = 7.5

    async def venue() -> None:
        await trio.sleep(3)
        wire.to_client.send_nowait([b"hurry"])

    talk.on_message = hurry
    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(venue)
            await run_connection(wire.dial, talk, LIMITS)
    assert wire.sent == [(0, "subscribe"), (7.5, "ping")]


async def test_answers_are_sent_at_once_and_in_order(autojump_clock: MockClock) -> None:
    wire, talk = Wire(), Talk(answer={b"a": "A", b"b": "B", b"c": "C"})

    async def venue() -> None:
        await trio.sleep(3)
        wire.to_client.send_nowait([b"a", b"b"])
        wire.to_client.send_nowait([b"c"])

    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(venue)
            await run_connection(wire.dial, talk, LIMITS)
    assert wire.sent == [(0, "subscribe"), (3, "A"), (3, "B"), (3, "C")]


async def test_what_others_queue_is_sent_when_the_alarm_rings(autojump_clock: MockClock) -> None:
    wire, talk, alarm = Wire(), Talk(), Alarm()
    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(run_connection, alarm=alarm), wire.dial, talk, LIMITS)
            await trio.sleep(4)
            talk.queued.append("order")
            alarm.ring()
    assert wire.sent == [(0, "subscribe"), (4, "order")]


async def test_an_alarm_rung_while_nobody_sleeps_is_not_lost(autojump_clock: MockClock) -> None:
    alarm = Alarm()
    alarm.ring()
    await alarm.sleep_until(math.inf)
    await alarm.sleep_until(5)
    assert trio.current_time() == 5


async def test_started_when_ready_and_not_before(autojump_clock: MockClock) -> None:
    wire, talk = Wire(dial_takes=2), Talk()

    async def venue() -> None:
        await trio.sleep(6)
        wire.to_client.send_nowait([b"ack"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(venue)
        await nursery.start(run_connection, wire.dial, talk, LIMITS)
        assert trio.current_time() == 6
        await trio.sleep(25)  # past the limit for readiness
        assert wire.closed_at == []
        nursery.cancel_scope.cancel()


async def test_readiness_that_a_deadline_brings_counts(autojump_clock: MockClock) -> None:
    class Patient(Talk):
        def on_deadline(self, now: float) -> None:
            super().on_deadline(now)
            self.ready = True

    async with trio.open_nursery() as nursery:
        await nursery.start(run_connection, Wire().dial, Patient(), LIMITS)
        assert trio.current_time() == 20
        nursery.cancel_scope.cancel()


async def test_not_ready_in_time(autojump_clock: MockClock) -> None:
    wire, talk = Wire(), Talk()
    with pytest.raises(DeadlineMissed, match="logins and subscriptions: not within 30 s"):
        await run_connection(wire.dial, talk, LIMITS)
    assert trio.current_time() == 30
    assert talk.ends == [(30, "logins and subscriptions: not within 30 s")]
    assert wire.closed_at == [30]


async def test_dialing_takes_too_long(autojump_clock: MockClock) -> None:
    wire, talk = Wire(dial_takes=21), Talk()
    with pytest.raises(DeadlineMissed, match="connecting: not within 20 s"):
        await run_connection(wire.dial, talk, LIMITS)
    assert trio.current_time() == 20
    assert talk.ends == []  # it never started


async def test_the_close_code_comes_through(autojump_clock: MockClock) -> None:
    wire, talk = Wire(), Talk()
    wire.to_client.send_nowait(ConnectionClosed("venue", 4001, "login failed"))
    with pytest.raises(ConnectionClosed) as closed:
        await run_connection(wire.dial, talk, LIMITS)
    assert closed.value.code == 4001
    assert talk.ends == [(0, "venue closed: 4001 login failed")]


async def test_the_close_code_wins_over_a_failed_send(autojump_clock: MockClock) -> None:
    wire, talk = Wire(fails_to_send=True), Talk()

    async def venue() -> None:
        await trio.sleep(1)
        wire.to_client.send_nowait(ConnectionClosed("venue", 4001, "login failed"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(venue)
        with pytest.raises(ConnectionClosed):
            await run_connection(wire.dial, talk, LIMITS)
    assert trio.current_time() == 1


async def test_a_failed_send_ends_the_connection_even_if_the_reader_hears_nothing(
    autojump_clock: MockClock,
) -> None:
    wire, talk = Wire(fails_to_send=True), Talk()
    with pytest.raises(ConnectionLost, match="broken pipe"):
        await run_connection(wire.dial, talk, LIMITS)
    assert trio.current_time() == LIMITS.close
    assert talk.ends == [(LIMITS.close, "broken pipe")]


@pytest.mark.parametrize("error", [Refused("bybit refused the key"), ZeroDivisionError("bug")])
async def test_what_the_conversation_raises_comes_out_bare(error: Exception, autojump_clock: MockClock) -> None:
    wire, talk = Wire(), Talk()

    def fail(message: bytes) -> None:
        raise error

    talk.on_message = fail
    wire.to_client.send_nowait([b"x"])
    with pytest.raises(type(error)) as raised:
        await run_connection(wire.dial, talk, LIMITS)
    assert raised.value is error
    assert talk.ends == [(0, str(error))]
    assert wire.closed_at == [0]


async def test_a_start_that_fails_is_still_closed(autojump_clock: MockClock) -> None:
    class Stillborn(Talk):
        def start(self, now: float) -> None:
            raise Refused("no")

    wire, talk = Wire(), Stillborn()
    with pytest.raises(Refused):
        await run_connection(wire.dial, talk, LIMITS)
    assert talk.ends == [(0, "no")]
    assert wire.closed_at == [0]


async def test_cancellation_closes_everything_once_and_in_bounded_time(autojump_clock: MockClock) -> None:
    wire, talk = Wire(close_takes=math.inf), Talk()
    with trio.move_on_after(12) as scope:
        await run_connection(wire.dial, talk, LIMITS)
    assert scope.cancelled_caught
    assert talk.ends == [(12, "cancelled")]
    assert wire.closed_at == [12]
    assert trio.current_time() == 12 + 2 * LIMITS.close


async def test_batches_cost_no_scope_and_no_event(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    original = (
        trio.CancelScope.__attrs_init__ if hasattr(trio.CancelScope, "__attrs_init__") else trio.CancelScope.__init__
    )

    def count(self: trio.CancelScope, *args: object, **kwargs: object) -> None:
        nonlocal made
        made += 1
        original(self, *args, **kwargs)  # type: ignore[arg-type]

    wire, talk = Wire(), Talk(ping_every=math.inf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_connection, wire.dial, talk, LIMITS)
        await trio.testing.wait_all_tasks_blocked()
        monkeypatch.setattr(trio.CancelScope, original.__name__, count)
        for _ in range(100):
            wire.to_client.send_nowait([b"data"])
            await trio.sleep(0.1)
        monkeypatch.undo()
        assert len(talk.received) == 100
        nursery.cancel_scope.cancel()
    assert made == 100  # our own sleeps
