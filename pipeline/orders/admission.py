"""What comes in: partitions of the command topic with what earlier owners have left open, and command after command.

Each record either has nothing left to be done about it, or becomes a ticket that holds up the topic's offset until it
is settled. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from pipeline.model.errors import Refused
from pipeline.model.orders import KILL, RESUME, OrderCommand
from pipeline.orders.blotter import Blotter, count
from pipeline.orders.commands import MalformedCommand
from pipeline.orders.consumer import Consumed, Holding, Mark
from pipeline.orders.kill_switch import Switch
from pipeline.orders.ledger_entries import Done, LedgerState, Place, Published, Remembered
from pipeline.orders.takeover import claim, recovered, taken
from pipeline.orders.tickets import Line, Moment, Progress, Stage, Ticket
from pipeline.orders.unknowns import Unknowns


@attrs.define(eq=False, kw_only=True)
class Admission:
    """One ownership's. Puts into `queue` what may be sent, settles everything else."""

    venue: str
    account: str
    topic: str
    max_age: float
    known: LedgerState
    blotter: Blotter
    unknowns: Unknowns
    switch: Switch
    queue: deque[Ticket]
    _progress: dict[int, Progress] = attrs.field(factory=dict, init=False)
    """By partition."""
    _doubtful: dict[int, int] = attrs.field(factory=dict, init=False)
    """By partition, before which offset an earlier owner may have sent what our ledger does not know."""
    _have: set[tuple[int, int, str, int]] = attrs.field(factory=set, init=False)
    """Final results that Kafka has: partition, offset, command, item."""
    _told: set[tuple[int, int, str]] = attrs.field(factory=set, init=False)
    """Those that Kafka has any result of: partition, offset, command."""
    _settled_by_others: set[int] = attrs.field(factory=set, init=False)
    """Partitions whose offset another owner has committed. Without a mark, somebody has put it there by hand, and ours
    settles nothing that our ledger has open."""
    _live: set[str] = attrs.field(factory=set, init=False)
    """Identifiers of commands that are not settled."""
    _recovered: dict[tuple[int, int], Ticket] = attrs.field(factory=dict, init=False)
    """Commands of our ledger that are to be read again, by partition and offset."""

    def begin(self, holdings: Iterable[Holding], results: Sequence[Mapping[str, Any]], moment: Moment) -> None:
        """These partitions are ours. `results` are the fields of all results of their commands, as far as they matter.

        What the ledger has left open is looked up, or published if only that was missing. Commands of others are known
        by their results from now on: a copy of one is a repetition.
        """
        places = {each["command_id"]: Place(each["topic"], each["partition"], each["offset"]) for each in results}
        for command_id, place in places.items():
            if self.known.place(command_id) is None:
                self.blotter.note(Remembered(command_id, *place))
        finals = (fields for fields in results if fields["is_final"])
        self._have = {(each["partition"], each["offset"], each["command_id"], each["item"]) for each in finals}
        self._told = {(each["partition"], each["offset"], each["command_id"]) for each in results}
        seen = {partition for partition, _, _ in self._told}
        for holding in holdings:
            at, mark = holding.partition, claim(self.topic, holding, self.known, moment.wall)
            self._progress[at] = Progress(self.topic, at, holding.start, holding.end, mark.since)
            is_virgin = not holding.is_committed and at not in seen
            self._doubtful[at] = 0 if is_virgin else mark.doubtful_until
            if holding.mark is not None and holding.mark.owner != self.known.identifier:
                self._settled_by_others.add(at)
            if mark.is_killed:
                self.switch.inherit(moment)
        for command_id, known in self.known.commands.items():
            if known.place.topic == self.topic:
                self._take_up(recovered(command_id, known, self.venue, self.account), moment)
        for progress in self._progress.values():
            if progress.next_offset > self.known.done.get((self.topic, progress.partition), 0):
                self.blotter.note(Done(self.topic, progress.partition, progress.next_offset))

    def _take_up(self, ticket: Ticket, moment: Moment) -> None:
        place = ticket.place
        progress = self._progress.get(place.partition)
        if progress is None:
            return  # whoever holds that partition has taken it for doubtful
        if place.offset < progress.next_offset and place.partition in self._settled_by_others:
            for line in ticket.lines:
                self.blotter.note(Published(*line.key))
            return
        self._recovered[place.partition, place.offset] = ticket
        self._live.add(ticket.command_id)
        for line in ticket.lines:
            if line.stage is Stage.PUBLISHED:
                continue
            if self._has_result(line):
                self.published(line)
            elif line.final is not None:
                self.blotter.results.append((line.final, line))
            else:
                self.unknowns.add(line, moment)

    def take(self, record: Consumed, read: OrderCommand | MalformedCommand, moment: Moment) -> None:
        """One record of the topic. Raises `Refused` for one that stands before those that were read."""
        progress = self._progress.get(record.partition)
        if progress is not None:
            if record.offset <= progress.last:
                where = f"{self.topic}[{record.partition}]"
                raise Refused(f"{where} has gone from offset {progress.last} to {record.offset}: it was made anew")
            progress.add(record.offset, self._admit(record, read, moment), record.time)

    def _admit(self, record: Consumed, read: OrderCommand | MalformedCommand, moment: Moment) -> Ticket | None:
        """Who has to be settled before the record is; None if nothing is left to do about it."""
        stats = self.blotter.stats
        place = Place(record.topic, record.partition, record.offset)
        if self.known.is_done(place):
            stats.replayed += 1
            return None
        ticket = taken(place, read, record.time, self.max_age)
        if (earlier := self._recovered.pop((record.partition, record.offset), None)) is not None:
            stats.replayed += 1
            return self._completed(earlier, ticket, moment)
        if all(self._has_result(line) for line in ticket.lines):
            stats.replayed += 1
            self.blotter.note(Remembered(ticket.command_id, *place))
            return None
        if ticket.command_id in self._live or self.known.place(ticket.command_id) not in (None, place):
            stats.repeated += 1
            return None
        self._live.add(ticket.command_id)
        count(stats.commands, ticket.action)
        if isinstance(read, MalformedCommand):
            self.blotter.letters.append((record, str(read)))
            self.blotter.refuse(ticket.lines[0], "connector", "schema", str(read), "permanent", moment)
        elif (read.venue, read.account) != (self.venue, self.account):
            why = f"this is the command topic of {self.venue}.{self.account}, not of {read.venue}.{read.account}"
            self.blotter.refuse_all(ticket, "connector", "account", why, "permanent", moment)
        else:
            self._receive(ticket, moment)
        return ticket

    def _receive(self, ticket: Ticket, moment: Moment) -> None:
        """A command of ours that is new, as far as this ledger and the results tell."""
        place = ticket.place
        # If it was told of and our ledger does not know it, that is older than it was: a copy that was put back.
        was_told = (place.partition, place.offset, ticket.command_id) in self._told
        is_doubtful = was_told or place.offset < self._doubtful.get(place.partition, 0)
        if ticket.action == KILL:
            # However old: what it is for may be as urgent as ever, and it can be taken back.
            self.switch.kill(ticket.reason, moment)
            message = "new orders are refused, open ones are being cancelled"
            self.blotter.finish(ticket.lines[0], "acknowledged", moment, message=message)
        elif not is_doubtful and ticket.ahead > self.max_age:
            why = f"issued_at is {ticket.ahead:.0f} s ahead of this machine's clock, more than orders.max_age"
            self.blotter.refuse_all(ticket, "connector", "clock", why, "retryable", moment)
        elif not is_doubtful:
            self.queue.append(ticket)
        elif ticket.action == RESUME:
            why = "the topic has had another owner since, who may have been switched off again"
            self.blotter.refuse(ticket.lines[0], "connector", "ownership", why, "retryable", moment)
        else:
            self._doubt(ticket, moment)

    def _completed(self, earlier: Ticket, again: Ticket, moment: Moment) -> Ticket:
        """What the ledger knows of a command, with the items that it does not know: they were never sent."""
        known = {line.number for line in earlier.lines}
        for line in again.lines:
            if line.number not in known:
                line.ticket = earlier
                earlier.lines.append(line)
                if self._has_result(line):
                    self.published(line)
                else:
                    why = "the process ended before it was sent"
                    self.blotter.refuse(line, "connector", "not_arrived", why, "retryable", moment)
        return earlier

    def _doubt(self, ticket: Ticket, moment: Moment) -> None:
        """It may have been sent by an earlier owner of the topic, so it is not sent by us, whatever the venue knows."""
        for line in ticket.lines:
            if self._has_result(line):
                self.published(line)
            else:
                line.not_arrived_rule = "ownership"
                self.unknowns.add(line, moment)

    def _has_result(self, line: Line) -> bool:
        place = line.ticket.place  # with the command: a topic that was made anew has others at the same places
        return (place.partition, place.offset, *line.key) in self._have

    def published(self, line: Line) -> None:
        """Kafka has the line's final result."""
        self.blotter.published(line)
        if line.ticket.is_settled:
            self._live.discard(line.ticket.command_id)

    def committable(self, moment: Moment) -> list[tuple[int, int, Mark]]:
        """Partitions of which more is settled than before: partition, offset and mark to commit."""
        found = []
        for progress in self._progress.values():
            if progress.advance():
                self.blotter.note(Done(progress.topic, progress.partition, progress.next_offset))
                found.append((progress.partition, progress.next_offset, self._mark(progress, moment)))
        return found

    def marks(self, moment: Moment) -> list[tuple[int, int, Mark]]:
        """The same of all partitions: something that marks tell has changed."""
        return [(each.partition, each.next_offset, self._mark(each, moment)) for each in self._progress.values()]

    def _mark(self, progress: Progress, moment: Moment) -> Mark:
        doubtful = self._doubtful.get(progress.partition, 0)
        return Mark(
            self.known.identifier,
            progress.since(moment.wall),
            doubtful if doubtful > progress.next_offset else 0,
            is_killed=self.known.is_killed,
        )
