"""OKX's candles: when bars open, and the channel that forms them."""

from __future__ import annotations

from decimal import Decimal

import attrs

from pipeline.sim.market import Engine
from pipeline.sim.okx_streams import Channel, coins, plain, price, size, value

CANDLE_MS = 1000
"""A forming candle is sent at most this often."""

_HOUR_MS = 3_600_000
_BARS_MS = {
    "1s": 1000,
    **{f"{minutes}m": minutes * 60_000 for minutes in (1, 3, 5, 15, 30)},
    **{f"{hours}H": hours * _HOUR_MS for hours in (1, 2, 4, 6, 12)},
    **{f"{days}D": days * 24 * _HOUR_MS for days in (1, 2, 3, 5)},
    "1W": 7 * 24 * _HOUR_MS,
    "1M": 30 * 24 * _HOUR_MS,
    "3M": 90 * 24 * _HOUR_MS,
}
BARS_MS = {
    **_BARS_MS,
    **{f"{bar}utc": length for bar, length in _BARS_MS.items() if length >= 6 * _HOUR_MS},
    "1Yutc": 365 * 24 * _HOUR_MS,
}
"""Length of each candle; months are taken as 30 days, years as 365."""


def bar_open(bar: str, now_ms: int) -> int:
    """When the bar that contains `now_ms` opened; long bars open by the clock of UTC+8 unless they say "utc"."""
    length = BARS_MS[bar]
    offset = 0 if length < 6 * _HOUR_MS or bar.endswith("utc") else -8 * _HOUR_MS
    if bar.startswith("1W"):
        offset += 4 * 24 * _HOUR_MS  # Mondays; 1970 began on a Thursday
    return (now_ms - offset) // length * length + offset


@attrs.define(eq=False)
class CandleChannel(Channel):
    """candle, mark-price-candle and index-candle: the forming bar now and then, and once more when it closes."""

    bar: str = "1m"
    kind: str = "trade"
    """trade, mark, index or spread."""
    _start: int = attrs.field(default=0, init=False)
    _prices: tuple[int, int, int, int] = attrs.field(default=(0, 0, 0, 0), init=False)
    _lots: int = attrs.field(default=0, init=False)
    _coins: Decimal = attrs.field(default=Decimal(0), init=False)
    _value: Decimal = attrs.field(default=Decimal(0), init=False)

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """The forming bar."""
        if alone or not self._start:
            self._open(now_ms)
        return [self._message(now_ms, closed=False)]

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """Takes the step in; sends the bar if it was silent for a while."""
        closed = self.passing(now_ms)
        if self.kind in ("trade", "spread"):
            for fill in engine.fills:
                self._lots += fill.lots
                self._coins += coins(engine, fill.lots, fill.price)
                self._value += value(engine, fill.lots, fill.price)
        printed = self.kind in ("trade", "spread")
        prices = [fill.price for fill in engine.fills] if printed else [self._reference()]
        for ticks in prices:
            first, high, low, _ = self._prices
            self._prices = (first, max(high, ticks), min(low, ticks), ticks)
        if prices and now_ms - self._last_ms >= CANDLE_MS:
            return [*closed, self._message(now_ms, closed=False)]
        return closed

    def passing(self, now_ms: int) -> list[bytes]:
        """The closed bar, when its time is over."""
        if bar_open(self.bar, now_ms) == self._start:
            return []
        closed = self._message(now_ms, closed=True)
        self._open(now_ms)
        return [closed]

    def _reference(self) -> int:
        engine = self.engines[0]
        return {"mark": engine.mark, "index": engine.index}.get(self.kind, engine.last)

    def _open(self, now_ms: int) -> None:
        self._start = bar_open(self.bar, now_ms)
        self._prices = (self._reference(),) * 4
        self._lots, self._coins, self._value = 0, Decimal(0), Decimal(0)

    def row(self) -> list[str]:
        """The bar, but for whether it is closed."""
        engine = self.engines[0]
        row = [str(self._start), *(price(engine, ticks) for ticks in self._prices)]
        if self.kind == "trade":
            worth = plain(self._value)
            currency = worth if engine.listing.market == "SPOT" else plain(self._coins)
            row += [size(engine, self._lots), currency, worth]
        return row

    def _message(self, now_ms: int, *, closed: bool) -> bytes:
        return self.push([*self.row(), "1" if closed else "0"], now_ms=now_ms)
