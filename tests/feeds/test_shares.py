"""The split of the subscriptions over processes: complete, even, the same everywhere, and slow to change."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count as numbers

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from pipeline.feeds.chain import Publish
from pipeline.feeds.plan import VenuePlan, make_plan, own_accounts, publishes_instruments
from pipeline.feeds.settings import AccountSettings, ChannelSettings, VenueSettings
from pipeline.feeds.shares import Share, capacity, load_of, owner, part_of, split
from pipeline.model.events import Event, Instrument
from pipeline.model.rate import Rate
from pipeline.model.secret import Secret
from tests.feeds.test_link import BenchIntake, RestHost, World
from tests.feeds.toy import ToyVenue, catalogue

VENUE = ToyVenue()
CHANNELS = ("trade", "book", "ticker", "candle")
MARKET = {f"{channel}.C{n}": load_of(channel) for n in range(300) for channel in CHANNELS}

units = st.dictionaries(st.text(max_size=8), st.integers(1, 9), max_size=60)


def loads(places: Mapping[str, int], weights: Mapping[str, int], count: int) -> list[int]:
    found = [0] * count
    for name, share in places.items():
        found[share] += weights[name]
    return found


@given(units, st.integers(1, 12))
def test_every_unit_is_in_one_share_and_no_share_has_too_many(weights: dict[str, int], count: int) -> None:
    places = split(weights, count)
    assert places.keys() == weights.keys()
    assert set(places.values()) <= set(range(count))
    assert all(load <= capacity(weights, count) for load in loads(places, weights, count))
    assert capacity(weights, count) * 20 * count <= sum(weights.values()) * 21 + 20 * count * (
        1 + max(weights.values(), default=0)
    )


@given(st.permutations(sorted(MARKET)[:40]), st.integers(2, 5))
def test_the_order_in_which_units_are_told_does_not_count(names: list[str], count: int) -> None:
    assert split({name: MARKET[name] for name in names}, count) == split(
        {name: MARKET[name] for name in sorted(names)}, count
    )


def test_the_split_is_the_same_in_every_process_and_for_ever() -> None:
    # Instances of two versions run side by side while one replaces the other, so this may not change by the way.
    assert [owner(name, 8) for name in ("a", "b", "bybit/linear", "okx/swap")] == [7, 3, 4, 5]
    assert [owner(name, 20) for name in ("a", "b", "bybit/linear", "okx/swap")] == [7, 19, 18, 12]
    some = {name: MARKET[name] for name in sorted(MARKET)[:12]}
    assert list(split(some, 3).values()) == [
        1,
        2,
        2,
        2,
        2,
        0,
        0,
        1,
        0,
        2,
        1,
        1,
    ]


@pytest.mark.parametrize("count", range(1, 9))
def test_shares_are_even_and_a_further_one_moves_little_more_than_it_takes(count: int) -> None:
    before, after = split(MARKET, count), split(MARKET, count + 1)
    found, mean = loads(before, MARKET, count), sum(MARKET.values()) / count
    assert max(found) <= 1.05 * mean + 7
    assert min(found) >= 0.8 * mean
    moved = sum(before[name] != after[name] for name in MARKET) / len(MARKET)
    assert moved <= 1 / (count + 1) + 0.06


@pytest.mark.parametrize("count", [2, 3, 8])
def test_a_listing_moves_hardly_anything(count: int) -> None:
    before = split(MARKET, count)
    for n in range(10):
        after = split({**MARKET, f"book.NEW{n}": load_of("book")}, count)
        assert sum(before[name] != after[name] for name in MARKET) <= 12


@given(st.integers(1, 1000), st.floats(0.1, 600), st.integers(1, 16))
def test_parts_of_a_rate_make_no_more_than_the_rate(count: int, seconds: float, parts: int) -> None:
    part = part_of(Rate(count, seconds), parts)
    assert part.count / part.seconds * parts == pytest.approx(count / seconds)
    assert part.count * parts <= max(count, parts)


# Plans.

SETTINGS = VenueSettings(channels=(ChannelSettings("spot", ("trade", "book", "ticker")),))
KEYS = AccountSettings(Secret(env="K"), Secret(env="S"))
NAMES = [f"C{n}" for n in range(40)]


def places(plans: list[VenuePlan]) -> list[set[str]]:
    return [{s.topic for c in plan.connections for s in c.subscriptions} for plan in plans]


def test_plans_of_the_shares_make_up_the_plan_of_one() -> None:
    entries = catalogue(*NAMES)
    [whole] = places([make_plan("toy", VENUE, SETTINGS, entries)])
    plans = [make_plan("toy", VENUE, SETTINGS, entries, share=Share(n, 3)) for n in range(3)]
    parts = places(plans)
    assert set.union(*parts) == whole
    assert sum(map(len, parts)) == len(whole)
    assert all(parts)
    ids = [connection.id for plan in plans for connection in plan.connections]
    assert len(ids) == len(set(ids))
    assert "toy.spot.trade.2-0" in ids
    assert sum(plan.load for plan in plans) == 40 * 11
    assert all(not plan.leaving for plan in plans)


def test_each_account_and_each_listing_has_one_share() -> None:
    names = [f"account{n}" for n in range(7)]
    settings = attrs.evolve(SETTINGS, accounts=dict.fromkeys(names, KEYS))
    shares = [own_accounts("toy", settings, Share(n, 3)) for n in range(3)]
    assert sorted(account for own in shares for account in own) == names
    assert max(map(len, shares)) <= 3
    for market in ("spot", "linear", "inverse", "option"):
        assert sum(publishes_instruments("toy", market, Share(n, 3)) for n in range(3)) == 1


def moving() -> tuple[list[str], str, Share]:
    """Listings, and one more that moves a topic out of a share."""
    for size in numbers(10):
        names = [f"C{n}" for n in range(size)]
        for share in (Share(0, 2), Share(1, 2)):
            before = make_plan("toy", VENUE, TRADES, catalogue(*names), share=share)
            after = make_plan("toy", VENUE, TRADES, catalogue(*names, f"C{size}"), share=share)
            if not places([before])[0] <= places([after])[0]:
                return names, f"C{size}", share
    raise AssertionError


TRADES = VenueSettings(channels=(ChannelSettings("spot", ("trade",)),), refresh_instruments=60.0)


def test_what_is_to_be_kept_is_kept_and_told() -> None:
    names, new, share = moving()
    before = make_plan("toy", VENUE, TRADES, catalogue(*names), share=share)
    present = {want.key for connection in before.connections for want in connection.wants}
    plan = make_plan("toy", VENUE, TRADES, catalogue(*names, new), before.connections, share=share, keep=present)
    assert places([before])[0] <= places([plan])[0]
    assert plan.leaving
    assert plan.leaving < present


async def test_a_topic_that_moves_is_kept_until_the_other_share_must_have_it(autojump_clock: MockClock) -> None:
    names, new, share = moving()
    other = Share(1 - share.index, 2)
    hosts = [RestHost(list(names)), RestHost(list(names))]
    seen: list[Instrument] = []
    async with trio.open_nursery() as nursery:
        intakes = []
        for each, host in zip((share, other), hosts, strict=True):
            world = World(TRADES)
            around = attrs.evolve(world.around, publish=_only_instruments(seen))
            intake = BenchIntake("toy", world.venue, world.settings, around, share=each)
            intake.host = host
            intakes.append(intake)
        nursery.start_soon(intakes[0].run)
        await trio.sleep(30)
        nursery.start_soon(intakes[1].run)
        await trio.sleep(15)
        [first, second] = [_topics(intake) for intake in intakes]
        assert first | second == {f"trade.{name}" for name in names}
        assert not first & second
        assert sorted(str(event.origin.instrument) for event in seen) == sorted(names)
        for host in hosts:
            host.names = [*names, new]
        await trio.sleep(20)  # the first has read it
        assert first <= _topics(intakes[0])
        await trio.sleep(30)  # the second too
        both = _topics(intakes[0]) & _topics(intakes[1])
        assert both
        assert both < first
        await trio.sleep(100)  # the first has read it for the third time
        assert _topics(intakes[0]) & _topics(intakes[1]) == both
        await trio.sleep(60)
        assert not _topics(intakes[0]) & _topics(intakes[1])
        assert _topics(intakes[0]) | _topics(intakes[1]) == {f"trade.{name}" for name in (*names, new)}
        nursery.cancel_scope.cancel()


def _only_instruments(seen: list[Instrument]) -> Publish:
    def publish(event: Event) -> bool:
        if isinstance(event, Instrument):
            seen.append(event)
        return True

    return publish


def _topics(intake: BenchIntake) -> set[str]:
    return {s.topic for link in intake.links.values() for s in link.plan.subscriptions}


async def test_processes_of_one_machine_keep_to_the_rate_together(autojump_clock: MockClock) -> None:
    world = World(attrs.evolve(TRADES, max_topics_per_connection=1))
    intake = BenchIntake("toy", ToyVenue(connects=Rate(2, 10.0)), world.settings, world.around, siblings=2)
    intake.host = RestHost(["A", "B", "C"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(intake.run)
        for seconds, dialed in ((1, 1), (8.9, 1), (1, 2), (9, 2), (1, 3)):
            await trio.sleep(seconds)
            assert len(world.wires) == dialed
        nursery.cancel_scope.cancel()
