"""Rates and budgets: how often something may be done. Pure; the caller tells the time."""

from __future__ import annotations

from collections import deque

import attrs


@attrs.frozen
class Rate:
    """At most `count` times within any `seconds`."""

    count: int
    seconds: float


@attrs.define(eq=False)
class Budget:
    """A sliding window over one rate: never more than `rate.count` takes within `rate.seconds`."""

    rate: Rate
    _taken: deque[float] = attrs.field(factory=deque, init=False)

    def wait(self, now: float) -> float:
        """Seconds until the next take is allowed; 0 if it is allowed now."""
        if len(self._taken) < self.rate.count:
            return 0.0
        return max(0.0, self._taken[0] + self.rate.seconds - now)

    def take(self, now: float) -> None:
        """Use one; the caller has seen `wait(now) == 0`."""
        if len(self._taken) >= self.rate.count:
            self._taken.popleft()
        self._taken.append(now)
