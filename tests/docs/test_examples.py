"""The example consumers, run as a reader of the pages runs them, on a Kafka inside the test's process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from fastavro import parse_schema, schemaless_writer

from pipeline.avro.schemas import load_schema, single_object_header
from pipeline.orders.commands import read_command
from pipeline.sink.reader import Decoder
from pipeline.sink.settings import KafkaSettings

DEADLINE_S = 120
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
SCHEMAS = ROOT / "schemas"
LINE = "2026-11-22 12:41:22.769001+00:00 bybit BTC-USDT-PERP sell 0.10 base @ 64999.70\n"


def trade() -> bytes:
    """One record as the service writes it."""
    schema = load_schema("trade")
    time = datetime(2026, 11, 22, 12, 41, 22, 769001, tzinfo=UTC)
    fields = {
        "venue": "bybit",
        "market": "linear",
        "instrument": "BTCUSDT",
        "symbol": "BTC-USDT-PERP",
        "connection": "bybit.linear.0#1",
        "exchange_time": time,
        "receive_time": time,
        "trade_id": "1",
        "price": "64999.70",
        "size": "0.10",
        "size_unit": "base",
        "aggressor": "sell",
    }
    stream = BytesIO()
    schemaless_writer(stream, parse_schema(schema), fields)
    return single_object_header(schema) + stream.getvalue()


def start(example: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / example), *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        text=True,
    )


def test_the_examples_print_trades_and_end_when_asked() -> None:
    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": ""})
    producer.produce("market.trade", trade(), key=b"bybit.linear.BTCUSDT")
    assert producer.flush(DEADLINE_S) == 0
    (broker,) = producer.list_topics(timeout=DEADLINE_S).brokers.values()
    kafka = f"{broker.host}:{broker.port}"
    # Side by side: most of the time goes by until a group has formed.
    consumers = [start("consume.py", kafka), start("consume_fastavro.py", kafka, str(ROOT / "schemas" / "trade.avsc"))]
    try:
        for consumer in consumers:
            assert consumer.stdout is not None
            assert consumer.stdout.readline() == LINE
        for consumer in consumers:
            consumer.send_signal(signal.SIGINT)
        assert [consumer.wait(DEADLINE_S) for consumer in consumers] == [0, 0]
    finally:
        for consumer in consumers:
            consumer.kill()
            consumer.communicate()


def result(command: dict[str, Any], state: str) -> bytes:
    """What became of the command's one item, as the service writes it."""
    schema = load_schema("order_result")
    fields = {
        **{name: command[name] for name in ("venue", "account", "command_id", "action")},
        "market": "linear",
        "connection": "bybit.main.trade.0",
        "receive_time": datetime(2026, 11, 22, tzinfo=UTC),
        "item": 0,
        "state": state,
        "is_final": state == "rejected",
        "client_order_id": "12",
        "rule": "price_band" if state == "rejected" else None,
        "topic": "order.order_command.bybit.main",
        "partition": 0,
        "offset": 0,
    }
    stream = BytesIO()
    schemaless_writer(stream, parse_schema(schema), fields)
    return single_object_header(schema) + stream.getvalue()


def test_the_order_is_a_command_and_its_results_are_printed() -> None:
    topic = "order.order_command.bybit.main"
    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": ""})
    (broker,) = producer.list_topics(timeout=DEADLINE_S).brokers.values()
    for name in (topic, "order.order_result"):
        producer.list_topics(name, timeout=DEADLINE_S)  # makes it
    kafka = f"{broker.host}:{broker.port}"
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "connector"})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(4)])
    trader = start("order.py", kafka, "bybit", "main", "linear", "BTCUSDT", "buy", "0.10", "60000.0", str(SCHEMAS))
    try:
        message = consumer.poll(60)
        assert message is not None
        value = message.value()
        assert value is not None
        fields = Decoder(KafkaSettings(), is_plain=True).decode(value)
        command = read_command(fields)
        assert (command.action, command.not_after - command.issued_at) == ("create", 5_000_000)
        assert (command.items[0].size, command.items[0].price) == ("0.10", "60000.0")
        for other in (fields | {"command_id": "another"}, fields):
            for state in ("accepted", "rejected"):
                producer.produce("order.order_result", result(other, state), b"bybit.main.BTCUSDT", 0)
        assert producer.flush(DEADLINE_S) == 0
        out, _ = trader.communicate(timeout=60)
        assert out.split("\n") == ["accepted 12  ", "rejected 12 price_band ", ""]
        assert trader.returncode == 0
    finally:
        trader.kill()
        trader.communicate()
        consumer.close()
