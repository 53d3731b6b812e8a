"""The sink's counters under their metric names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pipeline.sink.stats import SinkStats


class Number(NamedTuple):
    """One metric without labels."""

    name: str
    text: str
    kind: str
    """counter or gauge."""
    value: float


def sink_numbers(stats: SinkStats) -> Iterator[Number]:
    """The sink's metrics."""
    for name, text, value in _counters(stats):
        yield Number(name, text, "counter", value)
    for name, text, level in _gauges(stats):
        yield Number(name, text, "gauge", float(level))


def _counters(stats: SinkStats) -> Iterator[tuple[str, str, int]]:
    yield "pipeline_sink_published", "Records taken over from the feeds.", stats.published
    yield "pipeline_sink_recovered", "Records that an earlier process left in the spool.", stats.recovered
    yield "pipeline_sink_acknowledged", "Records that are in Kafka.", stats.acknowledged
    yield "pipeline_sink_lost", "Records lost and announced as lost.", stats.announced_lost
    yield "pipeline_sink_dead_letters", "Dead letters published.", stats.dead_letters
    yield "pipeline_sink_returned", "Records that came back undelivered and were sent again.", stats.returned
    yield "pipeline_spool_dropped", "Records given up for newer ones in a full spool.", stats.dropped
    yield "pipeline_kafka_producer_renewals", "Broken producers that were replaced.", stats.renewals
    if stats.journal is not None:
        yield "pipeline_transaction_commits", "Committed transactions.", stats.journal.commits
        yield "pipeline_transaction_aborts", "Aborted transactions.", stats.journal.aborts
    yield "pipeline_kafka_sent_bytes", "Bytes sent to Kafka.", stats.kafka.sent_bytes
    yield "pipeline_kafka_request_timeouts", "Requests without an answer in time.", stats.kafka.request_timeouts


def _gauges(stats: SinkStats) -> Iterator[tuple[str, str, float]]:
    yield "pipeline_sink_in_flight", "Records that librdkafka holds.", stats.in_flight
    yield "pipeline_sink_spooled", "Records in the spool.", stats.spooled
    yield "pipeline_spool_bytes", "Size of the spool.", stats.spool_bytes
    yield "pipeline_spool_max_bytes", "Bound of the spool's size.", stats.spool_max_bytes
    text = "Age of the oldest record that is not in Kafka, queued or spooled; up to a second too much."
    yield "pipeline_sink_oldest_record_age_seconds", text, stats.oldest_age
    yield "pipeline_kafka_refusing_topics", "Topics that take no records at present.", len(stats.refusing)
    yield "pipeline_spool_active", "1 while records go through the spool.", stats.is_spooling
    yield "pipeline_spool_broken", "1 while the spool cannot be written.", stats.spool_failure is not None
    yield "pipeline_spool_full", "1 while the spool is full and records are lost.", stats.is_full
    stopped = stats.reading_stopped_at is not None
    yield "pipeline_spool_reading_stopped", "1 while the feeds are asked not to read.", stopped
    yield "pipeline_sink_safe_timestamp_seconds", "Everything received before is safe.", stats.safe_until / 1e6
    if stats.journal is not None:
        yield "pipeline_journal_waiting", "Records in the journal that are not delivered.", stats.journal.waiting
        yield "pipeline_journal_lag_seconds", "Age of the oldest record being delivered.", stats.journal.lag
        yield "pipeline_shard_fenced", "1 when another instance has taken over the shard.", stats.journal.fenced
    yield "pipeline_kafka_up", "1 while a broker answers.", stats.broker_up
    yield "pipeline_kafka_queue_bytes", "Bytes in librdkafka's queue.", stats.kafka.queue_bytes
    yield "pipeline_kafka_round_trip_seconds", "99th percentile of requests.", stats.kafka.round_trip_p99_us / 1e6
    yield "pipeline_kafka_throttled_seconds", "Longest throttling by a broker.", stats.kafka.throttled_ms / 1e3
