"""What becomes of an account's commands, step by step: one object, without I/O and without a clock. Pure.

The gateway hands in what was read, answered, found or lost, with the time; the desk notes what the ledger has to say
and what to tell (`blotter`), and hands out what to send (`plan`) and to look up (`look_ups`).

An item's stages, each with what takes it to the next, and what a crash in it comes to:

| stage     | next                                                        | after a crash              |
|-----------|-------------------------------------------------------------|----------------------------|
| waiting   | guards and budgets: intended; refused or expired: final     | read again, as if new      |
| intended  | intent on disk, bytes given to the socket: sent             | unknown                    |
| sent      | answer: final; none, or one that leaves it open: unknown    | unknown                    |
| unknown   | the venue shows what became of it: final                    | unknown                    |
| final     | Kafka has the result: published                             | published, or told again   |
| published | all items of all commands up to there are so: committed     | read again, and dropped    |

The order of writing is what makes this safe. Intent before bytes: what may have been sent is known. Outcome before
result, and the result looked for in Kafka before it is published once more: a second final never leaves. Commit last.

Each part has its own state and a module: `admission` takes commands in and says how far the topic is settled,
`kill_switch` whether new ones are taken, `planner` what goes out, `in_flight` what the venue answers, `unknowns` what
it has to be asked, `sweeps` what cancels open orders. What they share is the queue of commands whose turn has not come,
and the `blotter` that all of them write to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import attrs

from pipeline.exchanges.trading import Answer, Trading
from pipeline.exchanges.venue import Catalogue
from pipeline.model.account import Order
from pipeline.model.header import Micros
from pipeline.model.order_stats import OrderStats
from pipeline.model.orders import OrderCommand
from pipeline.orders import sweeps
from pipeline.orders.admission import Admission
from pipeline.orders.blotter import Blotter
from pipeline.orders.budgets import Budgets
from pipeline.orders.commands import MalformedCommand
from pipeline.orders.consumer import Consumed, Holding, Mark
from pipeline.orders.in_flight import InFlight
from pipeline.orders.kill_switch import Switch
from pipeline.orders.ledger_entries import LedgerState
from pipeline.orders.open_orders import OpenOrders
from pipeline.orders.planner import Plan, Planner, PriceOf
from pipeline.orders.settings import AccountOrderSettings
from pipeline.orders.sweeps import Sweep
from pipeline.orders.telling import Teller
from pipeline.orders.tickets import Line, Moment, Sending, Ticket
from pipeline.orders.unknowns import Unknowns


@attrs.define(eq=False, kw_only=True)
class Desk:
    """See the module's table. Never reused by a later ownership of the topic."""

    venue: str
    account: str
    topic: str
    settings: AccountOrderSettings
    trading: Trading
    catalogue: Catalogue
    open_orders: OpenOrders
    known: LedgerState
    """What the ledger holds; it follows the blotter's entries as soon as they are appended."""
    stats: OrderStats
    run: str
    """Begins the identifiers of requests: letters and digits that no other run of this account has used."""
    budgets: Budgets = attrs.field(factory=Budgets)
    queue: deque[Ticket] = attrs.field(factory=deque, init=False)
    """Commands whose turn has not come."""
    blotter: Blotter = attrs.field(init=False)
    kill_switch: Switch = attrs.field(init=False)
    _unknowns: Unknowns = attrs.field(init=False)
    _admission: Admission = attrs.field(init=False)
    _planner: Planner = attrs.field(init=False)
    _in_flight: InFlight = attrs.field(init=False)
    _request_ids: Iterator[str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._request_ids = (f"{self.run}{number:x}" for number in count(1))
        teller = Teller(self.venue, self.account, self.catalogue)
        self.blotter = Blotter(teller, self.open_orders, self.stats)
        self.kill_switch = Switch(self.known, self.blotter, self.queue)
        self._unknowns = Unknowns(self.blotter, self.catalogue, self.settings.not_arrived_after)
        self._in_flight = InFlight(self.blotter, self._unknowns, self.budgets)
        self._admission = Admission(
            venue=self.venue,
            account=self.account,
            topic=self.topic,
            max_age=self.settings.max_age,
            known=self.known,
            blotter=self.blotter,
            unknowns=self._unknowns,
            switch=self.kill_switch,
            queue=self.queue,
        )
        self._planner = Planner(
            venue=self.venue,
            settings=self.settings,
            trading=self.trading,
            catalogue=self.catalogue,
            budgets=self.budgets,
            request_ids=self._request_ids,
            switch=self.kill_switch,
            blotter=self.blotter,
            queue=self.queue,
        )

    # Commands come in.

    def begin(self, holdings: Iterable[Holding], results: Sequence[Mapping[str, Any]], moment: Moment) -> None:
        """These partitions are ours. `results` are the fields of all results of their commands, as far as they matter.

        What the ledger has left open is looked up, or published if only that was missing.
        """
        self._admission.begin(holdings, results, moment)

    def take(self, record: Consumed, read: OrderCommand | MalformedCommand, moment: Moment) -> None:
        """One record of the topic. Raises `Refused` for one that stands before those that were read."""
        self._admission.take(record, read, moment)

    # The kill switch.

    @property
    def is_killed(self) -> bool:
        """Whether new orders are refused and open ones cancelled."""
        return self.kill_switch.is_killed

    def switch(self, moment: Moment, reason: str | None, *, is_killed: bool) -> None:
        """Use the kill switch by hand."""
        (self.kill_switch.kill if is_killed else self.kill_switch.resume)(reason, moment)

    def resume_in_turn(self, moment: Moment) -> None:
        """Take new orders again if that is the next command; whatever else waits needs the venue, this does not."""
        self.kill_switch.resume_in_turn(moment)

    # Commands go out.

    def plan(self, price_of: PriceOf, moment: Moment) -> Plan:
        """What can be sent now, in the commands' order, as soon as the blotter's entries are on disk."""
        return self._planner.plan(price_of, moment)

    def expire(self, moment: Moment) -> float:
        """Give up what waits for too long; returns when the next one will, in seconds of the monotonic clock."""
        return self._planner.expire(moment)

    def is_late(self, sending: Sending, moment: Moment) -> bool:
        """Whether a planned request has become too old to be sent; then its items have expired."""
        return self._planner.is_late(sending, moment)

    def sending(self, sending: Sending, connection: str) -> None:
        """Its bytes are about to be given to the socket."""
        self._in_flight.sending(sending, connection)

    def sent(self, sending: Sending, moment: Moment) -> None:
        """Its bytes were given to the socket."""
        self._in_flight.sent(sending, moment)

    @property
    def under_way(self) -> int:
        """Requests that the venue has not answered."""
        return len(self._in_flight)

    # Answers come in, or do not.

    def answered(self, answer: Answer, moment: Moment) -> None:
        """The venue has answered a request."""
        self._in_flight.answered(answer, moment)

    def over(self, requests: Iterable[str], reason: str, moment: Moment) -> None:
        """A connection is gone, and with it the answers to these requests."""
        self._in_flight.lost(requests, reason, moment)

    def look_ups(self, moment: Moment) -> list[Line]:
        """Whose outcome is to be asked for now; each is handed out until it is `found` or `unfound`."""
        return self._unknowns.due(moment)

    def next_look(self) -> float:
        """When there is something to look up next, in seconds of the monotonic clock."""
        return self._unknowns.next_look()

    def found(self, line: Line, order: Order | None, asked: Moment, moment: Moment) -> None:
        """What the venue shows of an order; it was `asked` then. None: it knows none such."""
        self._unknowns.found(line, order, asked, moment)

    def found_open(self, line: Line, count: int, asked: Moment, moment: Moment) -> None:
        """How many orders are open of those that a cancel_all or mass_cancel concerned."""
        self._unknowns.found_open(line, count, asked, moment)

    def unfound(self, line: Line, moment: Moment) -> None:
        """The venue did not say, or could not be asked."""
        self._unknowns.unfound(line, moment)

    # Sweeps.

    def sweep_parts(self, sweep: Sweep, not_after: Micros) -> list[Sending]:
        """The requests that cancel the orders of a sweep; those of instruments that are not known are left out."""
        return sweeps.parts(sweep.orders, not_after, self.trading, self.catalogue, self._request_ids)

    def sweeping(self, sweep: Sweep, part: Sending) -> None:
        """One of its requests is about to be sent."""
        self._in_flight.sweeping(sweep, part)

    def swept(self, ticket: Ticket, count: int, still_open: int, moment: Moment) -> None:
        """What has become of the orders that a cancel_all found."""
        sweeps.swept(self.blotter, ticket, count, still_open, moment)

    def unswept(self, ticket: Ticket, why: str, moment: Moment) -> None:
        """The open orders could not be read, so that nothing was cancelled."""
        self.blotter.refuse(ticket.lines[0], "connector", "venue", why, "retryable", moment)

    def doubt_sweep(self, ticket: Ticket, moment: Moment) -> None:
        """Some of its requests may still arrive: what is open then decides."""
        self._unknowns.add(ticket.lines[0], moment)

    # Ends.

    def delivered(self, line: Line) -> None:
        """Kafka has acknowledged the line's final result."""
        self._admission.published(line)

    def committable(self, moment: Moment) -> list[tuple[int, int, Mark]]:
        """Partitions of which more is settled than before: partition, offset and mark to commit."""
        return self._admission.committable(moment)

    def marks(self, moment: Moment) -> list[tuple[int, int, Mark]]:
        """The same of all partitions: something that marks tell has changed."""
        return self._admission.marks(moment)

    def measure(self) -> None:
        """Bring the gauges up to date."""
        stats = self.stats
        stats.waiting, stats.pending, stats.unknown = len(self.queue), self.under_way, len(self._unknowns)
        stats.oldest_unknown = self._unknowns.oldest
        stats.unsettled = sum(1 for _ in self.known.unsettled())
        stats.is_killed = self.is_killed
        stats.open_orders = self.open_orders.count
