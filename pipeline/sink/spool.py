"""The spool: records that the broker has not taken yet, in order, in segment files that outlive the process.

Segments are numbered; their order is the records' order. A segment is deleted when all its records are acknowledged,
never changed before; what was acknowledged of the segment being read is kept in a small file beside it, so that little
is repeated after a crash.

All methods block and belong to worker threads, one at a time, with one exception: a journal calls `append` on the event
loop whatever else is under way. That touches only the last segment's size and the end of the list of segments, and
nothing else does while a journal runs.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

import attrs
import structlog

from pipeline.model.errors import ConfigError
from pipeline.sink.folders import sync_folder
from pipeline.sink.marker import Marker, open_marker
from pipeline.sink.records import Damage, Record, pack, parse
from pipeline.sink.settings import SpoolSettings

log = structlog.get_logger()

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_SUFFIX = ".spool"
_FIRST = 1_000_000_000
"""Numbers below it are for records that turn out to be older than everything in the spool."""
_BLOCK_BYTES = 4 * 1024**2
_SCAN_RECORDS = 10_000
_LEAP = 1_000
"""Numbers left out after an unclean end: a segment that a power cut took may be known elsewhere by its number."""


class Position(NamedTuple):
    """A place in the log, between two records."""

    segment: int
    offset: int


@attrs.define(eq=False)
class _Segment:
    number: int
    path: Path
    size: int
    at: int = 0
    """Everything before was read."""
    done: int = 0
    """Everything before was acknowledged."""
    recovered: bool = False
    first: Record | None = None
    """The first record that was not read, or the last one that was; None while nobody has looked."""


@attrs.frozen
class Chunk:
    """Consecutive records of one segment."""

    records: list[Record]
    damages: list[Damage]
    segment: str
    recovered: bool
    """Written by an earlier process."""
    start: Position
    end: Position
    """Where the next chunk starts."""


@attrs.frozen
class GivenUp:
    """A whole segment that is to make room for newer records."""

    number: int
    records: list[Record]
    """What nobody has read of it."""
    damages: list[Damage]
    recovered: bool


@attrs.define(eq=False)
class Spool:
    """An open spool; `open_spool` makes one."""

    settings: SpoolSettings
    _folder: Path
    _lock: IO[str]
    _segments: list[_Segment]
    marker: Marker
    identity: str = ""
    """Names this log to whoever remembers positions in it; empty if nobody does."""
    _next: int = _FIRST + 1
    """The number of the next segment."""
    _rolled: list[IO[bytes]] = attrs.field(factory=list, init=False)
    """Segments that `append` has filled, until `unsynced` hands them out."""
    _active: IO[bytes] | None = attrs.field(default=None, init=False)
    """Of the last segment, when this process writes it."""

    def probe(self) -> None:
        """Write something and delete it. Raises `OSError` where that does not work."""
        _probe(self._folder, can_empty=False, sync=self.settings.sync)

    @property
    def size_bytes(self) -> int:
        """What the segments take on disk."""
        return sum(segment.size for segment in self._segments)

    @property
    def unread_bytes(self) -> int:
        """What `read` has not returned yet."""
        return sum(segment.size - segment.at for segment in self._segments)

    @property
    def oldest(self) -> Record | None:
        """The first record that `read` has not returned, or its predecessor; None if there is none. Quick."""
        return next((segment.first for segment in self._segments if segment.at < segment.size), None)

    def write(self, records: Sequence[Record]) -> None:
        """Append all of the records or, raising `OSError`, none."""
        if self._active is not None and self._segments[-1].size >= self.settings.segment_bytes:
            self._active.close()
            self._active = None
        if self._active is None:
            self._active = self._create(self._next_number(), len(self._segments))
            sync_folder(self._folder)
        try:
            self._append(self._active, self._segments[-1], records)
        except OSError:
            if self._active.tell() != self._segments[-1].size:  # it could not be cut off either: leave that segment
                self._active.close()
                self._active = None
            raise

    def append(self, record: Record) -> Position:
        """Append one record, into the page cache; returns its end. Raises `OSError`, and has written nothing then.

        It survives the process when this returns, and a power cut when `unsynced` is synced.
        """
        if self._active is not None and self._segments[-1].size >= self.settings.segment_bytes:
            self._rolled.append(self._active)
            self._active = None
        if self._active is None:
            self._active = self._create(self._next_number(), len(self._segments))
        segment, data = self._segments[-1], pack((record,))
        written = 0
        try:
            written = self._active.write(data)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self._cut(self._active, segment)
            if self._active.tell() != segment.size:
                self._active.close()
                self._active = None
            raise
        if segment.at >= segment.size:
            segment.first = record
        segment.size += written
        return Position(segment.number, segment.size)

    def unsynced(self) -> list[int]:
        """Descriptors of what `append` may have left in the page cache; `sync` closes them. Quick."""
        found = [os.dup(file.fileno()) for file in self._rolled]
        for file in self._rolled:
            file.close()
        self._rolled = []
        if self._active is not None:
            found.append(os.dup(self._active.fileno()))
        return found

    def sync(self, descriptors: Sequence[int]) -> None:
        """Wait until these files and their names are on disk. Raises `OSError`."""
        try:
            if self.settings.sync:
                for descriptor in descriptors:
                    os.fdatasync(descriptor)
                sync_folder(self._folder)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def read(self, limit: int) -> Chunk | None:
        """The next records; None when all were read. Raises `OSError`."""
        for segment in self._segments:
            if segment.at < segment.size:
                return self._read(segment, limit)
        return None

    def reading_at(self) -> Position:
        """Where `read` goes on. Quick."""
        for segment in self._segments:
            if segment.at < segment.size:
                return Position(segment.number, segment.at)
        return Position(segment.number, segment.size) if self._segments else Position(0, 0)

    def passed(self, position: Position, last: Record) -> None:
        """Go on reading behind this place: what is in front of it, up to `last`, the caller has in memory. Quick."""
        for segment in self._segments:
            if segment.number < position.segment:
                segment.at = segment.size
            elif segment.number == position.segment:
                segment.at, segment.first = max(segment.at, position.offset), last
                break

    def resume_after(self, position: Position) -> None:
        """Take what an earlier process wrote in front of this place for acknowledged. Quick."""
        for segment in self._segments:
            if segment.recovered and segment.number <= position.segment:
                end = segment.size if segment.number < position.segment else min(position.offset, segment.size)
                segment.at = segment.done = max(segment.at, end)

    def acknowledge(self, *, keep_active: bool = False) -> None:
        """Everything that `read` has returned is in Kafka: forget it. Raises `OSError`.

        `keep_active` leaves the segment that is being written alone.
        """
        for segment in list(self._segments):
            is_active = segment is self._segments[-1] and self._active is not None
            if segment.at < segment.size or (is_active and keep_active):
                segment.done = segment.at
                break
            if is_active and self._active is not None:
                self._active.close()
                self._active = None
            self._segments.remove(segment)
            segment.path.unlink()
        self._save_progress()

    def oldest_idle(self) -> int | None:
        """The first segment that can be given up: nobody reads or writes it. Quick."""
        for segment in self._segments if self._active is None else self._segments[:-1]:
            if segment.at == segment.done and segment.at < segment.size:
                return segment.number
        return None

    def roll(self) -> None:
        """Write to another segment from now on. Quick."""
        if self._active is not None:
            self._rolled.append(self._active)
            self._active = None

    def look_into(self, number: int) -> GivenUp:
        """What would be given up with this segment. Raises `OSError`."""
        segment = next(segment for segment in self._segments if segment.number == number)
        records, damages, at = list[Record](), list[Damage](), segment.at
        with segment.path.open("rb") as file:
            while at < segment.size:
                some, broken, at = _parse_from(file, at, segment.size, _SCAN_RECORDS)
                records += some
                damages += broken
        return GivenUp(number, records, damages, segment.recovered)

    def give_up(self, number: int) -> None:
        """Delete this segment. Raises `OSError`."""
        segment = next(segment for segment in self._segments if segment.number == number)
        self._segments.remove(segment)
        segment.path.unlink()

    def leave(self, newer: Sequence[Record]) -> None:
        """Keep all that is not acknowledged, read or not, and `newer` behind it. Raises `OSError`.

        An empty last segment stays, so that no number is used twice.
        """
        try:
            self.sync(self.unsynced())
            if newer:
                self.write(newer)
            for segment in list(self._segments):
                if segment.done < segment.size:
                    continue
                if segment is self._segments[-1]:
                    os.truncate(segment.path, 0)
                    segment.size = segment.at = segment.done = 0
                else:
                    self._segments.remove(segment)
                    segment.path.unlink()
            self._save_progress()
        finally:
            self.abandon()

    def close(self, older: Sequence[Record] = (), newer: Sequence[Record] = ()) -> None:
        """Keep what is not acknowledged: `older` goes in front of the rest, `newer` behind it. Raises `OSError`.

        The caller hands back in `older` whatever `read` returned since the last `acknowledge` and Kafka did not take.
        """
        try:
            self.sync(self.unsynced())
            if newer:
                self.write(newer)
            returned = [segment for segment in self._segments if segment.at]
            if older:
                first = self._segments[0].number if self._segments else _FIRST
                with self._create(first - 1, 0) as file:
                    sync_folder(self._folder)
                    self._append(file, self._segments[0], older)
            for segment in returned:
                segment.done = segment.at
                if segment.done >= segment.size:
                    self._segments.remove(segment)
                    segment.path.unlink()
            self._save_progress()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the files as they are, without a word about what was read."""
        for file in self._rolled:
            file.close()
        self._rolled = []
        if self._active is not None:
            self._active.close()
            self._active = None
        self.marker.abandon()
        self._lock.close()

    def _next_number(self) -> int:
        if self._segments:
            self._next = max(self._next, self._segments[-1].number + 1)
        return self._next

    def _create(self, number: int, position: int) -> IO[bytes]:
        path = self._folder / f"{number:012d}{_SUFFIX}"
        file = path.open("xb", buffering=0)
        self._segments.insert(position, _Segment(number, path, 0))
        return file

    def _append(self, file: IO[bytes], segment: _Segment, records: Sequence[Record]) -> None:
        data = pack(records)
        try:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            if self.settings.sync:
                os.fdatasync(file.fileno())
        except OSError:
            self._cut(file, segment)
            raise
        if segment.at >= segment.size:
            segment.first = records[0]
        segment.size += len(data)

    @staticmethod
    def _cut(file: IO[bytes], segment: _Segment) -> None:
        with suppress(OSError):  # what went in would be repeated by a retry
            file.truncate(segment.size)
            file.seek(segment.size)

    def _read(self, segment: _Segment, limit: int) -> Chunk:
        start = segment.at
        with segment.path.open("rb") as file:
            records, damages, end = _parse_from(file, start, segment.size, limit)
        segment.at = end
        if records:
            segment.first = records[-1]
        return Chunk(
            records,
            damages,
            segment.path.name,
            segment.recovered,
            Position(segment.number, start),
            Position(segment.number, end),
        )

    def _save_progress(self) -> None:
        done = {str(segment.number): segment.done for segment in self._segments if segment.done}
        progress = self._folder / "progress"
        if done:
            fresh = self._folder / "progress.new"
            fresh.write_text(json.dumps(done), encoding="ascii")
            fresh.replace(progress)
        else:
            progress.unlink(missing_ok=True)


def open_spool(settings: SpoolSettings, *, identified: bool = False) -> Spool:
    """Open the folder, creating it, and cut off a torn end that a crash left.

    `identified` says that positions in the log are remembered elsewhere, so that they must not come to mean anything
    else. Raises `ConfigError` when it cannot be used: no permission, no space, or another process works in it.
    """
    folder = Path(settings.directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise ConfigError([f"kafka.spool.directory: {folder} is in use by another process"]) from None
        segments = [_Segment(int(path.stem), path, path.stat().st_size, recovered=True) for path in _found(folder)]
        _apply_progress(folder, segments)
        if segments:
            _mend_end(segments[-1])
        _look_at_first(segments)
        _probe(folder, can_empty=bool(segments), sync=False)
        marker = open_marker(folder)
        identity = _identify(folder, known=bool(segments)) if identified else _forget_identity(folder)
    except OSError as error:
        raise ConfigError([f"kafka.spool.directory: {folder} cannot be used: {error.strerror or error}"]) from None
    following = segments[-1].number + 1 if segments else _FIRST + 1
    return Spool(settings, folder, lock, segments, marker, identity, following + (_LEAP if marker.found else 0))


def _look_at_first(segments: Sequence[_Segment]) -> None:
    """See what record an earlier process left first: how old it is, is asked for long before it can be delivered."""
    for segment in segments:
        if segment.at < segment.size:
            with segment.path.open("rb") as file:
                records, _, _ = _parse_from(file, segment.at, segment.size, 1)
            segment.first = records[0] if records else None
            return


def _identify(folder: Path, *, known: bool) -> str:
    """The log's name; a log without segments starts its numbers anew, and needs a new one."""
    path = folder / "identity"
    if known:
        with suppress(FileNotFoundError):
            if identity := path.read_text(encoding="ascii").strip():
                return identity
    identity = uuid.uuid4().hex
    fresh = folder / "identity.new"
    with fresh.open("w", encoding="ascii") as file:
        file.write(identity)
        file.flush()
        os.fdatasync(file.fileno())
    fresh.replace(path)
    sync_folder(folder)
    return identity


def _forget_identity(folder: Path) -> str:
    """Whoever writes this log now does not keep to its numbers."""
    (folder / "identity").unlink(missing_ok=True)
    return ""


def _found(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdecimal())


def _apply_progress(folder: Path, segments: list[_Segment]) -> None:
    try:
        done = json.loads((folder / "progress").read_text(encoding="ascii"))
        offsets = {int(number): int(offset) for number, offset in done.items()}
    except FileNotFoundError:
        return
    except (ValueError, AttributeError, TypeError):
        log.warning("spool_progress_unreadable", folder=str(folder), effect="records may be repeated")
        return
    for segment in segments:
        segment.at = segment.done = min(offsets.get(segment.number, 0), segment.size)


def _parse_from(file: IO[bytes], at: int, size: int, limit: int) -> tuple[list[Record], list[Damage], int]:
    """Records and damage from this position on, and where to go on; `size` is where the intact end should be."""
    block = _BLOCK_BYTES
    while True:
        file.seek(at)
        data = file.read(min(block, size - at))
        if not data:  # somebody shortened the file
            return [], [Damage(at, size)], size
        records, damages, consumed = parse(data, limit, final=at + len(data) >= size)
        if consumed:
            return records, [Damage(at + start, at + end) for start, end in damages], at + consumed
        block *= 2  # a record, or damage, larger than the block


def _mend_end(segment: _Segment) -> None:
    """Cut off the record that a crash left unfinished; damage further in front stays for `read` to report."""
    at = segment.at
    with segment.path.open("r+b") as file:
        while at < segment.size:
            _, damages, at = _parse_from(file, at, segment.size, _SCAN_RECORDS)
            if damages and damages[-1].end == segment.size:
                torn = damages[-1].start
                log.warning("spool_torn_end", segment=segment.path.name, from_byte=torn, to_byte=segment.size)
                file.truncate(torn)
                segment.size = torn


def _probe(folder: Path, *, can_empty: bool, sync: bool) -> None:
    """See whether the folder can be written; a full disk will do where delivering what is there makes room."""
    probe = folder / "probe"
    try:
        with probe.open("wb", buffering=0) as file:
            file.write(b"writable")
            if sync:
                os.fdatasync(file.fileno())
    except OSError as error:
        if error.errno not in NO_SPACE or not can_empty:
            raise
        log.warning("spool_disk_full", folder=str(folder), effect="records wait in memory until some are delivered")
    finally:
        probe.unlink(missing_ok=True)
