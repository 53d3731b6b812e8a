"""One connection's stream goes on over another: what the new one repeats is told apart from what it brings. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from pipeline.model.account import AccountEvent, SnapshotEnd
from pipeline.model.events import BookUpdate, Event, Micros

BookKey = tuple[str, str | None]
"""A book on one connection: (the venue's channel, instrument)."""

Identity = tuple[object, ...]

_OURS = frozenset({"origin", "receive_time"})
"""What tells over which connection and when an event came."""
_NUMBERS = ("trade_id", "fill_id", "sequence")
"""Given by the venue to one thing and no other of its kind and instrument."""


@attrs.frozen
class Reached:
    """How far a book has come: what its last update says of itself."""

    sequence: int | None
    exchange_time: Micros | None


def identity(event: Event) -> Identity | None:
    """What is equal for an event that was received twice, over whatever connection; None if it has no identity.

    A number of the venue's where there is one, else all that it said: two states of one millisecond may share the
    other names of an `IDENTITY`, and what is dropped here is gone.
    """
    names = event.IDENTITY
    if not names:
        return None
    head: Identity = (event.KIND, event.origin.key)
    if any(name in names and getattr(event, name) is not None for name in _NUMBERS):
        return (*head, *(getattr(event, name, None) for name in names))
    fields = (name for name in event.__struct_fields__ if name not in _OURS)
    return (*head, *(repr(getattr(event, name)) for name in fields))


def book_key(update: BookUpdate) -> BookKey:
    """Which book an update belongs to."""
    return update.channel, update.origin.instrument


@attrs.define(eq=False)
class Recording:
    """Passes everything on and keeps its identity, for a successor."""

    seen: set[Identity]
    sifting: Sifting | None = None
    """For as long as the overlap with a predecessor lasts."""

    def published(self) -> set[Identity]:
        """What a successor may bring again, of a predecessor's too: this connection may be behind that one."""
        return self.seen if self.sifting is None else self.seen | self.sifting.seen

    @classmethod
    def since(cls, latest: Iterable[Event], sifting: Sifting | None = None) -> Recording:
        """From now on, and what each topic brought last: venues repeat that to whoever subscribes."""
        return cls({found for event in latest if (found := identity(event)) is not None}, sifting)

    def __call__(self, events: list[Event]) -> list[Event]:
        if self.sifting is not None:
            events = self.sifting(events)
        for event in events:
            # Books are compared by their numbers.
            if event.__class__ is not BookUpdate and (found := identity(event)) is not None:
                self.seen.add(found)
        return events


@attrs.define(eq=False)
class Holding:
    """Keeps everything back until its connection takes over."""

    events: list[Event] = attrs.field(factory=list)
    books: dict[BookKey, BookUpdate] = attrs.field(factory=dict)
    """The first snapshot of each book."""

    def __call__(self, events: list[Event]) -> list[Event]:
        self.events += events
        for event in events:
            if event.__class__ is BookUpdate and event.is_snapshot:
                self.books.setdefault(book_key(event), event)
        return []

    def released(self, *, seamless: bool) -> list[Event]:
        """What was kept back, without the states of an account where its stream was never interrupted.

        They are older than what has been published meanwhile, and tell nothing new.
        """
        return [event for event in self.events if not (seamless and _is_state(event))]

    def follows(self, books: Mapping[BookKey, Reached]) -> bool:
        """Whether every one of these books has come here too, from no later a point than they have reached."""
        for key, last in books.items():
            first = self.books.get(key)
            if first is None or (first.sequence or 0) > (last.sequence or 0):
                return False
        return True


@attrs.define(eq=False)
class Sifting:
    """Drops what the predecessor has published already."""

    seen: set[Identity]
    books: dict[BookKey, Reached]
    """How far each book had come that the predecessor left in order."""
    seamless: bool
    """Whether the predecessor was alive until now."""

    def __call__(self, events: list[Event]) -> list[Event]:
        return [event for event in events if not self._is_repetition(event)]

    def _is_repetition(self, event: Event) -> bool:
        if event.__class__ is not BookUpdate:
            # An account's state replaces what was published, also the changes that have to follow it again.
            is_new = isinstance(event, AccountEvent) and (event.is_snapshot or not self.seamless)
            return not is_new and identity(event) in self.seen
        last = self.books.get(book_key(event))
        if last is None or last.sequence is None or event.sequence is None:
            return False
        # A lower number at a later time: the venue has begun to count anew, and the tracker has to know.
        is_later = event.exchange_time is not None and event.exchange_time > (last.exchange_time or 0)
        if event.sequence <= last.sequence and not is_later:
            return True
        del self.books[book_key(event)]
        return False


def _is_state(event: Event) -> bool:
    return isinstance(event, SnapshotEnd) or (isinstance(event, AccountEvent) and event.is_snapshot)
