"""Bybit's public REST endpoints: server time, instruments with paging, order book."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

from pipeline.sim.floor import Floor
from pipeline.sim.http import Request, Response
from pipeline.sim.listing import Listing
from pipeline.sim.market import View

MARKETS = ("spot", "linear", "inverse", "option")
LAUNCH_MS = "1585526400000"


def answer(floor: Floor, request: Request) -> Response | None:
    """The response to a GET; None for an unknown path."""
    if request.method != "GET":
        return None
    match request.path:
        case "/v5/market/time":
            now_us = floor.clock.now_us()
            return _envelope(floor, {"timeSecond": str(now_us // 1_000_000), "timeNano": f"{now_us}000"})
        case "/v5/market/instruments-info":
            return _instruments(floor, request.query)
        case "/v5/market/orderbook":
            return _book(floor, request.query)
    return None


def _envelope(floor: Floor, result: dict[str, Any]) -> Response:
    body = {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": floor.clock.now_ms()}
    return Response.json(body)


def _error(floor: Floor, why: str) -> Response:
    body = {"retCode": 10001, "retMsg": f"params error: {why}", "result": {}, "retExtInfo": {}}
    return Response.json({**body, "time": floor.clock.now_ms()})


def _whole(text: str, least: int, most: int) -> int | None:
    return int(text) if text.isdecimal() and least <= int(text) <= most else None


def _instruments(floor: Floor, query: dict[str, str]) -> Response:
    category = query.get("category", "")
    if category not in MARKETS:
        return _error(floor, "Category is invalid")
    rows = [_row(number, each) for number, each in enumerate(floor.market.of(category))]
    wanted = {"symbol": query.get("symbol"), "status": query.get("status")}
    if category == "option":
        wanted["baseCoin"] = query.get("baseCoin") or ("BTC" if "symbol" not in query else None)
    elif category != "spot" and query.get("baseCoin"):
        # With a base coin, both contract categories list the contracts of both.
        rows = [_row(number, each) for market in ("linear", "inverse") for number, each in
                enumerate(floor.market.of(market))]  # fmt: skip
        wanted["baseCoin"] = query["baseCoin"]
    rows = [row for row in rows if all(not value or row[field] == value for field, value in wanted.items())]
    if category == "spot":
        return _envelope(floor, {"category": category, "list": rows})
    limit = _whole(query.get("limit", "500"), 1, 1000)
    if limit is None:
        return _error(floor, "Limit is invalid")
    start = 0
    if cursor := query.get("cursor"):
        last = unquote(cursor).rpartition("last=")[2]
        start = next((number + 1 for number, row in enumerate(rows) if row["symbol"] == last), -1)
        if start < 0:
            return _error(floor, "Cursor is invalid")
    page = rows[start : start + limit]
    more = start + limit < len(rows)
    token = quote(f"first={page[0]['symbol']}&last={page[-1]['symbol']}", safe="") if more else ""
    return _envelope(floor, {"category": category, "list": page, "nextPageCursor": token})


def _row(number: int, listing: Listing) -> dict[str, Any]:
    make = {"spot": _spot_row, "option": _option_row}.get(listing.market, _contract_row)
    return {"symbol": listing.symbol, "symbolId": number + 1, "status": "Trading", **make(listing)}


def _spot_row(listing: Listing) -> dict[str, Any]:
    return {
        "baseCoin": listing.base,
        "quoteCoin": listing.quote,
        "innovation": "0",
        "marginTrading": "utaOnly",
        "stTag": "0",
        "lotSizeFilter": {
            "basePrecision": f"{listing.lot:f}",
            "quotePrecision": "0.0000001",
            "minOrderQty": f"{listing.lot:f}",
            "maxOrderQty": "83",
            "minOrderAmt": "5",
            "maxOrderAmt": "8000000",
            "maxLimitOrderQty": "83",
            "maxMarketOrderQty": "41.5",
            "postOnlyMaxLimitOrderSize": "60000",
        },
        "priceFilter": {"tickSize": f"{listing.tick:f}"},
        "riskParameters": {"priceLimitRatioX": "0.005", "priceLimitRatioY": "0.01"},
        "symbolType": "",
    }


def _option_row(listing: Listing) -> dict[str, Any]:
    return {
        "baseCoin": listing.base,
        "quoteCoin": listing.quote,
        "settleCoin": listing.settle,
        "optionsType": "Call" if listing.option == "C" else "Put",
        "launchTime": LAUNCH_MS,
        "deliveryTime": str(listing.expiry_ms),
        "deliveryFeeRate": "0.00015",
        "priceFilter": {"minPrice": f"{listing.tick:f}", "maxPrice": "1110000", "tickSize": f"{listing.tick:f}"},
        "lotSizeFilter": {"maxOrderQty": "500", "minOrderQty": f"{listing.lot:f}", "qtyStep": f"{listing.lot:f}"},
        "displayName": listing.symbol,
    }


def _contract_row(listing: Listing) -> dict[str, Any]:
    kind = "Inverse" if listing.inverse else "Linear"
    exponent = listing.tick.as_tuple().exponent
    return {
        "contractType": f"{kind}{'Perpetual' if listing.perpetual else 'Futures'}",
        "baseCoin": listing.base,
        "quoteCoin": listing.quote,
        "launchTime": LAUNCH_MS,
        "deliveryTime": str(listing.expiry_ms or 0),
        "deliveryFeeRate": "" if listing.perpetual else "0.0005",
        "priceScale": str(-exponent) if isinstance(exponent, int) else "",
        "leverageFilter": {"minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01"},
        "priceFilter": {"minPrice": f"{listing.tick:f}", "maxPrice": "1999999.80", "tickSize": f"{listing.tick:f}"},
        "lotSizeFilter": {
            "maxOrderQty": "1190.000",
            "minOrderQty": f"{listing.lot:f}",
            "qtyStep": f"{listing.lot:f}",
            "postOnlyMaxOrderQty": "1190.000",
            "maxMktOrderQty": "500.000",
            "minNotionalValue": "5",
        },
        "unifiedMarginTrade": True,
        "fundingInterval": 480 if listing.perpetual else 0,
        "settleCoin": listing.settle,
        "copyTrading": "both",
        "upperFundingRate": "0.00375",
        "lowerFundingRate": "-0.00375",
        "isPreListing": False,
        "preListingInfo": None,
        "riskParameters": {"priceLimitRatioX": "0.01", "priceLimitRatioY": "0.02"},
        "symbolType": "",
    }


def _book(floor: Floor, query: dict[str, str]) -> Response:
    category = query.get("category", "")
    listing = floor.market.find(category, query.get("symbol", ""))
    if listing is None:
        return _error(floor, "Symbol Invalid" if category in MARKETS else "Category is invalid")
    standard = {"spot": 1, "option": 1}.get(category, 25)
    limit = _whole(query.get("limit", str(standard)), 1, 25 if category == "option" else 1000)
    if limit is None:
        return _error(floor, "Limit is invalid")
    engine = floor.market.engine(listing)
    view = View(limit)
    view.advance(engine)
    now_ms = floor.clock.now_ms()
    result = {
        "s": listing.symbol,
        "a": [[engine.price(price), engine.size(lots)] for price, lots in view.asks.items()],
        "b": [[engine.price(price), engine.size(lots)] for price, lots in view.bids.items()],
        "ts": now_ms,
        "u": engine.steps,
        "seq": engine.sequence,
        "cts": now_ms - 2,
    }
    return _envelope(floor, result)
