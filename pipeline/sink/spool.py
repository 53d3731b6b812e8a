"""The spool: records that the broker has not taken yet, in order, in segment files that outlive the process.

All methods block and belong to worker threads, one at a time. Segments are numbered; their order is the records'
order. A segment is deleted when all its records are acknowledged, never changed before; what was acknowledged of
the segment being read is kept in a small file beside it, so that little is repeated after a crash.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import attrs
import structlog

from pipeline.model.errors import ConfigError
from pipeline.sink.records import Damage, Record, pack, parse
from pipeline.sink.settings import SpoolSettings

log = structlog.get_logger()

_SUFFIX = ".spool"
_FIRST = 1_000_000_000
"""Numbers below it are for records that turn out to be older than everything in the spool."""
_BLOCK_BYTES = 4 * 1024**2
_SCAN_RECORDS = 10_000


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


@attrs.frozen
class Chunk:
    """Consecutive records of one segment."""

    records: list[Record]
    damages: list[Damage]
    segment: str
    recovered: bool
    """Written by an earlier process."""


@attrs.define(eq=False)
class Spool:
    """An open spool; `open_spool` makes one."""

    settings: SpoolSettings
    _folder: Path
    _lock: IO[str]
    _segments: list[_Segment]
    _active: IO[bytes] | None = attrs.field(default=None, init=False)
    """Of the last segment, when this process writes it."""

    @property
    def size_bytes(self) -> int:
        """What the segments take on disk."""
        return sum(segment.size for segment in self._segments)

    @property
    def unread_bytes(self) -> int:
        """What `read` has not returned yet."""
        return sum(segment.size - segment.at for segment in self._segments)

    def write(self, records: Sequence[Record]) -> None:
        """Append all of the records or, raising `OSError`, none."""
        if self._active is not None and self._segments[-1].size >= self.settings.segment_bytes:
            self._active.close()
            self._active = None
        if self._active is None:
            last = self._segments[-1].number if self._segments else _FIRST
            self._active = self._create(last + 1, len(self._segments))
        try:
            self._append(self._active, self._segments[-1], records)
        except OSError:
            if self._active.tell() != self._segments[-1].size:  # it could not be cut off either: leave that segment
                self._active.close()
                self._active = None
            raise

    def read(self, limit: int) -> Chunk | None:
        """The next records; None when all were read. Raises `OSError`."""
        for segment in self._segments:
            if segment.at < segment.size:
                return self._read(segment, limit)
        return None

    def acknowledge(self) -> None:
        """Everything that `read` has returned is in Kafka: forget it. Raises `OSError`."""
        for segment in list(self._segments):
            if segment.at < segment.size:
                segment.done = segment.at
                break
            if segment is self._segments[-1] and self._active is not None:
                self._active.close()
                self._active = None
            self._segments.remove(segment)
            segment.path.unlink()
        self._save_progress()

    def close(self, older: Sequence[Record] = (), newer: Sequence[Record] = ()) -> None:
        """Keep what is not acknowledged: `older` goes in front of the rest, `newer` behind it. Raises `OSError`.

        The caller hands back in `older` whatever `read` returned since the last `acknowledge` and Kafka did not take.
        """
        try:
            if newer:
                self.write(newer)
            returned = [segment for segment in self._segments if segment.at]
            if older:
                first = self._segments[0].number if self._segments else _FIRST
                with self._create(first - 1, 0) as file:
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
        if self._active is not None:
            self._active.close()
            self._active = None
        self._lock.close()

    def _create(self, number: int, position: int) -> IO[bytes]:
        path = self._folder / f"{number:012d}{_SUFFIX}"
        file = path.open("xb", buffering=0)
        self._segments.insert(position, _Segment(number, path, 0))
        _sync_folder(self._folder)
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
            with suppress(OSError):  # what went in would be repeated by a retry
                file.truncate(segment.size)
                file.seek(segment.size)
            raise
        segment.size += len(data)

    def _read(self, segment: _Segment, limit: int) -> Chunk:
        with segment.path.open("rb") as file:
            records, damages, segment.at = _parse_from(file, segment.at, segment.size, limit)
        return Chunk(records, damages, segment.path.name, segment.recovered)

    def _save_progress(self) -> None:
        done = {str(segment.number): segment.done for segment in self._segments if segment.done}
        progress = self._folder / "progress"
        if done:
            fresh = self._folder / "progress.new"
            fresh.write_text(json.dumps(done), encoding="ascii")
            fresh.replace(progress)
        else:
            progress.unlink(missing_ok=True)


def open_spool(settings: SpoolSettings) -> Spool:
    """Open the folder, creating it, and cut off a torn end that a crash left.

    Raises `ConfigError` when it cannot be used: no permission, no space, or another process works in it.
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
        _probe(folder)
    except OSError as error:
        raise ConfigError([f"kafka.spool.directory: {folder} cannot be used: {error.strerror or error}"]) from None
    return Spool(settings, folder, lock, segments)


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


def _probe(folder: Path) -> None:
    probe = folder / "probe"
    probe.write_bytes(b"writable")
    probe.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
