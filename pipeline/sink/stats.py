"""Numbers about the sink: what became of every record, and how Kafka is doing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from pipeline.model.latency import PRODUCE_BOUNDS_S, Latency


@attrs.frozen
class KafkaGauges:
    """What librdkafka tells about itself every `statistics_interval`; all zero before the first time."""

    queue_messages: int = 0
    queue_bytes: int = 0
    sent_bytes: int = 0
    sent_messages: int = 0
    brokers_up: int = 0
    round_trip_p50_us: int = 0
    round_trip_p99_us: int = 0
    throttled_ms: int = 0
    request_timeouts: int = 0
    send_errors: int = 0


def read_statistics(text: str) -> KafkaGauges:
    """The statistics (JSON) of librdkafka, reduced."""
    found: Mapping[str, Any] = json.loads(text)
    brokers = [broker for broker in found.get("brokers", {}).values() if broker.get("nodeid", -1) >= 0]
    return KafkaGauges(
        queue_messages=found.get("msg_cnt", 0),
        queue_bytes=found.get("msg_size", 0),
        sent_bytes=found.get("tx_bytes", 0),
        sent_messages=found.get("txmsgs", 0),
        brokers_up=sum(broker.get("state") == "UP" for broker in brokers),
        round_trip_p50_us=max((broker.get("rtt", {}).get("p50", 0) for broker in brokers), default=0),
        round_trip_p99_us=max((broker.get("rtt", {}).get("p99", 0) for broker in brokers), default=0),
        throttled_ms=max((broker.get("throttle", {}).get("max", 0) for broker in brokers), default=0),
        request_timeouts=sum(broker.get("req_timeouts", 0) for broker in brokers),
        send_errors=sum(broker.get("txerrs", 0) for broker in brokers),
    )


@attrs.frozen
class JournalStats:
    """How far Kafka is behind the journal."""

    waiting: int
    """Records of this process that are not delivered yet."""
    lag: float
    """Seconds since the oldest record was received that is being delivered; 0 if none is."""
    commits: int = 0
    """Transactions."""
    aborts: int = 0
    fenced: bool = False
    """Whether another instance took over the shard."""


@attrs.frozen
class SinkStats:
    """What became of the records, at one moment.

    Whenever nothing moves, `balanced` holds: a record is in exactly one place, or announced as lost.
    """

    published: int
    """Records that the sink took over from its callers, by any way."""
    recovered: int
    """Records that an earlier process had left in the spool, as far as they were read."""
    acknowledged: int
    """Records that are in Kafka."""
    in_flight: int
    """Records that librdkafka holds, or that came back from it and will be sent again."""
    spooled: int
    """Records in the spool, in memory or on disk, without those of earlier processes."""
    announced_lost: int
    """Records that the full spool had to refuse, or that Kafka will never take; announced as gaps, or in the log."""
    dead_letters: int
    """How many of the published records are dead letters."""
    returned: int
    """How often a record came back from librdkafka undelivered and was sent again."""
    spool_bytes: int
    """On disk and in memory, including what earlier processes left."""
    is_spooling: bool
    """Whether records go through the spool now."""
    broker_up: bool
    spool_failure: str | None
    """Why the spool cannot be written now, if it cannot."""
    by_kind: Mapping[str, int]
    """`published` by kind of event."""
    latency: Latency
    """From the hand-over to librdkafka to the acknowledgement."""
    kafka: KafkaGauges
    dropped: int = 0
    """Of the lost records, those that were given up for newer ones."""
    is_full: bool = False
    """Whether the spool is full and records are being lost."""
    reading_stopped_at: int | None = None
    """Since when the feeds are asked not to read, in microseconds; None if they may."""
    renewals: int = 0
    """How often a broken producer was replaced."""
    safe_until: int = 0
    """Everything received before is acknowledged or on disk, microseconds; 0 while that is not known."""
    journal: JournalStats | None = None
    """None without a journal."""
    until_produced: Latency = attrs.field(factory=lambda: Latency(PRODUCE_BOUNDS_S))
    """From receiving a message to handing its records to librdkafka, the time in the spool included."""
    spool_max_bytes: int = 0
    """The bound of `spool_bytes`."""
    oldest_age: float = 0.0
    """Seconds since the oldest record was received that is not in Kafka, up to one too many; 0 if there is none."""
    down_since: int | None = None
    """Since when no broker answers, in microseconds; None if one does."""
    trouble: str = ""
    """The newest reason for which Kafka does not answer or takes nothing; empty if there is none."""
    refusing: Mapping[str, str] = attrs.field(factory=dict)
    """Topics that take no records at present, with the reasons."""
    own_letters: int = 0
    """Of the dead letters, those for records that could not be encoded or that Kafka will never take."""
    last_letter: str = ""
    """Why the newest of them was written."""

    @property
    def balanced(self) -> bool:
        """Whether every record is accounted for."""
        there = self.acknowledged + self.in_flight + self.spooled + self.announced_lost
        return self.published + self.recovered == there
