"""The reference of the metrics, as Markdown, read from what exports them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import trio
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pipeline.app import Service
from pipeline.config import Config
from pipeline.feeds.shares import WHOLE
from pipeline.model.latency import Latency
from pipeline.model.order_stats import OrderStats
from pipeline.model.stats import ArchiveStats, ConnectionStats, VenueStats
from pipeline.observe.metrics import FeedCollector, Numbers
from pipeline.observe.orders import OrderCollector
from pipeline.sink.numbers import sink_numbers
from pipeline.sink.stats import JournalStats, KafkaGauges, SinkStats
from pipeline.workers import Worker, WorkerCollector

_INTRODUCTION = """\
# Metrics

Everything that `/metrics` tells. Written by `python -m pipeline reference metrics` from the program itself.

- A **counter** rises while the process lives and begins anew with it: ask for `rate` or `increase`. A **histogram** has
  `_bucket`, `_sum` and `_count`. Times are seconds; a timestamp is in seconds since 1970 UTC.
- With `workers`, `pipeline_worker_*` and `pipeline_config_*` come from the process that watches over them, and all else
  has the label `worker` beside those that are named here: the worker's number, or `supervisor` for that process. Of
  `pipeline_ready`, the one with `supervisor` speaks for all. What a worker told last stays until it answers or ends.
- Metrics of accounts, archives and orders are there where those are configured, those of the journal and of
  transactions with `kafka.journal` and `kafka.delivery: exactly_once`, those with a further label (a kind, a cause)
  once there is something to tell.

Which of them wake somebody is in the [runbook](../runbook/README.md).

| metric | type | labels | meaning |
|---|---|---|---|
"""


def markdown() -> str:
    """The whole reference."""
    return _INTRODUCTION + "".join(f"{row}\n" for row in sorted(map(_row, trio.run(_read))))


def families() -> Iterator[Metric]:
    """Every metric that some configuration exports, with a sample for each further label. In an event loop."""
    return (family for collector in _collectors() for family in collector.collect())


def _row(family: Metric) -> str:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
    told = ", ".join(f"`{label}`" for label in labels)
    return f"| `{name}` | {family.type} | {told} | {family.documentation} |"


async def _read() -> list[Metric]:
    """Each metric once: some parts tell nothing before the service runs, and come twice here."""
    found: dict[str, Metric] = {}
    for family in families():
        known = found.get(family.name)
        if known is None or not known.samples:
            found[family.name] = family
    return list(found.values())


def _collectors() -> Iterator[Collector]:
    connection = ConnectionStats("id", "venue", "group", "endpoint", "url")
    for counts in (connection.reconnects, connection.conflated):
        counts["what"] = 1
    connection.unknown_fields["field"] = None
    connection.reconciles = True
    venue = VenueStats(
        "venue", connections={"id": connection}, archive=ArchiveStats(), arrivals={"kind": Latency((1.0,))}
    )
    yield FeedCollector(lambda: [venue])
    yield Numbers(lambda: sink_numbers(_sink_stats()))
    yield from Service(Config()).collectors()
    orders = OrderStats("venue", "account")
    for counts in (orders.commands, orders.results, orders.refusals, orders.reconnects):
        counts["what"] = 1
    yield OrderCollector(lambda: [orders])
    yield WorkerCollector([Worker(0, WHOLE)], lambda _: True)


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
