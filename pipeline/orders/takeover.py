"""What is known at once of a command, or of a partition, that has just come into our hands. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.model.header import Micros
from pipeline.model.orders import OrderCommand, OrderItem
from pipeline.orders.commands import MalformedCommand
from pipeline.orders.consumer import Holding, Mark
from pipeline.orders.identity import identified
from pipeline.orders.ledger_entries import KnownCommand, LedgerState, Place
from pipeline.orders.tickets import Line, Stage, Ticket


def claim(topic: str, holding: Holding, known: LedgerState, now: Micros) -> Mark:
    """What to leave in the commits of a partition at once when it has become ours, before anything is sent.

    What another owner may have sent stays doubtful for whoever comes after us, until it is settled. Of a partition
    that nobody has ever committed that is not known yet.
    """
    mark = holding.mark
    doubtful = mark.doubtful_until if mark is not None and mark.owner == known.identifier else holding.end
    since = mark.since if mark is not None else Micros(0) if holding.start < holding.end else now
    # A resume that came after the mark is in the ledger, if that has all that happened.
    is_killed = known.is_killed or (mark is not None and mark.is_killed and not is_whole(known, topic, holding))
    return Mark(known.identifier, since, doubtful, is_killed=is_killed)


def is_whole(known: LedgerState, topic: str, holding: Holding) -> bool:
    """Whether the ledger has all that happened in a partition; not a new one, an older copy, or after another owner."""
    mark = holding.mark
    return (
        mark is not None
        and mark.owner == known.identifier
        and known.done.get((topic, holding.partition), 0) >= holding.start
    )


def anew(topic: str, identifier: str | None, holding: Holding, known: LedgerState) -> str | None:
    """Why a topic cannot be the one that the ledger tells of, but was made anew under its name; None if it may be.

    `identifier` is Kafka's, None if nobody tells: then only the topic's length may tell.
    """
    done = known.done.get((topic, holding.partition), 0)
    if holding.end < done:
        return f"{topic}[{holding.partition}] ends at {holding.end}, and what was before {done} is settled"
    noted = known.topics.get(topic)
    if identifier is None or noted in (None, identifier) or not known.tells_of(topic):
        return None
    return f"{topic} has the id {identifier}, and what is settled was read from the one with the id {noted}"


def taken(place: Place, read: OrderCommand | MalformedCommand, consumed: Micros, max_age: float) -> Ticket:
    """A record that was just read."""
    if isinstance(read, MalformedCommand):
        ticket = Ticket(place, read.command_id or "/".join(map(str, place)), "unknown", consumed=consumed)
        ticket.lines.append(Line(ticket, 0, None))
        return ticket
    command = identified(read)
    deadline = min(command.not_after, Micros(command.issued_at + round(max_age * 1e6)))
    ticket = Ticket(
        place,
        command.command_id,
        command.action,
        command.reason,
        consumed,
        (command.issued_at - consumed) / 1e6,
        deadline,
        command.market,
        command.instrument,
    )
    items: Iterable[OrderItem | None] = command.items or (None,)
    ticket.lines.extend(Line(ticket, number, item) for number, item in enumerate(items))
    return ticket


def recovered(command_id: str, known: KnownCommand, venue: str, account: str) -> Ticket:
    """A command as the ledger has it."""
    ticket = Ticket(known.place, command_id, "")
    for number, item in sorted(known.items.items()):
        intent = item.intent
        line = Line(ticket, number, None if intent is None else intent.wanted)
        if intent is not None:
            ticket.action, ticket.reason, ticket.consumed = intent.action, intent.reason, intent.consumed_time
            ticket.market, ticket.instrument = intent.market, intent.instrument
            line.connection, line.sent_time = intent.connection, intent.time
            line.not_arrived_rule = intent.not_arrived_rule
        if item.outcome is not None:
            line.stage, line.final = Stage.FINAL, item.outcome.result(venue, account)
            ticket.action = ticket.action or line.final.action
        if item.is_published:
            line.stage = Stage.PUBLISHED
        ticket.lines.append(line)
    return ticket
