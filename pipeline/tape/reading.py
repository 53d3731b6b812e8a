"""Archive files read back, in the order in which they were written."""

from __future__ import annotations

import heapq
import mmap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import attrs

from pipeline.tape.blocks import Block, Damage, scan
from pipeline.tape.entries import BEGIN, Begin, Entry, parse, read_begin
from pipeline.tape.files import SUFFIX

Report = Callable[[str], None]


@attrs.define(eq=False)
class ArchiveFile:
    """One file."""

    path: Path
    begin: Begin
    began: int
    """Microseconds."""
    size: int
    position: int = attrs.field(default=0, init=False)
    """Where the block starts that is being read."""

    @property
    def place(self) -> str:
        """For messages to people."""
        return f"{self.path}: block at byte {self.position}"

    def entries(self, report: Report) -> Iterator[Entry]:
        """All that can be read; `report` takes what cannot, with its place. Raises `OSError`."""
        for found in _scanned(self.path):
            self.position = found.start
            if isinstance(found, Damage):
                report(f"{self.path}: bytes {found.start} to {found.end} {_what(found)}")
                continue
            try:
                yield from parse(found.content)
            except ValueError as error:
                report(f"{self.place}: {error}")
        self.position = self.size


def find_files(names: Iterable[str], report: Report) -> list[ArchiveFile]:
    """These files, and those in these directories; `report` takes what is none of ours, or cannot be read."""
    found: dict[Path, ArchiveFile] = {}
    for name in names:
        path = Path(name)
        inside = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not inside:
            report(f"{name}: has no archive files (*{SUFFIX})")
        for each in inside:
            try:
                file = _opened(each)
            except OSError as error:
                report(f"{each}: {error.strerror or error}")
            except ValueError as error:
                report(f"{each}: {error}")
            else:
                found[each.resolve()] = file
    return sorted(found.values(), key=lambda file: (file.begin.venue, file.begin.run, file.begin.number))


def by_run(files: Iterable[ArchiveFile]) -> dict[tuple[str, int], list[ArchiveFile]]:
    """Files by venue and run, each in the order in which they were written."""
    runs: dict[tuple[str, int], list[ArchiveFile]] = {}
    for file in files:
        runs.setdefault((file.begin.venue, file.begin.run), []).append(file)
    return runs


def merged(files: Iterable[ArchiveFile], report: Report) -> Iterator[tuple[tuple[str, int], ArchiveFile, Entry]]:
    """All entries with where they are from: each run in its own order, different runs by time."""

    def read(run: tuple[str, int], own: list[ArchiveFile]) -> Iterator[tuple[tuple[str, int], ArchiveFile, Entry]]:
        for file in own:
            try:
                for entry in file.entries(report):
                    yield run, file, entry
            except OSError as error:
                report(f"{file.path}: {error.strerror or error}")

    streams = [read(run, own) for run, own in by_run(files).items()]
    return streams[0] if len(streams) == 1 else heapq.merge(*streams, key=lambda found: found[2].receive_time)


def _opened(path: Path) -> ArchiveFile:
    """Raises `OSError`, and `ValueError` if it does not begin as a file of ours."""
    first = next(iter(_scanned(path)), None)
    if first is None:
        raise ValueError("is empty")
    if isinstance(first, Damage):
        raise ValueError(f"byte 0 begins no archive; {'it is cut off there' if first.is_cut else 'is it one?'}")
    entry = next(parse(first.content), None)
    if entry is None or entry.kind != BEGIN:
        raise ValueError("byte 0: the archive does not begin with its head")
    return ArchiveFile(path, read_begin(entry.payload), entry.receive_time, path.stat().st_size)


def _scanned(path: Path) -> Iterator[Damage | Block]:
    with path.open("rb") as file:
        if path.stat().st_size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield from scan(data)


def _what(damage: Damage) -> str:
    if damage.is_cut:
        return "are the beginning of a block: its writer was killed, or is still at it"
    return "are damaged, and skipped"
