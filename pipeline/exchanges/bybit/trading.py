"""Bybit's order entry: what is offered where, how orders are looked up, and what happens to them without us."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from urllib.parse import quote

import attrs
import msgspec

from pipeline.exchanges.accounts import AccountSpec, Login, Post, Requests, Steps
from pipeline.exchanges.bybit import account_channels, trade_requests
from pipeline.exchanges.bybit.account_reader import HISTORY, ORDERS, BybitAccountReader, Listing
from pipeline.exchanges.bybit.accounts import VENUE, nonzero
from pipeline.exchanges.bybit.answers import read_answer
from pipeline.exchanges.bybit.trade_session import ENDPOINT, trade_session
from pipeline.exchanges.trade_session import LineSession
from pipeline.exchanges.trading import Cost, OrderFinder, TradeItem, TradeRequest
from pipeline.exchanges.venue import Catalogue, SessionTimes
from pipeline.model.account import Order
from pipeline.model.decimals import DecimalText, is_decimal
from pipeline.model.errors import BadMessage
from pipeline.model.events import Instrument
from pipeline.model.orders import OrderItem

SHORTEST_ABSENCE, LONGEST_ABSENCE = 3, 300
"""Seconds without us after which the venue may be told to cancel."""
_ABSENCE = "/v5/order/disconnected-cancel-all"
_PRODUCTS = {"spot": "SPOT", "linear": "DERIVATIVES", "inverse": "DERIVATIVES", "option": "OPTIONS"}


class BybitTrading:
    """The `Trading` of Bybit; stateless."""

    endpoint: str = ENDPOINT
    environments: Sequence[str] = (
        *("mainnet", "bytick", "testnet"),
        *("turkey", "turkey-legacy", "kazakhstan", "georgia", "indonesia", "japan", "eu"),
    )
    """All but paper trading."""

    def problems(self, action: str, item: TradeItem) -> list[tuple[str, str]]:
        """Why the venue could not even be asked, as (field, why)."""
        return trade_requests.problems(action, item)

    def batch(self, action: str, market: str) -> int:
        """Most items of one request; 0 where there is no such action."""
        return trade_requests.batch_size(action, market)

    def costs(self, request: TradeRequest) -> list[Cost]:
        """The account's budget of the operation; the one of our address is far beyond what accounts may use."""
        return [trade_requests.cost(request)]

    def session(self, times: SessionTimes, login: Login) -> LineSession:
        """A session for one connection."""
        return trade_session(times, login)

    def finder(self, account: str, connection: str, catalogue: Catalogue) -> OrderFinder:
        """Looks up single orders over signed REST."""
        return _Finder(BybitAccountReader(account, connection, catalogue)).find

    def reference_price(self, instrument: Instrument) -> Steps[DecimalText | None]:
        """Reads the mark price, of spot the last one. Raises `BadMessage` for what is no price."""
        origin = instrument.origin
        path = f"/v5/market/tickers?category={origin.market}&symbol={quote(origin.instrument or '', safe='')}"
        answer = read_answer(path, (yield path))
        for row in answer.rows:
            if row.get("symbol") == origin.instrument:
                return _price(path, row.get("markPrice")) or _price(path, row.get("lastPrice"))
        return None

    def arm(self, seconds: float | None, markets: Sequence[str]) -> Requests[None]:
        """Tells how long the connections with `dcp` topics may be gone; it counts for all of the account's programs.

        None asks for nothing: what takes the protection back is to subscribe to `dcp` no more.
        """
        if seconds is None:
            return
        for product in sorted({_PRODUCTS[market] for market in markets if market in _PRODUCTS}):
            body = msgspec.json.encode({"product": product, "timeWindow": int(seconds)})
            read_answer(f"{_ABSENCE} of {product}", (yield Post(_ABSENCE, body)))

    def arm_every(self, seconds: float) -> float:
        """Once is enough."""
        return inf

    def arm_problems(self, seconds: float, channels: Sequence[str], markets: Sequence[str]) -> list[str]:
        """What speaks against it: the venue protects only what a private connection has subscribed to."""
        found = []
        if not (SHORTEST_ABSENCE <= seconds <= LONGEST_ABSENCE and float(seconds).is_integer()):
            found.append(f"bybit takes whole seconds from {SHORTEST_ABSENCE} to {LONGEST_ABSENCE}, not {seconds:g}")
        for market in (each for each in _PRODUCTS if each in markets):
            topic = account_channels.subscription(AccountSpec("dcp", market)).topic
            if topic not in channels:
                found.append(f"needs the private channel dcp of market {market}, or bybit will cancel nothing there")
        return found


@attrs.frozen
class _Finder:
    reader: BybitAccountReader

    def find(self, trade: TradeItem) -> Steps[Order | None]:
        """The order as it stands; None if none of the venue's listings has it.

        Raises `BadMessage` if the venue named other orders only: then it did not look for this one.
        """
        other = None
        for listing in _listings(trade.item):
            for order in (yield from self.reader.orders(listing)):
                if isinstance(order, Order) and _is_meant(trade.item, order):
                    return order
                other = f"{VENUE} {listing.path}: the answer has other orders instead"
        if other is not None:
            raise BadMessage(other)
        return None


def _listings(item: OrderItem) -> list[Listing]:
    """Where an order can be. The open ones come first: what closes while it is looked for is among the closed then."""
    name, value = ("orderLinkId", item.client_order_id) if item.client_order_id else ("orderId", item.order_id or "")
    one = f"{item.market}&symbol={quote(item.instrument, safe='')}&{name}={quote(value, safe='')}"
    # Conditional orders have been seen to be missing unless they are asked for.
    kinds = ("", "&orderFilter=StopOrder", "&orderFilter=tpslOrder") if item.market == "spot" else ("",)
    states = (f"{ORDERS}{one}", f"{ORDERS}{one}&openOnly=1", f"{HISTORY}{one}")
    return [Listing(item.market, f"{path}{kind}") for path in states for kind in kinds]


def _is_meant(item: OrderItem, order: Order) -> bool:
    if item.client_order_id:
        return order.client_order_id == item.client_order_id
    return order.order_id == item.order_id


def _price(what: str, text: object) -> DecimalText | None:
    """A price; None where the venue writes zero or nothing."""
    if text is None or text == "":
        return None
    if not isinstance(text, str) or not is_decimal(text):
        raise BadMessage(f"{VENUE} {what}: {text!r} is no price")
    return nonzero(DecimalText(text))
