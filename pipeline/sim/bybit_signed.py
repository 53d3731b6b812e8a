"""Bybit's signed REST: an account's orders, executions, positions and balances, page by page, and its protection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import attrs
import msgspec

from pipeline.model.rate import Budget, Rate
from pipeline.sim import bybit_dcp
from pipeline.sim import bybit_rows as rows
from pipeline.sim.accounts import Fill, Order, Position, SimulatedAccount
from pipeline.sim.bybit_dcp import PRODUCTS, DisconnectionProtection
from pipeline.sim.bybit_signature import is_signed
from pipeline.sim.floor import Floor
from pipeline.sim.http import Request, Response

PER_ACCOUNT, PROTECTION = Rate(50, 1.0), Rate(5, 1.0)
"""Requests to one endpoint; those about disconnection protection are fewer."""
RECV_WINDOW_MS = 5000
EARLY_MS = 1000
"""A timestamp may not be this much ahead of the venue's clock."""
WINDOW_MS = 7 * 24 * 3600 * 1000
CLOSED_SHOWN = 500
MARKETS = ("spot", "linear", "inverse", "option")
DCP_INFO, DCP_WINDOW = "/v5/account/query-dcp-info", "/v5/order/disconnected-cancel-all"

T = TypeVar("T", Order, Fill)
Query = dict[str, str]
Rows = list[tuple[str, dict[str, Any]]]
"""Each with the identifier that its page's cursor would have."""


class BadRequest(Exception):
    """What is wrong, as `retCode` and `retMsg`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def _invalid(why: str) -> BadRequest:
    return BadRequest(10001, f"params error: {why}")


@attrs.define(eq=False)
class SignedRest:
    """The endpoints of all accounts."""

    floor: Floor
    accounts: Sequence[SimulatedAccount]
    protection: DisconnectionProtection
    _budgets: dict[tuple[int, str], Budget] = attrs.field(factory=dict, init=False)

    def answer(self, request: Request) -> Response | None:
        """The response to a request of a signed path by its method; None for any other."""
        endpoint = ENDPOINTS.get(request.path) if request.method == "GET" else None
        if endpoint is None and (request.method, request.path) not in (("GET", DCP_INFO), ("POST", DCP_WINDOW)):
            return None
        if request.body and request.method == "GET":
            return Response.json({"error": "a GET has no body"}, 403)
        if any(name not in request.headers for name in ("x-bapi-api-key", "x-bapi-timestamp", "x-bapi-sign")):
            return Response.json({"error": "headers of authentication are missing"}, 401)
        headers: Mapping[str, str] = {}
        code, text, result = 0, "OK", dict[str, Any]()
        try:
            account = self._authenticated(request)
            headers = self._take(account, request.path)
            if endpoint is not None:
                result = endpoint(account, request.query, self.floor.clock.now_ms())
            elif request.path == DCP_INFO:
                result = self._protection_info(account)
            else:
                self._set_protection(account, request)
        except BadRequest as error:
            code, text = error.code, str(error)
        body = {"retCode": code, "retMsg": text, "result": result, "retExtInfo": {}}
        return Response.json({**body, "time": self.floor.clock.now_ms()}, headers=headers)

    def _authenticated(self, request: Request) -> SimulatedAccount:
        key = request.headers["x-bapi-api-key"]
        stamp, window = request.headers["x-bapi-timestamp"], request.headers.get("x-bapi-recv-window", "")
        account = next((each for each in self.accounts if each.settings.key == key), None)
        if account is None or account.revoked == "revoked":
            raise BadRequest(10003, "API key is invalid.")
        if account.revoked:
            raise BadRequest(33004, "Your api key has expired.")
        if not stamp.isdecimal() or not (window or "0").isdecimal():
            raise _invalid("timestamp and recv_window must be numbers")
        now_ms, sent_ms, window_ms = self.floor.clock.now_ms(), int(stamp), int(window or RECV_WINDOW_MS)
        if not now_ms - window_ms <= sent_ms < now_ms + EARLY_MS:
            where = f"req_timestamp[{sent_ms}],server_timestamp[{now_ms}],recv_window[{window_ms}]"
            why = f"invalid request, please check your server timestamp or recv_window param. {where}"
            raise BadRequest(10002, why)
        payload = (
            request.body.decode(errors="replace") if request.method == "POST" else request.target.partition("?")[2]
        )
        origin = f"{stamp}{key}{window}{payload}"
        if not is_signed(account.settings, origin, request.headers["x-bapi-sign"]):
            raise BadRequest(10004, f"error sign! origin_string[{origin}]")
        allowed = account.settings.permissions
        if allowed is not None and request.path.split("/")[2] not in allowed:
            raise BadRequest(10005, "Permission denied, please check your API key permissions.")
        return account

    def _take(self, account: SimulatedAccount, path: str) -> Mapping[str, str]:
        """Use one request of the account's limit; the headers that tell what is left."""
        rate = PROTECTION if path in (DCP_INFO, DCP_WINDOW) else PER_ACCOUNT
        budget = self._budgets.setdefault((account.index, path), Budget(rate))
        now_us = self.floor.clock.now_us()
        now = now_us / 1e6
        if wait := budget.wait(now):
            raise BadRequest(10006, f"Too many visits! Try again in {wait:.3f} s.")
        budget.take(now)
        left = next((count for count in range(rate.count, 0, -1) if not budget.wait(now, count)), 0)
        return {
            "X-Bapi-Limit": str(rate.count),
            "X-Bapi-Limit-Status": str(left),
            "X-Bapi-Limit-Reset-Timestamp": str(now_us // 1000 + (0 if left else int(budget.wait(now) * 1000))),
        }

    def _protection_info(self, account: SimulatedAccount) -> dict[str, Any]:
        found = [
            {"product": product, "dcpStatus": "ON", "timeWindow": str(self.protection.window(account, product))}
            for product in PRODUCTS
        ]
        return {"dcpInfos": found}

    def _set_protection(self, account: SimulatedAccount, request: Request) -> None:
        try:
            body = msgspec.json.decode(request.body, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError):
            raise _invalid("the body is no JSON object") from None
        product, seconds = body.get("product", "OPTIONS"), body.get("timeWindow")
        if not account.settings.may_trade:
            raise BadRequest(10005, "Permission denied, please check your API key permissions.")
        if product not in PRODUCTS:
            raise _invalid("product is invalid")
        if type(seconds) is not int or not bybit_dcp.SHORTEST_S <= seconds <= bybit_dcp.LONGEST_S:
            raise _invalid("timeWindow is invalid")
        self.protection.set_window(account, product, seconds)


def _open_orders(account: SimulatedAccount, query: Query, now_ms: int) -> dict[str, Any]:
    category = _category(query)
    if category == "linear" and not any(query.get(name) for name in ("symbol", "baseCoin", "settleCoin")):
        raise _invalid("one of symbol, baseCoin and settleCoin is needed")
    mode = query.get("openOnly", "0")
    if mode not in ("0", "1"):
        raise _invalid("openOnly is invalid")
    found = [each for each in _newest(account) if each.market == category and each.is_open == (mode == "0")]
    if mode == "1":
        found = found[:CLOSED_SHOWN]
    return _order_page(account, category, _meant(account, category, query, found), query)


def _order_history(account: SimulatedAccount, query: Query, now_ms: int) -> dict[str, Any]:
    category = _category(query)
    begin, end = _window(query, now_ms)
    found = [
        each
        for each in _newest(account)
        if each.market == category and not each.is_open and begin <= each.created_us // 1000 <= end
    ]
    return _order_page(account, category, _meant(account, category, query, found), query)


def _newest(account: SimulatedAccount) -> list[Order]:
    return list(reversed(account.orders.values()))


def _order_page(account: SimulatedAccount, category: str, found: Iterable[Order], query: Query) -> dict[str, Any]:
    if query.get("orderFilter") not in (None, "", "Order"):
        found = ()  # conditional orders are not simulated
    return _page(category, [(each.order_id, _order_row(account, each)) for each in found], query, standard=20, most=50)


def _order_row(account: SimulatedAccount, order: Order) -> dict[str, Any]:
    row = rows.order(account, order)
    del row["category"]
    row |= {"avgPrice": row["avgPrice"] or "0", "extraFees": ""}
    return row | ({"basePrice": row["price"]} if order.market == "spot" else {})


def _executions(account: SimulatedAccount, query: Query, now_ms: int) -> dict[str, Any]:
    category = _category(query)
    begin, end = _window(query, now_ms)
    kind = query.get("execType")
    narrowed = query if category != "option" or query.get("symbol") else {"baseCoin": "BTC", **query}
    found = [
        each
        for each in _meant(account, category, narrowed, account.fills)
        if each.market == category
        and begin <= each.time_us // 1000 <= end
        and kind in (None, "", "Funding" if each.kind == "funding" else "Trade")
    ]
    found.sort(key=lambda each: (-(each.time_us // 1000), each.fill_id))
    return _page(category, [(each.fill_id, _execution_row(each)) for each in found], query, standard=50, most=100)


def _execution_row(fill: Fill) -> dict[str, Any]:
    row = rows.execution(fill)
    del row["category"]
    return {**row, "execFeeV2": ""}


def _positions(account: SimulatedAccount, query: Query, now_ms: int) -> dict[str, Any]:
    category = _category(query)
    symbol, settle, base = query.get("symbol"), query.get("settleCoin"), query.get("baseCoin")
    if category == "spot" or (category == "linear" and not symbol and not settle):
        raise _invalid("Category is invalid" if category == "spot" else "one of symbol and settleCoin is needed")
    if symbol:
        if account.market.find(category, symbol) is None:
            raise _invalid("Symbol Invalid")
        found = [account.position(category, symbol)]
    else:
        found = [each for each in account.positions.values() if each.market == category and each.size]
        found = [each for each in found if _is_of(account, each, settle=settle, base=base)]
    return _page(
        category, [(each.symbol, _position_row(account, each)) for each in found], query, standard=20, most=200
    )


def _position_row(account: SimulatedAccount, position: Position) -> dict[str, Any]:
    row = rows.position(account, position)
    del row["category"]
    row["avgPrice"] = row.pop("entryPrice")
    row["mmrSysUpdateTime"] = row.pop("mmrSysUpdatedTime")
    return row


def _wallet(account: SimulatedAccount, query: Query, now_ms: int) -> dict[str, Any]:
    if query.get("accountType") != "UNIFIED":
        raise _invalid("accountType is invalid")
    coins = [coin for coin in query.get("coin", "").split(",") if coin]
    balances = [account.balance(coin) for coin in coins] or [
        each for each in account.balances.values() if each.total or each.locked
    ]
    return {"list": [rows.wallet(account, balances)]}


def _greeks(account: SimulatedAccount, query: Query, now_ms: int) -> dict[str, Any]:
    return {"list": rows.greeks(account, query.get("baseCoin") or None)}


def _account_info(account: SimulatedAccount, query: Query, now_ms: int) -> dict[str, Any]:
    return {
        "marginMode": "REGULAR_MARGIN",
        "updatedTime": str(now_ms),
        "unifiedMarginStatus": 6,
        "dcpStatus": "OFF",
        "timeWindow": 10,
        "smpGroup": 0,
        "isMasterTrader": False,
        "spotHedgingStatus": "OFF",
    }


ENDPOINTS: Mapping[str, Callable[[SimulatedAccount, Query, int], dict[str, Any]]] = {
    "/v5/order/realtime": _open_orders,
    "/v5/order/history": _order_history,
    "/v5/execution/list": _executions,
    "/v5/position/list": _positions,
    "/v5/account/wallet-balance": _wallet,
    "/v5/account/info": _account_info,
    "/v5/asset/coin-greeks": _greeks,
}


def _category(query: Query) -> str:
    category = query.get("category", "")
    if category not in MARKETS:
        raise _invalid("Category is invalid")
    settle = query.get("settleCoin")
    if settle and (category == "spot" or (category == "option" and settle not in ("USDT", "USDC"))):
        raise _invalid("settleCoin is invalid")
    return category


def _meant(account: SimulatedAccount, category: str, query: Query, found: Iterable[T]) -> list[T]:
    """Those that the query asks for: an identifier counts more than a symbol, a symbol more than a coin."""
    if order_id := query.get("orderId"):
        return [each for each in found if _order_ids(each)[0] == order_id]
    if link_id := query.get("orderLinkId"):
        return [each for each in found if _order_ids(each)[1] == link_id]
    if symbol := query.get("symbol"):
        return [each for each in found if each.symbol == symbol]
    base, settle = query.get("baseCoin"), query.get("settleCoin")
    return [each for each in found if _is_of(account, each, settle=None if base else settle, base=base)]


def _order_ids(of: Order | Fill) -> tuple[str, str]:
    placed = of.order if isinstance(of, Fill) else of
    return ("", "") if placed is None else (placed.order_id, placed.client_order_id)


def _is_of(account: SimulatedAccount, of: Order | Fill | Position, *, settle: str | None, base: str | None) -> bool:
    listing = account.market.find(of.market, of.symbol)
    if listing is None:
        return not settle and not base
    return settle in (None, "", listing.settle) and base in (None, "", listing.base)


def _window(query: Query, now_ms: int) -> tuple[int, int]:
    """From and to, both included: at most seven days, by default the last ones."""
    given = {name: query[name] for name in ("startTime", "endTime") if query.get(name)}
    if not all(value.isdecimal() for value in given.values()):
        raise _invalid("startTime and endTime must be numbers")
    begin = int(given["startTime"]) if "startTime" in given else None
    end = int(given["endTime"]) if "endTime" in given else None
    if begin is None:
        end = now_ms if end is None else end
        begin = end - WINDOW_MS
    elif end is None:
        end = begin + WINDOW_MS
    if not 0 <= end - begin <= WINDOW_MS:
        raise _invalid("the time range is longer than 7 days or ends before it begins")
    return begin, end


def _page(category: str, found: Rows, query: Query, *, standard: int, most: int) -> dict[str, Any]:
    limit = query.get("limit") or str(standard)
    if not limit.isdecimal() or not 1 <= int(limit) <= most:
        raise _invalid("Limit is invalid")
    start = 0
    if cursor := query.get("cursor"):
        last = cursor.removeprefix("page_token=").removesuffix("&")
        start = next((number + 1 for number, (row_id, _) in enumerate(found) if row_id == last), 0)
        # Encoded twice, it arrives with percent signs; the identifier of another query is unknown.
        if cursor != f"page_token={last}&" or not start:
            raise _invalid("Cursor is invalid")
    page = found[start : start + int(limit)]
    more = start + int(limit) < len(found)
    token = quote(f"page_token={page[-1][0]}&", safe="") if more else ""
    return {"list": [row for _, row in page], "nextPageCursor": token, "category": category}
