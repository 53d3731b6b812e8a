"""Makes entries of what goes into a venue's chains, and hands them to whoever keeps them. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import attrs

from pipeline.book.tracker import BookOptions
from pipeline.exchanges.venue import Subscription
from pipeline.feeds.conflation import ConflationPolicy
from pipeline.feeds.handover import BookKey
from pipeline.model.events import Event, Instrument, Micros
from pipeline.model.stats import ArchiveStats
from pipeline.tape import entries
from pipeline.tape.entries import BEGIN, DATA, FORMAT, NOTE, OTHER, Begin, Entry, Note, encode_note, event_fields

KEYS_PER_NOTE = 1_000
"""Bound of a note's size, for Kafka's sake."""


class Keeper(Protocol):
    """Where entries go. Takes one after the other, without waiting; a `begin` starts a new segment."""

    def take(self, entry: Entry, endpoint: str, account: str | None) -> None:
        """Keep an entry of a connection to this endpoint."""


@attrs.define(eq=False)
class Recorder:
    """The archive of one venue in one process; a `feeds.tap.Archive`."""

    venue: str
    version: str
    """Of the program."""
    run: Micros
    """When the process started."""
    clock: Callable[[], int]
    """Microseconds UTC."""
    keepers: list[Keeper] = attrs.field(factory=list, init=False)
    stats: ArchiveStats = attrs.field(factory=ArchiveStats, init=False)
    _segment: int = attrs.field(default=0, init=False)
    _own: RecordingTap = attrs.field(init=False)
    _catalogue: dict[tuple[str, str | None], bytes] = attrs.field(factory=dict, init=False)
    """Notes of all entries."""
    _open: dict[str, RecordingTap] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._own = RecordingTap(self, self.venue, "archive", None)

    def begin(self, incomplete: Keeper | None = None) -> None:
        """Start a new segment, with all that is needed to understand it.

        `incomplete` is a keeper that has lost something since the segment before.
        """
        self._segment += 1
        now = Micros(self.clock())
        number = self._own.next_number()
        for keeper in self.keepers:
            head = Begin(FORMAT, self.venue, self.run, self._segment, keeper is not incomplete, self.version)
            entry = Entry(BEGIN, now, number, self.venue, encode_note(head))
            keeper.take(entry, self._own.endpoint, None)
        for payload in self._catalogue.values():
            self._own.add(NOTE, now, payload)
        for tap in self._open.values():
            assert tap.opened is not None
            tap.note(tap.opened, now)

    # A `feeds.tap.Archive`.

    def opened(
        self,
        connection: str,
        endpoint: str,
        account: str | None,
        books: Mapping[BookKey, BookOptions],
        *,
        is_held: bool,
        is_joined: bool = False,
    ) -> RecordingTap:
        tap = self._open[connection] = RecordingTap(self, connection, endpoint, account)
        opened = entries.Opened(endpoint, account, is_held, is_joined, _books(books))
        tap.note(opened, Micros(self.clock()))
        # As it is told in later segments.
        opened.is_joined = True
        tap.opened = opened
        return tap

    def known(self, market: str, instruments: Iterable[Instrument]) -> None:
        now = Micros(self.clock())
        for instrument in instruments:
            payload = encode_note(entries.Known(market, event_fields(instrument)))
            self._catalogue[market, instrument.origin.instrument] = payload
            self._own.add(NOTE, now, payload)

    def listed(self, instruments: Iterable[Instrument]) -> None:
        now = Micros(self.clock())
        keys = [(each.origin.market, str(each.origin.instrument)) for each in instruments]
        for start in range(0, len(keys), KEYS_PER_NOTE):
            self._own.note(entries.Listed(keys[start : start + KEYS_PER_NOTE]), now)

    def forget(self, connection: str) -> None:
        """A connection has ended."""
        self._open.pop(connection, None)


@attrs.define(eq=False)
class RecordingTap:
    """One connection and generation; a `feeds.tap.Tap`."""

    recorder: Recorder
    connection: str
    endpoint: str
    account: str | None
    opened: entries.Opened | None = attrs.field(default=None, init=False)
    """As a segment that begins now would tell it."""
    _sequence: int = attrs.field(default=0, init=False)

    def next_number(self) -> int:
        """The number of the next entry, which is to be added."""
        self._sequence += 1
        return self._sequence

    def add(self, kind: str, receive_time: int, payload: bytes) -> None:
        """Hand an entry to all keepers."""
        self._sequence += 1
        entry = Entry(kind, receive_time, self._sequence, self.connection, payload)
        for keeper in self.recorder.keepers:
            keeper.take(entry, self.endpoint, self.account)

    def note(self, note: Note, moment: int) -> None:
        """The same for a note."""
        self.add(NOTE, moment, encode_note(note))

    # A `feeds.tap.Tap`.

    def message(self, raw: bytes, receive_time: Micros, *, is_data: bool) -> None:
        self.recorder.stats.messages += 1
        self.add(DATA if is_data else OTHER, receive_time, raw)

    def published(self, event: Event) -> None:
        self.note(entries.Published(event_fields(event)), event.receive_time)

    def due(self, now: Micros) -> None:
        self.note(entries.Due(), now)

    def awaited(self, key: BookKey) -> None:
        self.note(entries.Awaited(*key), self.recorder.clock())

    def seeded(self, subscription: Subscription, body: bytes, receive_time: Micros) -> None:
        s = subscription
        self.note(entries.Seeded(s.topic, s.kind, s.channel, s.market, s.instrument, body), receive_time)

    def books(self, options: Mapping[BookKey, BookOptions], now: Micros) -> None:
        books = _books(options)
        if self.opened is not None and self.opened.books != books:
            self.opened.books = books
            self.note(entries.Books(books), now)

    def invalidated(self, key: BookKey, now: Micros, reason: str) -> None:
        self.note(entries.Invalidated(*key, reason), now)

    def dropped(self, key: BookKey) -> None:
        self.note(entries.Dropped(*key), self.recorder.clock())

    def conflated(self, policy: ConflationPolicy | None) -> None:
        note = None
        if policy is not None:
            note = entries.Conflated(policy.interval, sorted(policy.topics, key=repr))
        if self.opened is not None:
            self.opened.conflated = note
        self.note(note or entries.CaughtUp(), self.recorder.clock())

    def recorded(self) -> None:
        self.note(entries.Recorded(), self.recorder.clock())

    def taken_over(self, before: str, *, seamless: bool) -> None:
        if self.opened is not None:
            self.opened.is_held = False
        self.note(entries.TakenOver(before, seamless), self.recorder.clock())

    def forgotten(self) -> None:
        self.note(entries.Forgotten(), self.recorder.clock())

    def ended(self) -> None:
        self.recorder.forget(self.connection)


def _books(options: Mapping[BookKey, BookOptions]) -> list[entries.Book]:
    return [
        entries.Book(channel, instrument, each.derive_bbo, each.snapshot_interval, each.top_levels, each.top_interval)
        for (channel, instrument), each in options.items()
    ]
