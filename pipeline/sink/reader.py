"""Reading back: records of our topics, decoded, without a consumer group."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Generator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import attrs
import trio
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from fastavro import parse_schema
from fastavro.schema import SchemaParseException

from pipeline.avro.codec import Schemas
from pipeline.avro.decoder import decode
from pipeline.avro.schemas import ORDER_COMMAND, Schema, fingerprint, load_schema, split_header, without_logical_types
from pipeline.sink.errors import SinkFailed
from pipeline.sink.properties import connection_config, create_client
from pipeline.sink.refusals import LastError
from pipeline.sink.registry import fetch_schema
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.topics import topic_name

REFUSED_FOR = 5.0
"""Seconds until a registry is asked again for what it has no schema of: somebody may have registered it meanwhile."""
MAX_REFUSED = 1_000
"""Identifiers without a schema that are remembered."""
_WAIT_S = 0.02
_BATCH = 500
_ANSWER_WITHIN_S = 15.0
_PAUSE_S = 0.1
_NO_END_YET = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.OFFSET_NOT_AVAILABLE,
)
"""While a partition gets a leader, and until a new one knows how far the others have followed."""


@attrs.frozen
class Received:
    """One record, where it was found, and its fields; with an `error` instead when it cannot be read."""

    topic: str
    partition: int
    offset: int
    key: bytes
    timestamp_ms: int
    kind: str
    fields: Mapping[str, Any]
    value: bytes
    error: str | None = None


@attrs.define(eq=False)
class Decoder:
    """Record values into fields, by the schema that the value itself names."""

    settings: KafkaSettings
    is_plain: bool = False
    """Whether numbers stay as they are written: of a time that is none, whoever reads it can then name the field."""
    clock: Callable[[], float] = time.monotonic
    _by_name: dict[int | bytes, Schema] = attrs.field(factory=dict, init=False)
    _refused: dict[int, tuple[float, str]] = attrs.field(factory=dict, init=False)
    """Identifiers that the registry gave no schema for: until when that counts, and why; oldest first."""

    def __attrs_post_init__(self) -> None:
        for schemas in (Schemas.load("text"), Schemas.load("decimal")):
            for codec in schemas.codecs.values():
                self._by_name[codec.fingerprint] = self._parsed(codec.schema)
        command = load_schema(ORDER_COMMAND)
        self._by_name[fingerprint(command)] = self._parsed(command)

    def knows(self, value: bytes) -> bool:
        """Whether `decode` will ask no registry."""
        try:
            name, _ = split_header(value)
        except ValueError:
            return True
        return isinstance(name, bytes) or name in self._by_name or self._refusal(name) is not None

    def decode(self, value: bytes) -> dict[str, Any]:
        """The fields; raises `ValueError`, or `SinkFailed` when the registry does not give the schema."""
        name, fields = split_header(value)
        if name not in self._by_name:
            self._by_name[name] = self._fetch(name)
        try:
            return decode(self._by_name[name], fields)
        except (EOFError, IndexError):
            raise ValueError("the value is cut short, or not of the schema that it names") from None
        except (UnicodeDecodeError, OverflowError) as error:
            raise ValueError(f"the value does not fit its schema: {error}") from None

    def _fetch(self, name: int | bytes) -> Schema:
        if isinstance(name, bytes):
            raise ValueError(f"no schema of this version has the fingerprint {name.hex()}")
        if self.settings.schema_registry is None:
            raise ValueError(f"the value names schema {name} of a registry, and none is configured")
        why = self._refusal(name)
        if why is None:
            try:
                text = fetch_schema(self.settings.schema_registry, name)
            except ValueError as error:
                why = str(error)
            else:
                try:
                    return self._parsed(json.loads(text))
                except (SchemaParseException, ValueError, LookupError, TypeError) as error:
                    why = f"schema {name} of the registry is no Avro schema: {error!r}"
            self._refused[name] = (self.clock() + REFUSED_FOR, why)
        raise ValueError(why)

    def _refusal(self, name: int) -> str | None:
        """Why there is no schema of this identifier, if it was asked for a moment ago."""
        now = self.clock()
        for known, (until, _) in list(self._refused.items()):
            if until > now and len(self._refused) <= MAX_REFUSED:
                break
            del self._refused[known]
        return self._refused[name][1] if name in self._refused else None

    def _parsed(self, schema: Schema) -> Schema:
        return cast("Schema", parse_schema(without_logical_types(schema) if self.is_plain else schema))


def read_records(
    settings: KafkaSettings,
    kinds: Collection[str],
    *,
    from_beginning: bool = False,
    until_end: bool = False,
    stop: threading.Event | None = None,
    on_assigned: Callable[[], None] | None = None,
) -> Generator[Received, None, None]:
    """Records of these kinds as they come, until `stop`; blocks, so it belongs into a thread.

    `until_end` ends at what was there at the start. `on_assigned` is called when nothing new will be missed.
    Raises `ConfigError`, `Refused`, or `SinkFailed` when a topic is missing or the cluster does not answer.
    """
    topics = {topic_name(settings, kind): kind for kind in kinds}
    config = {
        **connection_config(settings),
        "group.id": f"{settings.client_id}-reader",  # demanded, never joined
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "fetch.wait.max.ms": 50,
        "enable.partition.eof": until_end,
        "topic.metadata.refresh.interval.ms": 10_000,
        "allow.auto.create.topics": not settings.verify_topics,
    }
    decoder = Decoder(settings)
    trouble = LastError()
    consumer = create_client(Consumer, config | {"error_cb": trouble}, settings)
    try:
        try:
            ends = _assign(consumer, settings, topics, from_beginning=from_beginning, until_end=until_end)
        except KafkaException as failure:
            raise SinkFailed(f"no answer from Kafka: {trouble.told(settings, consumer, failure)}") from None
        if on_assigned is not None:
            on_assigned()
        while not (stop is not None and stop.is_set()) and (ends or not until_end):
            for message in consumer.consume(_BATCH, _WAIT_S):
                if (error := message.error()) is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        _note_end(message, ends)
                    elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                        raise SinkFailed(f"topic {message.topic()}: we may not read it: grant us Read on the topic")
                    continue  # other trouble passes; librdkafka logs it and goes on by itself
                if _before_end(message, ends, until_end=until_end):
                    yield _received(message, topics, decoder)
    finally:
        consumer.close()


@asynccontextmanager
async def open_reader(
    settings: KafkaSettings, kinds: Collection[str], *, from_beginning: bool = False, until_end: bool = False
) -> AsyncIterator[trio.MemoryReceiveChannel[Received]]:
    """The same as a channel, read in a thread; entered when nothing published from then on is missed.

    Errors of `read_records` end the body, in an exception group.
    """
    send, receive = trio.open_memory_channel[Received](1_000)
    stop, assigned = threading.Event(), trio.Event()

    def read() -> None:
        def told() -> None:
            trio.from_thread.run_sync(assigned.set)

        records = read_records(
            settings, kinds, from_beginning=from_beginning, until_end=until_end, stop=stop, on_assigned=told
        )
        try:
            for record in records:
                trio.from_thread.run(send.send, record)
        except (trio.BrokenResourceError, trio.Cancelled):
            return
        finally:
            records.close()

    async def run() -> None:
        with send:
            await trio.to_thread.run_sync(read)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        try:
            await assigned.wait()
            with receive:
                yield receive
        finally:
            stop.set()
            receive.close()


def _assign(
    consumer: Consumer, settings: KafkaSettings, topics: Mapping[str, str], *, from_beginning: bool, until_end: bool
) -> dict[tuple[str, int], int]:
    """Assign all partitions; returns the ends of those that hold anything, if they matter."""
    known = consumer.list_topics(timeout=_ANSWER_WITHIN_S).topics
    if not settings.verify_topics:  # a mock cluster creates a topic when it is asked about by name
        known |= {topic: consumer.list_topics(topic, timeout=_ANSWER_WITHIN_S).topics[topic] for topic in topics}
    missing = sorted(topic for topic in topics if topic not in known)
    if missing:
        raise SinkFailed(f"no such topic: {', '.join(missing)}")
    partitions = [(topic, partition) for topic in topics for partition in known[topic].partitions]
    bounds = {
        (topic, partition): _bounds(consumer, TopicPartition(topic, partition))
        for topic, partition in partitions
        if until_end or not from_beginning
    }
    starts = [
        # The end is looked up now, so that nothing is missed between this and the first fetch.
        TopicPartition(topic, partition, OFFSET_BEGINNING if from_beginning else bounds[topic, partition][1])
        for topic, partition in partitions
    ]
    consumer.assign(starts)
    return {at: high for at, (low, high) in bounds.items() if high > low and from_beginning}


def _bounds(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """The lowest offset, and the one after the highest; a partition may have no leader at the moment."""
    deadline = time.monotonic() + _ANSWER_WITHIN_S
    while True:
        try:
            low, high = consumer.get_watermark_offsets(partition, _ANSWER_WITHIN_S)
        except KafkaException as error:
            if error.args[0].code() not in _NO_END_YET or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_S)
        else:
            return low, high


def _before_end(message: Message, ends: dict[tuple[str, int], int], *, until_end: bool) -> bool:
    """Whether the record counts; forgets the partition when this is its last one."""
    if not until_end:
        return True
    at, offset = (message.topic() or "", message.partition() or 0), message.offset() or 0
    end = ends.get(at)
    if end is None:
        return False
    if offset >= end - 1:
        del ends[at]
    return offset < end


def _note_end(message: Message, ends: dict[tuple[str, int], int]) -> None:
    """Forget a partition that was read to its end: what a transaction has behind its last record is no record."""
    at = (message.topic() or "", message.partition() or 0)
    if (message.offset() or 0) >= ends.get(at, 0):
        ends.pop(at, None)


def _received(message: Message, topics: Mapping[str, str], decoder: Decoder) -> Received:
    topic, value = message.topic() or "", message.value() or b""
    fields: Mapping[str, Any] = {}
    problem = None
    try:
        fields = decoder.decode(value)
    except (ValueError, SinkFailed) as error:
        problem = str(error)
    return Received(
        topic,
        message.partition() or 0,
        message.offset() or 0,
        message.key() or b"",
        message.timestamp()[1],
        topics[topic],
        fields,
        value,
        problem,
    )
