"""Results to Kafka and back, against the real broker."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.testing
from confluent_kafka import KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from pipeline.model.errors import Retryable
from pipeline.model.events import Micros, Origin
from pipeline.model.orders import OrderResult
from pipeline.orders import results
from pipeline.orders.consumer import STALL
from pipeline.orders.results import AGAIN_AFTER, ResultWriter, read_results
from pipeline.sink.errors import SinkFailed
from pipeline.sink.routes import Route, compile_routes
from pipeline.sink.settings import KafkaSettings
from tests.services import KafkaBroker
from tests.sink.traffic import kafka_settings

HANG_GUARD = 120.0
NOW = Micros(time.time_ns() // 1000)


def result(number: int, at: int = NOW) -> OrderResult:
    origin = Origin("bybit", "linear", "BTCUSDT", None, "main", "c#1")
    return OrderResult(origin, None, Micros(at), None, f"c-{number}", 0, "create", "acknowledged", True)


@pytest.fixture
def settings(broker: KafkaBroker, tmp_path: Path) -> KafkaSettings:
    return kafka_settings(broker.bootstrap, tmp_path)


async def route_of(settings: KafkaSettings, *, create: bool = True) -> Route:
    route = (await compile_routes(settings))[OrderResult]
    if create:
        admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers[0]})
        admin.create_topics([NewTopic(route.topic, 2, 1)])[route.topic].result(HANG_GUARD)
    return route


async def write(writer: ResultWriter, *results: OrderResult) -> list[str]:
    delivered: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        for each in results:
            writer.publish(each, lambda name=each.command_id: delivered.append(name))  # type: ignore[misc]
        await writer.delivered()
        nursery.cancel_scope.cancel()
    writer.close()
    return delivered


async def test_what_was_written_is_read_back(settings: KafkaSettings) -> None:
    route = await route_of(settings)
    hour = 3_600_000_000
    with trio.fail_after(HANG_GUARD):
        delivered = await write(ResultWriter(settings, route), result(1, NOW - 2 * hour), result(2), result(3))
    assert delivered == ["c-1", "c-2", "c-3"]
    found = read_results(settings, route.topic, 0, lambda fields: True)
    assert sorted(fields["command_id"] for fields in found) == ["c-1", "c-2", "c-3"]
    assert found[0]["is_final"] is True
    assert (found[0]["partition"], found[0]["offset"], found[0]["topic"]) == (0, 0, "")
    late = read_results(settings, route.topic, (NOW - hour) // 1000, lambda fields: fields["command_id"] != "c-3")
    assert [fields["command_id"] for fields in late] == ["c-2"]
    assert read_results(settings, route.topic, (NOW + hour) // 1000, lambda fields: True) == []


async def test_what_others_wrote_there_does_not_stop_the_reading(settings: KafkaSettings) -> None:
    route = await route_of(settings)
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers[0]})
    producer.produce(route.topic, b"nonsense")
    assert producer.flush(HANG_GUARD) == 0
    with trio.fail_after(HANG_GUARD):
        await write(ResultWriter(settings, route), result(1))
    found = read_results(settings, route.topic, 0, lambda fields: "command_id" in fields)
    assert len(found) == 1


async def test_a_topic_that_is_not_there_cannot_be_read(settings: KafkaSettings) -> None:
    route = await route_of(settings, create=False)
    with pytest.raises(SinkFailed, match=route.topic):
        read_results(settings, route.topic, 0, lambda fields: True)


class Refusing:
    """A producer whose broker refuses the first record."""

    def __init__(self, config: object, logger: object) -> None:
        self.reports: list[tuple[object, object]] = []
        self.refusals = 1
        self.full = True

    def produce(self, topic: str, value: bytes, key: bytes, partition: int, report: object, *rest: object) -> None:
        if self.full:
            self.full = False
            raise BufferError
        error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED) if self.refusals else None
        self.refusals -= bool(self.refusals)
        self.reports.append((report, error))

    def poll(self, seconds: float) -> None:
        reports, self.reports = self.reports, []
        for report, error in reports:
            report(error, None)  # type: ignore[operator]

    def purge(self, **what: object) -> None: ...


async def test_what_is_refused_is_offered_again(autojump_clock: trio.testing.MockClock) -> None:
    route = await route_of(KafkaSettings(), create=False)
    writer = ResultWriter(KafkaSettings(), route, Refusing)  # type: ignore[arg-type]
    started = trio.current_time()
    assert await write(writer, result(1)) == ["c-1"]
    assert trio.current_time() - started >= AGAIN_AFTER
    assert (writer.failures, writer.last_error) == (1, "")


async def test_what_was_refused_before_a_stall_is_not_offered_again(autojump_clock: trio.testing.MockClock) -> None:
    route = await route_of(KafkaSettings(), create=False)
    writer = ResultWriter(KafkaSettings(), route, Refusing)  # type: ignore[arg-type]
    delivered: list[str] = []
    with pytest.RaisesGroup(pytest.RaisesExc(Retryable, match="before a stall")):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            writer.publish(result(1), lambda: delivered.append("c-1"))
            await trio.sleep(AGAIN_AFTER / 2)
            assert writer.failures == 1
            autojump_clock.jump(STALL + 1)
            await trio.sleep(2 * AGAIN_AFTER)
            nursery.cancel_scope.cancel()
    assert (delivered, writer.outstanding) == ([], 1)


def test_results_that_may_not_be_read_name_the_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Refusal:
        def error(self) -> KafkaError:
            return KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)

        def partition(self) -> int:
            return 0

        offset = partition

    class Guarded:
        """A topic that can be described, with a record that cannot be read."""

        def list_topics(self, topic: str, timeout: float) -> SimpleNamespace:
            return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None})})

        def offsets_for_times(self, asked: list[TopicPartition], timeout: float) -> list[TopicPartition]:
            return asked

        def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
            return 0, 1

        def assign(self, partitions: list[TopicPartition]) -> None: ...

        def consume(self, count: int, timeout: float) -> list[Refusal]:
            return [Refusal()]

        def close(self) -> None: ...

    monkeypatch.setattr(results, "create_client", lambda *_: Guarded())
    with pytest.raises(SinkFailed, match=r"order\.order_result: we may not read it: grant us Read on the topic"):
        read_results(kafka_settings("unused:1", tmp_path), "order.order_result", 0, lambda _: True)
