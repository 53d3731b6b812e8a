"""OKX's public REST endpoints: server time, instruments, underlyings, tickers, mark prices, order book."""

from __future__ import annotations

from typing import Any

from pipeline.sim.floor import Floor
from pipeline.sim.http import Request, Response
from pipeline.sim.listing import Listing
from pipeline.sim.market import View
from pipeline.sim.okx_public import MARKETS
from pipeline.sim.okx_streams import index_ticker, instrument_row, mark_price, rows, ticker

BOOK_ROWS, FULL_BOOK_ROWS = 400, 5000


def answer(floor: Floor, request: Request) -> Response | None:
    """The response to a GET; None for an unknown path."""
    if request.method != "GET":
        return None
    query = request.query
    match request.path:
        case "/api/v5/public/time":
            return _envelope([{"ts": str(floor.clock.now_ms())}])
        case "/api/v5/public/instruments":
            return _instruments(floor, query)
        case "/api/v5/public/underlying":
            if query.get("instType") not in MARKETS[1:]:
                return _error("51000", "Parameter instType error")
            names = dict.fromkeys(each.index for each in floor.market.of(query["instType"]))
            return _envelope([list(names)])
        case "/api/v5/market/index-tickers":
            return _index_tickers(floor, query)
        case "/api/v5/public/mark-price":
            return _mark_prices(floor, query)
        case "/api/v5/market/ticker":
            found = [each for each in floor.market.listings.values() if each.symbol == query.get("instId")]
            return _tickers(floor, found)
        case "/api/v5/market/tickers":
            if query.get("instType") not in MARKETS:
                return _error("51000", "Parameter instType error")
            return _tickers(floor, floor.market.of(query["instType"]))
        case "/api/v5/market/books":
            return _book(floor, query, BOOK_ROWS)
        case "/api/v5/market/books-full":
            return _book(floor, query, FULL_BOOK_ROWS)
    return None


def _envelope(data: list[Any]) -> Response:
    return Response.json({"code": "0", "msg": "", "data": data})


def _error(code: str, text: str, status: int = 200) -> Response:
    return Response.json({"code": code, "msg": text, "data": []}, status)


def _instruments(floor: Floor, query: dict[str, str]) -> Response:
    kind = query.get("instType", "")
    if not kind:
        return _error("50014", "Parameter instType can not be empty.", 400)
    if kind not in (*MARKETS, "MARGIN"):
        return _error("51000", "Parameter instType error")
    family = query.get("instFamily")
    if kind == "OPTION" and not family:
        return _error("50014", "Parameter instFamily can not be empty.", 400)
    found = [
        {**instrument_row(each), "instType": kind}
        for each in floor.market.of("SPOT" if kind == "MARGIN" else kind)
        if (not family or (each.index == family and kind not in ("SPOT", "MARGIN")))
        and query.get("instId", each.symbol) == each.symbol
    ]
    if not found and "instId" in query:
        return _error("51001", "Instrument ID or Spread ID doesn't exist.")
    return _envelope(found)


def _index_tickers(floor: Floor, query: dict[str, str]) -> Response:
    if "instId" not in query and "quoteCcy" not in query:
        return _error("50014", "Parameter instId or quoteCcy can not be empty.", 400)
    first: dict[str, Listing] = {}
    for listing in floor.market.listings.values():
        if listing.option is None:
            first.setdefault(listing.index, listing)
    now = str(floor.clock.now_ms())
    found = [
        {**index_ticker(floor.market.engine(listing), floor.clock.now_ms()), "ts": now}
        for index, listing in first.items()
        if query.get("instId", index) == index and query.get("quoteCcy", listing.quote) == listing.quote
    ]
    return _envelope(found) if found else _error("51001", "Instrument ID or Spread ID doesn't exist.")


def _mark_prices(floor: Floor, query: dict[str, str]) -> Response:
    """Spot instruments are found as MARGIN."""
    kind, name = query.get("instType", ""), query.get("instId")
    if kind not in ("MARGIN", *MARKETS) or kind == "SPOT":
        return _error("51000", "Parameter instType error")
    market = "SPOT" if kind == "MARGIN" else kind
    listed = [each for each in floor.market.of(market) if name in (None, each.symbol)]
    now_ms = floor.clock.now_ms()
    found = [{**mark_price(floor.market.engine(each), now_ms), "ts": str(now_ms)} for each in listed]
    return _envelope(found) if found else _error("51001", "Instrument ID or Spread ID doesn't exist.")


def _tickers(floor: Floor, listed: list[Listing]) -> Response:
    now_ms = floor.clock.now_ms()
    found = [{**ticker(floor.market.engine(each), now_ms), "ts": str(now_ms)} for each in listed]
    return _envelope(found) if found else _error("51001", "Instrument ID or Spread ID doesn't exist.")


def _book(floor: Floor, query: dict[str, str], most: int) -> Response:
    listing = next((each for each in floor.market.listings.values() if each.symbol == query.get("instId")), None)
    if listing is None:
        return _error("51001", "Instrument ID or Spread ID doesn't exist.")
    text = query.get("sz", "1")
    if not text.isdecimal() or len(text) > 4 or not 1 <= int(text) <= most:
        return _error("51000", "Parameter sz error")
    engine = floor.market.engine(listing)
    view = View(int(text))
    view.advance(engine)
    row: dict[str, Any] = {
        "asks": rows(engine, view.asks, bids=False),
        "bids": rows(engine, view.bids, bids=True),
        "ts": str(floor.clock.now_ms()),
    }
    if most == BOOK_ROWS:
        row["seqId"] = engine.sequence
    else:  # without the element that means nothing
        row |= {side: [[*level[:2], level[3]] for level in row[side]] for side in ("asks", "bids")}
    return _envelope([row])
