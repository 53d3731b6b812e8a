"""What the simulated exchanges send is all known: no unknown topic, no unknown field."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from itertools import product

import attrs
import pytest
import trio.testing

from pipeline.exchanges import VENUES
from pipeline.exchanges.accounts import AccountSpec
from pipeline.exchanges.venue import Catalogue, ChannelSpec, Normalizer, Subscription, Venue
from pipeline.model.errors import BadMessage
from pipeline.model.events import Instrument
from pipeline.sim.accounts import SimulatedAccount
from pipeline.sim.http import Request
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.sim import bybit_client, okx_client
from tests.sim.clients import Client, connect_in_memory

SLOW = MarketSettings(rate=0.5, levels=60)
DEPTHS = (None, 5, 50, 200, "rpi", "full")
VARIANTS = (None, "trades-all", "public-block-trades")
LISTENING = 95.0
"""Simulated seconds: candles and funding rates come once a minute."""
ACCOUNTS = {
    "bybit": attrs.evolve(bybit_client.ACCOUNT, name="main"),
    "okx": attrs.evolve(okx_client.ACCOUNT, name="main", vip=True),
}
LOG_IN = {"bybit": bybit_client.log_in, "okx": okx_client.log_in}
INSTRUMENT = {"bybit": ("linear", "BTCUSDT"), "okx": ("SWAP", "BTC-USDT-SWAP")}
PUBLIC = {
    "bybit": ("spot", "linear", "inverse", "option", "spread", "status", "rfq", "fp"),
    "okx": ("public", "business"),
}
ON_EVENTS = {
    *("adl-warning", "estimated-price", "event-contract-markets", "funding-rate", "instruments", "liquidation-orders"),
    *("block-tickers", "public-block-trades", "public-struc-block-trades"),
    *("system.status", "rfq.open.public.trades"),
    *(f"earn.{product}.offers" for product in ("discountbuy", "doublewin", "dualassets", "smartleverage")),
}
"""Public channels that bring nothing unless something happens; of funding rates, those of dated futures."""
OF_ACCOUNTS = {
    "bybit": {"order", "execution", "execution.fast", "position", "wallet"},
    "okx": {"orders", "fills", "positions", "account", "balance_and_position", "account-greeks"},
}
"""Private channels that tell of what is done here."""


def listed(venue: Venue, simulated: SimulatedVenue, market: str) -> list[Instrument]:
    """A market's instruments over REST."""
    found: list[Instrument] = []
    pages = deque(venue.instrument_pages(market))
    while pages:
        page = pages.popleft()
        answer = simulated.dialect.rest(Request("GET", page.path, {}))
        assert answer is not None
        instruments, following = venue.parse_instruments(market, page, answer.body, 0)
        found += instruments
        if following is not None:
            pages.append(following)
    return found


def specs(venue: Venue) -> Iterator[ChannelSpec]:
    """Every public channel in every market, books of several depths."""
    for market, channel in product(venue.markets, venue.channels):
        for depth, variant, price_type in product(DEPTHS, VARIANTS, ("trade", "mark", "index")):
            interval = "1m" if channel == "candle" else None
            spec = ChannelSpec(market, channel, depth=depth, variant=variant, interval=interval, price_type=price_type)
            if not venue.problems(spec):
                yield spec


def public_topics(venue: Venue, catalogue: Catalogue) -> dict[str, list[Subscription]]:
    """By endpoint, for some instruments of each market."""
    topics: dict[str, dict[str, Subscription]] = {}
    for spec in specs(venue):
        for market in venue.catalogue_markets(spec) or ("",):
            some = [entry for entry in catalogue.values() if entry.origin.market == market][:2]
            for each in venue.subscriptions(spec, some):
                topics.setdefault(each.endpoint, {})[each.topic] = each
    return {endpoint: list(found.values()) for endpoint, found in topics.items()}


def account_topics(venue: Venue) -> dict[str, list[Subscription]]:
    """By endpoint."""
    topics: dict[str, list[Subscription]] = {}
    accounts = venue.accounts
    assert accounts is not None
    for channel in accounts.channels:
        spec = AccountSpec(channel, params={"algoId": "1"} if channel == "grid-positions" else {})
        if not accounts.problems(spec):
            for each in accounts.subscriptions(spec):
                topics.setdefault(each.endpoint, []).append(each)
    return topics


async def subscribe(client: Client, venue: Venue, topics: list[Subscription]) -> None:
    """In requests of ten."""
    for first in range(0, len(topics), 10):
        some = [each.topic for each in topics[first : first + 10]]
        args = some if venue.name == "bybit" else [json.loads(topic) for topic in some]
        await client.say({"op": "subscribe", "args": args})


async def listen(client: Client, normalizer: Normalizer, seconds: float) -> None:
    """Normalize whatever comes."""
    with trio.move_on_after(seconds):
        while True:
            normalizer.normalize((await client.text(within=seconds)).encode(), 1)


def act(account: SimulatedAccount, market: str, symbol: str) -> None:
    """Have orders, fills, a position and other bookings."""
    order = account.place(market, symbol, "buy", "65000", "2")
    account.amend(order, price="64000")
    account.fill(order, "1")
    account.cancel(order)
    account.fill(account.place(market, symbol, "sell", None, "2", order_type="market"), maker=False)
    account.reject(account.place(market, symbol, "buy", "1", "1"))
    account.deposit("USDT", "7")
    account.fund(market, symbol, "0.0001")


def is_known(venue: Venue, endpoint: str, topic: str) -> bool:
    """Whether a topic is read somehow, or passed on."""
    normalizer = venue.normalizer(endpoint, "c#1", {})
    start = f'{{"arg":{topic},' if topic.startswith("{") else f'{{"topic":"{topic}",'
    try:
        normalizer.normalize(f'{start}"type":"snapshot","ts":1,"creationTime":1,"data":[]}}'.encode(), 1)
    except BadMessage as error:
        return "unknown" not in str(error)
    return True


def channel_of(topic: str) -> str:
    """Of a private topic."""
    return str(json.loads(topic)["channel"]) if topic.startswith("{") else topic


@pytest.mark.parametrize(("name", "endpoint"), [(name, each) for name, paths in PUBLIC.items() for each in paths])
async def test_public_streams(name: str, endpoint: str, autojump_clock: trio.testing.MockClock) -> None:
    venue = VENUES[name]
    async with open_venue(name, listen=False, market=SLOW) as simulated:
        catalogue = {
            (market, str(entry.origin.instrument)): entry
            for market in venue.markets
            for entry in listed(venue, simulated, market)
        }
        topics = public_topics(venue, catalogue)
        assert topics.keys() == set(PUBLIC[name])
        normalizer = venue.normalizer(endpoint, "c#1", catalogue)
        async with connect_in_memory(simulated, venue.path(endpoint, venue.session_times)) as client:
            await subscribe(client, venue, topics[endpoint])
            await listen(client, normalizer, LISTENING)
    silent = [each for each in topics[endpoint] if each.topic not in normalizer.streams]
    assert {each.channel for each in silent} <= ON_EVENTS
    assert all(is_known(venue, endpoint, each.topic) for each in silent)
    assert normalizer.unknown_fields == []


@pytest.mark.parametrize("name", VENUES)
async def test_streams_of_an_account(name: str, autojump_clock: trio.testing.MockClock) -> None:
    venue = VENUES[name]
    async with open_venue(name, listen=False, market=SLOW, accounts=[ACCOUNTS[name]]) as simulated:
        heard: list[str] = []
        for endpoint, topics in account_topics(venue).items():
            normalizer = venue.normalizer(endpoint, "c#1", {}, account="main")
            async with connect_in_memory(simulated, venue.path(endpoint, venue.session_times)) as client:
                await LOG_IN[name](simulated, client, ACCOUNTS[name])
                await subscribe(client, venue, topics)
                await listen(client, normalizer, 1.0)
                act(simulated.accounts["main"], *INSTRUMENT[name])
                await listen(client, normalizer, 10.0)
            heard += [channel_of(topic) for topic in normalizer.streams]
            assert all(is_known(venue, endpoint, each.topic) for each in topics)
            assert normalizer.unknown_fields == []
    assert set(heard) == OF_ACCOUNTS[name]
