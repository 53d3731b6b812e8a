"""The spool as the Trio thread sees it: bounded memory in front of the disk, one owner of the disk at a time."""

from __future__ import annotations

from math import inf

import attrs
import structlog
import trio

from pipeline.sink.records import Record
from pipeline.sink.settings import SpoolSettings
from pipeline.sink.spool import Chunk, Spool

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
    count: int = attrs.field(default=0, init=False)
    """Records that this process appended and nobody took yet."""
    failure: str | None = attrs.field(default=None, init=False)
    """Why the last write failed."""
    _memory: list[Record] = attrs.field(factory=list, init=False)
    _memory_bytes: int = attrs.field(default=0, init=False)
    """Of the records in memory, those being written included."""
    _hold_until: float = attrs.field(default=-inf, init=False)
    _taking: bool = attrs.field(default=False, init=False)
    _waiting: trio.Event = attrs.field(factory=trio.Event, init=False)
    _disk: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    @property
    def size_bytes(self) -> int:
        """On disk and in memory."""
        return self.spool.size_bytes + self._memory_bytes

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

    def append(self, record: Record) -> None:
        """Take a record; the caller asked `fits`."""
        self._memory.append(record)
        self._memory_bytes += record.size
        self.count += 1
        self._waiting.set()

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
            batch, self._memory = self._memory, []
            self._waiting = trio.Event()
            if not batch:
                return
            try:
                await trio.to_thread.run_sync(self.spool.write, batch)
            except OSError as error:
                self._memory[:0] = batch
                self._waiting.set()
                self._complain("spool_not_writable", error)
            else:
                self._memory_bytes -= sum(record.size for record in batch)
                if self.failure is not None:
                    log.info("spool_usable_again")
                    self.failure = None

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
                finally:
                    self._taking = False
            await trio.sleep(_RETRY_S)
        if chunk is not None:
            if not chunk.recovered:
                self.count -= len(chunk.records)
            if not self.spool.unread_bytes:
                self._hold_until = trio.current_time() + _HOLD_S
        return chunk

    def take_memory(self) -> list[Record]:
        """What is in memory. The caller may hand records back by `append` before it awaits anything."""
        taken, self._memory = self._memory, []
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

    def _complain(self, event: str, error: OSError) -> None:
        reason = error.strerror or str(error)
        if reason != self.failure:
            log.error(event, reason=reason, effect="records wait in memory, within its bound")
        self.failure = reason
