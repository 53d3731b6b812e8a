from __future__ import annotations

import errno
import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.events import Micros
from pipeline.sink.journal import Journal
from pipeline.sink.records import Record
from pipeline.sink.settings import SpoolSettings
from pipeline.sink.spool import Chunk, Position, open_spool


def record(number: int) -> Record:
    return Record("market.trade", b"bybit.linear.BTCUSDT", 1_700_000_000_000, b"%06d" % number * 5)


SIZE = record(0).size


@contextmanager
def opened(folder: Path, *, identified: bool = True, **changes: int) -> Iterator[Journal]:
    """A journal whose process dies at the end of the block."""
    settings = attrs.evolve(SpoolSettings(str(folder), sync=False), **changes)  # type: ignore[arg-type]
    spool = open_spool(settings, identified=identified)
    clock = itertools.count(1)
    try:
        yield Journal(settings, spool, lambda: Micros(next(clock)), repeats_chunks=identified)
    finally:
        spool.abandon()


def numbers(chunk: Chunk) -> list[int]:
    return [int(record.value[:6]) for record in chunk.records]


async def take_all(journal: Journal, limit: int = 1_000) -> list[int]:
    found = []
    while not journal.is_empty:
        found += numbers(await journal.take(limit))
    return found


def append(journal: Journal, *wanted: int) -> None:
    for number in wanted:
        journal.append(record(number))


async def test_a_record_survives_the_process_as_soon_as_it_was_appended(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for number in range(50):
            append(journal, number)
    with opened(tmp_path) as journal:
        assert await take_all(journal) == list(range(50))


async def test_records_come_in_order_from_memory_and_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sink.journal._TAIL_BYTES", 10 * SIZE)
    with opened(tmp_path, segment_bytes=7 * SIZE) as journal:
        found = []
        for start in range(0, 100, 25):
            append(journal, *range(start, start + 25))
            found += numbers(await journal.take(4))
        found += await take_all(journal, limit=6)
        assert found == list(range(100))
        assert journal.count == 0
        await journal.acknowledge()
        assert len(_segments(tmp_path)) == 1  # the one that is written


@pytest.mark.parametrize("identified", [True, False])
async def test_what_was_acknowledged_is_not_repeated_after_a_kill(tmp_path: Path, identified: bool) -> None:
    with opened(tmp_path, identified=identified, segment_bytes=7 * SIZE) as journal:
        append(journal, *range(20))
        taken = numbers(await journal.take(10))
        await journal.acknowledge()
        taken += numbers(await journal.take(3))
    with opened(tmp_path, identified=identified) as journal:
        assert taken == list(range(len(taken)))
        assert await take_all(journal) == list(range(len(taken) - 3, 20))


async def test_resuming_behind_a_watermark(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=7 * SIZE) as journal:
        append(journal, *range(20))
        chunks = [await journal.take(5), await journal.take(5)]
        assert [numbers(chunk) for chunk in chunks] == [[0, 1, 2, 3, 4], [5, 6]]
    with opened(tmp_path) as journal:
        await journal.resume_after(chunks[0].end, 0)
        assert await take_all(journal) == list(range(5, 20))
    with opened(tmp_path) as journal:
        await journal.resume_after(chunks[1].start, 1)
        append(journal, 20)
        assert await take_all(journal) == list(range(6, 21))


async def test_a_watermark_says_nothing_about_what_was_written_since(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        append(journal, 0, 1)
        end = (await journal.take(2)).end
        await journal.acknowledge()
        identity = journal.spool.identity
        journal.close([])
    with opened(tmp_path) as journal:
        append(journal, 2)
        assert journal.spool.identity == identity
        await journal.resume_after(end, 0)
        await journal.resume_after(Position(end.segment + 1, 10_000), 0)  # a segment that a power cut took away
        assert await take_all(journal) == [2]


async def test_numbers_leap_after_an_unclean_end(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        append(journal, 0)
        journal.spool.marker.write(Micros(1))
        (first,) = _segments(tmp_path)
    with opened(tmp_path) as journal:
        append(journal, 1)
    assert int(_segments(tmp_path)[1].stem) - int(first.stem) > 100


def test_a_log_that_numbers_anew_has_a_new_name(tmp_path: Path) -> None:
    names = set[str]()
    for identified in (True, False, True):
        with opened(tmp_path, identified=identified) as journal:
            names.add(journal.spool.identity)
    assert len(names) == 3
    assert "" in names


async def test_a_clean_end_repeats_only_what_may_be_missing(tmp_path: Path) -> None:
    with opened(tmp_path, identified=False) as journal:
        append(journal, *range(10))
        await journal.take(6)
        journal.close([record(4), record(5)])  # 0 to 3 were acknowledged
    with opened(tmp_path, identified=False) as journal:
        assert await take_all(journal) == [4, 5, 6, 7, 8, 9]
    with opened(tmp_path) as journal:
        await journal.take(3)
        journal.close([record(5), record(6)])  # in a transaction that was aborted: nothing counts
    with opened(tmp_path) as journal:
        assert await take_all(journal) == [4, 5, 6, 7, 8, 9]


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_a_full_disk_holds_records_in_memory_and_sends_them_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as journal:
        append(journal, 0, 1)
        await journal.flush()
        assert journal.safe_until
        safe = journal.safe_until
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.sink.spool.Spool.append", full)
            append(journal, 2, 3, 4)
            assert journal.failure == "No space left on device"
            assert journal.no_space
            assert journal.memory_count == 3
            await journal.flush()
            assert journal.safe_until == safe  # what is in memory alone is not safe
            assert numbers(await journal.take(10)) == [0, 1]
            await journal.acknowledge()
            assert numbers(await journal.take(10)) == [2, 3, 4]
        append(journal, 5)
        await journal.flush()
        assert journal.memory_count == 1  # newer records must not get onto the disk in front of what is on its way
        await journal.acknowledge()
        await journal.flush()
        assert journal.memory_count == 0
        assert journal.failure is None
        await journal.flush()
        assert journal.safe_until > safe
    with opened(tmp_path) as journal:
        assert await take_all(journal) == [5]


async def test_records_that_are_in_memory_alone_go_to_the_end_of_the_log_when_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as journal:
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.sink.spool.Spool.append", full)
            append(journal, 0, 1, 2)
            taken = await journal.take(2)
        journal.close(taken.records)
    with opened(tmp_path) as journal:
        assert await take_all(journal) == [0, 1, 2]


async def test_a_write_that_is_cut_short_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as journal:
        append(journal, 0)

        class Short:
            """Takes half of what it is given, as a disk that has just filled."""

            def __init__(self, file: object) -> None:
                self._file = file

            def write(self, data: bytes) -> int:
                written: int = self._file.write(data[: len(data) // 2])  # type: ignore[attr-defined]
                return written

            def __getattr__(self, name: str) -> object:
                return getattr(self._file, name)

        whole = journal.spool._active
        journal.spool._active = Short(whole)  # type: ignore[assignment]
        append(journal, 1)
        assert journal.memory_count == 1
        journal.spool._active = whole
        await journal.flush()
        assert journal.memory_count == 0
    with opened(tmp_path) as journal:
        chunk = await journal.take(10)
        assert (numbers(chunk), chunk.damages) == ([0, 1], [])


def _segments(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.spool") if path.stat().st_size)


@given(st.data())
def test_a_power_cut_and_flipped_bits_cost_what_they_hit_and_no_more(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 30))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with opened(folder, segment_bytes=7 * SIZE) as journal:
            append(journal, *range(count))
        files = _segments(folder)
        kept = count - data.draw(st.integers(0, 6))
        cut = SIZE * max(0, (kept - 7 * (len(files) - 1))) + data.draw(st.integers(0, SIZE - 1))
        cut = min(cut, files[-1].stat().st_size)
        os.truncate(files[-1], cut)
        expected = [number for number in range(count) if number < 7 * (len(files) - 1) + cut // SIZE]
        hit: int | None = None
        flips: bool = data.draw(st.booleans())
        if expected and flips:
            hit = data.draw(st.sampled_from(expected))
            place = files[hit // 7]
            content = bytearray(place.read_bytes())
            content[hit % 7 * SIZE + data.draw(st.integers(0, SIZE - 1))] ^= 1 << data.draw(st.integers(0, 7))
            place.write_bytes(content)

        async def read() -> tuple[list[int], bool]:
            found, damaged = list[int](), False
            with opened(folder) as journal:
                append(journal, 999)
                while not journal.is_empty:
                    chunk = await journal.take(4)
                    found += numbers(chunk)
                    damaged = damaged or bool(chunk.damages)
                assert journal.write_off() == 0  # what an earlier process wrote is not counted as ours
            return found, damaged

        found, damaged = trio.run(read)
        assert found == [*(number for number in expected if number != hit), 999]
        at_the_end = hit is not None and hit == expected[-1] and hit // 7 == len(files) - 1
        assert damaged == (hit is not None and not at_the_end)  # at the end it is cut off, and told in the log
