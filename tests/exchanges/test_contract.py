"""What every venue promises to the rest of the pipeline; a new venue is held to it by its line in the registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exchanges import VENUES
from pipeline.exchanges.venue import ChannelSpec, Subscription, Venue, VenueSession
from pipeline.model.decimals import DecimalText
from pipeline.model.errors import BadMessage, SessionError
from pipeline.model.events import Instrument, Micros, Origin

pytestmark = pytest.mark.parametrize("venue", VENUES.values(), ids=list(VENUES))


def offered(venue: Venue) -> Iterator[ChannelSpec]:
    """Every channel in every market that the venue does not refuse."""
    for market in venue.markets:
        for channel in venue.channels:
            for price_type in ("trade", "mark", "index") if channel == "candle" else ("trade",):
                spec = ChannelSpec(
                    market, channel, interval="1m" if channel == "candle" else None, price_type=price_type
                )
                if not venue.problems(spec):
                    yield spec


def listed(venue: Venue, market: str, count: int) -> list[Instrument]:
    return [
        Instrument(
            Origin(venue.name, market, f"B{n}-USDT-SWAP", f"B{n}-USDT-PERP", None, "catalogue"),
            None,
            Micros(0),
            None,
            "perpetual",
            "live",
            True,
            f"B{n}",
            "USDT",
            "USDT",
            "contract",
            DecimalText("1"),
            "USDT",
            underlying=f"B{n}-USDT",
        )
        for n in range(count)
    ]


def subscriptions(venue: Venue, count: int = 3) -> list[Subscription]:
    found = {
        subscription.topic: subscription
        for spec in offered(venue)
        for subscription in venue.subscriptions(spec, listed(venue, spec.market, count))
    }
    return list(found.values())


def test_names_and_environments(venue: Venue) -> None:
    assert venue is VENUES[venue.name]
    assert len(venue.environments) >= 2
    for hosts in venue.environments.values():
        assert hosts.websocket.startswith("wss://")
        assert hosts.rest.startswith("https://")
        assert not hosts.websocket.endswith("/")
        assert not hosts.rest.endswith("/")


@pytest.mark.parametrize(
    "channel",
    ["trade", "book", "bbo", "ticker", "candle", "mark_price", "index_price", "funding_rate", "open_interest"],
)
def test_the_main_channels_are_offered(venue: Venue, channel: str) -> None:
    assert channel in {spec.channel for spec in offered(venue)}


def test_every_offered_channel_leads_to_topics(venue: Venue) -> None:
    for spec in offered(venue):
        found = venue.subscriptions(spec, listed(venue, spec.market, 3))
        assert found, spec
        assert len({s.topic for s in found}) == len(found), spec
        for subscription in found:
            assert subscription.market == spec.market, spec
            assert subscription.max_silence > 0, spec
            assert venue.path(subscription.endpoint, venue.session_times).startswith("/"), spec
            assert venue.limits(subscription.endpoint).topics_per_connection > 0, spec
            assert subscription.endpoint in venue.streams, spec


def test_the_configured_silence_is_taken_over(venue: Venue) -> None:
    for spec in offered(venue):
        own = ChannelSpec(
            spec.market, spec.channel, interval=spec.interval, price_type=spec.price_type, max_silence=7.5
        )
        for subscription in venue.subscriptions(own, listed(venue, spec.market, 1)):
            assert subscription.max_silence == 7.5


@given(
    spec=st.builds(
        ChannelSpec,
        market=st.sampled_from(["spot", "linear", "swap", "moon", ""]),
        channel=st.sampled_from(["trade", "book", "candle", "ticker", "tickerz", ""]),
        depth=st.sampled_from([None, 1, 7, 50, 400, -1, "rpi", "deep"]),
        interval=st.sampled_from([None, "1m", "7m", "1d", ""]),
        price_type=st.sampled_from(["trade", "mark", "moon"]),
        variant=st.sampled_from([None, "trades-all", "x"]),
    )
)
def test_a_spec_is_refused_with_its_fields_named_or_works(venue: Venue, spec: ChannelSpec) -> None:
    problems = venue.problems(spec)
    names = {"market", "channel", "depth", "interval", "price_type", "variant", "instruments", "max_silence"}
    assert {field for field, _ in problems} <= names
    assert all(why for _, why in problems)
    if not problems:
        venue.subscriptions(spec, listed(venue, spec.market, 2))


def test_requests_stay_within_the_venues_limits(venue: Venue) -> None:
    by_endpoint: dict[str, list[Subscription]] = {}
    for subscription in subscriptions(venue, 120):
        by_endpoint.setdefault(subscription.endpoint, []).append(subscription)
    for endpoint, wanted in by_endpoint.items():
        limits = venue.limits(endpoint)
        session = venue.session(endpoint, wanted[: limits.topics_per_connection], venue.session_times)
        session.start(0.0)
        requests = session.data_to_send()
        assert requests
        for request in requests:
            assert len(request.encode()) <= limits.bytes_per_request + 1_000
            assert len(json.loads(request)["args"]) <= limits.topics_per_request


def test_a_session_without_answers_ends_in_time(venue: Venue) -> None:
    [first, *_] = subscriptions(venue)
    session = venue.session(first.endpoint, [first], venue.session_times)
    session.start(0.0)
    assert not session.ready
    with pytest.raises(SessionError) as raised:
        run_unanswered(session)
    assert raised.value.args[1] <= venue.session_times.acknowledge_within + venue.session_times.ping_every


def run_unanswered(session: VenueSession) -> None:
    """Let time pass without answers; the error gets the time as a second argument."""
    now = 0.0
    try:
        for _ in range(1_000):
            now = session.next_deadline()
            assert now < inf
            session.on_deadline(now)
            session.data_to_send()
    except SessionError as error:
        error.args = (*error.args, now)
        raise


junk = st.one_of(
    st.binary(max_size=80),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["topic", "op", "event", "arg", "data", "success", "ret_msg", "type", "code", "channel"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()),
)


@given(messages=st.lists(junk, max_size=5))
def test_junk_breaks_neither_session_nor_normalizer(venue: Venue, messages: list[bytes]) -> None:
    [first, *_] = subscriptions(venue)
    session = venue.session(first.endpoint, [first], venue.session_times)
    session.start(0.0)
    normalizer = venue.normalizer(first.endpoint, "c#1", {})
    for message in messages:
        if session.receive(message, 1.0):
            with suppress(BadMessage):
                normalizer.normalize(message, 1)
    session.outcomes()
    session.notices()


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b'{"retCode":0,"result":7}', b'{"code":"0","data":7}'])
def test_an_odd_listing_is_a_clear_error(venue: Venue, body: bytes) -> None:
    for market in venue.markets:
        for page in venue.instrument_pages(market):
            with pytest.raises((BadMessage, SessionError)):
                venue.parse_instruments(market, page, body, 0)
