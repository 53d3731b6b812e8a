"""What OKX's public channels say about the generated market. Every value is text; zeros at the end are not printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from zlib import crc32

import attrs
import msgspec

from pipeline.sim.listing import Listing
from pipeline.sim.market import Engine, Levels, View, best_first

QUIET_MS = 60_000
"""A book that was silent for this long is confirmed, an index ticker repeated."""
MARK_QUIET_MS = 10_000

_encode = msgspec.json.Encoder().encode
_HOUR_MS = 3_600_000


def plain(value: Decimal) -> str:
    """Exact, without an exponent and without trailing zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def price(engine: Engine, ticks: int) -> str:
    """A price as OKX prints it."""
    return plain(engine.listing.tick * ticks)


def size(engine: Engine, lots: int) -> str:
    """A size in contracts, or in base currency on spot."""
    return plain(engine.listing.lot * lots)


def coins(engine: Engine, lots: int, ticks: int) -> Decimal:
    """The base quantity of a size; inverse contracts need the price."""
    listing = engine.listing
    amount = listing.lot * lots * (listing.contract_value or 1)
    if not listing.inverse:
        return amount
    return (amount / (listing.tick * ticks)).quantize(Decimal("0.00000001"))


def value(engine: Engine, lots: int, ticks: int) -> Decimal:
    """The quote value of a size at a price."""
    return (coins(engine, lots, ticks) * engine.listing.tick * ticks).quantize(Decimal("0.00000001"))


@attrs.define(eq=False)
class Channel:
    """What all channels share: pushes with the subscription's `arg`, silence measured since the last push.

    By itself it never says anything: what it brings is pushed on demand.
    """

    arg: Mapping[str, str]
    engines: Sequence[Engine]
    _last_ms: int = attrs.field(default=0, init=False)

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """What a new subscriber gets."""
        return []

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """What a step brings."""
        return []

    def passing(self, now_ms: int) -> list[bytes]:
        """What silence brings."""
        return []

    def push(self, *data: Any, now_ms: int, **head: Any) -> bytes:
        """One message with these rows."""
        self._last_ms = now_ms
        return _encode({"arg": self.arg, **head, "data": data})


@attrs.define(eq=False)
class BookChannel(Channel):
    """books, books50-l2-tbt, books-l2-tbt: a snapshot, then updates chained by sequence numbers of the engine."""

    depth: int = 400
    _view: View = attrs.field(init=False)
    _sequence: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._view = View(self.depth)

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """A snapshot of what the channel has told so far."""
        if alone:
            self._view.advance(self.engines[0])
            self._sequence = self.engines[0].sequence
        return [self._message("snapshot", self._view.bids, self._view.asks, -1, now_ms)]

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """The changed levels, if any are within the depth."""
        bids, asks = self._view.advance(engine)
        if not bids and not asks:
            return []
        previous, self._sequence = self._sequence, engine.sequence
        return [self._message("update", bids, asks, previous, now_ms)]

    def passing(self, now_ms: int) -> list[bytes]:
        """After a minute of silence an empty update that repeats the sequence number."""
        if now_ms - self._last_ms < QUIET_MS:
            return []
        return [self._message("update", {}, {}, self._sequence, now_ms)]

    def row(self, bids: Levels, asks: Levels, previous: int, now_ms: int) -> dict[str, Any]:
        """What a message says: levels, and where it stands in the chain."""
        return {
            "asks": rows(self.engines[0], asks, bids=False),
            "bids": rows(self.engines[0], bids, bids=True),
            "ts": str(now_ms),
            "checksum": 0,
            "prevSeqId": previous,
            "seqId": self._sequence,
        }

    def _message(self, action: str, bids: Levels, asks: Levels, previous: int, now_ms: int) -> bytes:
        return self.push(self.row(bids, asks, previous, now_ms), now_ms=now_ms, action=action)


def rows(engine: Engine, levels: Levels, *, bids: bool) -> list[list[str]]:
    """Levels as OKX prints them; the number of orders is made up from the size."""
    return [
        [price(engine, ticks), size(engine, lots), "0", str(1 + lots % 5 if lots else 0)]
        for ticks, lots in best_first(levels, bids=bids)
    ]


@attrs.define(eq=False)
class RpiBookChannel(BookChannel):
    """books-rpi: beside the organic sizes it shows those that only retail orders may take; without a checksum."""

    def row(self, bids: Levels, asks: Levels, previous: int, now_ms: int) -> dict[str, Any]:
        """Levels as total, organic part and number of orders."""
        return {
            "asks": [self._level(*level) for level in best_first(asks, bids=False)],
            "bids": [self._level(*level) for level in best_first(bids, bids=True)],
            "ts": str(now_ms),
            "prevSeqId": previous,
            "seqId": self._sequence,
        }

    def _level(self, ticks: int, lots: int) -> list[str]:
        engine = self.engines[0]
        retail = lots // 4 if ticks % 3 == 0 else 0
        orders = 1 + lots % 5 + (retail > 0) if lots else 0
        return [price(engine, ticks), size(engine, lots + retail), size(engine, lots), str(orders)]


@attrs.define(eq=False)
class TopChannel(Channel):
    """books5 and bbo-tbt: the whole top of the book whenever it changed, again after a minute."""

    depth: int = 1
    _view: View = attrs.field(init=False)
    _sequence: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._view = View(self.depth)

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """The top as last told."""
        if alone:
            self.update(self.engines[0], now_ms)
        return [self.push(self.row(self.engines[0], now_ms), now_ms=now_ms)]

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """The new top, if it changed."""
        bids, asks = self._view.advance(engine)
        if not bids and not asks:
            return []
        self._sequence = engine.sequence
        return [self.push(self.row(engine, now_ms), now_ms=now_ms)]

    def passing(self, now_ms: int) -> list[bytes]:
        """The same top again."""
        quiet = now_ms - self._last_ms >= QUIET_MS
        return [self.push(self.row(self.engines[0], now_ms), now_ms=now_ms)] if quiet else []

    def row(self, engine: Engine, now_ms: int) -> dict[str, Any]:
        """The top; books5 also names the instrument."""
        asks = rows(engine, self._view.asks, bids=False)
        row: dict[str, Any] = {"asks": asks, "bids": rows(engine, self._view.bids, bids=True)}
        if self.depth > 1:
            row["instId"] = engine.listing.symbol
        return {**row, "ts": str(now_ms), "seqId": self._sequence}


@attrs.define(eq=False)
class TradeChannel(Channel):
    """trades (one push per taker order and price) and trades-all (one push per match)."""

    single: bool = False
    _cached: list[bytes] = attrs.field(factory=list, init=False)

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """The last trade, however old; not on trades-all, where that is not documented."""
        return [] if self.single else self._cached

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """The trades of the step."""
        pushes: list[bytes] = []
        for fill in engine.fills:
            row: dict[str, Any] = {"instId": engine.listing.symbol, "tradeId": str(fill.last_id)}
            row |= {"px": price(engine, fill.price), "sz": size(engine, fill.lots)}
            row |= {"side": "buy" if fill.buy else "sell", "ts": str(now_ms), "source": "0"}
            if self.single:
                matches = enumerate(fill.matches, fill.first_id)
                prints = [{**row, "tradeId": str(number), "sz": size(engine, lots)} for number, lots in matches]
            else:
                prints = [{**row, "count": str(len(fill.matches)), "seqId": engine.sequence}]
            pushes += [self.push(each, now_ms=now_ms) for each in prints]
        self._cached = pushes[-1:] or self._cached
        return pushes


@attrs.define(eq=False)
class StateChannel(Channel):
    """A channel that sends its whole state when it has changed, and perhaps again after some silence."""

    state: Callable[[Engine, int], dict[str, Any]]
    """All fields but the time, from an engine and the time in milliseconds."""
    quiet_ms: int | None = None
    _told: dict[str, Any] = attrs.field(factory=dict, init=False)

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """The current state."""
        self._told = self.state(self.engines[0], now_ms)
        return [self.push({**self._told, "ts": str(now_ms)}, now_ms=now_ms)]

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """The state, if it is a new one."""
        state = self.state(engine, now_ms)
        if state == self._told:
            return []
        self._told = state
        return [self.push({**state, "ts": str(now_ms)}, now_ms=now_ms)]

    def passing(self, now_ms: int) -> list[bytes]:
        """The same state again, where the channel does that."""
        if self.quiet_ms is None or now_ms - self._last_ms < self.quiet_ms:
            return []
        return [self.push({**self._told, "ts": str(now_ms)}, now_ms=now_ms)]


def _identity(engine: Engine) -> dict[str, str]:
    return {"instType": engine.listing.market, "instId": engine.listing.symbol}


def _day(engine: Engine) -> dict[str, str]:
    day_open = price(engine, engine.open_24h)
    return {
        "open24h": day_open,
        "high24h": price(engine, engine.high_24h),
        "low24h": price(engine, engine.low_24h),
        "sodUtc0": day_open,
        "sodUtc8": day_open,
    }


def ticker(engine: Engine, now_ms: int) -> dict[str, Any]:
    """Row of tickers."""
    bid, ask = engine.bids.best, engine.asks.best
    spot = engine.listing.market == "SPOT"
    lots = engine.traded_lots
    currency = value(engine, lots, engine.last) if spot else coins(engine, lots, engine.last)
    return {
        **_identity(engine),
        "last": price(engine, engine.last),
        "lastSz": size(engine, engine.last_lots),
        "askPx": price(engine, ask),
        "askSz": size(engine, engine.asks.lots[ask]),
        "bidPx": price(engine, bid),
        "bidSz": size(engine, engine.bids.lots[bid]),
        **_day(engine),
        "volCcy24h": plain(currency),
        "vol24h": size(engine, lots),
    }


def mark_price(engine: Engine, now_ms: int) -> dict[str, Any]:
    """Row of mark-price; spot instruments are called MARGIN here."""
    kind = "MARGIN" if engine.listing.market == "SPOT" else engine.listing.market
    return {"instType": kind, "instId": engine.listing.symbol, "markPx": price(engine, engine.mark)}


def index_ticker(engine: Engine, now_ms: int) -> dict[str, Any]:
    """Row of index-tickers."""
    return {"instId": engine.listing.index, "idxPx": price(engine, engine.index), **_day(engine)}


def open_interest(engine: Engine, now_ms: int) -> dict[str, Any]:
    """Row of open-interest."""
    lots = engine.open_interest
    return {
        **_identity(engine),
        "oi": size(engine, lots),
        "oiCcy": plain(coins(engine, lots, engine.mark)),
        "oiUsd": plain(value(engine, lots, engine.mark)),
    }


def funding_rate(engine: Engine, now_ms: int) -> dict[str, Any]:
    """Row of funding-rate, settled every eight hours."""
    interval = 8 * _HOUR_MS
    settlement = now_ms // interval * interval + interval
    rate = plain(engine.funding * Decimal("0.00000001"))
    return {
        "formulaType": "withRate",
        "fundingRate": rate,
        "fundingTime": str(settlement),
        "impactValue": "20000",
        **_identity(engine),
        "interestRate": "0.0001",
        "method": "current_period",
        "maxFundingRate": "0.00375",
        "minFundingRate": "-0.00375",
        "nextFundingRate": "",
        "nextFundingTime": str(settlement + interval),
        "premium": rate,
        "settFundingRate": "0.0000451",
        "settState": "settled",
    }


def instrument_code(listing: Listing) -> int:
    """The integer that orders name an instrument by; it follows from the name."""
    return crc32(f"{listing.market}/{listing.symbol}".encode()) % 10**9


def instrument_row(listing: Listing, state: str = "live") -> dict[str, Any]:
    """An instrument in the form that REST and the channel share."""
    derivative = listing.market != "SPOT"
    option = listing.market == "OPTION"
    family = listing.index if derivative else ""
    return {
        "auctionEndTime": "",
        "baseCcy": "" if derivative else listing.base,
        "category": "1",
        "ctMult": ("0.01" if option else "1") if derivative else "",
        "ctType": "" if option or not derivative else "inverse" if listing.inverse else "linear",
        "ctVal": ("1" if option else plain(listing.contract_value or Decimal(1))) if derivative else "",
        "ctValCcy": listing.contract_currency,
        "contTdSwTime": "",
        "expTime": "" if listing.expiry_ms is None else str(listing.expiry_ms),
        "futureSettlement": False,
        "groupId": "1",
        "instFamily": family,
        "instId": listing.symbol,
        "instType": listing.market,
        "lever": "" if option else "100",
        "listTime": "1606468572000",
        "lotSz": plain(listing.lot),
        "maxIcebergSz": "9999999999.0000000000000000",
        "maxLmtAmt": "1000000",
        "maxLmtSz": "9999999999",
        "maxMktAmt": "",
        "maxMktSz": "",
        "maxStopSz": "",
        "maxTriggerSz": "9999999999.0000000000000000",
        "maxTwapSz": "9999999999.0000000000000000",
        "minSz": plain(listing.lot),
        "optType": listing.option or "",
        "openType": "",
        "preMktSwTime": "",
        "quoteCcy": "" if derivative else listing.quote,
        "settleCcy": listing.settle if derivative else "",
        "state": state,
        "ruleType": "normal",
        "stk": "" if listing.strike is None else plain(listing.strike),
        "tickSz": plain(listing.tick),
        "uly": family,
        "instIdCode": instrument_code(listing),
        "instCategory": "1",
        "upcChg": [],
    }
