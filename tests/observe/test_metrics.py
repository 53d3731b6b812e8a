"""Metrics are what the counters say, under names that Prometheus takes."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from pipeline.model.latency import Latency
from pipeline.model.stats import ConnectionStats, VenueStats
from pipeline.observe.loop import LoopWatch
from pipeline.observe.metrics import Distribution, FeedCollector, Numbers, ProcessCollector, render


def parsed(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_connections_are_labelled_by_venue_and_identifier() -> None:
    stats = ConnectionStats("toy.book.0", "toy", "book", "spot", "ws://toy", state="live", generation=3)
    stats.messages, stats.gaps, stats.exchange_lag = 7, 2, 1_500_000
    stats.reconnects["HeartbeatLost"] = 2
    venue = VenueStats("toy", state="running", instruments=5, connections={"toy.book.0": stats})
    metrics = parsed(render([FeedCollector(lambda: [venue])])())
    where = (("connection", "toy.book.0"), ("venue", "toy"))
    assert metrics["pipeline_messages_total", where] == 7
    assert metrics["pipeline_book_gaps_total", where] == 2
    assert metrics["pipeline_exchange_lag_seconds", where] == 1.5
    assert metrics["pipeline_connection_live", where] == 1
    assert metrics["pipeline_reconnects_total", (("cause", "HeartbeatLost"), *where)] == 2
    assert metrics["pipeline_instruments", (("venue", "toy"),)] == 5
    assert metrics["pipeline_venue_refused", (("venue", "toy"),)] == 0


def test_a_connection_that_is_not_subscribed_is_not_live() -> None:
    stats = ConnectionStats("a", "toy", "book", "spot", "ws://toy", state="retrying")
    venue = VenueStats("toy", state="refused", connections={"a": stats})
    metrics = parsed(render([FeedCollector(lambda: [venue])])())
    assert metrics["pipeline_connection_live", (("connection", "a"), ("venue", "toy"))] == 0
    assert metrics["pipeline_venue_refused", (("venue", "toy"),)] == 1


def test_a_connection_behind_its_venue_is_live_and_lags() -> None:
    stats = ConnectionStats("a", "toy", "book", "spot", "ws://toy", state="lagging", lag=2_500_000, lags=3)
    stats.conflated |= {"bbo": 4, "ticker": 9}
    metrics = parsed(render([FeedCollector(lambda: [VenueStats("toy", connections={"a": stats})])])())
    where = (("connection", "a"), ("venue", "toy"))
    assert metrics["pipeline_connection_live", where] == 1
    assert metrics["pipeline_lagging", where] == 1
    assert metrics["pipeline_connection_lag_seconds", where] == 2.5
    assert metrics["pipeline_lags_total", where] == 3
    kinds = {kind: (("connection", "a"), ("kind", kind), ("venue", "toy")) for kind in stats.conflated}
    assert [metrics["pipeline_conflated_events_total", kinds[kind]] for kind in ("bbo", "ticker")] == [4, 9]


def test_values_are_read_at_each_scrape() -> None:
    numbers = [("pipeline_things", "Things.", "counter", 1.0)]
    page = render([Numbers(lambda: numbers)])
    assert parsed(page())["pipeline_things_total", ()] == 1
    numbers[0] = ("pipeline_things", "Things.", "counter", 4.0)
    assert parsed(page())["pipeline_things_total", ()] == 4


def test_a_distribution_is_cumulated() -> None:
    page = render([Distribution("pipeline_wait_seconds", "Waiting.", lambda: Latency((0.1, 1.0), [2, 3, 1], 4.5))])
    metrics = parsed(page())
    assert metrics["pipeline_wait_seconds_bucket", (("le", "0.1"),)] == 2
    assert metrics["pipeline_wait_seconds_bucket", (("le", "1.0"),)] == 5
    assert metrics["pipeline_wait_seconds_bucket", (("le", "+Inf"),)] == 6
    assert metrics["pipeline_wait_seconds_count", ()] == 6
    assert metrics["pipeline_wait_seconds_sum", ()] == 4.5


def test_the_process_tells_its_memory() -> None:
    metrics = parsed(render([ProcessCollector(LoopWatch(lambda: 7.0))])())
    assert metrics["process_resident_memory_bytes", ()] > 10_000_000
    assert metrics["pipeline_event_loop_lag_seconds", ()] == 0.0


def test_ages_of_what_comes_are_told_by_venue_and_kind() -> None:
    ages = Latency((0.0, 0.1))
    for seconds in (-3.0, 0.04, 0.05, 7.0):
        ages.observe(seconds)
    metrics = parsed(render([FeedCollector(lambda: [VenueStats("toy", arrivals={"trade": ages})])])())
    name, where = "pipeline_exchange_to_receive_seconds", (("kind", "trade"), ("venue", "toy"))
    assert [metrics[f"{name}_bucket", (where[0], ("le", le), where[1])] for le in ("0.0", "0.1", "+Inf")] == [1, 3, 4]
    assert metrics[f"{name}_sum", where] == 7.09, "a counter must not fall"


def test_only_accounts_that_are_read_can_be_overdue() -> None:
    def account(name: str, **fields: Any) -> ConnectionStats:
        return ConnectionStats(name, "toy", "private", "private", "ws://toy", account=name, **fields)

    every = [
        account("read", reconciles=True, reconcile_every=60.0, reconciled=5_000_000),
        account("once", reconciles=True),
        account("off", reconcile_every=60.0),
        ConnectionStats("public", "toy", "book", "spot", "ws://toy"),
    ]
    metrics = parsed(render([FeedCollector(lambda: [VenueStats("toy", connections={c.id: c for c in every})])])())
    found = {
        (name, dict(labels)["connection"]): value for (name, labels), value in metrics.items() if "reconcile" in name
    }
    assert found == {
        ("pipeline_reconciled_timestamp_seconds", "read"): 5,
        ("pipeline_reconcile_interval_seconds", "read"): 60,
        ("pipeline_reconciled_timestamp_seconds", "once"): 0,
        ("pipeline_reconcile_interval_seconds", "once"): float("inf"),
    }
