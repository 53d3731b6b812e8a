"""How far a shard's journal is in Kafka, and whose the shard is: kept in a compacted topic, where no retention ends it.

Group offsets would do as well, but for two things: they expire while a shard rests, and they take a consumer to write.
The records are JSON: bookkeeping that people may want to read, and no event.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

import attrs
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from pipeline.model.events import Micros
from pipeline.sink.errors import SinkFailed
from pipeline.sink.properties import connection_config, create_client
from pipeline.sink.records import Record
from pipeline.sink.settings import WATERMARK, KafkaSettings
from pipeline.sink.spool import Position
from pipeline.sink.topics import topic_name
from pipeline.sink.verdicts import Verdict, ruling_on

_ANSWER_WITHIN_S = 15.0
_READ_WITHIN_S = 120.0
"""An unfinished transaction of another shard hides what is behind it, until it times out: after a minute by default."""
_BATCH = 1_000
_WAIT_S = 0.05
_PASSING = frozenset({
    KafkaError._ALL_BROKERS_DOWN, KafkaError.BROKER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.OFFSET_NOT_AVAILABLE,
})  # fmt: skip


class Unanswered(SinkFailed):
    """The cluster did not answer, or not yet: asking again may help."""


@attrs.frozen
class Watermark:
    """Everything in front of `position`, and `skip` records behind it, is in Kafka."""

    journal: str
    """The log that the position belongs to."""
    position: Position
    skip: int
    instance: str
    """The run of the service that wrote it."""
    serial: int
    """Counts that run's transactions."""
    time: Micros

    def record(self, settings: KafkaSettings) -> Record:
        """As it goes to Kafka, in the transaction that makes it true."""
        fields = {**attrs.asdict(self), "position": list(self.position)}
        return _record(settings, f"{settings.shard_name}/{self.journal}", fields, self.time)


@attrs.frozen
class Standing:
    """What Kafka knows about a shard."""

    instance: str | None
    """The run of the service that claimed the shard last."""
    watermark: Watermark | None


def claim(settings: KafkaSettings, instance: str, now: Micros) -> None:
    """Say that the shard is this run's from now on; blocks. Raises `SinkFailed`, `Unanswered` if asking again may help.

    Written before the predecessor is fenced, it tells that one whether it was replaced, or only too slow.
    """
    config = {**connection_config(settings), "enable.idempotence": True, "message.timeout.ms": 15_000}
    producer = create_client(Producer, config, settings)
    failed: list[KafkaError] = []

    def report(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    record = _record(settings, settings.shard_name, {"instance": instance, "time": now}, now)
    producer.produce(record.topic, record.value, record.key, on_delivery=report)
    if producer.flush(_ANSWER_WITHIN_S + 1) or failed:
        why = failed[0].str() if failed else "no answer"
        code = failed[0].code() if failed else KafkaError._TIMED_OUT
        raise _failure(code, f"cannot claim the shard {settings.shard_name} in {record.topic}: {why}")


def read_standing(settings: KafkaSettings, journal: str) -> Standing:
    """What is committed about this shard and this log; blocks. Raises as `claim`."""
    config = {
        **connection_config(settings),
        "group.id": f"{settings.client_id}-watermark",  # demanded, never joined
        "enable.auto.commit": False,
        "fetch.wait.max.ms": 20,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
    }
    topic = topic_name(settings, WATERMARK)
    found: dict[str, Mapping[str, object]] = {}
    try:
        ends = _ends({**config, "isolation.level": "read_uncommitted"}, settings, topic)
        consumer = create_client(Consumer, config, settings)
        try:
            _read(consumer, settings, topic, ends, found)
        finally:
            consumer.close()
    except KafkaException as error:
        raise _failure(error.args[0].code(), f"cannot read {topic}: {error.args[0].str()}") from None
    owner = found.get(settings.shard_name, {}).get("instance")
    return Standing(
        owner if isinstance(owner, str) else None, _parsed(found.get(f"{settings.shard_name}/{journal}"), topic)
    )


def _failure(code: int, text: str) -> SinkFailed:
    ruling = ruling_on(code)
    if ruling.verdict is Verdict.RETRY or code in _PASSING:
        return Unanswered(text)
    return SinkFailed(f"{text}; {ruling.remedy}" if ruling.remedy else text)


def _ends(config: dict[str, object], settings: KafkaSettings, topic: str) -> dict[int, int]:
    """The ends of the partitions that hold anything, unfinished transactions included."""
    consumer = create_client(Consumer, config, settings)
    try:
        partitions = consumer.list_topics(topic, timeout=_ANSWER_WITHIN_S).topics[topic].partitions
        if not partitions:
            raise SinkFailed(f"no such topic: {topic}")
        bounds = {
            partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), _ANSWER_WITHIN_S)
            for partition in partitions
        }
    finally:
        consumer.close()
    return {partition: high for partition, (low, high) in bounds.items() if high > low}


def _read(
    consumer: Consumer,
    settings: KafkaSettings,
    topic: str,
    ends: dict[int, int],
    found: dict[str, Mapping[str, object]],
) -> None:
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in ends])
    deadline = time.monotonic() + _READ_WITHIN_S
    while ends:
        if time.monotonic() > deadline:
            raise Unanswered(f"{topic} cannot be read to its end: a transaction there does not end")
        for message in consumer.consume(_BATCH, _WAIT_S):
            partition, error = message.partition() or 0, message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF and (message.offset() or 0) >= ends.get(partition, 0):
                    ends.pop(partition, None)
                continue
            key, value = (message.key() or b"").decode(errors="replace"), message.value()
            if value is not None and key.partition("/")[0] == settings.shard_name:
                try:
                    found[key] = json.loads(value)
                except ValueError:
                    raise SinkFailed(f"{topic} holds something else than watermarks under the key {key}") from None


def _record(settings: KafkaSettings, key: str, fields: Mapping[str, object], now: Micros) -> Record:
    return Record(topic_name(settings, WATERMARK), key.encode(), now // 1000, json.dumps(fields).encode())


def _parsed(fields: Mapping[str, object] | None, topic: str) -> Watermark | None:
    if fields is None:
        return None
    match fields:
        case {
            "journal": str(journal), "position": [int(segment), int(offset)], "skip": int(skip),
            "instance": str(instance), "serial": int(serial), "time": int(moment),
        }:  # fmt: skip
            return Watermark(journal, Position(segment, offset), skip, instance, serial, Micros(moment))
    raise SinkFailed(f"{topic} holds a watermark of another version: {json.dumps(fields)}")
