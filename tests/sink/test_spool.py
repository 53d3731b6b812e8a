from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from pipeline.model.errors import ConfigError
from pipeline.model.events import Micros
from pipeline.sink.backlog import Backlog
from pipeline.sink.journal import Journal
from pipeline.sink.records import Record, pack
from pipeline.sink.settings import SpoolSettings
from pipeline.sink.spool import Chunk, Position, Spool, open_spool


def record(number: int) -> Record:
    return Record("market.trade", b"bybit.linear.BTCUSDT", 1_700_000_000_000 + number, b"%06d" % number * 5)


def records(*numbers: int) -> list[Record]:
    return [record(number) for number in numbers]


@contextmanager
def opened(folder: Path, **changes: int) -> Iterator[Spool]:
    spool = open_spool(attrs.evolve(SpoolSettings(str(folder), sync=False), **changes))  # type: ignore[arg-type]
    try:
        yield spool
    finally:
        spool.abandon()


def read_all(spool: Spool, limit: int = 100) -> tuple[list[Record], list[Chunk]]:
    chunks = list(iter(lambda: spool.read(limit), None))
    return [record for chunk in chunks for record in chunk.records], [chunk for chunk in chunks if chunk.damages]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool"))


def test_records_come_back_in_order_over_segments_and_restarts(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=200) as spool:
        for number in range(0, 20, 2):
            spool.write(records(number, number + 1))
        assert len(segments(tmp_path)) == 5
        number = int(segments(tmp_path)[0].stem)
        (size,) = {len(pack([record(0)]))}
        assert spool.read(3) == Chunk(
            records(0, 1, 2), [], segments(tmp_path)[0].name, False, Position(number, 0), Position(number, 3 * size)
        )
    with opened(tmp_path, segment_bytes=200) as spool:
        spool.write(records(20))
        assert spool.unread_bytes == spool.size_bytes == sum(path.stat().st_size for path in segments(tmp_path))
        found, damaged = read_all(spool, limit=3)
        assert found == records(*range(21))
        assert not damaged


def test_acknowledged_records_are_gone_after_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=200) as spool:
        spool.write(records(0, 1, 2, 3))
        spool.write(records(4, 5))
        spool.read(3)
        spool.acknowledge()
    with opened(tmp_path) as spool:
        spool.write(records(6))
        assert read_all(spool)[0] == records(3, 4, 5, 6)
        spool.acknowledge()
        assert segments(tmp_path) == []
        assert not (tmp_path / "progress").exists()
        spool.write(records(7))
        assert read_all(spool)[0] == records(7)


def test_what_is_handed_back_comes_first(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=200) as spool:
        spool.write(records(10, 11, 12, 13))
        spool.write(records(14))
        spool.read(2)
        spool.close(older=records(8, 9, 10, 11), newer=records(15))
    with opened(tmp_path) as spool:
        spool.read(1)
        spool.close(older=records(8))
    with opened(tmp_path) as spool:
        assert read_all(spool)[0] == records(*range(8, 16))


def test_what_was_read_and_delivered_but_not_acknowledged_is_forgotten_at_the_end(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=200) as spool:
        spool.write(records(0, 1, 2, 3))
        spool.write(records(4))
        spool.read(4)
        spool.close()
    with opened(tmp_path) as spool:
        assert read_all(spool)[0] == records(4)


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    with opened(tmp_path, sync=True) as spool:
        spool.write(records(0))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", broken)
            with pytest.raises(OSError, match="Input/output"):
                spool.write(records(1, 2))
        spool.write(records(1, 2))
        assert read_all(spool)[0] == records(0, 1, 2)


@given(st.data())
def test_a_torn_end_is_cut_off_and_told(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder, capture_logs() as logs:
        with opened(Path(folder)) as spool:
            spool.write(records(*range(8)))
        (segment,) = segments(Path(folder))
        size = segment.stat().st_size
        cut = data.draw(st.integers(0, size - 1))
        os.truncate(segment, cut)
        with opened(Path(folder)) as spool:
            spool.write(records(8))
            intact = cut * 8 // size
            assert read_all(spool) == (records(*range(intact), 8), [])
        torn = [(entry["from_byte"], entry["to_byte"]) for entry in logs if entry["event"] == "spool_torn_end"]
        assert torn == ([(intact * size // 8, cut)] if cut * 8 % size else [])


@given(st.data())
def test_a_flipped_bit_costs_one_record_and_is_told(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with opened(Path(folder), segment_bytes=1) as spool:
            spool.write(records(0, 1, 2, 3))
            spool.write(records(4, 5, 6, 7))
            spool.write(records(8, 9))
        segment = segments(Path(folder))[data.draw(st.integers(0, 1))]
        content = bytearray(segment.read_bytes())
        where = data.draw(st.integers(0, len(content) - 1))
        content[where] ^= 1 << data.draw(st.integers(0, 7))
        segment.write_bytes(content)
        hit = where * 4 // len(content) + (4 if segment != segments(Path(folder))[0] else 0)
        with opened(Path(folder)) as spool:
            found, damaged = read_all(spool, limit=data.draw(st.integers(1, 9)))
        assert found == records(*(number for number in range(10) if number != hit))
        assert {chunk.segment for chunk in damaged} == {segment.name}
        assert any(start <= where < end for chunk in damaged for start, end in chunk.damages)


def test_a_file_that_became_shorter_while_open_is_damage(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.write(records(0, 1))
        os.truncate(segments(tmp_path)[0], 0)
        found, (damaged,) = read_all(spool)
        assert found == []
        assert damaged.damages == [(0, spool.size_bytes)]


def test_unreadable_progress_repeats_instead_of_losing(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.write(records(0, 1))
        spool.read(1)
        spool.acknowledge()
    (tmp_path / "progress").write_text("{")
    with opened(tmp_path) as spool:
        assert read_all(spool)[0] == records(0, 1)


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(ConfigError, match="is in use by another process"), opened(tmp_path):
        pytest.fail("it must not open")
    with opened(tmp_path):
        pass


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"kafka\.spool\.directory: .*file/spool cannot be used: Not a directory"):
        open_spool(SpoolSettings(str(tmp_path / "file" / "spool")))


async def test_what_is_about_to_be_written_is_not_lost_when_writing_is_cancelled(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        backlog = Backlog(spool.settings, spool, lambda: Micros(0))
        backlog.append(record(0))
        await backlog._disk.acquire()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backlog.flush)
            await trio.testing.wait_all_tasks_blocked()
            backlog._disk.release()
            nursery.cancel_scope.cancel()
        backlog.close([])
    with opened(tmp_path) as spool:
        assert read_all(spool) == (records(0), [])


@pytest.mark.parametrize("journal", [False, True])
async def test_what_was_announced_as_given_up_is_not_delivered_later(tmp_path: Path, journal: bool) -> None:
    with opened(tmp_path) as spool:
        spool.write(records(0))
        spool.roll()
        spool.write(records(1))
        settings, now = spool.settings, lambda: Micros(0)
        store = Journal(settings, spool, now, repeats_chunks=False) if journal else Backlog(settings, spool, now)
        with trio.CancelScope() as scope:
            await store.give_up_oldest(lambda given_up: scope.cancel())
        assert read_all(spool) == (records(1), [])
