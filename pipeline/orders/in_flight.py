"""Requests on their way to the venue, and what its answers, or the want of them, make of their items. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from pipeline.exchanges.trading import Answer, ItemAnswer
from pipeline.model.orders import CREATE
from pipeline.orders.blotter import Blotter
from pipeline.orders.budgets import Budgets
from pipeline.orders.sweeps import Sweep
from pipeline.orders.tickets import Line, Moment, Sending, Stage
from pipeline.orders.unknowns import Unknowns

LONGEST_HOLD = 10.0
"""Seconds for which a venue's word about its own budget is taken."""

_UNTOLD = ItemAnswer(None, message="the answer does not tell of this item")


@attrs.define(eq=False)
class InFlight:
    """Of one ownership: from giving a request's bytes to the socket until its answer, or its loss."""

    blotter: Blotter
    unknowns: Unknowns
    budgets: Budgets
    _sent: dict[str, Sending] = attrs.field(factory=dict, init=False)
    _sweeps: dict[str, Sweep] = attrs.field(factory=dict, init=False)
    """By request."""

    def __len__(self) -> int:
        return len(self._sent)

    def sending(self, sending: Sending, connection: str) -> None:
        """Its bytes are about to be given to the socket."""
        self._sent[sending.request.id] = sending
        for line in sending.lines:
            line.stage, line.connection = Stage.SENT, connection

    def sweeping(self, sweep: Sweep, part: Sending) -> None:
        """The same of one of a sweep's requests."""
        self._sent[part.request.id] = part
        self._sweeps[part.request.id] = sweep
        sweep.unanswered.add(part.request.id)

    def sent(self, sending: Sending, moment: Moment) -> None:
        """Its bytes were given to the socket."""
        for line in sending.lines:
            line.sent_time = moment.wall
            if line.stage is Stage.SENT:  # the answer may have been quicker
                self.blotter.tell(line, "sent", moment)
        if sending.lines and (consumed := sending.lines[0].ticket.consumed) is not None:
            self.blotter.stats.until_sent.observe((moment.wall - consumed) / 1e6)

    def answered(self, answer: Answer, moment: Moment) -> None:
        """The venue has answered a request."""
        for limit in answer.limits:
            if limit.remaining <= 0:
                pause = min(max(0, limit.reset - moment.venue) / 1e6, LONGEST_HOLD)
                self.budgets.hold_known(limit.key, moment.mono + pause)
        sending = self._sent.pop(answer.request_id, None)
        if sending is None:
            return
        is_told = any(limit.remaining <= 0 for limit in answer.limits)
        if any(item.error_class == "rate_limited" for item in answer.items) and not is_told:
            for cost in sending.costs:
                self.budgets.hold(cost, moment.mono + cost.rate.seconds, moment.mono)
        if (sweep := self._sweeps.pop(answer.request_id, None)) is not None:
            sweep.unanswered.discard(answer.request_id)
            sweep.accepted += sum(item.accepted is True for item in answer.items)
            return
        for position, line in enumerate(sending.lines):
            item = answer.items[position] if position < len(answer.items) else _UNTOLD
            self._answered(line, item, answer, moment)

    def _answered(self, line: Line, item: ItemAnswer, answer: Answer, moment: Moment) -> None:
        if line.sent_time is None:
            line.sent_time = moment.wall  # the answer was quicker than our note
        told = {
            "code": item.code or None,
            "message": item.message or None,
            "order_id": item.order_id or None,
            "venue_in_time": answer.in_time,
            "venue_out_time": answer.out_time,
            "answered_time": moment.wall,
        }
        if item.accepted is None:
            line.open_answer = item
            self.unknowns.add(line, moment, **told)
        elif item.accepted:
            if line.ticket.action == CREATE and line.trade is not None:
                self.blotter.open_orders.created(line.trade, item.order_id, moment.mono)
            self.blotter.finish(line, "acknowledged", moment, **told)
        else:
            error_class = item.error_class or "permanent"
            self.blotter.finish(line, "rejected", moment, rejected_by="venue", error_class=error_class, **told)

    def lost(self, requests: Iterable[str], reason: str, moment: Moment) -> None:
        """A connection is gone, and with it the answers to these requests."""
        for request in requests:
            sending = self._sent.pop(request, None)
            if (sweep := self._sweeps.pop(request, None)) is not None:
                sweep.unanswered.discard(request)
            for line in sending.lines if sending is not None else ():
                self.unknowns.add(line, moment, message=reason)
