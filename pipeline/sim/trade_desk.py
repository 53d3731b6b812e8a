"""What both venues do with a request for orders: faults first, then order by order, each counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from pipeline.sim.accounts import Order, SimulatedAccount
from pipeline.sim.clock import SimulatedClock
from pipeline.sim.faults import Fault
from pipeline.sim.tally import Asked, Tally
from pipeline.sim.trade_faults import TradeFaults
from pipeline.sim.wire import Connection


class Rejection(Exception):
    """The venue's code and text for what it does not take."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@attrs.frozen
class Entry:
    """One order of a request; batches have several."""

    action: str
    """create, amend or cancel."""
    account: SimulatedAccount
    symbol: str
    order_id: str
    """As the client gave it, or nothing; also the next."""
    client_order_id: str
    act: Callable[[], Order]
    """Does it; how the order stands then. Raises `Rejection`."""
    meant: Callable[[], Order | None]
    """The order that an amendment or cancellation names, open or not."""


@attrs.frozen
class Dealt:
    """What became of one entry."""

    code: str
    """"0" if it was taken."""
    text: str = ""
    order_id: str = ""
    client_order_id: str = ""
    created_us: int = 0
    """When the order was created, where one is meant."""


@attrs.frozen
class Codes:
    """What a venue says where a fault names no code."""

    refused: str
    ambiguous: str
    limited: str
    texts: Callable[[str], str]
    """The text that goes with a code."""


@attrs.define(eq=False)
class TradeDesk:
    """One venue's."""

    clock: SimulatedClock
    faults: TradeFaults
    tally: Tally
    codes: Codes

    def deal(self, connection: Connection, request_id: str, entries: Sequence[Entry]) -> list[Dealt] | None:
        """One request: what became of its entries; None if its connection was cut instead of an answer.

        Raises `Rejection` for a request that is answered as a whole, taken or not.
        """
        fault = self.faults.of_request(entries[0].action)
        if fault is None:
            return self._each(connection, request_id, entries)
        match fault.kind:
            case "drop_before_take":
                self.refuse(connection, request_id, entries, "")
                connection.drop()
                return None
            case "drop_before_ack":
                self._each(connection, request_id, entries)
                connection.drop()
                return None
            case "ambiguous_code" if fault.taken:
                self._each(connection, request_id, entries)
                raise self._rejection(fault, self.codes.ambiguous)
        rejection = self._rejection(
            fault, self.codes.limited if fault.kind == "rate_limited" else self.codes.ambiguous
        )  # fmt: skip
        self.refuse(connection, request_id, entries, rejection.code)
        raise rejection

    def refuse(self, connection: Connection, request_id: str, entries: Sequence[Entry], code: str) -> None:
        """Count a request that was refused as a whole."""
        for entry in entries:
            dealt = Dealt(code, "", entry.order_id, entry.client_order_id)
            self._count(connection, request_id, entry, dealt, entry.meant())

    def _each(self, connection: Connection, request_id: str, entries: Sequence[Entry]) -> list[Dealt]:
        return [self._one(connection, request_id, entry) for entry in entries]

    def _one(self, connection: Connection, request_id: str, entry: Entry) -> Dealt:
        fault = self.faults.of_item(entry.action)
        meant = entry.meant()
        try:
            if fault is not None and fault.kind == "refuse_order":
                raise self._rejection(fault, self.codes.refused)
            if fault is not None and fault.kind == "fill_before_cancel" and meant is not None and meant.is_open:
                entry.account.fill(meant.order_id)
            order = entry.act()
            if fault is not None and fault.kind == "fill_before_ack" and order.is_open:
                entry.account.fill(order.order_id)
            dealt = Dealt("0", "", order.order_id, order.client_order_id, order.created_us)
        except Rejection as why:
            created_us = 0 if meant is None else meant.created_us
            dealt = Dealt(why.code, str(why), entry.order_id, entry.client_order_id, created_us)
        self._count(connection, request_id, entry, dealt, meant)
        return dealt

    def _rejection(self, fault: Fault, default: str) -> Rejection:
        code = fault.error or default
        return Rejection(code, fault.reason or self.codes.texts(code))

    def _count(
        self, connection: Connection, request_id: str, entry: Entry, dealt: Dealt, meant: Order | None = None
    ) -> None:
        client_order_id, order_id = dealt.client_order_id, dealt.order_id
        if meant is not None:
            client_order_id, order_id = meant.client_order_id, meant.order_id
        now_us, account = self.clock.now_us(), entry.account.name
        self.tally.add(
            Asked(
                now_us, connection.index, request_id, entry.action, account, client_order_id, order_id,
                dealt.code == "0", dealt.code,
            )
        )  # fmt: skip
