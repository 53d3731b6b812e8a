"""How long things took, kept as counts per upper bound so that one more costs next to nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import attrs

EXCHANGE_BOUNDS_S = (
    0.0, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
)  # fmt: skip
"""From the venue's clock to ours. What seems to have come before it was sent is in the first: the clocks differ."""
PRODUCE_BOUNDS_S = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0, 60.0, 600.0,
)  # fmt: skip
DELIVERY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

SAMPLED = 63
"""One in 64 records is looked at: `not number & SAMPLED`."""


@attrs.define(eq=False)
class Latency:
    """Seconds that something took, of a sample."""

    bounds_s: Sequence[float]
    """Upper bounds, rising."""
    counts: list[int] = attrs.field()
    """Per upper bound, not cumulated; the last one is for what took longer."""
    sum_s: float = 0.0
    """Without what took less than no time."""

    @counts.default
    def _no_counts(self) -> list[int]:
        return [0] * (len(self.bounds_s) + 1)

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        if seconds > 0:
            self.sum_s += seconds
