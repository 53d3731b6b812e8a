"""OKX's order entry: its requests and sessions put together, and what it tells over REST of orders and prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import attrs
import msgspec

from pipeline.exchanges.accounts import Login, Post, Requests, Steps
from pipeline.exchanges.okx import answers, bills, trade_requests
from pipeline.exchanges.okx.account_reader import NO_SUCH_ORDER, ORDER, PAGE
from pipeline.exchanges.okx.orders import read_order
from pipeline.exchanges.okx.streams import COIN_MARKETS, VENUE, Listings
from pipeline.exchanges.okx.trade_session import trade_session
from pipeline.exchanges.okx.wire_orders import OrderRow
from pipeline.exchanges.trade_session import LineSession
from pipeline.exchanges.trading import Cost, OrderFinder, TradeItem, TradeRequest
from pipeline.exchanges.venue import Catalogue, EndpointLimits, SessionTimes
from pipeline.model.account import Order
from pipeline.model.decimals import DecimalText, is_decimal
from pipeline.model.errors import BadMessage
from pipeline.model.events import Instrument, Micros
from pipeline.model.orders import ITEM_ACTIONS, MASS_CANCEL

CLOSED_ORDERS = "/api/v5/trade/orders-history"
CANCEL_ALL_AFTER = "/api/v5/trade/cancel-all-after"
MARK_PRICE, TICKER = "/api/v5/public/mark-price", "/api/v5/market/ticker"
SHORTEST, LONGEST = 10, 120
"""Seconds without us after which OKX can be made to cancel everything."""
_NO_SUCH_INSTRUMENT = ("51000", "51001")
"""An instrument without a mark price is refused as unknown, or as of the wrong type."""


class _Mark(msgspec.Struct):
    markPx: str = ""


class _Ticker(msgspec.Struct):
    last: str = ""


@attrs.define(eq=False)
class OkxTrading:
    """The `Trading` of OKX; stateless."""

    environments: Sequence[str]
    limits: EndpointLimits
    """Of the private endpoint."""
    endpoint: str = attrs.field(default="private", init=False)

    def problems(self, action: str, item: TradeItem) -> list[tuple[str, str]]:
        """Why OKX could not even be asked, as (field, why)."""
        return trade_requests.problems(action, item)

    def batch(self, action: str, market: str) -> int:
        """Most items of one request; 0 where the market does not have the action (mass_cancel but for options)."""
        if action == MASS_CANCEL:
            return 1 if market == "option" else 0
        return trade_requests.BATCH if action in ITEM_ACTIONS else 0

    def costs(self, request: TradeRequest) -> list[Cost]:
        """What a request takes of the budgets."""
        return trade_requests.costs(request)

    def session(self, times: SessionTimes, login: Login) -> LineSession:
        """A session for one connection."""
        return trade_session(times, self.limits, login)

    def finder(self, account: str, connection: str, catalogue: Catalogue) -> OrderFinder:
        """Looks up single orders, also among those closed within seven days (cancelled unfilled: two hours)."""
        listings = Listings(catalogue, connection, account)
        return lambda item: _find(item, listings)

    def reference_price(self, instrument: Instrument) -> Steps[DecimalText | None]:
        """Reads the mark price, where there is none the last one; None: there is neither."""
        market = instrument.origin.market
        kind = "MARGIN" if market in COIN_MARKETS else market.upper()
        name = instrument.origin.instrument or ""
        mark = yield from _price(MARK_PRICE, {"instType": kind, "instId": name}, _Mark, "markPx")
        if mark is not None:
            return mark
        return (yield from _price(TICKER, {"instId": name}, _Ticker, "last"))

    def arm(self, seconds: float | None, markets: Sequence[str]) -> Requests[None]:
        """Has OKX cancel all orders of all markets when this is not repeated for so long; None takes that back."""
        what = f"{VENUE} {CANCEL_ALL_AFTER}"
        body = msgspec.json.encode({"timeOut": str(int(seconds or 0))})
        if not answers.rows((yield Post(CANCEL_ALL_AFTER, body)), what, dict[str, Any]):
            raise BadMessage(f"{what}: nothing in the answer tells that it was taken")

    def arm_every(self, seconds: float) -> float:
        """So often that two requests may be lost."""
        return seconds / 3

    def arm_problems(self, seconds: float, channels: Sequence[str], markets: Sequence[str]) -> list[str]:
        """What speaks against it: seconds out of bounds, or a fraction of one. It needs no channel."""
        if not SHORTEST <= seconds <= LONGEST or seconds != int(seconds):
            return [f"okx takes whole seconds from {SHORTEST} to {LONGEST}, not {seconds:g}"]
        return []


def _find(entry: TradeItem, listings: Listings) -> Steps[Order | None]:
    """An order as it stands. The list of closed orders is a second opinion: OKX keeps the two apart."""
    item, origin = entry.item, entry.instrument.origin
    instrument = origin.instrument or ""
    named = {"ordId": item.order_id} if item.order_id is not None else {"clOrdId": item.client_order_id or ""}
    params = {"instId": instrument, **named}
    body = yield f"{ORDER}?{urlencode(params)}"
    rows: list[OrderRow] = answers.rows(body, f"{VENUE} {ORDER}", OrderRow, nothing=(NO_SUCH_ORDER,))
    if rows:
        return _order(rows[0], listings)
    # What is bought on margin has a type of its own, whatever the instrument's.
    for kind in ("SPOT", "MARGIN") if origin.market in COIN_MARKETS else (origin.market.upper(),):
        query = urlencode({"instType": kind, "instId": instrument, "limit": PAGE})
        rows = answers.rows((yield f"{CLOSED_ORDERS}?{query}"), f"{VENUE} {CLOSED_ORDERS}", OrderRow)
        for row in rows:
            if all(getattr(row, field) == value for field, value in named.items()):
                return _order(row, listings)
    return None


def _order(row: OrderRow, listings: Listings) -> Order:
    listing = listings.get(row.instType.lower(), row.instId, 0)
    try:
        return read_order(row, listing, bills.CHANNEL, Micros(0))
    except (ArithmeticError, ValueError) as error:
        raise BadMessage(f"{VENUE} orders: {error}") from error


def _price(path: str, params: dict[str, str], kind: type[Any], field: str) -> Steps[DecimalText | None]:
    what = f"{VENUE} {path}"
    rows = answers.rows((yield f"{path}?{urlencode(params)}"), what, kind, nothing=_NO_SUCH_INSTRUMENT)
    text: str = getattr(rows[0], field) if rows else ""
    if not text:
        return None
    if not is_decimal(text):
        raise BadMessage(f"{what}: {field} {text[:40]!r} is no number")
    return DecimalText(text) if text.strip("0.") else None
