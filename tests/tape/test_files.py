"""Archive files under pressure: a disk that is slow, full or missing, and files that are too many."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pipeline.feeds.settings import ArchiveFileSettings
from pipeline.model.events import Event, FeedStatus, Micros
from pipeline.model.stats import ArchiveStats
from pipeline.tape.entries import Entry
from pipeline.tape.files import SUFFIX, FileKeeper, FileWriter, path_of
from pipeline.tape.reading import find_files
from pipeline.tape.recorder import Recorder

REAL_DEADLINE_S = 20
NOW = 1_700_000_000_000_000
MESSAGE = b'{"topic":"publicTrade.BTCUSDT"}'


@attrs.define
class Bench:
    """A recorder with files and nothing else."""

    settings: ArchiveFileSettings
    published: list[Event] = attrs.field(factory=list)
    recorder: Recorder = attrs.field(init=False)
    keeper: FileKeeper = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.recorder = Recorder("bybit", "1.0", Micros(NOW), self.clock)
        self.keeper = FileKeeper(self.settings, "bybit", self.stats, self.publish, self.clock)
        self.keeper.begin = lambda incomplete: self.recorder.begin(self.keeper if incomplete else None)
        self.recorder.keepers.append(self.keeper)
        self.recorder.begin()

    @property
    def stats(self) -> ArchiveStats:
        return self.recorder.stats

    @property
    def statuses(self) -> list[FeedStatus]:
        return [event for event in self.published if isinstance(event, FeedStatus)]

    def clock(self) -> int:
        return NOW + round(trio.current_time() * 1e6)

    def publish(self, event: Event) -> bool:
        self.published.append(event)
        return True

    def messages(self, count: int) -> None:
        tap = self.recorder.opened("bybit.a#1", "linear", None, {}, is_held=False)
        for _ in range(count):
            tap.message(MESSAGE, Micros(self.clock()), is_data=True)


def read(directory: Path) -> tuple[list[list[Entry]], list[str]]:
    """The entries of each file, and what is wrong with them."""
    problems: list[str] = []
    files = find_files([str(directory)], problems.append)
    return [list(file.entries(problems.append)) for file in files], problems


async def test_what_comes_is_in_the_file_byte_for_byte_and_numbered(autojump_clock: object, tmp_path: Path) -> None:
    bench = Bench(ArchiveFileSettings(str(tmp_path / "new" / "folder")))
    bench.messages(3)
    with trio.move_on_after(1.5):
        await bench.keeper.run()
    (entries,), problems = read(tmp_path / "new" / "folder")
    assert problems == []
    assert [(entry.kind, entry.connection, entry.sequence) for entry in entries] == [
        ("begin", "bybit", 1),
        ("note", "bybit.a#1", 1),
        *(("data", "bybit.a#1", number) for number in (2, 3, 4)),
    ]
    assert {entry.payload for entry in entries[2:]} == {MESSAGE}
    assert {entry.receive_time for entry in entries} == {NOW}
    assert (bench.stats.messages, bench.stats.lost, bench.stats.files) == (3, 0, 1)
    (file,) = (tmp_path / "new" / "folder").iterdir()
    assert file.name == f"bybit-20231114T221320.000000Z{SUFFIX}"
    assert file.stat().st_mode & 0o777 == 0o600
    assert bench.stats.written_bytes == file.stat().st_size


async def test_what_is_left_is_written_at_the_end(tmp_path: Path) -> None:
    bench = Bench(ArchiveFileSettings(str(tmp_path)))
    with trio.CancelScope() as scope:
        scope.cancel()
        bench.messages(1)
        await bench.keeper.run()
    assert [entry.kind for entry in read(tmp_path)[0][0]] == ["begin", "note", "data"]


async def test_what_is_about_to_be_written_is_written_at_the_end(tmp_path: Path) -> None:
    bench = Bench(ArchiveFileSettings(str(tmp_path)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.keeper.run)
        await wait_all_tasks_blocked()
        bench.messages(1)
        bench.keeper._pressed.set()
        nursery.cancel_scope.cancel()
    assert [entry.kind for entry in read(tmp_path)[0][0]] == ["begin", "note", "data"]


async def passing(clock: MockClock, until: Callable[[], bool]) -> None:
    """Let a second pass at a time until something is so: a thread's work takes none of Trio's virtual time."""
    deadline = time.monotonic() + REAL_DEADLINE_S
    while not until():
        assert time.monotonic() < deadline
        clock.jump(1.0)
        await wait_all_tasks_blocked()
        await trio.to_thread.run_sync(time.sleep, 0.001)


async def test_time_begins_a_new_file(mock_clock: MockClock, tmp_path: Path) -> None:
    bench = Bench(ArchiveFileSettings(str(tmp_path), rotate_every=60))
    bench.messages(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.keeper.run)
        await passing(mock_clock, lambda: bench.stats.files == 3)
        nursery.cancel_scope.cancel()
    assert trio.current_time() >= 120
    files, _ = read(tmp_path)
    assert [[entry.kind for entry in entries] for entries in files] == [
        ["begin", "note", "data"],
        ["begin", "note"],
        ["begin", "note"],
    ]


async def test_what_the_disk_is_too_slow_for_is_counted_and_announced(mock_clock: MockClock, tmp_path: Path) -> None:
    bench = Bench(ArchiveFileSettings(str(tmp_path), buffer_bytes=5_000))
    bench.messages(100)
    lost = bench.stats.lost
    assert 70 < lost < 100
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.keeper.run)
        await passing(mock_clock, lambda: bench.stats.files == 2)
        bench.messages(1)
        nursery.cancel_scope.cancel()
    (status,) = bench.statuses
    assert (status.status, status.scope, status.count) == ("gap", "archive", lost)
    assert "buffer is full" in status.reason
    assert status.from_time == NOW
    first, second = read(tmp_path)[0]
    assert len(first) == 2 + 100 - lost
    assert b'"is_whole":false' in second[0].payload
    assert [entry.kind for entry in second] == ["begin", "note", "note", "data"]


async def test_a_disk_that_cannot_be_written_is_tried_again(mock_clock: MockClock, tmp_path: Path) -> None:
    obstacle = tmp_path / "archive"
    obstacle.write_text("a file where the folder should be")
    bench = Bench(ArchiveFileSettings(str(obstacle)))
    bench.messages(5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.keeper.run)
        await passing(mock_clock, lambda: trio.current_time() > 100)
        assert "cannot be written: File exists" in bench.stats.failure
        assert bench.stats.lost >= 7
        assert 2 < len(bench.statuses) < 10, "announced at every attempt, and those become rare"
        obstacle.unlink()
        await passing(mock_clock, lambda: bench.stats.files == 1)
        assert bench.stats.failure == ""
        bench.messages(1)
        nursery.cancel_scope.cancel()
    (entries,) = read(obstacle)[0]
    assert entries[-1].payload == MESSAGE


def begin(writer: FileWriter, moment: int) -> None:
    writer.write([Entry("begin", moment, 1, "bybit", os.urandom(1_000))])


def test_old_files_are_deleted(tmp_path: Path) -> None:
    other = path_of(tmp_path, "okx", NOW)
    other.touch()
    writer = FileWriter(ArchiveFileSettings(str(tmp_path), keep=3600.0), "bybit")
    for hour in range(4):
        moment = NOW + hour * 3_600_000_000
        begin(writer, moment)
        os.utime(path_of(tmp_path, "bybit", moment), (moment / 1e6, moment / 1e6))
    writer.close()
    kept = [path_of(tmp_path, "bybit", NOW + hour * 3_600_000_000) for hour in (2, 3)]
    assert sorted(tmp_path.iterdir()) == [*kept, other]


def test_more_bytes_than_wanted_are_deleted_oldest_first(tmp_path: Path) -> None:
    writer = FileWriter(ArchiveFileSettings(str(tmp_path), max_bytes=2_500), "bybit")
    for second in range(5):
        begin(writer, NOW + second * 1_000_000)
    writer.close()
    assert sorted(tmp_path.iterdir()) == [path_of(tmp_path, "bybit", NOW + n * 1_000_000) for n in (2, 3, 4)]


def test_two_files_of_one_moment_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for _ in range(2):
        writer = FileWriter(ArchiveFileSettings(str(tmp_path)), "bybit")
        begin(writer, NOW)
        writer.close()
    assert len(list(tmp_path.iterdir())) == 2
