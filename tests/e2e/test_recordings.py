"""Recorded messages, replayed over real WebSockets: everything of them is in Kafka, once and in order."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio

from pipeline.sim.listing import Listing
from pipeline.sim.settings import MarketSettings, ReplaySettings
from pipeline.sim.venue import open_venue
from tests.e2e.connector import configuration, running, until, urls
from tests.e2e.consumer import Topics, books, check_book, prints
from tests.e2e.wire import book_changes, is_data, trades

DATA = Path(__file__).parent.parent / "data"
DEADLINE_S = 120
SECONDS = 1.2
"""How long each replay takes."""

OKX_FILES = (
    *(f"recording.{name}.jsonl" for name in ("books", "trades", "tickers")),
    *(f"recording2026.{name}.jsonl" for name in ("books5", "trades", "tickers", "candle1m")),
)
BYBIT_FILES = (
    "public.linear.orderbook.500.recorded.jsonl",
    "public.linear.orderbook.50.recorded.jsonl",
    "public.linear.publicTrade.recorded.jsonl",
    "public.linear.tickers.recorded.jsonl",
    "public.spot.orderbook.50.recorded.jsonl",
    "public.spot.publicTrade.recorded.jsonl",
)
TOGETHER = {"connections": "together"}
STRAY = b'"u":87208563,'
"""A recorded delta of a linear book without its snapshot; a replay, which knows no markets, would send it as spot."""
BOOK = {"snapshot_interval": "300ms"}
OKX_CHANNELS = [
    {"market": "futures", "channel": "book", "instruments": ["BTC-USD-220527"], "book": BOOK},
    {"market": "futures", "channel": ["trade", "ticker"], "instruments": ["BTC-USD-220527"], **TOGETHER},
    {"market": "swap", "channel": "book", "depth": 5, "instruments": ["BTC-USDT-SWAP"], **TOGETHER},
    {"market": "swap", "channel": ["trade", "ticker"], "instruments": ["BTC-USDT-SWAP"], **TOGETHER},
    {"market": "swap", "channel": "candle", "interval": "1m", "instruments": ["BTC-USDT-SWAP"], **TOGETHER},
    {"market": "spot", "channel": ["trade", "ticker"], "instruments": ["BTC-USDT"], **TOGETHER},
]
BYBIT_CHANNELS = [
    {"market": "linear", "channel": "book", "depth": 200, "instruments": ["XRPUSDT"], "book": BOOK},
    {"market": "linear", "channel": "book", "depth": 50, "instruments": ["BTCPERP"]},
    {"market": "linear", "channel": "trade", "instruments": ["LTCUSDT"]},
    {"market": "linear", "channel": "ticker", "instruments": ["NKNUSDT"]},
    {"market": "spot", "channel": ["trade", "book"], "instruments": ["BTCUSDT"]},
]


def listing(market: str, symbol: str, base: str, quote: str, **more: Any) -> Listing:
    """An instrument that a recording is about."""
    return Listing(market, symbol, base, quote, quote, Decimal("0.1"), Decimal(1), Decimal(100), **more)


OKX_LISTINGS = (
    listing(
        "FUTURES", "BTC-USD-220527", "BTC", "USD",
        inverse=True, expiry_ms=1_653_638_400_000, contract_value=Decimal(100), contract_currency="USD",
    ),
    listing(
        "SWAP", "BTC-USDT-SWAP", "BTC", "USDT",
        perpetual=True, contract_value=Decimal("0.01"), contract_currency="BTC",
    ),
    listing("SPOT", "BTC-USDT", "BTC", "USDT"),
)  # fmt: skip
BYBIT_LISTINGS = (
    *(listing("linear", f"{base}USDT", base, "USDT", perpetual=True) for base in ("XRP", "LTC", "NKN")),
    listing("linear", "BTCPERP", "BTC", "USDC", perpetual=True),
    listing("spot", "BTCUSDT", "BTC", "USDT"),
)


def recording(files: Iterable[Path], folder: Path) -> tuple[Path, list[bytes]]:
    """One file of all data messages in the order of their sending, and these messages."""
    lines = [line for file in files for line in file.read_bytes().splitlines() if is_data(line) and STRAY not in line]
    # Bybit ended depth 500 and now has 200 and 1000, of the same form.
    lines = [line.replace(b"orderbook.500.", b"orderbook.200.") for line in lines]
    lines.sort(key=_sent_ms)
    folder.mkdir()
    path = folder / "recording.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path, lines


def _sent_ms(line: bytes) -> int:
    fields = json.loads(line)
    if "ts" in fields:
        return int(fields["ts"])
    row = fields["data"][0]
    return int(row[0]) if isinstance(row, list) else int(row["ts"])


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest, server_tls: ssl.SSLContext) -> ssl.SSLContext | None:
    return server_tls if request.param == "tls" else None


async def test_recordings_arrive_whole_once_and_in_order(
    topics: Topics, tls: ssl.SSLContext | None, ca_file: Path, tmp_path: Path
) -> None:
    okx_file, okx_lines = recording((DATA / "okx" / name for name in OKX_FILES), tmp_path / "okx")
    bybit_file, bybit_lines = recording((DATA / "bybit" / name for name in BYBIT_FILES), tmp_path / "bybit")
    okx_replay = ReplaySettings((str(okx_file),), rate=len(okx_lines) / SECONDS, wait_for=9)
    bybit_replay = ReplaySettings((str(bybit_file),), rate=len(bybit_lines) / SECONDS, wait_for=6)
    trust = ca_file if tls is not None else None
    with trio.fail_after(DEADLINE_S):
        async with (
            open_venue("okx", tls=tls, market=MarketSettings(instruments=OKX_LISTINGS), replay=okx_replay) as okx,
            open_venue(
                "bybit", tls=tls, market=MarketSettings(instruments=BYBIT_LISTINGS), replay=bybit_replay
            ) as bybit,
        ):
            venues = {
                "okx": {"urls": urls(okx, trust), "channels": OKX_CHANNELS},
                "bybit": {"urls": urls(bybit, trust), "channels": BYBIT_CHANNELS},
            }
            async with running(configuration(topics, tmp_path, venues)) as connector:
                for venue in (okx, bybit):
                    assert venue.replay is not None
                    await venue.replay.finished.wait()
                    await venue.wait_written()
                sent = okx.sent.total + bybit.sent.total
                await until(lambda: len(connector.witness.data()) == sent)
                await connector.stop()
            everything = okx.sent.messages("*") + bybit.sent.messages("*")
    subscribed = [line for line in okx_lines + bybit_lines if line in everything]
    assert len(everything) == len(subscribed)
    assert len(subscribed) > 150

    assert prints(await topics.read("trade")) == trades(subscribed)

    found, wanted = books(await topics.read("book_update")), book_changes(subscribed)
    top = found.pop(("BTC-USDT-SWAP", "books5"))
    assert found.keys() == wanted.keys()
    for name, changes in wanted.items():
        follower = check_book(found[name], changes)
        assert follower.epochs == 1
        if name in {("BTC-USD-220527", "books"), ("XRPUSDT", "orderbook.200")}:
            assert follower.periodic
    assert sum(change.checksum is not None for change in wanted["BTC-USD-220527", "books"]) == 99
    check_whole_books(top, subscribed)
    check_candles_and_tickers(await topics.read("candle"), await topics.read("ticker"), subscribed)
    assert await topics.read("dead_letter") == []
    assert {status["status"] for status in await topics.read("feed_status")} == {"connected", "subscribed", "lost"}


def check_whole_books(records: list[Any], lines: list[bytes]) -> None:
    """Channel books5: every message is a whole book."""
    rows = [row for line in lines if b'"books5"' in line for row in json.loads(line)["data"]]
    rows = [
        row
        for row, before in zip(rows, [None, *rows], strict=False)
        if before is None or row["seqId"] != before["seqId"]
    ]
    assert [record["sequence"] for record in records] == [row["seqId"] for row in rows]
    for record, row in zip(records, rows, strict=True):
        assert record["is_snapshot"]
        assert not record["is_periodic"]
        for side in ("bids", "asks"):
            levels = [(level["price"], level["size"], level["order_count"]) for level in record[side]]
            assert levels == [(price, size, int(count)) for price, size, _, count in row[side]]


def check_candles_and_tickers(candles: list[Any], tickers: list[Any], lines: list[bytes]) -> None:
    """Their counts, and the prices that a message must have set."""
    rows = [row for line in lines if b'"candle1m"' in line for row in json.loads(line)["data"]]
    assert [tuple(candle[name] for name in ("open", "high", "low", "close")) for candle in candles] == [
        tuple(row[1:5]) for row in rows
    ]
    pushes = [json.loads(line) for line in lines]
    okx = [push["data"][0] for push in pushes if push.get("arg", {}).get("channel") == "tickers"]
    by_instrument: dict[str, list[str]] = {}
    for row in okx:
        by_instrument.setdefault(row["instId"], []).append(row["last"])
    for instrument, prices in by_instrument.items():
        assert [ticker["last_price"] for ticker in tickers if ticker["instrument"] == instrument] == prices
    bybit = [push for push in pushes if push.get("topic") == "tickers.NKNUSDT"]
    merged = [ticker for ticker in tickers if ticker["instrument"] == "NKNUSDT"]
    assert len(merged) == len(bybit)
    assert merged[-1]["ask_price"] == bybit[-1]["data"]["ask1Price"]
    assert merged[-1]["last_price"] == bybit[0]["data"]["lastPrice"]
