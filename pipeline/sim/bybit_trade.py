"""Bybit's order entry, `/v5/trade`: requests, their checks and limits, acknowledgements."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import msgspec

from pipeline.model.rate import Rate
from pipeline.sim.accounts import SimulatedAccount
from pipeline.sim.allowance import Allowances
from pipeline.sim.bybit_orders import RULES, Reader, text_of
from pipeline.sim.floor import Floor
from pipeline.sim.matching import Matching
from pipeline.sim.settings import Limits
from pipeline.sim.tally import Tally
from pipeline.sim.toggles import Toggles
from pipeline.sim.trade_desk import Codes, Dealt, Entry, Rejection, TradeDesk
from pipeline.sim.wire import Connection

OPS = {
    f"order.{action}{suffix}": (action, bool(suffix))
    for action in ("create", "amend", "cancel")
    for suffix in ("", "-batch")
}
"""What each does, and whether it is a batch."""
CATEGORIES = ("spot", "linear", "inverse", "option")
BATCH = {"spot": 10, "linear": 20, "inverse": 20, "option": 20}
"""Most orders of a batch."""
SPOT_RATE, RATE = Rate(20, 1.0), Rate(10, 1.0)
PER_ADDRESS = Rate(3000, 1.0)
RECV_WINDOW_MS = 5000
EARLY_MS = 1000
"""A timestamp may not be this much ahead of the venue's clock."""
REQUEST_ID_CHARACTERS = 36

_encode = msgspec.json.Encoder().encode


@attrs.frozen
class _Asked:
    """A request for orders as far as it could be read."""

    op: str
    action: str
    batch: bool
    id: str
    account: SimulatedAccount
    category: str
    bucket: tuple[object, ...]
    rate: Rate
    entries: Sequence[Entry]


@attrs.define(eq=False)
class TradeSide:
    """All order-entry connections of the venue."""

    floor: Floor
    toggles: Toggles
    limits: Limits
    account: Callable[[str | None], SimulatedAccount | None]
    """Of a key."""
    matching: Matching = attrs.field(init=False)
    tally: Tally = attrs.field(factory=Tally, init=False)
    _desk: TradeDesk = attrs.field(init=False)
    _allowances: Allowances = attrs.field(init=False)
    _request_ids: dict[int, set[str]] = attrs.field(factory=dict, init=False)
    """By the index of the open connection that they came by."""
    _sessions: list[Connection] = attrs.field(factory=list, init=False)
    """That have logged in."""

    def __attrs_post_init__(self) -> None:
        self.matching = Matching(self.floor, RULES)
        self._allowances = Allowances(self.limits.order_factor)
        codes = Codes(refused="110007", ambiguous="10016", limited="10006", texts=text_of)
        self._desk = TradeDesk(self.floor.clock, self.toggles.orders, self.tally, codes)
        self.floor.on_leave.append(self._left)

    def _left(self, connection: Connection, _topics: tuple[str, ...]) -> None:
        self._request_ids.pop(connection.index, None)

    def admits(self, connection: Connection, key: str) -> bool:
        """Whether the account may have one more session; counts it then."""
        self._sessions = [each for each in self._sessions if not each.closed]
        if sum(each.account == key for each in self._sessions) >= self.limits.trade_sessions:
            return False
        self._sessions.append(connection)
        return True

    def receive(self, connection: Connection, request: dict[str, Any]) -> None:
        """Answer a request whose op is no login and no ping."""
        op, request_id = str(request.get("op")), request.get("reqId")
        asked: _Asked | None = None
        try:
            account = self._trader(connection)
            self._check_frame(connection, op, request_id, request)
            asked = self._read(account, op, request)
            dealt = self._dealt(connection, asked)
        except Rejection as why:
            self._answer(connection, op, request_id, int(why.code), str(why), asked)
            return
        if dealt is not None:
            self._answer(connection, op, request_id, 0, "OK", asked, dealt)

    def _trader(self, connection: Connection) -> SimulatedAccount:
        """Who asks."""
        account = self.account(connection.account)
        code = "10007" if account is None else {"revoked": "10003", "expired": "33004"}.get(account.revoked, "")
        if account is not None and not code and not account.settings.may_trade:
            code = "10005"
        if account is None or code:
            raise Rejection(code, text_of(code))
        if not self._allowances.take("address", PER_ADDRESS, self._now()):
            raise Rejection("10403", text_of("10403"))
        return account

    def _check_frame(self, connection: Connection, op: str, request_id: object, request: dict[str, Any]) -> None:
        """What concerns no order: the header, the identifier, the connection."""
        if op not in OPS:
            raise Rejection("10404", text_of("10404"))
        used = self._request_ids.setdefault(connection.index, set())
        if request_id is not None:
            if not isinstance(request_id, str) or len(request_id) > REQUEST_ID_CHARACTERS:
                raise Rejection("10001", "params error: reqId invalid")
            if request_id in used:
                raise Rejection("20006", text_of("20006"))
            used.add(request_id)
        header = request.get("header")
        header = header if isinstance(header, dict) else {}
        sent, window = str(header.get("X-BAPI-TIMESTAMP", "")), str(header.get("X-BAPI-RECV-WINDOW", RECV_WINDOW_MS))
        if not (sent.isdecimal() and window.isdecimal() and len(sent + window) < 30):
            raise Rejection("10001", "params error: X-BAPI-TIMESTAMP and X-BAPI-RECV-WINDOW must be numbers")
        now_ms = self.floor.clock.now_ms()
        if not now_ms - int(window) <= int(sent) < now_ms + EARLY_MS:
            where = f"req_timestamp[{sent}],server_timestamp[{now_ms}],recv_window[{window}]"
            raise Rejection("10002", f"{text_of('10002')}. {where}")

    def _read(self, account: SimulatedAccount, op: str, request: dict[str, Any]) -> _Asked:
        action, batch = OPS[op]
        match request.get("args"):
            case [dict(args)]:
                pass
            case _:
                raise Rejection("10001", "params error: args must be an array of one object")
        category = args.get("category")
        if category not in CATEGORIES:
            raise Rejection("10404", "category is not supported")
        rows = args.get("request") if batch else [args]
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise Rejection("10001", "params error: request must be an array of orders")
        spot = category == "spot"
        rate = SPOT_RATE if spot and (batch or action != "amend") else RATE
        pool = category if category in ("spot", "option") else "contracts"
        reader = Reader(self.matching, account, category)
        entries = [reader.entry(action, row) for row in rows]
        return _Asked(
            op, action, batch, str(request.get("reqId", "")), account, category, (account.name, op, pool), rate, entries
        )

    def _dealt(self, connection: Connection, asked: _Asked) -> list[Dealt] | None:
        try:
            self._check_whole(connection, asked)
            if not asked.batch or asked.category == "option":
                self._take(asked)
                entries = asked.entries
            else:  # one unit per order: on an overrun the first ones pass
                entries = [attrs.evolve(entry, act=self._limited(asked, entry)) for entry in asked.entries]
        except Rejection as why:
            self._desk.refuse(connection, asked.id, asked.entries, why.code)
            raise
        return self._desk.deal(connection, asked.id, entries)

    def _check_whole(self, connection: Connection, asked: _Asked) -> None:
        if connection.takes_no_orders:
            raise Rejection("10019", text_of("10019"))
        if len(asked.entries) > BATCH[asked.category]:
            raise Rejection("10001", "params error: too many orders in a batch")

    def _limited(self, asked: _Asked, entry: Entry) -> Callable[[], Any]:
        def act() -> Any:
            self._take(asked)
            return entry.act()

        return act

    def _take(self, asked: _Asked) -> None:
        if not self._allowances.take(asked.bucket, asked.rate, self._now()):
            raise Rejection("10006", text_of("10006"))

    def _now(self) -> float:
        return self.floor.clock.now_us() / 1e6

    def _answer(
        self,
        connection: Connection,
        op: str,
        request_id: object,
        code: int,
        text: str,
        asked: _Asked | None,
        dealt: Sequence[Dealt] = (),
    ) -> None:
        echo = {} if request_id is None else {"reqId": request_id}
        data: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        if asked is not None and dealt:
            if asked.batch:
                data = {"list": [_row(asked, entry, each) for entry, each in zip(asked.entries, dealt, strict=True)]}
                extra = {"list": [{"code": int(each.code), "msg": each.text or "OK"} for each in dealt]}
            elif dealt[0].code == "0":
                data = {"orderId": dealt[0].order_id, "orderLinkId": dealt[0].client_order_id}
            else:
                code, text = int(dealt[0].code), dealt[0].text
        answer = {
            **echo, "retCode": code, "retMsg": text, "op": op, "data": data, "retExtInfo": extra,
            "header": self._header(asked, code), "connId": connection.id,
        }  # fmt: skip
        self.toggles.orders.answer(connection, _encode(answer))

    def _header(self, asked: _Asked | None, code: int) -> dict[str, str]:
        """The limits that the request drew on, the time, and a trace."""
        now_ms = self.floor.clock.now_ms()
        limits: dict[str, str] = {}
        if asked is not None:
            now = self._now()
            left = 0 if code == 10006 else self._allowances.left(asked.bucket, asked.rate, now)
            wait_ms = int(self._allowances.wait(asked.bucket, asked.rate, now) * 1000)
            if code == 10006:
                wait_ms = wait_ms or int(asked.rate.seconds * 1000)
            limits = {
                "X-Bapi-Limit": str(self._allowances.count(asked.rate)),
                "X-Bapi-Limit-Status": str(left),
                "X-Bapi-Limit-Reset-Timestamp": str(now_ms + wait_ms),
            }
        return {**limits, "Traceid": uuid.uuid5(uuid.NAMESPACE_OID, f"{now_ms}").hex, "Timenow": str(now_ms)}


def _row(asked: _Asked, entry: Entry, dealt: Dealt) -> dict[str, Any]:
    """Of a batch's answer: what was refused has no identifier."""
    taken = dealt.code == "0"
    row = {
        "category": asked.category,
        "symbol": entry.symbol,
        "orderId": dealt.order_id if taken else "",
        "orderLinkId": dealt.client_order_id,
    }
    if asked.action == "create":
        row["createAt"] = str(dealt.created_us // 1000) if taken else ""
    return row
