"""One instrument's book channel on one connection: continuity, epochs, and what is derived from the book."""

from __future__ import annotations

import attrs

from pipeline.book.continuity import SequenceRule, Verdict
from pipeline.book.order_book import OrderBook, StoredBook
from pipeline.model.decimals import DecimalText
from pipeline.model.errors import BadMessage
from pipeline.model.events import Bbo, BookTop, BookUpdate, Event, FeedStatus, Layout, Micros, Origin, Row

_STANDALONE = SequenceRule(ignores_old=False)


@attrs.frozen
class BookOptions:
    """What to make of a book beyond passing its updates on. Times are microseconds; None is never."""

    derive_bbo: bool = False
    snapshot_interval: int | None = None
    top_levels: int | None = None
    top_interval: int = 1_000_000

    @property
    def keeps_book(self) -> bool:
        """Whether any of it needs the levels in memory."""
        return self.derive_bbo or self.snapshot_interval is not None or self.top_levels is not None


@attrs.define(eq=False)
class Place:
    """Where a book stands: its last update without the levels.

    Of thousands of books each one's last levels would lie in memory until the next update, and by then outside of the
    processor's caches: to free them would cost more than all else that is done with a delta.
    """

    origin: Origin
    exchange_time: Micros | None
    receive_time: Micros
    sequence: int | None
    cross_sequence: int | None
    channel: str
    layout: Layout
    size_unit: str
    depth: int | None


@attrs.define(eq=False)
class BookTracker:
    """Passes valid updates on with their epoch, and announces what is missing.

    Nothing of a book is published before a snapshot. After a gap (or a failed checksum) updates are held back,
    `wants_resync` is set once, and the next snapshot starts a new epoch. An epoch is the receive time of its
    snapshot, so that it rises over reconnects and restarts without any memory.
    """

    rule: SequenceRule | None
    """None: every message of the channel is a whole book and stands alone."""
    options: BookOptions = attrs.field(factory=BookOptions)
    starts_anywhere: bool = attrs.field(default=False, kw_only=True)
    """Pass updates on from the first one, be it a delta: for recordings, which may begin anywhere. Their epoch is 0."""
    wants_resync: bool = False
    """Set by a gap; whoever resubscribes clears it."""
    gaps: int = attrs.field(default=0, init=False)
    checksum_failures: int = attrs.field(default=0, init=False)
    resets: int = attrs.field(default=0, init=False)
    _valid: bool = attrs.field(default=False, init=False)
    _waiting: bool = attrs.field(default=False, init=False)
    _held_back: int = attrs.field(default=0, init=False)
    _gap_from: int | None = attrs.field(default=None, init=False)
    _epoch: int = attrs.field(default=0, init=False)
    _place: Place | None = attrs.field(default=None, init=False)
    _book: OrderBook | StoredBook | None = attrs.field(default=None, init=False)
    _by_number: bool = attrs.field(default=False, init=False)
    """Whether the venue writes prices in more than one way."""
    _best: tuple[Row | None, Row | None] | None = attrs.field(default=None, init=False)
    _snapshot_due: int = attrs.field(default=0, init=False)
    _top_due: int = attrs.field(default=0, init=False)

    @property
    def valid(self) -> bool:
        """Whether the book is known to be complete."""
        return self._valid

    @property
    def place(self) -> Place | None:
        """Where the book stands, if it is complete; goes on with it."""
        return self._place if self._valid else None

    @property
    def book(self) -> OrderBook | StoredBook | None:
        """The levels, where they are kept and valid."""
        return self._book if self._valid else None

    def apply(self, update: BookUpdate) -> list[Event]:
        """The events to publish for this update, in order.

        Raises `BadMessage` for a price that is no number, where levels are kept; the book is then out of sync, as it is
        after whatever else is raised.
        """
        try:
            place = self._place
            if (
                self._valid
                and place is not None
                and update.previous_sequence == place.sequence is not None
                and not update.is_snapshot
                and (update.sequence or 0) > place.sequence
            ):
                return self._accept(update)  # nearly every update; any rule would say the same
            if not self._valid and not update.is_snapshot:
                if not self.starts_anywhere or self._waiting:
                    return self._hold_back(update)
                self._valid = True
            rule = self.rule or _STANDALONE
            verdict = rule.judge(place.sequence if place is not None else None, update)
            if verdict is Verdict.NEXT:
                return self._accept(update)
            if verdict is Verdict.SNAPSHOT:
                return self._start(update)
            if verdict is Verdict.RESET:
                self.resets += 1
                update.is_reset = True
                return self._accept(update)
            if verdict is Verdict.GAP:
                return [
                    self._lose(update, f"update follows {update.previous_sequence}, not {place and place.sequence}")
                ]
            return []
        except Exception:
            self._by_number = True
            self.gaps += 1
            self._valid, self._waiting, self.wants_resync = False, True, True
            self._gap_from = self._place.sequence if self._place is not None else None
            raise

    def invalidate(self, receive_time: Micros, reason: str) -> FeedStatus | None:
        """Throw the book away from outside (a stale subscription, an unreadable update); None if it was not valid."""
        if self.place is None:
            return None
        return self._announce(None, receive_time, reason)

    def reconfigure(self, options: BookOptions, now: Micros) -> FeedStatus | None:
        """Make something else of the book from here on.

        Returns the gap to publish if that takes levels which were not kept, so that a new snapshot is wanted.
        """
        before, self.options = self.options, options
        if options == before:
            return None
        if options.snapshot_interval is not None and options.snapshot_interval != before.snapshot_interval:
            self._snapshot_due = now + options.snapshot_interval
        self._top_due = 0
        self._best = None
        book = self._book
        if not options.keeps_book and (self.rule is None or self.rule.checksum is None):
            self._book = None
        elif (options.keeps_book and book is None) or (options.derive_bbo and not isinstance(book, OrderBook)):
            self._book = None
            if self.rule is not None:  # else the next message is a whole book anyway
                return self.invalidate(now, "other things are to be made of the book from now on")
        return None

    def due(self, now: Micros) -> list[Event]:
        """Periodic snapshot and book top, where their time has come."""
        place, book = self.place, self._book
        if place is None or book is None:
            return []
        try:
            return self._made_from(book, place, now)
        except BadMessage as error:
            self._by_number = True
            return [self._announce(None, now, f"the book cannot be read: {error}")]

    def _made_from(self, book: OrderBook | StoredBook, place: Place, now: Micros) -> list[Event]:
        events: list[Event] = []
        options = self.options
        if options.snapshot_interval is not None and now >= self._snapshot_due:
            self._snapshot_due = now + options.snapshot_interval
            events.append(
                BookUpdate(
                    place.origin,
                    place.exchange_time,
                    now,
                    place.sequence,
                    place.channel,
                    True,
                    None,
                    book.bids(),
                    book.asks(),
                    place.layout,
                    place.size_unit,
                    place.depth,
                    place.cross_sequence,
                    is_periodic=True,
                    epoch=self._epoch,
                )
            )
        if options.top_levels is not None and now >= self._top_due:
            self._top_due = now + options.top_interval
            events.append(
                BookTop(
                    place.origin,
                    place.exchange_time,
                    now,
                    place.sequence,
                    place.channel,
                    self._epoch,
                    book.bids(options.top_levels),
                    book.asks(options.top_levels),
                    place.layout,
                    place.size_unit,
                )
            )
        return events

    def _start(self, snapshot: BookUpdate) -> list[Event]:
        events: list[Event] = []
        if self._waiting:
            events.append(
                FeedStatus(
                    snapshot.origin,
                    snapshot.exchange_time,
                    snapshot.receive_time,
                    None,
                    "resynced",
                    "instrument",
                    "a new snapshot came",
                    snapshot.channel,
                    from_sequence=self._gap_from,
                    to_sequence=snapshot.sequence,
                    count=self._held_back,
                )
            )
        if self.rule is not None or not self._epoch or self._waiting:
            self._epoch = max(snapshot.receive_time, self._epoch + 1)
        self._valid, self._waiting, self.wants_resync, self._held_back = True, False, False, 0
        if self._book is None or self._by_number:
            self._book = self._new_book(snapshot)
        if self.options.snapshot_interval is not None:
            self._snapshot_due = snapshot.receive_time + self.options.snapshot_interval
        return events + self._accept(snapshot)

    def _new_book(self, snapshot: BookUpdate) -> OrderBook | StoredBook | None:
        if self.options.derive_bbo or self._verifies(snapshot):
            return OrderBook()
        if not self.options.keeps_book:
            return None
        return StoredBook() if StoredBook.holds(snapshot) and not self._by_number else OrderBook()

    def _accept(self, update: BookUpdate) -> list[Event]:
        update.epoch = self._epoch
        book = self._book
        if book is None:
            self._advance(update)
            return [update]
        book.apply(update)
        if update.checksum is not None and self._verifies(update) and not self._checksum_holds(update, book):
            self.checksum_failures += 1
            return [self._lose(update, "the book does not match its checksum")]
        events: list[Event] = [update]
        if self.options.derive_bbo and not isinstance(book, StoredBook):
            best = (book.best_bid(), book.best_ask())
            if best != self._best:
                events.append(_bbo(update, *best))
                self._best = best
        self._advance(update)
        return events

    def _advance(self, update: BookUpdate) -> None:
        place = self._place
        if place is None or update.is_snapshot:
            self._place = Place(
                update.origin,
                update.exchange_time,
                update.receive_time,
                update.sequence,
                update.cross_sequence,
                update.channel,
                update.layout,
                update.size_unit,
                update.depth,
            )
            return
        place.origin = update.origin
        place.exchange_time = update.exchange_time
        place.receive_time = update.receive_time
        place.sequence = update.sequence
        place.cross_sequence = update.cross_sequence

    def _verifies(self, update: BookUpdate) -> bool:
        return update.checksum is not None and self.rule is not None and self.rule.checksum is not None

    def _checksum_holds(self, update: BookUpdate, book: OrderBook | StoredBook) -> bool:
        assert self.rule is not None and self.rule.checksum is not None
        return self.rule.checksum(book.bids(25), book.asks(25)) == update.checksum

    def _hold_back(self, update: BookUpdate) -> list[Event]:
        if self._waiting:
            self._held_back += 1
            return []
        return [self._lose(update, "an update came before the first snapshot")]

    def _lose(self, update: BookUpdate, reason: str) -> FeedStatus:
        self._held_back = 1
        return self._announce(update, update.receive_time, reason)

    def _announce(self, update: BookUpdate | None, receive_time: Micros, reason: str) -> FeedStatus:
        place = self._place
        about = update or place
        assert about is not None
        self.gaps += 1
        self._valid, self._waiting, self.wants_resync = False, True, True
        self._gap_from = place.sequence if place is not None else None
        self._best = None
        return FeedStatus(
            about.origin,
            about.exchange_time,
            receive_time,
            None,
            "gap",
            "instrument",
            reason,
            about.channel,
            from_sequence=self._gap_from,
            to_sequence=update.sequence if update is not None else None,
            from_time=place.exchange_time if place is not None else None,
            to_time=update.exchange_time if update is not None else None,
        )


def _bbo(update: BookUpdate, bid: Row | None, ask: Row | None) -> Bbo:
    counted = update.layout.index("order_count") if "order_count" in update.layout else None

    def count(row: Row | None) -> int | None:
        return int(row[counted]) if row is not None and counted is not None else None

    return Bbo(
        update.origin,
        update.exchange_time,
        update.receive_time,
        update.sequence,
        update.channel,
        DecimalText(bid[0]) if bid else None,
        DecimalText(bid[1]) if bid else None,
        DecimalText(ask[0]) if ask else None,
        DecimalText(ask[1]) if ask else None,
        update.size_unit,
        count(bid),
        count(ask),
        is_derived=True,
    )
