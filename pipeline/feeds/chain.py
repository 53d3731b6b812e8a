"""From the bytes of one connection to published events: normalizer, book trackers, publish. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs

from pipeline.book.tracker import BookOptions, BookTracker
from pipeline.exchanges.venue import Catalogue, Normalizer, Venue
from pipeline.model.errors import BadMessage
from pipeline.model.events import BookUpdate, Event, FeedStatus, Micros, Trade

BookKey = tuple[str, str | None]
"""A book on one connection: (the venue's channel, instrument)."""

Publish = Callable[[Event], bool]
"""Takes an event without waiting; False if it could not be encoded and went to the dead letters."""


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
    events: int = attrs.field(default=0, init=False)
    exchange_time: Micros = attrs.field(default=Micros(0), init=False)
    """Of the last trade or book update, for the lag."""
    trackers: dict[BookKey, BookTracker] = attrs.field(factory=dict, init=False)
    out_of_sync: set[BookKey] = attrs.field(factory=set, init=False)
    """Books that want a resynchronization; whoever has seen to it discards the key."""
    normalizer: Normalizer = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.normalizer = self.venue.normalizer(self.stream, self.connection, self.catalogue, self.resume)

    def message(self, raw: bytes, receive_time: Micros) -> None:
        """Publish what one message says; control messages say nothing.

        Raises `BadMessage` if it cannot be read: nothing of it is published then.
        """
        for event in self.normalizer.normalize(raw, receive_time):
            self.events += 1
            if event.__class__ is BookUpdate:
                self._book(event)
            else:
                self.publish(event)
                if event.__class__ is Trade and event.exchange_time is not None:
                    self.exchange_time = event.exchange_time

    def due(self, now: Micros) -> None:
        """Publish the periodic snapshots and book tops whose time has come."""
        for tracker in self.trackers.values():
            for event in tracker.due(now):
                self.events += 1
                self.publish(event)

    def invalidate(self, key: BookKey, receive_time: Micros, reason: str) -> None:
        """Announce that a book has lost its way and hold its updates back until a new snapshot."""
        tracker = self.trackers.get(key)
        status = tracker.invalidate(receive_time, reason) if tracker is not None else None
        if status is not None:
            self.out_of_sync.add(key)
            self.publish(status)

    def books(self) -> Iterator[tuple[BookKey, BookTracker]]:
        """Every book this connection has seen."""
        return iter(self.trackers.items())

    def _book(self, update: BookUpdate) -> None:
        key = (update.channel, update.origin.instrument)
        tracker = self.trackers.get(key)
        if tracker is None:
            tracker = BookTracker(self.venue.sequence_rule(update.channel), self.book_options(key))
            self.trackers[key] = tracker
        if update.exchange_time is not None:
            self.exchange_time = update.exchange_time
        try:
            events = tracker.apply(update)
        except BadMessage as error:
            self.out_of_sync.add(key)
            self.publish(_unreadable(update, str(error)))
            raise
        if tracker.wants_resync:
            self.out_of_sync.add(key)
        for event in events:
            if not self.publish(event) and event is update:
                self.invalidate(key, update.receive_time, "an update could not be encoded")


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
