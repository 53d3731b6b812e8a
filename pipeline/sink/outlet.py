"""The producer and what comes back from it: delivery reports, errors, statistics.

librdkafka calls back only from `poll`, which runs in a Trio task: everything here happens on one thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
import structlog
import trio
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline.model.errors import Refused
from pipeline.sink.errors import SinkFailed
from pipeline.sink.properties import create_client, producer_config
from pipeline.sink.records import UNKNOWN_TIME, Record
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.stats import KafkaGauges, Latency, read_statistics

log = structlog.get_logger()

_POLL_S = 0.01
_PURGE_WITHIN_S = 5.0
_SAMPLED = 63
"""Latency is looked at once in 64 reports: asking costs more than all other accounting."""

_NO_ENTRY = (KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED)


@attrs.frozen
class Failure:
    """A record that librdkafka gave back."""

    record: Record
    code: int
    reason: str


@attrs.define(eq=False)
class Outlet:
    """A producer that counts. `run` must be running for anything to come back."""

    settings: KafkaSettings
    on_failure: Callable[[], None]
    """Called when `failures` has something new."""
    sent: int = attrs.field(default=0, init=False)
    """Records that librdkafka took; counted by whoever calls `produce`."""
    acknowledged: int = attrs.field(default=0, init=False)
    failed: int = attrs.field(default=0, init=False)
    failures: deque[Failure] = attrs.field(factory=deque, init=False)
    broker_up: bool = attrs.field(default=False, init=False)
    gauges: KafkaGauges = attrs.field(factory=KafkaGauges, init=False)
    latency: Latency = attrs.field(factory=Latency, init=False)
    producer: Producer = attrs.field(init=False)
    produce: Callable[..., None] = attrs.field(init=False)
    """librdkafka's own: (topic, value, key, partition, callback, on_delivery, timestamp in ms).

    Never waits. Raises `BufferError` when the queue is full, and `KafkaException` for a record it will not take.
    """
    _refusal: str | None = attrs.field(default=None, init=False)
    _fatal: str | None = attrs.field(default=None, init=False)
    _trouble: str | None = attrs.field(default=None, init=False)
    _stopped: bool = attrs.field(default=False, init=False)
    _awaited: trio.Event | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        config = producer_config(self.settings) | {
            "on_delivery": self._on_delivery,
            "error_cb": self._on_error,
            "stats_cb": self._on_statistics,
        }
        self.producer = create_client(Producer, config, self.settings)
        self.produce = self.producer.produce

    @property
    def outstanding(self) -> int:
        """Records that librdkafka holds."""
        return self.sent - self.acknowledged - self.failed

    def send(self, record: Record) -> None:
        """Hand one record to librdkafka. Raises `BufferError` when its queue is full; a refused record is a failure."""
        timestamp = max(record.timestamp_ms, 0)  # librdkafka takes 0 for now
        try:
            self.produce(record.topic, record.value, record.key, -1, None, None, timestamp)
        except KafkaException as error:
            self.refuse(record, error)
        else:
            self.sent += 1

    def refuse(self, record: Record, error: KafkaException) -> None:
        """Take note of a record that `produce` did not take."""
        self.failures.append(Failure(record, error.args[0].code(), error.args[0].str()))
        self.on_failure()

    async def settled(self) -> None:
        """Wait until librdkafka holds no record any more; cancelling it leaves everything as it is."""
        while True:
            event = self._awaited
            if event is None:  # otherwise there is another waiter
                self._awaited = event = trio.Event()
            if not self.outstanding:
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
                    if self._refusal is not None:
                        raise Refused(f"Kafka at {self._where} refused us: {self._refusal}") from None
                    await trio.sleep(_POLL_S)
                else:
                    self.broker_up = True
                    return
        trouble = f": {self._trouble}" if self._trouble else ""
        raise SinkFailed(f"no answer from Kafka at {self._where} within {self.settings.connect_within:g} s{trouble}")

    async def bootstrap_servers(self) -> list[str]:
        """The brokers' addresses as the cluster tells them; raises `SinkFailed` when it does not answer."""
        try:
            metadata = await self._metadata()
        except KafkaException as error:
            raise SinkFailed(f"no answer from Kafka at {self._where}: {error.args[0].str()}") from None
        return [f"{broker.host}:{broker.port}" for broker in metadata.brokers.values()]

    async def run(self) -> None:
        """Take what comes back until `stop`. Raises `SinkFailed` after an error that no retry mends.

        `poll` never waits here. A thread that waits in it hands the interpreter lock over for every report, which
        costs more than the reports.
        """
        while not self._stopped:
            self.producer.poll(0)
            if self.failures:
                self.on_failure()
            if self._awaited is not None and not self.outstanding:
                self._awaited.set()
                self._awaited = None
            if self._fatal is not None:
                raise SinkFailed(f"Kafka at {self._where}: {self._fatal}")
            await trio.sleep(_POLL_S)

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
            self.producer.poll(_POLL_S)
        earlier = [failure for failure in self.failures if failure.code not in _PURGED]
        on_wire = [failure for failure in self.failures if failure.code == KafkaError._PURGE_INFLIGHT]
        in_queue = [failure for failure in self.failures if failure.code == KafkaError._PURGE_QUEUE]
        self.failures.clear()
        return earlier + on_wire + in_queue

    @property
    def _where(self) -> str:
        return ", ".join(self.settings.bootstrap_servers) or "the mock cluster"

    async def _metadata(self) -> Any:
        return await trio.to_thread.run_sync(lambda: self.producer.list_topics(timeout=1.0))

    # Everything below is called by librdkafka, from `poll`.

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.acknowledged += 1
            if not self.acknowledged & _SAMPLED:
                self.latency.observe(message.latency() or 0.0)
            if not self.broker_up:
                self._up()
            return
        # librdkafka does not tell the timestamp of a record that failed.
        record = Record(message.topic() or "", message.key() or b"", UNKNOWN_TIME, message.value() or b"")
        self.failures.append(Failure(record, error.code(), error.str()))
        self.failed += 1

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = f"{error.name()}: {error.str()}"
        if error.code() in _NO_ENTRY:
            self._refusal = error.str()
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            if self.broker_up:
                self._down(self._trouble or error.str())
        elif error.str() != self._trouble:
            self._trouble = error.str()
            if error.code() in _NO_ENTRY:
                log.error("kafka_refused", reason=error.str())

    def _on_statistics(self, text: str) -> None:
        self.gauges = read_statistics(text)
        if self.gauges.brokers_up and not self.broker_up:
            self._up()
        elif self.broker_up and not self.gauges.brokers_up and self.outstanding:  # an idle connection may rest
            self._down(self._trouble or "no broker is connected")

    def _down(self, reason: str) -> None:
        self.broker_up = False
        log.warning("kafka_down", reason=reason, effect="records wait in the queue, then in the spool")

    def _up(self) -> None:
        self.broker_up = True
        self._trouble = self._refusal = None
        log.info("kafka_up")


_PURGED = (KafkaError._PURGE_INFLIGHT, KafkaError._PURGE_QUEUE)
