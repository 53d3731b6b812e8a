"""OKX's spread market: engines behind pairs of listed legs, whose prices may be zero and below."""

from __future__ import annotations

import zlib
from decimal import Decimal
from typing import Any

import attrs

from pipeline.sim.floor import Market
from pipeline.sim.generator import Stream
from pipeline.sim.listing import Listing
from pipeline.sim.market import Engine, Levels, best_first
from pipeline.sim.okx_candles import CandleChannel
from pipeline.sim.okx_streams import BookChannel, Channel, StateChannel, TopChannel, plain, size

PAIRS = (("BTC-USDT", "BTC-USDT-SWAP"), ("BTC-USD-SWAP", "BTC-USD-270326"))
"""Spreads that exist when both legs are listed."""
ZERO_TICKS = 1000
"""The engine's price that is a spread of nothing: engines know no prices below one tick."""
SEQUENCE_BASE = 1_724_294_000_000_000_000
"""Sequence numbers of spreads are beyond 2^53."""
CHECKSUM_LEVELS = 25


def spread(market: Market, name: str) -> Engine | None:
    """The engine of a spread such as BTC-USDT_BTC-USDT-SWAP."""
    legs = [leg for pair in PAIRS if "_".join(pair) == name for leg in pair]
    found = [listing for leg in legs for listing in market.listings.values() if listing.symbol == leg]
    if not legs or len(found) < len(legs):
        return None
    first, tick = found[0], Decimal("0.1")
    lot = Decimal("0.001") if first.quote == "USDT" else Decimal(10)
    start = tick * ZERO_TICKS
    return market.engine(Listing("SPREAD", name, first.base, first.quote, first.settle, tick, lot, start))


def spread_stream(channel: str, arg: dict[str, str], engine: Engine, bar: str | None) -> Stream | None:
    """A channel about a spread; `bar` if it is one of candles."""
    match channel:
        case "sprd-books-l2-tbt":
            return SpreadBookChannel(arg, [engine])
        case "sprd-books5" | "sprd-bbo-tbt":
            return SpreadTopChannel(arg, [engine], depth=5 if channel == "sprd-books5" else 1)
        case "sprd-public-trades":
            return SpreadTradeChannel(arg, [engine])
        case "sprd-tickers":
            return StateChannel(arg, [engine], ticker)
    return SpreadCandleChannel(arg, [engine], bar=bar, kind="spread") if bar else None


def price(engine: Engine, ticks: int) -> str:
    """A spread's price, which may be negative."""
    return plain(engine.listing.tick * (ticks - ZERO_TICKS))


def rows(engine: Engine, levels: Levels, *, bids: bool) -> list[list[str]]:
    """Levels as price, size and a made-up number of orders."""
    return [
        [price(engine, ticks), size(engine, lots), str(1 + lots % 5 if lots else 0)]
        for ticks, lots in best_first(levels, bids=bids)
    ]


def checksum(bids: list[list[str]], asks: list[list[str]]) -> int:
    """The signed CRC-32 of the best 25 levels, the sides taking turns."""
    texts = [
        text
        for rank in range(CHECKSUM_LEVELS)
        for side in (bids, asks)
        for row in side[rank : rank + 1]
        for text in row[:2]
    ]
    value = zlib.crc32(":".join(texts).encode())
    return value - 2**32 if value >= 2**31 else value


def ticker(engine: Engine, now_ms: int) -> dict[str, Any]:
    """Row of sprd-tickers."""
    bid, ask = engine.bids.best, engine.asks.best
    return {
        "sprdId": engine.listing.symbol,
        "last": price(engine, engine.last),
        "lastSz": size(engine, engine.last_lots),
        "askPx": price(engine, ask),
        "askSz": size(engine, engine.asks.lots[ask]),
        "bidPx": price(engine, bid),
        "bidSz": size(engine, engine.bids.lots[bid]),
        "open24h": price(engine, engine.open_24h),
        "high24h": price(engine, engine.high_24h),
        "low24h": price(engine, engine.low_24h),
        "vol24h": size(engine, engine.traded_lots),
    }


@attrs.define(eq=False)
class SpreadBookChannel(BookChannel):
    """sprd-books-l2-tbt: chained as other books, and with a checksum that still means something."""

    def row(self, bids: Levels, asks: Levels, previous: int, now_ms: int) -> dict[str, Any]:
        """Levels, the checksum of the whole book after them, and where the message stands in the chain."""
        engine, view = self.engines[0], self._view
        return {
            "asks": rows(engine, asks, bids=False),
            "bids": rows(engine, bids, bids=True),
            "ts": str(now_ms),
            "checksum": checksum(rows(engine, view.bids, bids=True), rows(engine, view.asks, bids=False)),
            "prevSeqId": previous if previous < 0 else previous + SEQUENCE_BASE,
            "seqId": self._sequence + SEQUENCE_BASE,
        }


@attrs.define(eq=False)
class SpreadTopChannel(TopChannel):
    """sprd-books5 and sprd-bbo-tbt."""

    def row(self, engine: Engine, now_ms: int) -> dict[str, Any]:
        """The top."""
        return {
            "asks": rows(engine, self._view.asks, bids=False),
            "bids": rows(engine, self._view.bids, bids=True),
            "ts": str(now_ms),
            "seqId": self._sequence + SEQUENCE_BASE,
        }


@attrs.define(eq=False)
class SpreadTradeChannel(Channel):
    """sprd-public-trades: one push per match."""

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """The trades of the step."""
        return [
            self.push(
                {
                    "sprdId": engine.listing.symbol,
                    "tradeId": str(number),
                    "px": price(engine, fill.price),
                    "sz": size(engine, lots),
                    "side": "buy" if fill.buy else "sell",
                    "ts": str(now_ms),
                },
                now_ms=now_ms,
            )
            for fill in engine.fills
            for number, lots in enumerate(fill.matches, fill.first_id)
        ]


@attrs.define(eq=False)
class SpreadCandleChannel(CandleChannel):
    """sprd-candle: prices may be negative, and there is one volume."""

    def row(self) -> list[str]:
        """The bar, but for whether it is closed."""
        engine = self.engines[0]
        return [str(self._start), *(price(engine, ticks) for ticks in self._prices), size(engine, self._lots)]
