"""A connection that falls behind its venue: what is told, what is published, and that a replay gives the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import attrs
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from pipeline.exchanges.accounts import Accounts
from pipeline.feeds.feed import TICK
from pipeline.feeds.lag import CALM
from pipeline.feeds.link import Link, Surroundings, connection_limits
from pipeline.feeds.plan import make_plan
from pipeline.feeds.relay import SETTLING
from pipeline.feeds.settings import (
    ArchiveSettings,
    BookSettings,
    ChannelSettings,
    OverloadSettings,
    ReconnectSettings,
    VenueSettings,
)
from pipeline.feeds.venue_rest import VenueRest
from pipeline.model.events import Event, FeedStatus, Micros, Ticker
from pipeline.session.rest import RestClient
from pipeline.tape.entries import Entry, event_fields
from pipeline.tape.player import Player
from pipeline.tape.recorder import Recorder
from tests.feeds.test_link import Door, World, running
from tests.feeds.toy import book, catalogue, ticker, trade

QUEUE = VenueSettings(
    channels=(ChannelSettings("spot", ("ticker", "trade"), connections="all"),),
    reconnect=ReconnectSettings(first=1.0, max=1.0, max_bugs=1),
    overload=OverloadSettings(messages_per_turn=7, lag=2.0, interval=0.1),
    archive=ArchiveSettings(topic=True),
)
CONFLATE = attrs.evolve(
    QUEUE,
    channels=(
        ChannelSettings("spot", ("ticker",), connections="all", overload="conflate"),
        ChannelSettings("spot", ("trade",), connections="all"),
    ),
)
BOOKS = attrs.evolve(
    QUEUE,
    channels=(
        ChannelSettings(
            "spot",
            ("book",),
            book=BookSettings(derive_bbo=True, snapshot_interval=None, top_levels=1, top_interval=0.01),
            connections="all",
            overload="conflate",
        ),
        ChannelSettings("spot", ("trade",), connections="all"),
    ),
)


@attrs.define
class Kept:
    """Where an archive goes."""

    entries: list[Entry] = attrs.field(factory=list)

    def take(self, entry: Entry, endpoint: str, account: str | None) -> None:
        self.entries.append(entry)


@attrs.define(eq=False)
class Lagging(World):
    """A venue whose messages come late."""

    delay: float = 0.0
    """Seconds that the venue's messages take to reach us."""
    set_forward: float = 0.0
    """Seconds by which our wall clock is ahead of the venue's."""
    number: int = 0
    recorder: Recorder = attrs.field(init=False)
    kept: Kept = attrs.field(factory=Kept)

    def __attrs_post_init__(self) -> None:
        self.recorder = Recorder("toy", "test", Micros(0), self.clock)
        self.recorder.keepers.append(self.kept)
        self.recorder.begin()

    def clock(self) -> int:
        return round((1_700_000_000 + trio.current_time() + self.set_forward) * 1e6)

    @property
    def around(self) -> Surroundings:
        return attrs.evolve(super().around, clock=self.clock)

    def link(self, rest: VenueRest | None = None) -> Link:
        entries = catalogue("BTC")
        self.recorder.known("spot", entries.values())
        [plan] = make_plan("toy", self.venue, self.settings, entries).connections
        connects = super().links("BTC")[0].connects
        return Link(plan, self.venue, self.settings, entries, connects, None, self.around, rest, None, self.recorder)

    def send(self, *wires: int) -> None:
        """A trade and a ticker of the moment that was `delay` ago, over connections; the last one if none is named."""
        self.number += 1
        for wire in wires or (-1,):
            time = round((1_700_000_000 + trio.current_time() - self.delay) * 1e6)
            number = str(self.number)
            if self.settings is BOOKS:
                update = book(self.number, self.number - 1 or None, price=number, time=time)
                self.wires[wire].push(update, trade(number, time=time))
            else:
                self.wires[wire].push(trade(number, time=time), ticker(number, time=time))

    async def flow(self, seconds: float, delay: float, *wires: int) -> None:
        """100 of each per second."""
        self.delay = delay
        for _ in range(round(seconds * 100)):
            await trio.sleep(0.01)
            self.send(*wires)
        await wait_all_tasks_blocked()

    def states(self) -> list[int]:
        return [int(event.last_price or 0) for event in self.published if isinstance(event, Ticker)]

    def told(self, *names: str) -> list[FeedStatus]:
        return [event for event in self.published if isinstance(event, FeedStatus) and event.status in names]

    def replayed(self, entries: list[Entry] | None = None) -> list[dict[str, Any]]:
        problems: list[str] = []
        events: list[Event] = []

        def publish(event: Event) -> bool:
            events.append(event)
            return True

        player = Player(self.venue, publish, problems.append)
        for entry in self.kept.entries if entries is None else entries:
            player.take(entry)
        assert problems == []
        return [event_fields(event) for event in events]

    def is_replayed(self) -> bool:
        return self.replayed() == [event_fields(event) for event in self.published]


async def test_a_lag_is_told_and_states_are_conflated_until_it_is_over(autojump_clock: MockClock) -> None:
    world = Lagging(CONFLATE)
    link = world.link()
    with capture_logs() as logs:
        async with running(link):
            await world.flow(1.0, 0.05)
            assert world.states() == list(range(1, 101)), "without a lag, nothing is kept back"
            await world.flow(5.0, 3.05)
            assert link.stats.state == "lagging"
            assert link.stats.is_live
            assert link.stats.lag == pytest.approx(3_000_000, abs=20_000)
            assert not world.told("caught_up")
            await world.flow(2.0, 0.05)
            assert link.stats.state == "live"
            assert link.stats.lag < 20_000
    lagging, caught_up = world.told("lagging", "caught_up")
    assert (lagging.status, lagging.scope, lagging.origin.connection) == ("lagging", "connection", "toy.all.spot.0#1")
    assert lagging.reason == "3.0 s behind the venue, more than 2 s; states of 1 topics are conflated"
    assert (caught_up.reason, caught_up.from_time) == ("0.0 s behind the venue", lagging.from_time)
    assert caught_up.to_time == caught_up.receive_time
    between = world.published[world.published.index(lagging) : world.published.index(caught_up)]
    kept = [event for event in between if isinstance(event, Ticker)]
    seconds = ((caught_up.to_time or 0) - (lagging.from_time or 0)) / 1e6
    assert len(kept) == pytest.approx(seconds * 10, rel=0.15), "ten per second"
    assert world.trades() == [str(number) for number in range(1, 801)]
    states = world.states()
    assert states == sorted(set(states))
    assert states[-1] == 800
    assert caught_up.count == 800 - len(states) == link.stats.conflated["ticker"]
    assert link.stats.lags == 1
    assert [e["event"] for e in logs if "connection_" in e["event"]] == [
        "connection_live",
        "connection_lagging",
        "connection_caught_up",
    ]
    assert world.is_replayed()


async def test_a_queue_loses_nothing_and_the_lag_is_told_all_the_same(autojump_clock: MockClock) -> None:
    world = Lagging(QUEUE)
    link = world.link()
    async with running(link):
        await world.flow(0.5, 0.0)
        await world.flow(2.0, 30.0)
        await world.flow(2.0, 0.0)
    assert world.states() == list(range(1, 451))
    assert [(e.status, e.count) for e in world.told("lagging", "caught_up")] == [("lagging", None), ("caught_up", 0)]
    assert link.stats.conflated == {}
    assert world.is_replayed()


async def test_of_a_book_only_what_is_derived_is_conflated(autojump_clock: MockClock) -> None:
    world = Lagging(BOOKS)
    link = world.link()
    async with running(link):
        await world.flow(0.5, 0.0)
        await world.flow(2.0, 30.0)
        await world.flow(2.0, 0.0)
    kinds = [event.KIND for event in world.published]
    assert kinds.count("book_update") == 450
    assert link.stats.conflated["bbo"] > 100
    assert kinds.count("bbo") == 450 - link.stats.conflated["bbo"]
    bids = [event.bid_price for event in world.published if event.KIND == "bbo"]  # type: ignore[attr-defined]
    assert bids[-1] == "450"
    assert world.is_replayed()


async def drop(world: Lagging, link: Link) -> None:
    world.wires[-1].drop()
    await wait_all_tasks_blocked()


async def remain(world: Lagging, link: Link) -> None:
    """The end of the test ends the connection."""


@pytest.mark.parametrize("end", [drop, remain])
async def test_the_last_state_is_published_at_the_end_of_the_connection(
    end: Callable[[Lagging, Link], Any], autojump_clock: MockClock
) -> None:
    world = Lagging(CONFLATE)
    link = world.link()
    async with running(link):
        await world.flow(0.5, 0.0)
        await world.flow(1.03, 30.0)
        assert world.states()[-1] < world.number
        await end(world, link)
    assert world.states()[-1] == world.number
    assert [event.status for event in world.told("lagging", "caught_up", "lost")] == ["lagging", "caught_up", "lost"]
    [over] = world.told("caught_up")
    assert over.reason == "the connection ended 30.0 s behind"
    assert over.count == link.stats.conflated["ticker"]
    assert link.stats.lag == 0
    assert link.stats.state != "lagging"
    assert world.is_replayed()


async def test_the_replacement_of_a_connection_goes_on_with_the_newest_state(autojump_clock: MockClock) -> None:
    world = Lagging(CONFLATE)
    link = world.link()
    async with running(link):
        await world.flow(0.5, 0.0)
        await world.flow(1.0, 30.0)
        world.wires[0].push(b"end")
        await trio.sleep(0.5)
        await world.flow(0.3, 30.0, 0, 1)
        assert link.stats.lag > 29e6, "which is the old connection's: the new one is not heard yet"
        await world.flow(SETTLING, 30.0, 0, 1)
        await trio.sleep(0.01)
        assert world.wires[0].closed
        await world.flow(1.0, 30.0, 1)
        assert link.stats.state == "lagging"
        await world.flow(2.0, 0.0, 1)
        assert link.stats.state == "live"
    assert link.stats.handovers == 1
    told = [(e.status, e.origin.connection[-2:]) for e in world.told("lagging", "caught_up", "replaced")]
    assert told == [
        ("lagging", "#1"),
        ("caught_up", "#1"),
        ("replaced", "#1"),
        ("lagging", "#2"),
        ("caught_up", "#2"),
    ]
    states = world.states()
    assert states == sorted(set(states)), "none twice, and none older than what was published before"
    assert states[-1] == world.number
    assert world.trades() == [str(number) for number in range(1, world.number + 1)]
    assert world.number - len(states) == link.stats.conflated["ticker"]
    assert world.is_replayed()


async def test_a_later_segment_of_the_archive_tells_that_states_are_conflated(autojump_clock: MockClock) -> None:
    world = Lagging(CONFLATE)
    link = world.link()
    async with running(link):
        await world.flow(0.5, 0.0)
        await world.flow(1.0, 30.0)
        before = len(world.published)
        entries = len(world.kept.entries)
        world.recorder.begin()
        await world.flow(1.0, 30.0)
    after = [event_fields(event) for event in world.published[before:]]
    assert world.replayed(world.kept.entries[entries:]) == after


async def test_an_archive_that_begins_while_states_are_conflated(autojump_clock: MockClock) -> None:
    world = Lagging(attrs.evolve(CONFLATE, archive=None))
    link = world.link()
    async with running(link):
        await world.flow(0.5, 0.0)
        await world.flow(1.0, 30.0)
        before = len(world.published)
        entries = catalogue("BTC", "ETH")
        world.recorder.known("spot", entries.values())
        [archived] = make_plan("toy", world.venue, CONFLATE, entries, [link.plan]).connections
        link.retarget(archived)
        await world.flow(1.0, 30.0)
        assert link.stats.state == "lagging"
    after = [event_fields(event) for event in world.published[before:]]
    assert "feed_status" in {event["event"] for event in after}
    assert world.replayed() == after


async def test_clocks_that_differ_or_are_set_are_no_lag(autojump_clock: MockClock) -> None:
    world = Lagging(CONFLATE, set_forward=3_600.0)
    link = world.link()
    async with running(link):
        for set_forward in (3_600.0, -40.0, 7_200.0):
            world.set_forward = set_forward
            await world.flow(1.0, 0.05)
        assert link.stats.lag < 20_000
        assert link.stats.exchange_lag == pytest.approx(7_200_050_000, abs=20_000)
    assert not world.told("lagging")


async def test_an_old_message_beside_prompt_ones_is_no_lag(autojump_clock: MockClock) -> None:
    world = Lagging(CONFLATE)
    link = world.link()
    async with running(link):
        await world.flow(0.5, 0.0)
        for _ in range(100):
            await world.flow(0.01, 0.0)
            world.delay = 600.0
            world.send()
    assert not world.told("lagging")


async def test_silence_and_heartbeats_are_no_lag(autojump_clock: MockClock) -> None:
    world = Lagging(CONFLATE)
    link = world.link()
    async with running(link):
        await world.flow(0.5, 0.0)
        for _ in range(20):
            await trio.sleep(1.0)
            world.wires[0].push(b"pong")
        assert link.stats.lag == 0
    assert not world.told("lagging")


async def test_who_is_not_read_learns_nothing_about_the_lag(autojump_clock: MockClock) -> None:
    door = Door()
    door.opened.set()
    world = Lagging(CONFLATE, gate=door)
    link = world.link()
    async with running(link):
        await world.flow(0.5, 0.0)
        await world.flow(1.0, 30.0)
        door.opened = trio.Event()
        await trio.sleep(TICK * (CALM + 2))
        assert link.stats.state == "lagging"
        assert world.states()[-1] == world.number, "what waited is published in time"
        await world.flow(0.5, 60.0)
        assert world.states()[-1] < world.number
        assert link.stats.lag < 31e6
        door.opened.set()
        await trio.sleep(TICK * (CALM + 2))
        assert link.stats.state == "live"
    assert world.is_replayed()


@attrs.frozen
class Time:
    """The venue's clock over REST."""

    time_path: str = "/time"

    async def get_json_bytes(self, path: str, sign: object = None) -> bytes:
        return str(round((1_700_000_000 + trio.current_time()) * 1e6)).encode()

    def read_time(self, body: bytes) -> int:
        return int(body)


@pytest.mark.parametrize("is_fresh", [True, False])
async def test_with_the_venues_clock_a_connection_that_begins_late_is_known_to(
    is_fresh: bool, autojump_clock: MockClock
) -> None:
    world = Lagging(CONFLATE, set_forward=500.0)
    time = Time()
    rest = VenueRest(cast(RestClient, time), cast(RestClient, time), cast(Accounts, time), world.clock)
    await rest.measure_clock()
    if not is_fresh:
        await trio.sleep(120)
    link = world.link(rest)
    async with running(link):
        await world.flow(1.0, 10.0)
        assert link.stats.state == ("lagging" if is_fresh else "live")


def test_the_work_per_turn_is_bounded_as_configured() -> None:
    assert connection_limits(QUEUE).batch == 7
