"""Bybit's public topics beside books, trades, tickers and candles: liquidations, limits, funds, and whole books."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import attrs
import msgspec

from pipeline.sim.market import Engine, Levels, View, best_first

LIQUIDATIONS_MS = 500
LIMITS_MS = 300
FUND_MS = 1000
"""How often these topics may speak."""
LIQUIDATION_IN = 7
"""Every so many-th trading step, counted in steps of the engine, was a liquidation."""
WHOLE = 10_000
"""Levels per side of a full book."""
FULL_STEPS = 1000
"""`u` of a full book is the engine's steps and this: the stream and REST agree without knowing each other."""
POOLS = 3
"""Instruments of a family that have an insurance pool of their own: the others share one, which is not told."""

_LIMIT = Decimal("0.05")
"""Distance of the price limits from the middle."""
_encode = msgspec.json.Encoder().encode
_encode_numbers = msgspec.json.Encoder(decimal_format="number").encode


@attrs.define(eq=False)
class SilentTopic:
    """A topic that brings only what is pushed on demand."""

    topic: str
    engines: Sequence[Engine] = ()

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """Nothing."""
        return []

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """Nothing."""
        return []

    def passing(self, now_ms: int) -> list[bytes]:
        """Nothing."""
        return []


@attrs.define(eq=False)
class LiquidationTopic:
    """allLiquidation: some of the trades, gathered for half a second."""

    topic: str
    engines: Sequence[Engine]
    _waiting: list[dict[str, Any]] = attrs.field(factory=list, init=False)
    _last_ms: int = attrs.field(default=0, init=False)

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """Nothing: what happened before is not told."""
        if alone:
            self._waiting.clear()
        return []

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """Takes the trades in."""
        if engine.steps % LIQUIDATION_IN == 0:
            for fill in engine.fills:
                self._waiting.append(
                    {
                        "T": now_ms - 2,
                        "s": engine.listing.symbol,
                        # A long position is liquidated by selling, at a price that is bankrupt, not traded.
                        "S": "Sell" if fill.buy else "Buy",
                        "v": engine.size(fill.lots),
                        "p": engine.price(max(1, fill.price + (10 if fill.buy else -10))),
                    }
                )
        return self.passing(now_ms)

    def passing(self, now_ms: int) -> list[bytes]:
        """What has been gathered, if it is time."""
        if not self._waiting or now_ms - self._last_ms < LIQUIDATIONS_MS:
            return []
        data, self._waiting, self._last_ms = self._waiting, [], now_ms
        return [_encode({"topic": self.topic, "type": "snapshot", "ts": now_ms, "data": data})]


def price_limits(engine: Engine) -> dict[str, str]:
    """The highest bid and the lowest ask that the venue would take now."""
    middle = (engine.bids.best + engine.asks.best) // 2
    distance = int(middle * _LIMIT)
    symbol = engine.listing.symbol
    return {"symbol": symbol, "buyLmt": engine.price(middle + distance), "sellLmt": engine.price(middle - distance)}


@attrs.define(eq=False)
class LimitTopic:
    """priceLimit: when it has changed."""

    topic: str
    engines: Sequence[Engine]
    _told: dict[str, str] = attrs.field(factory=dict, init=False)
    _last_ms: int = attrs.field(default=0, init=False)

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """The limits as they are."""
        return [self._message(now_ms)]

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """The limits as they are, if that is news and not too soon."""
        if now_ms - self._last_ms < LIMITS_MS or price_limits(engine) == self._told:
            return []
        return [self._message(now_ms)]

    def passing(self, now_ms: int) -> list[bytes]:
        """Nothing: without steps nothing changes."""
        return []

    def _message(self, now_ms: int) -> bytes:
        self._told, self._last_ms = price_limits(self.engines[0]), now_ms
        return _encode({"topic": self.topic, "data": self._told, "ts": now_ms})


def fund_balance(engine: Engine) -> Decimal:
    """Of an instrument's insurance pool: what was traded feeds it."""
    return Decimal(10_000) + engine.traded_lots * Decimal("0.00012345")


@attrs.define(eq=False)
class InsuranceTopic:
    """insurance: a snapshot of the family's own pools, then those that have changed."""

    topic: str
    engines: Sequence[Engine]
    _told: dict[str, str] = attrs.field(factory=dict, init=False)
    _last_ms: int = attrs.field(default=0, init=False)

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """All pools, as far as it has been told."""
        if alone:
            self._changed()
        return [self._message("snapshot", self._told, now_ms)]

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """What has changed, once a second."""
        if now_ms - self._last_ms < FUND_MS or not (changed := self._changed()):
            return []
        return [self._message("delta", changed, now_ms)]

    def passing(self, now_ms: int) -> list[bytes]:
        """Nothing: balances change with trades only."""
        return []

    def _changed(self) -> dict[str, str]:
        now = {engine.listing.symbol: f"{fund_balance(engine):f}" for engine in self.engines}
        changed = {symbol: balance for symbol, balance in now.items() if self._told.get(symbol) != balance}
        self._told = now
        return changed

    def _message(self, kind: str, balances: dict[str, str], now_ms: int) -> bytes:
        self._last_ms = now_ms
        coins = {engine.listing.symbol: engine.listing.settle for engine in self.engines}
        data = [
            {"coin": coins[symbol], "symbols": symbol, "balance": balance, "updateTime": str(now_ms)}
            for symbol, balance in balances.items()
            if symbol in coins
        ]
        return _encode({"topic": self.topic, "type": kind, "ts": now_ms, "data": data})


@attrs.define(eq=False)
class AdlTopic:
    """adlAlert: the family's pools and drawdowns every second, as numbers."""

    topic: str
    engines: Sequence[Engine]
    _last_ms: int = attrs.field(default=0, init=False)

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """Everything."""
        return [self._message(now_ms)]

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """Nothing: time decides."""
        return []

    def passing(self, now_ms: int) -> list[bytes]:
        """Everything, once a second."""
        return [] if now_ms - self._last_ms < FUND_MS else [self._message(now_ms)]

    def _message(self, now_ms: int) -> bytes:
        self._last_ms = now_ms
        data = [
            {
                "c": engine.listing.settle,
                "s": engine.listing.symbol,
                "b": fund_balance(engine),
                "mb": "",
                "i_pr": Decimal("-0.3"),
                "pr": (Decimal(engine.last) / engine.high_24h - 1).quantize(Decimal("0.000001")),
                "adl_tt": Decimal(10_000),
                "adl_sr": Decimal("-0.25"),
            }
            for engine in self.engines
        ]
        return _encode_numbers({"topic": self.topic, "type": "snapshot", "ts": now_ms, "data": data})


def full_update_id(engine: Engine) -> int:
    """`u` of the full book after the engine's last step."""
    return FULL_STEPS + engine.steps


@attrs.define(eq=False)
class FullBookTopic:
    """orderbook.full: a delta per step and no snapshot, which is fetched over REST."""

    topic: str
    engines: Sequence[Engine]
    _view: View = attrs.field(factory=lambda: View(WHOLE), init=False)

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """Nothing is sent; later deltas count from here."""
        if alone:
            self._view.advance(self.engines[0])
        return []

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """What the step changed, be it nothing: `u` counts every message."""
        bids, asks = self._view.advance(engine)
        data = {
            "s": engine.listing.symbol,
            "b": self._rows(engine, bids, bids=True),
            "a": self._rows(engine, asks, bids=False),
            "u": full_update_id(engine),
            "seq": engine.sequence,
        }
        return [_encode({"topic": self.topic, "type": "delta", "ts": now_ms, "data": data, "cts": now_ms - 2})]

    def passing(self, now_ms: int) -> list[bytes]:
        """Nothing."""
        return []

    @staticmethod
    def _rows(engine: Engine, levels: Levels, *, bids: bool) -> list[list[str]]:
        return [[engine.price(price), engine.size(lots)] for price, lots in best_first(levels, bids=bids)]
