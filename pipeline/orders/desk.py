"""What becomes of an account's commands, step by step: one object, without I/O and without a clock. Pure.

The gateway hands in what was read, answered, found or lost, with the time; the desk notes what the ledger has to say
(`entries`), what to tell (`results`), and hands out what to send (`plan`) and to look up (`look_ups`).

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
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any

import attrs

from pipeline.exchanges.trading import Answer, Cost, ItemAnswer, TradeItem, TradeRequest, Trading
from pipeline.exchanges.venue import Catalogue
from pipeline.model.account import Order
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Instrument, Micros
from pipeline.model.order_stats import OrderStats
from pipeline.model.orders import (
    AMEND,
    CANCEL,
    CANCEL_ALL,
    CREATE,
    KILL,
    MASS_CANCEL,
    RESUME,
    ErrorClass,
    OrderCommand,
    OrderItem,
    OrderResult,
    State,
)
from pipeline.orders.budgets import Budgets
from pipeline.orders.commands import MalformedCommand
from pipeline.orders.consumer import Consumed, Holding, Mark
from pipeline.orders.guards import Facts, Refusal, check
from pipeline.orders.ledger_entries import (
    Done,
    Entry,
    Intent,
    KillSwitch,
    LedgerState,
    Outcome,
    Place,
    Published,
    Remembered,
)
from pipeline.orders.open_orders import OpenOrders
from pipeline.orders.resolver import Verdict, judge, pause
from pipeline.orders.settings import AccountOrderSettings
from pipeline.orders.takeover import claim, recovered, taken
from pipeline.orders.telling import Teller
from pipeline.orders.tickets import Line, Moment, Progress, Stage, Ticket

MAX_PLANNED = 64
"""Requests that one wait for the ledger's disk covers."""
LONGEST_HOLD = 10.0
"""Seconds for which a venue's word about its own budget is taken."""
LATER = 0.001
"""Seconds after a deadline at which it has certainly passed."""

_UNTOLD = ItemAnswer(None, message="the answer does not tell of this item")


@attrs.frozen
class Sending:
    """A request that the ledger knows of once the desk's entries are on disk."""

    request: TradeRequest
    costs: tuple[Cost, ...]
    lines: tuple[Line, ...]
    """Of which it tells; empty for the parts of a sweep."""


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


@attrs.define(eq=False)
class Sweep:
    """Cancelling what is open: of a cancel_all, or because the kill switch was used."""

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


PriceOf = Callable[[Instrument], DecimalText | None]
"""A fresh reference price; None if it has to be read first."""


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
    """What the ledger holds; it follows `entries` as soon as they are appended."""
    stats: OrderStats
    run: str
    """Begins the identifiers of requests: letters and digits that no other run of this account has used."""
    budgets: Budgets = attrs.field(factory=Budgets)
    kill_file: bool = False
    """Whether the file is there that switches orders off."""
    entries: list[Entry] = attrs.field(factory=list, init=False)
    results: list[tuple[OrderResult, Line | None]] = attrs.field(factory=list, init=False)
    """To publish when the entries are in the ledger's file; a line for what is final."""
    letters: list[tuple[Consumed, str]] = attrs.field(factory=list, init=False)
    """Records that cannot be read, and why."""
    must_sync: bool = attrs.field(default=False, init=False)
    """Whether the entries have to be on disk before anything else happens."""
    progress: dict[int, Progress] = attrs.field(factory=dict, init=False)
    queue: deque[Ticket] = attrs.field(factory=deque, init=False)
    unknown: dict[tuple[str, int], Line] = attrs.field(factory=dict, init=False)
    _doubtful: dict[int, int] = attrs.field(factory=dict, init=False)
    """By partition, before which offset an earlier owner may have sent what our ledger does not know."""
    _have: set[tuple[int, int, int]] = attrs.field(factory=set, init=False)
    """Final results that Kafka has: partition, offset, item."""
    _live: set[str] = attrs.field(factory=set, init=False)
    """Identifiers of commands that are not settled."""
    _recovered: dict[tuple[int, int], Ticket] = attrs.field(factory=dict, init=False)
    _sent: dict[str, Sending] = attrs.field(factory=dict, init=False)
    _sweeps: dict[str, Sweep] = attrs.field(factory=dict, init=False)
    """By request."""
    _requests: int = attrs.field(default=0, init=False)
    _teller: Teller = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._teller = Teller(self.venue, self.account, self.catalogue)

    # Taking over.

    def begin(self, holdings: Iterable[Holding], results: Sequence[Mapping[str, Any]], moment: Moment) -> None:
        """These partitions are ours. `results` are the fields of all results of their commands, as far as they matter.

        What the ledger has left open is looked up, or published if only that was missing.
        """
        self._have = {_place_of(fields) for fields in results if fields["is_final"]}
        seen = {fields["partition"] for fields in results}
        for holding in holdings:
            at, mark = holding.partition, claim(holding, self.known, moment.wall)
            self.progress[at] = Progress(self.topic, at, holding.start, holding.end, mark.since)
            is_virgin = not holding.is_committed and at not in seen
            self._doubtful[at] = 0 if is_virgin else mark.doubtful_until
            if mark.is_killed and not self.known.is_killed:
                self._note_killed(moment, "switched off by an earlier owner of the topic", is_killed=True)
        for command_id, known in self.known.commands.items():
            if known.place.topic == self.topic:
                self._take_up(recovered(command_id, known, self.venue, self.account), moment)
        for progress in self.progress.values():
            if progress.next_offset > self.known.done.get((self.topic, progress.partition), 0):
                self.entries.append(Done(self.topic, progress.partition, progress.next_offset))

    def _take_up(self, ticket: Ticket, moment: Moment) -> None:
        place = ticket.place
        progress = self.progress.get(place.partition)
        if progress is None:
            return  # whoever holds that partition has taken it for doubtful
        if place.offset < progress.next_offset:
            for line in ticket.lines:  # another owner has settled it
                self.entries.append(Published(*line.key))
            return
        self._recovered[place.partition, place.offset] = ticket
        self._live.add(ticket.command_id)
        for line in ticket.lines:
            if line.stage is Stage.PUBLISHED:
                continue
            if (place.partition, place.offset, line.number) in self._have:
                self._published(line)
            elif line.final is not None:
                self.results.append((line.final, line))
            else:
                self._look_up(line, moment, arrives_until=moment.mono + self.settings.not_arrived_after)

    # Commands come in.

    def take(self, record: Consumed, read: OrderCommand | MalformedCommand, moment: Moment) -> None:
        """One record of the topic."""
        progress = self.progress.get(record.partition)
        if progress is not None:
            progress.add(record.offset, self._admit(record, read, moment), record.time)

    def _admit(self, record: Consumed, read: OrderCommand | MalformedCommand, moment: Moment) -> Ticket | None:
        """Who has to be settled before the record is; None if nothing is left to do about it."""
        place = Place(record.topic, record.partition, record.offset)
        if self.known.is_done(place):
            self.stats.replayed += 1
            return None
        ticket = taken(place, read, record.time, self.settings.max_age)
        if (earlier := self._recovered.pop((record.partition, record.offset), None)) is not None:
            self.stats.replayed += 1
            return self._completed(earlier, ticket, moment)
        if all((place.partition, place.offset, line.number) in self._have for line in ticket.lines):
            self.stats.replayed += 1
            self.entries.append(Remembered(ticket.command_id, *place))
            return None
        if ticket.command_id in self._live or self.known.place(ticket.command_id) is not None:
            self.stats.repeated += 1
            return None
        self._live.add(ticket.command_id)
        _count(self.stats.commands, ticket.action)
        if isinstance(read, MalformedCommand):
            self.letters.append((record, str(read)))
            self._refuse(ticket.lines[0], "connector", "schema", str(read), "permanent", moment)
        elif (read.venue, read.account) != (self.venue, self.account):
            why = f"this is the command topic of {self.venue}.{self.account}, not of {read.venue}.{read.account}"
            self._refuse_all(ticket, "connector", "account", why, "permanent", moment)
        elif ticket.action == KILL:
            # However old: what it is for may be as urgent as ever, and it can be taken back.
            self._kill(ticket.reason, moment)
            message = "new orders are refused, open ones are being cancelled"
            self._finish(ticket.lines[0], "acknowledged", moment, message=message)
        elif ticket.action == RESUME and self._is_doubtful(place):
            why = "the topic has had another owner since, who may have been switched off again"
            self._refuse(ticket.lines[0], "connector", "ownership", why, "retryable", moment)
        elif self._is_doubtful(place):
            self._doubt(ticket, moment)
        else:
            self.queue.append(ticket)
        return ticket

    def _completed(self, earlier: Ticket, again: Ticket, moment: Moment) -> Ticket:
        """What the ledger knows of a command, with the items that it does not know: they were never sent."""
        known = {line.number for line in earlier.lines}
        for line in again.lines:
            if line.number not in known:
                line.ticket = earlier
                earlier.lines.append(line)
                why = "the process ended before it was sent"
                if (again.place.partition, again.place.offset, line.number) in self._have:
                    self._published(line)
                else:
                    self._refuse(line, "connector", "not_arrived", why, "retryable", moment)
        return earlier

    def _is_doubtful(self, place: Place) -> bool:
        return place.offset < self._doubtful.get(place.partition, 0)

    def _doubt(self, ticket: Ticket, moment: Moment) -> None:
        """It may have been sent by an earlier owner of the topic, so it is not sent by us, whatever the venue knows."""
        for line in ticket.lines:
            if (ticket.place.partition, ticket.place.offset, line.number) in self._have:
                self._published(line)
                continue
            line.not_arrived_rule = "ownership"
            self._look_up(line, moment, arrives_until=moment.mono + self.settings.not_arrived_after)

    # The kill switch.

    @property
    def is_killed(self) -> bool:
        """Whether new orders are refused and open ones cancelled."""
        return self._is_switched_off or self.kill_file

    @property
    def _is_switched_off(self) -> bool:
        """As of the newest entry, be it in the ledger or not yet: what was read behind it must find it so."""
        newest = (each.is_on for each in reversed(self.entries) if isinstance(each, KillSwitch))
        return next(newest, self.known.is_killed)

    def switch(self, moment: Moment, reason: str | None, *, is_killed: bool) -> None:
        """Use the kill switch."""
        if is_killed:
            self._kill(reason, moment)
        elif self._is_switched_off:
            self._note_killed(moment, reason, is_killed=False)

    def resume_in_turn(self, moment: Moment) -> None:
        """Take new orders again if that is the next command; whatever else waits needs the venue, this does not."""
        while self.queue and self.queue[0].action == RESUME:
            self._resume(self.queue.popleft(), moment)

    def _kill(self, reason: str | None, moment: Moment) -> None:
        for ticket in [each for each in self.queue if each.action == RESUME]:
            # It stands before this, and would come after it. Noted first: a crash must not bring it back.
            self.queue.remove(ticket)
            why = "new orders were switched off again before its turn came"
            self._refuse(ticket.lines[0], "connector", "kill_switch", why, "retryable", moment)
        if not self._is_switched_off:
            self._note_killed(moment, reason, is_killed=True)

    def _resume(self, ticket: Ticket, moment: Moment) -> None:
        if ticket.deadline is not None and moment.wall > ticket.deadline:
            self._expire_waiting(ticket, moment)
            return
        self._note_killed(moment, ticket.reason, is_killed=False)
        still = "; the kill file is still there" if self.kill_file else ""
        self._finish(ticket.lines[0], "acknowledged", moment, message=f"new orders are taken again{still}")

    # Commands go out.

    def plan(self, price_of: PriceOf, moment: Moment) -> Plan:
        """What can be sent now, in the commands' order, as soon as `entries` are on disk."""
        plan = Plan()
        while self.queue and len(plan.sendings) < MAX_PLANNED:
            ticket = self.queue[0]
            if ticket.deadline is not None and moment.wall > ticket.deadline:
                self._expire_waiting(ticket, moment)
            elif ticket.action == RESUME:
                self._resume(ticket, moment)
            elif ticket.action == CANCEL_ALL:
                if not plan.sendings:
                    self.queue.popleft()
                    self._intend(ticket.lines, moment)
                    plan.sweep = ticket
                return plan
            elif not self._judged(ticket, price_of, plan, moment) or not self._paid(ticket, plan, moment):
                return plan
            if not ticket.chunks:
                self.queue.popleft()
        return plan

    def expire(self, moment: Moment) -> float:
        """Give up what waits for too long; returns when the next one will, in seconds of the monotonic clock."""
        earliest = inf
        for ticket in list(self.queue):
            assert ticket.deadline is not None
            if moment.wall > ticket.deadline:
                self._expire_waiting(ticket, moment)
                self.queue.remove(ticket)
            else:
                earliest = min(earliest, moment.mono + (ticket.deadline - moment.wall) / 1e6 + LATER)
        return earliest

    def _judged(self, ticket: Ticket, price_of: PriceOf, plan: Plan, moment: Moment) -> bool:
        """Whether the guards have seen it; if not, they need prices first."""
        if ticket.chunks is not None:
            return True
        if ticket.action == MASS_CANCEL:
            market = str(ticket.market)
            [line] = ticket.lines
            ticket.chunks = deque()
            if self.trading.batch(MASS_CANCEL, market):
                ticket.chunks.append((line,))
            else:
                why = f"{self.venue} has no mass_cancel of market {market}"
                self._refuse(line, "guard", "venue", why, "permanent", moment)
            return True
        for line in ticket.lines:
            item = line.item
            assert item is not None
            instrument = self.catalogue.get((item.market, item.instrument))
            if instrument is not None:
                line.trade = TradeItem(item, instrument)
        if ticket.action != CANCEL and not ticket.is_priced:
            traded = (line.trade.instrument for line in ticket.lines if line.trade is not None)
            plan.prices = [instrument for instrument in traded if price_of(instrument) is None]
            ticket.is_priced = True  # asked for once: what the venue does not tell then is missing
            if plan.prices:
                return False
        self._guard(ticket, price_of, moment)
        return True

    def _guard(self, ticket: Ticket, price_of: PriceOf, moment: Moment) -> None:
        passed: list[Line] = []
        for line in ticket.lines:
            refusal = self._refusal(ticket.action, line, price_of, len(passed))
            if refusal is None:
                passed.append(line)
            else:
                self._refuse(line, "guard", refusal.rule, refusal.message, refusal.error_class, moment)
        ticket.chunks = deque()
        if passed:
            most = self.trading.batch(ticket.action, _item(passed[0]).market)
            if not most:
                for line in passed:
                    why = f"{self.venue} has no {ticket.action} of market {_item(line).market}"
                    self._refuse(line, "guard", "venue", why, "permanent", moment)
                return
            ticket.chunks.extend(tuple(passed[at : at + most]) for at in range(0, len(passed), most))

    def _refusal(self, action: str, line: Line, price_of: PriceOf, before: int) -> Refusal | None:
        item, trade = _item(line), line.trade
        if trade is None:
            why = f"{self.venue} {item.market} has no instrument {item.instrument} that is known"
            return Refusal("instrument", why, "permanent")
        facts = Facts(
            is_killed=self.is_killed,
            reference_price=price_of(trade.instrument) if action != CANCEL else None,
            open_orders=self.open_orders.count + before,
            known_order=self.open_orders.find(item.client_order_id, item.order_id) if action == AMEND else None,
        )
        refusal = check(action, trade, facts, self.settings)
        if refusal is None and (found := self.trading.problems(action, trade)):
            return Refusal("venue", "; ".join(f"{field}: {why}" for field, why in found), "permanent")
        return refusal

    def _paid(self, ticket: Ticket, plan: Plan, moment: Moment) -> bool:
        """Whether all of its requests are planned or refused; if not, the venue's rate has to be waited for."""
        while ticket.chunks:
            lines = ticket.chunks[0]
            request = self._request(ticket, lines)
            costs = tuple(self.trading.costs(request))
            free = self.budgets.free_at(costs)
            since = ticket.blocked_since
            if free <= moment.mono:
                self.budgets.take(costs, moment.mono)
                self._intend(lines, moment)
                plan.sendings.append(Sending(request, costs, lines))
            elif free - (moment.mono if since is None else since) > self.settings.rate_wait:
                why = (
                    f"the venue's rate would have it wait {free - moment.mono:.1f} s" if free < inf else "never allowed"
                )
                for line in lines:
                    self._refuse(line, "guard", "rate", why, "rate_limited", moment)
            else:
                ticket.blocked_since = moment.mono if since is None else since
                plan.again_at = free
                return False
            ticket.blocked_since = None
            ticket.chunks.popleft()
            if len(plan.sendings) >= MAX_PLANNED:
                return False
        return True

    def _request(self, ticket: Ticket, lines: Sequence[Line]) -> TradeRequest:
        items = tuple(line.trade for line in lines if line.trade is not None)
        assert ticket.deadline is not None
        market = ticket.market or (items[0].item.market if items else None)
        return TradeRequest(self._next_id(), ticket.action, items, ticket.deadline, market, ticket.instrument)

    def _next_id(self) -> str:
        self._requests += 1
        return f"{self.run}{self._requests:x}"

    def _intend(self, lines: Sequence[Line], moment: Moment) -> None:
        for line in lines:
            line.stage = Stage.INTENDED
            if line.ticket.action == CREATE and line.trade is not None:
                self.open_orders.sent(line.trade, moment.mono)
            self._note_intent(line, moment)
            self._tell(line, "accepted", moment)
        self.must_sync = True

    def is_late(self, sending: Sending, moment: Moment) -> bool:
        """Whether a planned request has become too old to be sent; then its items have expired."""
        if moment.wall <= sending.request.not_after:
            return False
        for line in sending.lines:
            self._expire(line, moment)
        return True

    def sending(self, sending: Sending, connection: str) -> None:
        """Its bytes are about to be given to the socket."""
        self._sent[sending.request.id] = sending
        for line in sending.lines:
            line.stage, line.connection = Stage.SENT, connection

    def sent(self, sending: Sending, moment: Moment) -> None:
        """Its bytes were given to the socket."""
        for line in sending.lines:
            line.sent_time = moment.wall
            if line.stage is Stage.SENT:  # the answer may have been quicker
                self._tell(line, "sent", moment)
        if sending.lines and (consumed := sending.lines[0].ticket.consumed) is not None:
            self.stats.until_sent.observe((moment.wall - consumed) / 1e6)

    @property
    def under_way(self) -> int:
        """Requests that the venue has not answered."""
        return len(self._sent)

    # Answers.

    def answered(self, answer: Answer, moment: Moment) -> None:
        """The venue has answered a request."""
        for limit in answer.limits:
            if limit.remaining <= 0:
                pause = min(max(0, limit.reset - moment.venue) / 1e6, LONGEST_HOLD)
                self.budgets.hold_known(limit.key, moment.mono + pause)
        sending = self._sent.pop(answer.request_id, None)
        if sending is None:
            return
        if any(item.error_class == "rate_limited" for item in answer.items) and not answer.limits:
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
            self._tell(line, "unknown", moment, **told)
            self._look_up(line, moment, arrives_until=moment.mono + self.settings.not_arrived_after, is_told=True)
        elif item.accepted:
            if line.ticket.action == CREATE and line.trade is not None:
                self.open_orders.created(line.trade, item.order_id, moment.mono)
            self._finish(line, "acknowledged", moment, **told)
        else:
            error_class = item.error_class or "permanent"
            self._finish(line, "rejected", moment, rejected_by="venue", error_class=error_class, **told)

    def over(self, requests: Iterable[str], reason: str, moment: Moment) -> None:
        """A connection is gone, and with it the answers to these requests."""
        for request in requests:
            sending = self._sent.pop(request, None)
            if (sweep := self._sweeps.pop(request, None)) is not None:
                sweep.unanswered.discard(request)
            for line in sending.lines if sending is not None else ():
                self._tell(line, "unknown", moment, message=reason)
                until = moment.mono + self.settings.not_arrived_after
                self._look_up(line, moment, arrives_until=until, is_told=True)

    # Unknown outcomes.

    def _look_up(self, line: Line, moment: Moment, *, arrives_until: float, is_told: bool = False) -> None:
        line.stage, line.arrives_until, line.looks = Stage.UNKNOWN, arrives_until, 0
        line.look_at = moment.mono + pause(0)
        line.unknown_since = moment.wall
        if line.trade is None and line.item is not None:
            self._find_instrument(line)
        self.unknown[line.key] = line
        if not is_told:
            self._tell(line, "unknown", moment)

    def _find_instrument(self, line: Line) -> None:
        item = _item(line)
        if (instrument := self.catalogue.get((item.market, item.instrument))) is not None:
            line.trade = TradeItem(item, instrument)

    def look_ups(self, moment: Moment) -> list[Line]:
        """Whose outcome is to be asked for now; each is handed out until it is `found` or `unfound`."""
        due = [line for line in self.unknown.values() if line.look_at <= moment.mono]
        for line in due:
            line.look_at = inf
            if line.item is not None and line.trade is None:
                self._find_instrument(line)
        return due

    def next_look(self) -> float:
        """When there is something to look up next."""
        return min((line.look_at for line in self.unknown.values()), default=inf)

    def found(self, line: Line, order: Order | None, asked: Moment, moment: Moment) -> None:
        """What the venue shows of an order; it was `asked` then. None: it knows none such."""
        can_still_arrive = asked.mono < line.arrives_until
        action, sent = line.ticket.action, line.sent_time
        verdict = judge(action, _item(line), order, can_still_arrive=can_still_arrive, sent=sent)
        self._settle(line, verdict, moment)

    def found_open(self, line: Line, count: int, asked: Moment, moment: Moment) -> None:
        """How many orders are open of those that a cancel_all or mass_cancel concerned."""
        verdict = None
        if not count:
            verdict = Verdict("acknowledged", "none of these orders is open")
        elif asked.mono >= line.arrives_until:
            verdict = Verdict("rejected", f"{count} of these orders are open")
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
        elif verdict.state == "acknowledged":
            self._finish(
                line,
                "acknowledged",
                moment,
                message=verdict.message,
                order_id=verdict.order_id,
                answered_time=moment.wall,
            )
        else:
            self._finish(
                line,
                "rejected",
                moment,
                rejected_by="venue" if verdict.by_venue else "connector",
                rule=None if verdict.by_venue else line.not_arrived_rule,
                message=verdict.message,
                order_id=verdict.order_id,
                error_class="permanent" if verdict.by_venue else "retryable",
                answered_time=moment.wall,
            )

    # Sweeps.

    def sweep_parts(self, sweep: Sweep, not_after: Micros) -> list[Sending]:
        """The requests that cancel the orders of a sweep; those of instruments that are not known are left out."""
        by_market: dict[str, list[TradeItem]] = {}
        for order in sweep.orders:
            origin = order.origin
            instrument = self.catalogue.get((origin.market, str(origin.instrument)))
            if instrument is not None and self.trading.batch(CANCEL, origin.market):
                item = OrderItem(origin.market, str(origin.instrument), order_id=order.order_id)
                by_market.setdefault(origin.market, []).append(TradeItem(item, instrument))
        parts = []
        for market, items in by_market.items():
            most = self.trading.batch(CANCEL, market)
            for at in range(0, len(items), most):
                request = TradeRequest(self._next_id(), CANCEL, tuple(items[at : at + most]), not_after, market)
                parts.append(Sending(request, tuple(self.trading.costs(request)), ()))
        return parts

    def sweeping(self, sweep: Sweep, part: Sending) -> None:
        """One of its requests is about to be sent."""
        self._sent[part.request.id] = part
        self._sweeps[part.request.id] = sweep
        sweep.unanswered.add(part.request.id)

    def swept(self, ticket: Ticket, count: int, still_open: int, moment: Moment) -> None:
        """What has become of the orders that a cancel_all found."""
        [line] = ticket.lines
        if still_open:
            self._finish(
                line,
                "rejected",
                moment,
                rejected_by="venue",
                error_class="retryable",
                message=f"{still_open} of {count} orders are still open",
                answered_time=moment.wall,
            )
        else:
            self._finish(line, "acknowledged", moment, message=f"orders: {count}", answered_time=moment.wall)

    def unswept(self, ticket: Ticket, why: str, moment: Moment) -> None:
        """The open orders could not be read, so that nothing was cancelled."""
        self._refuse(ticket.lines[0], "connector", "venue", why, "retryable", moment)

    def doubt_sweep(self, ticket: Ticket, moment: Moment) -> None:
        """Some of its requests may still arrive: what is open then decides."""
        self._look_up(ticket.lines[0], moment, arrives_until=moment.mono + self.settings.not_arrived_after)

    # Ends.

    def delivered(self, line: Line) -> None:
        """Kafka has acknowledged the line's final result."""
        self._published(line)

    def committable(self, moment: Moment) -> list[tuple[int, int, Mark]]:
        """Partitions of which more is settled than before: partition, offset and mark to commit."""
        found = []
        for progress in self.progress.values():
            if progress.advance():
                self.entries.append(Done(progress.topic, progress.partition, progress.next_offset))
                found.append((progress.partition, progress.next_offset, self.mark(progress, moment)))
        return found

    def marks(self, moment: Moment) -> list[tuple[int, int, Mark]]:
        """The same of all partitions: something that marks tell has changed."""
        return [(each.partition, each.next_offset, self.mark(each, moment)) for each in self.progress.values()]

    def mark(self, progress: Progress, moment: Moment) -> Mark:
        """What to leave in a commit now."""
        doubtful = self._doubtful.get(progress.partition, 0)
        return Mark(
            self.known.identifier,
            progress.since(moment.wall),
            doubtful if doubtful > progress.next_offset else 0,
            is_killed=self.known.is_killed,
        )

    def measure(self) -> None:
        """Bring the gauges up to date."""
        stats = self.stats
        stats.waiting, stats.pending, stats.unknown = len(self.queue), len(self._sent), len(self.unknown)
        since = [line.unknown_since for line in self.unknown.values() if line.unknown_since is not None]
        stats.oldest_unknown = min(since, default=0)
        stats.unsettled = sum(1 for _ in self.known.unsettled())
        stats.is_killed = self.is_killed
        stats.open_orders = self.open_orders.count

    def _expire_waiting(self, ticket: Ticket, moment: Moment) -> None:
        for line in ticket.lines:
            if line.stage is Stage.WAITING:
                self._expire(line, moment)
        ticket.chunks = deque()

    def _expire(self, line: Line, moment: Moment) -> None:
        stats, why = self.stats, ""
        if stats.connection != "live":
            why = f"; the connection is {stats.connection}: {stats.last_error}".rstrip(": ")
        self._finish(
            line,
            "expired",
            moment,
            rejected_by="connector",
            rule="expired",
            message=f"not_after or orders.max_age was over before it could be sent{why}",
            error_class="retryable",
        )

    def _refuse_all(
        self, ticket: Ticket, by: str, rule: str, message: str, error_class: ErrorClass, moment: Moment
    ) -> None:
        for line in ticket.lines:
            self._refuse(line, by, rule, message, error_class, moment)

    def _refuse(self, line: Line, by: str, rule: str, message: str, error_class: ErrorClass, moment: Moment) -> None:
        _count(self.stats.refusals, rule)
        self._finish(line, "rejected", moment, rejected_by=by, rule=rule, message=message, error_class=error_class)

    def _finish(self, line: Line, state: State, moment: Moment, **told: Any) -> None:
        line.final = self._teller.result(line, state, moment, **told)
        line.stage = Stage.FINAL
        self.unknown.pop(line.key, None)
        if line.ticket.action == CREATE and line.trade is not None and state != "acknowledged":
            self.open_orders.failed(line.trade)
        _count(self.stats.results, state)
        self.entries.append(Outcome.of(line.final))
        self.results.append((line.final, line))

    def _published(self, line: Line) -> None:
        line.stage = Stage.PUBLISHED
        self.entries.append(Published(*line.key))
        if line.ticket.is_settled:
            self._live.discard(line.ticket.command_id)

    def _tell(self, line: Line, state: State, moment: Moment, **told: Any) -> None:
        _count(self.stats.results, state)
        self.results.append((self._teller.result(line, state, moment, **told), None))

    def _note_intent(self, line: Line, moment: Moment) -> None:
        ticket = line.ticket
        self.entries.append(
            Intent(
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
        )

    def _note_killed(self, moment: Moment, reason: str | None, *, is_killed: bool) -> None:
        self.entries.append(KillSwitch(is_killed, moment.wall, reason))
        self.must_sync = True


def _place_of(fields: Mapping[str, Any]) -> tuple[int, int, int]:
    return fields["partition"], fields["offset"], fields["item"]


def _item(line: Line) -> OrderItem:
    assert line.item is not None
    return line.item


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
