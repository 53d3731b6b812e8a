"""Cancelling what is open: which requests that takes, and what it comes to for a cancel_all. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from pipeline.exchanges.trading import TradeItem, TradeRequest, Trading
from pipeline.exchanges.venue import Catalogue
from pipeline.model.account import Order
from pipeline.model.header import Micros
from pipeline.model.orders import CANCEL, OrderItem
from pipeline.orders.blotter import Blotter
from pipeline.orders.tickets import Moment, Sending, Ticket


@attrs.define(eq=False)
class Sweep:
    """One round of cancelling: for a cancel_all, or because the kill switch was used."""

    ticket: Ticket | None
    orders: list[Order]
    accepted: int = 0
    unanswered: set[str] = attrs.field(factory=set)
    """Requests on their way."""
    is_sent: bool = False
    """Whether no further request will follow."""

    @property
    def is_over(self) -> bool:
        """Whether all was sent and answered, or lost."""
        return self.is_sent and not self.unanswered


def parts(
    orders: list[Order], not_after: Micros, trading: Trading, catalogue: Catalogue, request_ids: Iterator[str]
) -> list[Sending]:
    """The requests that cancel these orders; those of instruments that are not known are left out."""
    by_market: dict[str, list[TradeItem]] = {}
    for order in orders:
        market, name = order.origin.market, str(order.origin.instrument)
        instrument = catalogue.get((market, name))
        if instrument is not None and trading.batch(CANCEL, market):
            trade = TradeItem(OrderItem(market, name, order_id=order.order_id), instrument)
            by_market.setdefault(market, []).append(trade)
    found = []
    for market, items in by_market.items():
        most = trading.batch(CANCEL, market)
        for at in range(0, len(items), most):
            request = TradeRequest(next(request_ids), CANCEL, tuple(items[at : at + most]), not_after, market)
            found.append(Sending(request, tuple(trading.costs(request)), ()))
    return found


def swept(blotter: Blotter, ticket: Ticket, count: int, still_open: int, moment: Moment) -> None:
    """A cancel_all found so many orders, of which some have stayed open."""
    [line] = ticket.lines
    if not still_open:
        blotter.finish(line, "acknowledged", moment, message=f"orders: {count}", answered_time=moment.wall)
        return
    blotter.finish(
        line,
        "rejected",
        moment,
        rejected_by="venue",
        error_class="retryable",
        message=f"{still_open} of {count} orders are still open",
        answered_time=moment.wall,
    )
