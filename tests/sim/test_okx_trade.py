from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed

from pipeline.model.rate import Rate
from pipeline.sim.accounts import Order
from pipeline.sim.http import Request
from pipeline.sim.okx import LIMITS
from pipeline.sim.settings import Account
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.sim.clients import Client, connect_in_memory, read_on
from tests.sim.okx_client import ACCOUNT, SLOW, SWAP, answered, documented, log_in, signed, subscribe

NOW_US = 1_800_000_000_000_000
MAIN = attrs.evolve(ACCOUNT, name="main")
OTHER = Account("other-key", "another-secret", "another-phrase", name="other")
QUIET = attrs.evolve(LIMITS, idle=1000.0, connects=Rate(100, 1.0))
FAR = {"tdMode": "cross", "side": "buy", "ordType": "limit", "sz": "1", "px": "60000"}
OPTION = "BTC-USD-270326-65000-C"


@attrs.define
class Trader:
    """A private connection and the orders that are entered over it."""

    venue: SimulatedVenue
    client: Client
    codes: dict[str, int]
    """Of instruments, as REST tells them."""
    numbers: itertools.count[int] = attrs.field(factory=itertools.count, init=False)

    def arg(self, given: dict[str, Any], symbol: str = SWAP) -> dict[str, Any]:
        """With the instrument's code; None leaves an argument out."""
        named = {"instIdCode": self.codes[symbol], **given}
        return {key: value for key, value in named.items() if value is not None}

    async def ask(self, op: str, *args: Any, **more: Any) -> dict[str, Any]:
        """The answer to an operation."""
        await self.client.say({"id": f"r{next(self.numbers)}", "op": op, "args": list(args), **more})
        return (await self.client.hear_until(lambda message: "op" in message))[-1]

    async def row(self, op: str, symbol: str = SWAP, **given: Any) -> dict[str, Any]:
        """The one row of the answer."""
        (row,) = (await self.ask(op, self.arg(given, symbol)))["data"]
        assert isinstance(row, dict)
        return row

    async def create(self, symbol: str = SWAP, **changes: Any) -> str:
        """Code of the answer to an order far from the market, with changes."""
        mode = {"tdMode": "cash"} if symbol.count("-") == 1 else {}
        return str((await self.row("order", symbol, **FAR | mode | changes))["sCode"])

    def order(self, row: dict[str, Any]) -> Order:
        """As it stands."""
        return self.venue.accounts["main"].orders[row["ordId"]]


def codes_of(venue: SimulatedVenue) -> dict[str, int]:
    """From the instruments that the venue lists."""
    found: dict[str, int] = {}
    for query in ("SPOT", "SWAP", "FUTURES", "OPTION&instFamily=BTC-USD", "OPTION&instFamily=ETH-USD"):
        answer = answered(venue, Request("GET", f"/api/v5/public/instruments?instType={query}", {}))
        found |= {row["instId"]: row["instIdCode"] for row in answer["data"]}
    return found


@asynccontextmanager
async def trading(account: Account = MAIN, **options: Any) -> AsyncIterator[Trader]:
    given: dict[str, Any] = {
        "market": SLOW, "accounts": [MAIN, OTHER], "limits": QUIET, "start_us": NOW_US
    } | options  # fmt: skip
    async with open_venue("okx", listen=False, **given) as venue, open_trader(venue, account) as trader:
        yield trader


@asynccontextmanager
async def open_trader(venue: SimulatedVenue, account: Account = MAIN) -> AsyncIterator[Trader]:
    """One more connection that has logged in."""
    async with connect_in_memory(venue, "/ws/v5/private") as client:
        await log_in(venue, client, account)
        yield Trader(venue, client, codes_of(venue))


def orders_of(trader: Trader) -> dict[str, Any]:
    """What the exchange counted."""
    found: dict[str, Any] = trader.venue.tally.of("main")["orders"]
    return found


async def test_answers_are_as_documented(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader:
        request = documented("trade.order.request.constructed.jsonl")
        request["args"][0] |= {"instIdCode": trader.codes[SWAP]}
        request["expTime"] = str(NOW_US // 1000)
        created = await trader.client.ask(request)
        order_id = created["data"][0]["ordId"]
        stamp = str(NOW_US // 1000)
        assert created == documented("trade.order.response.jsonl") | {
            "data": [
                {"clOrdId": "arb1001", "ordId": order_id, "tag": "pipeline", "ts": stamp, "sCode": "0", "sMsg": "",
                 "subCode": ""}
            ],
            "inTime": str(NOW_US), "outTime": str(NOW_US),
        }  # fmt: skip
        again = await trader.client.ask(request)
        expected = documented("trade.order.response.constructed.jsonl", 1)
        assert again["code"] == expected["code"] == "1"
        told, given = again["data"][0], expected["data"][0]
        assert told == given | {"tag": "pipeline", "ts": stamp}
        for op, more in (("amend", {"newSz": "2", "reqId": "b1"}), ("cancel", {})):
            expected = documented(f"trade.{op}-order.response.jsonl")
            answer = await trader.ask(f"{op}-order", trader.arg({"clOrdId": "arb1001", **more}))
            assert answer.keys() == expected.keys()
            assert answer["data"][0].keys() == expected["data"][0].keys()
            row = {"sCode": "0", "ordId": order_id, "clOrdId": "arb1001", "ts": stamp}
            assert answer["data"][0].items() >= row.items()
            assert answer["data"][0].get("reqId") == more.get("reqId")


async def test_a_life_from_creation_to_cancellation_is_counted(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader:
        assert await trader.create(clOrdId="a") == "0"
        amended = await trader.row("amend-order", clOrdId="a", newPx="59000", newSz="2")
        order = trader.order(amended)
        assert (order.price, order.size) == (Decimal(59000), Decimal(2))
        cancelled = await trader.row("cancel-order", ordId=order.order_id, clOrdId="b")  # the former counts
        assert cancelled["sCode"] == "0"
        assert trader.order(cancelled).status == "cancelled"
        assert (await trader.row("cancel-order", clOrdId="a"))["sCode"] == "51401"
        assert await trader.create(clOrdId="a") == "0"  # it is unique among the pending ones only
        once = {"received": 1, "taken": 1}
        assert orders_of(trader) == {
            "a": {"create": {"received": 2, "taken": 2}, "amend": once, "cancel": {"received": 2, "taken": 1}}
        }


async def test_orders_and_fills_come_on_the_private_channels(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader:
        await trader.client.ask(subscribe("orders", None, instType="ANY"))
        await trader.client.hear()
        await trader.client.say(
            {"id": "1", "op": "order", "args": [trader.arg(FAR | {"ordType": "market", "clOrdId": "mine"})]}
        )
        heard = await trader.client.hear_until(lambda message: "op" in message)
        rows = [message["data"][0] for message in heard[:-1]]
        assert (rows[0]["state"], rows[-1]["state"], rows[-1]["accFillSz"]) == ("live", "filled", "1")
        assert {(row["clOrdId"], row["execType"]) for row in rows[1:]} == {("mine", "T")}
        assert heard[-1]["data"][0]["sCode"] == "0"


async def test_how_orders_end_that_cannot_rest(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader:
        found = {}
        for kind, price in (("post_only", "70000"), ("ioc", "60000"), ("fok", "60000"), ("limit", "60000")):
            row = await trader.row("order", **FAR | {"ordType": kind, "px": price})
            assert row["sCode"] == "0"
            listed = answered(
                trader.venue,
                signed(trader.venue, f"/api/v5/trade/order?instId={SWAP}&ordId={row['ordId']}", MAIN),
            )
            found[kind] = (listed["data"][0]["state"], listed["data"][0]["cancelSource"])
        assert found == {
            "post_only": ("canceled", "31"),
            "ioc": ("canceled", "14"),
            "fok": ("canceled", "13"),
            "limit": ("live", ""),
        }


@pytest.mark.parametrize(
    ("symbol", "changes", "code"),
    [
        (SWAP, {"instIdCode": None, "instId": SWAP}, "50014"),
        (SWAP, {"instIdCode": "1"}, "51000"),
        (SWAP, {"instIdCode": 1}, "51001"),
        (SWAP, {"instId": "ETH-USDT-SWAP"}, "0"),  # ignored
        (SWAP, {"tdMode": None}, "51000"),
        (SWAP, {"tdMode": "cash"}, "51010"),
        ("BTC-USDT", {"tdMode": "cross"}, "51010"),
        ("BTC-USDT", {}, "0"),
        (SWAP, {"posSide": "long"}, "51000"),
        (SWAP, {"posSide": "net"}, "0"),
        (SWAP, {"side": "Buy"}, "51000"),
        (SWAP, {"ordType": "gtc"}, "51000"),
        (SWAP, {"ordType": "mmp"}, "51000"),
        (SWAP, {"px": None}, "51000"),
        (SWAP, {"px": "60000.05"}, "51000"),
        (SWAP, {"px": 60000}, "51000"),
        (SWAP, {"sz": "0"}, "51000"),
        (SWAP, {"sz": "0.005"}, "51020"),
        (SWAP, {"sz": "0.015"}, "51121"),
        (SWAP, {"clOrdId": "with-hyphen"}, "51000"),
        (SWAP, {"clOrdId": "x" * 33}, "51000"),
        (SWAP, {"clOrdId": "x" * 32}, "0"),
        (SWAP, {"tag": "x" * 17}, "51000"),
        (SWAP, {"reduceOnly": "true"}, "51000"),
        (SWAP, {"reduceOnly": True}, "51169"),
        ("BTC-USDT", {"reduceOnly": True}, "0"),
        ("BTC-USDT", {"ordType": "market", "tgtCcy": "coins"}, "51000"),
        (OPTION, {"ordType": "mmp", "px": "0.01"}, "0"),
    ],
)
async def test_what_is_wrong_has_a_code(
    symbol: str, changes: dict[str, Any], code: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with trading() as trader:
        assert await trader.create(symbol, **changes) == code
        assert bool(trader.venue.accounts["main"].orders) == (code == "0")


async def test_what_is_over_has_a_code(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader:

        async def code(op: str, client_id: str, **more: str) -> str:
            return str((await trader.row(f"{op}-order", clOrdId=client_id, **more))["sCode"])

        account = trader.venue.accounts["main"]
        assert await code("cancel", "a") == "51400"
        assert await code("amend", "a", newSz="2") == "51503"
        assert await trader.create(clOrdId="a") == "0"
        assert await trader.create(clOrdId="a") == "51016"
        assert await code("amend", "a") == "51000"
        assert await code("amend", "a", newPx="60000") == "51000"
        assert await code("amend", "a", newPx="60000.05") == "51000"
        account.fill(account.open_orders()[0].order_id, "0.5")
        assert await code("amend", "a", newSz="0.5") == "51000"
        account.fill(account.open_orders()[0].order_id)
        assert await code("cancel", "a") == "51402"
        assert await code("amend", "a", newSz="2") == "51510"
        assert await trader.create(clOrdId="b", px="50000") == "0"
        assert await code("cancel", "b") == "0"
        assert await code("cancel", "b") == "51401"
        assert await code("amend", "b", newSz="2") == "51509"
        assert (await trader.row("cancel-order"))["sCode"] == "51003"
        assert await trader.create(side="sell", reduceOnly=True, px="90000", sz="2") == "51112"
        assert await trader.create(side="sell", reduceOnly=True, px="90000") == "0"


async def test_a_spot_market_purchase_is_by_value_unless_it_says_otherwise(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trading() as trader:
        await trader.client.ask(subscribe("orders", None, instType="SPOT"))
        await trader.client.hear()
        orders = []
        for changes in (
            {"sz": "0.1"},
            {"sz": "0.000001", "tgtCcy": "base_ccy"},
            {"sz": "0.000001", "side": "sell"},
            {"sz": "0.1", "side": "sell", "tgtCcy": "quote_ccy"},
        ):
            row = await trader.row("order", "BTC-USDT", **FAR | {"tdMode": "cash", "ordType": "market"} | changes)
            orders.append(trader.order(row))
        assert [order.status for order in orders] == ["filled"] * 4
        assert [order.quote_size for order in orders] == [Decimal("0.1"), None, None, Decimal("0.1")]
        assert orders[1].size == orders[2].size == Decimal("0.000001")
        assert Decimal("0.099") < orders[0].value <= Decimal("0.1")


async def test_a_batch_is_judged_row_by_row(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader:

        async def batch(op: str, *rows: dict[str, Any]) -> tuple[str, list[str]]:
            answer = await trader.ask(op, *(trader.arg(row) for row in rows))
            return answer["code"], [row["sCode"] for row in answer["data"]]

        good, bad = FAR | {"clOrdId": "a"}, FAR | {"sz": "x"}
        assert await batch("batch-orders", good, bad) == ("2", ["0", "51000"])
        assert await batch("batch-orders", bad, bad) == ("1", ["51000", "51000"])
        assert await batch("batch-orders", FAR, FAR) == ("0", ["0", "0"])
        known, unknown = {"clOrdId": "a", "newSz": "3"}, {"clOrdId": "b", "newSz": "3"}
        assert await batch("batch-amend-orders", known, unknown) == ("2", ["0", "51503"])
        assert await batch("batch-cancel-orders", known, unknown) == ("2", ["0", "51400"])
        assert await batch("batch-orders", *[FAR] * 21) == ("51111", [])
        assert await batch("order", FAR, FAR) == ("60013", [])
        assert len(trader.venue.accounts["main"].orders) == 3


async def test_frames_are_checked(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader:
        order = trader.arg(FAR)
        for more, code in (
            ({"id": "with-hyphen"}, "60012"),
            ({"id": "x" * 33}, "60012"),
            ({"id": 1}, "60012"),
            ({"args": []}, "60013"),
            ({"args": order}, "60013"),
            ({"args": ["x"]}, "60013"),
            ({"id": "x" * 32}, "0"),
        ):
            answer = await trader.ask("order", order, **more)
            assert (answer["code"], bool(answer["data"])) == (code, code == "0"), more
        expected = documented("trade.order.response.jsonl", 2)
        refused = await trader.ask("order", order, args=[])
        assert refused.keys() == expected.keys()
        assert (refused["code"], refused["msg"], refused["data"]) == ("60013", expected["msg"], [])
        await trader.client.say({"id": "1", "op": "replace-order", "args": [order]})
        assert (await trader.client.hear())["code"] == "60019"


async def test_a_request_expires_but_a_cancellation_does_not(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader:
        past, now = str(NOW_US // 1000 - 1), str(NOW_US // 1000)

        async def code(op: str, arg: dict[str, Any], when: Any) -> str:
            return str((await trader.ask(op, trader.arg(arg), expTime=when))["data"][0]["sCode"])

        assert await code("order", FAR | {"clOrdId": "a"}, past) == "50036"
        assert await code("order", FAR | {"clOrdId": "a"}, "soon") == "51000"
        assert await code("order", FAR | {"clOrdId": "a"}, now) == "0"
        assert await code("batch-amend-orders", {"clOrdId": "a", "newSz": "2"}, past) == "50036"
        assert await code("cancel-order", {"clOrdId": "a"}, past) == "0"


async def test_only_whoever_has_logged_in_and_may_trade_enters_orders(autojump_clock: trio.testing.MockClock) -> None:
    reader = Account("r-key", "READER", "phrase", name="reader", may_trade=False)
    async with trading(accounts=[MAIN, OTHER, reader]) as trader:
        for path, code in (("private", "60011"), ("public", "60028"), ("business", "60028")):
            async with connect_in_memory(trader.venue, f"/ws/v5/{path}") as client:
                answer = await Trader(trader.venue, client, trader.codes).ask("order", trader.arg(FAR))
                assert (answer["code"], answer["data"]) == (code, [])
        async with open_trader(trader.venue, reader) as other:
            assert (await other.ask("order", trader.arg(FAR)))["code"] == "50120"
        assert not any(account.orders for account in trader.venue.accounts.values())


async def test_each_operation_has_its_rate(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader:
        codes = [await trader.create() for _ in range(61)]
        assert codes == ["0"] * 60 + ["50011"]
        assert await trader.create("ETH-USDT-SWAP", px="3000") == "0"
        assert (await trader.row("cancel-order", clOrdId="a"))["sCode"] == "51400"
        # A batch of one counts as the single operation; of more, each order counts.
        alone = await trader.ask("batch-orders", trader.arg(FAR))
        assert (alone["code"], alone["data"][0]["sCode"]) == ("1", "50011")
        for _ in range(15):
            assert (await trader.ask("batch-orders", *[trader.arg(FAR)] * 20))["code"] == "0"
        assert (await trader.ask("batch-orders", *[trader.arg(FAR)] * 2))["code"] == "1"
        async with open_trader(trader.venue, OTHER) as other:
            assert await other.create() == "0"
        await trio.sleep(2)
        assert await trader.create() == "0"


async def test_options_share_a_rate_by_family_and_all_orders_have_a_total(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trading() as trader:
        option = {"px": "0.01"}
        codes = [
            await trader.create(name, **option) for name in (OPTION, OPTION.replace("-C", "-P")) for _ in range(31)
        ]
        assert codes == ["0"] * 60 + ["50011"] * 2
        assert await trader.create("ETH-USD-270326-3200-C", **option) == "0"
        symbols = [SWAP, "ETH-USDT-SWAP", "SOL-USDT-SWAP", "BTC-USD-SWAP"]
        total = 61
        for symbol, price in zip(symbols, ("60000", "3000", "100", "60000"), strict=True):
            for _ in range(15):
                if total + 20 > 1000:
                    break
                rows = [trader.arg(FAR | {"px": price}, symbol)] * 20
                assert (await trader.ask("batch-orders", *rows))["code"] == "0"
                total += 20
        rows = [trader.arg(FAR, "BTC-USD-SWAP")] * 20
        answer = await trader.ask("batch-orders", *rows)
        assert [row["sCode"] for row in answer["data"]] == ["0"] * (1000 - total) + ["50061"] * (total + 20 - 1000)
        assert await trader.create("BTC-USDT") == "0"  # spot is exempt
        assert (await trader.row("cancel-order", clOrdId="a"))["sCode"] == "51400"


async def test_a_mass_cancel_ends_the_protected_orders_of_a_family(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader:
        option = {"px": "0.01"}
        for kind in ("limit", "mmp", "mmp_and_post_only"):
            assert await trader.create(OPTION, **option, clOrdId=kind.replace("_", ""), ordType=kind) == "0"
        assert await trader.create("ETH-USD-270326-3200-C", **option, clOrdId="eth", ordType="mmp") == "0"
        request = {"instType": "OPTION", "instFamily": "BTC-USD", "lockInterval": "500"}
        answer = await trader.ask("mass-cancel", request)
        expected = documented("trade.mass-cancel.response.jsonl")
        assert answer == expected | {"id": answer["id"]}
        account = trader.venue.accounts["main"]
        assert [order.client_order_id for order in account.open_orders()] == ["limit", "eth"]
        assert {order.reason for order in account.orders.values() if not order.is_open} == {"38"}
        assert await trader.create(OPTION, **option, ordType="mmp") == "54008"
        assert await trader.create(OPTION, **option, ordType="limit") == "0"
        await trio.sleep(0.5)
        assert await trader.create(OPTION, **option, ordType="mmp") == "0"
        for wrong, code in (
            (request | {"instType": "SWAP"}, "60013"),
            ({"instType": "OPTION"}, "60013"),
            (request | {"instFamily": "DOGE-USD"}, "51001"),
            (request | {"lockInterval": "10001"}, "51000"),
        ):
            assert (await trader.ask("mass-cancel", wrong))["code"] == code


async def test_the_end_of_a_connection_is_announced(autojump_clock: trio.testing.MockClock) -> None:
    async with trading() as trader, connect_in_memory(trader.venue, "/ws/v5/public"):
        assert trader.venue.fault("ends_soon", seconds=30) == 1
        assert (await trader.client.hear())["code"] == "64008"
        assert await trader.create() == "0"
        begin = trio.current_time()
        with pytest.raises(ConnectionClosed):
            await read_on(trader.client)
        assert trio.current_time() - begin == pytest.approx(30, abs=1)
