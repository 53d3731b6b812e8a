"""What was published of an account, from which follows what a query or a complete snapshot adds and ends. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

import attrs

from pipeline.feeds.account_events import OPEN, ZERO, Key, closing, given_up, is_over, is_reopened, key_of
from pipeline.feeds.fill_memory import FillImage, FillMemory
from pipeline.feeds.settings import ReconcileSettings
from pipeline.model.account import AccountEvent, AccountGreeks, Balance, Fill, Order, Position, SnapshotEnd
from pipeline.model.events import Event, Micros

_WITHOUT_POSITIONS = frozenset({"spot", "spread"})

KEPT_ENDS = 1_000
"""Ends in an image: as many as may come up in the late answers to the first queries of the next process."""

K = TypeVar("K")
V = TypeVar("V")


@attrs.frozen
class Scope:
    """A state that is told as a whole, so that what is not named is no more."""

    channel: str
    market: str | None
    """None: all markets."""

    def covers(self, event: AccountEvent) -> bool:
        """Whether the event is of this state."""
        return event.channel == self.channel and self.market in (None, event.origin.market)


@attrs.frozen
class Shown:
    """What was published last about a key, and the time and sequence of the venue's last word that had them."""

    event: AccountEvent
    time: Micros | None
    sequence: int | None


@attrs.frozen
class AccountImage:
    """What an `AccountMemory` knows at one moment that another process needs to go on."""

    present: list[Shown]
    """Open orders, positions, balances, greeks."""
    ended: list[Shown]
    """The last ones, oldest first."""
    fills: FillImage


@attrs.define(eq=False)
class _Known:
    """What was published last about a key."""

    event: AccountEvent
    time: Micros | None
    """Of the last event of the venue that had one."""
    sequence: int | None
    touch: int
    """When the stream named it last; 0 for never."""
    is_read: bool
    """Whether a query told it, not the stream."""
    missing_since: int | None = None
    """Of an open order: when the venue first knew nothing of it, in microseconds."""
    is_recalled: bool = False
    """Whether it is as an earlier process has left it, which may have told more since than it could note."""

    def is_after(self, event: AccountEvent) -> bool:
        """Whether it is later than the event, as far as both tell."""
        if event.exchange_time is None or self.time is None:
            return False
        if event.exchange_time != self.time or event.sequence is None or self.sequence is None:
            return event.exchange_time < self.time
        return event.sequence < self.sequence


@attrs.define(eq=False)
class AccountMemory:
    """One account over all its connections. Nothing here waits, reads a clock or publishes.

    Live events are never held back. They are counted (`mark`), so that of a query's answer only that is published
    which the stream has not told since the query began. The `exchange_time` of an order or a position that was read
    has to be that of the state, never of the answer: what the stream tells of an earlier time is dropped then.
    """

    settings: ReconcileSettings
    repeated_fills: int = attrs.field(default=0, init=False)
    """Fills that the stream brought after they were published."""
    superseded: int = attrs.field(default=0, init=False)
    """Live events not published because a query had told a later state already."""
    _fills: FillMemory = attrs.field(init=False)
    _touches: int = attrs.field(default=0, init=False)
    _present: dict[str, dict[Key, _Known]] = attrs.field(init=False)
    """By kind of event: open orders, positions, balances, greeks."""
    _ended: dict[Key, _Known] = attrs.field(factory=dict, init=False)
    _began: dict[tuple[str, str], tuple[str, int]] = attrs.field(factory=dict, init=False)
    """The stream's unfinished snapshot by (channel, kind): its connection, and the touch it began with."""
    _whole: dict[Scope, None] = attrs.field(factory=dict, init=False)
    """Positions that were told as a whole since the start of the process."""
    _traded: dict[tuple[str, str], Fill] = attrs.field(factory=dict, init=False)
    """By market and instrument, a fill of the first reading."""

    def __attrs_post_init__(self) -> None:
        self._fills = FillMemory(self.settings)
        self._present = {kind.KIND: {} for kind in (Order, Position, Balance, AccountGreeks)}

    def image(self) -> AccountImage:
        """What it knows now; the events in it are shared."""
        present = [_shown(known) for each in self._present.values() for known in each.values()]
        ended = [_shown(known) for known in islice(reversed(self._ended.values()), KEPT_ENDS)]
        return AccountImage(present, ended[::-1], self._fills.image())

    def recall(self, image: AccountImage) -> None:
        """Know what an earlier process knew, before anything else: the next queries are as after a reconnect."""
        for shown, entries in (
            *((each, self._present[each.event.KIND]) for each in image.present),
            *((each, self._ended) for each in image.ended),
        ):
            key = key_of(shown.event)
            if key is not None:
                entries[key] = _Known(shown.event, shown.time, shown.sequence, 0, is_read=True, is_recalled=True)
        self._fills.recall(image.fills)

    @property
    def in_doubt(self) -> bool:
        """Whether there are orders of which the venue told nothing when it was asked."""
        return any(known.missing_since is not None for known in self._present[Order.KIND].values())

    def admit(self, event: Event) -> list[Event]:
        """What to publish for an event of the stream, in order."""
        if isinstance(event, Fill):
            if self._fills.is_new(event):
                return [event]
            self.repeated_fills += 1
            return []
        if isinstance(event, SnapshotEnd):
            return self._complete_snapshot(event)
        key = key_of(event)
        if key is None or not isinstance(event, AccountEvent):
            return [event]
        self._touches += 1
        if event.is_snapshot:
            part, connection = (event.channel, event.KIND), event.origin.connection
            if self._began.get(part, ("", 0))[0] != connection:
                self._began[part] = (connection, self._touches)
        known = self._known(key)
        if known is not None and known.is_read and _is_superseded(event, known):
            known.touch = self._touches
            self.superseded += 1
            return []
        self._remember(key, event, known, self._touches, is_read=False)
        return [event]

    def mark(self) -> int:
        """A query begins now."""
        return self._touches

    def complete(
        self, scope: Scope, kind: str, events: Sequence[Event], mark: int, now: Micros, connection: str
    ) -> tuple[list[Event], list[Order]]:
        """What to publish of a query's answer that is a whole state, and the orders that are open no longer.

        What became of those has to be asked one by one, see `answered`. `kind` is our name of the channel, `now` the
        venue's time, and `connection` the one that closings are said to come from.
        """
        published = [each for event in events for each in self._read(event, mark)]
        named = {key_of(event) for event in events}
        vanished: list[Order] = []
        for key, known in list(self._covered(scope)):
            if key in named or known.touch > mark:
                continue
            if isinstance(known.event, Order):
                vanished.append(known.event)
            else:
                known.is_read = True
                published.append(self._close(key, known, connection, None, now))
        if kind == Position.KIND:
            self._whole[scope] = None
        return published, vanished

    def answered(self, order: Order, events: Sequence[Event], mark: int, now: Micros, connection: str) -> list[Event]:
        """What to publish of the answer about one order that was open; no events if the venue tells nothing.

        An order that is unknown twice, at least `overlap` apart, is told cancelled: that is what venues forget first.
        """
        published = [each for event in events for each in self._read(event, mark)]
        key = key_of(order)
        known = self._present[Order.KIND].get(key) if key is not None else None
        if key is None or known is None or not isinstance(known.event, Order) or known.touch > mark:
            return published
        if known.event.status not in OPEN:
            # Not among the open orders, and not ended in our words: an algo order that has done its work.
            self._end(key, known)
        elif any(key_of(event) == key for event in events):
            known.missing_since = None
        elif known.missing_since is None:
            known.missing_since = now
        elif now - known.missing_since >= self.settings.overlap * 1e6:
            del self._present[Order.KIND][key]
            published.append(given_up(known.event, attrs.evolve(order.origin, connection=connection), now))
        return published

    def fills_since(self, topic: str, now: Micros) -> Micros:
        """The venue time from which the fills of a subscription have to be read."""
        return self._fills.since(topic, now)

    def fills(self, topic: str, events: Sequence[Event], started: Micros) -> list[Event]:
        """What to publish of a complete reading of fills, oldest first; `started` is the venue time of its begin."""
        if not self._fills.was_read(topic):
            for fill in events:
                market, instrument = fill.origin.market, fill.origin.instrument
                if isinstance(fill, Fill) and instrument is not None and market not in _WITHOUT_POSITIONS:
                    self._traded[market, instrument] = fill
        return self._fills.read(topic, events, started)

    def flats(self, now: Micros, connection: str) -> list[Event]:
        """Flat positions in what was traded before the start of the process and is held no longer: each once.

        Nothing else would tell a consumer that a position was closed while nobody listened. Its own identity is not
        known here: flat is the whole instrument.
        """
        told = {
            (known.event.channel, known.event.origin.market, known.event.origin.instrument)
            for known in (*self._present[Position.KIND].values(), *self._ended.values())
            if isinstance(known.event, Position) and not self._is_older_than_trading(known)
        }
        found: list[Event] = []
        for scope in self._whole:
            for (market, instrument), fill in self._traded.items():
                place = (scope.channel, market, instrument)
                if scope.market in (None, market) and place not in told:
                    told.add(place)
                    head = (attrs.evolve(fill.origin, connection=connection), fill.exchange_time, now, None)
                    flat = Position(*head, scope.channel, True, "flat", ZERO, fill.size_unit)
                    found += self._read(flat, self._touches)
        return found

    def _complete_snapshot(self, end: SnapshotEnd) -> list[Event]:
        connection = end.origin.connection
        by, began = self._began.pop((end.channel, end.kind), ("", 0))
        if by != connection:
            began = self._touches + 1  # an empty snapshot
        scope = Scope(end.channel, end.market)
        if end.kind == Position.KIND:
            self._whole[scope] = None
        closed: list[Event] = []
        for key, known in list(self._covered(scope)):
            if known.touch < began and end.kind == known.event.KIND and not isinstance(known.event, Order):
                closed.append(self._close(key, known, connection, end.exchange_time, end.receive_time))
        return closed

    def _read(self, event: Event, mark: int) -> list[Event]:
        """What to publish of one event of a query's answer."""
        if isinstance(event, Fill):
            return [event] if self._fills.is_new(event) else []
        key = key_of(event)
        if key is None or not isinstance(event, AccountEvent):
            return [event]
        known = self._known(key)
        if known is not None and (known.touch > mark or known.is_after(event) or is_reopened(event, known.event)):
            return []
        self._remember(key, event, known, known.touch if known is not None else 0, is_read=True)
        return [event]

    def _known(self, key: Key) -> _Known | None:
        return self._present[str(key[0])].get(key) or self._ended.get(key)

    def _is_older_than_trading(self, known: _Known) -> bool:
        """Whether an earlier process may have told the position anew before it ended, and could not note that."""
        origin = known.event.origin
        fill = self._traded.get((origin.market, origin.instrument or ""))
        return known.is_recalled and fill is not None and (known.time or 0) < (fill.exchange_time or 0)

    def _covered(self, scope: Scope) -> Iterator[tuple[Key, _Known]]:
        for present in self._present.values():
            for key, known in present.items():
                if scope.covers(known.event):
                    yield key, known

    def _remember(self, key: Key, event: AccountEvent, before: _Known | None, touch: int, *, is_read: bool) -> None:
        known = _Known(event, event.exchange_time, event.sequence, touch, is_read)
        if before is not None:
            known.time = before.time if known.time is None else known.time
            known.sequence = before.sequence if known.sequence is None else known.sequence
            known.missing_since = before.missing_since if is_read else None
        if is_over(event):
            self._end(key, known)
        else:
            present = self._present[event.KIND]
            present[key] = known
            # The venue bounds what is open; this is for states whose end nothing tells, as when nothing is read.
            _bound(present, self.settings.remembered_fills)

    def _end(self, key: Key, known: _Known) -> None:
        """Keep it as what came before, so that a late answer does not bring it back."""
        self._present[str(key[0])].pop(key, None)
        self._ended.pop(key, None)
        self._ended[key] = known
        _bound(self._ended, self.settings.remembered_fills)

    def _close(
        self, key: Key, known: _Known, connection: str, exchange_time: Micros | None, receive_time: Micros
    ) -> Event:
        origin = attrs.evolve(known.event.origin, connection=connection)
        # When it ended is not known. A later time could be beyond the next change, which the stream may still tell.
        time = exchange_time if exchange_time is not None else known.time
        known.event, known.time, known.is_recalled = closing(known.event, origin, time, receive_time), time, False
        self._end(key, known)
        return known.event


def _shown(known: _Known) -> Shown:
    return Shown(known.event, known.time, known.sequence)


def _is_superseded(event: AccountEvent, known: _Known) -> bool:
    """Whether a query has told a later state; never of balances, for whose answers some venues give their own time."""
    return isinstance(event, Order | Position) and (known.is_after(event) or is_reopened(event, known.event))


def _bound(entries: dict[K, V], most: int) -> None:
    if len(entries) > most:
        del entries[next(iter(entries))]
