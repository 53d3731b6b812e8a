"""What a client may still ask for: sliding windows by name, made when first needed."""

from __future__ import annotations

from collections.abc import Hashable

import attrs

from pipeline.model.rate import Budget, Rate


@attrs.define(eq=False)
class Allowances:
    """One budget per key; `factor` multiplies every rate, as for accounts of a higher tier."""

    factor: int = 1
    _budgets: dict[Hashable, Budget] = attrs.field(factory=dict, init=False)

    def take(self, key: Hashable, rate: Rate, now: float, count: int = 1) -> bool:
        """Use `count` of a budget if it has so much left."""
        budget = self._budget(key, rate)
        if count > budget.rate.count or budget.wait(now, count):
            return False
        budget.take(now, count)
        return True

    def left(self, key: Hashable, rate: Rate, now: float) -> int:
        """How much could be used at once."""
        budget = self._budget(key, rate)
        return next((count for count in range(budget.rate.count, 0, -1) if not budget.wait(now, count)), 0)

    def wait(self, key: Hashable, rate: Rate, now: float) -> float:
        """Seconds until there is something left."""
        return self._budget(key, rate).wait(now)

    def count(self, rate: Rate) -> int:
        """What a rate allows here."""
        return rate.count * self.factor

    def _budget(self, key: Hashable, rate: Rate) -> Budget:
        if key not in self._budgets:
            self._budgets[key] = Budget(attrs.evolve(rate, count=self.count(rate)))
        return self._budgets[key]
