"""From the bytes of one connection to published events: normalizer, book trackers, publish. No I/O, no clock."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import attrs
from msgspec.structs import replace

from pipeline.book.tracker import BookOptions, BookTracker
from pipeline.exchanges.venue import Catalogue, Normalizer, Venue
from pipeline.feeds.conflation import Conflation, ConflationPolicy
from pipeline.feeds.handover import BookKey, Holding, Reached, Recording, Sifting, book_key
from pipeline.model.errors import BadMessage
from pipeline.model.events import Bbo, BookUpdate, DeadLetter, Event, FeedStatus, Micros, Origin

MAX_AWAITED = 20_000
"""Updates kept for a book that is being read over REST; beyond it they are dropped, and the book starts later."""

BUGS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What code that reads a message raises when it is wrong about it."""
UNREADABLE = (BadMessage, *BUGS)
"""Reconnecting would not help even against bugs: the next message of this form would end the new connection too."""

Publish = Callable[[Event], bool]
"""Takes an event without waiting; False if it could not be encoded and went to the dead letters."""
PublishAll = Callable[[Sequence[Event]], int | None]
"""Takes events as `Publish` would one after the other, but none behind one that it returns the index of: that one went
to the dead letters."""

SLICE = 32
"""Messages that are decoded before the first is published. More, and what they hold leaves the processor's cache."""


@attrs.define(eq=False)
class Chain:
    """What stands between a session and the sink, for one connection; never reused."""

    venue: Venue
    stream: str
    connection: str
    catalogue: Catalogue
    publish: Publish
    book_options: Callable[[BookKey], BookOptions] = attrs.field(default=lambda key: BookOptions())
    resume: dict[str, int] = attrs.field(factory=dict)
    """Outlives the connection; see `Venue.normalizer`."""
    account: str | None = None
    """Whose private events come."""
    starts_anywhere: bool = False
    """Whether books need no snapshot to begin with; see `BookTracker`."""
    publish_all: PublishAll | None = None
    """`publish` for many; None: there is no better way than one by one."""
    events: int = attrs.field(default=0, init=False)
    latest: Event | None = attrs.field(default=None, init=False)
    """The last event that was not held back, for the lag; None since somebody has set that."""
    trackers: dict[BookKey, BookTracker] = attrs.field(factory=dict, init=False)
    out_of_sync: set[BookKey] = attrs.field(factory=set, init=False)
    """Books that want a resynchronization; whoever has seen to it discards the key."""
    normalizer: Normalizer = attrs.field(init=False)
    _awaited: dict[BookKey, list[BookUpdate]] = attrs.field(factory=dict, init=False)
    """Books whose snapshot is read over REST, with the updates that came meanwhile."""
    _seeded: dict[BookKey, int] = attrs.field(factory=dict, init=False)
    """Sequence numbers of snapshots that were read over REST, until the stream has gone beyond them."""
    _overlap: Recording | Holding | Sifting | None = attrs.field(default=None, init=False)
    """What becomes of events while this connection and another one bring the same."""
    _has_successor: bool = attrs.field(default=False, init=False)
    """Whether this connection's end was announced."""
    _conflation: Conflation | None = attrs.field(default=None, init=False)
    """Takes the place of `publish` while the connection lags, so that it costs nothing otherwise."""

    def __attrs_post_init__(self) -> None:
        self.normalizer = self.venue.normalizer(
            self.stream, self.connection, self.catalogue, self.resume, account=self.account
        )

    def take(self, messages: Sequence[bytes], receive_time: Micros) -> list[tuple[bytes, Exception]]:
        """Publish what these messages say, in order.

        What cannot be read is published whole, as a dead letter in its place, and returned with why.
        """
        unread: list[tuple[bytes, Exception]] = []
        for start in range(0, len(messages), SLICE):
            self._take(messages[start : start + SLICE], receive_time, unread)
        return unread

    def _take(self, messages: Sequence[bytes], receive_time: Micros, unread: list[tuple[bytes, Exception]]) -> None:
        # First one thing for all, then the next, as the code for each fills the processor's caches.
        decoded: list[list[Event]] = []
        ready: list[Event] = []
        normalize, track, overlap = self.normalizer.normalize, self._track, self._overlap
        for raw in messages:
            try:
                decoded.append(normalize(raw, receive_time))
            except UNREADABLE as error:
                unread.append((raw, error))
                decoded.append([self._dead_letter(raw, receive_time, error)])
        for raw, events in zip(messages, decoded, strict=True):
            try:
                track(events if overlap is None else overlap(events), ready)
            except UNREADABLE as error:
                unread.append((raw, error))
                letter: list[Event] = [self._dead_letter(raw, receive_time, error)]
                track(letter if overlap is None else overlap(letter), ready)
        self._send(ready)

    def message(self, raw: bytes, receive_time: Micros) -> None:
        """Publish what one message says; control messages say nothing.

        Raises `BadMessage` if it cannot be read: nothing of it is published then.
        """
        events = self.normalizer.normalize(raw, receive_time)
        self.emit(events if self._overlap is None else self._overlap(events))

    def emit(self, events: Sequence[Event]) -> None:
        """Publish events, those of books after their tracker has judged them. Raises what is `UNREADABLE`."""
        ready: list[Event] = []
        try:
            self._track(events, ready)
        finally:
            self._send(ready)

    def _track(self, events: Sequence[Event], ready: list[Event]) -> None:
        """Have trackers judge the updates of books, and add to `ready` what is to be published.

        Raises what is `UNREADABLE`; what was added until then is to be published all the same.
        """
        self.events += len(events)
        for event in events:
            if event.__class__ is BookUpdate:
                self._book(event, ready)
            else:
                ready.append(event)
        if events:
            self.latest = events[-1]

    def _send(self, events: list[Event]) -> None:
        while events:
            publish_all = self.publish_all if self._conflation is None else None
            refused = self._send_each(events) if publish_all is None else publish_all(events)
            if refused is None:
                return
            lost, events = events[refused], events[refused + 1 :]
            if isinstance(lost, BookUpdate):
                key = book_key(lost)
                self.invalidate(key, lost.receive_time, "an update could not be encoded")
                events = [event for event in events if not _is_made_of(event, key)]

    def _send_each(self, events: Sequence[Event]) -> int | None:
        for index, event in enumerate(events):
            if not self.publish(event):
                return index
        return None

    def conflate(self, policy: ConflationPolicy, replaced: dict[str, int] | None = None) -> None:
        """Publish of some topics only the latest state from here on, until `conflate_no_more`.

        In `replaced` is counted what is never published, by kind.
        """
        self.conflate_no_more()
        self._conflation = Conflation(policy, self.publish, {} if replaced is None else replaced)
        self.publish = self._conflation.publish

    @property
    def conflated(self) -> ConflationPolicy | None:
        """What is conflated at present."""
        return self._conflation.policy if self._conflation is not None else None

    def conflate_no_more(self) -> None:
        """Publish the states that wait, and everything from here on."""
        conflation, self._conflation = self._conflation, None
        if conflation is not None:
            self.publish = conflation.onward
            conflation.flush()

    def hold(self) -> None:
        """Keep everything back until `take_over`."""
        self._overlap = Holding()

    @property
    def is_held(self) -> bool:
        """Whether everything is kept back."""
        return isinstance(self._overlap, Holding)

    @property
    def held(self) -> int:
        """Events kept back."""
        return len(self._overlap.events) if isinstance(self._overlap, Holding) else 0

    def record(self) -> None:
        """A successor is being prepared: remember what is published, as soon as anything is."""
        self._has_successor = True
        if isinstance(self._overlap, Holding):
            return  # until `take_over`: a replacement's own end may be announced before its turn has come
        latest = (event for stream in self.normalizer.streams.values() for event in stream.latest)
        self._overlap = Recording.since(latest, self._overlap if isinstance(self._overlap, Sifting) else None)

    def is_ahead_of(self, successor: Chain) -> bool:
        """Whether every book has been published here as far as the successor's copy of it begins."""
        return isinstance(successor._overlap, Holding) and successor._overlap.follows(self._books_in_order())

    def take_over(self, before: Chain, *, seamless: bool) -> None:
        """Go on where another connection stops: publish what was kept back and was not published there.

        Books that were in order go on without a new snapshot; so do accounts, if `seamless`: no moment was missed.
        """
        held = self._overlap.released(seamless=seamless) if isinstance(self._overlap, Holding) else []
        seen = before._overlap.published() if isinstance(before._overlap, Recording) else set()
        self.trackers, self.out_of_sync = before.trackers, before.out_of_sync
        for key in self._books_in_order().keys() & self._awaited.keys():
            del self._awaited[key]
        self._overlap = Sifting(seen, before._books_in_order(), seamless)
        for event in self._overlap(held):
            with suppress(*UNREADABLE):  # announced by `_book`, which asks for a new snapshot
                self.emit([event])
        if self._has_successor:
            self.record()

    def forget(self) -> None:
        """The overlap is over: nothing is compared any more."""
        if isinstance(self._overlap, Recording):
            self._overlap.sifting = None
        else:
            self._overlap = None

    def side_event(self, event: Event) -> None:
        """Publish what the feed itself has to say about the stream, in its place."""
        self.emit([event] if self._overlap is None else self._overlap([event]))

    def _is_awaited(self, key: BookKey, update: BookUpdate) -> bool:
        """Whether this is the snapshot that was waited for; else it is kept."""
        if update.is_snapshot:
            del self._awaited[key]
            return True
        kept = self._awaited[key]
        if (kept and update.previous_sequence != kept[-1].sequence) or len(kept) >= MAX_AWAITED:
            kept.clear()  # what follows a hole cannot be joined to what came before it
        kept.append(update)
        return False

    def _books_in_order(self) -> dict[BookKey, Reached]:
        places = ((key, tracker.place) for key, tracker in self.trackers.items())
        return {key: Reached(place.sequence, place.exchange_time) for key, place in places if place is not None}

    def due(self, now: Micros) -> bool:
        """Publish periodic snapshots, book tops and conflated states whose time has come; False if there were none."""
        before = self.events
        had_waited = self._conflation is not None and self._conflation.due(now)
        for key, tracker in self.trackers.items():
            was_valid = tracker.valid
            for event in tracker.due(now):
                self.events += 1
                self.publish(event)
            if was_valid and not tracker.valid:  # looking at it has shown that it cannot be read
                self.out_of_sync.add(key)
        return had_waited or self.events > before

    def invalidate(self, key: BookKey, receive_time: Micros, reason: str) -> None:
        """Announce that a book has lost its way and hold its updates back until a new snapshot."""
        tracker = self.trackers.get(key)
        status = tracker.invalidate(receive_time, reason) if tracker is not None else None
        if status is not None:
            self.out_of_sync.add(key)
            self.publish(status)

    def reconfigure(self, now: Micros) -> None:
        """What is made of books has changed: `book_options` says what from here on."""
        for key, tracker in self.trackers.items():
            status = tracker.reconfigure(self.book_options(key), now)
            if status is not None:
                self.out_of_sync.add(key)
                self.publish(status)

    def drop(self, key: BookKey) -> BookTracker | None:
        """A book is not subscribed any more: nothing is made of it, and should it come back it begins anew."""
        self.out_of_sync.discard(key)
        self._awaited.pop(key, None)
        self._seeded.pop(key, None)
        return self.trackers.pop(key, None)

    def await_seed(self, key: BookKey) -> None:
        """Keep the updates of a book until its snapshot comes, over REST or the stream."""
        self._awaited[key] = []

    def awaits(self, key: BookKey) -> bool:
        """Whether the snapshot of a book has still not come."""
        return key in self._awaited

    def seed(self, snapshot: BookUpdate) -> bool:
        """Start an awaited book; False if the snapshot is older than the updates that were kept.

        Raises what is `UNREADABLE`.
        """
        key = book_key(snapshot)
        kept = self._awaited.get(key)
        if kept is None:
            return True  # the stream has sent a snapshot after all
        if kept and (kept[0].previous_sequence or 0) > (snapshot.sequence or 0):
            return False
        del self._awaited[key]
        self.emit([snapshot])
        self._seeded[key] = snapshot.sequence or 0
        self.emit(kept)
        return True

    def _joined(self, key: BookKey, update: BookUpdate) -> BookUpdate | None:
        """The first updates after a snapshot from elsewhere: None for what that has already.

        One may begin before the snapshot and end after it; what both tell is the same.
        """
        sequence = self._seeded[key]
        if not update.is_snapshot and not update.is_reset:
            if (update.sequence or 0) <= sequence:
                return None
            if update.previous_sequence is not None and update.previous_sequence < sequence:
                update = replace(update, previous_sequence=sequence)
        del self._seeded[key]
        return update

    def books(self) -> Iterator[tuple[BookKey, BookTracker]]:
        """Every book this connection has seen."""
        return iter(self.trackers.items())

    def _dead_letter(self, raw: bytes, receive_time: Micros, error: Exception) -> DeadLetter:
        reason = str(error) if isinstance(error, BadMessage) else f"unexpected {type(error).__name__}: {error}"
        origin = Origin(self.venue.name, self.stream, None, None, self.account, self.connection)
        digest = hashlib.sha256(raw).hexdigest()
        return DeadLetter(origin, None, receive_time, None, "parse", reason, raw, len(raw), digest)

    def _book(self, update: BookUpdate, ready: list[Event]) -> None:
        key = (update.channel, update.origin.instrument)  # `book_key`, without its call
        if self._awaited and key in self._awaited and not self._is_awaited(key, update):
            return
        if self._seeded and key in self._seeded:
            joined = self._joined(key, update)
            if joined is None:
                return
            update = joined
        tracker = self.trackers.get(key)
        if tracker is None:
            tracker = BookTracker(
                self.venue.sequence_rule(update.channel), self.book_options(key), starts_anywhere=self.starts_anywhere
            )
            self.trackers[key] = tracker
        try:
            events = tracker.apply(update)
        except UNREADABLE as error:
            self.out_of_sync.add(key)
            ready.append(_unreadable(update, str(error)))
            raise
        if tracker.wants_resync:
            self.out_of_sync.add(key)
        ready += events


def _is_made_of(event: Event, key: BookKey) -> bool:
    """Whether an event is an update of a book, derived from its levels, or the announcement of its new snapshot."""
    if isinstance(event, FeedStatus) and event.status == "resynced":
        return key == (event.channel, event.origin.instrument)
    if isinstance(event, BookUpdate) or (isinstance(event, Bbo) and event.is_derived):
        return key == (event.channel, event.origin.instrument)
    return False


def _unreadable(update: BookUpdate, reason: str) -> FeedStatus:
    return FeedStatus(
        update.origin,
        update.exchange_time,
        update.receive_time,
        None,
        "gap",
        "instrument",
        reason,
        update.channel,
        to_sequence=update.sequence,
    )
