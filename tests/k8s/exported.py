"""What the connector exports: names of samples with the labels that they carry, from the collectors themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import trio
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pipeline.app import Service
from pipeline.config import loads
from pipeline.feeds.shares import WHOLE
from pipeline.model.latency import Latency
from pipeline.model.order_stats import OrderStats
from pipeline.model.stats import ArchiveStats, ConnectionStats, VenueStats
from pipeline.observe.metrics import FeedCollector, Numbers
from pipeline.observe.orders import OrderCollector
from pipeline.sink.numbers import sink_numbers
from pipeline.sink.stats import JournalStats, KafkaGauges, SinkStats
from pipeline.workers import Worker, _WorkerCollector

SCRAPED = frozenset({"namespace", "pod", "job", "instance"})
"""Labels that Prometheus adds when it scrapes a pod."""

_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
_CONFIG = "venues: {bybit: {channels: [{market: linear, channel: trade, instruments: [BTCUSDT]}]}}"


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
    return [family for collector in _collectors() for family in collector.collect()]


def _collectors() -> Iterator[Collector]:
    connection = ConnectionStats("id", "venue", "group", "endpoint", "url")
    connection.reconnects["cause"] = 1
    connection.unknown_fields["field"] = None
    connection.reconciles = True
    ages = {"kind": Latency((1.0,))}
    venue = VenueStats("venue", connections={"id": connection}, archive=ArchiveStats(), arrivals=ages)
    yield FeedCollector(lambda: [venue])
    yield Numbers(lambda: sink_numbers(_sink_stats()))
    yield from Service(loads(_CONFIG))._collectors()
    orders = OrderStats("venue", "account")
    for counts in (orders.commands, orders.results, orders.refusals, orders.reconnects):
        counts["what"] = 1
    yield OrderCollector(lambda: [orders])
    yield _WorkerCollector([Worker(0, WHOLE)], lambda _: True)


def _sink_stats() -> SinkStats:
    special: dict[str, Any] = {
        "spool_failure": None,
        "by_kind": {},
        "latency": Latency((1.0,)),
        "until_produced": Latency((1.0,)),
        "refusing": {},
        "kafka": KafkaGauges(),
        "journal": JournalStats(waiting=0, lag=0.0),
    }
    numbers = {field.name: 0 for field in attrs.fields(SinkStats)}
    return SinkStats(**(numbers | special))
