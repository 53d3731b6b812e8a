from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import attrs
import httpx
import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed

from pipeline.sim.bybit import LIMITS
from pipeline.sim.settings import Account, MarketSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.sim.bybit_client import ACCOUNT, NOW_MS, OTHER, SLOW, auth, documented, log_in
from tests.sim.clients import Client, connect, connect_in_memory, read_on

FAST = attrs.evolve(LIMITS, order_factor=100)
FAR = {"symbol": "BTCUSDT", "side": "Buy", "orderType": "Limit", "qty": "0.01", "price": "60000"}


@attrs.define
class Trader:
    """A connection to `/v5/trade` and what is said over it."""

    venue: SimulatedVenue
    client: Client
    numbers: itertools.count[int] = attrs.field(factory=itertools.count, init=False)

    async def send(self, op: str, *args: Any, header: dict[str, Any] | None = None, **more: Any) -> None:
        """A request as it stands, by default with a header of this moment and an identifier of its own."""
        stamp = {"X-BAPI-TIMESTAMP": str(self.venue.floor.clock.now_ms())}
        frame = {"reqId": f"r{next(self.numbers)}", "header": stamp if header is None else header, "op": op}
        await self.client.say({**frame, "args": list(args), **more})

    async def ask(self, op: str, *args: Any, **more: Any) -> dict[str, Any]:
        """The answer to it."""
        await self.send(op, *args, **more)
        return await self.client.hear()

    async def create(self, *, category: str = "linear", **changes: Any) -> dict[str, Any]:
        """One order far from the market, with changes; None leaves an argument out."""
        args = {"category": category, **FAR, **changes}
        return await self.ask("order.create", {name: value for name, value in args.items() if value is not None})

    async def code(self, **changes: Any) -> int:
        """Of a new order."""
        return int((await self.create(**changes))["retCode"])

    async def named(self, op: str, *, category: str = "linear", symbol: str = "BTCUSDT", **args: str) -> Any:
        """Amend or cancel."""
        return await self.ask(f"order.{op}", {"category": category, "symbol": symbol, **args})

    async def batch(self, op: str, *rows: dict[str, Any], category: str = "linear") -> dict[str, Any]:
        """The answer to a batch."""
        return await self.ask(f"order.{op}-batch", {"category": category, "request": list(rows)})


@asynccontextmanager
async def trading(account: Account = ACCOUNT, **options: Any) -> AsyncIterator[Trader]:
    given: dict[str, Any] = {
        "market": SLOW, "accounts": [ACCOUNT, OTHER], "start_us": NOW_MS * 1000, "limits": FAST
    } | options  # fmt: skip
    async with open_venue("bybit", listen=False, **given) as venue, open_trader(venue, account) as trader:
        yield trader


@asynccontextmanager
async def open_trader(venue: SimulatedVenue, account: Account = ACCOUNT) -> AsyncIterator[Trader]:
    """One more connection that has logged in."""
    async with connect_in_memory(venue, "/v5/trade") as client:
        answer = await client.ask(auth(account, venue.floor.clock.now_ms() + 10_000))
        assert answer["retCode"] == 0, answer
        yield Trader(venue, client)


def orders_of(trader: Trader) -> dict[str, Any]:
    """What the exchange counted."""
    found: dict[str, Any] = trader.venue.tally.of("main")["orders"]
    return found


async def test_an_order_is_acknowledged_as_documented(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader:
        request = documented("trade.order.create.request.jsonl")
        request["header"]["X-BAPI-TIMESTAMP"] = str(NOW_MS)
        answer = await trader.client.ask(request)
        expected = documented("trade.order.create.response.jsonl")
        assert answer.keys() == expected.keys()
        assert answer["data"].keys() == expected["data"].keys()
        assert answer["header"].keys() == expected["header"].keys()
        assert {key: answer[key] for key in ("reqId", "retCode", "retMsg", "op", "retExtInfo")} == {
            key: expected[key] for key in ("reqId", "retCode", "retMsg", "op", "retExtInfo")
        }
        assert answer["header"]["Timenow"] == str(NOW_MS)
        order = trader.venue.accounts["main"].orders[answer["data"]["orderId"]]
        assert (order.symbol, order.side, order.price, order.size, order.time_in_force) == (
            "ETHUSDT", "buy", Decimal(2800), Decimal("0.2"), "PostOnly",
        )  # fmt: skip


async def test_a_life_from_creation_to_cancellation_is_counted(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader:
        created = await trader.create(orderLinkId="a")
        order_id = created["data"]["orderId"]
        assert created["data"]["orderLinkId"] == "a"
        amended = await trader.named("amend", orderLinkId="a", price="59000", qty="0.02")
        assert (amended["retCode"], amended["data"]["orderId"]) == (0, order_id)
        order = trader.venue.accounts["main"].orders[order_id]
        assert (order.price, order.size) == (Decimal(59000), Decimal("0.02"))
        cancelled = await trader.named("cancel", orderId=order_id, orderLinkId="b")  # the former counts
        assert (cancelled["retCode"], cancelled["data"]["orderLinkId"]) == (0, "a")
        assert (await trader.named("cancel", orderLinkId="a"))["retCode"] == 110010
        once = {"received": 1, "taken": 1}
        assert orders_of(trader) == {"a": {"create": once, "amend": once, "cancel": {"received": 2, "taken": 1}}}
        state = trader.venue.tally.of("main")
        assert state["totals"]["cancel"] == {"received": 2, "taken": 1}
        assert [(each["action"], each["order_id"], each["code"]) for each in state["log"]] == [
            ("create", order_id, "0"), ("amend", order_id, "0"), ("cancel", order_id, "0"),
            ("cancel", order_id, "110010"),
        ]  # fmt: skip
        assert trader.venue.tally.of("other") == {"account": "other", "orders": {}, "totals": {}, "log": []}


async def test_orders_and_fills_come_on_the_private_stream(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader, connect_in_memory(trader.venue, "/v5/private") as private:
        await log_in(trader.venue, private)
        await private.ask({"op": "subscribe", "args": ["order", "execution"]})
        answer = await trader.create(
            orderType="Market", qty="0.001", price=None, orderLinkId="mine", timeInForce="IOC"
        )  # fmt: skip
        heard = await private.hear_until(lambda message: message["topic"] == "execution")
        fill = heard[-1]["data"][0]
        assert (fill["orderId"], fill["orderLinkId"], fill["isMaker"]) == (answer["data"]["orderId"], "mine", False)
        statuses = [row["orderStatus"] for message in heard if message["topic"] == "order" for row in message["data"]]
        assert statuses == ["New", "Filled"]


async def test_post_only_is_refused_on_the_stream_not_in_the_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader:
        answer = await trader.create(price="70000", timeInForce="PostOnly")
        assert answer["retCode"] == 0
        order = trader.venue.accounts["main"].orders[answer["data"]["orderId"]]
        assert (order.status, order.reason) == ("rejected", "EC_PostOnlyWillTakeLiquidity")
        answer = await trader.create(price="60000", timeInForce="IOC")
        order = trader.venue.accounts["main"].orders[answer["data"]["orderId"]]
        assert (order.status, order.reason) == ("cancelled", "EC_NoImmediateQtyToFill")


@pytest.mark.parametrize(
    ("category", "changes", "code"),
    [
        ("linear", {"symbol": "NOUSDT"}, 10001),
        ("linear", {"side": "buy"}, 10001),
        ("linear", {"orderType": "Stop"}, 10001),
        ("linear", {"timeInForce": "GTD"}, 10001),
        ("linear", {"timeInForce": "RPI"}, 110119),
        ("linear", {"orderType": "Market", "timeInForce": "PostOnly"}, 10001),
        ("linear", {"price": None}, 10001),
        ("linear", {"price": "60000.05"}, 10001),
        ("linear", {"price": 60000}, 10001),
        ("linear", {"qty": "-1"}, 10001),
        ("linear", {"qty": "1e2"}, 10001),
        ("linear", {"qty": "0.0005"}, 10001),
        ("linear", {"qty": "1191"}, 10001),
        ("linear", {"price": "1000.00", "qty": "0.001"}, 110094),
        ("linear", {"orderLinkId": "no spaces"}, 10001),
        ("linear", {"orderLinkId": "x" * 37}, 10001),
        ("linear", {"orderLinkId": "x" * 36}, 0),
        ("linear", {"positionIdx": 1}, 10001),
        ("linear", {"reduceOnly": True}, 110017),
        ("linear", {"reduceOnly": "true"}, 10001),
        ("linear", {"triggerPrice": "60000"}, 10001),
        ("inverse", {"symbol": "BTCUSD", "qty": "1"}, 0),
        ("spot", {"symbol": "NOUSDT"}, 170121),
        ("spot", {"side": "buy"}, 170117),
        ("spot", {"orderType": "Stop"}, 170116),
        ("spot", {"timeInForce": "GTD"}, 170115),
        ("spot", {"price": "60000.05"}, 170134),
        ("spot", {"qty": "0.0100001"}, 170137),
        ("spot", {"qty": "0.0000001"}, 170136),
        ("spot", {"qty": "84"}, 170124),
        ("spot", {"qty": "0.00001"}, 170140),
        ("spot", {"marketUnit": "coins"}, 170130),
        ("option", {"symbol": "BTC-26MAR27-65000-C-USDT", "price": "1000"}, 10001),
        ("option", {"symbol": "BTC-26MAR27-65000-C-USDT", "price": "1000", "orderLinkId": "o"}, 0),
        ("spread", {}, 10404),
        ("futures", {}, 10404),
    ],
)
async def test_what_is_wrong_has_a_code(
    category: str, changes: dict[str, Any], code: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with trading() as trader:
        answer = await trader.create(category=category, **changes)
        assert answer["retCode"] == code, answer
        assert bool(trader.venue.accounts["main"].orders) == (code == 0)
        if code:
            assert (answer["data"], answer["retExtInfo"]) == ({}, {})


@pytest.mark.parametrize(
    ("category", "symbol", "codes"),
    [
        ("linear", "BTCUSDT", {"unknown": 110001, "filled": 110008, "closed": 110010, "twice": 110072}),
        ("spot", "BTCUSDT", {"unknown": 170213, "filled": 170139, "closed": 170142, "twice": 170141}),
    ],
)
async def test_what_is_over_has_a_code(
    category: str, symbol: str, codes: dict[str, int], autojump_clock: trio.testing.MockClock
) -> None:
    async with trading() as trader:

        async def code(op: str, link_id: str, **more: str) -> int:
            answer = await trader.named(op, category=category, symbol=symbol, orderLinkId=link_id, **more)
            return int(answer["retCode"])

        assert await code("cancel", "a") == codes["unknown"]
        assert await trader.code(category=category, orderLinkId="a") == 0
        assert await trader.code(category=category, orderLinkId="a") == codes["twice"]
        assert await code("amend", "a") == 10001
        assert await code("amend", "a", price="60000.0") == 34040
        assert await code("cancel", "a") == 0
        assert await code("cancel", "a") == codes["closed"]
        assert await code("amend", "a", price="50000") == codes["closed"]
        assert await trader.code(category=category, orderLinkId="a") == codes["twice"]
        filled = await trader.create(category=category, orderLinkId="b")
        trader.venue.accounts["main"].fill(filled["data"]["orderId"])
        assert await code("cancel", "b") == codes["filled"]
        partly = await trader.create(category=category, orderLinkId="c", qty="0.02")
        trader.venue.accounts["main"].fill(partly["data"]["orderId"], "0.01")
        assert await code("amend", "c", qty="0.01") == (170313 if category == "spot" else 110064)
        assert (await trader.named("cancel", category=category, symbol=symbol))["retCode"] == 10001


async def test_a_spot_market_purchase_is_by_value_unless_it_says_otherwise(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trading() as trader:
        market: dict[str, Any] = {"category": "spot", "orderType": "Market", "price": None}
        found = {}
        for name, changes in {
            "value": {"qty": "100"},
            "sized": {"qty": "0.001", "marketUnit": "baseCoin"},
            "sold": {"qty": "0.001", "side": "Sell"},
            "sold for": {"qty": "100", "side": "Sell", "marketUnit": "quoteCoin"},
        }.items():
            answer = await trader.create(**{**market, **changes})
            assert answer["retCode"] == 0, answer
            found[name] = trader.venue.accounts["main"].orders[answer["data"]["orderId"]]
        assert all(order.status == "filled" for order in found.values())
        assert Decimal("0.001") < found["value"].size < Decimal("0.002")
        assert found["value"].quote_size == Decimal(100)
        assert found["sized"].size == found["sold"].size == Decimal("0.001")
        assert found["sold for"].quote_size == Decimal(100)


async def test_a_batch_tells_order_by_order_what_became_of_it(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader:
        created = await trader.batch(
            "create", {**FAR, "orderLinkId": "a"}, {**FAR, "qty": "x", "orderLinkId": "b"}, {**FAR, "orderLinkId": "c"}
        )
        expected = documented("trade.order.create-batch.response.jsonl")
        assert (created["retCode"], created["retMsg"]) == (0, "OK")
        assert created["data"]["list"][0].keys() == expected["data"]["list"][0].keys()
        assert [bool(row["orderId"]) for row in created["data"]["list"]] == [True, False, True]
        assert [row["orderLinkId"] for row in created["data"]["list"]] == ["a", "b", "c"]
        assert created["data"]["list"][0]["createAt"] == str(NOW_MS)
        assert created["data"]["list"][1]["createAt"] == ""
        assert [row["code"] for row in created["retExtInfo"]["list"]] == [0, 10001, 0]
        for op, more in (("amend", {"price": "50000"}), ("cancel", {})):
            rows = [{"symbol": "BTCUSDT", "orderLinkId": link_id, **more} for link_id in ("a", "nobody")]
            answer = await trader.batch(op, *rows)
            expected = documented(f"derived.trade.order.{op}-batch.response.jsonl")
            assert answer["data"]["list"][0].keys() == expected["data"]["list"][0].keys()
            assert [row["code"] for row in answer["retExtInfo"]["list"]] == [0, 110001]
            assert answer["data"]["list"][1]["orderId"] == ""
        assert orders_of(trader)["b"] == {"create": {"received": 1, "taken": 0}}


async def test_batches_have_a_size(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader:
        for category, most in (("spot", 10), ("linear", 20)):
            assert (await trader.batch("create", *[FAR] * (most + 1), category=category))["retCode"] == 10001
            assert not trader.venue.accounts["main"].orders
        assert (await trader.batch("create", *[FAR] * 20))["retCode"] == 0
        assert (await trader.batch("create"))["retCode"] == 10001
        assert trader.venue.tally.of("main")["totals"]["create"] == {"received": 11 + 21 + 20, "taken": 20}


async def test_frames_are_checked(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader:
        order = {"category": "linear", **FAR}
        late, early = str(NOW_MS - 5001), str(NOW_MS + 1000)
        for header, code in (
            ({}, 10001),
            ({"X-BAPI-TIMESTAMP": "now"}, 10001),
            ({"X-BAPI-TIMESTAMP": late}, 10002),
            ({"X-BAPI-TIMESTAMP": late, "X-BAPI-RECV-WINDOW": "5001"}, 0),
            ({"X-BAPI-TIMESTAMP": str(NOW_MS - 101), "X-BAPI-RECV-WINDOW": 100}, 10002),
            ({"X-BAPI-TIMESTAMP": early}, 10002),
            ({"X-BAPI-TIMESTAMP": NOW_MS + 999}, 0),
        ):
            assert (await trader.ask("order.create", order, header=header))["retCode"] == code, header
        assert (await trader.ask("order.create", order, headers={}))["retCode"] == 0
        assert (await trader.ask("order.create", order, header="x"))["retCode"] == 10001
        assert (await trader.ask("order.create"))["retCode"] == 10001
        assert (await trader.ask("order.create", order, order))["retCode"] == 10001
        assert (await trader.ask("order.create", "order"))["retCode"] == 10001
        assert (await trader.ask("order.replace", order))["retCode"] == 10404
        assert (await trader.ask("order.create", order, reqId="x" * 37))["retCode"] == 10001
        assert (await trader.ask("order.create", order, reqId="one"))["retCode"] == 0
        again = await trader.ask("order.create", order, reqId="one")
        assert (again["retCode"], again["reqId"]) == (20006, "one")
        await trader.client.say({"op": "order.create", "header": {"X-BAPI-TIMESTAMP": NOW_MS}, "args": [order]})
        assert "reqId" not in await trader.client.hear()
        expected = documented("trade.pong.jsonl")
        assert (await trader.client.ask({"op": "ping"})).keys() == expected.keys()


async def test_only_whoever_has_logged_in_and_may_trade_enters_orders(autojump_clock: trio.testing.MockClock) -> None:
    reader = Account("r-key", "READER", name="reader", may_trade=False)
    async with trading(accounts=[ACCOUNT, OTHER, reader]) as trader:
        async with connect_in_memory(trader.venue, "/v5/trade") as stranger:
            assert (await Trader(trader.venue, stranger).create())["retCode"] == 10007
        async with open_trader(trader.venue, reader) as other:
            assert await other.code() == 10005
        async with connect_in_memory(trader.venue, "/v5/private") as private:
            await log_in(trader.venue, private)
            answer = await private.ask({"op": "order.create", "args": [{"category": "linear", **FAR}]})
            assert answer["success"] is False
        trader.venue.accounts["main"].revoked = "expired"
        assert await trader.code() == 33004
        assert not any(account.orders for account in trader.venue.accounts.values())


async def test_an_account_has_so_many_sessions(autojump_clock: trio.testing.MockClock) -> None:
    limits = attrs.evolve(FAST, trade_sessions=2)
    async with trading(limits=limits) as trader, open_trader(trader.venue, OTHER):
        async with open_trader(trader.venue), connect_in_memory(trader.venue, "/v5/trade") as third:
            answer = await third.ask(auth(ACCOUNT, NOW_MS + 10_000))
            assert answer["retCode"] == 10003
        await trader.venue.wait_connections(2)
        async with open_trader(trader.venue):
            pass


async def test_each_operation_has_its_rate(autojump_clock: trio.testing.MockClock) -> None:
    async with trading(limits=LIMITS) as trader:
        answers = [await trader.create(orderLinkId=f"a{number}") for number in range(11)]
        assert [answer["retCode"] for answer in answers] == [0] * 10 + [10006]
        assert [answer["header"]["X-Bapi-Limit-Status"] for answer in answers] == [*map(str, range(9, -1, -1)), "0"]
        assert answers[0]["header"]["X-Bapi-Limit"] == "10"
        assert answers[-1]["header"]["X-Bapi-Limit-Reset-Timestamp"] == str(NOW_MS + 1000)
        # Contracts share a rate; spot, options, other operations and batches have their own.
        assert await trader.code(category="inverse", symbol="BTCUSD", qty="1") == 10006
        assert await trader.code(category="spot") == 0
        assert (await trader.named("cancel", orderLinkId="a0"))["retCode"] == 0
        rows = [{**FAR, "orderLinkId": f"b{number}"} for number in range(12)]
        batch = await trader.batch("create", *rows)
        assert (batch["retCode"], [row["code"] for row in batch["retExtInfo"]["list"]]) == (0, [0] * 10 + [10006] * 2)
        async with open_trader(trader.venue, OTHER) as other:
            assert await other.code() == 0
        await trio.sleep(1)
        assert await trader.code(orderLinkId="a10") == 0


async def test_a_new_server_is_wanted_before_the_old_one_ends(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader:
        assert trader.venue.fault("ends_soon", seconds=30) == 1
        answer = await trader.create(orderLinkId="a")
        expected = documented("derived.trade.order.error.response.jsonl", 3)
        assert (answer["retCode"], answer["retMsg"]) == (expected["retCode"], expected["retMsg"])
        assert orders_of(trader) == {"a": {"create": {"received": 1, "taken": 0}}}
        async with open_trader(trader.venue) as replacement:
            assert await replacement.code(orderLinkId="a") == 0
            begin = trio.current_time()
            with pytest.raises(ConnectionClosed):
                await read_on(trader.client)
            assert trio.current_time() - begin == pytest.approx(30, abs=1)
            assert await replacement.code(orderLinkId="b") == 0


async def test_the_header_of_a_limited_request_says_when_there_is_more(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader:
        trader.venue.fault("rate_limited")
        answer = await trader.create()
        limits = {key: answer["header"][f"X-Bapi-Limit-{key}"] for key in ("Status", "Reset-Timestamp")}
        assert (answer["retCode"], limits) == (10006, {"Status": "0", "Reset-Timestamp": str(NOW_MS + 1000)})


async def test_the_market_moves_for_whoever_rests_in_it(autojump_clock: trio.testing.MockClock) -> None:
    async with trading(market=MarketSettings(rate=50)) as trader:
        engine = trader.venue.engine("linear", "BTCUSDT")
        order_id = (await trader.create(price=engine.price(engine.bids.best), qty="0.001"))["data"]["orderId"]
        orders = trader.venue.accounts["main"].orders
        with trio.fail_after(3600):
            while orders[order_id].is_open:
                await trader.client.ask({"op": "ping"})
                await trio.sleep(1)
        assert (orders[order_id].status, trader.venue.accounts["main"].fills[-1].maker) == ("filled", True)
        steps = engine.steps
        await trio.sleep(60)
        assert engine.steps == steps > 0


async def test_judges_ask_over_http() -> None:
    async with open_venue("bybit", market=SLOW, accounts=[ACCOUNT]) as venue, connect(venue, "/v5/trade") as client:
        assert (await client.ask(auth(ACCOUNT, venue.floor.clock.now_ms() + 10_000)))["retCode"] == 0
        trader = Trader(venue, client)
        async with httpx.AsyncClient(base_url=venue.rest_url) as http:
            armed = await http.post("/sim/fault", json={"kind": "drop_before_ack", "action": "create"})
            assert armed.json() == {"hit": 1}
            await trader.send("order.create", {"category": "linear", **FAR, "orderLinkId": "a"})
            with pytest.raises(ConnectionClosed):
                await read_on(client)
            counted = (await http.get("/sim/orders")).json()
            assert counted["orders"] == {"a": {"create": {"received": 1, "taken": 1}}}
            assert [(each["action"], each["taken"], each["code"]) for each in counted["log"]] == [("create", True, "0")]
            assert (await http.get("/sim/orders?name=nobody")).status_code == 400
