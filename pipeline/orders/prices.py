"""Reference prices for the guards: read when an instrument's first order comes, kept fresh while more follow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf

import attrs
import structlog
import trio

from pipeline.exchanges.trading import Trading
from pipeline.feeds.venue_rest import VenueRest
from pipeline.model.decimals import DecimalText
from pipeline.model.errors import BadMessage, SessionError
from pipeline.model.events import Instrument

log = structlog.get_logger(__name__)

Key = tuple[str, str]
"""Market and the venue's symbol."""

KEPT_FOR = 60.0
"""Seconds after its last order for which an instrument's price is kept fresh."""
MAX_KEPT = 32
"""Instruments kept fresh at once, those ordered last: each costs a REST request per half of the price's age."""
FETCH_WITHIN = 3.0
"""Seconds for which an order waits for its instrument's price."""


@attrs.define(eq=False)
class _Quote:
    instrument: Instrument
    wanted_at: float
    price: DecimalText | None = None
    read_at: float = -inf
    """When it was asked for; an answer is never newer than its question."""


@attrs.define(eq=False)
class Prices:
    """Reference prices of one venue's instruments. Times are seconds of the run's monotonic clock."""

    fetch: Callable[[Instrument], Awaitable[DecimalText | None]]
    """Raises `SessionError` or `BadMessage`."""
    max_age: float
    """Seconds for which a price is good."""
    failures: int = attrs.field(default=0, init=False)
    """How often a price could not be read."""
    _quotes: dict[Key, _Quote] = attrs.field(factory=dict, init=False)
    _fetching: dict[Key, trio.Event] = attrs.field(factory=dict, init=False)
    _news: trio.Event = attrs.field(factory=trio.Event, init=False)

    def want(self, instrument: Instrument, now: float) -> DecimalText | None:
        """The price if it is fresh; notes either way that the instrument is being ordered."""
        key = _key(instrument)
        quote = self._quotes.get(key)
        if quote is None:
            quote = self._quotes[key] = _Quote(instrument, now)
            self._news.set()
        quote.instrument, quote.wanted_at = instrument, now
        return quote.price if now - quote.read_at <= self.max_age else None

    async def refresh(self, instrument: Instrument) -> None:
        """Read one price now, or wait for the reading that is under way; gives up after `FETCH_WITHIN` seconds."""
        key = _key(instrument)
        if (under_way := self._fetching.get(key)) is not None:
            await under_way.wait()
            return
        asked = trio.current_time()
        done = self._fetching[key] = trio.Event()
        try:
            with trio.fail_after(FETCH_WITHIN):
                price = await self.fetch(instrument)
        except (SessionError, BadMessage, trio.TooSlowError) as error:
            self.failures += 1
            text = str(error) or f"not within {FETCH_WITHIN:g} s"
            log.warning("reference_price_unread", market=key[0], instrument=key[1], text=text)
        else:
            if (quote := self._quotes.get(key)) is not None and price is not None:
                quote.price, quote.read_at = price, asked
        finally:
            del self._fetching[key]
            done.set()

    async def run(self) -> None:
        """Keep the prices of instruments ordered lately fresh, until cancelled."""
        while True:
            self._news = trio.Event()
            now = trio.current_time()
            self._forget(now)
            due = [key for key, quote in self._quotes.items() if quote.read_at + self.max_age / 2 <= now]
            async with trio.open_nursery() as nursery:
                for key in due:
                    nursery.start_soon(self.refresh, self._quotes[key].instrument)
            # A price must not grow old while the next one is being read.
            with trio.move_on_after(self.max_age / 4 if self._quotes else inf):
                await self._news.wait()

    def _forget(self, now: float) -> None:
        latest = sorted(self._quotes, key=lambda key: self._quotes[key].wanted_at, reverse=True)
        for place, key in enumerate(latest):
            if place >= MAX_KEPT or now - self._quotes[key].wanted_at > KEPT_FOR:
                del self._quotes[key]


def price_fetcher(trading: Trading, rest: VenueRest) -> Callable[[Instrument], Awaitable[DecimalText | None]]:
    """Reads one price over the venue's public REST."""

    async def fetch(instrument: Instrument) -> DecimalText | None:
        return await rest.walk(trading.reference_price(instrument))

    return fetch


def _key(instrument: Instrument) -> Key:
    return instrument.origin.market, str(instrument.origin.instrument)
