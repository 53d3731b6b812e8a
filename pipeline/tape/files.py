"""The archive on disk: entries gather in memory, and a thread writes them, so that no reader waits for a disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

import attrs
import structlog
import trio

from pipeline.feeds.chain import Publish
from pipeline.feeds.settings import ArchiveFileSettings
from pipeline.model.events import FeedStatus, Micros, Origin
from pipeline.model.stats import ArchiveStats
from pipeline.tape.blocks import pack as pack_block
from pipeline.tape.entries import BEGIN, Entry
from pipeline.tape.entries import pack as pack_entry

log = structlog.get_logger(__name__)

SUFFIX = ".wire.gz"
BLOCK_BYTES = 256 * 1024
"""Content after which a block is closed: what damage to one byte may cost."""
LONGEST_PAUSE_S = 64
"""Between attempts to write; the pause doubles with every failure."""
_ENTRY_BYTES = 250
"""What an entry takes in memory beside its payload."""


def path_of(directory: Path, venue: str, moment: int) -> Path:
    """The file of a venue that is begun at a time (microseconds): names are in the order of time."""
    begun = datetime.fromtimestamp(moment / 1e6, UTC)
    return directory / f"{venue}-{begun:%Y%m%dT%H%M%S}.{moment % 1_000_000:06d}Z{SUFFIX}"


@attrs.define(eq=False)
class FileWriter:
    """Writes the files of one venue, one after the other; blocks. Raises `OSError`."""

    settings: ArchiveFileSettings
    venue: str
    files: int = attrs.field(default=0, init=False)
    written: int = attrs.field(default=0, init=False)
    """Bytes, over all files."""
    size: int = attrs.field(default=0, init=False)
    """Bytes of the present file."""
    _file: FileIO | None = attrs.field(default=None, init=False)
    _path: Path | None = attrs.field(default=None, init=False)

    def write(self, batch: Iterable[Entry]) -> None:
        """Write entries, in blocks that are whole when this returns; each `begin` starts a file."""
        parts: list[bytes] = []
        gathered = 0
        for entry in batch:
            if entry.kind == BEGIN:
                self._write(parts)
                parts, gathered = [], 0
                self._open(entry.receive_time)
            part = pack_entry(entry)
            parts.append(part)
            gathered += len(part)
            if gathered >= BLOCK_BYTES:
                self._write(parts)
                parts, gathered = [], 0
        self._write(parts)

    def close(self) -> None:
        """No more; may be called at any time."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _open(self, moment: int) -> None:
        self.close()
        directory = Path(self.settings.directory)
        directory.mkdir(parents=True, exist_ok=True)
        while True:
            path = path_of(directory, self.venue, moment)
            try:
                # Whoever may read the messages of accounts is decided by whoever opens it to others.
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                break
            except FileExistsError:
                moment += 1
        self._file, self._path, self.size = FileIO(descriptor, "wb"), path, 0
        self.files += 1
        self._tidy(directory, moment)

    def _write(self, parts: list[bytes]) -> None:
        if not parts:
            return
        if self._file is None:
            raise OSError("no file is open")
        rest = memoryview(pack_block(b"".join(parts)))
        while rest:
            count = self._file.write(rest)
            self.size += count
            self.written += count
            rest = rest[count:]

    def _tidy(self, directory: Path, moment: int) -> None:
        """Delete what is older or more than it may be; the oldest goes first, and the one being written never."""
        keep, bound = self.settings.keep, self.settings.max_bytes
        if keep is None and bound is None:
            return
        found = []
        for path in sorted(directory.glob(f"{self.venue}-*{SUFFIX}")):
            if path != self._path:
                status = path.stat()
                found.append((path, status.st_size, status.st_mtime))
        total = sum(size for _, size, _ in found)
        for path, size, changed in found:
            is_old = keep is not None and changed < moment / 1e6 - keep
            if is_old or (bound is not None and total > bound):
                path.unlink(missing_ok=True)
                total -= size


@attrs.define(eq=False)
class FileKeeper:
    """A `recorder.Keeper` that writes files; `run` does it."""

    settings: ArchiveFileSettings
    venue: str
    stats: ArchiveStats
    publish: Publish
    clock: Callable[[], int]
    begin: Callable[[bool], None] = attrs.field(default=lambda incomplete: None)
    """Starts a new segment; told whether something was lost since the last one."""
    _writer: FileWriter = attrs.field(init=False)
    _waiting: list[Entry] = attrs.field(factory=list, init=False)
    _waiting_bytes: int = attrs.field(default=0, init=False)
    _writing_bytes: int = attrs.field(default=0, init=False)
    _lost: int = attrs.field(default=0, init=False)
    """Since the last announcement; while there are any, nothing is taken."""
    _lost_since: int = attrs.field(default=0, init=False)
    _reason: str = attrs.field(default="", init=False)
    _pressed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _rotate_at: int = attrs.field(default=0, init=False)
    _failures: int = attrs.field(default=0, init=False)
    """Writes that failed in a row."""
    _retry_at: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._writer = FileWriter(self.settings, self.venue)

    def take(self, entry: Entry, endpoint: str, account: str | None) -> None:
        """Have it written; if there is no room, nothing is taken until a new segment begins."""
        size = len(entry.payload) + _ENTRY_BYTES
        if self._lost or self._waiting_bytes + self._writing_bytes + size > self.settings.buffer_bytes:
            self._lose(1, entry.receive_time, "the disk is slower than the messages, and the buffer is full")
            return
        self._waiting.append(entry)
        self._waiting_bytes += size
        if self._waiting_bytes * 4 > self.settings.buffer_bytes:
            self._pressed.set()

    async def run(self) -> None:
        """Write until cancelled, and then what is left."""
        self._rotate_at = self.clock() + round(self.settings.rotate_every * 1e6)
        try:
            while True:
                with trio.move_on_after(self.settings.flush_interval):
                    await self._pressed.wait()
                await self._flush()
                now = self.clock()
                if self._lost and now >= self._retry_at:
                    self._announce(now)
                    self._begin(now, incomplete=True)
                elif not self._lost and (self._writer.size >= self.settings.rotate_bytes or now >= self._rotate_at):
                    self._begin(now, incomplete=False)
        finally:
            with trio.CancelScope(shield=True):
                await self._flush()
                await trio.to_thread.run_sync(self._writer.close)
            if self._lost:
                self._announce(self.clock())

    async def _flush(self) -> None:
        self._pressed = trio.Event()
        batch, self._waiting = self._waiting, []
        self._writing_bytes, self._waiting_bytes = self._waiting_bytes, 0
        try:
            if batch:
                with trio.CancelScope(shield=True):  # cancelled before it begins, nobody would have the batch
                    await trio.to_thread.run_sync(self._writer.write, batch)
        except OSError as error:
            self._failures += 1
            self._retry_at = self.clock() + min(2**self._failures, LONGEST_PAUSE_S) * 1_000_000
            self._reason = f"{self.settings.directory} cannot be written: {error.strerror or error}"
            # How much of it got there is not known; a reader tells by the numbers.
            self._lose(len(batch) + len(self._waiting), batch[0].receive_time, self._reason)
            self._waiting, self._waiting_bytes = [], 0
        else:
            self._reason = ""
            self._failures = 0 if batch else self._failures
        finally:
            self._writing_bytes = 0
            self._count()

    def _lose(self, count: int, since: int, reason: str) -> None:
        if not self._lost:
            self._lost_since = since
            log.error("archive_incomplete", venue=self.venue, reason=reason)
        self._lost += count
        self.stats.lost += count
        self.stats.failure = reason

    def _announce(self, now: int) -> None:
        """Tell what is missing."""
        count, self._lost = self._lost, 0
        origin = Origin(self.venue, "archive", None, None, None, self.venue)
        reason = f"{self.stats.failure}: the archive lacks {count} entries"
        status = FeedStatus(origin, None, Micros(now), None, "gap", "archive", reason)
        status.from_time, status.to_time, status.count = Micros(self._lost_since), Micros(now), count
        self.publish(status)

    def _begin(self, now: int, *, incomplete: bool) -> None:
        self._rotate_at = now + round(self.settings.rotate_every * 1e6)
        self.begin(incomplete)

    def _count(self) -> None:
        writer, stats = self._writer, self.stats
        stats.files, stats.written_bytes, stats.waiting_bytes = writer.files, writer.written, self._waiting_bytes
        if not self._lost:
            stats.failure = self._reason
