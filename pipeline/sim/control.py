"""Watching and breaking a running simulation over HTTP, below `/sim/` on the venue's own port."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from pipeline.sim import account_control
from pipeline.sim.faults import from_mapping
from pipeline.sim.http import Request, Response
from pipeline.sim.listing import Listing, named

if TYPE_CHECKING:
    from pipeline.sim.venue import SimulatedVenue


def control(venue: SimulatedVenue, request: Request) -> Response:
    """Answer a request below `/sim/`; problems are answered with 400 and a text that names them."""
    try:
        match request.method, request.path:
            case "GET", "/sim/state":
                return Response.json(state(venue))
            case "GET", "/sim/book":
                return Response.json(book(venue, request.query.get("market", ""), request.query.get("symbol", "")))
            case "POST", "/sim/fault":
                return Response.json({"hit": venue.apply(from_mapping(_body(request)))})
            case "POST", "/sim/list":
                return Response.json({"listed": [each.symbol for each in _list(venue, _body(request))]})
            case "POST", "/sim/delist":
                body = _body(request)
                venue.delist(str(body.get("market")), str(body.get("symbol")))
                return Response.json({"delisted": body["symbol"]})
            case "GET", "/sim/account":
                account = account_control.account_named(venue, request.query.get("name"))
                return Response.json(account_control.state(account))
            case "GET", "/sim/orders":
                account = account_control.account_named(venue, request.query.get("name"))
                return Response.json(venue.dialect.tally.of(account.name))
            case "POST", path if path in account_control.ACTS:
                return Response.json(account_control.act(venue, path, _body(request)))
            case "POST", "/sim/revoke":
                return Response.json(account_control.revoke(venue, _body(request)))
            case "POST", "/sim/public":
                return Response.json({"hit": venue.dialect.push(_body(request))})
            case "POST", "/sim/private":
                return Response.json(account_control.push_private(venue, _body(request)))
    except ValueError as error:
        return Response.json({"error": str(error)}, 400)
    except KeyError as error:
        return Response.json({"error": f"not listed: {error}"}, 404)
    return Response.json({"error": f"nothing at {request.method} {request.path}"}, 404)


def _body(request: Request) -> dict[str, Any]:
    try:
        return msgspec.json.decode(request.body, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise ValueError(f"the body must be a JSON object: {error}") from None


def _list(venue: SimulatedVenue, body: dict[str, Any]) -> list[Listing]:
    """`{"symbol": "NEWUSDT"}`, optionally with the market it is for and a starting price."""
    found = named(venue.name, [str(body.get("symbol"))])
    found = tuple(each for each in found if body.get("market") in (None, each.market))
    if not found:
        raise ValueError(f"market: {body['market']!r} cannot list {body.get('symbol')}")
    for listing in found:
        venue.list_instrument(_at_price(listing, body.get("price")))
    return list(found)


def _at_price(listing: Listing, price: object) -> Listing:
    if price is None:
        return listing
    try:
        start = Decimal(price) if isinstance(price, str) else Decimal("NaN")
    except InvalidOperation:
        start = Decimal("NaN")
    if not start.is_finite() or start < 10 * listing.tick:
        raise ValueError(f"price: {price!r} is not a decimal text of at least ten ticks of {listing.tick}")
    return attrs.evolve(listing, price=start)


def state(venue: SimulatedVenue) -> dict[str, Any]:
    """Connections with their subscriptions, messages sent, best quotes of the books in use, instruments."""
    market = venue.floor.market
    return {
        "venue": venue.name,
        "time_ms": venue.floor.clock.now_ms(),
        "connections_opened": venue.opened,
        "connections": [
            {
                "index": connection.index,
                "path": connection.path,
                "id": connection.id,
                "account": connection.account,
                "silent": connection.silent,
                "sent": connection.sent_messages,
                "topics": list(connection.topics),
            }
            for connection in venue.connections
        ],
        "sent": {
            topic: {"count": record.count, "digest": record.digest.hexdigest()}
            for topic, record in venue.sent.topics.items()
        },
        "replay": None
        if venue.replay is None
        else {"published": venue.replay.published, "finished": venue.replay.finished.is_set()},
        "instruments": [
            {"market": listing.market, "symbol": listing.symbol, **market.top(listing)}
            for listing in market.listings.values()
        ],
    }


def book(venue: SimulatedVenue, market: str, symbol: str) -> dict[str, Any]:
    """An instrument's whole true book, best first, in the scale of tick and lot. Raises `KeyError` if not listed."""
    engine = venue.engine(market, symbol)
    sides = {
        name: [[engine.price(price), engine.size(lots)] for price, lots in side.top(len(side)).items()]
        for name, side in (("bids", engine.bids), ("asks", engine.asks))
    }
    return {"market": market, "symbol": symbol, "sequence": engine.sequence, **sides}
