"""Bybit's public REST endpoints: server time, instruments with paging, order books, price limits."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

from pipeline.sim.bybit_conditions import WHOLE, full_update_id, price_limits
from pipeline.sim.bybit_streams import TICKERS, contract_ticker
from pipeline.sim.floor import Floor
from pipeline.sim.http import Request, Response
from pipeline.sim.listing import Listing
from pipeline.sim.market import Engine, View

MARKETS = ("spot", "linear", "inverse", "option")
WITH_LIMITS = ("spot", "linear", "inverse")
"""Categories with price limits and full books."""
_OPTION_NAMES = {
    "bidPrice": "bid1Price", "bidSize": "bid1Size", "bidIv": "bid1Iv", "askPrice": "ask1Price", "askSize": "ask1Size",
    "askIv": "ask1Iv", "markPriceIv": "markIv",
}  # fmt: skip
"""What REST calls fields of an option's ticker."""
LAUNCH_MS = "1585526400000"
MOST = {"spot": "83", "linear": "1190.000", "inverse": "25000000", "option": "500"}
"""Size of the largest order."""
LEAST_VALUE = {"spot": "5", "linear": "5"}
"""Of an order, in quote currency."""


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
            return _book(floor, request.query.get("category", ""), MARKETS, request.query)
        case "/v5/market/full_orderbook":
            return _full_book(floor, request.query)
        case "/v5/market/tickers":
            return _tickers(floor, request.query)
        case "/v5/market/price-limit":
            return _price_limit(floor, request.query)
        case "/v5/spread/instrument":
            return _spreads(floor, request.query)
        case "/v5/spread/orderbook":
            return _book(floor, "spread", ("spread",), request.query)
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
    return _listed(floor, {"category": category}, rows, query, standard=500, most=1000)


def _spreads(floor: Floor, query: dict[str, str]) -> Response:
    wanted = {"symbol": query.get("symbol"), "baseCoin": query.get("baseCoin")}
    rows = [_spread_row(each) for each in floor.market.of("spread")]
    rows = [row for row in rows if all(not value or row[field] == value for field, value in wanted.items())]
    return _listed(floor, {}, rows, query, standard=200, most=500)


def _listed(
    floor: Floor, head: dict[str, str], rows: list[dict[str, Any]], query: dict[str, str], *, standard: int, most: int
) -> Response:
    """One page of instruments."""
    limit = _whole(query.get("limit", str(standard)), 1, most)
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
    return _envelope(floor, {**head, "list": page, "nextPageCursor": token})


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
            "maxOrderQty": MOST["spot"],
            "minOrderAmt": LEAST_VALUE["spot"],
            "maxOrderAmt": "8000000",
            "maxLimitOrderQty": MOST["spot"],
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
        "lotSizeFilter": {
            "maxOrderQty": MOST["option"],
            "minOrderQty": f"{listing.lot:f}",
            "qtyStep": f"{listing.lot:f}",
        },
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
            "maxOrderQty": MOST[listing.market],
            "minOrderQty": f"{listing.lot:f}",
            "qtyStep": f"{listing.lot:f}",
            "postOnlyMaxOrderQty": MOST[listing.market],
            "maxMktOrderQty": "500.000",
            "minNotionalValue": LEAST_VALUE.get(listing.market, ""),
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


def _spread_row(listing: Listing) -> dict[str, Any]:
    """The legs are named by the symbol: a contract, and a spot pair with a slash."""
    contract, _, spot = listing.symbol.partition("_")
    return {
        "symbol": listing.symbol,
        "contractType": "FundingRateArb",
        "status": "Trading",
        "baseCoin": listing.base,
        "quoteCoin": listing.quote,
        "settleCoin": listing.settle,
        "tickSize": f"{listing.tick:f}",
        "minPrice": "-1999.9998",
        "maxPrice": "1999.9998",
        "lotSize": f"{listing.lot:f}",
        "minSize": f"{listing.lot:f}",
        "maxSize": "50000",
        "launchTime": LAUNCH_MS,
        "deliveryTime": "0",
        "legs": [
            {"symbol": contract, "contractType": "LinearPerpetual"},
            {"symbol": spot.replace("/", ""), "contractType": "Spot"},
        ],
    }


def _tickers(floor: Floor, query: dict[str, str]) -> Response:
    category, symbol, base = query.get("category", ""), query.get("symbol"), query.get("baseCoin")
    if category not in MARKETS:
        return _error(floor, "Category is invalid")
    if category == "option" and not symbol and not base:
        return _error(floor, "symbol or baseCoin is needed")
    found = [
        each
        for each in floor.market.of(category)
        if (not symbol or each.symbol == symbol) and (not base or category != "option" or each.base == base)
    ]
    if symbol and not found:
        return _error(floor, "Symbol Invalid")
    rows = [_ticker(floor.market.engine(each), floor.clock.now_ms()) for each in found]
    return _envelope(floor, {"category": category, "list": rows})


def _ticker(engine: Engine, now_ms: int) -> dict[str, str]:
    """As the topic has it, under REST's names."""
    market, listing = engine.listing.market, engine.listing
    row = TICKERS.get(market, contract_ticker)(engine, now_ms)
    if market == "option":
        return {_OPTION_NAMES.get(name, name): value for name, value in row.items()}
    if market == "spot":
        for name, side in (("bid1", engine.bids), ("ask1", engine.asks)):
            row |= {f"{name}Price": engine.price(side.best), f"{name}Size": engine.size(side.lots[side.best])}
        return row
    return row | {"deliveryTime": str(listing.expiry_ms or 0)}


def _price_limit(floor: Floor, query: dict[str, str]) -> Response:
    category = query.get("category", "linear")
    listing = floor.market.find(category, query.get("symbol", ""))
    if listing is None or category not in WITH_LIMITS:
        return _error(floor, "Symbol Invalid" if category in WITH_LIMITS else "Category is invalid")
    return _envelope(floor, {**price_limits(floor.market.engine(listing)), "ts": str(floor.clock.now_ms())})


def _full_book(floor: Floor, query: dict[str, str]) -> Response:
    category = query.get("category", "")
    listing = floor.market.find(category, query.get("symbol", ""))
    if listing is None or category not in WITH_LIMITS:
        return _error(floor, "Symbol Invalid" if category in WITH_LIMITS else "Category is invalid")
    engine = floor.market.engine(listing)
    return _envelope(floor, _book_of(floor, engine, WHOLE, full_update_id(engine)))


def _book_of(floor: Floor, engine: Engine, depth: int, update_id: int) -> dict[str, Any]:
    view = View(depth)
    view.advance(engine)
    now_ms = floor.clock.now_ms()
    return {
        "s": engine.listing.symbol,
        "a": [[engine.price(price), engine.size(lots)] for price, lots in view.asks.items()],
        "b": [[engine.price(price), engine.size(lots)] for price, lots in view.bids.items()],
        "ts": now_ms,
        "u": update_id,
        "seq": engine.sequence,
        "cts": now_ms - 2,
    }


def _book(floor: Floor, category: str, categories: tuple[str, ...], query: dict[str, str]) -> Response:
    listing = floor.market.find(category, query.get("symbol", ""))
    if listing is None or category not in categories:
        return _error(floor, "Symbol Invalid" if category in categories else "Category is invalid")
    standard = {"spot": 1, "option": 1}.get(category, 25)
    limit = _whole(query.get("limit", str(standard)), 1, 25 if category in ("option", "spread") else 1000)
    if limit is None:
        return _error(floor, "Limit is invalid")
    engine = floor.market.engine(listing)
    return _envelope(floor, _book_of(floor, engine, limit, engine.steps))
