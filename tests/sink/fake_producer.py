"""A producer that answers as it is told: for what no broker can be made to say."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import attrs
from confluent_kafka import KafkaError, KafkaException

Report = Callable[[KafkaError | None, Any], None]


@attrs.define
class Reported:
    """What a delivery report is about."""

    record_topic: str
    record_key: bytes
    record_value: bytes
    sent_ms: int

    def topic(self) -> str:
        return self.record_topic

    def key(self) -> bytes:
        return self.record_key

    def value(self) -> bytes:
        return self.record_value

    def latency(self) -> float:
        return 0.0


@attrs.define(eq=False)
class FakeBroker:
    """Makes producers and keeps what they delivered. `refusals` are used up one record after the other."""

    delivered: list[Reported] = attrs.field(factory=list)
    refusals: deque[tuple[int, bool]] = attrs.field(factory=deque)
    """Error code, and whether it is fatal to the producer."""
    refuses: Callable[[Reported], int | None] = lambda _: None
    """What is refused every time, by content."""
    producers: list[FakeProducer] = attrs.field(factory=list)

    def make(self, config: dict[str, Any], **_: object) -> Any:
        """In place of `confluent_kafka.Producer`."""
        self.producers.append(FakeProducer(self, config))
        return self.producers[-1]


@attrs.define(eq=False)
class FakeProducer:
    broker: FakeBroker
    config: dict[str, Any]
    queue: deque[tuple[Reported, Report]] = attrs.field(factory=deque)
    fatal: bool = False

    def produce(
        self, topic: str, value: bytes, key: bytes, partition: int, report: Report, _: None, timestamp: int
    ) -> None:
        if self.fatal:
            raise KafkaException(KafkaError(KafkaError._FATAL, "the producer has failed"))
        self.queue.append((Reported(topic, key, value, timestamp), report))

    def poll(self, _: float) -> int:
        count = len(self.queue)
        while self.queue:
            reported, report = self.queue.popleft()
            if self.fatal:
                report(KafkaError(KafkaError._PURGE_QUEUE), reported)
                continue
            refused = self.broker.refuses(reported)
            fatal = False
            if refused is None and self.broker.refusals:
                refused, fatal = self.broker.refusals.popleft()
            if refused is None:
                self.broker.delivered.append(reported)
                report(None, reported)
                continue
            report(KafkaError(refused, "as told"), reported)
            if fatal:
                self.fatal = True
                self.config["error_cb"](KafkaError(refused, "as told", True))
        return count

    def list_topics(self, timeout: float) -> Any:
        """A cluster that answers."""
        return SimpleNamespace(brokers={}, topics={})

    def purge(self, **_: bool) -> None:
        self.fatal = True
