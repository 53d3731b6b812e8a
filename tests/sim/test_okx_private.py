from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import attrs
import httpx
import msgspec
import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed

from pipeline.model.rate import Rate
from pipeline.sim.accounts import SimulatedAccount
from pipeline.sim.http import Request
from pipeline.sim.okx import LIMITS
from pipeline.sim.okx_account_rest import rest_signature
from pipeline.sim.settings import Account
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.sim.clients import Client, connect_in_memory, read_on
from tests.sim.okx_client import ACCOUNT, SLOW, SWAP, documented, in_memory, log_in, login, signature, subscribe

MAIN = attrs.evolve(ACCOUNT, name="main", vip=True)
OTHER = Account("other-key", "another-secret", "another-phrase", name="other")
ANY = {"instType": "ANY"}
PRIVATE = attrs.evolve(LIMITS, idle=1000.0)


@asynccontextmanager
async def logged_in(
    endpoint: str = "private", **options: Any
) -> AsyncIterator[tuple[SimulatedVenue, SimulatedAccount, Client]]:
    options = {"market": SLOW, "accounts": [MAIN, OTHER], "limits": PRIVATE, **options}
    async with in_memory(endpoint, **options) as (venue, client):
        await log_in(venue, client, options["accounts"][0])
        yield venue, venue.accounts["main"], client


async def listen(client: Client, channel: str, **keys: str) -> None:
    """Subscribe, and take the count of connections that follows on some channels."""
    answer = await client.ask(subscribe(channel, None, **keys))
    assert answer["event"] == "subscribe", answer
    if channel not in ("fills", "orders-algo", "deposit-info"):
        assert (await client.hear())["event"] == "channel-conn-count"


async def quiet(client: Client) -> bool:
    """Whether nothing was sent to the client."""
    await client.say("ping")
    return await client.text() == "pong"


def types(row: dict[str, Any]) -> dict[str, type]:
    return {key: type(value) for key, value in row.items()}


async def test_a_revoked_key_closes_its_connections_and_logs_in_no_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        logged_in() as (venue, _account, client),
        connect_in_memory(venue, "/ws/v5/private") as other,
        connect_in_memory(venue, "/ws/v5/private") as again,
    ):
        await log_in(venue, other, OTHER)
        assert venue.revoke("main") == 1
        with pytest.raises(ConnectionClosed) as caught:
            await read_on(client)
        assert caught.value.reason is not None
        assert caught.value.reason.code == 4007
        assert await quiet(other)
        now = venue.floor.clock.now_us() // 10**6
        assert (await again.ask(login(now, MAIN)))["code"] == "60005"


async def test_an_order_is_told_from_its_placing_to_its_last_fill(autojump_clock: trio.testing.MockClock) -> None:
    async with logged_in() as (_venue, account, client):
        await listen(client, "orders", **ANY)
        order_id = account.place("SWAP", SWAP, "buy", "65000.0", "3", client_order_id="arb1001")
        fills = [account.fill(order_id, "1"), account.fill(order_id)]
        messages = [await client.hear() for _ in range(3)]
        expected = [documented("private.orders.constructed.jsonl", line) for line in range(3)]
        for message, documentation in zip(messages, expected, strict=True):
            assert message.keys() == documentation.keys()
            assert message["arg"] == {"channel": "orders", "instType": "ANY", "uid": message["arg"]["uid"]}
            assert types(message["data"][0]) == types(documentation["data"][0])
        rows = [message["data"][0] for message in messages]
        assert [row["state"] for row in rows] == ["live", "partially_filled", "filled"]
        assert [row["tradeId"] for row in rows] == ["", *fills]
        assert [row["fillSz"] for row in rows] == ["0", "1", "2"]
        assert [row["accFillSz"] for row in rows] == ["0", "1", "3"]
        assert {row["clOrdId"] for row in rows} == {"arb1001"}
        assert {(row["side"], row["px"], row["sz"], row["ordType"]) for row in rows} == {("buy", "65000", "3", "limit")}
        # 0.01 BTC a contract at 65000, of which the maker pays 0.02 %.
        assert [row["fillFee"] for row in rows] == ["0", "-0.13", "-0.26"]
        assert [row["fee"] for row in rows] == ["0", "-0.13", "-0.39"]
        assert rows[2]["fillNotionalUsd"] == "1300"
        assert rows[2]["execType"] == "M"


async def test_how_orders_end_otherwise(autojump_clock: trio.testing.MockClock) -> None:
    async with logged_in() as (_venue, account, client):
        await listen(client, "orders", instType="SPOT")

        def place(**how: str) -> str:
            return account.place("SPOT", "BTC-USDT", "sell", "65000.00", "0.5", **how)  # type: ignore[arg-type]

        account.cancel(place())
        account.expire(place(time_in_force="IOC"))
        account.expire(place(time_in_force="FOK"))
        account.reject(place(time_in_force="PostOnly"))
        account.cancel(place(), "3")
        amended = place()
        account.amend(amended, price="65001.00")
        market = account.place("SPOT", "BTC-USDT", "buy", None, "0.25", order_type="market")
        account.fill(market, maker=False)
        rows = [(await client.hear())["data"][0] for _ in range(14)]
        ends = [row for row in rows if row["state"] == "canceled"]
        assert [(row["ordType"], row["cancelSource"]) for row in ends] == [
            ("limit", "1"), ("ioc", "14"), ("fok", "13"), ("post_only", "31"), ("limit", "3"),
        ]  # fmt: skip
        change = rows[11]
        assert (change["ordId"], change["px"], change["amendResult"]) == (amended, "65001", "0")
        bought = rows[13]
        assert (bought["ordType"], bought["px"], bought["execType"]) == ("market", "", "T")
        assert (bought["tdMode"], bought["posSide"], bought["tgtCcy"]) == ("cash", "", "base_ccy")
        assert (bought["fillFee"], bought["feeCcy"]) == ("-0.0001375", "BTC")


async def test_filters_let_through_what_they_name(autojump_clock: trio.testing.MockClock) -> None:
    async with logged_in() as (_venue, account, client):
        await listen(client, "orders", instType="SWAP", instFamily="BTC-USD")
        await listen(client, "orders", instType="SPOT", instId="ETH-USDT")
        account.place("SWAP", SWAP, "buy", "65000.0", "1")
        account.place("SPOT", "BTC-USDT", "buy", "65000.0", "1")
        wanted = account.place("SWAP", "BTC-USD-SWAP", "buy", "65000.0", "1")
        also = account.place("SPOT", "ETH-USDT", "buy", "3200.0", "1")
        first, second = await client.hear(), await client.hear()
        assert first["arg"].items() >= {"instType": "SWAP", "instFamily": "BTC-USD"}.items()
        assert second["arg"].items() >= {"instType": "SPOT", "instId": "ETH-USDT"}.items()
        assert [each["data"][0]["ordId"] for each in (first, second)] == [wanted, also]
        assert await quiet(client)


async def test_nothing_is_shared_between_accounts(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        logged_in() as (venue, account, client),
        connect_in_memory(venue, "/ws/v5/private") as other,
        connect_in_memory(venue, "/ws/v5/private") as twin,
    ):
        await log_in(venue, other, OTHER)
        await log_in(venue, twin, MAIN)
        for each in (client, other):
            await listen(each, "orders", **ANY)
        answer = await twin.ask(subscribe("orders", None, **ANY))
        assert answer["event"] == "subscribe"
        count = await twin.hear()
        assert (count["event"], count["channel"], count["connCount"]) == ("channel-conn-count", "orders", "2")
        account.place("SPOT", "BTC-USDT", "buy", "65000.0", "1")
        mine, same = await client.hear(), await twin.hear()
        assert mine == same
        assert await quiet(other)
        venue.accounts["other"].place("SPOT", "BTC-USDT", "buy", "65000.0", "1")
        assert (await other.hear())["arg"]["uid"] != mine["arg"]["uid"]
        assert await quiet(client)


async def test_connections_of_a_channel_are_limited_per_account(autojump_clock: trio.testing.MockClock) -> None:
    limits = attrs.evolve(PRIVATE, channel_connections=1)
    async with (
        logged_in(limits=limits) as (venue, account, client),
        connect_in_memory(venue, "/ws/v5/private") as second,
        connect_in_memory(venue, "/ws/v5/private") as other,
    ):
        await log_in(venue, second, MAIN)
        await log_in(venue, other, OTHER)
        await listen(client, "orders", **ANY)
        await listen(client, "orders", instType="SWAP")
        await listen(other, "orders", **ANY)
        assert (await second.ask(subscribe("orders", None, **ANY)))["event"] == "subscribe"
        error = await second.hear()
        assert error.keys() == documented("control.channel-conn-count-error.jsonl").keys()
        assert (error["event"], error["connCount"]) == ("channel-conn-count-error", "1")
        account.place("SPOT", "BTC-USDT", "buy", "65000.0", "1")
        assert (await client.hear())["data"]
        assert await quiet(second), "the subscription was terminated"
        await listen(second, "positions", **ANY)
        assert (await second.hear())["eventType"] == "snapshot", "each channel is counted by itself"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (subscribe("positions", None), "60027"),
        (subscribe("positions", None, instType="NONE"), "60033"),
        (subscribe("orders", "NO-SUCH", instType="SPOT"), "60018"),
        (subscribe("orders", None, instType="SWAP", instFamily="NO-SUCH"), "60018"),
        (subscribe("tickers"), "60018"),
    ],
)
async def test_private_args_are_checked(
    request_: dict[str, Any], code: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with logged_in() as (venue, _account, client):
        assert (await client.ask(request_))["code"] == code
        assert venue.subscriptions() == 0


async def test_fills_need_a_fee_tier(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        logged_in() as (venue, account, client),
        connect_in_memory(venue, "/ws/v5/private") as other,
    ):
        await log_in(venue, other, OTHER)
        assert (await other.ask(subscribe("fills", None)))["code"] == "64003"
        await listen(client, "fills")
        fill_ids = [
            account.fill(account.place("SWAP", SWAP, "buy", "65000.0", "2", client_order_id=name), maker=maker)
            for name, maker in (("arb1", True), ("77", False))
        ]
        rows = [(await client.hear())["data"][0] for _ in range(2)]
        assert types(rows[0]) == types(documented("private.fills.jsonl")["data"][0])
        assert [row["tradeId"] for row in rows] == fill_ids
        assert [(row["clOrdId"], row["execType"]) for row in rows] == [("0", "M"), ("77", "T")]


async def test_an_empty_account_has_an_empty_snapshot(autojump_clock: trio.testing.MockClock) -> None:
    async with logged_in() as (_venue, _account, client):
        for channel, keys, name in (
            ("account", {}, "private.account.constructed.jsonl"),
            ("positions", ANY, "private.positions.constructed.jsonl"),
        ):
            await listen(client, channel, **keys)
            snapshot = await client.hear()
            expected = documented(name, 3 if channel == "account" else 4)
            assert {**snapshot, "arg": {}} == {**expected, "arg": {}}
            assert snapshot["arg"].keys() == expected["arg"].keys()


async def test_snapshots_come_in_pages_of_what_is_not_zero(autojump_clock: trio.testing.MockClock) -> None:
    limits = attrs.evolve(PRIVATE, page_rows=2)
    async with logged_in(limits=limits) as (_venue, account, client):
        for symbol in (SWAP, "ETH-USDT-SWAP", "SOL-USDT-SWAP", "BTC-USD-SWAP"):
            account.fill(account.place("SWAP", symbol, "sell", "100.0", "2"))
        account.fill(account.place("SWAP", "ETH-USDT-SWAP", "buy", "100.0", "2"))
        for coin in ("USDC", "ETH", "SOL"):
            account.deposit(coin, "10")
        account.deposit("USDC", "-10")
        await listen(client, "positions", instType="SWAP")
        pages = [await client.hear() for _ in range(2)]
        assert [(page["eventType"], page["curPage"], page["lastPage"]) for page in pages] == [
            ("snapshot", 1, False), ("snapshot", 2, True),
        ]  # fmt: skip
        rows = [row for page in pages for row in page["data"]]
        assert [row["instId"] for row in rows] == [SWAP, "SOL-USDT-SWAP", "BTC-USD-SWAP"]
        documentation = documented("private.positions.constructed.jsonl", 1)["data"][0]
        assert types(rows[0]).items() >= types(documentation).items()
        assert (rows[0]["pos"], rows[0]["avgPx"], rows[0]["ccy"]) == ("-2", "100", "USDT")
        await listen(client, "account")
        pages = [await client.hear() for _ in range(2)]
        assert [(page["curPage"], page["lastPage"]) for page in pages] == [(1, False), (2, True)]
        coins = [detail["ccy"] for page in pages for detail in page["data"][0]["details"]]
        assert coins == ["USDT", "BTC", "ETH", "SOL"]
        documentation = documented("private.account.jsonl")["data"][0]
        assert types(pages[0]["data"][0]) == types(documentation)
        assert types(pages[0]["data"][0]["details"][0]).items() >= types(documentation["details"][0]).items()


async def test_a_fill_moves_position_and_account_at_once(autojump_clock: trio.testing.MockClock) -> None:
    silent = '{"updateInterval":"0"}'
    async with logged_in() as (_venue, account, client):
        account.deposit("USDT", "1000")
        await listen(client, "positions", extraParams=silent, **ANY)
        assert (await client.hear())["data"] == []
        await listen(client, "account", extraParams=silent, ccy="USDT")
        snapshot = await client.hear()
        assert snapshot["arg"] == {"channel": "account", "ccy": "USDT", "uid": snapshot["arg"]["uid"]}
        account.fill(account.place("SWAP", SWAP, "buy", "65000.0", "2"), price="65000.0")
        position, balance = await client.hear(), await client.hear()
        assert position.keys() == balance.keys() == {"arg", "eventType", "data"}
        assert position["eventType"] == balance["eventType"] == "event_update"
        row = position["data"][0]
        assert (row["pos"], row["avgPx"], row["fee"], row["realizedPnl"]) == ("2", "65000", "-0.26", "-0.26")
        assert balance["data"][0]["details"][0]["cashBal"] == "999.74"
        account.fill(account.place("SWAP", SWAP, "sell", "65100.0", "2"), price="65100.0")
        identity = row["posId"]
        position, balance = await client.hear(), await client.hear()
        row = position["data"][0]
        assert (row["pos"], row["avgPx"], row["pnl"], row["posId"]) == ("0", "", "2", identity)
        assert balance["data"][0]["details"][0]["cashBal"] == "1001.4796"
        await trio.sleep(60)
        assert await quiet(client), "no regular snapshots at an interval of 0"


@pytest.mark.parametrize(
    ("channel", "keys", "seconds"),
    [
        ("positions", {**ANY, "extraParams": '{"updateInterval":"2000"}'}, 2),
        ("positions", {**ANY, "extraParams": '{"updateInterval":"17"}'}, 5),
        ("positions", ANY, 5),
        ("account", {}, 5),
        ("account", {"extraParams": '{"updateInterval":"1"}'}, 5),
        ("account-greeks", {}, 5),
    ],
)
async def test_snapshots_come_regularly(
    channel: str, keys: dict[str, str], seconds: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with logged_in() as (_venue, account, client):
        account.deposit("BTC", "1")
        await listen(client, channel, **keys)
        first = await client.hear()
        assert first.get("eventType", "snapshot") == "snapshot"
        began = trio.current_time()
        for number in (1, 2, 3):
            again = await client.hear()
            assert again.keys() == first.keys()
            assert trio.current_time() - began == pytest.approx(number * seconds, abs=0.5)


async def test_balance_and_position_tells_each_movement_of_money(autojump_clock: trio.testing.MockClock) -> None:
    async with logged_in() as (_venue, account, client):
        account.deposit("BTC", "1")
        await listen(client, "balance_and_position")
        snapshot = await client.hear()
        expected = documented("private.balance_and_position.jsonl")
        assert snapshot.keys() == expected.keys()
        row = snapshot["data"][0]
        assert types(row) == types(expected["data"][0])
        assert types(row["balData"][0]) == types(expected["data"][0]["balData"][0])
        assert (row["eventType"], row["posData"], row["trades"]) == ("snapshot", [], [])
        order_id = account.place("SWAP", SWAP, "buy", "65000.0", "3")
        trade = account.fill(order_id)
        account.fund("SWAP", SWAP, "0.0001")
        account.deposit("ETH", "2")
        account.cancel(account.place("SPOT", "BTC-USDT", "sell", "70000.0", "0.1"))
        filled, funded, deposited = [(await client.hear())["data"][0] for _ in range(3)]
        assert filled["eventType"] == "filled"
        assert types(filled["posData"][0]) == types(expected["data"][0]["posData"][0])
        assert filled["posData"][0]["tradeId"] == trade
        assert filled["trades"] == [{"instId": SWAP, "tradeId": trade}]
        assert (funded["eventType"], funded["trades"]) == ("funding_fee", [])
        assert funded["posData"][0]["tradeId"] == trade
        cash = [Decimal(row["balData"][0]["cashBal"]) for row in (filled, funded)]
        assert cash[0] - cash[1] == pytest.approx(Decimal("0.195"), abs=Decimal("0.001"))
        assert (deposited["eventType"], deposited["balData"][0]["cashBal"]) == ("transferred", "2")
        assert await quiet(client), "orders that come and go move nothing"


async def test_greeks_are_told_by_coin(autojump_clock: trio.testing.MockClock) -> None:
    async with logged_in() as (_venue, account, client):
        for coin in ("BTC", "ETH"):
            account.deposit(coin, "2")
        await listen(client, "account-greeks", ccy="ETH")
        message = await client.hear()
        expected = documented("private.account-greeks.jsonl")
        assert message.keys() == expected.keys()
        assert [types(row) for row in message["data"]] == [types(expected["data"][0])]
        assert (message["data"][0]["ccy"], message["data"][0]["deltaPA"]) == ("ETH", "2")


async def test_other_private_data_is_pushed_on_demand(autojump_clock: trio.testing.MockClock) -> None:
    async with logged_in("business") as (venue, account, client):
        await listen(client, "orders-algo", **ANY)
        await listen(client, "deposit-info", ccy="BTC")
        algo, deposit = documented("business.orders-algo.jsonl"), documented("business.deposit-info.jsonl")
        push = venue.dialect.push_private
        assert push(account, {"arg": {"channel": "orders-algo"}, "data": algo["data"]}) == 1
        assert push(account, {"arg": {"channel": "deposit-info", "ccy": "ETH"}, "data": deposit["data"]}) == 0
        assert push(account, {"arg": {"channel": "deposit-info", "ccy": "BTC"}, "data": deposit["data"]}) == 1
        assert push(venue.accounts["other"], {"arg": {"channel": "orders-algo"}, "data": algo["data"]}) == 0
        first, second = await client.hear(), await client.hear()
        uid = first["arg"]["uid"]
        assert first == {"arg": {"channel": "orders-algo", "instType": "ANY", "uid": uid}, "data": algo["data"]}
        assert second == {"arg": {"channel": "deposit-info", "ccy": "BTC", "uid": uid}, "data": deposit["data"]}
        for body, field in (
            ({"arg": {"channel": "tickers"}, "data": []}, "arg"),
            ({"arg": {"channel": ["orders"]}, "data": []}, "arg"),
            ({"arg": {"channel": "orders-algo"}}, "data"),
        ):
            with pytest.raises(ValueError, match=field):
                push(account, body)


async def test_an_update_can_be_repeated(autojump_clock: trio.testing.MockClock) -> None:
    async with logged_in() as (venue, account, client):
        await listen(client, "orders", **ANY)
        repeat = {"arg": {"channel": "orders"}, "repeat": True}
        assert venue.dialect.push_private(account, repeat) == 0, "there is nothing to repeat"
        account.fill(account.place("SWAP", SWAP, "buy", "65000.0", "2"))
        _placed, filled = await client.hear(), await client.hear()
        assert venue.dialect.push_private(account, repeat) == 1
        again = await client.hear()
        assert again["data"][0]["uTime"] > filled["data"][0]["uTime"]
        assert again["data"][0] | {"uTime": ""} == filled["data"][0] | {"uTime": ""}


async def test_accounts_are_driven_over_http() -> None:
    async with (
        open_venue("okx", market=SLOW, accounts=[MAIN, OTHER]) as venue,
        httpx.AsyncClient(base_url=venue.rest_url) as http,
        connect_in_memory(venue, "/ws/v5/private") as client,
    ):
        await log_in(venue, client, MAIN)
        await listen(client, "orders", **ANY)
        order = {"account": "main", "market": "SWAP", "symbol": SWAP, "side": "buy", "price": "65000.0", "size": "2"}
        order_id = (await http.post("/sim/order", json=order)).json()["order_id"]
        assert (await client.hear())["data"][0]["ordId"] == order_id
        await http.post("/sim/fill", json={"account": "main", "order_id": order_id})
        filled = (await client.hear())["data"][0]
        body: dict[str, Any] = {"account": "main", "arg": {"channel": "orders"}, "repeat": True}
        assert (await http.post("/sim/private", json=body)).json() == {"hit": 1}
        assert (await client.hear())["data"][0]["tradeId"] == filled["tradeId"]
        assert (await http.post("/sim/private", json={"account": "main", "arg": {}})).status_code == 400


def headers(venue: SimulatedVenue, target: str, account: Account = MAIN, age: float = 0.0) -> dict[str, str]:
    """Of a signed GET."""
    now = datetime.fromtimestamp(venue.floor.clock.now_us() / 1e6 - age, UTC)
    timestamp = now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03}Z"
    return {
        "OK-ACCESS-KEY": account.key,
        "OK-ACCESS-SIGN": signature(account.secret, f"{timestamp}GET{target}"),
        "OK-ACCESS-TIMESTAMP": timestamp,
        "OK-ACCESS-PASSPHRASE": account.passphrase,
    }


def test_rest_signatures_are_those_of_the_manual() -> None:
    when, body = "2020-12-08T09:08:57.715Z", b'{"instId":"BTC-USDT","lever":"5","mgnMode":"isolated"}'
    get = Request("GET", "/api/v5/account/balance?ccy=BTC", {})
    post = Request("POST", "/api/v5/account/set-leverage", {}, body)
    assert rest_signature(MAIN.secret, when, get) == "HiZhvSfMtWJA3uUIVXV3a/bSXNPCWvYFXoGCVS8V4zY="
    assert rest_signature(MAIN.secret, when, post) == "eCnnCgWLjlQ9XnpUkrcny3qNq3WW/81KNrDr/XR6Xv8="


@asynccontextmanager
async def over_http(*accounts: Account) -> AsyncIterator[tuple[SimulatedVenue, httpx.AsyncClient]]:
    limits = attrs.evolve(LIMITS, rest=Rate(1000, 1.0))
    async with (
        open_venue("okx", market=SLOW, accounts=accounts or (MAIN, OTHER), limits=limits) as venue,
        httpx.AsyncClient(base_url=venue.rest_url) as http,
    ):
        yield venue, http


async def test_rest_requests_must_be_signed_in_time() -> None:
    demo = attrs.evolve(OTHER, demo=True)
    target = "/api/v5/account/config"
    async with over_http(MAIN, demo) as (venue, http):

        async def ask(given: dict[str, str], at: str = target) -> tuple[int, str]:
            response = await http.get(at, headers=given)
            return response.status_code, response.json()["code"]

        good = headers(venue, target)
        paper = {"x-simulated-trading": "1"}
        assert await ask(good) == (200, "0")
        assert await ask({**headers(venue, target, demo), **paper}) == (200, "0")
        for name, code in (("KEY", "50103"), ("PASSPHRASE", "50104"), ("SIGN", "50106"), ("TIMESTAMP", "50107")):
            without = {key: value for key, value in good.items() if key != f"OK-ACCESS-{name}"}
            assert await ask(without) == (401, code)
        for changes, code in (
            ({"OK-ACCESS-KEY": "x"}, "50119"),
            ({"OK-ACCESS-PASSPHRASE": "x"}, "50105"),
            ({"OK-ACCESS-SIGN": "x"}, "50113"),
            ({"OK-ACCESS-TIMESTAMP": "1700000000"}, "50112"),
            (paper, "50101"),
        ):
            assert await ask({**good, **changes}) == (401, code)
        assert await ask(headers(venue, target, demo)) == (401, "50101")
        assert await ask(headers(venue, target, age=31)) == (401, "50102")
        assert await ask(headers(venue, target, age=29)) == (200, "0")
        assert await ask(headers(venue, target), f"{target}?a=1") == (401, "50113"), "the query is signed"
        venue.revoke("main")
        assert await ask(headers(venue, target)) == (401, "50111")


async def test_rest_answers_have_the_fields_of_the_documentation() -> None:
    async with over_http() as (venue, http):
        account = venue.accounts["main"]
        account.deposit("USDT", "1000")
        account.deposit("BTC", "1")
        account.fill(account.place("SWAP", SWAP, "buy", "65000.0", "2"))
        order_id = account.place("SPOT", "BTC-USDT", "sell", "70000.0", "0.5", client_order_id="c1")

        async def rows(path: str) -> list[dict[str, Any]]:
            target = f"/api/v5{path}"
            answer = (await http.get(target, headers=headers(venue, target))).json()
            assert (answer["code"], answer["msg"]) == ("0", "")
            return list(answer["data"])

        def expect(name: str) -> dict[str, type]:
            return types(documented(f"rest.{name}.jsonl")["data"][0])

        balance = (await rows("/account/balance"))[0]
        assert types(balance) == expect("account.balance")
        details = documented("rest.account.balance.jsonl")["data"][0]["details"][0]
        details["maxSpotInUseAmt"] = details.pop("maxSpotInUse")  # the documentation's name elsewhere
        assert types(balance["details"][0]).items() >= (types(details).items() - {("coinUsdPrice", str)})
        assert [each["ccy"] for each in balance["details"]] == ["USDT", "BTC"]
        assert balance["details"][1]["frozenBal"] == "0.5"
        only = (await rows("/account/balance?ccy=BTC"))[0]
        assert [each["ccy"] for each in only["details"]] == ["BTC"]
        positions = await rows("/account/positions?instType=SWAP")
        assert [types(row) for row in positions] == [expect("account.positions")]
        assert await rows("/account/positions?instId=ETH-USDT-SWAP") == []
        config = (await rows("/account/config"))[0]
        assert types(config) == expect("account.config")
        pending = await rows("/trade/orders-pending")
        assert [types(row) for row in pending] == [expect("trade.orders-pending")]
        assert pending == await rows(f"/trade/order?instId=BTC-USDT&ordId={order_id}")
        assert pending == await rows("/trade/order?instId=BTC-USDT&clOrdId=c1")
        fills = await rows("/trade/fills?instType=SWAP")
        assert [types(row) for row in fills] == [expect("trade.fills")]


async def test_orders_and_fills_are_paged_newest_first() -> None:
    async with over_http() as (venue, http):
        account = venue.accounts["main"]
        order_ids = [account.place("SPOT", "BTC-USDT", "buy", "60000.0", "1") for _ in range(250)]
        other = account.place("SWAP", SWAP, "buy", "60000.0", "300", time_in_force="PostOnly")
        fill_ids = [account.fill(other, "1") for _ in range(120)]
        account.fund("SWAP", SWAP, "0.0001")

        async def ask(path: str) -> dict[str, Any]:
            target = f"/api/v5{path}"
            answer: dict[str, Any] = (await http.get(target, headers=headers(venue, target))).json()
            return answer

        async def everything(path: str, number: str) -> tuple[list[dict[str, Any]], int]:
            rows = (await ask(path))["data"]
            pages = 1
            while len(page := (await ask(f"{path}&after={rows[-1][number]}"))["data"]) > 0:
                rows += page
                pages += 1
            return rows, pages

        found, pages = await everything("/trade/orders-pending?instType=SPOT", "ordId")
        assert ([row["ordId"] for row in found], pages) == (order_ids[::-1], 3)
        found, pages = await everything("/trade/orders-pending?instType=SPOT&limit=50", "ordId")
        assert (len(found), pages) == (250, 5)
        assert [row["ordId"] for row in (await ask("/trade/orders-pending?ordType=post_only"))["data"]] == [other]
        assert (await ask("/trade/orders-pending?state=partially_filled"))["data"][0]["accFillSz"] == "120"
        newer = (await ask(f"/trade/orders-pending?before={order_ids[-2]}&instType=SPOT"))["data"]
        assert [row["ordId"] for row in newer] == order_ids[-1:]
        found, pages = await everything(f"/trade/fills?ordId={other}", "billId")
        assert ([row["tradeId"] for row in found], pages) == (fill_ids[::-1], 2)
        newest = (await ask("/trade/fills?limit=1"))["data"]
        assert [row["tradeId"] for row in newest] == fill_ids[-1:], "funding is no fill"
        for path, code in (
            ("/trade/orders-pending?limit=101", "51000"),
            ("/trade/fills?begin=yesterday", "51000"),
            (f"/trade/fills?begin={'1' * 5000}", "51000"),
            ("/trade/order?ordId=1", "50014"),
            (f"/trade/order?instId={SWAP}", "51003"),
            (f"/trade/order?instId={SWAP}&ordId=1", "51603"),
        ):
            assert (await ask(path))["code"] == code


async def test_fills_go_back_three_days(autojump_clock: trio.testing.MockClock) -> None:
    async with open_venue("okx", market=SLOW, accounts=[MAIN], listen=False) as venue:
        account = venue.accounts["main"]
        times = []
        for _ in range(5):
            account.fill(account.place("SWAP", SWAP, "buy", "65000.0", "1"))
            times.append(venue.floor.clock.now_ms())
            venue.floor.clock.start_us += 86_400 * 10**6

        def fills(query: str = "") -> list[int]:
            target = f"/api/v5/trade/fills{query}"
            given = {name.lower(): value for name, value in headers(venue, target).items()}
            response = venue.dialect.rest(Request("GET", target, given))
            assert response is not None
            return [int(row["fillTime"]) for row in msgspec.json.decode(response.body)["data"]]

        assert fills() == times[:1:-1]
        assert fills(f"?begin={times[3]}") == times[:2:-1]
        assert fills(f"?begin={times[0]}&end={times[3]}") == [times[3], times[2]]
