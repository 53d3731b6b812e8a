"""OKX's order entry on the private path: operations, their checks and limits, answers row by row."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import msgspec

from pipeline.model.rate import Rate
from pipeline.sim.accounts import Order, SimulatedAccount
from pipeline.sim.allowance import Allowances
from pipeline.sim.floor import Floor
from pipeline.sim.listing import Listing
from pipeline.sim.matching import Matching
from pipeline.sim.okx_channels import PRIVATE
from pipeline.sim.okx_orders import MMP_FORCES, RULES, Reader, text_of
from pipeline.sim.settings import Limits
from pipeline.sim.tally import Tally
from pipeline.sim.toggles import Toggles
from pipeline.sim.trade_desk import Codes, Dealt, Entry, Rejection, TradeDesk
from pipeline.sim.wire import Connection

OPS = {
    "order": ("create", False),
    "batch-orders": ("create", True),
    "amend-order": ("amend", False),
    "batch-amend-orders": ("amend", True),
    "cancel-order": ("cancel", False),
    "batch-cancel-orders": ("cancel", True),
}
"""What each does, and whether it is a batch."""
MASS_CANCEL = "mass-cancel"
BATCH = 20
SINGLE_RATE, BATCH_RATE = Rate(60, 2.0), Rate(300, 2.0)
"""Of each operation, per account and instrument; batches are counted in orders."""
MASS_RATE = Rate(5, 2.0)
TOTAL_RATE = Rate(1000, 2.0)
"""New and amended orders of an account, but for spot."""
LOCK_MS = 10_000
"""The longest lock of a mass-cancel."""
MMP_CANCELLED = "38"

_REQUEST_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_TEXTS = {
    "60011": "Please log in",
    "60012": "Invalid request",
    "60013": "Invalid args",
    "60028": "The current operation is not supported by this URL.",
}

_encode = msgspec.json.Encoder().encode


@attrs.define(eq=False)
class TradeSide:
    """The operations of all accounts."""

    floor: Floor
    toggles: Toggles
    limits: Limits
    account: Callable[[object], SimulatedAccount | None]
    """Of a key."""
    matching: Matching = attrs.field(init=False)
    tally: Tally = attrs.field(factory=Tally, init=False)
    _desk: TradeDesk = attrs.field(init=False)
    _allowances: Allowances = attrs.field(init=False)
    _locks: dict[tuple[str, str], int] = attrs.field(factory=dict, init=False)
    """Until when, in milliseconds, an account's protected orders of a family are refused."""

    def __attrs_post_init__(self) -> None:
        self.matching = Matching(self.floor, RULES)
        self._allowances = Allowances(self.limits.order_factor)
        codes = Codes(refused="51008", ambiguous="50004", limited="50011", texts=text_of)
        self._desk = TradeDesk(self.floor.clock, self.toggles.orders, self.tally, codes)

    def receive(self, connection: Connection, request: dict[str, Any]) -> None:
        """Answer a request whose op is one of `OPS` or `MASS_CANCEL`."""
        in_us, op, args = self.floor.clock.now_us(), str(request["op"]), request.get("args")
        try:
            account = self._trader(connection)
            request_id = request.get("id")
            if not isinstance(request_id, str) or not _REQUEST_ID.fullmatch(request_id):
                raise _whole("60012")
            if not isinstance(args, list) or not args or not all(isinstance(arg, dict) for arg in args):
                raise _whole("60013")
            if op == MASS_CANCEL:
                rows: list[dict[str, Any]] | None = self._mass_cancel(account, args)
                code = "0"
            else:
                rows = self._orders(connection, account, request, op, args)
                code = _code(rows or [])
        except Rejection as why:
            self._answer(connection, request, op, why.code, str(why), [], in_us)
            return
        if rows is not None:
            self._answer(connection, request, op, code, "", rows, in_us)

    def _trader(self, connection: Connection) -> SimulatedAccount:
        if connection.endpoint != PRIVATE:
            raise _whole("60028")
        account = self.account(connection.account)
        if account is None:
            raise _whole("60011")
        if not account.settings.may_trade:
            raise Rejection("50120", text_of("50120"))
        return account

    def _orders(
        self,
        connection: Connection,
        account: SimulatedAccount,
        request: dict[str, Any],
        op: str,
        args: list[dict[str, Any]],
    ) -> list[dict[str, Any]] | None:
        """The rows of the answer; None if the connection was cut instead."""
        action, batch = OPS[op]
        if len(args) > (BATCH if batch else 1):
            raise Rejection("51111", text_of("51111")) if batch else _whole("60013")
        reader = Reader(self.matching, account, lambda listing: self._is_locked(account, listing))
        single = op if not batch else {each: name for name, (each, many) in OPS.items() if not many}[action]
        counted = single if len(args) == 1 else op

        def check(listing: Listing) -> None:
            self._check_expiry(action, request)
            self._take(account, action, counted, listing)

        entries = [reader.entry(action, arg, check) for arg in args]
        try:
            dealt = self._desk.deal(connection, str(request["id"]), entries)
        except Rejection as why:  # a fault of the whole request: the venue tells it order by order
            dealt = [Dealt(why.code, str(why), each.order_id, each.client_order_id) for each in entries]
        if dealt is None:
            return None
        return [self._row(action, *each) for each in zip(entries, args, dealt, strict=True)]

    def _check_expiry(self, action: str, request: dict[str, Any]) -> None:
        """Cancellations do not expire."""
        when = request.get("expTime", "")
        if action == "cancel" or not when:
            return
        if not isinstance(when, str) or not when.isdecimal() or len(when) > 15:
            raise Rejection("51000", "Parameter expTime error")
        if int(when) < self.floor.clock.now_ms():
            raise Rejection("50036", text_of("50036"))

    def _take(self, account: SimulatedAccount, action: str, op: str, listing: Listing) -> None:
        now = self._now()
        scope = listing.index if listing.market == "OPTION" else listing.symbol
        rate = BATCH_RATE if OPS[op][1] else SINGLE_RATE
        if not self._allowances.take((account.name, op, listing.market, scope), rate, now):
            raise Rejection("50011", text_of("50011"))
        in_total = action != "cancel" and listing.market != "SPOT"
        if in_total and not self._allowances.take((account.name, "total"), TOTAL_RATE, now):
            raise Rejection("50061", text_of("50061"))

    def _mass_cancel(self, account: SimulatedAccount, args: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Protected orders of an option family only."""
        arg = args[0]
        family, lock = arg.get("instFamily"), str(arg.get("lockInterval") or "0")
        if len(args) > 1 or arg.get("instType") != "OPTION" or not isinstance(family, str) or not family:
            raise _whole("60013")
        if not lock.isdecimal() or len(lock) > 5 or int(lock) > LOCK_MS:
            raise Rejection("51000", "Parameter lockInterval error")
        if not any(each.index == family for each in self.floor.market.of("OPTION")):
            raise Rejection("51001", text_of("51001"))
        if not self._allowances.take((account.name, MASS_CANCEL), MASS_RATE, self._now()):
            raise Rejection("50011", text_of("50011"))
        self._locks[account.name, family] = self.floor.clock.now_ms() + int(lock)

        def wanted(order: Order) -> bool:
            listing = self.floor.market.find(order.market, order.symbol)
            here = order.market == "OPTION" and listing is not None and listing.index == family
            return here and order.time_in_force in MMP_FORCES

        self.matching.cancel_all(account, wanted, MMP_CANCELLED)
        return [{"result": True}]

    def _is_locked(self, account: SimulatedAccount, listing: Listing) -> bool:
        return self.floor.clock.now_ms() < self._locks.get((account.name, listing.index), 0)

    def _row(self, action: str, entry: Entry, arg: dict[str, Any], dealt: Dealt) -> dict[str, Any]:
        """One order of an answer."""
        when_us = dealt.created_us or self.floor.clock.now_us()
        row = {
            "clOrdId": dealt.client_order_id,
            "ordId": dealt.order_id if dealt.code == "0" or action != "create" else "",
            "ts": str(when_us // 1000),
            "sCode": dealt.code,
            "sMsg": dealt.text,
        }
        if action == "create":
            row |= {"tag": arg.get("tag") or "", "subCode": "1000" if dealt.code == "51008" else ""}
        elif action == "amend":
            row |= {"reqId": arg.get("reqId") or "", "subCode": ""}
        return row

    def _now(self) -> float:
        return self.floor.clock.now_us() / 1e6

    def _answer(
        self,
        connection: Connection,
        request: dict[str, Any],
        op: str,
        code: str,
        text: str,
        rows: Sequence[dict[str, Any]],
        in_us: int,
    ) -> None:
        answer = {"id": str(request.get("id", "")), "op": op, "code": code, "msg": text, "data": rows}
        if op != MASS_CANCEL:
            answer |= {"inTime": str(in_us), "outTime": str(self.floor.clock.now_us())}
        self.toggles.orders.answer(connection, _encode(answer))


def _whole(code: str) -> Rejection:
    return Rejection(code, _TEXTS[code])


def _code(rows: list[dict[str, Any]]) -> str:
    """Of the whole: all good, all failed, or some."""
    failed = sum(row["sCode"] != "0" for row in rows)
    return "0" if not failed else "1" if failed == len(rows) else "2"
