"""An account's command topic: who may send what is in it, and how far everything in it is settled.

A thread polls; what it finds is handed to Trio by its token, in order and without waiting. Commits carry who has made
them: whoever finds another owner's mark knows that records behind it may have been sent by that one.

The thread also decodes, because that may mean asking a schema registry. While that is away, records wait in order.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs
import structlog
import trio
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.model.errors import Refused
from pipeline.model.header import Micros
from pipeline.sink.errors import SinkFailed
from pipeline.sink.properties import connection_config, create_client
from pipeline.sink.refusals import LastError, refusal
from pipeline.sink.settings import KafkaSettings

log = structlog.get_logger(__name__)

SESSION_TIMEOUT = 10.0
"""Seconds without a sign of life after which Kafka gives the topic to somebody else."""
HEARTBEAT = 1.0
"""Seconds between signs of life."""
STALL = SESSION_TIMEOUT - 3 * HEARTBEAT
"""Seconds of standing still after which the topic may be somebody else's already."""
MAX_WAITING = 5_000
"""Commands in memory at which no more are fetched."""
DECODE_AGAIN = 1.0
"""Seconds until a schema registry that does not answer is asked again."""
_BATCH = 500
_WAIT_S = 0.1
_ANSWER_WITHIN_S = 15.0

_NOT_ALLOWED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)
_UNREADABLE = (ValueError, LookupError, TypeError, ArithmeticError, RecursionError, MemoryError)
"""What a record may raise whose schema, be it from a registry, is none of a command's."""
_NO_TOPIC = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._AUTO_OFFSET_RESET,
)
"""Or not the one that it was: to join anew tells."""


_Rebalance = Callable[[Consumer, list[TopicPartition]], None]


@attrs.frozen
class Mark:
    """What an owner leaves in its commits."""

    owner: str
    """The identifier of its ledger."""
    since: Micros
    """When it took the command at the committed offset; nothing from there on was settled before."""
    doubtful_until: int = 0
    """Commands before this offset may have been sent by an earlier owner."""
    is_killed: bool = False
    """Whether the kill switch is on: that must outlive a ledger that is lost."""

    def text(self) -> str:
        """As commit metadata."""
        return json.dumps(attrs.asdict(self), separators=(",", ":"))

    @classmethod
    def read(cls, text: str | None) -> Mark | None:
        """What `text` wrote; None for what is not of ours."""
        try:
            found = json.loads(text or "")
            return cls(
                str(found["owner"]),
                Micros(int(found["since"])),
                int(found["doubtful_until"]),
                found["is_killed"] is True,
            )
        except (ValueError, TypeError, KeyError):
            return None


@attrs.frozen
class Holding:
    """A partition at the moment when it became ours."""

    partition: int
    start: int
    """The committed offset, or else the first one that there is."""
    end: int
    """The offset after the last record."""
    mark: Mark | None
    """Of the last commit; None if nobody has left one."""
    is_committed: bool
    """Whether there was a commit at all, be it without a mark."""


@attrs.frozen
class Consumed:
    """One record of the command topic."""

    topic: str
    partition: int
    offset: int
    value: bytes
    time: Micros
    """When it was taken from Kafka."""
    fields: Mapping[str, Any] | None
    """None: it cannot be read."""
    problem: str = ""
    """Why not."""

    @classmethod
    def read(
        cls, decoder: RecordDecoder, topic: str, partition: int, offset: int, value: bytes, taken: Micros
    ) -> Consumed:
        """A record with its fields; blocks. Raises `SinkFailed` if it cannot be told yet whether it has any."""
        fields: object = None
        problem = ""
        try:
            fields = decoder.decode(value)
        except _UNREADABLE as error:
            problem = str(error) or type(error).__name__
        else:
            problem = "" if isinstance(fields, Mapping) else "by its schema it is no record"
        return cls(topic, partition, offset, value, taken, fields if isinstance(fields, Mapping) else None, problem)


class RecordDecoder(Protocol):
    """Record values into fields; a `sink.reader.Decoder` in earnest."""

    def knows(self, value: bytes) -> bool:
        """Whether `decode` will ask nobody."""

    def decode(self, value: bytes) -> Any:
        """The fields; blocks. Raises `ValueError`, or `SinkFailed` when a registry does not tell."""


class Owner(Protocol):
    """Who deals with the commands; called in the Trio thread."""

    def assigned(self, holdings: Sequence[Holding]) -> None:
        """These partitions, and no others, are ours now; their records follow."""

    def take(self, records: Sequence[Consumed]) -> None:
        """Records in the order of their partitions."""

    def held_up(self, reason: str) -> None:
        """Records wait, and why; an empty reason: they do no longer."""

    async def give_up(self) -> None:
        """Stop at once, and return as soon as nothing more will be sent or published; the others wait for that."""

    def lost(self, reason: str) -> None:
        """The partitions are somebody else's already: nothing more may be sent or published."""


@attrs.define(eq=False)
class CommandConsumer:
    """One membership in the account's consumer group; never reused."""

    settings: KafkaSettings
    topic: str
    group: str
    identity: str
    """Of the ledger. Also the static name in the group: who comes after a killed process need not wait for its end."""
    owner: Owner
    clock: Callable[[], int]
    decoder: RecordDecoder
    make: Callable[..., Consumer] = Consumer
    claim: Callable[[Holding], Mark] = attrs.field(kw_only=True)
    """What to leave at once in the commits of a partition that became ours; called in the consumer's thread."""
    _consumer: Consumer = attrs.field(init=False)
    _token: trio.lowlevel.TrioToken = attrs.field(init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _settled: dict[int, tuple[int, str]] = attrs.field(factory=dict, init=False)
    """What should be committed: offset and mark by partition."""
    _committed: dict[int, tuple[int, str]] = attrs.field(factory=dict, init=False)
    _stop: threading.Event = attrs.field(factory=threading.Event, init=False)
    _backlog: int = attrs.field(default=0, init=False)
    _held: list[int] = attrs.field(factory=list, init=False)
    is_paused: bool = attrs.field(default=False, init=False)
    """Whether nothing is fetched because too much waits."""
    _error: KafkaError | None = attrs.field(default=None, init=False)
    _undecoded: deque[tuple[Message, Micros]] = attrs.field(factory=deque, init=False)
    """Records in order, and when each was taken."""
    _decode_at: float = attrs.field(default=0.0, init=False)
    """When to ask the registry again, of `time.monotonic`."""
    _held_up: str = attrs.field(default="", init=False)

    async def run(self) -> None:
        """Consume until `stop`, or cancelled. Raises `SinkFailed`, `Refused` or `ConfigError` for what cannot go on."""
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._until_cancelled)
            try:
                await trio.to_thread.run_sync(self._run)
            finally:
                nursery.cancel_scope.cancel()

    async def _until_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._stop.set()  # the thread itself cannot be cancelled

    def stop(self) -> None:
        """Have `run` commit what is settled, leave the group and return; may be called from any thread."""
        self._stop.set()

    def settle(self, partition: int, offset: int, mark: Mark) -> None:
        """Everything before this offset is settled: commit it soon."""
        with self._lock:
            self._settled[partition] = (offset, mark.text())

    def waiting(self, count: int) -> None:
        """So many commands wait in memory; too many stop the fetching for a while."""
        self._backlog = count

    # In the thread.

    def _run(self) -> None:
        trouble = LastError()

        def on_error(error: KafkaError) -> None:
            trouble(error)
            if error.fatal() or refusal(self.settings, error) is not None:
                self._error = error

        config = {
            **connection_config(self.settings),
            "group.id": self.group,
            "group.instance.id": self.identity,
            "partition.assignment.strategy": "range",
            "session.timeout.ms": round(SESSION_TIMEOUT * 1000),
            "heartbeat.interval.ms": round(HEARTBEAT * 1000),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",  # offsets are given; what is out of range is another topic, or was deleted
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 100,
            "fetch.error.backoff.ms": 50,
            "topic.metadata.refresh.interval.ms": 10_000,
            "allow.auto.create.topics": not self.settings.verify_topics,
            "on_commit": self._on_commit,
            "error_cb": on_error,
        }
        self._consumer = consumer = create_client(self.make, config, self.settings)
        try:
            callbacks = [self._told(each) for each in (self._on_assign, self._on_revoke, self._on_lost)]
            consumer.subscribe([self.topic], *callbacks)
            while not self._stop.is_set():
                self._turn(consumer)
            self._commit(wait=True)
        except KafkaException as failure:
            raise SinkFailed(f"{self._where}: {trouble.told(self.settings, consumer, failure)}") from None
        finally:
            consumer.close()

    def _turn(self, consumer: Consumer) -> None:
        # `consume` alone would wait for a full batch; `poll` returns with the first record, the rest is there already.
        first = consumer.poll(0 if self._can_decode else _WAIT_S)
        if first is not None:
            taken = Micros(self.clock())
            messages = [first, *consumer.consume(_BATCH, 0)]
            self._undecoded.extend((message, taken) for message in messages if self._is_record(message))
        if self._can_decode and (records := self._decoded()):
            self._token.run_sync_soon(self.owner.take, records)
        if self._error is not None:
            told = refusal(self.settings, self._error) or self._error.str()
            raise (Refused if self._error.fatal() is False else SinkFailed)(f"{self._where}: {told}")
        self._commit(wait=False)
        self._keep_bounded(consumer)

    @property
    def _can_decode(self) -> bool:
        return bool(self._undecoded) and time.monotonic() >= self._decode_at

    def _decoded(self) -> list[Consumed]:
        """The next records, up to one of which only a registry knows whether it can be read.

        Of those that need the registry at most one: what it says may take long, and Kafka wants to be polled.
        """
        records: list[Consumed] = []
        while self._undecoded:
            message, taken = self._undecoded[0]
            topic, value = message.topic() or "", message.value() or b""
            if records and not self.decoder.knows(value):
                break
            try:
                record = Consumed.read(
                    self.decoder, topic, message.partition() or 0, message.offset() or 0, value, taken
                )
            except SinkFailed as error:
                self._decode_at = time.monotonic() + DECODE_AGAIN
                self._tell_held_up(f"the record at offset {message.offset()} cannot be decoded: {error}")
                break
            self._undecoded.popleft()
            records.append(record)
            self._tell_held_up("")
        return records

    def _tell_held_up(self, reason: str) -> None:
        if reason != self._held_up:
            self._held_up = reason
            self._token.run_sync_soon(self.owner.held_up, reason)

    def _forget_undecoded(self) -> None:
        """They are read again by whoever owns the topic next."""
        self._undecoded.clear()
        self._tell_held_up("")

    def _is_record(self, message: Message) -> bool:
        if (error := message.error()) is not None:
            if error.code() in _NOT_ALLOWED:
                raise SinkFailed(
                    f"{self._where}: {error.str()}; grant us Read on the topic and on the group {self.group}"
                )
            # Of a message, `fatal` tells nothing; and this comes once, after which `poll` is silent for ever.
            if error.code() in _NO_TOPIC or error.code() == KafkaError._FATAL or error.fatal():
                raise SinkFailed(f"{self._where}: {error.str()}")
            return False  # passing trouble, which librdkafka deals with
        return True

    def _keep_bounded(self, consumer: Consumer) -> None:
        too_many = self._backlog > MAX_WAITING or bool(self._undecoded)
        if too_many and not self.is_paused:
            consumer.pause([TopicPartition(self.topic, number) for number in self._held])
            self.is_paused = True
        elif self.is_paused and not self._undecoded and self._backlog < MAX_WAITING // 2:
            consumer.resume([TopicPartition(self.topic, number) for number in self._held])
            self.is_paused = False

    def _commit(self, *, wait: bool) -> None:
        with self._lock:
            news = {number: at for number, at in self._settled.items() if self._committed.get(number) != at}
            self._committed |= news
        if not news:
            return
        offsets = [TopicPartition(self.topic, number, offset, text) for number, (offset, text) in news.items()]
        try:
            if wait:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            else:
                self._consumer.commit(offsets=offsets)
        except KafkaException as error:
            self._forget_commit()
            log.warning("commands_not_committed", topic=self.topic, text=error.args[0].str())

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        if error is not None:
            self._forget_commit()
            log.warning("commands_not_committed", topic=self.topic, text=error.str())

    def _forget_commit(self) -> None:
        """Have it done again. What is committed late is only looked at once more after a restart."""
        with self._lock:
            self._committed.clear()

    def _told(self, callback: _Rebalance) -> _Rebalance:
        """With a failure of Kafka as one of ours.

        What confluent-kafka raises in a callback of its own comes out of `poll` as something that is no exception
        (2.16 on Python 3.11): not even `except BaseException` would see it, and the thread's end would not be noticed.
        """

        def told(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            try:
                callback(consumer, partitions)
            except KafkaException as failure:
                raise SinkFailed(f"{self._where}: {failure.args[0].str()}") from None

        return told

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        holdings = [self._holding(consumer, found) for found in self._committed_offsets(consumer, partitions)]
        claims = [
            TopicPartition(self.topic, holding.partition, holding.start, self.claim(holding).text())
            for holding in holdings
        ]
        if claims:
            # Before anything can be sent: from here on another owner knows whom to ask.
            self._consumer.commit(offsets=claims, asynchronous=False)
        self._held = [holding.partition for holding in holdings]
        self.is_paused = False
        self._forget_undecoded()
        with self._lock:
            self._settled.clear()
            self._committed.clear()
        self._token.run_sync_soon(self.owner.assigned, holdings)
        consumer.assign([TopicPartition(self.topic, holding.partition, holding.start) for holding in holdings])

    def _committed_offsets(self, consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
        return consumer.committed(partitions, timeout=_ANSWER_WITHIN_S) if partitions else []

    def _holding(self, consumer: Consumer, found: TopicPartition) -> Holding:
        if found.error is not None:
            raise KafkaException(found.error)
        low, high = consumer.get_watermark_offsets(
            TopicPartition(self.topic, found.partition), timeout=_ANSWER_WITHIN_S
        )
        if found.offset < 0:
            return Holding(found.partition, low, high, None, is_committed=False)
        return Holding(found.partition, max(found.offset, low), high, Mark.read(found.metadata), is_committed=True)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if not self._stop.is_set():
            trio.from_thread.run(self.owner.give_up, trio_token=self._token)
            self._commit(wait=True)
        self._held = []
        self._forget_undecoded()
        consumer.unassign()

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._held = []
        self._forget_undecoded()
        why = f"Kafka has not heard of us for too long, or another member of {self.group} has {self.topic}"
        self._token.run_sync_soon(self.owner.lost, why)
        consumer.unassign()

    @property
    def _where(self) -> str:
        return f"commands in topic {self.topic}"
