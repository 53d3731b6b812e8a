"""Reading over REST what an account's stream does not repeat: open orders, and fills since a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import attrs
import msgspec

from pipeline.exchanges.accounts import Steps
from pipeline.exchanges.okx import answers, bills
from pipeline.exchanges.okx.bills import BillRow
from pipeline.exchanges.okx.normalizer import ANY
from pipeline.exchanges.okx.orders import read_order
from pipeline.exchanges.okx.streams import VENUE, Listings
from pipeline.exchanges.okx.topics import read_arg
from pipeline.exchanges.okx.wire import Arg, Millis
from pipeline.exchanges.okx.wire_orders import OrderRow
from pipeline.exchanges.venue import Catalogue, Subscription
from pipeline.model.account import Order
from pipeline.model.errors import BadMessage, Retryable
from pipeline.model.events import Event, Micros

TIME_PATH = "/api/v5/public/time"
OPEN_ORDERS, ORDER, FILLS = "/api/v5/trade/orders-pending", "/api/v5/trade/order", "/api/v5/trade/fills"
PAGE = 100
"""Rows of a full page, the most that can be asked for."""
MAX_PAGES = 2_000
NO_SUCH_ORDER = "51603"
_UNSET = Micros(0)


class _Time(msgspec.Struct):
    ts: Millis


def read_time(body: bytes) -> Micros:
    """The server's time. Raises `BadMessage`, `Retryable` or `Refused`."""
    what = f"{VENUE} {TIME_PATH}"
    rows = answers.rows(body, what, _Time)
    if not rows:
        raise BadMessage(f"{what}: no time in the answer")
    return Micros(rows[0].ts * 1000)


@attrs.define(eq=False)
class OkxAccountReader:
    """The `AccountReader` of one connection.

    Positions, balances and greeks come as snapshots over the stream; algo orders and orders in spreads are not asked
    for.
    """

    account: str
    connection: str
    catalogue: Catalogue

    def snapshot(self, subscription: Subscription) -> Callable[[], Steps[list[Event]]] | None:
        """Makes the steps that read the open orders; None for other channels."""
        if subscription.channel != bills.CHANNEL:
            return None
        return lambda: self._open_orders(_arg(subscription))

    def fills(self, subscription: Subscription, since: Micros) -> Callable[[], Steps[list[Event]]] | None:
        """Makes the steps that read the fills which `orders` brings, for the last three days at most; else None."""
        if subscription.channel != bills.CHANNEL:
            return None
        return lambda: self._fills(_arg(subscription), since)

    def order(self, lost: Order) -> Callable[[], Steps[list[Event]]] | None:
        """Makes the steps that read one order, no event if OKX has forgotten it; None but for plain orders."""
        if lost.channel != bills.CHANNEL or lost.origin.instrument is None:
            return None
        params = {"instId": lost.origin.instrument, "ordId": lost.order_id}
        return lambda: self._order(params)

    def _open_orders(self, arg: Arg) -> Steps[list[Event]]:
        params = _named(instType=_type(arg), instFamily=arg.instFamily, instId=arg.instId)
        rows = yield from _pages(OPEN_ORDERS, params, OrderRow, "ordId")
        return self._orders(rows[::-1])

    def _order(self, params: dict[str, str]) -> Steps[list[Event]]:
        body = yield f"{ORDER}?{urlencode(params)}"
        rows = answers.rows(body, f"{VENUE} {ORDER}", OrderRow, nothing=(NO_SUCH_ORDER,))
        return self._orders(rows)

    def _orders(self, rows: list[OrderRow]) -> list[Event]:
        listings = self._listings()
        try:
            return [
                read_order(row, listings.get(row.instType.lower(), row.instId, 0), bills.CHANNEL, _UNSET)
                for row in rows
            ]
        except (ArithmeticError, ValueError) as error:
            raise BadMessage(f"{VENUE} orders: {error}") from error

    def _fills(self, arg: Arg, since: Micros) -> Steps[list[Event]]:
        params = _named(instType=_type(arg), instId=arg.instId, begin=str(since // 1000))
        rows: list[BillRow] = yield from _pages(FILLS, params, BillRow, "billId")
        listings = self._listings()
        try:
            return [
                bills.fill(row, listings.get(row.instType.lower(), row.instId, 0), _UNSET)
                for row in reversed(rows)
                # This listing knows no families.
                if not arg.instFamily or row.instId.startswith(f"{arg.instFamily}-")
            ]
        except (ArithmeticError, ValueError) as error:
            raise BadMessage(f"{VENUE} fills: {error}") from error

    def _listings(self) -> Listings:
        """What the catalogue knows now."""
        return Listings(self.catalogue, self.connection, self.account)


def _pages(path: str, params: dict[str, str], kind: type[Any], cursor: str) -> Steps[list[Any]]:
    """All rows of a listing, newest first. Its cursor is the last row's number, so that new rows disturb nothing."""
    params = {**params, "limit": str(PAGE)}
    found: list[Any] = []
    for _ in range(MAX_PAGES):
        rows = answers.rows((yield f"{path}?{urlencode(params)}"), f"{VENUE} {path}", kind)
        found += rows
        if len(rows) < PAGE:
            return found
        params["after"] = getattr(rows[-1], cursor)
    raise Retryable(f"{VENUE} {path}: more than {MAX_PAGES} pages")


def _arg(subscription: Subscription) -> Arg:
    return read_arg(msgspec.json.decode(subscription.topic))


def _type(arg: Arg) -> str:
    return "" if arg.instType == ANY else arg.instType


def _named(**params: str) -> dict[str, str]:
    return {name: value for name, value in params.items() if value}
