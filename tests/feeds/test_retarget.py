"""Settings that change while a venue runs, on the toy venue and in virtual time."""

from __future__ import annotations

import json

import attrs
import trio
from msgspec.structs import asdict
from trio.testing import MockClock

from pipeline.feeds.plan import make_plan
from pipeline.feeds.settings import BookSettings, ChannelSettings, VenueSettings
from pipeline.model.errors import ConnectionLost
from pipeline.model.events import Bbo, BookUpdate, Event, FeedStatus, Micros
from pipeline.tape.entries import Entry
from pipeline.tape.player import Player
from pipeline.tape.recorder import Recorder
from tests.feeds.test_link import RestHost, Wire, World, running, venue_running
from tests.feeds.toy import ToyVenue, book, catalogue, trade

TICK = 0.5
"""Changes are sent at the next tick of a feed."""


def entry(channel: str, *instruments: str, **more: object) -> ChannelSettings:
    return attrs.evolve(ChannelSettings("spot", (channel,), instruments), **more)  # type: ignore[arg-type]


def asked(wire: Wire) -> list[str]:
    return [text for text in wire.received if text != "ping"]


def told(world: World) -> list[tuple[str, str | None]]:
    return [(e.status, e.origin.instrument) for e in world.published if isinstance(e, FeedStatus)]


async def test_what_stays_is_not_touched(autojump_clock: MockClock) -> None:
    trades = entry("trade", "BTC", "ETH")
    world, host = World(VenueSettings(channels=(trades, entry("ticker", "BTC")))), RestHost(["BTC", "ETH", "SOL"])
    async with venue_running(world, host) as intake:
        first, second = sorted(world.wires, key=lambda wire: "ticker" in asked(wire)[0])
        first.push(trade("1"))
        await trio.sleep(TICK)
        intake.retarget(attrs.evolve(world.settings, channels=(entry("trade", "BTC", "SOL"), entry("book", "BTC"))))
        await trio.sleep(TICK)
        assert asked(first) == ["subscribe trade.BTC trade.ETH", "unsubscribe trade.ETH", "subscribe trade.SOL"]
        assert second.closed, "nothing of it is wanted any more"
        assert asked(world.wires[2]) == ["subscribe book.BTC"]
        first.push(trade("2"))
        await trio.sleep(TICK)
        assert list(intake.links) == ["toy.spot.trade.0", "toy.spot.book.0"]
        assert intake.links["toy.spot.trade.0"].stats.generation == 1
    assert world.trades() == ["1", "2"]
    assert {("unsubscribed", "ETH"), ("subscribed", "SOL"), ("lost", None)} <= set(told(world))


async def test_a_change_waits_for_no_reading_of_the_catalogue(autojump_clock: MockClock) -> None:
    world, host = World(VenueSettings(channels=(entry("trade", "BTC"),))), RestHost(["BTC", "ETH"])
    async with venue_running(world, host) as intake:
        host.fail = ConnectionLost("no answer")
        elsewhere = attrs.evolve(entry("trade", "ETH"), market="linear")
        intake.retarget(attrs.evolve(world.settings, channels=(entry("trade", "ETH"), elsewhere)))
        await trio.sleep(TICK)
        assert asked(world.wires[0]) == ["subscribe trade.BTC", "unsubscribe trade.BTC", "subscribe trade.ETH"]
        host.fail = None
        failures = intake.stats.catalogue_failures
        assert failures
        await trio.sleep(60)
        assert intake.stats.catalogue_failures == failures
        assert intake.stats.catalogue_reads == 2, "the market that was missing is read soon, not after the usual pause"


async def test_a_shorter_refresh_counts_at_once(autojump_clock: MockClock) -> None:
    world, host = World(VenueSettings(channels=(entry("trade"),), refresh_instruments=3600.0)), RestHost(["BTC"])
    async with venue_running(world, host) as intake:
        intake.retarget(attrs.evolve(world.settings, refresh_instruments=10.0))
        await trio.sleep(11)
        assert intake.stats.catalogue_reads == 2


async def test_a_channel_that_changes_its_connections_moves(autojump_clock: MockClock) -> None:
    world, host = World(VenueSettings(channels=(entry("trade", "BTC"), entry("ticker", "BTC")))), RestHost(["BTC"])
    async with venue_running(world, host) as intake:
        shared = [entry(channel, "BTC", connections="all") for channel in ("trade", "ticker")]
        intake.retarget(attrs.evolve(world.settings, channels=tuple(shared)))
        await trio.sleep(TICK)
        assert list(intake.links) == ["toy.all.spot.0"]
        assert asked(world.wires[2]) == ["subscribe trade.BTC ticker.BTC"]
        assert world.wires[0].closed
        assert world.wires[1].closed


async def test_a_longer_silence_is_allowed_at_once(autojump_clock: MockClock) -> None:
    world, host = World(VenueSettings(channels=(entry("trade", "BTC", max_silence=5.0),))), RestHost(["BTC"])
    async with venue_running(world, host) as intake:
        await trio.sleep(1)
        intake.retarget(attrs.evolve(world.settings, channels=(entry("trade", "BTC", max_silence=50.0),)))
        await trio.sleep(40)
        assert "stale" not in world.statuses()
        await trio.sleep(15)
        assert "stale" in world.statuses()


async def test_books_become_what_is_wanted_of_them_now(autojump_clock: MockClock) -> None:
    plain = BookSettings(snapshot_interval=None)
    world, host = World(VenueSettings(channels=(entry("book", "BTC", book=plain),))), RestHost(["BTC"])
    async with venue_running(world, host) as intake:
        wire = world.wires[0]
        wire.push(book(1), book(2, 1))
        await trio.sleep(TICK)
        periodic = BookSettings(snapshot_interval=5.0)
        intake.retarget(attrs.evolve(world.settings, channels=(entry("book", "BTC", book=periodic),)))
        await trio.sleep(TICK)
        # Its levels were not kept: it takes a new snapshot, and says so.
        assert asked(wire) == ["subscribe book.BTC", "unsubscribe book.BTC", "subscribe book.BTC"]
        wire.push(book(3, 2), book(7), book(8, 7))
        await trio.sleep(11)
        assert told(world)[-2:] == [("gap", "BTC"), ("resynced", "BTC")]
        updates = [e for e in world.published if isinstance(e, BookUpdate)]
        assert [(e.sequence, e.is_periodic) for e in updates] == [
            (1, False), (2, False), (7, False), (8, False), (8, True), (8, True),
        ]  # fmt: skip
        less = BookSettings(snapshot_interval=60.0)
        intake.retarget(attrs.evolve(world.settings, channels=(entry("book", "BTC", book=less),)))
        await trio.sleep(30)
        assert len(asked(wire)) == 3, "a changed interval takes no new snapshot"
        assert len([e for e in world.published if isinstance(e, BookUpdate)]) == len(updates)
        derived = attrs.evolve(less, derive_bbo=True)
        intake.retarget(attrs.evolve(world.settings, channels=(entry("book", "BTC", book=derived),)))
        await trio.sleep(TICK)
        wire.push(book(20), book(21, 20, price="11"))
        await trio.sleep(TICK)
        bests = [e.bid_price for e in world.published if isinstance(e, Bbo)]
        assert (len(asked(wire)), bests) == (5, ["10", "11"]), "levels were kept, but not in order"


async def test_nothing_is_made_of_a_book_that_is_no_longer_subscribed(autojump_clock: MockClock) -> None:
    often = BookSettings(snapshot_interval=5.0)
    world, host = World(VenueSettings(channels=(entry("book", "BTC", "ETH", book=often),))), RestHost(["BTC", "ETH"])
    async with venue_running(world, host) as intake:
        wire = world.wires[0]
        wire.push(book(1), book(1, name="ETH"))
        await trio.sleep(6)
        both = world.settings
        intake.retarget(attrs.evolve(both, channels=(entry("book", "ETH", book=often),)))
        await trio.sleep(TICK)
        world.published.clear()
        await trio.sleep(20)
        assert {e.origin.instrument for e in world.published} == {"ETH"}
        intake.retarget(both)
        await trio.sleep(10)
        assert told(world) == [("subscribed", "BTC")], "and should it come back, it begins with a snapshot"
        assert {e.origin.instrument for e in world.published if isinstance(e, BookUpdate)} == {"ETH"}
        wire.push(book(9))
        await trio.sleep(TICK)
        assert intake.links["toy.spot.book.0"].stats.gaps == 0
        updates = [e for e in world.published if isinstance(e, BookUpdate) and e.origin.instrument == "BTC"]
        assert [e.sequence for e in updates] == [9]


async def test_a_forced_resync_is_a_gap_that_is_told(autojump_clock: MockClock) -> None:
    world, host = World(VenueSettings(channels=(entry("book", "BTC", "ETH"),))), RestHost(["BTC", "ETH"])
    async with venue_running(world, host) as intake:
        wire = world.wires[0]

        def renew(instrument: str) -> tuple[int, int]:
            return intake.renew_books(lambda s: s.instrument == instrument, "somebody asked")

        assert renew("SOL") == (0, 0)
        assert renew("BTC") == (0, 1), "its first snapshot is still on its way"
        wire.push(book(1), book(1, name="ETH"))
        await trio.sleep(TICK)
        assert renew("BTC") == (1, 0)
        assert renew("BTC") == (0, 1)
        await trio.sleep(TICK)
        assert asked(wire) == ["subscribe book.BTC book.ETH", "unsubscribe book.BTC", "subscribe book.BTC"]
        wire.push(book(2, 1, name="ETH"), book(5))
        await trio.sleep(TICK)
        assert intake.links["toy.spot.book.0"].stats.resyncs == 1
    gap = next(e for e in world.published if isinstance(e, FeedStatus) and e.status == "gap")
    assert (gap.origin.instrument, gap.reason, gap.from_sequence) == ("BTC", "somebody asked", 1)
    assert ("resynced", "BTC") in told(world)
    epochs = [e.epoch for e in world.published if isinstance(e, BookUpdate) and e.origin.instrument == "BTC"]
    assert epochs[1] > epochs[0]


@attrs.define(eq=False)
class Kept:
    entries: list[Entry] = attrs.field(factory=list)

    def take(self, entry: Entry, endpoint: str, account: str | None) -> None:
        self.entries.append(entry)


async def test_a_replay_makes_of_books_what_was_made_of_them(autojump_clock: MockClock) -> None:
    plain, periodic = BookSettings(snapshot_interval=None), BookSettings(snapshot_interval=5.0, derive_bbo=True)
    archived = VenueSettings(channels=(entry("book", "BTC", "ETH", book=plain, archive=True),))
    world = World(archived)

    def clock() -> int:
        return round(trio.current_time() * 1e6)

    recorder, kept = Recorder("toy", "1", Micros(0), clock), Kept()
    recorder.keepers.append(kept)
    recorder.begin()
    [link] = world.links("BTC", "ETH")
    link.archive, entries = recorder, catalogue("BTC", "ETH")

    def follow(*channels: ChannelSettings) -> None:
        before = [link.plan]
        [plan] = make_plan("toy", world.venue, VenueSettings(channels=channels), entries, before).connections
        link.retarget(attrs.evolve(plan, wants=tuple(attrs.evolve(want, is_archived=True) for want in plan.wants)))

    link.plan = attrs.evolve(link.plan, wants=tuple(attrs.evolve(want, is_archived=True) for want in link.plan.wants))
    async with running(link):
        [wire] = world.wires
        wire.push(book(1), book(1, name="ETH"))
        await trio.sleep(TICK)
        follow(entry("book", "BTC", book=periodic), entry("book", "ETH", book=plain))
        await trio.sleep(TICK)
        wire.push(book(3), book(4, 3, price="11"), book(2, 1, name="ETH"))
        await trio.sleep(11)
        link.renew_books(lambda s: s.instrument == "ETH", "somebody asked")
        wire.push(book(3, 2, name="ETH"), book(7, name="ETH"))
        await trio.sleep(TICK)
        follow(entry("book", "ETH", book=periodic))
        await trio.sleep(TICK)
        wire.push(book(9, name="ETH"))
        await trio.sleep(2)
        follow(entry("book", "BTC", book=periodic), entry("book", "ETH", book=periodic))
        await trio.sleep(11)
        wire.push(book(20))
        await trio.sleep(TICK)
        published = list(world.published)
    replayed: list[Event] = []

    def publish(event: Event) -> bool:
        replayed.append(event)
        return True

    player = Player(ToyVenue(), publish, _no_report)
    for each in kept.entries:
        player.take(each)
    assert _plain(replayed[: len(published)]) == _plain(published)
    assert {"gap", "resynced", "unsubscribed"} <= {e.status for e in published if isinstance(e, FeedStatus)}


def _plain(events: list[Event]) -> list[str]:
    return [json.dumps(asdict(event), default=str) for event in events]


def _no_report(text: str) -> None:
    raise AssertionError(text)
