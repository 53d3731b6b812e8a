"""OKX's channels about options and limits: every one is shaped by more than one price."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import attrs

from pipeline.sim.market import Engine
from pipeline.sim.okx_streams import Channel, plain, price, size

SUMMARY_MS = 1000
"""Summaries of a family are sent at most this often."""
_TENTH_DIGIT = Decimal("1e-10")


def price_limit(engine: Engine, now_ms: int) -> dict[str, Any]:
    """Row of price-limit: two percent around the mark price."""
    band = max(1, engine.mark // 50)
    return {
        "instType": engine.listing.market,
        "instId": engine.listing.symbol,
        "buyLmt": price(engine, engine.mark + band),
        "sellLmt": price(engine, max(1, engine.mark - band)),
        "enabled": True,
    }


def forward(engine: Engine, underlying: Engine | None) -> Decimal:
    """The price that an option is about; its strike if nothing else is listed on its index."""
    if underlying is None:
        return engine.listing.strike or Decimal(1)
    return underlying.listing.tick * underlying.index


def option_summary(engine: Engine, underlying: Engine | None, now_ms: int) -> dict[str, Any]:
    """Row of opt-summary. The greeks are made up: of the right signs, and moving with the price."""
    listing = engine.listing
    ahead = forward(engine, underlying)
    moneyness = ahead / (listing.strike or ahead) - 1
    call = min(max(Decimal("0.5") + 2 * moneyness, Decimal("0.01")), Decimal("0.99"))
    delta = call if listing.option == "C" else call - 1
    gamma, vega, theta = call * (1 - call) / 10_000, call * (1 - call) * 100, -call * (1 - call) * 30
    volatility = Decimal("0.4") + abs(moneyness)
    return {
        "instType": "OPTION",
        "instId": listing.symbol,
        "uly": listing.index,
        "delta": _digits(delta - listing.tick * engine.mark),
        "gamma": _digits(gamma * ahead),
        "vega": _digits(vega / ahead),
        "theta": _digits(theta / ahead),
        "lever": _digits(1 / (listing.tick * max(1, engine.mark))),
        "markVol": _digits(volatility),
        "bidVol": _digits(volatility - Decimal("0.01")),
        "askVol": _digits(volatility + Decimal("0.01")),
        "realVol": "",
        "deltaBS": _digits(delta),
        "gammaBS": _digits(gamma),
        "thetaBS": _digits(theta),
        "vegaBS": _digits(vega),
        "ts": str(now_ms),
        "fwdPx": _digits(ahead),
        "volLv": "0.4",
    }


def _digits(value: Decimal) -> str:
    return plain(value.quantize(_TENTH_DIGIT))


@attrs.define(eq=False)
class SummaryChannel(Channel):
    """opt-summary: all options of a family in one push."""

    underlying: Engine | None = None

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """The current state."""
        return [self.push(*(option_summary(each, self.underlying, now_ms) for each in self.engines), now_ms=now_ms)]

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """All rows, now and then."""
        return self.opening(now_ms, alone=False) if now_ms - self._last_ms >= SUMMARY_MS else []


@attrs.define(eq=False)
class OptionTradeChannel(Channel):
    """option-trades: one push per match, of one option or of a family."""

    underlying: Engine | None = None
    _cached: list[bytes] = attrs.field(factory=list, init=False)

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """The previous trade, however old."""
        return self._cached

    def update(self, engine: Engine, now_ms: int) -> list[bytes]:
        """The trades of the step."""
        listing = engine.listing
        ahead = _digits(forward(engine, self.underlying))
        pushes = [
            self.push(
                {
                    "fillVol": "0.4",
                    "fwdPx": ahead,
                    "idxPx": ahead,
                    "instFamily": listing.index,
                    "instId": listing.symbol,
                    "markPx": price(engine, engine.mark),
                    "optType": listing.option or "",
                    "px": price(engine, fill.price),
                    "side": "buy" if fill.buy else "sell",
                    "sz": size(engine, lots),
                    "tradeId": str(number),
                    "ts": str(now_ms),
                },
                now_ms=now_ms,
            )
            for fill in engine.fills
            for number, lots in enumerate(fill.matches, fill.first_id)
        ]
        self._cached = pushes[-1:] or self._cached
        return pushes


@attrs.define(eq=False)
class LatestChannel(Channel):
    """A channel driven on demand that tells new subscribers the latest state."""

    latest: list[bytes] = attrs.field(factory=list)
    """One push, or none."""

    def opening(self, now_ms: int, *, alone: bool) -> list[bytes]:
        """The latest state."""
        return list(self.latest)
