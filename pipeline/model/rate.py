"""Rates and budgets: how often something may be done. Pure; the caller tells the time."""

from __future__ import annotations

import math
from collections import deque

import attrs

# A caller that sleeps for exactly `wait()` seconds may arrive one rounding error early.
_SLACK_S = 1e-6


@attrs.frozen
class Rate:
    """At most `count` times within any `seconds`."""

    count: int = attrs.field(validator=attrs.validators.gt(0))
    seconds: float = attrs.field(validator=attrs.validators.gt(0))


@attrs.define(eq=False)
class Budget:
    """A sliding window over one rate: never more than `rate.count` takes within `rate.seconds`.

    A token bucket of the same rate would let up to twice as many pass, and venues ban for that.
    """

    rate: Rate
    _taken: deque[float] = attrs.field(factory=deque, init=False)

    def free_at(self, count: int = 1) -> float:
        """When `count` takes at once are next allowed; `-math.inf` if at any time. `ValueError` if never."""
        if not 0 < count <= self.rate.count:
            raise ValueError(f"{count} at once is never within {self.rate.count} per {self.rate.seconds:g} s")
        last_in_the_way = len(self._taken) + count - self.rate.count - 1
        return self._taken[last_in_the_way] + self.rate.seconds if last_in_the_way >= 0 else -math.inf

    def wait(self, now: float, count: int = 1) -> float:
        """Seconds until `count` takes at once are allowed; 0 if they are allowed now."""
        seconds = self.free_at(count) - now
        return seconds if seconds > _SLACK_S else 0.0

    def take(self, now: float, count: int = 1) -> None:
        """Use `count`; the caller has seen `wait(now, count) == 0`."""
        for _ in range(count):
            if len(self._taken) >= self.rate.count:
                self._taken.popleft()
            self._taken.append(now)
