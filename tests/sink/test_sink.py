from __future__ import annotations

import time
from hashlib import sha256
from pathlib import Path

import attrs
import pytest
import trio
import trio.lowlevel
from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient

from pipeline.model.errors import ConfigError, Refused
from pipeline.model.events import DeadLetter, Micros
from pipeline.model.secret import Secret
from pipeline.sink.errors import SinkFailed
from pipeline.sink.opening import open_sink
from pipeline.sink.reader import Decoder
from pipeline.sink.settings import KafkaSettings, SpoolSettings, TopicSettings
from pipeline.sink.sink import Sink
from pipeline.sink.topics import prepare_topics, topic_name
from tests.conftest import OwnBroker
from tests.sink.traffic import (
    DEADLINE_S,
    Tape,
    arrived,
    direct,
    kafka_settings,
    mock_settings,
    numbers,
    origin,
    trade,
    until,
)


async def test_all_records_arrive_once_and_in_order(settings: KafkaSettings) -> None:
    tape = Tape()
    async with open_sink(settings) as sink:
        await direct(sink)
        tape.publish(sink, 20_000)
        assert not sink.stats().is_spooling
        await sink.delivered()
        stats = sink.stats()
    assert stats.balanced
    assert stats.acknowledged == stats.published == stats.by_kind["trade"] == 20_000
    assert sum(stats.latency.counts) == 20_000 // 64
    records = list(arrived(settings))
    assert numbers(records) == tape.expected()
    one = records[0]
    assert one.kind == "trade"
    assert one.fields["price"] == "65000.5"
    assert one.timestamp_ms == int(one.fields["exchange_time"].timestamp() * 1000)


async def test_the_spool_ends_though_deliveries_take_longer_than_its_writes(tmp_path: Path) -> None:
    settings = mock_settings(tmp_path, queue_messages=2_000, linger=0.3)
    tape, over = Tape(), trio.Event()

    async def publish(sink: Sink) -> None:
        while not over.is_set():
            tape.publish(sink, 2)
            await trio.sleep(0.01)

    async with open_sink(settings) as sink:
        await direct(sink)
        tape.publish(sink, 5_000)
        assert sink.stats().is_spooling
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish, sink)
            await until(lambda: not sink.stats().is_spooling)
            over.set()
        await sink.delivered()
        assert sink.stats().balanced


async def test_leaving_the_sink_delivers_what_is_queued(settings: KafkaSettings) -> None:
    tape = Tape()
    async with open_sink(settings) as sink:
        tape.publish(sink, 3_000)
    assert sink.stats().acknowledged == 3_000
    assert numbers(arrived(settings)) == tape.expected()


async def test_cancelling_the_body_delivers_what_is_queued(settings: KafkaSettings) -> None:
    tape = Tape()
    with trio.CancelScope() as scope:
        async with open_sink(settings) as sink:
            tape.publish(sink, 3_000)
            scope.cancel()
            await trio.sleep_forever()
    assert numbers(arrived(settings)) == tape.expected()


async def test_a_small_queue_overflows_into_the_spool_and_keeps_order(settings: KafkaSettings) -> None:
    tape = Tape()
    async with open_sink(attrs.evolve(settings, queue_messages=500)) as sink:
        await direct(sink)
        for _ in range(40):
            tape.publish(sink, 1_000)
            await trio.lowlevel.checkpoint()
        assert sink.stats().is_spooling
        assert sink.stats().balanced
        await direct(sink)
        tape.publish(sink, 100)
        assert not sink.stats().is_spooling
        await sink.delivered()
        stats = sink.stats()
    assert stats.balanced
    assert stats.spool_bytes == 0
    assert numbers(arrived(settings)) == tape.expected()


async def test_an_unencodable_event_becomes_a_dead_letter(settings: KafkaSettings) -> None:
    bad = trade(1, origin(), price="n/a")
    async with open_sink(settings) as sink:
        sink.publish(bad)
        sink.publish(trade(2, origin()))
    (letter,) = arrived(settings, "dead_letter")
    assert letter.fields["stage"] == "encode"
    assert "price" in letter.fields["reason"]
    assert b"'n/a'" in letter.fields["payload"]
    assert letter.key == b"bybit.linear.BTCUSDT"
    assert numbers(arrived(settings)) == {b"bybit.linear.BTCUSDT": [2]}
    assert sink.stats().balanced


async def test_a_record_too_large_becomes_a_reference(settings: KafkaSettings) -> None:
    settings = attrs.evolve(settings, max_record_bytes=5_000)
    big = trade(1, origin(), trade_id="x" * 6_000)
    async with open_sink(settings) as sink:
        value = sink.routes[type(big)].encode(big)
        sink.publish(big)
        received, payload = Micros(1_700_000_000_000_000), b"y" * 6_000
        digest = sha256(payload).hexdigest()
        sink.publish(DeadLetter(origin(), None, received, None, "parse", "not JSON", payload, len(payload), digest))
    reference, wire = arrived(settings, "dead_letter")
    assert reference.fields["payload"] == b""
    assert reference.fields["payload_size"] == len(value)
    assert reference.fields["payload_sha256"] == sha256(value).hexdigest()
    assert reference.fields["topic"] == sink.routes[type(big)].topic
    assert wire.fields["payload_sha256"] == sha256(b"y" * 6_000).hexdigest()
    assert wire.fields["stage"] == "parse"
    assert wire.timestamp_ms == 1_700_000_000_000
    assert sink.stats().dead_letters == 2
    assert sink.stats().balanced


async def test_a_record_that_the_broker_finds_too_large_does_not_take_its_neighbours_along(
    settings: KafkaSettings,
) -> None:
    small_topic = {"trade": TopicSettings(partitions=1, config={"max.message.bytes": "20000"})}
    settings = attrs.evolve(settings, topics=small_topic, compression="none", linger=0.3)
    async with open_sink(settings) as sink:
        for number in range(50):
            sink.publish(trade(number, origin(), trade_id="x" * 30_000 if number == 20 else None))
        with trio.fail_after(DEADLINE_S):
            await sink.delivered()
        stats = sink.stats()
    assert stats.balanced
    assert stats.returned > 1
    found = numbers(arrived(settings))[b"bybit.linear.BTCUSDT"]
    assert sorted(found) == [number for number in range(50) if number != 20]
    (letter,) = arrived(settings, "dead_letter")
    assert letter.fields["stage"] == "produce"
    assert letter.fields["payload"] == b""
    assert letter.fields["payload_size"] > 30_000
    assert letter.fields["instrument"] == "BTCUSDT"


async def test_a_timestamp_that_the_broker_refuses_is_replaced(settings: KafkaSettings) -> None:
    future = trade(1, origin())
    future.exchange_time = Micros(future.receive_time + 10 * 86_400 * 1_000_000)
    async with open_sink(settings) as sink:
        await direct(sink)
        sink.publish(trade(0, origin()))
        sink.publish(future)
        sink.publish(trade(2, origin()))
        await until(lambda: sink.stats().acknowledged == 3)
    records = list(arrived(settings))
    assert sorted(record.fields["sequence"] for record in records) == [0, 1, 2]
    assert all(abs(record.timestamp_ms / 1000 - time.time()) < 300 for record in records)
    assert sink.stats().balanced


QUICK = {"topic.metadata.propagation.max.ms": 100, "topic.metadata.refresh.interval.ms": 200}


async def _without_trade_topic(sink: Sink) -> None:
    topic = topic_name(sink.settings, "trade")
    admin = AdminClient({"bootstrap.servers": sink.settings.bootstrap_servers[0]})
    await trio.to_thread.run_sync(admin.delete_topics([topic])[topic].result)
    await until(lambda: topic not in admin.list_topics(timeout=DEADLINE_S).topics)


async def test_a_topic_that_vanishes_holds_records_back_until_it_is_there_again(settings: KafkaSettings) -> None:
    tape = Tape()
    async with open_sink(attrs.evolve(settings, properties=QUICK)) as sink:
        await direct(sink)
        await _without_trade_topic(sink)
        tape.publish(sink, 200)
        await until(lambda: sink.stats().returned)
        assert sink.stats().balanced
        await trio.to_thread.run_sync(_create_again, settings)
        await direct(sink)
    assert sink.stats().balanced
    assert numbers(arrived(settings)) == tape.expected()
    assert list(arrived(settings, "dead_letter")) == []


async def test_records_that_a_topic_keeps_refusing_become_dead_letters(
    settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.sink.delivery._PATIENCE_S", 0.3)
    async with open_sink(attrs.evolve(settings, properties=QUICK)) as sink:
        await direct(sink)
        await _without_trade_topic(sink)
        Tape(instruments=1).publish(sink, 5)
        await until(lambda: sink.stats().dead_letters == 5)
        await direct(sink)
    letters = list(arrived(settings, "dead_letter"))
    assert [Decoder(settings).decode(letter.fields["payload"])["sequence"] for letter in letters] == [0, 1, 2, 3, 4]
    assert {letter.fields["topic"] for letter in letters} == {topic_name(settings, "trade")}
    assert {letter.key for letter in letters} == {b"bybit.linear.COIN0USDT"}
    assert sink.stats().balanced


async def test_a_producer_beyond_repair_ends_the_sink_and_keeps_the_records(settings: KafkaSettings) -> None:
    tape = Tape()
    with pytest.RaisesGroup(pytest.RaisesExc(SinkFailed, match="_FENCED: fenced by another"), flatten_subgroups=True):
        async with open_sink(settings) as sink:
            await direct(sink)
            sink.outlet._on_error(KafkaError(KafkaError._FENCED, "fenced by another", True))
            tape.publish(sink, 100)
            await trio.sleep_forever()
    assert sink.stats().balanced
    assert sink.stats().in_flight == 0
    async with open_sink(settings) as sink:
        pass
    # What was on the wire may be there twice.
    assert {key: sorted(set(found)) for key, found in numbers(arrived(settings)).items()} == tape.expected()


def _create_again(settings: KafkaSettings) -> None:
    (report,) = prepare_topics(settings, ["trade"])
    assert report.outcome == "created"


async def test_a_full_spool_keeps_the_oldest_and_tells_what_it_refused(own_broker: OwnBroker, tmp_path: Path) -> None:
    broker = await trio.to_thread.run_sync(own_broker)
    spool = SpoolSettings(directory=str(tmp_path / "spool"), flush_interval=0.01, max_bytes=60_000)
    settings = kafka_settings(broker.bootstrap, tmp_path, queue_messages=100, spool=spool)
    at, last = origin(), 999
    async with open_sink(settings) as sink:
        await direct(sink)
        broker.freeze()
        for number in range(last + 1):
            sink.publish(trade(number, at))
        stats = sink.stats()
        assert stats.balanced
        assert stats.announced_lost > 100
        assert stats.spool_bytes <= 61_000
        broker.thaw()
        await direct(sink)
        sink.publish(trade(last + 1, at))
    found = numbers(arrived(settings))[at.key]
    kept = 1_000 - stats.announced_lost
    assert found == [*range(kept), last + 1]
    statuses = [record.fields for record in arrived(settings, "feed_status")]
    begun = [status for status in statuses if status["scope"] == "sink"]
    told = [status for status in statuses if status["instrument"] == "BTCUSDT"]
    assert len(begun) == len(told) == 1
    assert told[0]["status"] == "gap"
    assert told[0]["count"] == stats.announced_lost
    assert begun[0]["from_time"] == told[0]["from_time"] <= told[0]["to_time"]
    assert sink.stats().balanced


async def test_the_mock_cluster_serves_without_a_broker(tmp_path: Path) -> None:
    tape = Tape()
    settings = mock_settings(tmp_path)
    async with open_sink(settings) as sink:
        addresses = await sink.bootstrap_servers()
        tape.publish(sink, 500)
        await direct(sink)
        joined = attrs.evolve(settings, bootstrap_servers=tuple(addresses), properties={})
        found = await trio.to_thread.run_sync(lambda: numbers(arrived(joined)))
    assert found == tape.expected()


@pytest.mark.parametrize(
    ("properties", "problem"),
    [
        ({"lingr.ms": 5}, 'kafka.properties.lingr.ms: No such configuration property: "lingr.ms"'),
        ({"security.protocol": "tls"}, "kafka.properties.security.protocol: Invalid value"),
        ({"acks": 1}, "kafka.properties.acks: is always all"),
        ({"linger.ms": 5}, "kafka.properties.linger.ms: is set by kafka.linger"),
    ],
)
async def test_properties_that_cannot_be_are_named(
    tmp_path: Path, properties: dict[str, str | int], problem: str
) -> None:
    settings = mock_settings(tmp_path, properties={"test.mock.num.brokers": 1, **properties})
    with pytest.raises(ConfigError) as caught:
        async with open_sink(settings):
            pytest.fail("it must not open")
    assert caught.value.problems[0].startswith(problem)


async def test_secrets_reach_librdkafka_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTOCOL", "hush-hush")
    settings = mock_settings(
        tmp_path, properties={"test.mock.num.brokers": 1, "security.protocol": Secret(env="PROTOCOL")}
    )
    with pytest.raises(ConfigError) as caught:
        async with open_sink(settings):
            pytest.fail("it must not open")
    assert 'Invalid value "***"' in str(caught.value)


async def test_a_secret_that_is_missing_is_told_with_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROTOCOL", raising=False)
    settings = mock_settings(
        tmp_path, properties={"test.mock.num.brokers": 1, "security.protocol": Secret(env="PROTOCOL")}
    )
    key = r"kafka\.properties\.security\.protocol"
    with pytest.raises(Refused, match=rf"^{key}: environment variable PROTOCOL is not set$"):
        async with open_sink(settings):
            pytest.fail("it must not open")


async def test_publishing_after_the_end_is_a_bug_that_shows(tmp_path: Path) -> None:
    async with open_sink(mock_settings(tmp_path)) as sink:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        sink.publish(trade(0, origin()))
