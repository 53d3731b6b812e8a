"""What became of a request without an answer: judged from the order that the venue shows. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import attrs

from pipeline.model.account import Order
from pipeline.model.decimals import DecimalText
from pipeline.model.header import Micros
from pipeline.model.orders import AMEND, CANCEL, CREATE, OrderItem
from pipeline.orders.open_orders import OPEN

FIRST_LOOK = 0.25
"""Seconds from the moment when the outcome became unknown until the venue is asked; doubles up to `LAST_PAUSE`."""
LAST_PAUSE = 5.0
_OLDER = 60_000_000
"""Microseconds: an order this much older than the request is another one. Clocks do not differ by as much."""


@attrs.frozen
class Verdict:
    """How an item with an unknown outcome ends."""

    state: Literal["acknowledged", "rejected"]
    message: str
    order_id: str | None = None
    by_venue: bool = False
    """Whether the venue itself has rejected the order; otherwise the request has not arrived."""
    is_proven: bool = True
    """False: the venue shows nothing that could tell."""


def judge(
    action: str, item: OrderItem, order: Order | None, *, can_still_arrive: bool, sent: Micros | None = None
) -> Verdict | None:
    """What an answer of the venue about the order proves; None if it has to be asked again.

    `order` is None if the venue knows none such. What speaks against the request's arrival is believed only when the
    request `can_still_arrive` no more. `sent` tells a new order from an older one of the same client order id, because
    of which the venue may have refused ours; None if nobody knows when that was.
    """
    if action == CREATE:
        found = _created(item, order, sent)
    elif action == CANCEL:
        found = _cancelled(order)
    else:
        assert action == AMEND
        found = _amended(item, order)
    if found is None and not can_still_arrive:
        if action == AMEND and order is not None and not _comparable(item, order):
            why = "whether the request has arrived cannot be told: the venue does not show what it was to change"
            return Verdict("rejected", f"{why}; the order is {order.status}", order.order_id, is_proven=False)
        why = "the venue knows no such order" if order is None else f"the order is {order.status}, and as it was"
        return Verdict("rejected", f"the request has not arrived: {why}", None if order is None else order.order_id)
    return found


def _created(item: OrderItem, order: Order | None, sent: Micros | None) -> Verdict | None:
    if order is None:
        return None
    is_older = sent is not None and order.created_time is not None and order.created_time < sent - _OLDER
    if is_older or (item.side is not None and order.side != item.side):
        why = f"another order has the client order id {item.client_order_id}: see {order.order_id}"
        return Verdict("rejected", why, by_venue=True)
    if order.status == "rejected":
        return Verdict("rejected", "the venue has rejected the order", order.order_id, by_venue=True)
    return Verdict("acknowledged", f"found at the venue: {order.status}", order.order_id)


def _cancelled(order: Order | None) -> Verdict | None:
    if order is None or order.status in OPEN:
        return None
    return Verdict("acknowledged", f"the order is open no more: {order.status}", order.order_id)


def _amended(item: OrderItem, order: Order | None) -> Verdict | None:
    if order is None:
        return None
    compared = _comparable(item, order)
    if not compared or any(now is None or Decimal(new) != Decimal(now) for new, now in compared):
        return None
    unseen = f"; {', '.join(item.extras)} cannot be seen" if item.extras else ""
    return Verdict("acknowledged", f"the order is as it was to become{unseen}", order.order_id)


def _comparable(item: OrderItem, order: Order) -> list[tuple[DecimalText, DecimalText | None]]:
    """What an amendment was to change beside what the order shows of it; extras are not in it."""
    wanted = ((item.price, order.price), (item.size, order.size), (item.trigger_price, order.trigger_price))
    return [(new, now) for new, now in wanted if new is not None]


def pause(looks: int) -> float:
    """Seconds until the next look, after so many."""
    return float(min(LAST_PAUSE, FIRST_LOOK * 2.0 ** min(looks, 16)))
