"""The example consumers, run as a reader of the pages runs them, on a Kafka inside the test's process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from confluent_kafka import Producer
from fastavro import parse_schema, schemaless_writer

from pipeline.avro.schemas import load_schema, single_object_header

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
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
    assert producer.flush(30) == 0
    (broker,) = producer.list_topics(timeout=30).brokers.values()
    kafka = f"{broker.host}:{broker.port}"
    # Side by side: most of the time goes by until a group has formed.
    consumers = [start("consume.py", kafka), start("consume_fastavro.py", kafka, str(ROOT / "schemas" / "trade.avsc"))]
    try:
        for consumer in consumers:
            assert consumer.stdout is not None
            assert consumer.stdout.readline() == LINE
        for consumer in consumers:
            consumer.send_signal(signal.SIGINT)
        assert [consumer.wait(30) for consumer in consumers] == [0, 0]
    finally:
        for consumer in consumers:
            consumer.kill()
            consumer.communicate()
