"""The venue's rate budgets for order entry, as we count them and as the venue reports its own count. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

import attrs

from pipeline.exchanges.trading import Cost
from pipeline.model.rate import Budget

MAX_KEYS = 4_096
"""Budgets kept at once: venues count by instrument, of which there are thousands."""


@attrs.define(eq=False)
class _Account:
    budget: Budget
    held_until: float = -inf


@attrs.define(eq=False)
class Budgets:
    """What one account may still ask of its venue. Times are seconds of the run's monotonic clock."""

    _by_key: dict[str, _Account] = attrs.field(factory=dict, init=False)

    def free_at(self, costs: Iterable[Cost]) -> float:
        """When these costs are next covered; `-inf` at any time, `inf` for what no budget ever allows at once."""
        free = -inf
        for cost in costs:
            if cost.units > cost.rate.count:
                return inf
            known = self._by_key.get(cost.key)
            if known is not None:
                free = max(free, known.held_until, known.budget.free_at(cost.units))
        return free

    def take(self, costs: Iterable[Cost], now: float) -> None:
        """Use them up; the caller has seen that they are free."""
        for cost in costs:
            self._of(cost, now).budget.take(now, cost.units)

    def hold(self, cost: Cost, until: float, now: float) -> None:
        """Nothing more of this budget before then: the venue has said so. Never shortens an earlier hold."""
        known = self._of(cost, now)
        known.held_until = max(known.held_until, until)

    def hold_known(self, key: str, until: float) -> None:
        """The same for a budget that the venue names; what we never took of is no concern."""
        if (known := self._by_key.get(key)) is not None:
            known.held_until = max(known.held_until, until)

    def _of(self, cost: Cost, now: float) -> _Account:
        known = self._by_key.get(cost.key)
        if known is None:
            if len(self._by_key) >= MAX_KEYS:
                self._forget_idle(now)
            known = self._by_key[cost.key] = _Account(Budget(cost.rate))
        return known

    def _forget_idle(self, now: float) -> None:
        """Budgets that are whole again are as good as new ones."""
        for key, known in list(self._by_key.items()):
            if known.held_until <= now and known.budget.free_at(known.budget.rate.count) <= now:
                del self._by_key[key]
