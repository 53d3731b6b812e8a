"""What happens when the spool is full: new records are refused, the oldest given up, or feeds asked to stop reading.

Whatever is lost is announced: at once that it begins, and then how much of which kind and instrument, and between which
times.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import structlog
import trio

from pipeline.model.events import Event, FeedStatus, Micros, Origin
from pipeline.sink.heads import Heads
from pipeline.sink.losses import Losses
from pipeline.sink.records import Record
from pipeline.sink.settings import SpoolSettings
from pipeline.sink.spool import GivenUp
from pipeline.sink.store import Store

log = structlog.get_logger()

_ROOM_AGAIN = 0.9
"""Share of the spool's bounds below which its losses are announced."""
_STOP_READING, _READ_AGAIN = 0.8, 0.6
"""Shares of the bounds; above the first there is still room for what is on its way already."""
_SPARE_SEGMENTS = 2
"""How many segments' worth of room is kept free by giving up the oldest."""
_LOOK_S = 0.25
_FULL = "the spool is full"


@attrs.define(eq=False)
class Room:
    """Admits records to the store, and accounts for those that it cannot take."""

    settings: SpoolSettings
    store: Store
    heads: Heads
    own: Origin
    now: Callable[[], Micros]
    announce: Callable[[FeedStatus], None]
    """Appends a status beyond the bounds."""
    status_topic: str
    """Its records are never given up: they may tell of other losses."""
    lost: int = attrs.field(default=0, init=False)
    """Refused and given up."""
    dropped: int = attrs.field(default=0, init=False)
    """Given up for newer ones."""
    recovered: int = attrs.field(default=0, init=False)
    """Records of earlier processes among the given up, which nobody else counts."""
    is_full: bool = attrs.field(default=False, init=False)
    """Whether records are being lost."""
    stopped_at: Micros | None = attrs.field(default=None, init=False)
    """Since when the feeds should not read, if they should not."""
    _losses: Losses = attrs.field(factory=Losses, init=False)
    _has_room: trio.Event = attrs.field(factory=trio.Event, init=False)
    _is_needed: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when a record did not fit that has to be kept."""

    def __attrs_post_init__(self) -> None:
        self._has_room.set()

    @property
    def has_room(self) -> bool:
        """Whether the feeds may read on; always, unless `when_full` is stop_reading."""
        return self.stopped_at is None

    async def wait(self) -> None:
        """Return when the feeds may read on."""
        await self._has_room.wait()

    def admit(self, record: Record, kind: str, event: Event) -> None:
        """Append the record, or account for it."""
        size, policy = record.size, self.settings.when_full
        if self.store.fits(size):
            self.store.append(record)
            if policy == "stop_reading" and self.has_room and not self.store.fits(size, share=_STOP_READING):
                self._stop()
            return
        if policy == "drop_oldest":
            statuses: list[Record] = []
            while not self.store.fits_memory(size) and (oldest := self.store.drop_first()) is not None:
                if oldest.topic == self.status_topic:
                    statuses.append(oldest)
                else:
                    self._give_up(oldest)
            for kept in (*statuses, record):
                self.store.append(kept)
            self._is_needed.set()
            return
        self._begin(event.receive_time, "refused")
        self.lost += 1
        self._losses.add(kind, event.origin, event.receive_time)

    def eased(self) -> None:
        """Room may have been made: tell what was lost until now, and let the feeds read again."""
        if self.is_full and self.store.fits(0, share=_ROOM_AGAIN):
            self.is_full = False
            self.settle()
            log.info("spool_has_room", announced_lost=self.lost)
        if self.stopped_at is not None and self.store.fits(0, share=_READ_AGAIN):
            since, self.stopped_at = self.stopped_at, None
            self._has_room.set()
            log.info("reading_resumes")
            self.announce(self._status("resynced", "reading resumes: the spool has room again", since, self.now()))

    def settle(self) -> None:
        """Announce what was lost since the last time."""
        for status in self._losses.announcements(self.now(), _FULL):
            self.announce(status)

    async def keep(self) -> None:
        """Look after the room until cancelled: give up the oldest segments in time, if that is the policy."""
        while True:
            with trio.move_on_after(_LOOK_S):
                await self._is_needed.wait()
            self._is_needed = trio.Event()
            if self.settings.when_full == "drop_oldest":
                while self._is_tight and await self.store.give_up_oldest(self._announce_given_up):
                    await self.store.flush()
            self.eased()

    @property
    def _is_tight(self) -> bool:
        spare = _SPARE_SEGMENTS * self.settings.segment_bytes
        limit = self.settings.max_bytes - min(spare, self.settings.max_bytes // 2)
        return self.store.no_space or self.store.size_bytes > limit

    def _stop(self) -> None:
        self.stopped_at = self.now()
        self._has_room = trio.Event()
        log.error("reading_stops", reason="the spool is nearly full", bytes=self.store.size_bytes)
        self.announce(self._status("stale", "reading stops: the spool is nearly full", self.stopped_at))

    def _begin(self, since: Micros, what: str) -> None:
        """Say at once that a gap begins: if the process is killed, its extent is never told."""
        if self.is_full:
            return
        self.is_full = True
        reason = self.store.failure or _FULL
        log.error("spool_full", reason=reason, bytes=self.store.size_bytes, effect=f"records are {what}")
        self.announce(self._status("gap", f"records from here on are {what}: {reason}", since))

    def _give_up(self, record: Record) -> None:
        kind, origin, received = self.heads.of(record)
        self._begin(received, "given up for newer ones")
        self.lost += 1
        self.dropped += 1
        self._losses.add(kind, origin, received)

    def _announce_given_up(self, given_up: GivenUp) -> None:
        losses, count = Losses(), 0
        for record in given_up.records:
            if record.topic == self.status_topic:
                self.store.append(record)
            else:
                losses.add(*self.heads.of(record))
                count += 1
        self.lost += count
        self.dropped += count
        self.recovered += len(given_up.records) if given_up.recovered else 0
        log.error("spool_segment_given_up", segment=given_up.number, records=count)
        for status in losses.announcements(self.now(), "given up for newer records: the spool was full"):
            self.announce(status)
        for start, end in given_up.damages:
            reason = f"bytes {start} to {end} of spool segment {given_up.number}, given up, are unreadable"
            self.announce(self._status("gap", reason))

    def _status(self, status: str, reason: str, since: Micros | None = None, until: Micros | None = None) -> FeedStatus:
        return FeedStatus(
            self.own,
            None,
            self.now(),
            None,
            status=status,
            scope="sink",
            reason=reason,
            from_time=since,
            to_time=until,
        )
