"""Metrics as tables: what each is called, and how it is read of one thing; read of many things at scrape time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Generic, TypeVar

import attrs
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from pipeline.model.latency import Latency

T = TypeVar("T")

Labelled = tuple[tuple[str, ...], T]
"""Values of the labels, and what is told under them."""


@attrs.frozen
class Family(Generic[T]):
    """One metric."""

    make: type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]
    name: str
    text: str
    read: Callable[[T], Any]
    by: str
    """A further label, by whose values `read` gives a mapping; empty if it gives one value."""

    def metric(self, labels: Sequence[str], things: Iterable[Labelled[T]]) -> Metric:
        """The metric with a sample of each thing, or with one for each value of the further label."""
        metric = self.make(self.name, self.text, labels=(*labels, self.by) if self.by else labels)
        for where, thing in things:
            found = self.read(thing)
            if self.by:
                for key, value in sorted(found.items()):
                    metric.add_metric((*where, key), *_sample(value))
            else:
                metric.add_metric(where, *_sample(found))
        return metric


def counter(name: str, text: str, read: Callable[[T], float | Mapping[str, float]], *, by: str = "") -> Family[T]:
    """What only rises while the process lives; Prometheus adds `_total` to the name."""
    return Family(CounterMetricFamily, name, text, read, by)


def gauge(name: str, text: str, read: Callable[[T], float | Mapping[str, float]], *, by: str = "") -> Family[T]:
    """What rises and falls."""
    return Family(GaugeMetricFamily, name, text, read, by)


def histogram(name: str, text: str, read: Callable[[T], Latency | Mapping[str, Latency]], *, by: str = "") -> Family[T]:
    """How long something took."""
    return Family(HistogramMetricFamily, name, text, read, by)


def collected(families: Iterable[Family[T]], labels: Sequence[str], things: Sequence[Labelled[T]]) -> Iterator[Metric]:
    """The metrics of a table; one without samples is told too, so that it is known to exist."""
    return (family.metric(labels, things) for family in families)


def _sample(value: float | Latency) -> tuple[Any, ...]:
    """As Prometheus wants it; a histogram's counts cumulated, by upper bound."""
    if not isinstance(value, Latency):
        return (value,)
    limits = [*(str(float(bound)) for bound in value.bounds_s), "+Inf"]
    return list(zip(limits, accumulate(value.counts), strict=True)), value.sum_s
