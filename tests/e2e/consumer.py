"""An independent reader of the topics: confluent_kafka's own consumer and Avro deserializer, schemas by their ids."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import trio
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from tests.e2e.wire import Book, BookName, Change, Print, Rows
from tests.services import KafkaBroker, SchemaRegistry

READ_WITHIN_S = 30.0
_POLL_S = 0.05
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_GROUPS = {
    **dict.fromkeys(("feed_status", "dead_letter"), "control"),
    **dict.fromkeys(("order", "fill", "position", "balance", "account_greeks"), "account"),
    "order_result": "order",
}


@attrs.frozen
class Record:
    """One record of a topic."""

    key: str
    value: dict[str, Any]
    partition: int
    offset: int
    time_ms: int

    @property
    def place(self) -> str:
        """Where it is and what it is part of, for messages of failed assertions."""
        fields = ("connection", "is_snapshot", "epoch", "sequence", "receive_time")
        known = {field: str(self.value[field]) for field in fields if field in self.value}
        return f"{self.key} at [{self.partition}]@{self.offset}: {known}"

    def __getitem__(self, field: str) -> Any:
        return self.value[field]


@attrs.define
class Topics:
    """The topics of one test."""

    broker: KafkaBroker
    registry: SchemaRegistry
    prefix: str

    def name(self, kind: str) -> str:
        """As `topic_template` says."""
        return f"{self.prefix}.{_GROUPS.get(kind, 'market')}.{kind}"

    async def read(self, kind: str) -> list[Record]:
        """Everything that is in a topic now, partition by partition."""
        return await trio.to_thread.run_sync(self._read, self.name(kind))

    async def until(self, kind: str, enough: Callable[[list[Record]], bool]) -> list[Record]:
        """Read again and again until it is enough; the caller bounds the time."""
        while not enough(records := await self.read(kind)):  # noqa: ASYNC110 - a topic has no event to wait for
            await trio.sleep(_POLL_S)
        return records

    def _read(self, topic: str) -> list[Record]:
        with self._consumer() as consumer, self.registry.client() as client:
            decode = AvroDeserializer(client)
            context = SerializationContext(topic, MessageField.VALUE)
            partitions = consumer.list_topics(topic, timeout=READ_WITHIN_S).topics[topic].partitions
            records = []
            for partition in sorted(partitions):
                first, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=READ_WITHIN_S)
                if first == end:
                    continue
                consumer.assign([TopicPartition(topic, partition, first)])
                position = first
                while position < end:
                    messages = consumer.consume(min(1000, end - position), READ_WITHIN_S)
                    assert messages, f"{topic}[{partition}] gave nothing at {position} of {end}"
                    for message in messages:
                        assert message.error() is None, message.error()
                        key, value = message.key(), message.value()
                        assert key is not None
                        assert value is not None
                        assert message.offset() == position
                        position += 1
                        records.append(
                            Record(
                                key.decode(), decode(value, context), partition, position - 1, message.timestamp()[1]
                            )
                        )
        return records

    @contextmanager
    def _consumer(self) -> Iterator[Consumer]:
        consumer = Consumer(
            {
                "bootstrap.servers": self.broker.bootstrap,
                "group.id": f"reader-{uuid.uuid4().hex}",
                "enable.auto.commit": False,
                "log_level": 2,
            }
        )
        try:
            yield consumer
        finally:
            consumer.close()


def prints(records: Iterable[Record]) -> dict[str, list[Print]]:
    """Trades by instrument, in the order of the log."""
    found: dict[str, list[Print]] = {}
    for record in records:
        found.setdefault(record["instrument"], []).append(
            Print(
                record["trade_id"],
                record["price"],
                record["size"],
                record["aggressor"],
                (record["exchange_time"] - EPOCH) // timedelta(microseconds=1),
            )
        )
    return found


def books(records: Iterable[Record]) -> dict[BookName, list[Record]]:
    """Book updates by book, in the order of the log."""
    found: dict[BookName, list[Record]] = {}
    for record in records:
        found.setdefault((record["instrument"], record["channel"]), []).append(record)
    return found


@attrs.define
class Follower:
    """Keeps one book as the schema's documentation tells a consumer to; raises `AssertionError` for what does not fit.

    A snapshot starts an epoch, which rises; a delta belongs to the epoch and follows the update it names; a periodic
    snapshot says nothing new.
    """

    book: Book = attrs.field(factory=Book)
    epoch: int = -1
    sequence: int | None = None
    periodic: int = 0
    """Repetitions seen, all equal to the book at their place."""
    epochs: int = 0

    def take(self, record: Record) -> None:
        """Apply one record."""
        bids, asks = rows(record["bids"]), rows(record["asks"])
        if record["is_periodic"]:
            same = Book()
            same.apply(bids, asks, anew=True)
            assert record["is_snapshot"]
            assert (record["epoch"], record["sequence"]) == (self.epoch, self.sequence)
            assert same == self.book
            self.periodic += 1
            return
        if record["is_snapshot"]:
            assert record["epoch"] > self.epoch
            self.epochs += 1
        else:
            assert (record["epoch"], record["previous_sequence"]) == (self.epoch, self.sequence), record.place
        self.epoch, self.sequence = record["epoch"], record["sequence"]
        self.book.apply(bids, asks, anew=record["is_snapshot"])


def check_book(records: Iterable[Record], changes: Iterable[Change]) -> Follower:
    """The records are these changes, each once and in order, and give the same book after every one of them."""
    follower, mirror, wanted = Follower(), Book(), iter(changes)
    for record in records:
        follower.take(record)
        if record["is_periodic"]:
            continue
        change = next(wanted, None)
        assert change is not None, f"a record too many: {record}"
        assert (record["is_snapshot"], record["sequence"]) == (change.is_snapshot, change.sequence)
        assert (rows(record["bids"]), rows(record["asks"])) == (change.bids, change.asks)
        mirror.apply(change.bids, change.asks, anew=change.is_snapshot)
        assert follower.book == mirror
        assert record["checksum"] == change.checksum
        if change.checksum is not None:
            assert follower.book.checksum() == change.checksum
    missing = list(wanted)
    assert not missing, f"{len(missing)} changes did not arrive, first {missing[0]}"
    return follower


def rows(levels: Iterable[dict[str, Any]]) -> Rows:
    """Levels as price and size."""
    return [(level["price"], level["size"]) for level in levels]
