"""Accounts, from the simulated venue's state to what a consumer of the topics makes of them: the same."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from pipeline.sim.listing import named
from pipeline.sim.settings import Account, MarketSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.e2e.accounts import KINDS, Meddling, Trader, check_account, closed_orders, configured, simulated
from tests.e2e.connector import (
    POLL_S,
    QUICK,
    Connector,
    Journal,
    check_sockets,
    configuration,
    fall_quiet,
    running,
    until,
    urls,
)
from tests.e2e.consumer import Topics

DEADLINE_S = 120
SYMBOLS = {
    "bybit": ("BTCUSDT", "SOLUSDT", "BTCUSD", "BTCPERP", "BTC-26MAR27-58500-C-USDT"),
    "okx": ("BTC-USDT", "BTC-USDT-SWAP", "SOL-USDT-SWAP", "BTC-USD-SWAP", "BTC-USD-270326", "BTC-USD-270326-58500-C"),
}
PUBLIC = {
    "bybit": [{"market": "linear", "channel": "trade", "instruments": ["BTCUSDT"]}],
    "okx": [{"market": "swap", "channel": "trade", "instruments": ["BTC-USDT-SWAP"]}],
}
PUBLIC_CONNECTION = {"bybit": "bybit.linear.trade.0", "okx": "okx.swap.trade.0"}
PRIVATE = {"bybit": "bybit.main.private.0", "okx": "okx.main.private.0"}
VENUES = ("bybit", "okx")


def market(name: str) -> MarketSettings:
    """A few instruments of every kind."""
    return MarketSettings(rate=20, instruments=named(name, SYMBOLS[name]), levels=20)


def settings(venue: SimulatedVenue, folder: Path, *accounts: Account, **more: Any) -> dict[str, Any]:
    """A venue with these accounts, and one public channel."""
    its = {each.name: configured(folder, venue.name, each) for each in accounts}
    return {"urls": urls(venue), "channels": PUBLIC[venue.name], "accounts": its, "reconnect": QUICK, **more}


async def read(connector: Connector, name: str, *, times: int = 1) -> None:
    """Wait until an account was read so often, and its connection is live."""
    await until(lambda: name in connector.connections())
    stats = connector.connections()[name]
    await until(lambda: stats.reconciliations >= times and stats.state == "live")


async def heard(connector: Connector, text: str) -> None:
    """Wait until a message with this text came over any connection."""
    wanted = text.encode()
    await until(lambda: any(wanted in message for each in connector.witness.heard for message in each.data))


@pytest.mark.parametrize("name", VENUES)
async def test_what_an_account_does_is_in_the_topics(topics: Topics, name: str, tmp_path: Path) -> None:
    journal, main = Journal(), simulated()
    with trio.fail_after(DEADLINE_S):
        async with open_venue(name, market=market(name), accounts=[main], journal=journal) as venue:
            account = venue.accounts["main"]
            trader = Trader(account)
            trader.several(150)
            before = closed_orders(account)
            venues = {name: settings(venue, tmp_path, main)}
            async with running(configuration(topics, tmp_path, venues)) as connector:
                await read(connector, PRIVATE[name])
                for _ in range(30):
                    trader.several(5)
                    await trio.lowlevel.checkpoint()
                await fall_quiet(venue, journal, connector.witness)
                await connector.stop()
            check_sockets(venue, journal, connector.witness)
    assert len(trader.acts) == 8
    await check_account(topics, account, name, unknown=before)


@pytest.mark.parametrize("name", VENUES)
async def test_what_happens_while_the_connection_is_down_is_told_afterwards(
    topics: Topics, name: str, tmp_path: Path
) -> None:
    """The account trades before, during and after each break, and between a question over REST and its answer."""
    journal, main, breaks = Journal(), simulated(), ("drop", "silence", "drop")
    quick = {"heartbeat": {"ping_every": "300ms", "pong_within": "300ms"}, "timeouts": {"close": "200ms"}}
    with trio.fail_after(DEADLINE_S):
        async with open_venue(name, market=market(name), accounts=[main], journal=journal) as venue:
            account = venue.accounts["main"]
            trader = Trader(account)
            trader.several(50)
            unknown = closed_orders(account)
            meddling = Meddling.with_rest(venue, trader.act, 10)
            venues = {name: settings(venue, tmp_path, main, **quick)}
            async with running(configuration(topics, tmp_path, venues)) as connector:
                await read(connector, PRIVATE[name])
                stats = connector.connections()[PRIVATE[name]]
                for number, kind in enumerate(breaks, 2):
                    trader.several(40)
                    await heard(connector, trader.mark())
                    told = set(account.orders)
                    trader.several(5)
                    venue.fault("http_refuse", count=1000)
                    venue.fault(kind, endpoint="private")
                    trader.several(10)
                    await until(lambda: stats.state in ("retrying", "connecting"))
                    trader.several(40)
                    unknown |= closed_orders(account) - told
                    meddling.left = 10
                    done = stats.reconciliations
                    venue.fault("clear")
                    await read(connector, PRIVATE[name], times=done + 1)
                    assert stats.generation >= number
                await fall_quiet(venue, journal, connector.witness)
                assert connector.state(PUBLIC_CONNECTION[name]) == "live"
                await connector.stop()
            check_sockets(venue, journal, connector.witness, cut=len(breaks))
    await check_account(topics, account, name, unknown=unknown)


@pytest.mark.parametrize("name", VENUES)
async def test_what_happens_while_the_process_is_down_is_told_after_its_start(
    topics: Topics, name: str, tmp_path: Path
) -> None:
    main = simulated()
    with trio.fail_after(DEADLINE_S):
        async with open_venue(name, market=market(name), accounts=[main]) as venue:
            account = venue.accounts["main"]
            trader = Trader(account)
            trader.several(50)
            unknown = closed_orders(account)
            conf = configuration(topics, tmp_path, {name: settings(venue, tmp_path, main)})
            async with running(conf) as connector:
                await read(connector, PRIVATE[name])
                trader.several(60)
                account.deposit("DOGE", "5")
                await heard(connector, trader.mark())
                await connector.stop()
            told, open_before = set(account.orders), {order.order_id for order in account.open_orders()}
            trader.several(100)
            account.deposit("DOGE", "-5")
            ended = closed_orders(account)
            assert ended & open_before
            async with running(conf) as connector:
                await read(connector, PRIVATE[name])
                await heard(connector, trader.mark())
                await connector.stop()
    await check_account(topics, account, name, unknown=unknown | ended - told)


@pytest.mark.parametrize("name", VENUES)
async def test_a_refused_key_stops_its_own_account_and_nothing_else(
    topics: Topics, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """One account is refused at once for its secret, the other one when its key is revoked while it is used."""
    main, second = simulated(), simulated("second")
    wrong = attrs.evolve(second, secret=f"{second.secret}-but-wrong")
    codes = {"bybit": ("10004", "10003"), "okx": ("60007", "50111")}[name]
    first, other = PRIVATE[name], PRIVATE[name].replace("main", "second")
    with trio.fail_after(DEADLINE_S):
        async with open_venue(name, market=market(name), accounts=[main, second]) as venue:
            trader = Trader(venue.accounts["main"])
            venues = {name: settings(venue, tmp_path, main, wrong)}
            async with running(configuration(topics, tmp_path, venues)) as connector:
                await read(connector, first)
                await until(lambda: connector.state(other) == "refused")
                assert codes[0] in connector.connections()[other].last_error
                trader.several(20)
                await heard(connector, trader.mark())
                assert venue.revoke("main") == 1
                await until(lambda: connector.state(first) == "refused")
                assert codes[1] in connector.connections()[first].last_error
                await venue.wait_sent(venue.sent.count("*rade*") + 10, "*rade*")
                assert connector.state(PUBLIC_CONNECTION[name]) == "live"
                told = await pages(connector)
                await connector.stop()
    status = json.loads(told["/status"])
    assert [status["venues"][name]["connections"][each]["state"] for each in (first, other)] == ["refused"] * 2
    assert all(each in told["/readyz"] for each in codes)
    records = {kind: await topics.read(kind) for kind in (*KINDS, "feed_status", "dead_letter", "instrument")}
    refusals = [each["reason"] for each in records["feed_status"] if each["connection"].split("#")[0] in (first, other)]
    assert all(any(code in reason for reason in refusals) for code in codes), refusals
    out, err = capsys.readouterr()
    output = "".join((out, err, caplog.text, *told.values(), repr(records)))
    assert all(code in output for code in codes)
    for account in (main, second):
        assert account.name in output
        for secret in (account.key, account.secret, account.passphrase):
            assert secret not in output, f"{secret} is shown: {output[output.index(secret) - 200 :][:400]}"


async def pages(connector: Connector) -> dict[str, str]:
    """All that the service tells over HTTP."""
    async with httpx.AsyncClient(trust_env=False, base_url=connector.service.address) as client:
        return {path: (await client.get(path)).text for path in ("/status", "/metrics", "/readyz")}


@pytest.mark.parametrize(("name", "minutes"), [("bybit", -5), ("bybit", 5), ("okx", 5)])
async def test_a_wrong_clock_and_a_key_that_may_not_read_everything(
    topics: Topics, name: str, minutes: int, tmp_path: Path
) -> None:
    """Logins and signatures go by the venue's clock; what may not be read is told, and the rest works."""
    groups = {"bybit": {"order", "execution", "position"}, "okx": {"trade"}}[name]
    main = simulated(permissions=frozenset(groups) if minutes > 0 else None)
    start_us = time.time_ns() // 1000 + minutes * 60_000_000
    with trio.fail_after(DEADLINE_S):
        async with open_venue(name, market=market(name), accounts=[main], start_us=start_us) as venue:
            account = venue.accounts["main"]
            trader = Trader(account)
            trader.several(40)
            unknown = closed_orders(account)
            venues = {name: settings(venue, tmp_path, main)}
            async with running(configuration(topics, tmp_path, venues)) as connector:
                await read(connector, PRIVATE[name])
                venue.fault("drop", endpoint="private")
                await read(connector, PRIVATE[name], times=2)
                trader.several(20)
                await heard(connector, trader.mark())
                status = connector.service.status()["venues"][name]
                await connector.stop()
    assert abs(status["clock_offset"] / 60e6 - minutes) < 0.1
    its = status["connections"][PRIVATE[name]]
    if minutes > 0 and name == "bybit":
        assert "permission denied" in its["refused"]["wallet"]
    else:
        assert not its["refused"]
        assert not its["unread"]
    await check_account(topics, account, name, unknown=unknown, without=tuple(its["refused"]))


async def test_each_code_of_a_failed_login_at_okx_has_its_remedy(topics: Topics, tmp_path: Path) -> None:
    """Some keys are given up until the next reading of the catalogue; all else is asked again."""
    main, connection = simulated(), PRIVATE["okx"]
    refused = ("60005", "60007", "60024", "60026", "60031", "60032")
    passing = ("60004", "60006", "60009", "60014", "60023", "63999", "64007", "69999")
    with trio.fail_after(DEADLINE_S):
        async with open_venue("okx", market=market("okx"), accounts=[main]) as venue:
            quick = {"refresh_instruments": "1s", "timeouts": {"acknowledge": "200ms"}}
            venues = {"okx": settings(venue, tmp_path, main, **quick)}
            async with running(configuration(topics, tmp_path, venues)) as connector:
                await read(connector, connection)
                for code in (*passing, *refused):
                    states = await states_after(venue, connector, connection, code)
                    assert ("refused" in states) == (code in refused), (code, states)
                assert connector.state(PUBLIC_CONNECTION["okx"]) == "live"
                await connector.stop()


async def states_after(venue: SimulatedVenue, connector: Connector, name: str, code: str) -> list[str]:
    """The states of a connection that is cut, and refused once, until it is live again."""
    generation, states = connector.connections()[name].generation, list[str]()
    venue.fault("refuse_login", error=code)
    venue.fault("drop", endpoint="private")
    while True:
        stats = connector.connections()[name]
        states.append(stats.state)
        if stats.state == "live" and (stats.generation > generation or "refused" in states):
            return list(dict.fromkeys(states))
        await trio.sleep(POLL_S)


@pytest.mark.parametrize("name", VENUES)
async def test_orders_in_what_is_no_longer_listed_are_told(topics: Topics, name: str, tmp_path: Path) -> None:
    """On the stream, and over REST after a reconnect."""
    main, gone = simulated(), SYMBOLS[name][1]
    with trio.fail_after(DEADLINE_S):
        async with open_venue(name, market=market(name), accounts=[main]) as venue:
            account = venue.accounts["main"]
            listings = [each for each in account.market.listings.values() if each.symbol == gone]
            venues = {name: settings(venue, tmp_path, main, refresh_instruments="1s")}
            async with running(configuration(topics, tmp_path, venues)) as connector:
                await read(connector, PRIVATE[name])
                orders = [
                    account.place(each.market, each.symbol, "buy", each.tick, each.lot)
                    for each in listings
                    for _ in range(2)
                ]
                await heard(connector, orders[-1])
                reads = connector.service.intakes[name].stats.catalogue_reads
                for each in listings:
                    venue.delist(each.market, each.symbol)
                await until(lambda: connector.service.intakes[name].stats.catalogue_reads >= reads + 2)
                for order in orders[::2]:
                    account.cancel(order)
                venue.fault("drop", endpoint="private")
                await read(connector, PRIVATE[name], times=2)
                for order in orders[1::2]:
                    account.cancel(order)
                await heard(connector, Trader(account).mark())
                await connector.stop()
    await check_account(topics, account, name)
    told = await topics.read("order")
    assert all(record["symbol"] for record in told)
