"""Results on their way to Kafka, and back: what was published already must not be published again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import structlog
import trio
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from pipeline.model.errors import Retryable
from pipeline.model.orders import OrderResult
from pipeline.orders.consumer import STALL
from pipeline.sink.errors import SinkFailed
from pipeline.sink.properties import connection_config, create_client, producer_config
from pipeline.sink.reader import Decoder
from pipeline.sink.refusals import LastError
from pipeline.sink.routes import Route
from pipeline.sink.settings import KafkaSettings

log = structlog.get_logger(__name__)

POLL = 0.005
"""Seconds between looks at what Kafka has acknowledged, while something is on its way."""
AGAIN_AFTER = 1.0
"""Seconds until a result that Kafka has refused is offered again."""
_BATCH = 1_000
_WAIT_S = 0.1
_ANSWER_WITHIN_S = 15.0
_OURS_NO_MORE = "the producer of results is broken"

Delivered = Callable[[], None]


@attrs.define(eq=False)
class _Letter:
    """One encoded result until Kafka has acknowledged it."""

    key: bytes
    value: bytes
    timestamp_ms: int
    delivered: Delivered | None


@attrs.define(eq=False)
class ResultWriter:
    """A producer for results alone: without linger, idempotent, acknowledged by all replicas.

    A result that Kafka refuses is offered again until it is taken: whoever gave the command is owed the final one.
    """

    settings: KafkaSettings
    route: Route
    make: Callable[..., Producer] = Producer
    failures: int = attrs.field(default=0, init=False)
    """How often Kafka has refused one."""
    last_error: str = attrs.field(default="", init=False)
    """Why; empty once one was taken again."""
    _producer: Producer = attrs.field(init=False)
    _outstanding: int = attrs.field(default=0, init=False)
    _waiting: deque[_Letter] = attrs.field(factory=deque, init=False)
    """Not taken by librdkafka yet, oldest first."""
    _again_at: float = attrs.field(default=0.0, init=False)
    _fatal: str | None = attrs.field(default=None, init=False)
    _work: trio.Event = attrs.field(factory=trio.Event, init=False)
    _idle: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        plain = attrs.evolve(self.settings, delivery="at_least_once", linger=0.0, statistics_interval=0.0)
        # librdkafka takes a statistics interval of 0 for none.
        self._producer = create_client(self.make, producer_config(plain) | {"error_cb": self._on_error}, self.settings)

    @property
    def outstanding(self) -> int:
        """Results that Kafka has not acknowledged yet."""
        return self._outstanding + len(self._waiting)

    def publish(self, result: OrderResult, delivered: Delivered | None = None) -> None:
        """Send one result; `delivered` is called when Kafka has acknowledged it. Never waits.

        Raises `Unencodable` for a result that does not fit its schema.
        """
        value = self.route.encode(result)
        self.route.published += 1
        letter = _Letter(result.origin.key, value, result.receive_time // 1000, delivered)
        if self._waiting or not self._hand_over(letter):
            self._waiting.append(letter)
        self._work.set()

    async def run(self) -> None:
        """Take acknowledgements until cancelled.

        Raises `Retryable` when the producer is broken for good, or when we have stood still for so long that another
        owner may have told something else: then nothing that Kafka has refused is offered again.
        """
        turn = trio.current_time()
        while True:
            if not self.outstanding:
                self._idle.set()
                self._idle = trio.Event()
                self._work = trio.Event()
                await self._work.wait()
                turn = trio.current_time()
            self._poll()
            if self._fatal is not None:
                raise Retryable(f"{_OURS_NO_MORE}: {self._fatal}")
            if trio.current_time() - turn > STALL:
                raise Retryable("results that were refused before a stall are not offered again")
            turn = trio.current_time()
            if self._waiting and trio.current_time() >= self._again_at:
                while self._waiting and self._hand_over(self._waiting[0]):
                    self._waiting.popleft()
            await trio.sleep(POLL)

    async def delivered(self) -> None:
        """Wait until Kafka has acknowledged everything; `run` has to be running."""
        while self.outstanding:
            await self._idle.wait()

    def close(self) -> None:
        """Give up what is not acknowledged: some of it may be in Kafka all the same. Blocks for a moment."""
        self._waiting.clear()
        if self._outstanding:
            self._producer.purge(in_queue=True, in_flight=True)
            self._producer.poll(0)

    def _hand_over(self, letter: _Letter) -> bool:
        def report(error: KafkaError | None, message: Message) -> None:
            self._outstanding -= 1
            self._reported(error, letter)

        try:
            self._producer.produce(
                self.route.topic, letter.value, letter.key, -1, report, None, max(letter.timestamp_ms, 1)
            )
        except BufferError:
            return False
        except KafkaException as error:
            self._refused(error.args[0])
            return False
        self._outstanding += 1
        return True

    def _reported(self, error: KafkaError | None, letter: _Letter) -> None:
        if error is None:
            self.last_error = ""
            if letter.delivered is not None:
                letter.delivered()
        elif self._fatal is None and error.code() not in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
            self._refused(error)
            self._waiting.append(letter)

    def _refused(self, error: KafkaError) -> None:
        self.failures += 1
        self.last_error = error.str()
        self._again_at = trio.current_time() + AGAIN_AFTER
        log.error("result_refused", topic=self.route.topic, reason=error.str(), again_in=AGAIN_AFTER)

    def _poll(self) -> None:
        try:
            self._producer.poll(0)
        except KafkaException as error:
            self._on_error(error.args[0])

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error.str()


def read_results(
    settings: KafkaSettings, topic: str, since_ms: int, wanted: Callable[[dict[str, Any]], bool]
) -> list[dict[str, Any]]:
    """The fields of the wanted results that were in Kafka when this was called, from a record time on; blocks.

    Raises `SinkFailed` if the topic cannot be read to its end: an answer that lacks some would be a wrong one.
    """
    trouble = LastError()
    config = {
        **connection_config(settings),
        "group.id": f"{settings.client_id}-results",  # demanded, never joined
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "isolation.level": "read_uncommitted",
        "allow.auto.create.topics": not settings.verify_topics,
        "error_cb": trouble,
    }
    consumer = create_client(Consumer, config, settings)
    try:
        return list(filter(wanted, _read(consumer, Decoder(settings), topic, since_ms)))
    except KafkaException as failure:
        raise SinkFailed(f"topic {topic} cannot be read: {trouble.told(settings, consumer, failure)}") from None
    finally:
        consumer.close()


def _read(consumer: Consumer, decoder: Decoder, topic: str, since_ms: int) -> Iterator[dict[str, Any]]:
    found_topic = consumer.list_topics(topic, timeout=_ANSWER_WITHIN_S).topics[topic]
    if found_topic.error is not None or not found_topic.partitions:  # no results and no topic are not the same
        raise KafkaException(found_topic.error or KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
    asked = [TopicPartition(topic, number, max(since_ms, 0)) for number in found_topic.partitions]
    starts = consumer.offsets_for_times(asked, timeout=_ANSWER_WITHIN_S)
    ends: dict[int, int] = {}
    begin: list[TopicPartition] = []
    for found in starts:
        if found.error is not None:
            raise KafkaException(found.error)
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, found.partition), _ANSWER_WITHIN_S)
        start = high if found.offset < 0 else max(found.offset, low)  # below 0: nothing is that young
        if start < high:
            ends[found.partition] = high
            begin.append(TopicPartition(topic, found.partition, start))
    if not begin:
        return
    consumer.assign(begin)
    silent_until = time.monotonic() + _ANSWER_WITHIN_S
    while ends:
        messages = consumer.consume(_BATCH, _WAIT_S)
        if not messages and time.monotonic() > silent_until:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"no record within {_ANSWER_WITHIN_S:g} s"))
        for message in messages:
            silent_until = time.monotonic() + _ANSWER_WITHIN_S
            number, offset = message.partition() or 0, message.offset() or 0
            if (error := message.error()) is not None:
                if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise SinkFailed(f"topic {topic}: we may not read it: grant us Read on the topic")
                if error.code() != KafkaError._PARTITION_EOF:
                    continue  # passing, or the silence ends it
                if offset >= ends.get(number, 0):
                    ends.pop(number, None)
                continue
            if number not in ends:
                continue
            if offset >= ends[number] - 1:
                del ends[number]
            value = message.value()
            if value is not None:
                yield _fields(decoder, value)


def _fields(decoder: Decoder, value: bytes) -> dict[str, Any]:
    try:
        return decoder.decode(value)
    except ValueError as error:
        log.warning("result_unreadable", text=str(error))
        return {}
