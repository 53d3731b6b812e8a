"""What several processes say about themselves, made one: metrics with a label of the process, and one status."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from pipeline.observe.metrics import render

LABEL = "worker"

_WORST = ("refused", "starting", "stopped", "running")
"""States of a venue, the one that matters most first."""
_ALL = frozenset({"broker_up"})
"""True only if it is so everywhere; any other yes or no is true if it is so anywhere."""
_GREATEST = frozenset(
    {
        "instruments",
        "markets",
        "clock_offset",
        "throttled_ms",
        "round_trip_p50_us",
        "round_trip_p99_us",
        "lag",
        "brokers_up",
        "oldest_age",
    }
)
_LEAST = frozenset({"safe_until", "reading_stopped_at", "down_since", "markets_read"})
"""Any other number is a sum."""


def merge_metrics(sources: Iterable[tuple[str | None, bytes]]) -> bytes:
    """One text out of several in the Prometheus text format, each with the value of its label.

    Each family appears once. Samples of a source without a value keep the labels that they have.
    """
    return render([_Merged(sources)])()


def merge_statuses(statuses: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`venues` and `sink` of several processes' statuses as if they were one process's.

    Counters are sums, connections stand beside each other, and of what cannot be added the more alarming is told.
    `sink` is None while none of them has one.
    """
    return {
        "venues": _merged("venues", [status["venues"] for status in statuses]) or {},
        "sink": _merged("sink", [status["sink"] for status in statuses]),
    }


class _Merged(Collector):
    def __init__(self, sources: Iterable[tuple[str | None, bytes]]) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for value, text in self._sources:
            for family in text_string_to_metric_families(text.decode()):
                whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    labels = sample.labels if value is None else {**sample.labels, LABEL: value}
                    whole.samples.append(sample._replace(labels=labels))
        yield from families.values()


def _merged(name: str, values: Sequence[Any]) -> Any:
    values = [value for value in values if value is not None]
    if not values:
        return None
    first = values[0]
    if isinstance(first, bool):
        return all(values) if name in _ALL else any(values)
    if isinstance(first, int | float):
        return _number(name, values)
    if isinstance(first, Mapping):
        keys = dict.fromkeys(key for value in values for key in value)
        return {key: _merged(key, [value[key] for value in values if key in value]) for key in keys}
    if name == "state":
        return min(values, key=lambda state: _WORST.index(state) if state in _WORST else -1)
    if name == "counts":
        return [sum(column) for column in zip(*values, strict=True)]
    return next((value for value in values if value), first)


def _number(name: str, values: Sequence[float]) -> float:
    if name in _GREATEST:
        return max(values, key=abs)
    return min(values) if name in _LEAST else sum(values)
