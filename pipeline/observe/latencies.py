"""How long things took in the last minute: percentiles, from the histograms of one status after the other. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import attrs

from pipeline.observe import wording
from pipeline.observe.history import Samples

PRODUCED, ACKNOWLEDGED, RECEIVED = "until_produced", "latency", "received"
"""From receiving to librdkafka, from there to the acknowledgement, and from all exchanges to receiving."""


@attrs.define(eq=False)
class Latencies:
    """Remembers the histograms of the last minute, by what they are about: see above, venues and orders by name."""

    _samples: Samples = attrs.field(factory=lambda: Samples(60.0, apart_s=5.0), init=False)
    _bounds_s: dict[Hashable, Sequence[float]] = attrs.field(factory=dict, init=False)

    def note(self, status: Mapping[str, Any]) -> None:
        """Take those of this moment."""
        counts = Counter[Hashable]()
        for about, histogram in _histograms(status):
            self._bounds_s[about] = histogram["bounds_s"]
            counts.update({(about, position): count for position, count in enumerate(histogram["counts"])})
        self._samples.note(status["now"], counts)

    def percentiles(self, about: Hashable) -> tuple[str, str] | None:
        """Upper bounds of p50 and p99, as far as the histogram tells them apart; None if nothing was counted."""
        bounds_s = self._bounds_s.get(about, ())
        rises = [self._samples.increase((about, position)) or 0.0 for position in range(len(bounds_s) + 1)]
        if not sum(rises):
            return None
        return _quantile(rises, bounds_s, 0.5), _quantile(rises, bounds_s, 0.99)


def _histograms(status: Mapping[str, Any]) -> Iterator[tuple[Hashable, Mapping[str, Any]]]:
    for name, venue in status["venues"].items():
        for histogram in venue["arrivals"].values():
            yield ("venue", name), histogram
            yield RECEIVED, histogram
    for name, account in status.get("orders", {}).items():
        yield ("orders", name), account["until_sent"]
    if (sink := status["sink"]) is not None:
        yield PRODUCED, sink["until_produced"]
        yield ACKNOWLEDGED, sink["latency"]


def _quantile(rises: Sequence[float], bounds_s: Sequence[float], quantile: float) -> str:
    wanted = quantile * sum(rises)
    for bound, reached in zip(bounds_s, accumulate(rises), strict=False):
        if reached >= wanted:
            return f"≤ {wording.duration(bound)}" if bound > 0 else "below 0"
    return f"> {wording.duration(bounds_s[-1])}"
