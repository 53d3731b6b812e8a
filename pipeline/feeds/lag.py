"""How far a connection is behind its venue, told from the times in its messages. Pure.

A venue's clock and ours differ, and nobody knows by how much. So a delay counts from the smallest one of late, which
has that difference in it too. Delays are taken by a monotonic clock: to set the wall clock makes no lag.
"""

from __future__ import annotations

from math import inf

import attrs

LATE = 2
"""Ticks in a row beyond the bound until a connection lags: one message that the venue held back is no lag."""
CALM = 4
"""Ticks in a row within half of the bound until it has caught up."""
MEMORY = 1800.0
"""Seconds for which the smallest delay is remembered, at least: a lag of twice as long is taken for the clocks' own."""


@attrs.define(eq=False)
class Floor:
    """The smallest delay in the last `MEMORY` to twice `MEMORY` seconds; one for all generations of a connection."""

    _latest: float = attrs.field(default=inf, init=False)
    _before: float = attrs.field(default=inf, init=False)
    _until: float = attrs.field(default=-inf, init=False)

    def note(self, delay: float, now: float) -> float:
        """Take a delay of this moment, give the smallest."""
        if now >= self._until:
            self._before, self._latest, self._until = self._latest, inf, now + MEMORY
        self._latest = min(self._latest, delay)
        return min(self._latest, self._before)


@attrs.define(eq=False)
class LagMeter:
    """Judges one generation of a connection. Times are seconds."""

    bound: float = 2.0
    floor: Floor = attrs.field(factory=Floor)
    lag: float = attrs.field(default=0.0, init=False)
    """In the last tick; 0 if nothing came: then nothing waits to be read either."""
    is_lagging: bool = attrs.field(default=False, init=False)
    _ticks: int = attrs.field(default=0, init=False)
    """In a row that speak for a change."""

    def tick(self, delay: float | None, now: float) -> bool:
        """Take the smallest delay since the last tick, None if nothing came; True if `is_lagging` has changed.

        A delay is the moment of receiving, by a monotonic clock of any epoch, minus the venue's time.
        """
        self.lag = 0.0 if delay is None else delay - self.floor.note(delay, now)
        speaks_for_change = self.lag <= self.bound / 2 if self.is_lagging else self.lag > self.bound
        self._ticks = self._ticks + 1 if speaks_for_change else 0
        if self._ticks < (CALM if self.is_lagging else LATE):
            return False
        self._ticks = 0
        self.is_lagging = not self.is_lagging
        return True
