"""`python -m pipeline demo`: simulated exchanges, the real connector, an in-process Kafka, and a consumer to watch."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import attrs
import trio
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from pipeline.app import Service
from pipeline.config import Config
from pipeline.feeds.settings import BookSettings, ChannelSettings, UrlSettings, VenueSettings
from pipeline.model.events import KINDS
from pipeline.observe.frames import Watch
from pipeline.observe.painting import can_paint, in_place, open_console
from pipeline.observe.settings import HttpSettings
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import open_venue
from pipeline.sink.reader import Received, open_reader
from pipeline.sink.settings import KafkaSettings, SpoolSettings

_REFRESH_S = 0.5
_RECENT = 12
_SAMPLE = 4_096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the demo."""
    parser.add_argument("--rate", type=float, default=5.0, help="market steps per second and instrument (5)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulated markets (1)")
    parser.add_argument("--seconds", type=float, help="stop by itself after so many seconds")


def demo_config(bybit: UrlSettings, okx: UrlSettings, spool: str) -> Config:
    """What the demo runs: like a configuration for the real exchanges, but for the URLs and the mock cluster."""
    books = BookSettings(derive_bbo=True, snapshot_interval=30.0)
    return Config(
        venues={
            "bybit": VenueSettings(
                channels=(
                    ChannelSettings("linear", ("trade", "ticker")),
                    ChannelSettings("linear", ("book",), depth=50, book=books),
                    ChannelSettings("spot", ("trade", "bbo")),
                ),
                urls=bybit,
            ),
            "okx": VenueSettings(
                channels=(
                    ChannelSettings("swap", ("trade", "funding_rate", "mark_price")),
                    ChannelSettings("swap", ("book",), book=books),
                    ChannelSettings("spot", ("candle",), interval=("1m",)),
                ),
                urls=okx,
            ),
        },
        kafka=KafkaSettings(
            bootstrap_servers=(),
            properties={"test.mock.num.brokers": 1},
            create_topics=False,
            verify_topics=False,
            spool=SpoolSettings(directory=spool),
        ),
        http=HttpSettings(port=0),
    )


@attrs.define(eq=False)
class Board:
    """What the consumer has seen, and how to show it."""

    kafka: str
    http: str
    started: float = attrs.field(factory=time.monotonic)
    counts: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    recent: deque[str] = attrs.field(factory=lambda: deque(maxlen=_RECENT))
    unreadable: int = 0
    _latencies: deque[float] = attrs.field(factory=lambda: deque(maxlen=_SAMPLE))
    _before: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    _rates: dict[tuple[str, str], float] = attrs.field(factory=dict)
    _measured: float = attrs.field(factory=time.monotonic)

    def take(self, item: Received) -> None:
        """Count one record read back from Kafka."""
        if item.error is not None:
            self.unreadable += 1
            self.recent.append(f"{item.topic}: {item.error}")
            return
        record = item.fields
        self.counts[str(record["venue"]), item.kind] += 1
        self._latencies.append(time.time() - record["receive_time"].timestamp())
        self.recent.append(describe(item.kind, record))

    def measure(self) -> None:
        """Renew the rates."""
        now = time.monotonic()
        seconds = max(now - self._measured, 1e-3)
        self._rates = {key: (count - self._before[key]) / seconds for key, count in self.counts.items()}
        self._before, self._measured = Counter(self.counts), now

    def latency(self, quantile: float) -> float:
        """Seconds from the socket to this consumer, over the last records."""
        ordered = sorted(self._latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * quantile))] if ordered else 0.0

    def view(self, verdict: Text, height: int) -> Group:
        """The screen, of so many lines."""
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("venue")
        table.add_column("event")
        table.add_column("records", justify="right")
        table.add_column("per second", justify="right")
        for venue, kind in sorted(self.counts):
            count, rate = self.counts[venue, kind], self._rates.get((venue, kind), 0.0)
            table.add_row(venue, kind, f"{count:,}", f"{rate:,.0f}")
        # Beside these and the kinds there are seven lines, and one for the cursor.
        recent = list(self.recent)[-max(1, height - len(self.counts) - 8) :]
        return Group(
            Text.assemble(("simulated Bybit and OKX → connector → Kafka → this consumer", "bold"), "   Ctrl-C ends"),
            _cut(f"Kafka {self.kafka}   status page {self.http}", "dim"),
            verdict,
            _cut(self.summary()),
            Text(),
            table,
            Text(),
            *(_cut(line, "cyan") for line in recent),
        )

    def summary(self) -> str:
        """One line of totals."""
        total, rate = sum(self.counts.values()), sum(self._rates.values())
        seconds = time.monotonic() - self.started
        return (
            f"{total:,} records in {seconds:.0f} s, {rate:,.0f} per second; socket to consumer "
            f"p50 {self.latency(0.5) * 1e3:.0f} ms, p99 {self.latency(0.99) * 1e3:.0f} ms"
        )


def _cut(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def describe(kind: str, record: Mapping[str, Any]) -> str:
    """One event on one line."""
    return f"{record['venue']:<6} {record['instrument'] or '':<20} {kind:<13} {_facts(kind, record)}"


def _facts(kind: str, record: Mapping[str, Any]) -> str:
    match kind:
        case "trade":
            return f"{record['aggressor']} {record['size']} @ {record['price']}"
        case "book_update":
            form = "snapshot" if record["is_snapshot"] else "delta"
            return f"{form} {len(record['bids'])} bids, {len(record['asks'])} asks, sequence {record['sequence']}"
        case "bbo":
            return f"{record['bid_size']} @ {record['bid_price']} | {record['ask_price']} @ {record['ask_size']}"
        case "ticker":
            return f"last {record['last_price']}, 24 h volume {record['volume_24h']}"
        case "candle":
            return f"{record['interval']} o {record['open']} h {record['high']} l {record['low']} c {record['close']}"
        case "mark_price" | "index_price":
            return str(record["price"])
        case "funding_rate":
            return f"{record['funding_rate']} at {record['funding_time']:%H:%M} UTC"
        case "open_interest":
            return str(record["open_interest"])
        case "instrument":
            return f"{record['kind']}, tick {record['tick_size']}, {record['state']}"
        case "feed_status":
            return f"{record['status']}: {record['reason']}"
    return ""


async def run(arguments: argparse.Namespace) -> int:
    """Run until Ctrl-C or `--seconds`; returns 0."""
    market = MarketSettings(seed=arguments.seed, rate=arguments.rate)
    async with AsyncExitStack() as stack:
        spool = stack.enter_context(tempfile.TemporaryDirectory(prefix="pipeline-demo-"))
        bybit = await stack.enter_async_context(open_venue("bybit", market=market, keep=False))
        okx = await stack.enter_async_context(open_venue("okx", market=market, keep=False))
        config = demo_config(
            UrlSettings(bybit.websocket_url, bybit.rest_url), UrlSettings(okx.websocket_url, okx.rest_url), spool
        )
        service = Service(config)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_signal, nursery.cancel_scope, arguments.seconds)
            await nursery.start(service.run)
            await _watch(service, config)
    return 0


async def _watch(service: Service, config: Config) -> None:
    assert service.sink is not None
    [kafka] = await service.sink.bootstrap_servers()
    board = Board(kafka, service.address)
    console = open_console(sys.stdout)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_consume, config.kafka, kafka, board)
            await (_live(board, service, console) if can_paint(console) else _lines(board, console))
    finally:
        console.print(board.summary())


async def _consume(settings: KafkaSettings, kafka: str, board: Board) -> None:
    reading = attrs.evolve(settings, bootstrap_servers=(kafka,), properties={})
    async with open_reader(reading, list(KINDS), from_beginning=True) as items:
        async for item in items:
            board.take(item)


async def _live(board: Board, service: Service, console: Console) -> None:
    watch = Watch()
    with in_place(console) as painting:
        while True:
            board.measure()
            verdict = watch.frame(service.full_status()).headline
            painting.paint(board.view(verdict, console.size.height))
            await trio.sleep(_REFRESH_S)


async def _lines(board: Board, console: Console) -> None:
    """For pipes and log files: a few events and the totals, every second."""
    console.print(f"Kafka {board.kafka}, status {board.http}/status")
    while True:
        await trio.sleep(1.0)
        board.measure()
        for line in list(board.recent)[-3:]:
            console.print(line)
        console.print(board.summary())


async def _until_signal(scope: trio.CancelScope, seconds: float | None) -> None:
    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
        trio.move_on_after(seconds or float("inf")),
    ):
        await anext(aiter(signals))
    scope.cancel()
