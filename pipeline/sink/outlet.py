"""The producer and what comes back from it: delivery reports, errors, statistics.

librdkafka calls back only from `poll` and from the blocking calls of transactions. Either the Trio thread polls, or it
has lent the producer to a worker thread for one call: never both at once.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar

import attrs
import structlog
import trio
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline.model.errors import Refused
from pipeline.model.events import Micros
from pipeline.model.latency import DELIVERY_BOUNDS_S, PRODUCE_BOUNDS_S, SAMPLED, Latency
from pipeline.model.rate import Budget, Rate
from pipeline.sink.errors import SinkFailed
from pipeline.sink.properties import create_client, producer_config
from pipeline.sink.records import UNKNOWN_TIME, Record
from pipeline.sink.refusals import diagnosis, refusal
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.stats import KafkaGauges, read_statistics
from pipeline.sink.verdicts import FENCED, Verdict, ruling_on

log = structlog.get_logger()

_POLL_S = 0.01
_PURGE_WITHIN_S = 5.0
_RENEWALS = Rate(5, 600.0)
"""How often a new producer is worth trying."""

_STATE = re.compile(r" \(after \d+ms in state [^)]*\)$")
"""What librdkafka adds to each error, different every time."""

T = TypeVar("T")


def wall_clock() -> Micros:
    """Microseconds since 1970 UTC."""
    return Micros(time.time_ns() // 1000)


@attrs.frozen
class Failure:
    """A record that librdkafka gave back."""

    record: Record
    code: int
    reason: str
    at_once: bool = False
    """Whether `produce` did not take it: what comes back later is older."""


@attrs.define(eq=False)
class Generation:
    """Records that were sent within about a second, to know since when some are on their way."""

    since: Micros
    first: int
    """How many had been sent before."""
    reported: int = 0


@attrs.define(eq=False)
class Outlet:
    """A producer that counts. `run` must be running for anything to come back."""

    settings: KafkaSettings
    on_failure: Callable[[], None]
    """Called when `failures` has something new, or the producer is broken."""
    make: Callable[..., Producer] = Producer
    now: Callable[[], Micros] = wall_clock
    received: Callable[[Record], int] = lambda record: 0
    """When the message came that a record was made of, in microseconds; 0 if the record does not tell."""
    sent: int = attrs.field(default=0, init=False)
    """Records that librdkafka took; counted by whoever calls `produce`."""
    acknowledged: int = attrs.field(default=0, init=False)
    failed: int = attrs.field(default=0, init=False)
    failures: deque[Failure] = attrs.field(factory=deque, init=False)
    broken: str | None = attrs.field(default=None, init=False)
    """Why the producer takes nothing any more, until `renew`."""
    renewals: int = attrs.field(default=0, init=False)
    stuck: int = attrs.field(default=0, init=False)
    """Records that a broken producer did not give back."""
    report: Callable[[KafkaError | None, Message], None] = attrs.field(init=False)
    """The `on_delivery` of this moment's records."""
    broker_up: bool = attrs.field(default=False, init=False)
    gauges: KafkaGauges = attrs.field(factory=KafkaGauges, init=False)
    latency: Latency = attrs.field(factory=lambda: Latency(DELIVERY_BOUNDS_S), init=False)
    """From `produce` to the acknowledgement, of one record in 64: asking costs more than all other accounting."""
    until_produced: Latency = attrs.field(factory=lambda: Latency(PRODUCE_BOUNDS_S), init=False)
    """From receiving to `produce`, of one record in 64; see `note_produced`."""
    down_since: Micros | None = attrs.field(init=False)
    """Since when no broker answers; None while one does."""
    producer: Producer = attrs.field(init=False)
    produce: Callable[..., None] = attrs.field(init=False)
    """librdkafka's own: (topic, value, key, partition, `report`, None, timestamp in ms).

    Never waits. Raises `BufferError` when the queue is full, and `KafkaException` for a record it will not take.
    """
    _error: KafkaError | None = attrs.field(default=None, init=False)
    """The last one of a connection."""
    _refusal: str | None = attrs.field(default=None, init=False)
    _fatal: KafkaError | None = attrs.field(default=None, init=False)
    _lent: bool = attrs.field(default=False, init=False)
    _generations: deque[Generation] = attrs.field(factory=deque, init=False)
    _renewed: Budget = attrs.field(factory=lambda: Budget(_RENEWALS), init=False)
    _trouble: str | None = attrs.field(default=None, init=False)
    _stopped: bool = attrs.field(default=False, init=False)
    _awaited: trio.Event | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.down_since = self.now()
        self._create()
        self.turn_over(Micros(0))

    def _create(self) -> None:
        config = producer_config(self.settings) | {
            "error_cb": self._on_error,
            "stats_cb": self._on_statistics,
        }
        self.producer = create_client(self.make, config, self.settings)
        self.produce = self.producer.produce

    @property
    def outstanding(self) -> int:
        """Records that librdkafka holds."""
        return self.sent - self.acknowledged - self.failed

    def send(self, record: Record) -> None:
        """Hand one record to librdkafka. Raises `BufferError` when its queue is full; a refused record is a failure."""
        timestamp = max(record.timestamp_ms, 0)  # librdkafka takes 0 for now
        try:
            self.produce(record.topic, record.value, record.key, -1, self.report, None, timestamp)
        except KafkaException as error:
            self.refuse(record, error)
        else:
            self.sent += 1
            if not self.sent & SAMPLED and (received := self.received(record)):
                self.note_produced(received)

    def note_produced(self, received: int) -> None:
        """Count how long a record that librdkafka took has been with us; whoever calls `produce` chooses which."""
        self.until_produced.observe((self.now() - received) / 1e6)

    def refuse(self, record: Record, error: KafkaException) -> None:
        """Take note of a record that `produce` did not take."""
        self.failures.append(Failure(record, error.args[0].code(), error.args[0].str(), at_once=True))
        self.on_failure()

    def turn_over(self, now: Micros) -> Micros | None:
        """Begin a new generation; returns since when records are on their way, None if none are."""
        while len(self._generations) > 1 and self._generations[0].reported >= self._generations[1].first:
            done = self._generations.popleft()
            self._generations[0].reported += done.reported  # `first` counts from the first record of all, too
        oldest = self._generations[0].since if self._generations and self.outstanding else None
        self._begin(Generation(now, self.sent))
        return oldest

    def _begin(self, generation: Generation) -> None:
        self._generations.append(generation)

        def report(error: KafkaError | None, message: Message) -> None:
            generation.reported += 1
            if error is not None:
                self._came_back(error, message)
                return
            self.acknowledged = acknowledged = self.acknowledged + 1
            if not acknowledged & SAMPLED:
                self.latency.observe(message.latency() or 0.0)
            if not self.broker_up:
                self._up()

        self.report = report

    @property
    def oldest(self) -> Micros | None:
        """Since when the oldest record is on its way, up to a second too early; None if none is."""
        if not self.outstanding:
            return None
        reported = 0
        for generation, next_one in pairwise(self._generations):
            reported += generation.reported
            if reported < next_one.first:
                return generation.since or None
        return self._generations[-1].since or None

    @property
    def trouble(self) -> str:
        """The newest reason for which the cluster does not answer, or takes nothing; empty if there is none."""
        return self.broken or self._refusal or self._trouble or ""

    async def settled(self) -> None:
        """Wait until librdkafka holds no record any more, or is broken; cancelling it leaves everything as it is."""
        while True:
            event = self._awaited
            if event is None:  # otherwise there is another waiter
                self._awaited = event = trio.Event()
            if not self.outstanding or self.broken is not None:
                await trio.lowlevel.checkpoint()
                return
            await event.wait()

    async def connect(self) -> None:
        """Return when the cluster has answered.

        Raises `Refused` when it does not let us in, `SinkFailed` when it does not answer within `connect_within`.
        """
        with trio.move_on_after(self.settings.connect_within):
            while True:
                try:
                    await self._metadata()
                except KafkaException:
                    why = await diagnosis(self.settings, self._error)
                    if why is not None:
                        raise Refused(f"Kafka at {self.where} refused us: {why}") from None
                    await trio.sleep(_POLL_S)
                else:
                    self._reached()
                    return
        trouble = f": {self._trouble}" if self._trouble else ""
        raise SinkFailed(f"no answer from Kafka at {self.where} within {self.settings.connect_within:g} s{trouble}")

    def log_in_as(self, user: str, password: str) -> None:
        """Use these from the next connection on."""
        self.producer.set_sasl_credentials(user, password)

    async def alone(self, call: Callable[[], T]) -> T:
        """Make a call that blocks, and calls back, in a worker thread."""
        self._lent = True
        try:
            return await trio.to_thread.run_sync(call)
        finally:
            self._lent = False

    async def renew(self) -> list[Failure]:
        """Replace a broken producer; returns what it held, oldest first, of which some may be in Kafka all the same.

        Raises `SinkFailed` when that was done too often.
        """
        why, moment = self.broken, time.monotonic()
        if self._renewed.wait(moment) > 0:
            raise SinkFailed(f"Kafka at {self.where}: {why}; {_RENEWALS.count} new producers have not helped")
        self._renewed.take(moment)
        log.warning("producer_replaced", reason=why, in_flight=self.outstanding)
        given_back = await self.alone(self.give_up)
        old = [self.producer]
        self.stuck += self.outstanding
        self.failed += self.outstanding
        self._create()
        self._generations.clear()
        self._begin(Generation(Micros(0), 0, reported=self.sent))
        self.broken = self._fatal = None
        self.renewals += 1
        with trio.CancelScope(shield=True):  # otherwise nobody would have what was given back
            await trio.to_thread.run_sync(old.clear)  # ends its threads, for which it may have to wait
        return given_back

    def break_off(self, reason: str) -> None:
        """Take the producer for broken."""
        if self.broken is None:
            self.broken = reason
            log.error("producer_broken", reason=reason)
        self.on_failure()
        if self._awaited is not None:
            self._awaited.set()
            self._awaited = None

    async def bootstrap_servers(self) -> list[str]:
        """The brokers' addresses as the cluster tells them; raises `SinkFailed` when it does not answer."""
        try:
            metadata = await self._metadata()
        except KafkaException as error:
            raise SinkFailed(f"no answer from Kafka at {self.where}: {error.args[0].str()}") from None
        return [f"{broker.host}:{broker.port}" for broker in metadata.brokers.values()]

    async def run(self) -> None:
        """Take what comes back until `stop`. Raises `SinkFailed` after an error that no retry mends.

        `poll` never waits here. A thread that waits in it hands the interpreter lock over for every report, which
        costs more than the reports.
        """
        while not self._stopped:
            if not self._lent:
                self._poll(0)
            if self._fatal is not None and self.broken is None:
                self._judge(self._fatal)
            if self.failures:
                self.on_failure()
            if self._awaited is not None and not self.outstanding:
                self._awaited.set()
                self._awaited = None
            await trio.sleep(_POLL_S)

    def _poll(self, seconds: float) -> None:
        try:
            self.producer.poll(seconds)
        except KafkaException as error:  # a fatal one comes so, whatever `error_cb` makes of it
            self._on_error(error.args[0])

    def _judge(self, error: KafkaError) -> None:
        """A fatal error: break off, or raise `SinkFailed`. In transactions being fenced can have another cause."""
        text = f"{error.name()}: {error.str()}"
        ruling = ruling_on(error.code(), fatal=True)
        if ruling.verdict is Verdict.STOP and not (self.settings.is_exactly_once and error.code() in FENCED):
            raise SinkFailed(f"Kafka at {self.where}: {text}; {ruling.remedy}")
        self.break_off(text)

    @property
    def is_stopped(self) -> bool:
        """Whether nothing comes back any more: after `stop`, or after an error beyond repair."""
        return self._stopped

    def stop(self) -> None:
        """Let `run` end."""
        self._stopped = True

    def give_up(self) -> list[Failure]:
        """Take back everything that is not delivered, oldest first; blocks, after `run` has ended.

        What was on the wire may be in Kafka all the same.
        """
        if self.outstanding:
            self.producer.purge(in_queue=True, in_flight=True)
        deadline = time.monotonic() + _PURGE_WITHIN_S
        while self.outstanding and time.monotonic() < deadline:
            self._poll(_POLL_S)
        taken = sorted(self.failures, key=lambda failure: 3 if failure.at_once else _PURGED.get(failure.code, 0))
        self.failures.clear()
        return taken

    @property
    def where(self) -> str:
        """The cluster, for people."""
        return ", ".join(self.settings.bootstrap_servers) or "the mock cluster"

    async def _metadata(self) -> Any:
        ask = self.producer.list_topics
        return await trio.to_thread.run_sync(lambda: ask(timeout=1.0), abandon_on_cancel=True)  # it only asks

    # Everything below is called by librdkafka, from `poll`.

    def _came_back(self, error: KafkaError, message: Message) -> None:
        # librdkafka does not tell the timestamp of a record that failed.
        record = Record(message.topic() or "", message.key() or b"", UNKNOWN_TIME, message.value() or b"")
        self.failures.append(Failure(record, error.code(), error.str()))
        self.failed += 1

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            if self.broker_up:
                self._down(self._trouble or error.str())
            return
        self._error, self._trouble = error, _STATE.sub("", error.str())
        why = refusal(self.settings, error)
        if why is not None and why != self._refusal:
            log.error("kafka_refused", reason=why, effect="records wait in the queue, then in the spool")
        self._refusal = why

    def _on_statistics(self, text: str) -> None:
        self.gauges = read_statistics(text)
        if self.gauges.brokers_up and not self.broker_up:
            self._up()
        elif self.broker_up and not self.gauges.brokers_up and self.outstanding:  # an idle connection may rest
            self._down(self._trouble or "no broker is connected")

    def _down(self, reason: str) -> None:
        self.broker_up = False
        self.down_since = self.now()
        log.warning("kafka_down", reason=reason, effect="records wait in the queue, then in the spool")

    def _up(self) -> None:
        self._reached()
        log.info("kafka_up")

    def _reached(self) -> None:
        self.broker_up, self.down_since = True, None
        self._error = self._trouble = self._refusal = None


_PURGED = {KafkaError._PURGE_INFLIGHT: 1, KafkaError._PURGE_QUEUE: 2}
"""Behind what came back by itself: what was on the wire, then what was not."""
