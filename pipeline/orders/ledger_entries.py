"""What an account's ledger says, entry by entry, and what it comes to. Pure.

The entries are positions in lists when they are written, so a new field goes to the end and has a default.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import attrs
import msgspec

from pipeline.model.header import Micros, Origin
from pipeline.model.orders import OrderItem, OrderResult

_HEAD = ("market", "instrument", "symbol", "connection")
"""What a result's `Origin` says beside venue and account."""


class Place(NamedTuple):
    """Where a command was read."""

    topic: str
    partition: int
    offset: int


class _Written(msgspec.Struct, frozen=True, array_like=True, tag=str.lower):
    """An entry."""


class Intent(_Written, frozen=True, tag="intent"):
    """An item is about to be sent. On disk before its bytes are on the wire."""

    command_id: str
    item: int
    topic: str
    partition: int
    offset: int
    action: str
    time: Micros
    """When it was decided, just before the sending."""
    consumed_time: Micros | None = None
    wanted: OrderItem | None = None
    """With its client order id; None for a command without items."""
    connection: str = ""
    reason: str | None = None
    market: str | None = None
    """Of a command without items."""
    instrument: str | None = None
    not_arrived_rule: str = "not_arrived"
    """By which it is rejected when the venue knows nothing of it."""


class Outcome(_Written, frozen=True, tag="outcome"):
    """An item's final result is known, with or without an intent before. Written before the result is published."""

    command_id: str
    item: int
    topic: str
    partition: int
    offset: int
    head: tuple[str, str | None, str | None, str]
    """market, instrument, symbol and connection of the result."""
    fields: dict[str, Any]
    """The result's other fields, by name, as far as they are not at their defaults."""

    @classmethod
    def of(cls, result: OrderResult) -> Outcome:
        """The entry for a final result."""
        origin = result.origin
        head = (origin.market, origin.instrument, origin.symbol, origin.connection)
        fields = {
            name: getattr(result, name)
            for name in result.__struct_fields__
            if name != "origin" and getattr(result, name) is not None
        }
        place = (result.topic, result.partition, result.offset)
        return cls(result.command_id, result.item, *place, head, fields)

    def result(self, venue: str, account: str) -> OrderResult:
        """The result that was or is to be published, equal to what `of` was given."""
        market, instrument, symbol, connection = self.head
        origin = Origin(venue, market, instrument, symbol, account, connection)
        return OrderResult(**{"origin": origin, "exchange_time": None, "sequence": None, **self.fields})


class Published(_Written, frozen=True, tag="published"):
    """Kafka has acknowledged an item's final result."""

    command_id: str
    item: int


class Done(_Written, frozen=True, tag="done"):
    """Everything in front of an offset is settled: what comes from there again is a replay."""

    topic: str
    partition: int
    offset: int


class Remembered(_Written, frozen=True, tag="remembered"):
    """A command whose items are all settled."""

    command_id: str
    topic: str
    partition: int
    offset: int


class KillSwitch(_Written, frozen=True, tag="kill"):
    """The kill switch was turned."""

    is_on: bool
    time: Micros
    reason: str | None = None


class TopicId(_Written, frozen=True, tag="topic"):
    """Which topic it is that commands are read from under this name."""

    topic: str
    id: str


Entry = Intent | Outcome | Published | Done | Remembered | KillSwitch | TopicId


@attrs.define
class KnownItem:
    """How far an item has come."""

    intent: Intent | None = None
    """None: it was never about to be sent."""
    outcome: Outcome | None = None
    is_published: bool = False

    @property
    def begun(self) -> Micros | None:
        """When it was about to be sent, or else refused."""
        if self.intent is not None:
            return self.intent.time
        return None if self.outcome is None else Micros(self.outcome.fields["receive_time"])


@attrs.define
class KnownCommand:
    """A command that is not behind us yet."""

    place: Place
    items: dict[int, KnownItem] = attrs.field(factory=dict)
    """Those that anything is known of, by position."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do for the items that are known; others may never have been begun."""
        return all(item.is_published for item in self.items.values())


@attrs.define
class LedgerState:
    """What the entries come to."""

    identifier: str
    """Of the ledger: another one has another history."""
    remembered: int
    """How many settled commands are known by their ids at most."""
    commands: dict[str, KnownCommand] = attrs.field(factory=dict, init=False)
    """Those that are not done: never forgotten, by command id."""
    done: dict[tuple[str, int], int] = attrs.field(factory=dict, init=False)
    """By topic and partition, the offset before which everything is settled."""
    topics: dict[str, str] = attrs.field(factory=dict, init=False)
    """Ids of command topics, by name."""
    kill: KillSwitch | None = attrs.field(default=None, init=False)
    """As it was turned last; None if never."""
    _past: dict[str, Place] = attrs.field(factory=dict, init=False)
    """Settled commands, the first ones first."""
    _newer: dict[str, Place] | None = attrs.field(default=None, init=False)
    """Those that come while `_past` is frozen."""

    @property
    def is_killed(self) -> bool:
        """Whether new orders are refused."""
        return self.kill is not None and self.kill.is_on

    @property
    def is_empty(self) -> bool:
        """Whether no command has ever been noted."""
        return not (self.commands or self.done or self._past or self._newer)

    def tells_of(self, topic: str) -> bool:
        """Whether anything was settled, or is open, that was read from a topic of this name."""
        is_done = any(name == topic and offset for (name, _), offset in self.done.items())
        return is_done or any(known.place.topic == topic for known in self.commands.values())

    def place(self, command_id: str) -> Place | None:
        """Where a command of this id was read first; None if it is not known, or not any more."""
        if (known := self.commands.get(command_id)) is not None:
            return known.place
        newer = self._newer  # before `_past`: `thaw` may run in another thread
        place = self._past.get(command_id)
        return newer.get(command_id) if place is None and newer is not None else place

    def is_done(self, place: Place) -> bool:
        """Whether what is read there is a replay."""
        return place.offset < self.done.get(place[:2], 0)

    def item(self, command_id: str, number: int) -> KnownItem | None:
        """How far an item has come, of a command that is not done; None if nothing is known of it."""
        known = self.commands.get(command_id)
        return known.items.get(number) if known is not None else None

    def unsettled(self) -> Iterator[tuple[str, int, KnownItem]]:
        """Items that may have been sent, or have a result, and no final result acknowledged by Kafka."""
        for command_id, command in self.commands.items():
            for number, item in command.items.items():
                if not item.is_published:
                    yield command_id, number, item

    def oldest_unsettled(self) -> Micros | None:
        """When the first of those items was begun; None if there is none. No result of theirs is older."""
        times = [time for _, _, item in self.unsettled() if (time := item.begun) is not None]
        return min(times, default=None)

    def apply(self, entry: Entry) -> None:
        """Take the next entry."""
        match entry:
            case Intent():
                self._item(entry).intent = entry
            case Outcome():
                self._item(entry).outcome = entry
            case Published(command_id, number):
                if (item := self.item(command_id, number)) is not None:
                    item.is_published = True
                    self._pass(command_id)
            case Done(topic, partition, offset):
                self.done[topic, partition] = offset
                for known in list(self.commands):
                    self._pass(known)
            case Remembered(command_id, topic, partition, offset):
                self._remember(command_id, Place(topic, partition, offset))
            case KillSwitch():
                self.kill = entry
            case TopicId(topic, identifier):
                self.topics[topic] = identifier

    def freeze(self) -> Iterator[Entry]:
        """The fewest entries that come to the same. Quick, however much is remembered.

        Another thread may go through them while more is applied here, until `thaw`.
        """
        assert self._newer is None
        self._newer = {}
        return chain(self._remembered(), tuple(self._current()))

    def thaw(self) -> None:
        """What `freeze` returned is needed no more. No entry may be applied meanwhile."""
        newer = self._newer or {}
        self._past |= newer
        self._newer = None
        self._forget()

    def _remembered(self) -> Iterator[Entry]:
        return (Remembered(command_id, *place) for command_id, place in self._past.items())

    def _current(self) -> Iterator[Entry]:
        for command_id, command in self.commands.items():
            for number, item in command.items.items():
                yield from (entry for entry in (item.intent, item.outcome) if entry is not None)
                if item.is_published:
                    yield Published(command_id, number)
        for (topic, partition), offset in self.done.items():
            yield Done(topic, partition, offset)
        for topic, identifier in self.topics.items():
            yield TopicId(topic, identifier)
        if self.kill is not None:
            yield self.kill

    def _item(self, entry: Intent | Outcome) -> KnownItem:
        place = Place(entry.topic, entry.partition, entry.offset)
        command = self.commands.setdefault(entry.command_id, KnownCommand(place))
        return command.items.setdefault(entry.item, KnownItem())

    def _pass(self, command_id: str) -> None:
        """Keep no more than its place of a command that is behind us."""
        command = self.commands[command_id]
        if command.is_settled and self.is_done(command.place):
            del self.commands[command_id]
            self._remember(command_id, command.place)

    def _remember(self, command_id: str, place: Place) -> None:
        if self._newer is not None:
            self._newer[command_id] = place
        else:
            self._past[command_id] = place
            self._forget()

    def _forget(self) -> None:
        while len(self._past) > self.remembered:
            del self._past[next(iter(self._past))]
