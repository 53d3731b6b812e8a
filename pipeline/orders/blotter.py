"""What becomes of an account's items, written down: for the ledger, for whoever gave the command, and counted. Pure.

Whoever empties it keeps to the order that makes it safe: entries into the ledger's file first, results to Kafka after.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs

from pipeline.model.order_stats import OrderStats
from pipeline.model.orders import CREATE, ErrorClass, OrderResult, State
from pipeline.orders.consumer import Consumed
from pipeline.orders.ledger_entries import Entry, Intent, Outcome, Published
from pipeline.orders.open_orders import OpenOrders
from pipeline.orders.telling import Teller
from pipeline.orders.tickets import Line, Moment, Stage, Ticket


@attrs.define(eq=False)
class Blotter:
    """One ownership's. An item's stages from `intended` on are entered here, with the entry that they need."""

    teller: Teller
    open_orders: OpenOrders
    stats: OrderStats
    entries: list[Entry] = attrs.field(factory=list, init=False)
    """For the ledger, in this order."""
    results: list[tuple[OrderResult, Line | None]] = attrs.field(factory=list, init=False)
    """To publish when the entries are in the ledger's file; a line for what is final."""
    letters: list[tuple[Consumed, str]] = attrs.field(factory=list, init=False)
    """Records that cannot be read, and why."""
    must_sync: bool = attrs.field(default=False, init=False)
    """Whether the entries have to be on disk before anything else happens."""

    def take_entries(self) -> list[Entry]:
        """What to append to the ledger, each once."""
        entries, self.entries = self.entries, []
        return entries

    def take_results(self) -> list[tuple[OrderResult, Line | None]]:
        """What to publish, each once."""
        results, self.results = self.results, []
        return results

    def take_letters(self) -> list[tuple[Consumed, str]]:
        """Records for the dead letters, each once."""
        letters, self.letters = self.letters, []
        return letters

    def take_must_sync(self) -> bool:
        """Whether the disk has to be waited for now."""
        must_sync, self.must_sync = self.must_sync, False
        return must_sync

    def note(self, entry: Entry, *, must_sync: bool = False) -> None:
        """An entry that tells of no item's end."""
        self.entries.append(entry)
        self.must_sync = self.must_sync or must_sync

    def intend(self, line: Line, moment: Moment) -> None:
        """The item is about to be sent: nothing of it may be on the wire before this is on disk."""
        ticket = line.ticket
        line.stage = Stage.INTENDED
        if ticket.action == CREATE and line.trade is not None:
            self.open_orders.sent(line.trade, moment.mono)
        intent = Intent(
            ticket.command_id,
            line.number,
            *ticket.place,
            ticket.action,
            moment.wall,
            ticket.consumed,
            line.item,
            line.connection,
            ticket.reason,
            ticket.market,
            ticket.instrument,
            line.not_arrived_rule,
        )
        self.note(intent, must_sync=True)
        self.tell(line, "accepted", moment)

    def tell(self, line: Line, state: State, moment: Moment, **told: Any) -> None:
        """An interim result."""
        count(self.stats.results, state)
        self.results.append((self.teller.result(line, state, moment, **told), None))

    def finish(self, line: Line, state: State, moment: Moment, **told: Any) -> None:
        """The item's one final result."""
        line.final = self.teller.result(line, state, moment, **told)
        was_counted = line.ticket.action == CREATE and line.stage is not Stage.WAITING
        line.stage = Stage.FINAL
        if was_counted and line.trade is not None and state != "acknowledged":
            self.open_orders.failed(line.trade)
        count(self.stats.results, state)
        self.entries.append(Outcome.of(line.final))
        self.results.append((line.final, line))

    def refuse(self, line: Line, by: str, rule: str, message: str, error_class: ErrorClass, moment: Moment) -> None:
        """It ends by a rule of ours, and was not sent."""
        count(self.stats.refusals, rule)
        self.finish(line, "rejected", moment, rejected_by=by, rule=rule, message=message, error_class=error_class)

    def refuse_all(
        self, ticket: Ticket, by: str, rule: str, message: str, error_class: ErrorClass, moment: Moment
    ) -> None:
        """The same for all items of a command."""
        for line in ticket.lines:
            self.refuse(line, by, rule, message, error_class, moment)

    def expire(self, line: Line, moment: Moment) -> None:
        """It was too old before it could be sent."""
        stats, why = self.stats, ""
        if stats.connection != "live":
            why = f"; the connection is {stats.connection}: {stats.last_error}".rstrip(": ")
        self.finish(
            line,
            "expired",
            moment,
            rejected_by="connector",
            rule="expired",
            message=f"not_after or orders.max_age was over before it could be sent{why}",
            error_class="retryable",
        )

    def expire_waiting(self, ticket: Ticket, moment: Moment) -> None:
        """All items of a command that were not sent yet."""
        for line in ticket.lines:
            if line.stage is Stage.WAITING:
                self.expire(line, moment)
        ticket.chunks = deque()

    def published(self, line: Line) -> None:
        """Kafka has its final result."""
        line.stage = Stage.PUBLISHED
        self.entries.append(Published(*line.key))


def count(counts: dict[str, int], name: str) -> None:
    """One more of this name."""
    counts[name] = counts.get(name, 0) + 1
