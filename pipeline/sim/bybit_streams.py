"""What Bybit's public topics say about the generated market."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import attrs
import msgspec

from pipeline.sim.listing import Listing
from pipeline.sim.market import Engine, Fill, Levels, View, best_first

REPEAT_MS = 3000
"""orderbook.1 is sent again, unchanged, when it was silent for this long."""
KLINE_MS = 1000
"""A forming candle is sent at most this often."""

_encode = msgspec.json.Encoder().encode
_MINUTE_MS = 60_000
INTERVALS_MS = {
    **{str(minutes): minutes * _MINUTE_MS for minutes in (1, 3, 5, 15, 30, 60, 120, 240, 360, 720)},
    "D": 1440 * _MINUTE_MS,
    "W": 7 * 1440 * _MINUTE_MS,
    "M": 30 * 1440 * _MINUTE_MS,
}
_WEEK_OFFSET_MS = 4 * 1440 * _MINUTE_MS
"""Weeks open on Mondays; 1970 began on a Thursday."""


def open_of(interval: str, now_ms: int) -> int:
    """When the candle that contains `now_ms` opened. Months are taken as 30 days."""
    length = INTERVALS_MS[interval]
    offset = _WEEK_OFFSET_MS if interval == "W" else 0
    return (now_ms - offset) // length * length + offset


def turnover(listing: Listing, price: Decimal, lots: Decimal | int) -> Decimal:
    """Traded value of `lots` at a price: quote currency, or base currency for inverse contracts."""
    size = listing.lot * lots
    return (size / price if listing.inverse else size * price).quantize(Decimal("0.0001"))


@attrs.define(eq=False)
class BookTopic:
    """orderbook.{depth} and orderbook.rpi: `u` counts this topic's messages, `seq` is the engine's."""

    topic: str
    engines: Sequence[Engine]
    depth: int
    rpi: bool = False
    update_id: int = 0
    _view: View = attrs.field(init=False)
    _sequence: int = attrs.field(default=0, init=False)
    _last_ms: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._view = View(self.depth)
        self.update_id = 1000 + self.engines[0].sequence % 1_000_000 + self.depth

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """A snapshot of what the topic has told so far."""
        if alone:
            self._advance()
        return [self._snapshot(now_ms)]

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """A delta if a level within the depth has changed; level 1 always repeats itself whole."""
        bids, asks = self._advance(engine)
        if not bids and not asks:
            return []
        return [self._snapshot(now_ms) if self.depth == 1 else self._message("delta", bids, asks, now_ms)]

    def passing(self, now_ms: int) -> list[bytes]:
        """The same level 1 again, with the same `u`."""
        if self.depth == 1 and now_ms - self._last_ms >= REPEAT_MS:
            return [self._snapshot(now_ms)]
        return []

    def _advance(self, engine: Engine | None = None) -> tuple[Levels, Levels]:
        engine = engine or self.engines[0]
        bids, asks = self._view.advance(engine)
        if bids or asks:
            self.update_id += 1
            self._sequence = engine.sequence
        return bids, asks

    def _snapshot(self, now_ms: int) -> bytes:
        return self._message("snapshot", self._view.bids, self._view.asks, now_ms)

    def _message(self, kind: str, bids: Levels, asks: Levels, now_ms: int) -> bytes:
        self._last_ms = now_ms
        data = {
            "s": self.engines[0].listing.symbol,
            "b": [self._row(*level) for level in best_first(bids, bids=True)],
            "a": [self._row(*level) for level in best_first(asks, bids=False)],
            "u": self.update_id,
            "seq": self._sequence,
        }
        message = {"topic": self.topic, "type": kind, "ts": now_ms, "data": data, "cts": now_ms - 2}
        return _encode(_with_id(message, self.engines[0].listing, self._sequence))

    def _row(self, price: int, lots: int) -> list[str]:
        engine = self.engines[0]
        row = [engine.price(price), engine.size(lots)]
        return [*row, engine.size(rpi_lots(price, lots))] if self.rpi else row


def rpi_lots(price: int, lots: int) -> int:
    """Retail orders at a level: some levels have some."""
    return lots // 7 if price % 3 == 0 else 0


def _with_id(message: dict[str, Any], listing: Listing, sequence: int) -> dict[str, Any]:
    """Messages about options carry an identifier."""
    if listing.market == "option":
        return {"id": f"{message['topic']}-{sequence}-{message['ts']}", **message}
    return message


@attrs.define(eq=False)
class TradeTopic:
    """publicTrade: every match is a print of its own."""

    topic: str
    engines: Sequence[Engine]

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """Nothing: trades before the subscription are not sent."""
        return []

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """The trades of the step in one message."""
        if not engine.fills:
            return []
        data = [print_ for fill in engine.fills for print_ in self._prints(engine, fill, now_ms)]
        message = {"topic": self.topic, "type": "snapshot", "ts": now_ms, "data": data}
        return [_encode(_with_id(message, engine.listing, engine.sequence))]

    def passing(self, now_ms: int) -> list[bytes]:
        """Nothing."""
        return []

    @staticmethod
    def _prints(engine: Engine, fill: Fill, now_ms: int) -> list[dict[str, Any]]:
        listing = engine.listing
        prints: list[dict[str, Any]] = []
        for offset, lots in enumerate(fill.matches):
            number = fill.first_id + offset
            line: dict[str, Any] = {
                "T": now_ms - 2,
                "s": listing.symbol,
                "S": "Buy" if fill.buy else "Sell",
                "v": engine.size(lots),
                "p": engine.price(fill.price),
                "i": trade_id(listing, number),
                "seq": engine.sequence,
            }
            if listing.market != "spread":
                line |= {"BT": False, "RPI": False}
            if listing.market not in ("spot", "option"):
                line["L"] = fill.tick_direction
            if listing.market == "option":
                line |= {"mP": engine.price(engine.mark), "iP": engine.price(engine.index)}
                line |= {"mIv": "0.5012", "iv": "0.4987"}
            prints.append(line)
        return prints


def trade_id(listing: Listing, number: int) -> str:
    """Digits on spot, the form of a UUID elsewhere; unique within the market."""
    if listing.market == "spot":
        return str(2_290_000_000_000_000_000 + number)
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-9{text[17:20]}-{text[20:]}"


@attrs.define(eq=False)
class TickerTopic:
    """tickers: linear and inverse send what changed, spot and option always everything."""

    topic: str
    engines: Sequence[Engine]
    _told: dict[str, str] = attrs.field(factory=dict, init=False)
    _sequence: int = attrs.field(default=0, init=False)

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """Everything, as far as it has been told."""
        if alone:
            self._look(self.engines[0], now_ms)
        return [self._message("snapshot", self._told, now_ms)]

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """What has changed; nothing if nothing has."""
        before = self._told
        self._look(engine, now_ms)
        changed = {key: value for key, value in self._told.items() if before.get(key) != value}
        if not changed:
            return []
        if engine.listing.market in ("spot", "option", "spread"):
            return [self._message("snapshot", self._told, now_ms)]
        return [self._message("delta", {"symbol": engine.listing.symbol, **changed}, now_ms)]

    def passing(self, now_ms: int) -> list[bytes]:
        """Nothing."""
        return []

    def _look(self, engine: Engine, now_ms: int) -> None:
        self._told = TICKERS.get(engine.listing.market, contract_ticker)(engine, now_ms)
        self._sequence = engine.sequence

    def _message(self, kind: str, data: dict[str, str], now_ms: int) -> bytes:
        message: dict[str, Any] = {"topic": self.topic, "type": kind, "data": data, "ts": now_ms}
        if self.engines[0].listing.market in ("option", "spread"):
            return _encode(_with_id(message, self.engines[0].listing, self._sequence))
        return _encode({**message, "cs": self._sequence})


def _day(engine: Engine) -> dict[str, str]:
    """The fields of 24 hours that all tickers share."""
    listing = engine.listing
    average = engine.turnover / engine.traded_lots if engine.traded_lots else listing.price
    change = Decimal(engine.last - engine.open_24h) / engine.open_24h
    return {
        "symbol": listing.symbol,
        "lastPrice": engine.price(engine.last),
        "highPrice24h": engine.price(engine.high_24h),
        "lowPrice24h": engine.price(engine.low_24h),
        "volume24h": engine.size(engine.traded_lots),
        "turnover24h": f"{turnover(listing, average, engine.traded_lots):f}",
        "change": f"{change.quantize(Decimal('0.000001')):f}",
    }


def spot_ticker(engine: Engine, now_ms: int) -> dict[str, str]:
    """All fields of a spot ticker."""
    day = _day(engine)
    change = day.pop("change")
    return {
        **day,
        "prevPrice24h": engine.price(engine.open_24h),
        "price24hPcnt": change,
        "usdIndexPrice": engine.price(engine.index),
    }


def contract_ticker(engine: Engine, now_ms: int) -> dict[str, str]:
    """All fields of a linear or inverse ticker; dated contracts have other ones than perpetuals."""
    listing = engine.listing
    day = _day(engine)
    change = day.pop("change")
    fields = {
        **day,
        "tickDirection": engine.tick_direction,
        "price24hPcnt": change,
        "prevPrice24h": engine.price(engine.open_24h),
        "prevPrice1h": engine.price(engine.open_24h),
        "markPrice": engine.price(engine.mark),
        "indexPrice": engine.price(engine.index),
        "openInterest": engine.size(engine.open_interest),
        "openInterestValue": f"{turnover(listing, engine.mark * listing.tick, engine.open_interest):f}",
        "bid1Price": engine.price(engine.bids.best),
        "bid1Size": engine.size(engine.bids.lots[engine.bids.best]),
        "ask1Price": engine.price(engine.asks.best),
        "ask1Size": engine.size(engine.asks.lots[engine.asks.best]),
    }
    return {**fields, **(_perpetual(engine, now_ms) if listing.perpetual else _dated(engine))}


def _perpetual(engine: Engine, now_ms: int) -> dict[str, str]:
    eight_hours = 8 * 60 * _MINUTE_MS
    return {
        "fundingIntervalHour": "8",
        "fundingCap": "0.005",
        "nextFundingTime": str(now_ms // eight_hours * eight_hours + eight_hours),
        "fundingRate": f"{engine.funding * Decimal('0.00000001'):f}",
        "preOpenPrice": "",
        "preQty": "",
        "curPreListingPhase": "",
    }


def _dated(engine: Engine) -> dict[str, str]:
    basis = (engine.mark - engine.index) * engine.listing.tick
    rate = (Decimal(engine.mark) / engine.index - 1).quantize(Decimal("0.00000001"))
    return {
        "deliveryTime": datetime.fromtimestamp((engine.listing.expiry_ms or 0) // 1000, UTC).strftime(
            "%Y-%m-%dT%H:%M:%SZ"
        ),
        "basisRate": f"{rate:f}",
        "deliveryFeeRate": "0",
        "predictedDeliveryPrice": "0.00",
        "basis": f"{basis:f}",
        "basisRateYear": f"{rate:f}",
        "nextFundingTime": "",
        "fundingRate": "",
    }


def option_ticker(engine: Engine, now_ms: int) -> dict[str, str]:
    """All fields of an option's ticker."""
    day = _day(engine)
    change = day.pop("change")
    strike = engine.listing.strike or Decimal(1)
    return {
        **day,
        "bidPrice": engine.price(engine.bids.best),
        "bidSize": engine.size(engine.bids.lots[engine.bids.best]),
        "bidIv": "0.4912",
        "askPrice": engine.price(engine.asks.best),
        "askSize": engine.size(engine.asks.lots[engine.asks.best]),
        "askIv": "0.514",
        "markPrice": engine.price(engine.mark),
        "indexPrice": f"{strike:f}",
        "markPriceIv": "0.5012",
        "underlyingPrice": f"{strike:f}",
        "openInterest": engine.size(engine.open_interest),
        "totalVolume": day["volume24h"],
        "totalTurnover": day["turnover24h"],
        "delta": "0.47831",
        "gamma": "0.00021453",
        "vega": "0.81351067",
        "theta": "-19.9115368",
        "predictedDeliveryPrice": "0",
        "change24h": change,
    }


def spread_ticker(engine: Engine, now_ms: int) -> dict[str, str]:
    """All fields of a spread's ticker."""
    day = _day(engine)
    del day["change"], day["turnover24h"]
    return {
        **day,
        "prevPrice24h": engine.price(engine.open_24h),
        "bidPrice": engine.price(engine.bids.best),
        "bidSize": engine.size(engine.bids.lots[engine.bids.best]),
        "askPrice": engine.price(engine.asks.best),
        "askSize": engine.size(engine.asks.lots[engine.asks.best]),
    }


TICKERS = {"spot": spot_ticker, "option": option_ticker, "spread": spread_ticker}
"""The forms that differ from a contract's, by market."""


@attrs.define(eq=False)
class KlineTopic:
    """kline: the forming candle now and then, and once more with `confirm` when it closes."""

    topic: str
    engines: Sequence[Engine]
    interval: str
    _start: int = attrs.field(default=0, init=False)
    _prices: tuple[int, int, int, int] = attrs.field(default=(0, 0, 0, 0), init=False)
    _lots: int = attrs.field(default=0, init=False)
    _value: Decimal = attrs.field(default=Decimal(0), init=False)
    _match_ms: int = attrs.field(default=0, init=False)
    _last_ms: int = attrs.field(default=0, init=False)

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """The forming candle."""
        if alone or not self._start:
            self._open(now_ms)
        return [self._message(now_ms, confirm=False)]

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """Takes the trades in; sends the candle if it was silent for a while."""
        closed = self.passing(now_ms)
        for fill in engine.fills:
            first, high, low, _ = self._prices
            self._prices = (first, max(high, fill.price), min(low, fill.price), fill.price)
            self._lots += fill.lots
            self._value += turnover(engine.listing, fill.price * engine.listing.tick, fill.lots)
            self._match_ms = now_ms
        if engine.fills and now_ms - self._last_ms >= KLINE_MS:
            return [*closed, self._message(now_ms, confirm=False)]
        return closed

    def passing(self, now_ms: int) -> list[bytes]:
        """The closed candle, when its time is over."""
        if open_of(self.interval, now_ms) == self._start:
            return []
        closed = self._message(now_ms, confirm=True)
        self._open(now_ms)
        return [closed]

    def _open(self, now_ms: int) -> None:
        self._start, self._match_ms = open_of(self.interval, now_ms), now_ms
        self._prices = (self.engines[0].last,) * 4
        self._lots, self._value = 0, Decimal("0.0000")

    def _message(self, now_ms: int, *, confirm: bool) -> bytes:
        self._last_ms = now_ms
        engine = self.engines[0]
        first, high, low, last = map(engine.price, self._prices)
        candle = {
            "start": self._start,
            "end": self._start + INTERVALS_MS[self.interval] - 1,
            "interval": self.interval,
            "open": first,
            "close": last,
            "high": high,
            "low": low,
            "volume": engine.size(self._lots),
            "turnover": f"{self._value:f}",
            "confirm": confirm,
            "timestamp": min(self._match_ms, self._start + INTERVALS_MS[self.interval] - 1),
        }
        return _encode({"topic": self.topic, "data": [candle], "ts": now_ms, "type": "snapshot"})
