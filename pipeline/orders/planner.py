"""What goes out: which of the waiting commands may be sent now, by the guards and the venue's rate. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from math import inf

import attrs

from pipeline.exchanges.trading import TradeItem, TradeRequest, Trading
from pipeline.exchanges.venue import Catalogue
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Instrument
from pipeline.model.orders import AMEND, CANCEL, CANCEL_ALL, MASS_CANCEL
from pipeline.orders.blotter import Blotter
from pipeline.orders.budgets import Budgets
from pipeline.orders.guards import Facts, Refusal, check, check_scope
from pipeline.orders.kill_switch import Switch
from pipeline.orders.settings import AccountOrderSettings
from pipeline.orders.tickets import Line, Moment, Sending, Ticket

MAX_PLANNED = 64
"""Requests that one wait for the ledger's disk covers."""
LATER = 0.001
"""Seconds after a deadline at which it has certainly passed."""

PriceOf = Callable[[Instrument], DecimalText | None]
"""A fresh reference price; None if it has to be read first."""


@attrs.define
class Plan:
    """What can be done now."""

    sendings: list[Sending] = attrs.field(factory=list)
    sweep: Ticket | None = None
    """A cancel_all whose turn it is: nothing behind it may be sent before the open orders are read."""
    prices: list[Instrument] = attrs.field(factory=list)
    """Whose reference prices have to be read before the next command can be judged."""
    again_at: float = inf
    """When to ask again, whatever happens, in seconds of the monotonic clock."""


@attrs.define(eq=False, kw_only=True)
class Planner:
    """Takes commands from the front of `queue` only, so that they leave in their order."""

    venue: str
    settings: AccountOrderSettings
    trading: Trading
    catalogue: Catalogue
    budgets: Budgets
    request_ids: Iterator[str]
    """Each is used once."""
    switch: Switch
    blotter: Blotter
    queue: deque[Ticket]

    def plan(self, price_of: PriceOf, moment: Moment) -> Plan:
        """What can be sent now, in the commands' order, as soon as the blotter's entries are on disk."""
        plan = Plan()
        while len(plan.sendings) < MAX_PLANNED:
            self.switch.resume_in_turn(moment)
            if not self.queue:
                break
            ticket = self.queue[0]
            if ticket.is_late(moment):
                self.blotter.expire_waiting(ticket, moment)
            elif ticket.action == CANCEL_ALL:
                if not self._is_known_scope(ticket, moment):
                    self.queue.popleft()
                    continue
                if not plan.sendings:
                    self.queue.popleft()
                    self.blotter.intend(ticket.lines[0], moment)
                    plan.sweep = ticket
                break
            elif not self._is_judged(ticket, price_of, plan, moment) or not self._is_paid(ticket, plan, moment):
                break
            if not ticket.chunks:
                self.queue.popleft()
        return plan

    def expire(self, moment: Moment) -> float:
        """Give up what waits for too long; returns when the next one will, in seconds of the monotonic clock."""
        earliest = inf
        for ticket in list(self.queue):
            assert ticket.deadline is not None
            if ticket.is_late(moment):
                self.blotter.expire_waiting(ticket, moment)
                self.queue.remove(ticket)
            else:
                earliest = min(earliest, moment.mono + (ticket.deadline - moment.wall) / 1e6 + LATER)
        return earliest

    def is_late(self, sending: Sending, moment: Moment) -> bool:
        """Whether a planned request has become too old to be sent; then its items have expired."""
        if moment.wall <= sending.request.not_after:
            return False
        for line in sending.lines:
            self.blotter.expire(line, moment)
        return True

    # The guards.

    def _is_judged(self, ticket: Ticket, price_of: PriceOf, plan: Plan, moment: Moment) -> bool:
        """Whether the guards have seen it; if not, they need prices first."""
        if ticket.chunks is not None:
            return True
        if ticket.action == MASS_CANCEL:
            ticket.chunks = self._part(ticket, moment)
            return True
        for line in ticket.lines:
            item = line.wanted
            if (instrument := self.catalogue.get((item.market, item.instrument))) is not None:
                line.trade = TradeItem(item, instrument)
        if ticket.action != CANCEL and not ticket.is_priced:
            traded = (line.trade.instrument for line in ticket.lines if line.trade is not None)
            plan.prices = [instrument for instrument in traded if price_of(instrument) is None]
            ticket.is_priced = True  # asked for once: what the venue does not tell then is missing
            if plan.prices:
                return False
        ticket.chunks = self._chunks(ticket, price_of, moment)
        return True

    def _is_known_scope(self, ticket: Ticket, moment: Moment) -> bool:
        """Whether a command without items is for what there is; it is refused otherwise."""
        refusal = check_scope(ticket.action, ticket.market, ticket.instrument, self.venue, self.catalogue)
        if refusal is not None:
            line = ticket.lines[0]
            self.blotter.refuse(line, "guard", refusal.rule, refusal.message, refusal.error_class, moment)
        return refusal is None

    def _part(self, ticket: Ticket, moment: Moment) -> deque[tuple[Line, ...]]:
        """A mass_cancel as one request, unless the venue has none there."""
        [line] = ticket.lines
        if not self.trading.batch(MASS_CANCEL, str(ticket.market)):
            why = f"{self.venue} has no mass_cancel of market {ticket.market}"
            self.blotter.refuse(line, "guard", "venue", why, "permanent", moment)
            return deque()
        return deque([(line,)] if self._is_known_scope(ticket, moment) else [])

    def _chunks(self, ticket: Ticket, price_of: PriceOf, moment: Moment) -> deque[tuple[Line, ...]]:
        """The items that pass, as the venue's batches; the others are refused."""
        passed: list[Line] = []
        for line in ticket.lines:
            refusal = self._refusal(ticket.action, line, price_of, len(passed))
            if refusal is None:
                passed.append(line)
            else:
                self.blotter.refuse(line, "guard", refusal.rule, refusal.message, refusal.error_class, moment)
        if not passed:
            return deque()
        market = passed[0].wanted.market
        most = self.trading.batch(ticket.action, market)
        if most:
            return deque(tuple(passed[at : at + most]) for at in range(0, len(passed), most))
        for line in passed:
            why = f"{self.venue} has no {ticket.action} of market {market}"
            self.blotter.refuse(line, "guard", "venue", why, "permanent", moment)
        return deque()

    def _refusal(self, action: str, line: Line, price_of: PriceOf, before: int) -> Refusal | None:
        item, trade = line.wanted, line.trade
        if trade is None:
            why = f"{self.venue} {item.market} has no instrument {item.instrument} that is known"
            return Refusal("instrument", why, "permanent")
        open_orders = self.blotter.open_orders
        facts = Facts(
            is_killed=self.switch.is_killed,
            reference_price=price_of(trade.instrument) if action != CANCEL else None,
            open_orders=open_orders.count + before,
            known_order=open_orders.find(item.client_order_id, item.order_id) if action == AMEND else None,
        )
        refusal = check(action, trade, facts, self.settings)
        if refusal is None and (found := self.trading.problems(action, trade)):
            return Refusal("venue", "; ".join(f"{field}: {why}" for field, why in found), "permanent")
        return refusal

    # The venue's rate.

    def _is_paid(self, ticket: Ticket, plan: Plan, moment: Moment) -> bool:
        """Whether all of its requests are planned or refused; if not, the venue's rate has to be waited for."""
        while ticket.chunks:
            lines = ticket.chunks[0]
            request = self._request(ticket, lines)
            costs = tuple(self.trading.costs(request))
            free = self.budgets.free_at(costs)
            since = moment.mono if ticket.blocked_since is None else ticket.blocked_since
            if free <= moment.mono:
                self.budgets.take(costs, moment.mono)
                for line in lines:
                    self.blotter.intend(line, moment)
                plan.sendings.append(Sending(request, costs, lines))
            elif free - since > self.settings.rate_wait:
                wait = free - moment.mono
                why = f"the venue's rate would have it wait {wait:.1f} s" if free < inf else "never allowed"
                for line in lines:
                    self.blotter.refuse(line, "guard", "rate", why, "rate_limited", moment)
            else:
                ticket.blocked_since, plan.again_at = since, free
                return False
            ticket.blocked_since = None
            ticket.chunks.popleft()
            if len(plan.sendings) >= MAX_PLANNED:
                return False
        return True

    def _request(self, ticket: Ticket, lines: tuple[Line, ...]) -> TradeRequest:
        items = tuple(line.trade for line in lines if line.trade is not None)
        assert ticket.deadline is not None
        market = ticket.market or (items[0].item.market if items else None)
        return TradeRequest(next(self.request_ids), ticket.action, items, ticket.deadline, market, ticket.instrument)
