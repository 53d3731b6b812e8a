"""What the events of an account share: their origins, the catalogue's word on their instruments, ways to read."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from pipeline.exchanges.bybit.tickers import millis, unless_zero
from pipeline.exchanges.venue import Catalogue
from pipeline.model.decimals import DecimalText
from pipeline.model.events import BASE, QUOTE, Instrument, Micros, Origin

VENUE = "bybit"
ACCOUNT = "account"
"""The market of what concerns no instrument but an account."""

LEGS = {"combination": "spread", "spot_leg": "spot", "future_leg": "linear"}
"""Markets of the spread topics' categories: the spread itself, and what it consists of (all sized in base coin)."""


@attrs.define(eq=False)
class AccountScope:
    """One private connection: whose account it is, and what is known of the instruments."""

    connection: str
    catalogue: Catalogue
    account: str | None
    _origins: dict[tuple[str, str | None], Origin] = attrs.field(factory=dict, init=False)

    def origin(self, market: str, instrument: str | None) -> Origin:
        """One origin per instrument; replaced once, when the catalogue has come to know the symbol."""
        known = self._origins.get((market, instrument))
        if known is not None and known.symbol is not None:
            return known
        entry = self.entry(market, instrument)
        symbol = entry.origin.symbol if entry is not None else None
        if known is None or symbol is not None:
            known = Origin(VENUE, market, instrument, symbol, self.account, self.connection)
            self._origins[market, instrument] = known
        return known

    def entry(self, market: str, instrument: str | None) -> Instrument | None:
        """The catalogue's entry of an instrument."""
        return None if instrument is None else self.catalogue.get((market, instrument))

    def settle(self, market: str, symbol: str) -> str | None:
        """The currency that profits are paid in, as far as the catalogue knows."""
        entry = self.entry(market, symbol)
        return entry.settle if entry is not None else None


def market_of(category: str) -> str:
    """The market of a row."""
    return LEGS.get(category, category)


def filled_unit(market: str) -> str:
    """The unit of sizes that were filled or are held."""
    return QUOTE if market == "inverse" else BASE


def ordered_unit(category: str, order_type: str | None, side: str, market_unit: str | None) -> str:
    """The unit of sizes as ordered: a spot market order to buy is given by value, unless it says otherwise.

    Legs of spreads are not: their category is another one.
    """
    if category == "spot" and order_type == "Market":
        by_value = market_unit == "quoteCoin" if market_unit else side == "Buy"
        return QUOTE if by_value else BASE
    return filled_unit(category)


def position_side(index: int | None) -> str | None:
    """Which of the two positions of hedge mode."""
    return {1: "long", 2: "short"}.get(index or 0)


def flag(text: str | None) -> bool | None:
    """Whether it is "1" or "0"; anything else tells nothing."""
    return {"1": True, "0": False}.get(text or "")


def word(text: str | None) -> str | None:
    """The venue's own word, "UNKNOWN" and "" being none."""
    return text if text and text != "UNKNOWN" else None


def lower(text: str | None) -> str | None:
    """As `word`, in lower case."""
    known = word(text)
    return known.lower() if known else None


def nonzero(text: DecimalText | None) -> DecimalText | None:
    """A price where the venue writes zero or "" for no value."""
    return DecimalText(text) if text and unless_zero(text) else None


def time_of(text: str | None, otherwise: int) -> Micros:
    """A time in milliseconds, or else the message's; raises `ValueError`."""
    return Micros((int(text) if text and text != "0" else otherwise) * 1000)


def state_time(text: str | None, sent: int, *, is_snapshot: bool) -> Micros | None:
    """When a state was reached, in `time_of`'s ways; the time of a query's answer says nothing about it."""
    return millis(text or "") if is_snapshot else time_of(text, sent)


def extras(pairs: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """Those that have a value."""
    return {name: text for name, text in pairs if text}
