"""A live run against a simulated venue that does all that goes wrong, and the replay of its archive: byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import attrs
import pytest
import trio

from pipeline.feeds.settings import (
    ArchiveFileSettings,
    ArchiveSettings,
    BookSettings,
    ChannelSettings,
    ReconnectSettings,
    UrlSettings,
    VenueSettings,
)
from pipeline.sim.listing import many
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from pipeline.sim.wire import TEXT, frame
from pipeline.tape.blocks import Block, scan
from pipeline.tape.entries import NOTE, Books, TakenOver, encode_note, read_note
from pipeline.tape.files import SUFFIX
from tests.tape.live import Records, replayed, replayed_entries, running

DEADLINE_S = 120
MARKET = {"bybit": "linear", "okx": "swap"}
TRADES = {"bybit": "publicTrade.*", "okx": "trades:*"}
BOOKS = {"bybit": "orderbook.50.*", "okx": "books:*"}
NONSENSE = {
    "bybit": b'{"topic":"publicTrade.BTCUSDT","data":[{"i":1}]}',
    "okx": b'{"arg":{"channel":"trades"},"data":3}',
}
BOOK = BookSettings(derive_bbo=True, snapshot_interval=0.5, top_levels=3, top_interval=0.5)


def settings(name: str, venue: SimulatedVenue, directory: Path, **files: float) -> VenueSettings:
    """Everything that is made from messages, into files and topic."""
    market = MARKET[name]
    # Bybit's full book starts over REST.
    seeded = (ChannelSettings(market, ("book",), depth="full", connections="full"),) if name == "bybit" else ()
    return VenueSettings(
        channels=(
            *seeded,
            ChannelSettings(market, ("book",), book=BOOK),
            ChannelSettings(market, ("trade", "ticker"), connections="together"),
            ChannelSettings(market, ("candle",), interval=("1m",)),
        ),
        urls=UrlSettings(websocket=venue.websocket_url, rest=venue.rest_url),
        reconnect=ReconnectSettings(first=0.05, max=0.2),
        refresh_instruments=0.5,
        archive=ArchiveSettings(
            topic=True,
            files=ArchiveFileSettings(str(directory), flush_interval=0.05, **files),  # type: ignore[arg-type]
        ),
    )


def archive_files(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"*{SUFFIX}"))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - nothing announces it
        await trio.sleep(0.01)


async def live(name: str, directory: Path, **files: float) -> Records:
    """A gap, a lost connection, an announced end, an unreadable message, and listings that come and go."""
    first, second, third = many(name, 3)
    market = MarketSettings(rate=40, instruments=(first, second), levels=40)
    with trio.fail_after(DEADLINE_S):
        async with (
            open_venue(name, market=market) as venue,
            running(name, settings(name, venue, directory, **files)) as (intake, records),
        ):
            await venue.wait_sent(40, BOOKS[name])
            if name == "bybit":
                await until(lambda: sum(c.seeds for c in intake.stats.connections.values()) >= 2)
            venue.fault("gap", topic=BOOKS[name].replace("*", first.symbol), count=2)
            await until(lambda: b"resynced" in b"".join(r.value for r in records.sent if r.kind == "feed_status"))
            venue.fault("drop")
            await until(lambda: {c.generation for c in intake.stats.connections.values()} == {2})
            await venue.wait_subscribed(TRADES[name])
            target = next(c for c in venue.connections if any("rade" in topic for topic in c.topics))
            for strange in (NONSENSE[name], b"[1, 2, 3]"):
                target.raw(frame(strange, TEXT))
            await venue.wait_sent(venue.sent.count(BOOKS[name]) + 20, BOOKS[name])
            if name == "okx":
                venue.list_instrument(attrs.evolve(first, contract_value=Decimal("0.07")))
                venue.fault("notice", seconds=20)
                await until(lambda: {c.handovers for c in intake.stats.connections.values()} == {1})
            venue.list_instrument(third)
            await venue.wait_subscribed(BOOKS[name].replace("*", third.symbol))
            venue.delist(second.market, second.symbol)
            await until(lambda: venue.subscriptions(f"*{second.symbol}") == 0)
            venue.list_instrument(second)
            await venue.wait_subscribed(BOOKS[name].replace("*", second.symbol))
            await until(lambda: "dead_letter" in records.kinds())
            await venue.wait_sent(venue.sent.count(TRADES[name]) + 20, TRADES[name])
    return records


@pytest.mark.parametrize("name", ["bybit", "okx"])
async def test_a_replay_is_byte_for_byte_what_was_published(name: str, tmp_path: Path) -> None:
    records = await live(name, tmp_path)
    kinds = records.kinds()
    wanted = {"trade", "book_update", "bbo", "book_top", "ticker", "candle", "instrument", "feed_status", "dead_letter"}
    assert wanted <= kinds.keys()
    from_files = replayed(tmp_path)
    assert from_files == (records.sent, [])
    assert replayed_entries(name, records.entries) == (records.sent, [])
    assert {record.key for record in records.wire} == {name.encode()}, "one partition keeps their order"


async def test_what_is_told_of_a_relieved_connection_means_nothing(tmp_path: Path) -> None:
    records = await live("okx", tmp_path)
    notes = [read_note(entry.payload) for entry in records.entries if entry.kind == NOTE]
    before = next(note.before for note in notes if isinstance(note, TakenOver))
    last = max(entry.sequence for entry in records.entries if entry.connection == before)
    late = records.entries[-1]._replace(kind=NOTE, sequence=last + 1, connection=before, payload=encode_note(Books([])))
    assert replayed_entries("okx", [*records.entries, late]) == (records.sent, [])


async def test_files_that_follow_each_other_are_one_archive(tmp_path: Path) -> None:
    records = await live("bybit", tmp_path, rotate_bytes=10_000)
    files = archive_files(tmp_path)
    assert len(files) > 3
    assert replayed(*reversed(files)) == (records.sent, [])


async def test_a_later_file_is_understood_without_those_before(tmp_path: Path) -> None:
    records = await live("bybit", tmp_path, rotate_bytes=10_000)
    files = archive_files(tmp_path)
    sent, problems = replayed(*files[-2:])
    assert problems == []
    trades = [record for record in sent if record.kind == "trade"]
    assert trades
    assert trades == [record for record in records.sent if record.kind == "trade"][-len(trades) :]
    books = [record for record in sent if record.kind == "book_update"]
    assert books
    assert all(b"USDT-PERP" in record.value for record in [*trades, *books]), "symbols come from the catalogue"


async def test_a_missing_file_is_told_and_what_follows_is_understood(tmp_path: Path) -> None:
    records = await live("bybit", tmp_path, rotate_bytes=10_000)
    files = archive_files(tmp_path)
    sent, problems = replayed(*files[:1], *files[2:])
    assert problems == ["bybit: entries are missing before segment 3"]
    assert sent[-1] == records.sent[-1]
    trades = [record for record in sent if record.kind == "trade"]
    assert len(trades) == len(set(trades))
    assert set(trades) < {record for record in records.sent if record.kind == "trade"}


async def test_a_damaged_block_is_told_and_skipped(tmp_path: Path) -> None:
    records = await live("bybit", tmp_path)
    (file,) = archive_files(tmp_path)
    data = bytearray(await trio.Path(file).read_bytes())
    blocks = [found for found in scan(bytes(data)) if isinstance(found, Block)]
    # Of trades that were published: one block may have nothing of them but what could not be read.
    hit = max(blocks[len(blocks) // 3 : -len(blocks) // 3], key=lambda block: block.content.count(b'"S":"Buy"'))
    assert b'"S":"Buy"' in hit.content
    data[hit.start + 30] ^= 1
    await trio.Path(file).write_bytes(data)
    sent, problems = replayed(file)
    assert problems[0] == f"{file}: bytes {hit.start} to {hit.end} are damaged, and skipped"
    assert all(" are missing" in problem for problem in problems[1:])
    before, after = records.sent[0], records.sent[-1]
    assert (sent[0], sent[-1]) == (before, after)
    assert {record for record in sent if record.kind == "trade"} < {r for r in records.sent if r.kind == "trade"}


async def test_the_file_of_a_killed_process_gives_what_was_written(tmp_path: Path) -> None:
    records = await live("bybit", tmp_path)
    (file,) = archive_files(tmp_path)
    data = await trio.Path(file).read_bytes()
    await trio.Path(file).write_bytes(data[: len(data) * 2 // 3])
    sent, (problem,) = replayed(file)
    assert "its writer was killed" in problem
    assert len(sent) > 100
    assert sent == records.sent[: len(sent)]
