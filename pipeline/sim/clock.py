"""Which time it is in a simulated exchange: wall-clock time that advances with Trio's clock, so that tests own it."""

from __future__ import annotations

import time

import attrs
import trio


@attrs.define
class SimulatedClock:
    """UTC from a starting point on; created inside a Trio run."""

    start_us: int = attrs.field(factory=lambda: time.time_ns() // 1000)
    _origin: float = attrs.field(factory=trio.current_time, init=False)

    def now_us(self) -> int:
        """Microseconds since 1970 UTC."""
        return self.start_us + int((trio.current_time() - self._origin) * 1e6)

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        return self.now_us() // 1000
