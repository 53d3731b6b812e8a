"""Shared rate limits: never exceeded, fair, safe to cancel."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from pipeline.model.rate import Budget, Rate
from pipeline.session.limiter import Limiter


@given(
    st.integers(1, 5),
    st.floats(0.1, 10),
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 5)), max_size=40),
)
def test_no_window_ever_holds_more_than_the_rate(count: int, seconds: float, steps: list[tuple[float, int]]) -> None:
    budget, now, taken = Budget(Rate(count, seconds)), 0.0, list[float]()
    for pause, wanted in steps:
        now += pause
        many = min(wanted, count)
        wait = budget.wait(now, many)
        assert 0 <= wait <= seconds + 1e-9  # sums of floats are rounded
        now += wait
        assert budget.wait(now, many) == 0
        budget.take(now, many)
        taken += [now] * many
    for first, last in zip(taken, taken[count:], strict=False):
        assert last - first > seconds - 1e-5


def test_a_budget_makes_nobody_wait_longer_than_needed() -> None:
    budget = Budget(Rate(3, 10))
    for now in (0, 1, 2):
        assert budget.wait(now) == 0
        budget.take(now)
    assert [budget.wait(4), budget.wait(4, 2), budget.wait(4, 3)] == [6, 7, 8]
    assert budget.wait(10) == 0
    assert Budget(Rate(3, 10)).free_at(3) == -math.inf
    with pytest.raises(ValueError, match="4 at once is never within 3 per 10 s"):
        budget.wait(4, 4)


@pytest.mark.parametrize(("count", "seconds"), [(0, 1), (1, 0), (-1, 1)])
def test_rates_are_positive(count: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="must be > 0"):
        Rate(count, seconds)


async def acquire(limiter: Limiter, name: str, log: list[tuple[str, float]], count: int = 1) -> None:
    await limiter.acquire(count)
    log.append((name, trio.current_time()))


async def test_all_rates_hold_at_once_and_order_is_kept(autojump_clock: MockClock) -> None:
    limiter, log = Limiter(Rate(2, 1), Rate(3, 10)), list[tuple[str, float]]()
    async with trio.open_nursery() as nursery:
        for name in "abcdef":
            nursery.start_soon(acquire, limiter, name, log)
            await trio.testing.wait_all_tasks_blocked()
        assert limiter.waiting == 4
    assert log == [("a", 0), ("b", 0), ("c", 1), ("d", 10), ("e", 10), ("f", 11)]
    assert limiter.waiting == 0
    assert limiter.waited_s == 1 + 10 + 10 + 11


async def test_a_request_for_many_is_not_overtaken(autojump_clock: MockClock) -> None:
    limiter, log = Limiter(Rate(3, 10)), list[tuple[str, float]]()
    async with trio.open_nursery() as nursery:
        for name, count in (("one", 1), ("three", 3), ("last", 1)):
            nursery.start_soon(acquire, limiter, name, log, count)
            await trio.testing.wait_all_tasks_blocked()
    assert log == [("one", 0), ("three", 10), ("last", 20)]


async def test_a_cancelled_request_has_used_up_nothing_and_lets_the_next_one_go(autojump_clock: MockClock) -> None:
    limiter, log = Limiter(Rate(1, 10)), list[tuple[str, float]]()
    await limiter.acquire()
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(5):
            nursery.start_soon(acquire, limiter, "patient", log)
            await limiter.acquire()
    assert log == [("patient", 10)]
    await limiter.acquire()
    assert trio.current_time() == 20
    assert limiter.waiting == 0


async def test_hold_stops_everyone_including_those_who_wait(autojump_clock: MockClock) -> None:
    limiter, log = Limiter(Rate(1, 1)), list[tuple[str, float]]()
    await limiter.acquire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(acquire, limiter, "waits already", log)
        await trio.testing.wait_all_tasks_blocked()
        limiter.hold(600)
        limiter.hold(5)  # shortens nothing
        nursery.start_soon(acquire, limiter, "comes later", log)
    assert log == [("waits already", 600), ("comes later", 601)]


async def test_acquire_is_a_checkpoint_and_needs_no_rate() -> None:
    with trio.testing.assert_checkpoints():
        await Limiter().acquire()


async def test_more_than_the_rate_allows_is_an_error_and_blocks_nobody(autojump_clock: MockClock) -> None:
    limiter = Limiter(Rate(2, 1))
    with pytest.raises(ValueError, match="3 at once"):
        await limiter.acquire(3)
    await limiter.acquire(2)
    assert limiter.waiting == 0
