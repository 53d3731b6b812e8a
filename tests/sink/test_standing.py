"""What the sink tells of itself: what troubles it and since when, how old what waits is, what it had to give up."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
import trio
from confluent_kafka import KafkaError
from trio.testing import MockClock

from pipeline.model.decimals import DecimalText
from pipeline.model.events import Micros
from pipeline.sink import routes
from pipeline.sink.backlog import Backlog
from pipeline.sink.errors import RegistryAbsent
from pipeline.sink.opening import Opening, open_sink
from pipeline.sink.outlet import Outlet
from pipeline.sink.records import Record
from pipeline.sink.routes import Routes
from pipeline.sink.settings import KafkaSettings, RegistrySettings, SpoolSettings
from pipeline.sink.sink import Sink
from pipeline.sink.spool import Spool, open_spool
from tests.sink.fake_producer import FakeBroker
from tests.sink.traffic import kafka_settings, origin, trade

WITHIN_S = 600
START = 1_700_000_000_000_000


@pytest.fixture(autouse=True)
def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps while nothing is to do would jump over what threads do meanwhile."""

    async def run_sync(call: Callable[..., Any], *arguments: object, **_: object) -> Any:
        await trio.lowlevel.checkpoint()
        return call(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


def time_of(clock: MockClock) -> Callable[[], Micros]:
    """The test's own time, for threads as well."""
    return lambda: Micros(START + round(clock.current_time() * 1e6))


def tell_error(broker: FakeBroker, code: int, text: str) -> None:
    """What librdkafka tells beside the records."""
    broker.producers[-1].config["error_cb"](KafkaError(code, text))


@asynccontextmanager
async def sink_at(broker: FakeBroker, clock: MockClock, folder: Path, **changes: Any) -> AsyncIterator[Sink]:
    settings = attrs.evolve(kafka_settings("localhost:1", folder), verify_topics=False, **changes)
    with trio.fail_after(WITHIN_S):
        async with open_sink(settings, now=time_of(clock), make_producer=broker.make) as sink:
            yield sink


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the sink announces nothing
        await trio.sleep(0.05)


def publish(sink: Sink, number: int, *, age_s: float = 0.0, price: str = "1") -> None:
    event = trade(number, origin())
    event.receive_time, event.price = Micros(sink.now() - round(age_s * 1e6)), DecimalText(price)
    sink.publish(event)


async def test_why_and_since_when_kafka_is_away(tmp_path: Path, autojump_clock: MockClock) -> None:
    broker = FakeBroker()
    async with sink_at(broker, autojump_clock, tmp_path) as sink:
        assert (sink.stats().down_since, sink.stats().trouble) == (None, "")
        await trio.sleep(5)
        left = time_of(autojump_clock)()
        tell_error(broker, KafkaError._TRANSPORT, "kafka:9092/1: no route (after 12ms in state CONNECT)")
        tell_error(broker, KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
        await trio.sleep(3)
        assert (sink.stats().down_since, sink.stats().trouble) == (left, "kafka:9092/1: no route")
        publish(sink, 1)
        await until(lambda: sink.stats().broker_up)
        assert (sink.stats().down_since, sink.stats().trouble) == (None, "")


async def test_topics_that_refuse_are_named_until_they_take_records(tmp_path: Path, autojump_clock: MockClock) -> None:
    broker = FakeBroker()
    broker.refuses = lambda reported: KafkaError.TOPIC_AUTHORIZATION_FAILED
    async with sink_at(broker, autojump_clock, tmp_path) as sink:
        publish(sink, 1)
        await until(lambda: bool(sink.stats().refusing))
        [(topic, why)] = sink.stats().refusing.items()
        assert topic.endswith("trade")
        assert why.endswith("; grant the user Write on the topic")
        broker.refuses = lambda reported: None
        await sink.delivered()
        assert sink.stats().refusing == {}
        assert sink.stats().own_letters == 0


async def test_what_kafka_never_takes_is_told_with_its_reason(tmp_path: Path, autojump_clock: MockClock) -> None:
    broker = FakeBroker()
    async with sink_at(broker, autojump_clock, tmp_path, max_record_bytes=2_000) as sink:
        publish(sink, 1, price="9" * 3_000)
        await sink.delivered()
        stats = sink.stats()
        assert (stats.own_letters, stats.dead_letters) == (1, 1)
        assert stats.last_letter.endswith("bytes is over kafka.max_record_bytes of 2000")
        broker.refuses = lambda reported: KafkaError.MSG_SIZE_TOO_LARGE if reported.topic().endswith("trade") else None
        publish(sink, 2)
        await sink.delivered()
        assert sink.stats().own_letters == 2
        assert "trade: " in sink.stats().last_letter


@pytest.mark.parametrize("mode", [{}, {"journal": True}], ids=["direct", "journal"])
async def test_the_age_of_what_waits(mode: dict[str, Any], tmp_path: Path, autojump_clock: MockClock) -> None:
    broker = FakeBroker()
    async with sink_at(broker, autojump_clock, tmp_path, **mode) as sink:
        publish(sink, 1)
        await sink.delivered()
        await trio.sleep(60)
        assert sink.stats().oldest_age == 0, "nothing waits"
        broker.refuses = lambda reported: KafkaError.NOT_ENOUGH_REPLICAS
        publish(sink, 2)
        await trio.sleep(30)
        publish(sink, 3)
        await trio.sleep(60)
        assert 89 < sink.stats().oldest_age < 92
        broker.refuses = lambda reported: None
        await sink.delivered()
        assert sink.stats().oldest_age == 0


async def test_the_age_of_what_an_earlier_process_left(tmp_path: Path, autojump_clock: MockClock) -> None:
    broker = FakeBroker()
    broker.refuses = lambda reported: KafkaError.NOT_ENOUGH_REPLICAS
    async with sink_at(broker, autojump_clock, tmp_path, drain_within=0.1) as sink:
        publish(sink, 1, age_s=20)
        await trio.sleep(1)
    await trio.sleep(100)
    async with sink_at(broker, autojump_clock, tmp_path, drain_within=0.1) as sink:
        assert 121 <= sink.stats().oldest_age < 123


async def test_the_time_to_the_producer_is_sampled_on_every_way(tmp_path: Path, autojump_clock: MockClock) -> None:
    broker = FakeBroker()
    async with sink_at(broker, autojump_clock, tmp_path) as sink:
        for number in range(130):  # the first go through the spool
            publish(sink, number, age_s=0.2)
        await sink.delivered()
        spooled = sum(sink.stats().until_produced.counts)
        assert spooled == 2, "one in 64"
        for number in range(64):
            publish(sink, number, age_s=0.2)
        found = sink.stats().until_produced
        assert sum(found.counts) == 3
        assert 0.6 <= found.sum_s < 2


def test_an_outlet_does_not_age_what_has_arrived(tmp_path: Path) -> None:
    broker = FakeBroker()
    outlet = Outlet(kafka_settings("localhost:1", tmp_path), lambda: None, broker.make, lambda: Micros(5))
    producer = broker.producers[-1]

    def send(count: int) -> None:
        for number in range(count):
            outlet.produce("t", b"%d" % number, b"k", -1, outlet.report, None, 0)
            outlet.sent += 1

    assert outlet.oldest is None
    outlet.turn_over(Micros(10))
    send(2)
    outlet.turn_over(Micros(20))
    send(1)
    assert outlet.oldest == 10
    (first, report), (second, again), _ = producer.queue
    report(None, first)
    assert outlet.oldest == 10
    again(None, second)
    assert outlet.oldest == 20
    outlet.turn_over(Micros(30))
    assert outlet.oldest == 20


async def test_a_registry_that_is_away_is_waited_for_and_named(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0

    async def compile_routes(settings: KafkaSettings) -> Routes:
        nonlocal attempts
        attempts += 1
        if attempts < 6:
            assert opening.waits_for == "registry"
            assert opening.trouble() == ("" if attempts == 1 else f"no answer at attempt {attempts - 1}")
            raise RegistryAbsent(f"no answer at attempt {attempts}")
        return await routes.compile_routes(attrs.evolve(settings, schema_registry=None))

    monkeypatch.setattr("pipeline.sink.opening.compile_routes", compile_routes)
    opening, broker = Opening(), FakeBroker()
    settings = kafka_settings("localhost:1", tmp_path)
    settings = attrs.evolve(settings, verify_topics=False, schema_registry=RegistrySettings("http://registry:8081"))
    with structlog.testing.capture_logs() as logs, trio.fail_after(WITHIN_S):
        async with open_sink(settings, now=time_of(autojump_clock), make_producer=broker.make, opening=opening):
            assert opening.waits_for == "kafka"
            assert opening.trouble() == ""
    assert trio.current_time() >= 1 + 2 + 5 + 10 + 10
    assert sum(line["event"] == "registry_absent" for line in logs) == 5


def test_the_oldest_unread_record_of_a_spool_moves_on_as_it_is_read(tmp_path: Path) -> None:
    first, second, third, fourth = (Record("t", b"k", 0, b"%d" % number) for number in range(4))
    spool = open_spool(SpoolSettings(directory=str(tmp_path)))
    assert spool.oldest is None
    spool.write([first, second])
    spool.write([third])
    assert spool.oldest == first
    chunk = spool.read(2)
    assert chunk is not None
    assert spool.oldest == second, "the last one that was read"
    spool.read(2)
    assert spool.oldest is None
    end = spool.append(fourth)
    assert spool.oldest == fourth
    spool.passed(end, fourth)
    assert spool.oldest is None
    spool.append(first)
    assert spool.oldest == first, "whatever was read long before"
    spool.close()


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("sync", [True, False])
async def test_a_disk_that_is_well_again_is_told_though_nothing_is_left_to_write(
    sync: bool, tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SpoolSettings(directory=str(tmp_path), sync=sync)
    backlog = Backlog(settings, open_spool(settings, identified=False), time_of(autojump_clock))
    with trio.fail_after(WITHIN_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backlog.keep_writing)
            with monkeypatch.context() as patch:
                patch.setattr("pipeline.sink.spool.os.fdatasync" if sync else "pipeline.sink.spool.Spool.write", full)
                patch.setattr("pipeline.sink.spool.Spool.probe", Spool.probe if sync else full)
                backlog.append(Record("t", b"k", 0, b"v"))
                await until(lambda: backlog.failure is not None)
                assert len(backlog.take_memory()) == 1  # Kafka takes it
                await trio.sleep(60)
                assert backlog.failure == "No space left on device"
                assert backlog.no_space
            await until(lambda: backlog.failure is None)
            assert not backlog.no_space
            nursery.cancel_scope.cancel()
    backlog.close([])


async def test_a_spool_that_can_be_read_again_is_no_trouble_any_more(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SpoolSettings(directory=str(tmp_path))
    backlog = Backlog(settings, open_spool(settings, identified=False), time_of(autojump_clock))
    backlog.append(Record("t", b"k", 0, b"v"))
    await backlog.flush()
    with trio.fail_after(WITHIN_S):
        async with trio.open_nursery() as nursery:
            with monkeypatch.context() as patch:
                patch.setattr("pipeline.sink.spool.Spool.read", full)
                nursery.start_soon(backlog.take, 10)
                await until(lambda: backlog.failure is not None)
                await backlog.flush()  # that it can be written says nothing about reading
                assert backlog.failure is not None
            await until(lambda: backlog.failure is None)
    backlog.close([])
