"""An announced end of a connection: the replacement takes over without a gap and without repeating anything."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pipeline.feeds.relay import RETRY, SETTLING
from pipeline.feeds.settings import ChannelSettings, ReconnectSettings, TimeoutSettings, VenueSettings
from pipeline.model.events import BookUpdate, FeedStatus
from tests.feeds.test_link import TRADES, Wire, World, grants_all, running
from tests.feeds.toy import book, trade

BOOKS = VenueSettings(
    channels=(ChannelSettings("spot", ("book", "trade"), connections="all"),),
    reconnect=ReconnectSettings(first=1.0, max=8.0, max_bugs=1),
    timeouts=TimeoutSettings(handover=20.0),
)


async def settled(seconds: float = 0.0) -> None:
    await trio.sleep(seconds)
    await wait_all_tasks_blocked()


async def announced(world: World) -> tuple[Wire, Wire]:
    """The first connection's end is announced, and its replacement is open."""
    world.wires[0].push(b"end")
    await settled(0.5)
    assert len(world.wires) == 2
    return world.wires[0], world.wires[1]


def sequences(world: World) -> list[tuple[bool, int | None]]:
    return [(event.is_snapshot, event.sequence) for event in world.published if isinstance(event, BookUpdate)]


async def test_trades_of_both_connections_are_published_once(autojump_clock: MockClock) -> None:
    world = World(TRADES)
    [link] = world.links("BTC")
    async with running(link):
        world.wires[0].push(trade("1"), trade("2"))
        await settled()
        old, new = await announced(world)
        new.push(trade("2"))  # what a venue sends first to whoever subscribes
        old.push(trade("3"), trade("4"))
        new.push(trade("3"))
        await settled()
        assert world.trades() == ["1", "2", "3", "4"]
        await settled(SETTLING + 0.5)
        assert old.closed
        assert link.stats.handovers == 1
        new.push(trade("4"), trade("5"))
        await settled()
    assert world.trades() == ["1", "2", "3", "4", "5"]
    assert "replaced" in world.statuses()
    assert "lost" not in world.statuses()[:-1]  # the last one is the end of the test


async def test_what_only_the_replacement_brought_is_not_lost(autojump_clock: MockClock) -> None:
    world = World(TRADES)
    [link] = world.links("BTC")
    async with running(link):
        old, new = await announced(world)
        old.push(trade("1"))
        new.push(trade("1"), trade("2"))
        await settled()
        assert world.trades() == ["1"]
        old.drop()  # earlier than announced
        await settled()
        assert world.trades() == ["1", "2"]
        assert not new.closed
        assert link.stats.state == "live"
    assert link.stats.handovers == 0
    assert world.statuses().count("lost") == 2


async def test_books_go_on_in_the_same_epoch(autojump_clock: MockClock) -> None:
    world = World(BOOKS)
    [link] = world.links("BTC")
    async with running(link):
        world.wires[0].push(book(1), book(2, 1))
        await settled()
        old, new = await announced(world)
        old.push(book(3, 2))
        new.push(book(3), book(4, 3))
        await settled()
        old.push(book(4, 3))
        await settled(SETTLING + 0.5)
        assert old.closed
        new.push(book(5, 4))
        await settled()
    assert sequences(world) == [(True, 1), (False, 2), (False, 3), (False, 4), (False, 5)]
    epochs = {event.epoch for event in world.published if isinstance(event, BookUpdate)}
    assert len(epochs) == 1
    assert link.stats.gaps == 0


async def test_the_old_connection_is_waited_for(autojump_clock: MockClock) -> None:
    world = World(BOOKS)
    [link] = world.links("BTC")
    async with running(link):
        world.wires[0].push(book(1))
        await settled()
        old, new = await announced(world)
        new.push(book(3), book(4, 3))  # it begins where the old one has not arrived yet
        await settled(SETTLING * 5)
        assert not old.closed
        old.push(book(2, 1), book(3, 2))
        await settled(0.5)
        assert old.closed
    assert sequences(world) == [(True, 1), (False, 2), (False, 3), (False, 4)]


async def test_the_wait_is_bounded(autojump_clock: MockClock) -> None:
    world = World(BOOKS)
    [link] = world.links("BTC")
    async with running(link):
        world.wires[0].push(book(1))
        await settled()
        old, new = await announced(world)
        new.push(book(3))
        await settled(25.0)
        assert old.closed
    assert sequences(world) == [(True, 1), (True, 3)]
    assert link.stats.handovers == 0
    lost = [event for event in world.published if isinstance(event, FeedStatus) and event.status == "lost"]
    assert "too late" in lost[0].reason


async def test_a_venue_that_counts_anew_is_followed(autojump_clock: MockClock) -> None:
    world = World(BOOKS)
    [link] = world.links("BTC")
    async with running(link):
        world.wires[0].push(book(1000))
        await settled()
        old, new = await announced(world)
        new.push(book(5, time=2))
        await settled(SETTLING + 0.5)
        assert old.closed
        new.push(book(6, 5, time=3))
        await settled()
    assert sequences(world) == [(True, 1000), (True, 5), (False, 6)]


async def test_a_replacement_that_fails_is_tried_again(autojump_clock: MockClock) -> None:
    world = World(TRADES)
    [link] = world.links("BTC")
    async with running(link):
        world.down = True
        world.wires[0].push(b"end", trade("1"))
        await settled(RETRY / 2)
        assert len(world.wires) == 1
        assert link.stats.state == "live"
        world.down = False
        await settled(RETRY)
        assert len(world.wires) == 2
        await settled(SETTLING + 0.5)
        assert world.wires[0].closed
        world.wires[1].push(trade("2"))
        await settled()
    assert world.trades() == ["1", "2"]


async def test_an_old_connection_that_ends_before_there_is_a_replacement_is_reconnected(
    autojump_clock: MockClock,
) -> None:
    world = World(TRADES)
    [link] = world.links("BTC")
    async with running(link):
        world.down = True
        world.wires[0].push(b"end")
        await settled(1.0)
        world.wires[0].drop()
        await settled(0.5)
        assert link.stats.state == "retrying"
        world.down = False
        await settled(30.0)
        assert link.stats.state == "live"
        world.wires[-1].push(trade("1"))
        await settled()
    assert world.trades() == ["1"]


async def test_replacements_follow_each_other(autojump_clock: MockClock) -> None:
    world = World(TRADES)
    [link] = world.links("BTC")
    async with running(link):
        for number in range(3):
            world.wires[number].push(trade(str(number)), b"end")
            await settled(SETTLING + 2.0)
        world.wires[3].push(trade("3"))
        await settled()
        assert [wire.closed for wire in world.wires] == [True, True, True, False]
    assert world.trades() == ["0", "1", "2", "3"]
    assert link.stats.handovers == 3


@pytest.mark.parametrize("when", [0.2, 0.9, 1.1])
async def test_a_changed_plan_reaches_both_connections(autojump_clock: MockClock, when: float) -> None:
    from pipeline.feeds.plan import make_plan
    from tests.feeds.toy import catalogue

    world = World(TRADES, answer=grants_all)
    [link] = world.links("BTC")
    async with running(link):
        world.wires[0].push(b"end")
        await settled(when)
        [changed] = make_plan("toy", world.venue, world.settings, catalogue("BTC", "ETH"), [link.plan]).connections
        link.retarget(changed)
        await settled(SETTLING + 2.0)
        assert any("trade.ETH" in text for text in world.wires[1].received)
        world.wires[1].push(trade("7", name="ETH"))
        await settled()
    assert world.trades() == ["7"]
