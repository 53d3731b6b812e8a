"""A venue's connections under Trio's virtual time: sockets in memory, a REST host in memory, everything else real."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pipeline.exchanges.venue import Venue
from pipeline.feeds.intake import Intake
from pipeline.feeds.link import Link, Surroundings
from pipeline.feeds.plan import make_plan
from pipeline.feeds.settings import ChannelSettings, ReconnectSettings, VenueSettings
from pipeline.model.errors import ConnectionLost, Refused
from pipeline.model.events import Event, FeedStatus, Instrument, Trade
from pipeline.model.rate import Rate
from pipeline.session.limiter import Limiter
from tests.feeds.toy import ToyVenue, catalogue, trade

Answer = Callable[[str], list[bytes]]


def grants_all(text: str) -> list[bytes]:
    """A venue that says yes to everything."""
    verb, *topics = text.split()
    if verb == "ping":
        return [b"pong"]
    return [f"ok {verb} {topic}".encode() for topic in topics]


def refuses_all(text: str) -> list[bytes]:
    _, *topics = text.split()
    return [f"no {topic}".encode() for topic in topics]


@attrs.define(eq=False)
class Wire:
    """One connection as the venue sees it, and the connector's transport."""

    answer: Answer
    opened: float
    received: list[str] = attrs.field(factory=list)
    closed: bool = False
    _to_client: trio.MemorySendChannel[bytes] = attrs.field(init=False)
    _from_venue: trio.MemoryReceiveChannel[bytes] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._to_client, self._from_venue = trio.open_memory_channel[bytes](math.inf)

    def push(self, *messages: bytes) -> None:
        for message in messages:
            self._to_client.send_nowait(message)

    def drop(self) -> None:
        self._to_client.close()

    async def receive(self) -> list[bytes]:
        try:
            return [await self._from_venue.receive()]
        except trio.EndOfChannel:
            raise ConnectionLost("the venue hung up") from None

    async def send(self, text: str) -> None:
        await trio.lowlevel.checkpoint()
        self.received.append(text)
        self.push(*self.answer(text))

    async def aclose(self) -> None:
        self.closed = True


@attrs.define(eq=False)
class Door:
    """A sink that may have no room."""

    opened: trio.Event = attrs.field(factory=trio.Event)

    @property
    def has_room(self) -> bool:
        return self.opened.is_set()

    async def wait_for_room(self) -> None:
        await self.opened.wait()


@attrs.define(eq=False)
class World:
    """Everything outside of a venue's connections."""

    settings: VenueSettings
    venue: Venue = attrs.field(factory=ToyVenue)
    answer: Answer = grants_all
    wires: list[Wire] = attrs.field(factory=list)
    published: list[Event] = attrs.field(factory=list)
    down: bool = False
    bug: Exception | None = None
    gate: Door | None = None

    def publish(self, event: Event) -> bool:
        if self.bug is not None:
            raise self.bug
        self.published.append(event)
        return True

    async def open(
        self, nursery: trio.Nursery, url: str, *, limits: object, tls: object = None, compression: bool = False
    ) -> Wire:
        await trio.lowlevel.checkpoint()
        assert compression == self.settings.compression
        if self.down:
            raise ConnectionLost("nobody listens")
        self.wires.append(Wire(self.answer, trio.current_time()))
        return self.wires[-1]

    @property
    def around(self) -> Surroundings:
        return Surroundings(
            publish=self.publish,
            clock=lambda: round(trio.current_time() * 1e6),
            random=lambda: 1.0,
            open_websocket=self.open,
            gate=self.gate,
        )

    def links(self, *names: str) -> list[Link]:
        entries = catalogue(*names)
        plan = make_plan("toy", self.venue, self.settings, entries)
        connects = Limiter(Rate(1_000, 1.0))
        return [
            Link(connection, self.venue, self.settings, entries, connects, None, self.around)
            for connection in plan.connections
        ]

    def statuses(self) -> list[str]:
        return [event.status for event in self.published if isinstance(event, FeedStatus)]

    def trades(self) -> list[str]:
        return [event.trade_id for event in self.published if isinstance(event, Trade)]


TRADES = VenueSettings(
    channels=(ChannelSettings("spot", ("trade",)),), reconnect=ReconnectSettings(first=1.0, max=8.0, max_bugs=1)
)


@asynccontextmanager
async def running(*links: Link) -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        for link in links:
            nursery.start_soon(link.run)
        await wait_all_tasks_blocked()
        yield nursery
        nursery.cancel_scope.cancel()


async def test_a_link_goes_live_and_publishes(autojump_clock: MockClock) -> None:
    world = World(TRADES)
    [link] = world.links("BTC")
    async with running(link):
        assert link.stats.state == "live"
        world.wires[0].push(trade("1"))
        await wait_all_tasks_blocked()
    assert world.trades() == ["1"]
    assert world.wires[0].closed
    assert link.stats.state == "stopped"
    assert world.statuses() == ["connected", "subscribed", "lost"]


async def test_a_lost_connection_is_opened_anew_under_a_new_generation(autojump_clock: MockClock) -> None:
    world = World(TRADES)
    [link] = world.links("BTC")
    async with running(link):
        world.wires[0].push(trade("1"))
        await wait_all_tasks_blocked()
        world.wires[0].drop()
        await trio.sleep(2)
        world.wires[1].push(trade("2"))
        await wait_all_tasks_blocked()
    assert world.trades() == ["1", "2"]
    assert [e.origin.connection for e in world.published if isinstance(e, Trade)] == [
        "toy.spot.trade.0#1",
        "toy.spot.trade.0#2",
    ]
    assert world.wires[1].opened - world.wires[0].opened == 1.0
    assert link.stats.reconnects == {"ConnectionLost": 1}


async def test_the_back_off_grows_to_its_cap_and_only_data_resets_it(autojump_clock: MockClock) -> None:
    world = World(TRADES)
    [link] = world.links("BTC")
    async with running(link):
        for _ in range(6):
            world.wires[-1].drop()
            await trio.sleep(link.settings.reconnect.max + 0.5)
        pauses = [b.opened - a.opened for a, b in zip(world.wires, world.wires[1:], strict=False)]
        assert len(pauses) == 6
        world.wires[-1].push(trade("1"))
        await wait_all_tasks_blocked()
        dropped = trio.current_time()
        world.wires[-1].drop()
        await trio.sleep(1.5)
        assert world.wires[-1].opened - dropped == 1.0
    assert link.stats.generation == 8


async def test_trouble_of_one_link_does_not_touch_the_others(autojump_clock: MockClock) -> None:
    both = VenueSettings(
        channels=(ChannelSettings("spot", ("trade",)), ChannelSettings("spot", ("book",))),
        reconnect=ReconnectSettings(first=1.0, max=1.0),
    )
    world = World(both)
    trades, books = world.links("BTC")
    async with running(trades, books):
        [trade_wire] = [wire for wire in world.wires if "trade" in wire.received[0]]
        [book_wire] = [wire for wire in world.wires if "book" in wire.received[0]]
        for _ in range(3):
            book_wire.drop()
            await trio.sleep(2)
            book_wire = world.wires[-1]
        trade_wire.push(trade("1"))
        await wait_all_tasks_blocked()
        assert trades.stats.generation == 1
        assert books.stats.generation == 4
    assert world.trades() == ["1"]


async def test_the_back_off_grows_as_configured(autojump_clock: MockClock) -> None:
    growing = attrs.evolve(TRADES, reconnect=ReconnectSettings(first=1.0, max=100.0, factor=3.0))
    world = World(growing)
    [link] = world.links("BTC")
    async with running(link):
        for pause in (1.0, 3.0, 9.0):
            world.wires[-1].drop()
            await trio.sleep(pause + 0.5)
    opened = [wire.opened for wire in world.wires]
    assert opened == pytest.approx([0.0, 1.0, 4.5, 14.0])


async def test_what_the_venue_refuses_is_not_asked_for_again(autojump_clock: MockClock) -> None:
    world = World(TRADES, answer=refuses_all)
    [link] = world.links("BTC")
    async with running(link):
        await trio.sleep(600)
        assert link.stats.state == "refused"
        assert link.stats.refused == {"trade.BTC": "no such topic"}
        assert "no such topic" in link.stats.last_error
    assert len(world.wires) == 1
    assert world.wires[0].closed
    assert "refused" in world.statuses()


async def test_a_refused_topic_is_left_out_after_a_reconnect(autojump_clock: MockClock) -> None:
    def answer(text: str) -> list[bytes]:
        return [a if b"BAD" not in a else b"no trade.BAD" for a in grants_all(text)]

    world = World(TRADES, answer=answer)
    [link] = world.links("BAD", "BTC")
    async with running(link):
        assert link.stats.state == "live"
        world.wires[0].drop()
        await trio.sleep(2)
    assert [wire.received[0] for wire in world.wires] == ["subscribe trade.BAD trade.BTC", "subscribe trade.BTC"]


async def test_a_bug_restarts_the_connection_until_the_budget_is_spent(autojump_clock: MockClock) -> None:
    world = World(TRADES, bug=ZeroDivisionError("a bug"))
    [link] = world.links("BTC")
    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True, allow_unwrapped=True):
        await link.run()
    assert link.stats.reconnects == {"bug": 2}


@pytest.mark.parametrize("compression", [False, True])
async def test_compression_is_asked_for_where_it_is_configured(autojump_clock: MockClock, compression: bool) -> None:
    world = World(attrs.evolve(TRADES, compression=compression))
    async with running(*world.links("BTC")):
        await trio.sleep(1)
        assert len(world.wires) == 1


async def test_unreachable_is_tried_for_ever(autojump_clock: MockClock) -> None:
    world = World(TRADES, down=True)
    [link] = world.links("BTC")
    async with running(link):
        await trio.sleep(24 * 3600)
        assert link.stats.state in ("connecting", "retrying")
        assert "nobody listens" in link.stats.last_error
        world.down = False
        await trio.sleep(10)
        assert link.stats.state == "live"


@attrs.define(eq=False)
class RestHost:
    """Answers the toy venue's one listing."""

    names: list[str]
    fail: Exception | None = None

    async def get_json_bytes(self, path: str) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.fail is not None:
            raise self.fail
        return json.dumps(self.names).encode()


class BenchIntake(Intake):
    """An intake whose REST host is in memory."""

    host: RestHost

    async def run(self) -> None:
        await self.follow(self.host, None)


@asynccontextmanager
async def venue_running(world: World, host: RestHost) -> AsyncIterator[Intake]:
    intake = BenchIntake("toy", world.venue, world.settings, world.around)
    intake.host = host
    async with trio.open_nursery() as nursery:
        nursery.start_soon(intake.run)
        await wait_all_tasks_blocked()
        yield intake
        nursery.cancel_scope.cancel()


async def test_listings_and_delistings_reach_living_connections(autojump_clock: MockClock) -> None:
    world, host = World(attrs.evolve(TRADES, refresh_instruments=60.0)), RestHost(["BTC", "ETH"])
    async with venue_running(world, host):
        host.names = ["BTC", "SOL"]
        await trio.sleep(61)
        texts = [text for text in world.wires[0].received if text != "ping"]
        assert texts == ["subscribe trade.BTC trade.ETH", "unsubscribe trade.ETH", "subscribe trade.SOL"]
    assert len(world.wires) == 1
    listed = [(e.origin.instrument, e.is_tradable) for e in world.published if isinstance(e, Instrument)]
    assert listed == [("BTC", True), ("ETH", True), ("SOL", True), ("ETH", False)]


async def test_a_new_connection_opens_when_the_old_ones_are_full(autojump_clock: MockClock) -> None:
    world, host = World(attrs.evolve(TRADES, refresh_instruments=60.0)), RestHost(["A", "B", "C", "D"])
    async with venue_running(world, host) as intake:
        host.names = ["A", "B", "C", "D", "E"]
        await trio.sleep(61)
        assert list(intake.links) == ["toy.spot.trade.0", "toy.spot.trade.1"]
        host.names = ["A", "B", "C", "D"]
        await trio.sleep(60)
        assert list(intake.links) == ["toy.spot.trade.0"]
        assert world.wires[1].closed
        assert not world.wires[0].closed


async def test_a_catalogue_that_cannot_be_read_is_asked_for_again_soon(autojump_clock: MockClock) -> None:
    world, host = World(attrs.evolve(TRADES, refresh_instruments=3600.0)), RestHost(["BTC"], ConnectionLost("no route"))
    async with venue_running(world, host) as intake:
        await trio.sleep(30)
        assert intake.stats.catalogue_failures > 3
        assert intake.stats.last_error == "no route"
        host.fail = None
        await trio.sleep(10)
        assert intake.stats.state == "running"
        assert world.wires


async def test_a_failed_refresh_leaves_everything_running(autojump_clock: MockClock) -> None:
    world, host = World(attrs.evolve(TRADES, refresh_instruments=60.0)), RestHost(["BTC"])
    async with venue_running(world, host) as intake:
        host.fail = Refused("HTTP 451")
        await trio.sleep(130)
        assert intake.stats.state == "running"
        assert intake.stats.catalogue_failures == 2
        assert not world.wires[0].closed


async def test_a_venue_that_refuses_the_listing_is_red_and_does_not_spin(autojump_clock: MockClock) -> None:
    world, host = World(attrs.evolve(TRADES, refresh_instruments=300.0)), RestHost([], Refused("HTTP 451"))
    async with venue_running(world, host) as intake:
        await trio.sleep(290)
        assert intake.stats.state == "refused"
        assert intake.stats.catalogue_failures == 1


async def test_nothing_is_read_while_the_sink_has_no_room(autojump_clock: MockClock) -> None:
    world = World(TRADES, gate=Door())
    assert world.gate is not None
    [link] = world.links("BTC")
    async with running(link):
        await trio.sleep(100)
        assert not world.wires  # no connection that could not be read
        world.gate.opened.set()
        await trio.sleep(1)
        world.wires[0].push(trade("1"))
        await wait_all_tasks_blocked()
        world.gate.opened = trio.Event()
        world.wires[0].push(trade("2"), trade("3"))
        await wait_all_tasks_blocked()
        assert world.trades() == ["1", "2"]  # one read was under way
        world.gate.opened.set()
        await wait_all_tasks_blocked()
        assert world.trades() == ["1", "2", "3"]


@attrs.define
class MoodyHost(RestHost):
    """Answers once, and then never again."""

    answers: int = 1

    async def get_json_bytes(self, path: str) -> bytes:
        self.answers -= 1
        if self.answers < 0:
            raise ConnectionLost("no route")
        return await RestHost.get_json_bytes(self, path)


async def test_what_was_read_is_published_though_the_next_market_fails(autojump_clock: MockClock) -> None:
    channels = (ChannelSettings("spot", ("trade",)), ChannelSettings("linear", ("trade",)))
    world = World(attrs.evolve(TRADES, channels=channels))
    async with venue_running(world, MoodyHost(["BTC"])) as intake:
        assert intake.stats.catalogue_failures == 1
        assert [event.origin.instrument for event in world.published if isinstance(event, Instrument)] == ["BTC"]
