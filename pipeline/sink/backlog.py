"""The spool as the Trio thread sees it: bounded memory in front of the disk, one owner of the disk at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf

import attrs
import structlog
import trio

from pipeline.model.events import Micros
from pipeline.sink.records import Record
from pipeline.sink.settings import SpoolSettings
from pipeline.sink.spool import NO_SPACE, Chunk, GivenUp, Spool

log = structlog.get_logger()

_RETRY_S = 1.0
"""Pause after a failed write."""
_HOLD_S = 1.0
"""How long records stay in memory, unwritten, for the last chunk from disk to be delivered."""
HELD_RECORDS = 5_000
"""How many records may stay so."""


@attrs.define(eq=False)
class Backlog:
    """Records that wait for Kafka, in the order in which they were published."""

    settings: SpoolSettings
    spool: Spool
    now: Callable[[], Micros]
    count: int = attrs.field(default=0, init=False)
    """Records that this process appended and nobody took yet."""
    failure: str | None = attrs.field(default=None, init=False)
    """Why the last write or read failed."""
    no_space: bool = attrs.field(default=False, init=False)
    """Whether it failed for want of space."""
    _is_unreadable: bool = attrs.field(default=False, init=False)
    """Whether it is reading that failed."""
    _memory: deque[Record] = attrs.field(factory=deque, init=False)
    _since: Micros | None = attrs.field(default=None, init=False)
    """When the oldest record in memory came."""
    _writing_since: Micros | None = attrs.field(default=None, init=False)
    """The same of what is being written."""
    _disk_bytes: int | None = attrs.field(default=None, init=False)
    """What was on disk when the write under way began: until it is done, its records count as those in memory."""
    _memory_bytes: int = attrs.field(default=0, init=False)
    """Of the records in memory, those being written included."""
    _hold_until: float = attrs.field(default=-inf, init=False)
    _taking: bool = attrs.field(default=False, init=False)
    _waiting: trio.Event = attrs.field(factory=trio.Event, init=False)
    _disk: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    @property
    def size_bytes(self) -> int:
        """On disk and in memory."""
        on_disk = self.spool.size_bytes if self._disk_bytes is None else self._disk_bytes
        return on_disk + self._memory_bytes

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits; false while a write or a read is under way."""
        return not self._memory_bytes and not self.spool.unread_bytes and not self._taking

    def fits(self, size: int, *, share: float = 1.0) -> bool:
        """Whether so many bytes more stay within this share of the bounds of memory and disk."""
        return (
            self._memory_bytes + size <= self.settings.max_memory_bytes * share
            and self.size_bytes + size <= self.settings.max_bytes * share
        )

    def fits_memory(self, size: int) -> bool:
        """Whether so many bytes more stay within the bound of memory."""
        return self._memory_bytes + size <= self.settings.max_memory_bytes

    @property
    def unsafe_since(self) -> Micros | None:
        """When the oldest record came that is not on disk; None if all are."""
        return self._writing_since if self._writing_since is not None else self._since

    def append(self, record: Record) -> None:
        """Take a record; the caller asked `fits`."""
        if not self._memory:
            self._since = self.now()
        self._memory.append(record)
        self._memory_bytes += record.size
        self.count += 1
        self._waiting.set()

    def drop_first(self) -> Record | None:
        """Forget the oldest record in memory that is not being written, and return it."""
        if not self._memory:
            return None
        record = self._memory.popleft()
        self._memory_bytes -= record.size
        self.count -= 1
        return record

    async def keep_writing(self) -> None:
        """Write what gathers in memory, every `flush_interval`. A failed write is tried again and loses nothing.

        While the last chunk from disk is on its way, newer records stay in memory for a moment. Written at once,
        they would always be the next chunk, and the backlog would never end where a delivery takes longer than
        `flush_interval`.
        """
        while True:
            await self._waiting.wait()
            await trio.sleep(self.settings.flush_interval if self.failure is None else _RETRY_S)
            if trio.current_time() >= self._hold_until or self.memory_count > HELD_RECORDS:
                await self.flush()

    async def flush(self) -> None:
        """Write what is in memory now."""
        async with self._disk:
            batch, self._memory = self._memory, deque()
            self._writing_since, self._since = self._since, None
            if self._waiting.is_set():  # otherwise `keep_writing` waits for this very event
                self._waiting = trio.Event()
            if not batch:
                await self._look_again()
                return
            self._disk_bytes = self.spool.size_bytes
            try:
                with trio.CancelScope(shield=True):  # cancelled before it begins, nobody would have the batch
                    await trio.to_thread.run_sync(self.spool.write, list(batch))
            except OSError as error:
                self._memory.extendleft(reversed(batch))
                self._since = self._writing_since
                self._waiting.set()
                self._complain("spool_not_writable", error)
            else:
                self._memory_bytes -= sum(record.size for record in batch)
                self._recover()
            finally:
                self._disk_bytes = self._writing_since = None

    async def _look_again(self) -> None:
        """See whether the disk is well again where nothing is left to write: Kafka has taken what was in memory."""
        if self.failure is None or self._is_unreadable:
            return
        try:
            await trio.to_thread.run_sync(self.spool.probe)
        except OSError as error:
            self._complain("spool_not_writable", error)
            self._waiting.set()
        else:
            self._recover()

    async def take(self, limit: int) -> Chunk | None:
        """The oldest records; None if the disk has none: then `take_memory` has all there is, until the next await."""
        while True:
            async with self._disk:
                self._taking = True
                try:
                    chunk = await trio.to_thread.run_sync(self.spool.read, limit)
                    break
                except OSError as error:
                    self._complain("spool_not_readable", error)
                    self._is_unreadable = True
                finally:
                    self._taking = False
            await trio.sleep(_RETRY_S)
        if self._is_unreadable:
            self._is_unreadable = False
            self._recover()
        if chunk is not None:
            if not chunk.recovered:
                self.count -= len(chunk.records)
            if not self.spool.unread_bytes:
                self._hold_until = trio.current_time() + _HOLD_S
        return chunk

    def take_memory(self) -> list[Record]:
        """What is in memory. The caller may hand records back by `append` before it awaits anything."""
        taken, self._memory, self._since = list(self._memory), deque(), None
        self._memory_bytes -= sum(record.size for record in taken)
        self.count -= len(taken)
        return taken

    @property
    def memory_count(self) -> int:
        """Records in memory."""
        return len(self._memory)

    async def acknowledge(self) -> None:
        """Everything taken is in Kafka."""
        async with self._disk:
            try:
                await trio.to_thread.run_sync(self.spool.acknowledge)
            except OSError as error:
                # Nothing is lost by it: what stays on disk is repeated after a restart.
                log.warning("spool_not_cleared", reason=str(error), effect="records may be repeated after a restart")

    async def give_up_oldest(self, announce: Callable[[GivenUp], None]) -> bool:
        """Delete the oldest segment that nobody works on, after `announce` has told of it; False if there is none."""
        async with self._disk:
            number = self.spool.oldest_idle()
            if number is None and self.no_space:
                self.spool.roll()
                number = self.spool.oldest_idle()
            if number is None:
                return False
            given_up = await trio.to_thread.run_sync(self.spool.look_into, number)
            announce(given_up)
            if not given_up.recovered:
                self.count -= len(given_up.records)
            with trio.CancelScope(shield=True):  # what is announced has to come true
                await trio.to_thread.run_sync(self.spool.give_up, number)
            return True

    def close(self, older: list[Record]) -> None:
        """Keep what waits, with `older` in front; blocks, when nothing else of this object runs any more.

        Raises `OSError` if it cannot be written.
        """
        newer = self.take_memory()
        self.spool.close(older, newer)
        self.count += len(older) + len(newer)

    def write_off(self) -> int:
        """How many records were damaged on disk after this process wrote them; call it when the disk has no more."""
        missing = self.count - len(self._memory)
        self.count = len(self._memory)
        return missing

    def _recover(self) -> None:
        if self.failure is not None:
            log.info("spool_usable_again")
            self.failure, self.no_space = None, False

    def _complain(self, event: str, error: OSError) -> None:
        reason = error.strerror or str(error)
        self.no_space = error.errno in NO_SPACE
        if reason != self.failure:
            log.error(event, reason=reason, effect="records wait in memory, within its bound")
        self.failure = reason
