"""What the connector exports: names of samples with the labels that they carry, from the collectors themselves."""

from __future__ import annotations

from collections.abc import Mapping

import trio
from prometheus_client.core import Metric

from pipeline.metric_reference import families

SCRAPED = frozenset({"namespace", "pod", "job", "instance"})
"""Labels that Prometheus adds when it scrapes a pod."""

_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def exported() -> Mapping[str, frozenset[str]]:
    """Labels by the sample's name; of those that Prometheus knows by itself, `up` is among them."""
    found: dict[str, set[str]] = {"up": set()}
    for family in trio.run(_families):  # how late the event loop is can only be told in one
        for suffix in _SUFFIXES[family.type]:
            labels = found.setdefault(family.name + suffix, set())
            for sample in family.samples:
                labels.update(sample.labels)
    return {name: SCRAPED | labels for name, labels in found.items()}


async def _families() -> list[Metric]:
    return list(families())
