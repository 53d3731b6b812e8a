"""How late the event loop is: a task asks to be woken at fixed times and measures when it is."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import attrs
import trio

TICK_S = 0.5


@attrs.define(eq=False)
class LoopWatch:
    """Seconds between the moment a task wanted to run and the moment it did."""

    clock: Callable[[], float] = trio.current_time
    """Monotonic seconds."""
    tick_s: float = TICK_S
    _due: float = attrs.field(default=inf, init=False)
    _last: float = attrs.field(default=0.0, init=False)

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            self._due = self.clock() + self.tick_s
            await trio.sleep_until(self._due)
            self._last = max(0.0, self.clock() - self._due)

    @property
    def late_s(self) -> float:
        """The last measurement, or what has already become of the one under way."""
        return max(self._last, self.clock() - self._due, 0.0)
