"""A live run against a simulated venue that does all that goes wrong, and the replay of its archive: byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
from pipeline.tape.files import SUFFIX
from tests.tape.live import Records, replayed, replayed_entries, running

DEADLINE_S = 60
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
            book, together = f"{name}.{MARKET[name]}.book.0", f"{name}.together"
            await venue.wait_sent(40, BOOKS[name])
            if name == "bybit":
                await until(lambda: sum(c.seeds for c in intake.stats.connections.values()) >= 2)
            venue.fault("gap", topic=BOOKS[name].replace("*", first.symbol), count=2)
            await until(lambda: b"resynced" in b"".join(r.value for r in records.sent if r.kind == "feed_status"))
            venue.fault("drop", topic=BOOKS[name])
            await until(lambda: intake.stats.connections[book].generation == 2)
            target = next(c for c in venue.connections if any("rade" in topic for topic in c.topics))
            target.raw(frame(NONSENSE[name], TEXT))
            await venue.wait_sent(venue.sent.count(BOOKS[name]) + 20, BOOKS[name])
            if name == "okx":
                venue.fault("notice", topic=BOOKS[name], seconds=20)
                await until(lambda: intake.stats.connections[book].handovers == 1)
            venue.list_instrument(third)
            await venue.wait_subscribed(BOOKS[name].replace("*", third.symbol))
            venue.delist(second.market, second.symbol)
            await until(lambda: venue.subscriptions(f"*{second.symbol}") == 0)
            venue.list_instrument(second)
            await venue.wait_subscribed(BOOKS[name].replace("*", second.symbol))
            await until(lambda: "dead_letter" in records.kinds() and together in str(list(intake.links)))
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


async def test_files_that_follow_each_other_are_one_archive(tmp_path: Path) -> None:
    records = await live("bybit", tmp_path, rotate_bytes=10_000)
    files = archive_files(tmp_path)
    assert len(files) > 3
    assert replayed(*reversed(files)) == (records.sent, [])
