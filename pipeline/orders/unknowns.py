"""Items whose outcome is not known: when to ask the venue, and what its answer makes of them. Pure."""

from __future__ import annotations

from math import inf
from typing import Any

import attrs

from pipeline.exchanges.trading import TradeItem
from pipeline.exchanges.venue import Catalogue
from pipeline.model.account import Order
from pipeline.model.orders import MASS_CANCEL, ErrorClass
from pipeline.orders.blotter import Blotter
from pipeline.orders.resolver import Verdict, judge, pause
from pipeline.orders.tickets import Line, Moment, Stage


@attrs.define(eq=False)
class Unknowns:
    """Of one ownership. An item leaves it with its final result only, and is never sent again."""

    blotter: Blotter
    catalogue: Catalogue
    not_arrived_after: float
    """Seconds before a venue that knows no such order is believed."""
    _lines: dict[tuple[str, int], Line] = attrs.field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def oldest(self) -> int:
        """Since when the oldest of them is so, in microseconds; 0 if there is none."""
        since = [line.unknown_since for line in self._lines.values() if line.unknown_since is not None]
        return min(since, default=0)

    def add(self, line: Line, moment: Moment, **told: object) -> None:
        """Nobody knows what became of an item that was, or may have been, sent; `told` goes into the result."""
        self.blotter.tell(line, "unknown", moment, **told)
        line.stage, line.looks = Stage.UNKNOWN, 0
        line.arrives_until = moment.mono + self.not_arrived_after
        line.look_at = moment.mono + pause(0)
        line.unknown_since = moment.wall
        self._lines[line.key] = line

    def due(self, moment: Moment) -> list[Line]:
        """Whose outcome is to be asked for now; each is handed out until it is `found` or `unfound`."""
        lines = [line for line in self._lines.values() if line.look_at <= moment.mono]
        for line in lines:
            line.look_at = inf
            if line.item is not None and line.trade is None:
                self._find_instrument(line)
        return lines

    def next_look(self) -> float:
        """When there is something to look up next, in seconds of the monotonic clock."""
        return min((line.look_at for line in self._lines.values()), default=inf)

    def found(self, line: Line, order: Order | None, asked: Moment, moment: Moment) -> None:
        """What the venue shows of an order; it was `asked` then. None: it knows none such."""
        can_still_arrive = asked.mono < line.arrives_until
        action, sent = line.ticket.action, line.sent_time
        self._settle(line, judge(action, line.wanted, order, can_still_arrive=can_still_arrive, sent=sent), moment)

    def found_open(self, line: Line, count: int, asked: Moment, moment: Moment) -> None:
        """How many orders are open of those that a cancel_all or mass_cancel concerned."""
        verdict = None
        if not count:
            verdict = Verdict("acknowledged", "none of these orders is open")
        elif asked.mono >= line.arrives_until:
            # What a mass_cancel leaves alone is not told apart.
            is_proven = line.ticket.action != MASS_CANCEL
            verdict = Verdict("rejected", f"{count} of these orders are open", is_proven=is_proven)
        self._settle(line, verdict, moment)

    def unfound(self, line: Line, moment: Moment) -> None:
        """The venue did not say, or could not be asked."""
        line.looks += 1
        line.look_at = moment.mono + pause(line.looks)

    def _settle(self, line: Line, verdict: Verdict | None, moment: Moment) -> None:
        if line.stage is not Stage.UNKNOWN:
            return
        if verdict is None:
            self.unfound(line, moment)
            return
        del self._lines[line.key]
        told = {"message": verdict.message, "order_id": verdict.order_id, "answered_time": moment.wall}
        if verdict.state == "acknowledged":
            self.blotter.finish(line, "acknowledged", moment, **told)
        elif verdict.by_venue:
            self.blotter.finish(line, "rejected", moment, rejected_by="venue", error_class="permanent", **told)
        else:
            rule = line.not_arrived_rule if verdict.is_proven else "unprovable"
            self._has_not_arrived(line, rule, moment, told)

    def _has_not_arrived(self, line: Line, rule: str, moment: Moment, told: dict[str, Any]) -> None:
        error_class: ErrorClass = "retryable"
        if (answer := line.open_answer) is not None:  # says why
            error_class = answer.error_class or error_class
            told["message"] += f"; the venue had answered: {answer.message or answer.code}"
            told["code"] = answer.code or None
        self.blotter.finish(
            line, "rejected", moment, rejected_by="connector", rule=rule, error_class=error_class, **told
        )

    def _find_instrument(self, line: Line) -> None:
        item = line.wanted
        if (instrument := self.catalogue.get((item.market, item.instrument))) is not None:
            line.trade = TradeItem(item, instrument)
