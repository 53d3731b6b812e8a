"""OKX's signed REST endpoints: balance, positions, configuration, orders and fills of an account; its countdown."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

import attrs
import msgspec

from pipeline.model.rate import Rate
from pipeline.sim import okx_countdown
from pipeline.sim.accounts import Fill, Order, SimulatedAccount
from pipeline.sim.allowance import Allowances
from pipeline.sim.clock import SimulatedClock
from pipeline.sim.http import Request, Response
from pipeline.sim.okx_account_rows import account_row, held, position_row, uid
from pipeline.sim.okx_countdown import Countdown
from pipeline.sim.okx_order_rows import bill_id, order_state, order_type, rest_fill_row, rest_order_row, sub_type

PAGE_ROWS = 100
FILLS_S = 3 * 86_400
"""How far back the fills go."""
REFUSED_STATUS = 401
COUNTDOWN = "/api/v5/trade/cancel-all-after"
COUNTDOWN_RATE = Rate(1, 1.0)


@attrs.define(eq=False)
class _Refusal(Exception):  # an answer, not an error of ours
    """A request that is answered with an error."""

    code: str
    text: str
    status: int = 200

    @property
    def response(self) -> Response:
        return Response.json({"code": self.code, "msg": self.text, "data": []}, self.status)


@attrs.frozen
class AccountRest:
    """The endpoints over all accounts."""

    accounts: tuple[SimulatedAccount, ...]
    clock: SimulatedClock
    timestamp_age: float
    """How old a request's timestamp may be."""
    countdown: Countdown
    _allowances: Allowances = attrs.field(factory=Allowances, init=False)

    def answer(self, request: Request) -> Response | None:
        """The response to a request; None for a path and method that are none of these."""
        endpoint = _ENDPOINTS.get(request.path) if request.method == "GET" else None
        if endpoint is None and (request.method, request.path) != ("POST", COUNTDOWN):
            return None
        try:
            account = self._authorized(request)
            rows = self._count_down(account, request) if endpoint is None else endpoint(account, request.query)
        except _Refusal as refusal:
            return refusal.response
        return Response.json({"code": "0", "msg": "", "data": rows})

    def _authorized(self, request: Request) -> SimulatedAccount:
        key, sign, timestamp, passphrase = (
            _header(request, f"ok-access-{name}", code) for name, code in _HEADERS.items()
        )
        account = next((each for each in self.accounts if each.settings.key == key), None)
        if account is None or account.revoked == "expired":
            raise _Refusal("50119", "API key doesn't exist.", REFUSED_STATUS)
        if account.revoked:
            raise _Refusal("50111", "Invalid OK-ACCESS-KEY.", REFUSED_STATUS)
        if account.settings.demo != (request.headers.get("x-simulated-trading") == "1"):
            raise _Refusal("50101", "APIKey does not match current environment.", REFUSED_STATUS)
        self._check_time(timestamp)
        if passphrase != account.settings.passphrase:
            raise _Refusal("50105", "Request header OK-ACCESS-PASSPHRASE incorrect.", REFUSED_STATUS)
        expected = rest_signature(account.settings.secret, timestamp, request)
        if not hmac.compare_digest(expected.encode(), sign.encode()):
            raise _Refusal("50113", "Invalid Sign", REFUSED_STATUS)
        permissions = account.settings.permissions
        if permissions is not None and request.path.split("/")[3] not in permissions:
            raise _Refusal("50120", "This API key doesn't have permission to use this function.", REFUSED_STATUS)
        return account

    def _count_down(self, account: SimulatedAccount, request: Request) -> Rows:
        try:
            body = msgspec.json.decode(request.body, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError):
            raise _Refusal("50000", "Body for POST request can not be empty.", 400) from None
        text = body.get("timeOut")
        if not account.settings.may_trade:
            raise _Refusal("50120", "This API key doesn't have permission to use this function.", REFUSED_STATUS)
        if not isinstance(text, str) or not text.isdecimal() or len(text) > 3:
            raise _Refusal("51000", "Parameter timeOut error")
        seconds = int(text)
        if seconds and not okx_countdown.SHORTEST_S <= seconds <= okx_countdown.LONGEST_S:
            raise _Refusal("51000", "Parameter timeOut error")
        if not self._allowances.take(account.name, COUNTDOWN_RATE, self.clock.now_us() / 1e6):
            raise _Refusal("50011", "Too Many Requests", 429)
        self.countdown.set(account, seconds)
        now_ms = self.clock.now_ms()
        return [{"triggerTime": str(now_ms + 1000 * seconds) if seconds else "0", "tag": "", "ts": str(now_ms)}]

    def _check_time(self, timestamp: str) -> None:
        try:
            when = datetime.strptime(timestamp, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
        except ValueError:
            raise _Refusal("50112", "Invalid OK-ACCESS-TIMESTAMP.", REFUSED_STATUS) from None
        if abs(self.clock.now_us() / 1e6 - when.timestamp()) > self.timestamp_age:
            raise _Refusal("50102", "Timestamp request expired.", REFUSED_STATUS)


_HEADERS = {"key": "50103", "sign": "50106", "timestamp": "50107", "passphrase": "50104"}
"""The headers of a signed request, with the code for a missing one."""


def rest_signature(secret: str, timestamp: str, request: Request) -> str:
    """What OK-ACCESS-SIGN must be: over the request target exactly as it was received."""
    text = f"{timestamp}{request.method}{request.target}".encode() + request.body
    return base64.b64encode(hmac.new(secret.encode(), text, hashlib.sha256).digest()).decode()


def _header(request: Request, name: str, code: str) -> str:
    value = request.headers.get(name, "")
    if not value:
        raise _Refusal(code, f"Request header {name.upper()} cannot be empty.", REFUSED_STATUS)
    return value


T = TypeVar("T")
Query = dict[str, str]
Rows = list[dict[str, Any]]


def _balance(account: SimulatedAccount, query: Query) -> Rows:
    wanted = _several(query, "ccy", 20)
    balances = [each for each in held(account) if not wanted or each.coin in wanted]
    return [account_row(account, balances, account.clock.now_ms())]


def _positions(account: SimulatedAccount, query: Query) -> Rows:
    names, numbers = _several(query, "instId", 10), _several(query, "posId", 20)
    rows = [position_row(account, each, account.clock.now_ms()) for each in account.positions.values() if each.size]
    return [
        {key: value for key, value in row.items() if key != "pTime"}
        for row in rows
        if query.get("instType", row["instType"]) == row["instType"]
        and (not names or row["instId"] in names)
        and (not numbers or row["posId"] in numbers)
    ]


def _config(account: SimulatedAccount, query: Query) -> Rows:
    number = uid(account)
    return [
        {
            "acctLv": "2",
            "acctStpMode": "cancel_maker",
            "autoLoan": False,
            "ctIsoMode": "automatic",
            "enableSpotBorrow": False,
            "greeksType": "PA",
            "feeType": "0",
            "ip": "",
            "type": "0",
            "kycLv": "3",
            "label": account.name,
            "level": "VIP4" if account.settings.vip else "Lv1",
            "levelTmp": "",
            "liquidationGear": "-1",
            "mainUid": number,
            "mgnIsoMode": "automatic",
            "opAuth": "0",
            "perm": "read_only,trade" if account.settings.may_trade else "read_only",
            "posMode": "net_mode",
            "roleType": "0",
            "spotBorrowAutoRepay": False,
            "spotOffsetType": "",
            "spotRoleType": "0",
            "spotTraderInsts": [],
            "stgyType": "0",
            "traderInsts": [],
            "uid": number,
            "settleCcy": "USDC",
            "settleCcyList": ["USD", "USDC", "USDG"],
        }
    ]


def _pending(account: SimulatedAccount, query: Query) -> Rows:
    orders = [
        each
        for each in account.open_orders()
        if _meant(account, each, query)
        and query.get("ordType", order_type(each)) == order_type(each)
        and query.get("state", order_state(each)) == order_state(each)
    ]
    return _order_rows(account, _page(orders, query, lambda order: order.order_id))


def _history(account: SimulatedAccount, query: Query) -> Rows:
    if not query.get("instType"):
        raise _Refusal("50014", "Parameter instType can not be empty.", 400)
    closed = [
        each
        for each in account.orders.values()
        if not each.is_open
        and _meant(account, each, query)
        and query.get("ordType", order_type(each)) == order_type(each)
        and query.get("state", order_state(each)) == order_state(each)
    ]
    return _order_rows(account, _page(closed, query, lambda order: order.order_id))


def _order(account: SimulatedAccount, query: Query) -> Rows:
    if not query.get("instId"):
        raise _Refusal("50014", "Parameter instId can not be empty.", 400)
    wanted, client = query.get("ordId"), query.get("clOrdId")
    if not wanted and not client:
        raise _Refusal("51003", "Either client order ID or order ID is required.")
    found = [
        each
        for each in account.orders.values()
        if each.symbol == query["instId"] and (each.order_id == wanted if wanted else each.client_order_id == client)
    ]
    if not found:
        raise _Refusal("51603", "Order does not exist")
    return _order_rows(account, found[-1:])


def _fills(account: SimulatedAccount, query: Query) -> Rows:
    now_ms = account.clock.now_ms()
    begin = max(_number(query, "begin", 0), now_ms - FILLS_S * 1000)
    end = _number(query, "end", now_ms)
    fills = [
        each
        for each in account.fills
        if each.kind == "trade"
        and begin <= each.time_us // 1000 <= end
        and _meant(account, each, query)
        and (not query.get("ordId") or (each.order is not None and each.order.order_id == query["ordId"]))
        and query.get("subType", sub_type(each)) == sub_type(each)
    ]
    return [rest_fill_row(account, each) for each in _page(fills, query, bill_id)]


_ENDPOINTS: dict[str, Callable[[SimulatedAccount, Query], Rows]] = {
    "/api/v5/account/balance": _balance,
    "/api/v5/account/positions": _positions,
    "/api/v5/account/config": _config,
    "/api/v5/trade/orders-pending": _pending,
    "/api/v5/trade/orders-history": _history,
    "/api/v5/trade/order": _order,
    "/api/v5/trade/fills": _fills,
}


def _order_rows(account: SimulatedAccount, orders: Iterable[Order]) -> Rows:
    last = {each.order.order_id: each for each in account.fills if each.order is not None}
    return [rest_order_row(account, each, last.get(each.order_id)) for each in orders]


def _meant(account: SimulatedAccount, item: Order | Fill, query: Query) -> bool:
    listing = account.market.find(item.market, item.symbol)
    family = "" if listing is None or item.market == "SPOT" else listing.index
    return (
        query.get("instType", item.market) == item.market
        and query.get("instId", item.symbol) == item.symbol
        and query.get("instFamily", family) == family
    )


def _page(items: list[T], query: Query, number: Callable[[T], str]) -> list[T]:
    """Newest first; `after` means older than a number, `before` newer."""
    limit = _number(query, "limit", PAGE_ROWS)
    if not 1 <= limit <= PAGE_ROWS:
        raise _Refusal("51000", "Parameter limit error")
    oldest, newest = _number(query, "before", -1), _number(query, "after", -1)
    found = [
        each for each in reversed(items) if (newest < 0 or int(number(each)) < newest) and int(number(each)) > oldest
    ]
    return found[:limit]


def _several(query: Query, name: str, most: int) -> list[str]:
    values = [each for each in query.get(name, "").split(",") if each]
    if len(values) > most:
        raise _Refusal("51000", f"Parameter {name} error")
    return values


def _number(query: Query, name: str, default: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or len(text) > 24:
        raise _Refusal("51000", f"Parameter {name} error")
    return int(text)
