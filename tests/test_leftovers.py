"""Spools of shares that are no more are delivered under their own names, and put away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
from trio.testing import MockClock

from pipeline.feeds.shares import WHOLE, Share
from pipeline.leftovers import deliver_leftovers, find_leftovers
from pipeline.model.events import Micros
from pipeline.sink.records import Record
from pipeline.sink.settings import KafkaSettings, SpoolSettings
from pipeline.sink.spool import Spool, open_spool


@contextmanager
def spool(folder: Path) -> Iterator[Spool]:
    found = open_spool(SpoolSettings(directory=str(folder), sync=False))
    try:
        yield found
    finally:
        found.abandon()


def fill(folder: Path, count: int) -> None:
    with spool(folder) as found:
        found.write([Record("topic", b"key", 1, b"value")] * count)


@attrs.define
class Sinks:
    """Opens real spools and reads them, as a sink does that delivers everything at once."""

    tried: int = 0
    opened: list[KafkaSettings] = attrs.field(factory=list)
    delivered: dict[str, int] = attrs.field(factory=dict)

    @asynccontextmanager
    async def open(self, settings: KafkaSettings) -> AsyncIterator[Any]:
        folder = Path(settings.spool.directory)
        self.tried += 1
        with spool(folder) as found:
            self.opened.append(settings)

            class Stub:
                async def delivered(stub) -> None:  # noqa: N805 - the test's own `self` is meant inside
                    chunk = found.read(1_000)
                    self.delivered[folder.name] = len(chunk.records) if chunk is not None else 0
                    found.acknowledge()

            yield Stub()
            found.marker.remove()


def names(directory: Path, share: Share) -> list[str]:
    return [leftover.folder.name for leftover in find_leftovers(directory, share)]


def test_only_spools_of_another_split_are_left_over(tmp_path: Path) -> None:
    for folder in ("share-0-of-2", "share-1-of-2", "share-1-of-4", "share-x-of-3", "accounts", "share-1-of-9"):
        (tmp_path / folder).mkdir()
    (tmp_path / "share-7-of-8").touch()
    assert names(tmp_path, Share(0, 2)) == ["share-1-of-4", "share-1-of-9"]
    assert names(tmp_path, WHOLE) == ["share-0-of-2", "share-1-of-2", "share-1-of-4", "share-1-of-9"]
    fill(tmp_path, 1)
    assert names(tmp_path, Share(0, 2))[-1] == tmp_path.name
    assert tmp_path.name not in names(tmp_path, WHOLE)
    assert names(tmp_path / "nowhere", Share(0, 2)) == []


async def test_what_other_splits_left_is_delivered_as_theirs(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    fill(tmp_path / "share-1-of-3", 5)
    with spool(tmp_path / "share-2-of-3") as killed:
        killed.marker.write(Micros(7))
    fill(tmp_path / "share-0-of-2", 9)
    (tmp_path / "share-0-of-3").mkdir()
    kafka = KafkaSettings(delivery="exactly_once", shard="s", spool=SpoolSettings(directory=str(tmp_path)))
    sinks = Sinks()
    with trio.fail_after(30):
        await deliver_leftovers(kafka, Share(0, 2), sinks.open)
    assert sinks.delivered == {tmp_path.name: 3, "share-1-of-3": 5, "share-2-of-3": 0}
    assert [settings.shard_name for settings in sinks.opened] == ["s-1-of-3", "s-2-of-3", "s"]
    assert [settings.client_id.removeprefix(kafka.client_id) for settings in sinks.opened] == [
        "-1-of-3",
        "-2-of-3",
        "",
    ]
    assert names(tmp_path, WHOLE) == ["share-0-of-2"]


async def test_a_spool_in_use_is_tried_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    fill(tmp_path / "share-1-of-2", 5)
    kafka, sinks = KafkaSettings(spool=SpoolSettings(directory=str(tmp_path))), Sinks()
    with spool(tmp_path / "share-1-of-2") as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver_leftovers, kafka, WHOLE, sinks.open)
            while sinks.tried < 2:  # noqa: ASYNC110 - threads tell nobody
                await trio.sleep(1)
            assert trio.current_time() >= 30
            assert not sinks.delivered
            other.abandon()
    assert sinks.delivered == {"share-1-of-2": 5}
    assert sinks.opened[0].shard is None


async def test_an_empty_spool_in_use_is_not_deleted(tmp_path: Path, autojump_clock: MockClock) -> None:
    kafka, sinks = KafkaSettings(spool=SpoolSettings(directory=str(tmp_path))), Sinks()
    with spool(tmp_path / "share-1-of-2"):
        with trio.move_on_after(100):
            await deliver_leftovers(kafka, WHOLE, sinks.open)
        assert (tmp_path / "share-1-of-2" / "lock").exists()
    assert not sinks.opened
