"""How often each order was asked for, and how often that was done: what a judge of "at most once" wants to know."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import attrs
import trio

KEPT = 100_000
"""Requests that the log remembers."""


@attrs.frozen
class Asked:
    """One order in one request, as it was answered or would have been."""

    time_us: int
    connection: int
    """Index of the connection it came by."""
    request_id: str
    action: str
    """create, amend or cancel."""
    account: str
    client_order_id: str
    """As it was given, or of the order that was meant."""
    order_id: str
    taken: bool
    """Whether the exchange did it."""
    code: str
    """The venue's; "0" if it was taken. Nothing of a request that was cut off before it was looked at."""


@attrs.define(eq=False)
class Tally:
    """Counts what came in by the order-entry connections, item by item."""

    received: Counter[tuple[str, str, str]] = attrs.field(factory=Counter, init=False)
    """By account, client order id and action."""
    taken: Counter[tuple[str, str, str]] = attrs.field(factory=Counter, init=False)
    log: deque[Asked] = attrs.field(factory=lambda: deque(maxlen=KEPT), init=False)
    """Oldest first."""
    changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    """Unparked with every item."""

    def add(self, asked: Asked) -> None:
        """One item was dealt with."""
        key = (asked.account, asked.client_order_id, asked.action)
        self.received[key] += 1
        self.taken[key] += asked.taken
        self.log.append(asked)
        self.changed.unpark_all()

    def of(self, account: str) -> dict[str, Any]:
        """An account's orders by client order id, and all together; the log of its requests."""
        orders: dict[str, dict[str, dict[str, int]]] = {}
        totals: dict[str, dict[str, int]] = {}
        for key, received in self.received.items():
            whose, client_order_id, action = key
            if whose == account:
                taken = self.taken[key]
                orders.setdefault(client_order_id, {})[action] = {"received": received, "taken": taken}
                total = totals.setdefault(action, {"received": 0, "taken": 0})
                total["received"] += received
                total["taken"] += taken
        log = [attrs.asdict(asked) for asked in self.log if asked.account == account]
        return {"account": account, "orders": orders, "totals": totals, "log": log}
