"""A venue's instruments: read over REST, kept up to date, published when they change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import attrs
from msgspec.structs import replace

from pipeline.exchanges.venue import RestPage, Venue
from pipeline.model.errors import Refused, Retryable
from pipeline.model.events import Instrument, Micros

Fetch = Callable[[str], Awaitable[bytes]]
"""GETs a path with its query; raises `SessionError`."""

_MAX_PAGES = 1_000
_VOLATILE = {"origin", "exchange_time", "receive_time", "sequence"}
_LASTING = tuple(name for name in Instrument.__struct_fields__ if name not in _VOLATILE)


async def read_market(venue: Venue, market: str, fetch: Fetch, clock: Callable[[], int]) -> list[Instrument]:
    """All instruments of a market, following the venue's pages.

    Raises `SessionError` for what REST or the venue refuses and `BadMessage` for an unreadable answer.
    """
    instruments: list[Instrument] = []
    pages: list[RestPage] = list(venue.instrument_pages(market))
    for _ in range(_MAX_PAGES):
        if not pages:
            return instruments
        page = pages.pop(0)
        try:
            body = await fetch(page.path)
        except Refused:
            if page.if_refused is None:
                raise
            body = page.if_refused
        found, following = venue.parse_instruments(market, page, body, clock())
        instruments.extend(found)
        if following is not None:
            pages.insert(0, following)
    raise Retryable(f"{venue.name} {market} instruments: more than {_MAX_PAGES} pages")


@attrs.define(eq=False)
class InstrumentBook:
    """The catalogue of one venue; `entries` is the live mapping that normalizers look into."""

    entries: dict[tuple[str, str], Instrument] = attrs.field(factory=dict, init=False)

    def replace(self, market: str, instruments: Iterable[Instrument], read_at: int) -> list[Instrument]:
        """Take a market's complete new listing; returns the entries that are new or changed.

        What is listed no longer is kept, marked as not tradable at `read_at` (microseconds), and returned once.
        """
        changed: list[Instrument] = []
        listed = set()
        for instrument in instruments:
            key = (market, str(instrument.origin.instrument))
            listed.add(key)
            before = self.entries.get(key)
            if before is None or any(getattr(before, name) != getattr(instrument, name) for name in _LASTING):
                self.entries[key] = instrument
                changed.append(instrument)
        for key, entry in self.entries.items():
            if key[0] == market and key not in listed and entry.is_tradable:
                gone = replace(
                    entry, receive_time=Micros(read_at), exchange_time=None, is_tradable=False, state="delisted"
                )
                self.entries[key] = gone
                changed.append(gone)
        return changed
