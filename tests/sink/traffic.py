"""Events to publish, settings to publish them with, and the count of what arrived."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import trio

from pipeline.model.decimals import DecimalText
from pipeline.model.events import Micros, Origin, Trade
from pipeline.sink.outlet import wall_clock
from pipeline.sink.reader import Received, read_records
from pipeline.sink.settings import KafkaSettings, SpoolSettings
from pipeline.sink.sink import Sink

DEADLINE_S = 120


def kafka_settings(bootstrap: str, folder: Path, **changes: Any) -> KafkaSettings:
    """Topics that nobody else has, and quick to notice things."""
    defaults = {
        "bootstrap_servers": (bootstrap,),
        "topic_template": f"t{uuid.uuid4().hex[:8]}.{{group}}.{{kind}}",
        "connect_within": 20.0,
        "drain_within": 20.0,
        "statistics_interval": 0.2,
        "spool": SpoolSettings(directory=str(folder / "spool"), flush_interval=0.01, segment_bytes=500_000),
    }
    return KafkaSettings(**{**defaults, **changes})


def mock_settings(folder: Path, **changes: Any) -> KafkaSettings:
    """The same with librdkafka's in-process cluster."""
    mock = {"bootstrap_servers": (), "verify_topics": False, "properties": {"test.mock.num.brokers": 1}}
    return kafka_settings("", folder, **{**mock, **changes})


def origin(instrument: str = "BTCUSDT") -> Origin:
    return Origin("bybit", "linear", instrument, None, None, "bybit.linear.0#1")


def trade(number: int, at: Origin, *, price: str = "65000.5", trade_id: str | None = None) -> Trade:
    """A trade that `numbers` finds again by its sequence."""
    return Trade(
        at,
        Micros(wall_clock() - 5_000),
        wall_clock(),
        number,
        str(number) if trade_id is None else trade_id,
        DecimalText(price),
        DecimalText("0.1"),
        "base",
        None,
        None,
        "buy",
    )


class Tape:
    """Trades of several instruments, numbered without a gap per instrument."""

    def __init__(self, instruments: int = 7) -> None:
        self._origins = itertools.cycle([origin(f"COIN{number}USDT") for number in range(instruments)])
        self._numbers: dict[bytes, int] = {}

    def publish(self, sink: Sink, count: int) -> None:
        for _, at in zip(range(count), self._origins, strict=False):
            number = self._numbers.get(at.key, 0)
            self._numbers[at.key] = number + 1
            sink.publish(trade(number, at))

    def expected(self) -> dict[bytes, list[int]]:
        return {key: list(range(count)) for key, count in self._numbers.items()}


def arrived(settings: KafkaSettings, *kinds: str) -> Iterator[Received]:
    """Everything in these topics."""
    return read_records(settings, kinds or ("trade",), from_beginning=True, until_end=True)


def numbers(records: Iterable[Received]) -> dict[bytes, list[int]]:
    """Sequences per key, in the order of the log: equal to `Tape.expected` only without loss and repetition."""
    found: dict[bytes, list[int]] = {}
    for record in records:
        assert record.error is None
        found.setdefault(record.key, []).append(record.fields["sequence"])
    return found


async def until(condition: Callable[[], object]) -> None:
    """Return when the condition holds; for what goes on in other threads and processes."""
    with trio.fail_after(DEADLINE_S):
        while True:
            if condition():
                return
            await trio.sleep(0.02)


async def direct(sink: Sink) -> None:
    """Return when records do not go through the spool (any more)."""
    await until(lambda: not sink.stats().is_spooling)
    with trio.fail_after(DEADLINE_S):
        await sink.delivered()
