"""Results of order entry, put together from a command and what there is to tell. Pure."""

from __future__ import annotations

from typing import Any

import attrs

from pipeline.exchanges.accounts import WHOLE_ACCOUNT
from pipeline.exchanges.venue import Catalogue
from pipeline.model.events import Origin
from pipeline.model.orders import FINAL, OrderResult, State
from pipeline.orders.tickets import Line, Moment

MAX_MESSAGE = 1_000
"""Characters of a venue's text that a result repeats."""
MAX_ORIGINS = 4_096
"""Heads of results that are kept for the next one."""


@attrs.define(eq=False)
class Teller:
    """Makes the results of one account."""

    venue: str
    account: str
    catalogue: Catalogue
    _origins: dict[tuple[str, str | None, str], Origin] = attrs.field(factory=dict, init=False)

    def result(self, line: Line, state: State, moment: Moment, **told: Any) -> OrderResult:
        """A result with what is told beside it, by the names of its fields."""
        ticket, item = line.ticket, line.item
        if (message := told.get("message")) is not None:
            told["message"] = str(message)[:MAX_MESSAGE]
        if told.get("order_id") is None:
            told["order_id"] = item.order_id if item is not None else None
        return OrderResult(
            self._origin(line),
            told.get("venue_out_time"),
            moment.wall,
            None,
            ticket.command_id,
            line.number,
            ticket.action,
            state,
            state in FINAL,
            item.client_order_id if item is not None else None,
            consumed_time=ticket.consumed,
            sent_time=line.sent_time,
            reason=ticket.reason,
            topic=ticket.place.topic,
            partition=ticket.place.partition,
            offset=ticket.place.offset,
            **told,
        )

    def _origin(self, line: Line) -> Origin:
        item, ticket = line.item, line.ticket
        market = (item.market if item is not None else ticket.market) or WHOLE_ACCOUNT
        name = item.instrument if item is not None else ticket.instrument
        key = (market, name, line.connection)
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) >= MAX_ORIGINS:
                self._origins.clear()
            instrument = self.catalogue.get((market, name)) if name is not None else None
            symbol = instrument.origin.symbol if instrument is not None else None
            origin = Origin(self.venue, market, name, symbol, self.account, line.connection)
            self._origins[key] = origin
        return origin
