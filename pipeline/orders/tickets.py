"""A command on its way, its items, and how far everything before it is settled. Pure."""

from __future__ import annotations

from collections import deque
from enum import Enum
from math import inf

import attrs

from pipeline.exchanges.trading import Cost, ItemAnswer, TradeItem, TradeRequest
from pipeline.model.header import Micros
from pipeline.model.orders import OrderItem, OrderResult
from pipeline.orders.ledger_entries import Place


@attrs.frozen
class Moment:
    """The present time, by both clocks."""

    wall: Micros
    mono: float
    """Seconds of the run's monotonic clock."""
    venue: Micros
    """The venue's time, as far as it is known."""


class Stage(Enum):
    """How far an item has come; see `desk.Desk`."""

    WAITING = "waiting"
    INTENDED = "intended"
    SENT = "sent"
    UNKNOWN = "unknown"
    FINAL = "final"
    PUBLISHED = "published"


@attrs.define(eq=False)
class Line:
    """One item of a command; a command without items has one line without."""

    ticket: Ticket
    number: int
    item: OrderItem | None
    stage: Stage = Stage.WAITING
    trade: TradeItem | None = None
    """The item with its client order id and its instrument, as soon as that was looked up."""
    connection: str = ""
    """That it was sent over."""
    sent_time: Micros | None = None
    open_answer: ItemAnswer | None = None
    """What the venue said without telling whether it was done."""
    not_arrived_rule: str = "not_arrived"
    """By which it is rejected when the venue knows nothing of it."""
    arrives_until: float = inf
    """Until when its request may still arrive, in seconds of the monotonic clock; `inf` while its connection lives."""
    look_at: float = inf
    """When to ask the venue what became of it."""
    looks: int = 0
    unknown_since: Micros | None = None
    final: OrderResult | None = None

    @property
    def key(self) -> tuple[str, int]:
        """By which the ledger knows it."""
        return self.ticket.command_id, self.number

    @property
    def wanted(self) -> OrderItem:
        """The item, of a command that has items."""
        assert self.item is not None
        return self.item


@attrs.define(eq=False)
class Ticket:
    """One command."""

    place: Place
    command_id: str
    action: str
    reason: str | None = None
    consumed: Micros | None = None
    """When it was taken from Kafka."""
    ahead: float = 0.0
    """Seconds by which it was issued later than that."""
    deadline: Micros | None = None
    """It is never sent later than this; None: it is not to be sent at all."""
    market: str | None = None
    instrument: str | None = None
    lines: list[Line] = attrs.field(factory=list)
    chunks: deque[tuple[Line, ...]] | None = None
    """What is left to be sent, a request each; None before the guards have seen it."""
    is_priced: bool = False
    """Whether reference prices were asked for."""
    blocked_since: float | None = None
    """Since when the venue's rate holds up its next request."""

    @property
    def is_settled(self) -> bool:
        """Whether Kafka has the final results of all its items."""
        return all(line.stage is Stage.PUBLISHED for line in self.lines)

    def is_late(self, moment: Moment) -> bool:
        """Whether it must not be sent any more."""
        return self.deadline is not None and moment.wall > self.deadline


@attrs.frozen
class Sending:
    """A request to the venue, ready to be sent once the ledger knows of it."""

    request: TradeRequest
    costs: tuple[Cost, ...]
    lines: tuple[Line, ...]
    """Of which it tells; empty for the parts of a sweep."""


@attrs.define(eq=False)
class _Step:
    offset: int
    ticket: Ticket | None
    consumed: Micros


@attrs.define(eq=False)
class Progress:
    """The records of one partition that are not settled yet, or stand behind one that is not."""

    topic: str
    partition: int
    next_offset: int
    """Everything before it is settled."""
    end: int
    """Of the partition, when it became ours."""
    began: Micros
    """Before which nothing from `next_offset` on was settled, as far as it was not read yet."""
    last: int = attrs.field(default=-1, init=False)
    """The offset of the newest record."""
    _steps: deque[_Step] = attrs.field(factory=deque, init=False)

    def add(self, offset: int, ticket: Ticket | None, consumed: Micros) -> None:
        """A record was read; without a ticket there is nothing to settle about it."""
        self.last = offset
        self._steps.append(_Step(offset, ticket, consumed))

    def advance(self) -> bool:
        """Go over what is settled; whether there was any."""
        before = self.next_offset
        while self._steps and ((ticket := self._steps[0].ticket) is None or ticket.is_settled):
            self.next_offset = self._steps.popleft().offset + 1
        return self.next_offset != before

    def since(self, now: Micros) -> Micros:
        """When the first record that is not settled was read; now if there is none."""
        if self.next_offset < self.end:
            return self.began
        if not self._steps:
            return now
        first = self._steps[0]
        earlier = first.ticket.consumed if first.ticket is not None else None
        return first.consumed if earlier is None else min(first.consumed, earlier)
