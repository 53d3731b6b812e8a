"""Statuses as the service tells them, made of the real classes, for tests that need certain ones."""

from __future__ import annotations

from typing import Any

import attrs

from pipeline.model.latency import DELIVERY_BOUNDS_S, Latency
from pipeline.model.order_stats import OrderStats
from pipeline.model.stats import ConnectionStats, VenueStats
from pipeline.sink.stats import JournalStats, KafkaGauges, SinkStats

START = 1_763_800_000_000_000
"""2025-11-22 08:26:40 UTC."""
SECOND = 1_000_000


def connection(id: str, *, state: str = "live", **fields: Any) -> ConnectionStats:
    """A connection that has been live since the start, unless said otherwise."""
    venue, market, group, *_ = id.split(".")
    stats = ConnectionStats(id, venue, group, market, f"wss://{venue}.test/ws", state=state, generation=1, since=START)
    stats.subscriptions = stats.subscribed = 3
    stats.last_receive = START
    for name, value in fields.items():
        assert hasattr(stats, name)
        setattr(stats, name, value)
    return stats


def venue(name: str, *connections: ConnectionStats, state: str = "running", **fields: Any) -> VenueStats:
    """A venue whose catalogue was read."""
    stats = VenueStats(name, state=state, instruments=5, catalogue_reads=1, connections={c.id: c for c in connections})
    for field, value in fields.items():
        assert hasattr(stats, field)
        setattr(stats, field, value)
    return stats


def sink(**fields: Any) -> SinkStats:
    """A sink with nothing to complain about."""
    healthy = SinkStats(
        published=1_000, recovered=0, acknowledged=990, in_flight=10, spooled=0, announced_lost=0, dead_letters=0,
        returned=0, spool_bytes=0, is_spooling=False, broker_up=True, spool_failure=None, by_kind={"trade": 1_000},
        latency=Latency(DELIVERY_BOUNDS_S), kafka=KafkaGauges(brokers_up=3), safe_until=START,
    )  # fmt: skip
    return attrs.evolve(healthy, **fields)


def healthy_venues() -> list[VenueStats]:
    """Two venues with three connections, all live."""
    return [
        venue("bybit", connection("bybit.linear.book.0"), connection("bybit.linear.trade.0")),
        venue("okx", connection("okx.swap.book.0")),
    ]


def status(*venues: VenueStats, sink: SinkStats | None, now: int = START, **fields: Any) -> dict[str, Any]:
    """What `Service.status` gives."""
    return {
        "version": "0.1.0",
        "started": START - 3_600 * SECOND,
        "now": now,
        "ready": True,
        "not_ready": [],
        "venues": {each.name: attrs.asdict(each) for each in venues},
        "sink": attrs.asdict(sink) if sink is not None else None,
        "spool": {"max_bytes": 10 * 1024**3, "when_full": "refuse_new"},
        "process": {"pid": 1, "resident_bytes": 100 * 1024**2, "loop_late_s": 0.0},
        "recent": [],
        **fields,
    }


def healthy(now: int = START, **fields: Any) -> dict[str, Any]:
    """All is well."""
    return status(*healthy_venues(), sink=sink(), now=now, **fields)


def orders(**fields: Any) -> dict[str, Any]:
    """Order entry for one account, as `Service.status` gives it: all is well unless said otherwise."""
    stats = OrderStats("okx", "desk", state="owner", connection="live", generation=1)
    for name, value in fields.items():
        assert hasattr(stats, name)
        setattr(stats, name, value)
    return {"okx.desk": attrs.asdict(stats)}


def worker(number: int, **fields: Any) -> dict[str, Any]:
    """One of several processes, as their supervisor describes it."""
    return {
        "worker": number, "state": "running", "since": START, "pid": 100 + number, "restarts": 0, "last_end": "",
        "address": f"http://127.0.0.1:{9000 + number}", "answers": True, "not_ready": [], **fields,
    }  # fmt: skip


FENCED = JournalStats(waiting=12, lag=1.5, fenced=True)
