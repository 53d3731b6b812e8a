"""What a normalizer keeps: per instrument what the catalogue says of it, per topic how far it came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from msgspec import Struct

from pipeline.exchanges.venue import Catalogue, StreamState
from pipeline.model.decimals import DecimalText, exact_product
from pipeline.model.events import BASE, CONTRACT, QUOTE, Event, Instrument, Micros, Origin

VENUE = "okx"
COIN_MARKETS = frozenset({"spot", "margin", "index"})
"""Markets whose sizes are in the base currency; most others count contracts."""
SPREAD = "spread"
ACCOUNT = "account"
"""The market of what concerns no instrument but an account: balances, deposits."""
SYSTEM = "system"
"""The market of what concerns the venue as a whole: maintenance."""
RECHECK = 1_000_000
"""Microseconds between two looks into the catalogue for one instrument: entries come late and change."""


@attrs.define(eq=False)
class Listing:
    """One instrument as far as it is known. Shared by all streams of a connection that bring it."""

    market: str
    instrument_type: str
    """The market as OKX writes it: "SWAP"."""
    origin: Origin
    size_unit: str
    contract_value: DecimalText | None = None
    is_inverse: bool = False
    check_at: int = 0
    """Receive time (microseconds) from which on the catalogue is asked again."""
    entry: Instrument | None = None


def amounts(listing: Listing, size: str) -> tuple[DecimalText | None, DecimalText | None]:
    """`size` in base and in quote currency, as far as one multiplication tells. Raises `ArithmeticError`."""
    if listing.size_unit == BASE:
        return DecimalText(size), None
    if listing.contract_value is None:
        return None, DecimalText(size) if listing.size_unit == QUOTE else None
    amount = exact_product(size, listing.contract_value)
    return (None, amount) if listing.is_inverse else (amount, None)


def _size_unit(market: str, instrument: str | None) -> str:
    if market in COIN_MARKETS:
        return BASE
    if market != SPREAD:
        return CONTRACT
    # Spreads with coin-margined contracts are counted in dollars, all others in coin.
    legs = [leg.split("-") for leg in (instrument or "").split("_")]
    return QUOTE if any(len(leg) > 2 and leg[1] == "USD" for leg in legs) else BASE


@attrs.define(eq=False)
class Listings:
    """The listings of one connection, opened on first use: the public ones, or those of its account."""

    catalogue: Catalogue
    connection: str
    account: str | None = None
    _known: dict[tuple[str, str | None], Listing] = attrs.field(factory=dict, init=False)

    def get(self, market: str, instrument: str | None, receive_time: int) -> Listing:
        """The listing, looked up in the catalogue at most once per `RECHECK`; that of a whole market has no name."""
        listing = self._known.get((market, instrument))
        if listing is None:
            origin = Origin(VENUE, market, instrument, None, self.account, self.connection)
            listing = Listing(market, market.upper(), origin, _size_unit(market, instrument))
            self._known[market, instrument] = listing
        if receive_time >= listing.check_at:
            self.refresh(listing, receive_time)
        return listing

    def refresh(self, listing: Listing, receive_time: int) -> None:
        """Take over what the catalogue says now."""
        listing.check_at = receive_time + RECHECK
        origin = listing.origin
        entry = self.catalogue.get((listing.market, origin.instrument)) if origin.instrument else None
        if entry is None or entry is listing.entry:
            return
        listing.entry = entry
        listing.size_unit = entry.size_unit
        listing.contract_value = entry.contract_value
        listing.is_inverse = entry.is_inverse
        symbol = entry.origin.symbol
        if symbol != origin.symbol:
            listing.origin = Origin(VENUE, listing.market, origin.instrument, symbol, self.account, self.connection)


@attrs.define(eq=False)
class Stream(StreamState):
    """One topic on one connection."""

    channel: str = ""
    family: Family = attrs.field(kw_only=True)
    listings: Listings = attrs.field(kw_only=True)
    listing: Listing = attrs.field(kw_only=True)
    """That of the whole market for a topic over many instruments."""
    resume: dict[str, int] = attrs.field(kw_only=True)
    """The caller's memory over reconnects: the last trade id by channel and instrument."""
    resume_key: str = ""
    """Of this stream, if it names one instrument."""
    is_private: bool = False
    price_type: str = "trade"
    interval: str = ""
    venue_interval: str = ""
    last_number: int | None = None
    """The sequence or trade id that the last message ended with, where a repetition is to be dropped."""
    pages: list[Any] = attrs.field(factory=list)
    """Rows of a snapshot whose last page has not come yet."""
    page: int = 0
    """The last page among them."""
    fills: dict[tuple[str, str, str], None] = attrs.field(factory=dict)
    """The latest fills, in order: OKX may send an order's last fill again."""

    def of(self, instrument_type: str, receive_time: int) -> Listing:
        """The listing for a row that tells its own type, which usually is the one expected."""
        listing = self.listing
        if not instrument_type or instrument_type == listing.instrument_type:
            return listing
        self.listing = self.listings.get(instrument_type.lower(), listing.origin.instrument, receive_time)
        return self.listing


@attrs.frozen(eq=False)
class Family:
    """How the pushes of a channel become events; a new channel is a new row in the normalizer's table."""

    name: str
    """The channel, or the prefix of several."""
    push: type[Struct] | None
    """None for messages that are passed on whole."""
    decode: Callable[[bytes], Any]
    """By the strict form of `push`; raises one of `wire.UNREADABLE`."""
    build: Callable[[Stream, Any, Micros], list[Event]]
    named_by: str = "instId"
    """The member of the `arg` that names the instrument; empty for channels over many."""
    market: str = ""
    """That of a channel over many instruments whose `arg` need not tell it."""
    is_private: bool = False
    price_type: str = "trade"
    """Candles: what they are made of."""
    loose: type[Struct] | None = None
    """What reads messages that `push` is too narrow for."""
