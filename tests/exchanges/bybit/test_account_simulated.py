"""The private side against the simulated venue, which is another reading of the same manual."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest
import trio
import trio.testing

from pipeline.exchanges.accounts import AccountSpec, Credentials, Login, Steps, T
from pipeline.exchanges.bybit.private_side import BybitAccounts
from pipeline.exchanges.bybit.venue import Bybit
from pipeline.exchanges.venue import Subscription
from pipeline.model.account import Fill, Order, Position
from pipeline.model.errors import LoginFailed, Refused, Retryable
from pipeline.model.events import Event, Instrument, Micros
from pipeline.sim.http import Request
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.exchanges.bybit.samples import head, values
from tests.sim.bybit_client import ACCOUNT, NOW_MS, OTHER, SLOW
from tests.sim.clients import Client, connect_in_memory

VENUE = Bybit()
SIDE = BybitAccounts()
KEYS = Credentials(ACCOUNT.key, ACCOUNT.secret)
CHANNELS = ("order", "fill", "position", "balance")
OPTION = "BTC-26MAR27-65000-C-USDT"


def get(venue: SimulatedVenue, path: str, keys: Credentials | None = None, ahead_ms: int = 0) -> bytes:
    headers = {}
    if keys is not None:
        time = Micros((venue.floor.clock.now_ms() + ahead_ms) * 1000)
        headers = {name.lower(): text for name, text in SIDE.sign(keys, path, time).items()}
    response = venue.dialect.rest(Request("GET", path, headers))
    assert response is not None, path
    return response.body


def walk(venue: SimulatedVenue, steps: Steps[T], keys: Credentials = KEYS, ahead_ms: int = 0) -> T:
    try:
        path = next(steps)
        while True:
            path = steps.send(get(venue, path, keys, ahead_ms))
    except StopIteration as end:
        value: T = end.value
        return value


def read(venue: SimulatedVenue, make: Callable[[], Steps[list[Event]]] | None) -> list[Event]:
    assert make is not None
    return walk(venue, make())


def catalogue(venue: SimulatedVenue) -> dict[tuple[str, str], Instrument]:
    found = {}
    for market in ("spot", "linear", "inverse", "option"):
        for page in VENUE.instrument_pages(market):
            instruments, _ = VENUE.parse_instruments(market, page, get(venue, page.path), 1)
            found.update({(market, str(each.origin.instrument)): each for each in instruments})
    return found


def wanted(market: str | None = None) -> list[Subscription]:
    specs = [AccountSpec(channel, None if channel == "balance" else market) for channel in CHANNELS]
    return [each for spec in specs for each in SIDE.subscriptions(spec)]


async def stream(
    client: Client, venue: SimulatedVenue, act: Callable[[], None], market: str | None = None
) -> list[Event]:
    """What the stream brings of `act`, after a login and all subscriptions."""
    login = Login(KEYS, venue.floor.clock.now_ms() / 1000 - trio.current_time())
    session = VENUE.session("private", wanted(market), VENUE.session_times, login)
    normalizer = VENUE.normalizer("private", "c#1", catalogue(venue), account="main")
    events: list[Event] = []

    def take(message: bytes) -> None:
        if session.receive(message, trio.current_time()):
            events.extend(normalizer.normalize(message, 1))

    session.start(trio.current_time())
    while not session.ready:
        for text in session.data_to_send():
            await client.say(text)
        take((await client.text()).encode())
    assert {each.status for each in session.outcomes()} == {"subscribed"}
    act()
    # Whatever was told before the pong comes before it.
    await client.say({"op": "ping", "req_id": "last"})
    for message in await client.hear_until(lambda message: message.get("req_id") == "last"):
        take(json.dumps(message).encode())
    assert session.notices() == []
    return events


def trade(venue: SimulatedVenue) -> None:
    """Orders in every market, some of them filled, more open ones than fit on a page."""
    account = venue.accounts["main"]
    account.deposit("USDT", "1000000")
    account.deposit("BTC", "10")
    orders = [
        account.place("linear", "BTCUSDT", "buy", str(50_000 + n), "0.5", client_order_id=f"c{n}") for n in range(60)
    ]
    for order_id in orders[:3]:
        account.fill(order_id, "0.2")
    account.fill(orders[0])
    account.cancel(orders[1])
    account.fill(account.place("spot", "BTCUSDT", "sell", "60000", "0.1"))
    account.place("spot", "BTCUSDT", "buy", "50000", "0.1")
    account.fill(account.place("inverse", "BTCUSD", "sell", "60000", "100"))
    account.fill(account.place("option", OPTION, "buy", "500", "1"), "0.5")
    account.fund("linear", "BTCUSDT", "0.0001")


def told(event: Event, *without: str) -> dict[str, object]:
    hidden = {"is_snapshot", "receive_time", *without}
    return {**{key: value for key, value in values(event).items() if key not in hidden}, "head": head(event)[:5]}


def latest(events: Sequence[Event], kind: type[Event], *keys: str) -> dict[tuple[object, ...], Event]:
    """The last event of each key."""
    found = {}
    for event in events:
        if type(event) is kind:
            found[head(event)[1:3], *(getattr(event, key) for key in keys)] = event
    return found


async def test_what_is_read_is_what_the_stream_has_told(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_venue("bybit", listen=False, market=SLOW, accounts=[ACCOUNT, OTHER], start_us=NOW_MS * 1000) as venue,
        connect_in_memory(venue, "/v5/private") as client,
    ):
        events = await stream(client, venue, lambda: trade(venue))
        reader = SIDE.reader("main", "c#1", catalogue(venue))
        orders, positions, fills = (
            read(venue, reader.snapshot(wanted()[0])),
            read(venue, reader.snapshot(wanted()[2])),
            read(venue, reader.fills(wanted()[1], Micros(NOW_MS * 1000))),
        )
        open_ones = {
            key: event
            for key, event in latest(events, Order, "order_id").items()
            if isinstance(event, Order) and event.status in {"new", "partially_filled"}
        }
        assert len(orders) == len(open_ones) == 60
        found = latest(orders, Order, "order_id")
        assert {key: told(event) for key, event in found.items()} == {
            key: told(event) for key, event in open_ones.items()
        }
        streamed = [event for event in events if isinstance(event, Fill)]
        assert len(streamed) == 8
        by_id = {event.fill_id: told(event) for event in streamed}
        assert {event.fill_id: told(event) for event in fills if isinstance(event, Fill)} == by_id
        assert [event.exchange_time for event in fills] == sorted(event.exchange_time or 0 for event in fills)
        held = {key: told(event) for key, event in latest(events, Position).items()}
        assert {key: told(event) for key, event in latest(positions, Position).items()} == held
        assert {key[0] for key in held} == {("linear", "BTCUSDT"), ("inverse", "BTCUSD"), ("option", OPTION)}
        for order in latest(events, Order, "order_id").values():
            assert isinstance(order, Order)
            if order.status in {"filled", "cancelled"}:
                (closed,) = read(venue, reader.order(order))
                assert told(closed) == told(order)


async def test_one_market_alone(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_venue("bybit", listen=False, market=SLOW, accounts=[ACCOUNT], start_us=NOW_MS * 1000) as venue,
        connect_in_memory(venue, "/v5/private") as client,
    ):
        events = await stream(client, venue, lambda: trade(venue), "linear")
        assert {head(event)[1] for event in events} == {"linear", "account"}
        reader = SIDE.reader("main", "c#1", {})
        fills = read(venue, reader.fills(wanted("linear")[1], Micros(NOW_MS * 1000)))
        assert len(fills) == len([event for event in events if isinstance(event, Fill)]) == 5


async def test_a_login_by_a_wrong_clock_fails_and_the_key_proves_good(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_venue("bybit", listen=False, market=SLOW, accounts=[ACCOUNT], start_us=NOW_MS * 1000) as venue,
        connect_in_memory(venue, "/v5/private") as client,
    ):
        behind = Login(KEYS, NOW_MS / 1000 - trio.current_time() - 60)
        session = VENUE.session("private", [], VENUE.session_times, behind)
        session.start(trio.current_time())
        (text,) = session.data_to_send()
        await client.say(text)
        with pytest.raises(LoginFailed, match="Params Error"):
            session.receive((await client.text()).encode(), trio.current_time())
        assert SIDE.read_time(get(venue, SIDE.time_path)) // 1000 == venue.floor.clock.now_ms()
        walk(venue, SIDE.verify())
        with pytest.raises(Retryable, match="10002"):
            walk(venue, SIDE.verify(), ahead_ms=2_000)
        with pytest.raises(Refused, match="10004"):
            walk(venue, SIDE.verify(), Credentials(ACCOUNT.key, "WRONG"))
        with pytest.raises(Refused, match="10003"):
            walk(venue, SIDE.verify(), Credentials("no-key", "WRONG"))
