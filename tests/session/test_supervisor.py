"""Restarts at exact virtual times."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

import attrs
import pytest
import trio
from trio.testing import MockClock

from pipeline.model.errors import ConnectionLost, HeartbeatLost, Refused, Retryable
from pipeline.session.supervisor import Child, RestartPolicy, supervise


@attrs.define
class Seen:
    """An observer that remembers; without the times it is told at when they do not matter."""

    told: list[tuple[float, str, object]] = attrs.field(factory=list)

    def attempt(self, number: int) -> None:
        self.told.append((trio.current_time(), "attempt", number))

    def connected(self) -> None:
        self.told.append((trio.current_time(), "connected", None))

    def lost(self, reason: str, error: Retryable) -> None:
        self.told.append((trio.current_time(), "lost", reason))

    def bug(self, error: Exception) -> None:
        self.told.append((trio.current_time(), "bug", type(error)))

    def retry_in(self, seconds: float) -> None:
        self.told.append((trio.current_time(), "retry_in", seconds))

    def refused(self, reason: str) -> None:
        self.told.append((trio.current_time(), "refused", reason))

    def all(self, what: str) -> list[object]:
        return [value for _, name, value in self.told if name == what]


@attrs.define
class Life:
    """Becomes ready, lasts a while, then ends with `end`."""

    end: BaseException | None
    flowing: bool = False
    ready: bool = True
    lasts: float = 0.0
    cleanup: Callable[[], Awaitable[None]] | None = None

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        if self.ready:
            task_status.started()
        try:
            await trio.sleep(self.lasts)
        finally:
            if self.cleanup:
                await self.cleanup()
        if self.end is not None:
            raise self.end


def lives(*them: Life) -> Callable[[], Child]:
    rest = iter(them)
    return lambda: next(rest)


def policy(random: Iterable[float] = (), **changes: float) -> RestartPolicy:
    values = iter(random)
    return RestartPolicy(random=lambda: next(values, 1.0), **changes)  # type: ignore[arg-type]


def lost(*, flowing: bool = False, lasts: float = 0.0) -> Life:
    return Life(ConnectionLost("reset"), flowing=flowing, lasts=lasts)


REFUSED = Refused("bad key")


async def test_delays_double_up_to_the_cap_and_start_anew_only_after_data(autojump_clock: MockClock) -> None:
    seen = Seen()
    children = lives(*[lost() for _ in range(5)], lost(flowing=True), lost(), Life(REFUSED))
    end = await supervise("a", children, policy(base_s=1, cap_s=6), observer=seen)
    assert end is REFUSED
    assert seen.all("retry_in") == [1, 2, 4, 6, 6, 1, 2]
    assert seen.all("attempt") == [1, 2, 3, 4, 5, 6, 2, 3]
    assert trio.current_time() == 22


async def test_jitter_is_full(autojump_clock: MockClock) -> None:
    seen = Seen()
    children = lives(lost(), lost(), lost(), Life(REFUSED))
    await supervise("a", children, policy([0.0, 0.5, 0.25], base_s=8), observer=seen)
    assert seen.all("retry_in") == [0.0, 8.0, 8.0]


async def test_never_gives_up_and_never_waits_longer_than_the_cap(autojump_clock: MockClock) -> None:
    days = 3 * 24 * 3600
    seen = Seen()
    with trio.move_on_after(days):
        await supervise("a", lost, policy(cap_s=60), observer=seen)
    delays = seen.all("retry_in")
    assert len(delays) >= days / 60
    assert max(delays) == 60  # type: ignore[type-var]


def test_delays_grow_by_the_factor() -> None:
    gently = policy(base_s=1, cap_s=60, factor=1.5)
    assert [gently.delay(failures) for failures in (1, 2, 3, 100)] == [1, 1.5, 2.25, 60]
    assert policy(base_s=1, cap_s=60, factor=1.0).delay(100) == 1


def test_a_delay_after_very_many_failures() -> None:
    assert policy(cap_s=60).delay(10**6) == 60


async def test_what_the_observer_is_told_and_when(autojump_clock: MockClock) -> None:
    seen = Seen()
    children = lives(lost(lasts=7), Life(REFUSED, ready=False))
    await supervise("a", children, policy(base_s=1), observer=seen)
    assert seen.told == [
        (0, "attempt", 1),
        (0, "connected", None),
        (7, "lost", "reset"),
        (7, "retry_in", 1.0),
        (8, "attempt", 2),
        (8, "refused", "bad key"),
    ]


async def test_refusal_leaves_siblings_alone(caplog: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    ends: list[Refused | None] = []

    async def refused(*, task_status: trio.TaskStatus[None]) -> None:
        children = lives(Life(REFUSED, ready=False))
        ends.append(await supervise("okx/orders", children, policy(), observer=Seen(), task_status=task_status))

    async with trio.open_nursery() as nursery:
        await nursery.start(refused)  # would be an error if it ended without `started`
        await trio.sleep(1)
    assert ends == [REFUSED]
    assert "okx/orders: refused: bad key" in caplog.text


async def test_started_once_although_connected_twice(autojump_clock: MockClock) -> None:
    seen = Seen()

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        children = lives(lost(lasts=5), lost(lasts=5), Life(None))
        assert await supervise("a", children, policy(), observer=seen, task_status=task_status) is None

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        assert trio.current_time() == 0
    assert len(seen.all("connected")) == 3


async def test_a_child_that_was_never_ready_does_not_count_as_started(autojump_clock: MockClock) -> None:
    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        children = lives(Life(ConnectionLost("x"), ready=False, lasts=5), Life(REFUSED, lasts=9))
        await supervise("a", children, policy(base_s=1), observer=Seen(), task_status=task_status)

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        assert trio.current_time() == 6


async def test_bugs_are_logged_with_traceback_and_survived_within_their_budget(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    seen = Seen()
    bugs = [Life(ZeroDivisionError(str(index))) for index in range(4)]
    with pytest.raises(ZeroDivisionError, match="3"):
        await supervise("a", lives(*bugs), policy(max_bugs=3), observer=seen)
    assert seen.all("bug") == [ZeroDivisionError] * 4
    assert len(seen.all("retry_in")) == 3
    assert seen.all("lost") == []
    assert sum(record.exc_info is not None and record.levelno == logging.ERROR for record in caplog.records) == 4


async def test_old_bugs_are_forgiven(autojump_clock: MockClock) -> None:
    bugs = [Life(ZeroDivisionError(), lasts=60, flowing=True) for _ in range(20)]
    end = await supervise("a", lives(*bugs, Life(REFUSED)), policy(max_bugs=3, bug_window_s=180), observer=Seen())
    assert end is REFUSED


async def test_a_child_that_cannot_be_made_is_a_bug_too(autojump_clock: MockClock) -> None:
    def make_child() -> Child:
        raise KeyError("BTCUSDT")

    with pytest.raises(KeyError):
        await supervise("a", make_child, policy(max_bugs=0), observer=Seen())


@pytest.mark.parametrize(
    ("group", "told"),
    [
        (ExceptionGroup("", [HeartbeatLost("no pong")]), ("lost", "no pong")),
        (
            ExceptionGroup("", [ExceptionGroup("", [HeartbeatLost("no pong")]), ConnectionLost("x")]),
            ("lost", "no pong"),
        ),
        (ExceptionGroup("", [ConnectionLost("x"), Refused("bad key")]), ("refused", "bad key")),
        (ExceptionGroup("", [ConnectionLost("x"), ZeroDivisionError()]), ("bug", ExceptionGroup)),
    ],
)
async def test_groups_count_by_their_gravest_member(
    group: ExceptionGroup, told: tuple[str, object], autojump_clock: MockClock
) -> None:
    seen = Seen()
    await supervise("a", lives(Life(group), Life(REFUSED)), policy(), observer=seen)
    assert told in [(what, value) for _, what, value in seen.told]
    assert [what for _, what, _ in seen.told][2] == told[0]


async def fail_at_once(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("error", [ConnectionLost("while closing"), ZeroDivisionError()])
async def test_cancellation_is_not_mistaken_for_a_loss_and_beats_bugs(
    error: Exception, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    seen = Seen()

    class Messy(Life):
        async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)

                async def fail_when_cancelled() -> None:
                    try:
                        await trio.sleep_forever()
                    finally:
                        raise error

                nursery.start_soon(fail_when_cancelled)

    with trio.move_on_after(5) as scope:
        await supervise("a", lives(Messy(None)), policy(), observer=seen)
    assert scope.cancelled_caught
    assert trio.current_time() == 5
    assert seen.all("retry_in") == []
    assert ("ZeroDivisionError" in caplog.text) == isinstance(error, ZeroDivisionError)


async def test_what_must_end_the_process_does(autojump_clock: MockClock) -> None:
    with pytest.raises(SystemExit):
        await supervise("a", lives(Life(SystemExit(3))), policy(), observer=Seen())
