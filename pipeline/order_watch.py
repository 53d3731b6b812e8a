"""What became of one order command, from the records of three topics. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from pipeline.model.account import Fill, Order
from pipeline.model.orders import ITEM_ACTIONS, OrderCommand, OrderResult
from pipeline.sink.reader import Received

CLOSED = frozenset({"filled", "cancelled", "rejected", "expired"})
"""Statuses of orders that nothing more happens to."""


@attrs.define
class Watch:
    """Knows which records concern a command, and when it and its orders have come to an end."""

    command: OrderCommand
    _ends: dict[int, str] = attrs.field(factory=dict, init=False)
    """Final states by item."""
    _names: dict[str, int] = attrs.field(factory=dict, init=False)
    """The items by whatever identifier their orders go by."""
    _closed: set[int] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        for number, item in enumerate(self.command.items):
            self._name(number, item.client_order_id, item.order_id)

    def take(self, record: Received) -> bool:
        """Whether the record is about the command or its orders."""
        fields = record.fields
        if record.error is not None or (fields["venue"], fields["account"]) != (
            self.command.venue,
            self.command.account,
        ):
            return False
        if record.kind == OrderResult.KIND:
            return self._take_result(fields)
        item = self._names.get(fields["client_order_id"] or "", self._names.get(fields["order_id"] or ""))
        if item is None:
            return False
        if record.kind == Order.KIND:
            self._name(item, fields["client_order_id"], fields["order_id"])
            if fields["status"] in CLOSED:
                self._closed.add(item)
        return True

    @property
    def is_final(self) -> bool:
        """Whether every item has its final result."""
        return len(self._ends) == max(1, len(self.command.items))

    @property
    def is_acknowledged(self) -> bool:
        """Whether the venue, or for the kill switch the connector, has taken all of it."""
        return self.is_final and set(self._ends.values()) == {"acknowledged"}

    @property
    def is_closed(self) -> bool:
        """Whether moreover nothing is left open of the orders that it was about."""
        if not self.is_final or self.command.action not in ITEM_ACTIONS:
            return self.is_final
        return all(item in self._closed for item, state in self._ends.items() if state == "acknowledged")

    def _take_result(self, fields: Mapping[str, Any]) -> bool:
        if fields["command_id"] != self.command.command_id:
            return False
        self._name(fields["item"], fields["client_order_id"], fields["order_id"])
        if fields["is_final"]:
            self._ends.setdefault(fields["item"], fields["state"])
        return True

    def _name(self, item: int, *names: str | None) -> None:
        if self.command.items:
            self._names.update((name, item) for name in names if name)


def line(fields: Mapping[str, Any]) -> str:
    """A record in the form of `record_to_json` on one line."""
    kind = fields["event"]
    moment = datetime.fromtimestamp(fields["receive_time"] / 1e6, UTC)
    told = _TOLD[kind](fields)
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}  {kind:<12}  " + "  ".join(filter(None, told))


def _result(fields: Mapping[str, Any]) -> list[str]:
    what = " ".join(filter(None, (fields["action"], fields["instrument"])))
    why = " ".join(filter(None, (fields["rejected_by"], fields["rule"], fields["code"])))
    sent, consumed = fields["sent_time"], fields["consumed_time"]
    return [
        f"{fields['state']:<12}",
        what if not fields["item"] else f"{what} [{fields['item']}]",
        _ids(fields),
        why,
        fields["message"] or "",
        f"({fields['error_class']})" if fields["error_class"] else "",
        f"sent after {(sent - consumed) / 1000:.1f} ms" if fields["is_final"] and sent and consumed else "",
    ]


def _order(fields: Mapping[str, Any]) -> list[str]:
    at = f" at {fields['price']}" if fields["price"] is not None else ""
    return [
        f"{fields['status']:<12}",
        f"{fields['side']} {_or_dash(fields['size'])} {fields['instrument']}{at}",
        f"filled {_or_dash(fields['filled_size'])}",
        f"average {fields['average_price']}" if fields["average_price"] is not None else "",
        _ids(fields),
        fields["cancel_reason"] or fields["reject_message"] or fields["reject_reason"] or "",
    ]


def _fill(fields: Mapping[str, Any]) -> list[str]:
    fee = f"fee {fields['fee']} {fields['fee_currency'] or ''}".rstrip() if fields["fee"] is not None else ""
    return [
        f"{fields['kind']:<12}",
        f"{fields['side']} {fields['size']} {fields['instrument']} at {fields['price']}",
        fee,
        fields["liquidity"] or "",
        _ids(fields),
    ]


_TOLD = {OrderResult.KIND: _result, Order.KIND: _order, Fill.KIND: _fill}


def _ids(fields: Mapping[str, Any]) -> str:
    known = (("client_order_id", fields["client_order_id"]), ("order_id", fields["order_id"]))
    return "  ".join(f"{name} {value}" for name, value in known if value)


def _or_dash(value: str | None) -> str:
    return "-" if value is None else value
