from __future__ import annotations

import base64
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from trio_websocket import ConnectionClosed, ConnectionRejected

from pipeline.sim.settings import Account
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.sim.bybit_client import (
    ACCOUNT,
    NOW_MS,
    OTHER,
    SLOW,
    ask,
    auth,
    documented,
    log_in,
    private,
)
from tests.sim.clients import Client, connect, connect_in_memory, read_on

ORDER = ("linear", "BTCUSDT", "buy", "60000", "0.5")
# Fields of section 5 of the manual that its examples do not have.
ORDER_EXTRAS = {"slippageToleranceType", "slippageTolerance"}


async def hear_all(client: Client) -> list[dict[str, Any]]:
    """Everything that was sent so far: a ping is answered after it."""
    await client.say({"op": "ping"})
    return (await client.hear_until(lambda message: message.get("op") == "pong"))[:-1]


async def test_a_login_must_be_good_by_the_venues_clock(autojump_clock: trio.testing.MockClock) -> None:
    forged = auth(attrs.evolve(ACCOUNT, secret="WRONG"), NOW_MS + 60_000)
    wrong: list[dict[str, Any]] = [
        forged,
        auth(Account("no-key", ACCOUNT.secret), NOW_MS + 60_000),
        auth(ACCOUNT, NOW_MS - 1),
        {"op": "auth", "args": [ACCOUNT.key, str(NOW_MS + 60_000), forged["args"][2]]},
        {"op": "auth", "args": [ACCOUNT.key]},
    ]
    async with (
        open_venue("bybit", listen=False, market=SLOW, accounts=[ACCOUNT], start_us=NOW_MS * 1000) as venue,
        connect_in_memory(venue, "/v5/private") as client,
    ):
        for request in wrong:
            answer = await client.ask(request)
            expected = documented("control.auth.error.private.recorded.jsonl")
            assert answer.keys() == expected.keys()
            assert (answer["success"], answer["ret_msg"]) == (False, "Params Error")
        assert venue.connections[0].account is None
        # A client whose clock is a minute behind sends what has expired, until it asks for the venue's time.
        venue.floor.clock.start_us += 60_000_000
        slow = await client.ask(auth(ACCOUNT, NOW_MS + 10_000))
        assert slow["success"] is False
        answer = await client.ask(auth(ACCOUNT, venue.floor.clock.now_ms() + 10_000, req_id="r"))
        assert answer.keys() - {"req_id"} == documented("control.auth.ack.private.jsonl").keys()
        assert (answer["success"], answer["req_id"]) == (True, "r")


async def test_a_key_of_its_own_making_signs_with_rsa(autojump_clock: trio.testing.MockClock) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    account = Account("rsa-key", "", public_key=pem)
    expires = NOW_MS + 10_000
    good = base64.b64encode(key.sign(f"GET/realtime{expires}".encode(), padding.PKCS1v15(), SHA256())).decode()
    other = base64.b64encode(key.sign(b"GET/realtime1", padding.PKCS1v15(), SHA256())).decode()
    async with (
        open_venue("bybit", listen=False, market=SLOW, accounts=[account], start_us=NOW_MS * 1000) as venue,
        connect_in_memory(venue, "/v5/private") as client,
    ):
        for text in (other, "no base64", auth(account, expires)["args"][2]):
            answer = await client.ask({"op": "auth", "args": [account.key, expires, text]})
            assert answer["success"] is False
        answer = await client.ask({"op": "auth", "args": [account.key, expires, good]})
        assert answer["success"] is True


async def test_the_order_entry_server_names_what_is_wrong_with_a_login(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_venue("bybit", listen=False, market=SLOW, accounts=[ACCOUNT, OTHER], start_us=NOW_MS * 1000) as venue,
        connect_in_memory(venue, "/v5/trade") as client,
    ):
        venue.revoke("other", expired=True)
        later = NOW_MS + 10_000
        answers = [
            await client.ask(request)
            for request in (
                auth(Account("no-key", ""), later),
                auth(attrs.evolve(ACCOUNT, secret="WRONG"), later),
                auth(OTHER, later),
                auth(ACCOUNT, later, reqId="r"),
                auth(ACCOUNT, later),
            )
        ]
        assert [answer["retCode"] for answer in answers] == [10003, 10004, 33004, 0, 20001]
        assert answers[3]["reqId"] == "r"
        assert all(answer.keys() >= documented("trade.auth.response.jsonl").keys() - {"reqId"} for answer in answers)


@pytest.mark.parametrize("drop", [False, True])
async def test_a_revoked_key_loses_its_connections_and_opens_no_more(
    drop: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with private("order") as (venue, client), connect_in_memory(venue, "/v5/private") as other:
        await log_in(venue, other, OTHER)
        assert venue.revoke("main", drop=drop) == 1
        with pytest.raises(ConnectionClosed) as caught, trio.fail_after(60):
            await read_on(client)
        reason = caught.value.reason
        assert reason is not None
        assert (reason.code, reason.reason) == (1006 if drop else 1000, None)
        assert (await other.ask({"op": "ping"}))["op"] == "pong"
        async with connect_in_memory(venue, "/v5/private") as again:
            answer = await again.ask(auth(ACCOUNT, venue.floor.clock.now_ms() + 10_000))
            assert (answer["success"], answer["ret_msg"]) == (False, "Params Error")
        assert ask(venue, "/v5/account/info")["retCode"] == 10003
        venue.revoke("other", expired=True)
        assert ask(venue, "/v5/account/info", OTHER)["retCode"] == 33004


ALL_TOPICS = [
    *("order", "execution", "execution.fast", "position", "wallet", "greeks", "strategy"),
    *("spread.order", "spread.execution", "rfq.open.rfqs", "rfq.open.quotes", "rfq.open.trades"),
    *("dcp.future", "dcp.spot", "dcp.option"),
]
CATEGORISED = [
    *("order.spot", "order.linear", "order.inverse", "order.option", "execution.spot", "execution.fast.option"),
    *("position.linear", "position.option"),
]


async def test_every_documented_topic_can_be_had_and_no_other(autojump_clock: trio.testing.MockClock) -> None:
    async with private() as (venue, client):
        for topics in (ALL_TOPICS, CATEGORISED):
            answer = await client.ask({"op": "subscribe", "args": topics})
            assert answer.keys() == documented("control.subscribe.ack.private.jsonl").keys()
            assert (answer["success"], answer["ret_msg"]) == (True, "")
        assert venue.subscriptions() == len(ALL_TOPICS) + len(CATEGORISED)
        for topic in ("orders", "order.spread", "position.spot", "wallet.linear", "dcp", "tickers.BTCUSDT"):
            answer = await client.ask({"op": "subscribe", "args": [topic]})
            assert (answer["success"], answer["ret_msg"]) == (False, f"error:handler not found,topic:{topic}")
        answer = await client.ask({"op": "subscribe", "args": ["wallet"]})
        assert "already subscribed" in answer["ret_msg"]
        assert (await client.ask({"op": "unsubscribe", "args": ALL_TOPICS}))["success"] is True
        assert venue.subscriptions() == len(CATEGORISED)


async def test_both_forms_of_a_stream_in_one_request_are_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with private() as (venue, client):
        for topics in (["order", "order.linear"], ["execution.fast.spot", "wallet", "execution.fast"]):
            assert (await client.ask({"op": "subscribe", "args": topics}))["success"] is False
        assert venue.subscriptions() == 0
        good = ["order", "execution.linear", "execution.fast"]
        assert (await client.ask({"op": "subscribe", "args": good}))["success"] is True


async def test_a_topic_takes_its_permission(autojump_clock: trio.testing.MockClock) -> None:
    account = attrs.evolve(ACCOUNT, permissions=frozenset({"order", "execution"}))
    async with private("order", "execution.fast", accounts=[account]) as (venue, client):
        answer = await client.ask({"op": "subscribe", "args": ["wallet"]})
        assert (answer["success"], answer["ret_msg"]) == (False, "error:permission denied,topic:wallet")
        assert ask(venue, "/v5/order/realtime?category=spot")["retCode"] == 0
        assert ask(venue, "/v5/account/wallet-balance?accountType=UNIFIED")["retCode"] == 10005


async def test_nothing_comes_before_something_happens(autojump_clock: trio.testing.MockClock) -> None:
    async with private() as (venue, client):
        account = venue.accounts["main"]
        account.deposit("USDT", "1000")
        account.fill(account.place(*ORDER), "0.1")
        await client.ask({"op": "subscribe", "args": ["order", "execution", "position", "wallet", "greeks"]})
        await trio.sleep(60)
        assert await hear_all(client) == []


async def test_a_fill_is_told_in_order_on_every_stream(autojump_clock: trio.testing.MockClock) -> None:
    topics = ("order", "execution", "execution.fast", "position", "wallet", "greeks")
    async with private(*topics) as (venue, client):
        account = venue.accounts["main"]
        order_id = account.place(*ORDER, client_order_id="mine", time_in_force="PostOnly")
        assert [message["topic"] for message in await hear_all(client)] == ["order", "position"]
        fill_id = account.fill(order_id, "0.2")
        heard = await hear_all(client)
        assert [message["topic"] for message in heard] == ["order", "execution.fast", "execution", "position", "wallet"]
        order, fast, execution, position, wallet = (message["data"][0] for message in heard)
        assert (order["orderStatus"], order["leavesQty"], order["leavesValue"]) == ("PartiallyFilled", "0.3", "18000.0")
        assert (order["cumExecQty"], order["cumExecValue"], order["avgPrice"]) == ("0.2", "12000.0", "60000")
        assert order["cumFeeDetail"] == {"USDT": "2.40000000"}
        assert (order["timeInForce"], order["orderLinkId"]) == ("PostOnly", "mine")
        assert fast["orderLinkId"] == "", "a maker is not told"
        assert execution["orderLinkId"] == "mine"
        assert fast["execId"] == execution["execId"] == fill_id
        assert (execution["execType"], execution["execFee"], execution["feeCurrency"]) == (
            "Trade",
            "2.40000000",
            "USDT",
        )
        assert (execution["isMaker"], execution["execValue"], execution["leavesQty"]) == (True, "12000.0", "0.3")
        assert (position["side"], position["size"], position["entryPrice"]) == ("Buy", "0.2", "60000")
        assert position["seq"] == execution["seq"] == fast["seq"]
        assert [row["coin"] for row in wallet["coin"]] == ["USDT"]
        assert wallet["coin"][0]["walletBalance"] == "-2.40000000"
        account.fill(order_id, maker=False)
        account.fill(account.place("linear", "BTCUSDT", "sell", "61000", "0.5"))
        heard = await hear_all(client)
        assert [message["data"][0]["orderStatus"] for message in heard if message["topic"] == "order"] == [
            "Filled", "New", "Filled",
        ]  # fmt: skip
        closing = next(message["data"][0] for message in reversed(heard) if message["topic"] == "execution")
        assert (closing["closedSize"], closing["execPnl"]) == ("0.5", "500.0")
        flat = [message["data"][0] for message in heard if message["topic"] == "position"][-1]
        assert (flat["side"], flat["size"], flat["entryPrice"]) == ("", "0", "0")
        identifiers = [message["id"] for message in heard if "id" in message]
        assert len(identifiers) == len(set(identifiers))


def same_form(got: dict[str, Any], expected: dict[str, Any], extras: set[str]) -> None:
    assert expected.keys() - got.keys() == set()
    assert got.keys() - expected.keys() <= extras
    kinds = {key: type(value) for key, value in got.items() if key in expected and value != "" != expected[key]}
    assert kinds == {key: type(expected[key]) for key in kinds}


@pytest.mark.parametrize(
    ("topic", "market", "symbol", "name", "extras"),
    [
        ("order", "linear", "BTCUSDT", "derived.private.order.linear.sequence.jsonl", ORDER_EXTRAS),
        ("order", "option", "BTC-26MAR27-65000-C-USDT", "private.order.jsonl",
         {*ORDER_EXTRAS, "isLeverage", "parentOrderLinkId"}),
        ("execution", "linear", "BTCUSDT", "private.execution.jsonl", set()),
        ("execution.fast", "linear", "BTCUSDT", "private.execution.fast.jsonl", set()),
        ("position", "linear", "BTCUSDT", "derived.private.position.open-long.jsonl", set()),
        ("wallet", "linear", "BTCUSDT", "private.wallet.jsonl", set()),
        ("greeks", "option", "BTC-26MAR27-65000-C-USDT", "private.greeks.jsonl", set()),
    ],
)  # fmt: skip
async def test_messages_have_the_fields_of_the_samples(
    topic: str, market: str, symbol: str, name: str, extras: set[str], autojump_clock: trio.testing.MockClock
) -> None:
    expected = documented(name)
    async with private(topic) as (venue, client):
        account = venue.accounts["main"]
        account.fill(account.place(market, symbol, "buy", "100", "1"))
        got = (await hear_all(client))[-1]
        assert got.keys() == expected.keys()
        left, right = got["data"][0], expected["data"][0]
        same_form(left, right, extras)
        if topic == "wallet":
            same_form(left["coin"][0], right["coin"][0], {"colRes", "free"})


async def test_fields_that_a_market_has_not_are_absent(autojump_clock: trio.testing.MockClock) -> None:
    async with private("order", "execution", "position", "wallet") as (venue, client):
        account = venue.accounts["main"]
        for market, symbol in (("spot", "BTCUSDT"), ("option", "BTC-26MAR27-65000-C-USDT"), ("inverse", "BTCUSD")):
            account.fill(account.place(market, symbol, "buy", "60000", "1"))
        heard = await hear_all(client)
        orders, fills, positions, wallets = (
            {
                message["data"][0].get("category", "-"): message["data"][0]
                for message in heard
                if message["topic"] == topic
            }
            for topic in ("order", "execution", "position", "wallet")
        )
        assert "createType" not in orders["spot"].keys() | orders["option"].keys()
        assert "tpslMode" not in orders["spot"]
        assert orders["option"]["tpslMode"] == ""
        assert "createType" not in fills["spot"].keys() | fills["option"].keys()
        assert fills["inverse"]["createType"] == "CreateByUser"
        assert fills["spot"]["feeCurrency"] == fills["inverse"]["feeCurrency"] == "BTC"
        assert fills["option"]["tradeIv"] != fills["spot"]["tradeIv"] == ""
        assert positions.keys() == {"option", "inverse"}
        assert positions["option"].keys() >= {"delta", "gamma", "vega", "theta"}
        assert "delta" not in positions["inverse"]
        assert "breakEvenPrice" not in positions["option"]
        assert orders["inverse"]["cumExecValue"] == "0.00001667"
        assert wallets["-"]["accountType"] == "UNIFIED"


async def test_orders_say_how_they_ended(autojump_clock: trio.testing.MockClock) -> None:
    async with private("order") as (venue, client):
        account = venue.accounts["main"]
        spot = ("spot", "BTCUSDT", "buy", "50000", "1")
        account.cancel(account.place(*ORDER))
        account.cancel(account.place(*ORDER), "CancelByDCP")
        account.cancel(account.place(*ORDER), "EC_PostOnlyWillTakeLiquidity")
        account.reject(account.place(*ORDER), "EC_PostOnlyWillTakeLiquidity")
        account.expire(account.place(*ORDER))
        for market in (spot, ORDER):
            order_id = account.place(*market)
            account.fill(order_id, "0.1")
            account.cancel(order_id)
        ends = [message["data"][0] for message in await hear_all(client)]
        ends = [row for row in ends if row["orderStatus"] not in ("New", "PartiallyFilled")]
        assert [(row["orderStatus"], row["cancelType"], row["rejectReason"]) for row in ends] == [
            ("Cancelled", "CancelByUser", "EC_NoError"),
            ("Cancelled", "CancelByDCP", "EC_NoError"),
            ("Cancelled", "UNKNOWN", "EC_PostOnlyWillTakeLiquidity"),
            ("Rejected", "UNKNOWN", "EC_PostOnlyWillTakeLiquidity"),
            ("Deactivated", "UNKNOWN", "EC_NoError"),
            ("PartiallyFilledCanceled", "CancelByUser", "EC_NoError"),
            ("Cancelled", "CancelByUser", "EC_NoError"),
        ]
        assert all(row["leavesQty"] == "0" for row in ends)
        assert [row["cumExecQty"] for row in ends[-2:]] == ["0.1", "0.1"]


async def test_every_order_repeats_the_position_of_contracts(autojump_clock: trio.testing.MockClock) -> None:
    async with private("position") as (venue, client):
        account = venue.accounts["main"]
        order_id = account.place(*ORDER)
        account.amend(order_id, price="59000")
        account.cancel(order_id)
        account.place("spot", "BTCUSDT", "buy", "50000", "1")
        rows = [message["data"][0] for message in await hear_all(client)]
        assert [(row["symbol"], row["size"], row["side"], row["seq"]) for row in rows] == [
            ("BTCUSDT", "0", "", "-1")
        ] * 3


async def test_funding_comes_as_an_execution(autojump_clock: trio.testing.MockClock) -> None:
    async with private("execution", "execution.fast", "wallet") as (venue, client):
        account = venue.accounts["main"]
        account.fill(account.place(*ORDER))
        await hear_all(client)
        account.fund("linear", "BTCUSDT", "0.0001")
        execution, wallet = await hear_all(client)
        same_form(execution["data"][0], documented("derived.private.execution.funding.jsonl")["data"][0], set())
        row = execution["data"][0]
        assert (execution["topic"], row["execType"], row["orderType"]) == ("execution", "Funding", "UNKNOWN")
        assert row["execFee"] == f"{account.fills[-1].fee:f}"
        assert wallet["data"][0]["coin"][0]["walletBalance"] == f"{account.balance('USDT').total:f}"


async def test_a_categorised_subscription_hears_its_category_under_its_name(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with private("order.linear", "execution.spot", "position.inverse") as (venue, client):
        account = venue.accounts["main"]
        for market, symbol in (("spot", "BTCUSDT"), ("linear", "BTCUSDT"), ("inverse", "BTCUSD")):
            account.fill(account.place(market, symbol, "buy", "60000", "1"))
        heard = [(message["topic"], message["data"][0]["category"]) for message in await hear_all(client)]
        assert set(heard) == {("order.linear", "linear"), ("execution.spot", "spot"), ("position.inverse", "inverse")}
        assert heard.count(("order.linear", "linear")) == 2


async def test_every_connection_of_an_account_hears_the_same_and_no_other_account(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        private("order") as (venue, client),
        connect_in_memory(venue, "/v5/private") as second,
        connect_in_memory(venue, "/v5/private") as stranger,
    ):
        for each, account in ((second, ACCOUNT), (stranger, OTHER)):
            await log_in(venue, each, account)
            await each.ask({"op": "subscribe", "args": ["order"]})
        venue.accounts["main"].place(*ORDER)
        assert await hear_all(client) == await hear_all(second) != []
        assert await hear_all(stranger) == []
        assert ask(venue, "/v5/order/realtime?category=linear&symbol=BTCUSDT", OTHER)["result"]["list"] == []


async def test_what_nothing_generates_is_pushed(autojump_clock: trio.testing.MockClock) -> None:
    async with private("strategy", "rfq.open.trades", "dcp.spot") as (venue, client):
        account = venue.accounts["main"]
        for name in ("private.strategy.jsonl", "private.rfq.open.trades.jsonl"):
            expected = documented(name)
            given = {"topic": expected["topic"], "data": expected["data"]}
            assert venue.dialect.push_private(account, dict(given)) == 1
            assert venue.dialect.push_private(venue.accounts["other"], dict(given)) == 0
            (got,) = await hear_all(client)
            assert got.keys() == expected.keys()
            assert got["data"] == expected["data"]
            assert got["creationTime"] == NOW_MS
        faulty: list[dict[str, Any]] = [{"data": []}, {"topic": "nothing", "data": []}, {"topic": "strategy"}]
        for wrong in faulty:
            with pytest.raises(ValueError, match=r"topic|data"):
                venue.dialect.push_private(account, wrong)


async def test_faults_reach_private_topics(autojump_clock: trio.testing.MockClock) -> None:
    async with private("order", "execution") as (venue, client):
        account = venue.accounts["main"]
        venue.fault("gap", topic="execution")
        account.fill(account.place(*ORDER))
        assert [message["topic"] for message in await hear_all(client)] == ["order", "order"]
        assert len(account.fills) == 1, "what was lost on the way has happened"
        venue.fault("refuse_topic", topic="wallet")
        assert (await client.ask({"op": "subscribe", "args": ["wallet"]}))["success"] is False


async def test_the_idle_time_can_be_chosen_within_bounds(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_venue("bybit", listen=False, market=SLOW) as venue,
        connect_in_memory(venue, "/v5/private?max_active_time=45s") as client,
    ):
        began = trio.current_time()
        with pytest.raises(ConnectionClosed):
            await read_on(client)
        assert 45 <= trio.current_time() - began <= 76


@pytest.mark.parametrize(
    ("wanted", "fits"), [("30s", True), ("10m", True), ("29s", False), ("11m", False), ("60", False), ("", False)]
)
async def test_idle_times_out_of_bounds_are_refused(wanted: str, fits: bool) -> None:
    async def opens(venue: SimulatedVenue, path: str) -> bool:
        try:
            async with connect(venue, f"{path}?max_active_time={wanted}"):
                return True
        except ConnectionRejected as error:
            return error.status_code != 400

    async with open_venue("bybit", market=SLOW) as venue:
        assert await opens(venue, "/v5/private") is fits
        assert await opens(venue, "/v5/public/linear") is True, "not for public paths"
