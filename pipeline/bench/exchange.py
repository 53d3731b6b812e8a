"""The exchange behind the stream, as far as a service asks for it over REST: its catalogue of instruments."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from pipeline.exchanges import VENUES
from pipeline.exchanges.venue import Catalogue
from pipeline.feeds.catalogue import InstrumentBook, read_market
from pipeline.model.events import Instrument
from pipeline.sim import bybit_rest, okx_rest
from pipeline.sim.clock import SimulatedClock
from pipeline.sim.floor import Floor, Market
from pipeline.sim.http import Request, Response
from pipeline.sim.listing import many
from pipeline.sim.sent import SentRecord
from pipeline.sim.settings import MarketSettings

MARKETS = {"bybit": "linear", "okx": "swap"}
"""The market of the stream, in our terms."""


def rest_answers(venue: str, instruments: int) -> Callable[[Request], Response]:
    """Answers the venue's REST requests about this many perpetuals; made within a Trio run, whose clock it uses."""
    listings = many(venue, instruments)
    market = Market(MarketSettings(), {(each.market, each.symbol): each for each in listings})
    floor = Floor(SimulatedClock(), market, SentRecord(False))
    answer = bybit_rest.answer if venue == "bybit" else okx_rest.answer

    def respond(request: Request) -> Response:
        return answer(floor, request) or Response.json({"error": f"nothing at {request.path}"}, 404)

    return respond


def catalogue(venue: str, instruments: int) -> Catalogue:
    """The same instruments as the service knows them when it has read its catalogue."""

    def now() -> int:
        return time.time_ns() // 1000

    async def read() -> list[Instrument]:
        respond = rest_answers(venue, instruments)

        async def fetch(path: str) -> bytes:
            return respond(Request("GET", path, {})).body

        return await read_market(VENUES[venue], MARKETS[venue], fetch, now)

    book = InstrumentBook()
    book.replace(MARKETS[venue], trio.run(read), now())
    return book.entries
