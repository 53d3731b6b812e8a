"""Budgets: ours, and as the venue counts them."""

from __future__ import annotations

from math import inf

from pipeline.exchanges.trading import Cost
from pipeline.model.rate import Rate
from pipeline.orders.budgets import MAX_KEYS, Budgets

RATE = Rate(2, 1.0)


def test_what_was_taken_comes_back_after_its_time() -> None:
    budgets, cost = Budgets(), Cost("create", RATE)
    assert budgets.free_at([cost]) == -inf
    budgets.take([cost], 10.0)
    budgets.take([cost], 10.5)
    assert budgets.free_at([cost]) == 11.0
    assert budgets.free_at([Cost("create", RATE, 2)]) == 11.5
    assert budgets.free_at([Cost("cancel", RATE, 2)]) == -inf


def test_the_last_budget_that_is_free_counts() -> None:
    budgets = Budgets()
    budgets.take([Cost("one", RATE, 2)], 1.0)
    budgets.take([Cost("two", RATE, 2)], 2.0)
    assert budgets.free_at([Cost("one", RATE), Cost("two", RATE)]) == 3.0


def test_what_no_budget_allows_is_never_free() -> None:
    assert Budgets().free_at([Cost("create", RATE, 3)]) == inf


def test_a_hold_is_never_shortened() -> None:
    budgets, cost = Budgets(), Cost("create", RATE)
    budgets.hold(cost, 20.0, 1.0)
    budgets.hold(cost, 5.0, 1.0)
    budgets.hold_known("create", 6.0)
    budgets.hold_known("nobody asked", 90.0)
    assert budgets.free_at([cost]) == 20.0
    assert budgets.free_at([Cost("nobody asked", RATE)]) == -inf


def test_idle_budgets_are_forgotten_when_there_are_many() -> None:
    budgets = Budgets()
    budgets.hold(Cost("held", RATE), 100.0, 0.0)
    for number in range(MAX_KEYS):
        budgets.take([Cost(f"create {number}", RATE)], 0.0)
    budgets.take([Cost("one more", RATE)], 50.0)
    assert len(budgets._by_key) == 2
    assert budgets.free_at([Cost("held", RATE)]) == 100.0
