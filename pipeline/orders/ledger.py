"""The ledger of an account: what was, or may have been, sent to the venue, on disk before it is sent.

One file, written at its end only: a head with the ledger's identifier, then entries, each with its length, a checksum,
and how much of the file was known to be on disk when it was written. That last number tells a torn end from damage: an
end that was never known to be on disk may be missing, for nothing was done on its strength; anything else may not.

Behind the last entry there is room: zeros that are on disk already. An entry that is written over them changes nothing
that the file system keeps about the file, so that a sync waits for one block, not for a commit of its journal, which
brings other files' data along. No entry begins with zeros: its length is not 0.

When the file has grown, the entries that still count are written to a new one that takes its place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
import uuid
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import IO
from zlib import crc32

import attrs
import msgspec

from pipeline.model.errors import ConfigError, PipelineError
from pipeline.orders.ledger_entries import Entry, LedgerState
from pipeline.sink.folders import sync_folder

COMPACT_BYTES = 16 * 1024**2
"""How much a file grows until it is worth writing anew."""

_NAME = "ledger"
_MAGIC = b"XPLEDG01"
_HEAD = struct.Struct("<8s16sQ")
"""Magic, identifier, and how many bytes were on disk when the file got its name."""
_FRAME = struct.Struct("<IQ")
"""Length of the entry, and how much of the file was on disk."""
_SUM = struct.Struct("<I")
_HEAD_BYTES = _HEAD.size + _SUM.size
_FRAME_BYTES = _FRAME.size + _SUM.size
_SLICE = 200
"""Entries that are written in well below a millisecond."""
ROOM_BYTES = 1024**2
"""How much room is made at once: about 1,500 orders. It is made anew when half of it is used."""
_ROOM_SLICE = bytes(64 * 1024)
"""Zeros that are written in some ten microseconds: the event loop waits for them if it appends meanwhile."""
_LONGEST = 1024**2
"""Bytes of one entry: far above what the longest command makes."""

_FULL = (errno.ENOSPC, errno.EDQUOT)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


class LedgerBroken(PipelineError):
    """The disk failed: what it holds is not known any more, so nothing may be sent until the ledger is read anew."""


class LedgerFull(LedgerBroken):
    """The disk takes no more: what it holds is known, and it may take more when somebody has made room."""


@attrs.frozen
class Recovery:
    """What was found at the opening."""

    is_new: bool
    """Whether there was no ledger: another owner's history is not known here."""
    entries: int
    cut_bytes: int
    """Of an end that a crash left unfinished."""


@attrs.define(eq=False)
class Ledger:
    """An open ledger; `open_ledger` makes one.

    `append` may run while another thread is in `sync` or `compact`; each of the three has one caller at a time.
    """

    path: Path
    state: LedgerState
    recovery: Recovery
    _lock: IO[str]
    _descriptor: int
    _size: int
    _synced: int
    """Bytes that are on disk."""
    _compacted: int
    """Size of the file when it was new."""
    _compact_bytes: int
    _room: int = attrs.field(init=False)
    """Where the file ends, with its room."""
    _broken: str | None = attrs.field(default=None, init=False)
    _guard: Lock = attrs.field(factory=Lock, init=False)
    """Held only for what is quick: the event loop waits for it."""
    _syncing: Lock = attrs.field(factory=Lock, init=False)
    """Held while the disk works, so that no entry gets there by the old file alone. Taken before `_guard`."""
    _since: list[Entry] | None = attrs.field(default=None, init=False)
    """What was appended since a compaction has begun; None while there is none."""

    def __attrs_post_init__(self) -> None:
        self._room = self._size

    @property
    def size_bytes(self) -> int:
        """Of the file, without its room."""
        return self._size

    @property
    def is_synced(self) -> bool:
        """Whether every entry is on disk."""
        return self._synced >= self._size

    @property
    def wants_compaction(self) -> bool:
        """Whether `compact` is worth its while."""
        return self._size - self._compacted > self._compact_bytes

    @property
    def wants_room(self) -> bool:
        """Whether `make_room` is worth its while."""
        return self._room - self._size < ROOM_BYTES // 2 and self._broken is None

    def append(self, *entries: Entry) -> None:
        """Add entries to file and state: then they survive the process, and after `sync` the machine. Quick.

        All of them or, raising `LedgerBroken` or its `LedgerFull`, none.
        """
        with self._guard:
            self._raise_if_broken()
            frames = b"".join(_frame(entry, self._synced) for entry in entries)
            try:
                _write(self._descriptor, frames)
            except OSError as error:
                self._cut_back()
                kind = LedgerFull if error.errno in _FULL else LedgerBroken
                raise kind(f"{self.path}: {error.strerror}") from None
            self._size += len(frames)
            for entry in entries:
                self.state.apply(entry)
            if self._since is not None:
                self._since += entries

    def sync(self) -> None:
        """Wait until all that was appended is on disk; belongs into a thread.

        Raises `LedgerBroken` if the disk fails: the system may have forgotten what it could not write.
        """
        with self._syncing:
            with self._guard:
                self._raise_if_broken()
                size = self._size
            self._wait_for_disk()  # `_syncing` keeps the file from being closed or replaced
            with self._guard:
                self._synced = max(self._synced, size)

    def make_room(self) -> None:
        """Have the next entries' place on disk; belongs into a thread.

        Without it `append` and `sync` only take longer, so a disk that is too full for it is their matter. Raises
        `LedgerBroken` if the disk fails.
        """
        with self._syncing:
            try:
                self._write_room()
            except OSError:
                with self._guard:
                    self._cut_back()  # what little there is may be another ledger's
                return
            self._wait_for_disk()

    def _write_room(self) -> None:
        for _ in range(0, ROOM_BYTES, len(_ROOM_SLICE)):
            with self._guard:
                self._raise_if_broken()
                self._room = max(self._room, self._size)
                self._room += os.pwrite(self._descriptor, _ROOM_SLICE, self._room)

    def _wait_for_disk(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._broken = f"{self.path}: {error.strerror}"
            raise LedgerBroken(self._broken) from None

    def compact(self) -> None:
        """Write the file anew with what still counts; belongs into a thread.

        After an `OSError` all is as before. Raises `LedgerBroken` if it is not known what the disk holds.
        """
        with self._guard:
            self._raise_if_broken()
            entries = self.state.freeze()
            self._since = []
        try:
            self._replace(entries)
        finally:
            with self._guard:
                self._since = None
                self.state.thaw()

    def _replace(self, entries: Iterable[Entry]) -> None:
        fresh = self.path.with_suffix(".new")
        body = _frames_gently(entries)
        descriptor = _create(fresh, self.state.identifier, body)
        compacted = _HEAD_BYTES + len(body)
        try:
            with self._syncing:
                # What is on disk by the old file has to be so by the new one before that takes its place. Nothing
                # that is appended from here on is, so the event loop need not wait for the disk.
                written = _write_entries(descriptor, self._take_late(), compacted)
                os.fdatasync(descriptor)
                synced = compacted + written
                with self._guard:
                    self._raise_if_broken()
                    written = _write_entries(descriptor, self._since or (), synced)
                    fresh.replace(self.path)
                    os.close(self._descriptor)
                    self._descriptor = descriptor
                    self._size, self._synced, self._compacted = synced + written, synced, compacted
                    self._room = self._size
                self._settle_name()
        except (OSError, LedgerBroken):
            if self._descriptor != descriptor:
                os.close(descriptor)
            raise

    def _settle_name(self) -> None:
        """Until the folder is on disk, a crash of the machine brings the old file back."""
        try:
            sync_folder(self.path.parent)
        except OSError as error:
            self._broken = f"{self.path.parent}: {error.strerror}"
            raise LedgerBroken(self._broken) from None

    def _take_late(self) -> list[Entry]:
        with self._guard:
            late, self._since = self._since or [], []
        return late

    def close(self) -> None:
        """Close the file and let others have it. What was not synced is left to the system."""
        with self._syncing:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
                self._broken = f"{self.path} is closed"
                self._lock.close()

    def _raise_if_broken(self) -> None:
        if self._broken is not None:
            raise LedgerBroken(self._broken)

    def _cut_back(self) -> None:
        """Take back what was written of entries that do not fit."""
        try:
            os.ftruncate(self._descriptor, self._size)
            os.lseek(self._descriptor, self._size, os.SEEK_SET)
            self._room = self._size
        except OSError as error:
            self._broken = f"{self.path}: {error.strerror}"


def open_ledger(folder: Path, remembered: int, compact_bytes: int = COMPACT_BYTES) -> Ledger:
    """Open the ledger in a folder of its own, creating both; cuts off an end that a crash left unfinished.

    Raises `ConfigError` if the folder cannot be used, if another process works in it, or if the file is damaged, and
    `LedgerFull` if the disk has no room for it now.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
        try:
            return _open(folder / _NAME, lock, remembered, compact_bytes)
        except BaseException:
            lock.close()
            raise
    except OSError as error:
        if error.errno in _FULL:
            raise LedgerFull(f"{folder}: {error.strerror}") from None
        raise ConfigError([f"orders.directory: {folder} cannot be used: {error.strerror or error}"]) from None


def _open(path: Path, lock: IO[str], remembered: int, compact_bytes: int) -> Ledger:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError([f"orders.directory: {path.parent} is in use by another process"]) from None
    is_new = not path.exists()
    if is_new:
        fresh = path.with_suffix(".new")
        os.close(_create(fresh, uuid.uuid4().hex, b""))
        fresh.replace(path)
        sync_folder(path.parent)
        sync_folder(path.parent.parent)
    state, entries, size, found = _read(path, remembered)
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)  # the room too: what a crash left behind the end must not come to life there
        os.lseek(descriptor, size, os.SEEK_SET)
        os.fsync(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    recovery = Recovery(is_new, entries, found - size)
    return Ledger(path, state, recovery, lock, descriptor, size, size, size, compact_bytes)


def _create(path: Path, identifier: str, body: bytes) -> int:
    """A file on disk with its head and these frames, open for appending. Raises `OSError` and leaves nothing open."""
    head = _HEAD.pack(_MAGIC, bytes.fromhex(identifier), _HEAD_BYTES + len(body))
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write(descriptor, head + _SUM.pack(crc32(head)) + body)
        os.fsync(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _frames_gently(entries: Iterable[Entry]) -> bytes:
    """All as frames; the event loop in its thread gets its turn between slices."""
    rest, slices = iter(entries), []
    while part := b"".join(_frame(entry, 0) for entry in islice(rest, _SLICE)):
        slices.append(part)
        time.sleep(0)
    return b"".join(slices)


def _write_entries(descriptor: int, entries: Iterable[Entry], synced: int) -> int:
    """Write entries; returns how many bytes they make."""
    frames = b"".join(_frame(entry, synced) for entry in entries)
    _write(descriptor, frames)
    return len(frames)


def _frame(entry: Entry, synced: int) -> bytes:
    body = _encoder.encode(entry)
    if len(body) > _LONGEST:
        raise ValueError(f"an entry of {len(body)} bytes is longer than any command makes")
    framed = _FRAME.pack(len(body), synced) + body
    return _SUM.pack(crc32(framed)) + framed


def _read(path: Path, remembered: int) -> tuple[LedgerState, int, int, int]:
    """The state, how many entries made it, where the last whole one ends, and where the file does, without its room."""
    data = path.read_bytes()
    if len(data) < _HEAD_BYTES or data[:8] != _MAGIC or crc32(data[: _HEAD.size]) != _sum(data, _HEAD.size):
        raise ConfigError([f"orders.directory: {path}: damaged at byte 0: no ledger begins like that"])
    _, identifier, known = _HEAD.unpack_from(data)
    state, count, at = LedgerState(identifier.hex(), remembered), 0, _HEAD_BYTES
    while (frame := _frame_at(data, at)) is not None:
        body, _ = frame
        try:
            state.apply(_decoder.decode(body))
        except msgspec.MsgspecError as error:
            what = f"the entry at byte {at} is none of this version's: {error}"
            raise ConfigError([f"orders.directory: {path}: {what}"]) from None
        count += 1
        at += _FRAME_BYTES + len(body)
    found = max(at, len(data.rstrip(b"\0")))
    if at < max(known, _known_behind(data, at, found)):
        # It was on disk, so something may have been sent on its strength.
        what = f"damaged at byte {at}: what was sent cannot be told any more"
        cure = "move its folder away (never put an older copy there): what is open then is looked up, and not sent"
        raise ConfigError([f"orders.directory: {path}: {what}; {cure}"])
    return state, count, at, found


def _frame_at(data: bytes, at: int) -> tuple[bytes, int] | None:
    """The entry at a place, and how much was on disk then; None if there is no whole one."""
    start = at + _SUM.size
    if start + _FRAME.size > len(data):
        return None
    length, synced = _FRAME.unpack_from(data, start)
    end = start + _FRAME.size + length
    if not 0 < length <= _LONGEST or end > len(data) or crc32(memoryview(data)[start:end]) != _sum(data, at):
        return None
    return data[start + _FRAME.size : end], synced


def _known_behind(data: bytes, at: int, room: int) -> int:
    """How much was on disk as entries tell behind a place that is no entry, up to the room."""
    known = 0
    while (at := at + 1) < room:
        if (frame := _frame_at(data, at)) is not None:
            known = max(known, frame[1])
    return known


def _sum(data: bytes, at: int) -> int:
    value: int = _SUM.unpack_from(data, at)[0]
    return value
