from __future__ import annotations

import argparse
import io
import json
import threading
from pathlib import Path

import attrs
import pytest
import trio
from confluent_kafka import Producer

from pipeline.avro.decoder import event_to_json, record_to_json
from pipeline.model.events import PRICE_SIZE, BookUpdate, Micros
from pipeline.sink import tail
from pipeline.sink.errors import SinkFailed
from pipeline.sink.opening import open_sink
from pipeline.sink.reader import Received, open_reader, read_records
from pipeline.sink.settings import KafkaSettings, TopicSettings
from pipeline.sink.sink import Sink
from pipeline.sink.topics import topic_name
from tests.sink.traffic import DEADLINE_S, arrived, direct, mock_settings, origin, trade


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    tail.add_arguments(parser)
    return parser.parse_args(words)


async def joined(sink: Sink) -> KafkaSettings:
    """Settings for other clients of the sink's mock cluster, where the first records are."""
    await direct(sink)
    return attrs.evolve(sink.settings, bootstrap_servers=tuple(await sink.bootstrap_servers()), properties={})


@pytest.mark.parametrize("decimals", ["text", "decimal"])
async def test_json_lines_are_the_events(tmp_path: Path, capsys: pytest.CaptureFixture[str], decimals: str) -> None:
    async with open_sink(mock_settings(tmp_path, decimals=decimals)) as sink:
        event = trade(1, origin())
        sink.publish(trade(0, origin("ETHUSDT")))
        sink.publish(event)
        settings = await joined(sink)
        words = ("--json", "--from-beginning", "--event", "trade", "--instrument", "BTC*", "--count", "1")
        with trio.fail_after(DEADLINE_S):
            assert await tail.run(arguments(*words), settings) == 0
    (shown,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("{"))
    assert json.loads(shown) == event_to_json(event)


async def test_new_records_are_seen_from_the_moment_it_is_entered(tmp_path: Path) -> None:
    async with open_sink(mock_settings(tmp_path)) as sink:
        sink.publish(trade(0, origin()))
        settings = await joined(sink)
        async with open_reader(settings, ["trade"]) as records:
            sink.publish(trade(1, origin()))
            with trio.fail_after(DEADLINE_S):
                assert (await records.receive()).fields["sequence"] == 1


async def test_a_record_that_cannot_be_read_is_shown_as_such(settings: KafkaSettings) -> None:
    settings = attrs.evolve(settings, topics={"trade": TopicSettings(partitions=1)})
    async with open_sink(settings) as sink:
        sink.publish(trade(0, origin()))
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers[0]})
    event = trade(1, origin())
    for junk in (b"junk", b"\xc3\x01" + bytes(8), sink.routes[type(event)].encode(event)[:-3]):
        producer.produce(topic_name(settings, "trade"), junk, b"bybit.linear.BTCUSDT")
    assert producer.flush(DEADLINE_S) == 0
    records = list(arrived(settings))
    problems = [record.error for record in records]
    assert problems[0] is None
    assert problems[1] == "no Avro header that names a schema: 6a756e6b"
    assert problems[2] == "no schema of this version has the fingerprint 0000000000000000"
    assert problems[3] is not None
    assert "unreadable at t" in tail.line(records[1]).plain


async def test_a_missing_topic_is_named(settings: KafkaSettings) -> None:
    with pytest.raises(SinkFailed, match=r"^no such topic: t\w+\.market\.trade$"):
        next(read_records(settings, ["trade"]))


async def test_reading_stops_when_told(tmp_path: Path) -> None:
    stop = threading.Event()
    async with open_sink(mock_settings(tmp_path)) as sink:
        sink.publish(trade(0, origin()))
        settings = await joined(sink)

        def read() -> int:
            return sum(1 for _ in read_records(settings, ["trade"], stop=stop, on_assigned=stop.set))

        with trio.fail_after(DEADLINE_S):
            assert await trio.to_thread.run_sync(read) == 0


async def test_a_line_says_what_matters(settings: KafkaSettings) -> None:
    book = BookUpdate(
        origin(), Micros(1_700_000_000_123_456), Micros(1_700_000_000_200_000), 5, "orderbook.50", True, None,
        [("100.5", "2"), ("100", "1")], [], PRICE_SIZE, "base", 50,
    )  # fmt: skip
    async with open_sink(settings) as sink:
        sink.publish(trade(0, origin()))
        sink.publish(book)
    (printed,) = arrived(settings, "trade")
    assert tail.line(printed).plain.endswith("trade         bybit  linear  BTCUSDT               buy  0.1 @ 65000.5")
    (printed,) = arrived(settings, "book_update")
    assert tail.line(printed).plain == (
        "22:13:20.123  book_update   bybit  linear  BTCUSDT               "
        "snapshot orderbook.50  2 bids from 2 @ 100.5, 0 asks"
    )
    out = io.StringIO()
    tail.Printer(out, as_json=False).show(printed)
    assert out.getvalue() == tail.line(printed).plain + "\n"
    assert record_to_json("book_update", printed.fields) == event_to_json(book)


def test_a_kind_without_a_form_of_its_own_shows_what_it_has() -> None:
    fields = {"venue": "okx", "market": "swap", "instrument": None, "sequence": 3, "price": "1.5", "state": None}
    record = Received("t", 0, 0, b"", 0, "novelty", fields, b"")
    assert tail.line(record).plain == f"00:00:00.000  {'novelty':<14}{'okx':<7}{'swap':<8}{'':<22}price 1.5"


def test_events_of_accounts_say_whose_they_are() -> None:
    fields = {"venue": "okx", "market": "swap", "instrument": "X", "account": "desk", "price": "1.5"}
    record = Received("t", 0, 0, b"", 0, "novelty", fields, b"")
    assert f"{'swap':<8}{'desk X':<22}" in tail.line(record).plain
