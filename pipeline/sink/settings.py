"""What can be configured about Kafka, with the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from pipeline.model.secret import Secret

WATERMARK = "watermark"
"""The kind of the records that say how far a shard's journal is in Kafka; no event."""

Compatibility = Literal[
    "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE", "NONE"
]

Property = str | int | float | bool | Secret


@attrs.frozen
class RegistrySettings:
    """A Confluent-compatible schema registry."""

    url: str
    """Its base, such as http://localhost:8081."""
    register: bool = True
    """Register the schemas at start; otherwise they must be there already."""
    subjects: Literal["topic", "record", "topic_record"] = "topic"
    """Names of the subjects: `<topic>-value`, the record's full name, or `<topic>-<full name>`."""
    compatibility: Compatibility | None = None
    """The level that new subjects get; None leaves them to the registry. Subjects that exist keep theirs."""
    username: str | None = None
    """For basic authentication, with `password`."""
    password: Secret | None = None
    """Belongs to `username`."""
    bearer_token: Secret | None = None
    """Instead of user and password."""
    ca_file: str | None = None
    """A PEM file of certificate authorities to trust instead of the system's."""
    certificate_file: str | None = None
    """The client certificate (PEM), where the registry asks for one."""
    key_file: str | None = None
    """Its key, where it is not in the same file."""
    key_password: Secret | None = None
    """What the key is encrypted with."""
    timeout: float = 10.0
    """Seconds per request."""


@attrs.frozen
class TopicSettings:
    """One topic, or the defaults of all. None: the default of the event kind, or of the broker."""

    partitions: int | None = None
    """Of a topic that is created; of one that exists, a different number is worth a warning."""
    replication_factor: int | None = None
    """Of a topic that is created."""
    retention: float | None = None
    """Seconds that records are kept."""
    config: Mapping[str, str] = attrs.field(factory=dict)
    """Further topic configuration, by Kafka's own names."""


@attrs.frozen
class SpoolSettings:
    """The on-disk log: it takes over when the producer's queue is full; with a journal every record passes it."""

    directory: str = "spool"
    """On a disk that survives a restart; what is in it is delivered by the next start."""
    max_bytes: int = 10 * 1024**3
    """Bound of what waits on disk."""
    when_full: Literal["refuse_new", "drop_oldest", "stop_reading"] = "refuse_new"
    """Keep the oldest records, keep the newest, or ask the feeds to stop reading. What is lost is announced."""
    segment_bytes: int = 64 * 1024**2
    """Size of its files, which are given up and deleted whole."""
    flush_interval: float = 0.05
    """Seconds between writes of what has gathered in memory; with a journal, between waits for the disk."""
    max_memory_bytes: int = 64 * 1024**2
    """Bound of what waits in memory for the next write."""
    sync: bool = True
    """Wait for the disk (fdatasync) at each write: then records survive a power cut too, not only a killed process."""


@attrs.frozen
class KafkaSettings:
    """Where events go and how."""

    bootstrap_servers: tuple[str, ...] = ("localhost:9092",)
    """Brokers to ask for the others, as host:port."""
    client_id: str = "exchange-pipeline"
    """By this name brokers know us, in logs, quotas and metrics."""
    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    """`exactly_once` sends in transactions out of a journal."""
    journal: bool = False
    """Write every record to the spool before anything else, so that a killed process loses none."""
    shard: str | None = None
    """With `exactly_once`, who this instance is: a later one of the same name replaces it. None: the client id."""
    commit_interval: float = 0.1
    """Seconds from one transaction to the next."""
    commit_records: int = 10_000
    """Records of a transaction at most."""
    topic_template: str = "{group}.{kind}"
    """Names of the topics; `{group}` is market, account, order or control, `{kind}` the event kind."""
    create_topics: bool = True
    """Create missing topics at start; existing ones are verified either way."""
    verify_topics: bool = True
    """Ask the broker about the topics at start; an in-process mock cluster cannot answer."""
    topic_defaults: TopicSettings = attrs.field(factory=TopicSettings)
    topics: Mapping[str, TopicSettings] = attrs.field(factory=dict)
    """By event kind."""
    decimals: Literal["text", "decimal"] = "text"
    """Prices and sizes as the venue's exact text, or as Avro decimal(38,18)."""
    schema_registry: RegistrySettings | None = None
    """Without one, records carry Avro single-object encoding."""
    compression: Literal["none", "lz4", "zstd", "snappy", "gzip"] = "lz4"
    """How the producer compresses batches."""
    linger: float = 0.02
    """Seconds that librdkafka gathers records for a batch."""
    queue_messages: int = 200_000
    """High-water mark of the producer's queue; above it records go to the spool."""
    queue_bytes: int = 128 * 1024**2
    """The same in bytes of keys and values."""
    max_record_bytes: int = 1_000_000
    """Larger records go to the dead-letter topic as a reference with their digest."""
    connect_within: float = 30.0
    """Seconds at start until the broker must have answered once."""
    drain_within: float = 15.0
    """Seconds at shutdown for what is queued; the rest goes to the spool."""
    statistics_interval: float = 5.0
    """Seconds between librdkafka's statistics."""
    spool: SpoolSettings = attrs.field(factory=SpoolSettings)
    oauth_token: Secret | None = None
    """A bearer token to log in with (SASL OAUTHBEARER), such as the one that Kubernetes keeps fresh in a file."""
    secrets_refresh: float = 10.0
    """Seconds between looks at the secrets of `sasl.username` and `sasl.password`, which may change while we run."""
    properties: Mapping[str, Property] = attrs.field(factory=dict)
    """Further librdkafka properties (security.protocol, sasl.*, ssl.*), by their own names."""

    @property
    def is_exactly_once(self) -> bool:
        """Whether records are sent in transactions."""
        return self.delivery == "exactly_once"

    @property
    def is_journaled(self) -> bool:
        """Whether every record passes the spool."""
        return self.journal or self.is_exactly_once

    @property
    def shard_name(self) -> str:
        """The transactional id."""
        return self.shard or self.client_id
