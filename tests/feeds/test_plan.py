"""Patterns to topics to connections."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exchanges.venue import ChannelSpec, Subscription
from pipeline.feeds.plan import ConnectionPlan, VenuePlan, make_plan
from pipeline.feeds.settings import BookSettings, ChannelSettings, UrlSettings, VenueSettings
from pipeline.model.events import Instrument
from tests.feeds.toy import ToyVenue, catalogue, instrument

VENUE = ToyVenue()


def settings(*channels: ChannelSettings, **more: object) -> VenueSettings:
    return VenueSettings(channels=channels, **more)  # type: ignore[arg-type]


def layout(plan: VenuePlan) -> dict[str, list[str]]:
    return {c.id: [s.topic for s in c.subscriptions] for c in plan.connections}


TRADES = ChannelSettings("spot", ("trade",))
BOOKS = ChannelSettings("spot", ("book",), ("B*",))


def test_one_group_of_connections_per_channel() -> None:
    plan = make_plan("toy", VENUE, settings(TRADES, BOOKS), catalogue("ADA", "BTC"))
    assert layout(plan) == {
        "toy.spot.trade.0": ["trade.ADA", "trade.BTC"],
        "toy.spot.book.0": ["book.BTC"],
    }
    assert {c.url for c in plan.connections} == {"ws://toy/spot"}


def test_channels_of_one_name_share_connections() -> None:
    both = ChannelSettings("spot", ("trade", "book"), connections="all")
    assert layout(make_plan("toy", VENUE, settings(both), catalogue("BTC"))) == {
        "toy.all.spot.0": ["trade.BTC", "book.BTC"]
    }


def test_limits_split_connections() -> None:
    names = [f"C{n}" for n in range(5)]
    plan = make_plan("toy", VENUE, settings(TRADES, ChannelSettings("spot", ("book",))), catalogue(*names))
    assert [len(c.wants) for c in plan.connections] == [4, 1, 2, 2, 1]
    capped = make_plan("toy", VENUE, settings(TRADES, max_topics_per_connection=2), catalogue(*names))
    assert [len(c.wants) for c in capped.connections] == [2, 2, 1]


def test_a_topic_wanted_twice_is_subscribed_once_with_the_first_entrys_book() -> None:
    first = ChannelSettings("spot", ("book",), ("BTC",), book=BookSettings(derive_bbo=True))
    plan = make_plan("toy", VENUE, settings(first, BOOKS), catalogue("BTC"))
    [connection] = plan.connections
    [want] = connection.wants
    assert want.book.derive_bbo


def test_a_topic_of_two_endpoints_is_two_topics() -> None:
    linear = ChannelSettings("linear", ("trade",))
    entries = {**catalogue("BTC"), ("linear", "BTC"): instrument("BTC")}
    assert layout(make_plan("toy", VENUE, settings(TRADES, linear), entries)) == {
        "toy.spot.trade.0": ["trade.BTC"],
        "toy.linear.trade.0": ["trade.BTC"],
    }


def test_patterns_without_a_match_are_named_and_not_tradable_is_no_match() -> None:
    entries = {**catalogue("BTC"), ("spot", "OLD"): instrument("OLD", tradable=False)}
    entry = ChannelSettings("spot", ("trade",), ("BTC", "OLD", "X*"))
    plan = make_plan("toy", VENUE, settings(entry), entries)
    assert plan.unmatched == ("spot trade OLD", "spot trade X*")
    assert layout(plan) == {"toy.spot.trade.0": ["trade.BTC"]}


def test_urls_override_the_environment() -> None:
    own = UrlSettings(websocket="ws://127.0.0.1:1/")
    [connection] = make_plan("toy", VENUE, settings(TRADES, urls=own), catalogue("BTC")).connections
    assert connection.url == "ws://127.0.0.1:1/spot"


names = st.sets(st.sampled_from([f"I{n}" for n in range(12)]))


@given(st.lists(names, min_size=1, max_size=5))
def test_following_the_catalogue_never_moves_what_stays(listings: list[set[str]]) -> None:
    before: tuple[ConnectionPlan, ...] = ()
    for listing in listings:
        plan = make_plan("toy", VENUE, settings(TRADES), catalogue(*listing), before)
        places = {s.topic: c.id for c in plan.connections for s in c.subscriptions}
        assert set(places) == {f"trade.{name}" for name in listing}
        assert sum(len(c.wants) for c in plan.connections) == len(places)
        assert all(0 < len(c.wants) <= VENUE.topics_per_connection for c in plan.connections)
        assert len({c.id for c in plan.connections}) == len(plan.connections)
        for connection in before:
            for subscription in connection.subscriptions:
                assert places.get(subscription.topic, connection.id) == connection.id
        before = plan.connections


class RivalVenue(ToyVenue):
    """A venue that does not send trades and books of one instrument over one connection."""

    def subscriptions(self, spec: ChannelSpec, instruments: Sequence[Instrument]) -> list[Subscription]:
        other = {"trade": "book", "book": "trade"}[spec.channel]
        return [
            attrs.evolve(found, rivals=frozenset({found.topic.replace(spec.channel, other)}))
            for found in super().subscriptions(spec, instruments)
        ]


def test_rivals_are_kept_on_different_connections() -> None:
    both = settings(ChannelSettings("spot", ("trade", "book"), connections="all"))
    plan = make_plan("toy", RivalVenue(), both, catalogue("ADA", "BTC"))
    assert layout(plan) == {
        "toy.all.spot.0": ["trade.ADA", "trade.BTC"],
        "toy.all.spot.1": ["book.ADA", "book.BTC"],
    }
    only_ada = make_plan("toy", RivalVenue(), settings(both.channels[0]), catalogue("ADA"), plan.connections)
    assert layout(only_ada) == {"toy.all.spot.0": ["trade.ADA"], "toy.all.spot.1": ["book.ADA"]}
