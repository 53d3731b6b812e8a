from __future__ import annotations

import attrs
import pytest
import trio

from pipeline.model.events import FeedStatus
from pipeline.sink.journal import Journal
from pipeline.sink.opening import open_sink
from pipeline.sink.reader import Decoder
from pipeline.sink.records import Record
from pipeline.sink.settings import KafkaSettings, SpoolSettings
from pipeline.sink.sink import Sink
from pipeline.sink.spool import open_spool
from tests.sink.traffic import arrived, direct, numbers, origin, trade, until

MAX_BYTES = 200_000
JOURNAL = [False, True]


def nowhere(tmp_path: str, when_full: str, *, journal: bool, **changes: int) -> KafkaSettings:
    """A sink whose broker never comes, with room for about a thousand records."""
    spool = {"max_bytes": MAX_BYTES, "segment_bytes": MAX_BYTES // 8, "flush_interval": 0.01, **changes}
    return KafkaSettings(
        bootstrap_servers=("127.0.0.1:1",),
        journal=journal,
        connect_within=0.05,
        drain_within=0.05,
        spool=SpoolSettings(str(tmp_path), when_full=when_full, **spool),  # type: ignore[arg-type]
    )


def left(settings: KafkaSettings) -> list[dict[str, object]]:
    """The fields of what is in the spool, oldest first."""
    spool = open_spool(settings.spool)
    records: list[Record] = []
    while (chunk := spool.read(1_000)) is not None:
        records += chunk.records
    spool.abandon()
    decoder = Decoder(settings)
    return [decoder.decode(record.value) for record in records]


def sequences(found: list[dict[str, object]]) -> list[object]:
    return [fields["sequence"] for fields in found if "trade_id" in fields]


def gaps(found: list[dict[str, object]], instrument: str | None) -> list[dict[str, object]]:
    return [fields for fields in found if fields.get("status") == "gap" and fields["instrument"] == instrument]


async def publish(sink: Sink, numbers: range) -> None:
    at = origin()
    for number in numbers:
        sink.publish(trade(number, at))
        if number % 100 == 99:
            await trio.sleep(0.02)  # the feeds wait for their sockets now and then


def all_is_on_disk(sink: Sink) -> bool:
    store = sink.backlog
    return not store._dirty.is_set() if isinstance(store, Journal) else store.unsafe_since is None


@pytest.mark.parametrize("journal", JOURNAL)
async def test_refusing_keeps_the_oldest(tmp_path: str, journal: bool) -> None:
    settings = nowhere(tmp_path, "refuse_new", journal=journal)
    async with open_sink(settings) as sink:
        await publish(sink, range(3_000))
        stats = sink.stats()
        assert stats.is_full
        assert stats.spool_bytes <= MAX_BYTES + 1_000
        assert sink.has_room  # nobody is asked to stop
    found = left(settings)
    kept = sequences(found)
    assert kept == list(range(len(kept)))
    assert sum(gap["count"] for gap in gaps(found, "BTCUSDT")) == 3_000 - len(kept)  # type: ignore[misc]
    assert sink.stats().announced_lost == 3_000 - len(kept)
    assert sink.stats().balanced


@pytest.mark.parametrize("journal", JOURNAL)
async def test_dropping_keeps_the_newest_and_tells_exactly_what_is_given_up(tmp_path: str, journal: bool) -> None:
    settings = nowhere(tmp_path, "drop_oldest", journal=journal)
    published = range(4_000)
    async with open_sink(settings) as sink:
        for start in range(0, 4_000, 100):
            await publish(sink, published[start : start + 100])
            await until(lambda: all_is_on_disk(sink))  # a disk that stalls would get it all as one segment
        await until(lambda: sink.stats().spool_bytes <= MAX_BYTES)  # room is made
        stats = sink.stats()
        assert stats.dropped == stats.announced_lost > 1_000
        assert stats.balanced
    found = left(settings)
    kept = sequences(found)
    assert kept == list(published)[-len(kept) :]
    told = gaps(found, "BTCUSDT")
    assert {gap["connection"] for gap in told} == {origin().connection}
    lost = 4_000 - len(kept)
    assert sum(gap["count"] for gap in told) == lost  # type: ignore[misc]
    assert sink.stats().announced_lost == lost
    assert sink.stats().balanced


@pytest.mark.parametrize("journal", JOURNAL)
async def test_making_room_leaves_the_writer_awake(tmp_path: str, journal: bool) -> None:
    async with open_sink(nowhere(tmp_path, "drop_oldest", journal=journal)) as sink:
        await publish(sink, range(10))
        await until(lambda: all_is_on_disk(sink))
        await trio.lowlevel.checkpoint()  # the writer waits for more
        await sink.backlog.flush()
        await publish(sink, range(10, 20))
        assert not all_is_on_disk(sink)
        await until(lambda: all_is_on_disk(sink))


async def test_what_an_earlier_process_left_can_be_given_up(tmp_path: str) -> None:
    settings = nowhere(tmp_path, "refuse_new", journal=True)
    async with open_sink(settings) as sink:
        await publish(sink, range(3_000))
    settings = attrs.evolve(settings, spool=attrs.evolve(settings.spool, when_full="drop_oldest"))
    async with open_sink(settings) as sink:
        await until(lambda: sink.stats().dropped)
        await publish(sink, range(10_000, 10_200))
        assert sink.stats().balanced
    kept = sequences(left(settings))
    assert kept[-200:] == list(range(10_000, 10_200))


async def test_with_no_room_on_disk_the_newest_stay_in_memory(tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = nowhere(tmp_path, "drop_oldest", journal=True, max_memory_bytes=20_000)
    async with open_sink(settings) as sink:
        await publish(sink, range(100))
        with monkeypatch.context() as patch:

            def full(*_: object) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr("pipeline.sink.spool.Spool.append", full)
            await publish(sink, range(100, 1_000))
            stats = sink.stats()
            assert stats.spool_failure == "No space left on device"
            assert stats.balanced
    found = left(settings)
    kept = sequences(found)
    assert kept[-50:] == list(range(950, 1_000))
    assert sink.stats().balanced


@pytest.mark.parametrize("journal", JOURNAL)
async def test_feeds_are_asked_to_stop_reading_and_to_read_again(
    broker: object, tmp_path: str, journal: bool, settings: KafkaSettings
) -> None:
    spool = attrs.evolve(settings.spool, when_full="stop_reading", max_bytes=MAX_BYTES, segment_bytes=20_000)
    settings = attrs.evolve(settings, spool=spool, journal=journal, queue_messages=100)
    published = 0
    async with open_sink(settings) as sink:
        await direct(sink)
        ready, sink.ready = sink.ready, trio.Event()
        at = origin()
        if journal:
            sink.backlog._disk.acquire_nowait()  # nothing is taken out
        else:
            sink._spool_from_now()
            sink.backlog._disk.acquire_nowait()
        while sink.has_room:
            sink.publish(trade(published, at))
            published += 1
        assert sink.stats().reading_stopped_at is not None
        with trio.move_on_after(0.05) as waited:
            await sink.wait_for_room()
        assert waited.cancelled_caught
        sink.publish(trade(published, at))  # there is still room for what was read already
        published += 1
        sink.ready = ready
        sink.backlog._disk.release()
        with trio.fail_after(60):
            await sink.wait_for_room()
        assert sink.has_room
        await sink.delivered()
        stats = sink.stats()
    assert stats.announced_lost == 0
    assert stats.balanced
    assert numbers(arrived(settings)) == {at.key: list(range(published))}
    told = [record.fields for record in arrived(settings, FeedStatus.KIND)]
    assert [status["status"] for status in told] == ["stale", "resynced"]
    assert told[1]["from_time"] == told[0]["from_time"] <= told[1]["to_time"]


async def test_an_unclean_end_is_announced_first(tmp_path: str) -> None:
    settings = nowhere(tmp_path, "refuse_new", journal=True)
    async with open_sink(settings):
        pass
    async with open_sink(settings) as sink:
        assert sink.stats().published == 0  # that was a clean end
        sink.backlog.spool.marker.write(sink.now())
    path = f"{tmp_path}/unclean"
    for content, since in (("00001700000000000000", 1_700_000_000_000_000), ("torn", None)):
        await trio.Path(path).write_text(content, encoding="ascii")
        async with open_sink(settings) as sink:
            sink.publish(trade(1, origin()))
        gap, last = left(settings)[-2:]
        assert (gap["status"], gap["scope"], gap["instrument"]) == ("gap", "process", None)
        assert last["sequence"] == 1
        if since is not None:
            assert gap["from_time"].timestamp() == since / 1e6  # type: ignore[attr-defined]
            assert gap["to_time"] is not None


async def test_the_mark_follows_what_is_safe(settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sink.sink._MARK_S", 0.02)
    async with open_sink(settings) as sink:
        await direct(sink)
        before = sink.now()
        await until(lambda: sink.stats().safe_until > before)
        with monkeypatch.context() as patch:
            patch.setattr(sink.outlet, "_lent", True)  # nothing is reported
            sink.publish(trade(0, origin()))
            published = sink.now()
            await trio.sleep(0.1)
            assert sink.stats().safe_until <= published
        await until(lambda: sink.stats().safe_until > published)
