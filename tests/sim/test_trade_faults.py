"""Faults of order entry on both venues: what was taken, what was answered, what was counted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import attrs
import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed

from pipeline.sim.accounts import Order
from pipeline.sim.faults import ORDER_FAULTS, Fault, from_mapping, parse
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.sim import test_bybit_trade as bybit
from tests.sim import test_okx_trade as okx
from tests.sim.bybit_client import SLOW
from tests.sim.clients import Client, connect_in_memory, read_on

VENUES = ("bybit", "okx")


class Speaker(Protocol):
    """One venue's order entry, in the same words."""

    @property
    def venue(self) -> SimulatedVenue: ...

    @property
    def client(self) -> Client: ...

    async def send(self, action: str, *client_ids: str) -> None:
        """Ask without waiting: one order, or several as a batch."""

    async def codes(self) -> list[str]:
        """The codes in the next answer: of each order, or of the whole if it was refused as such."""


@attrs.define
class Bybit:
    """Categories and links."""

    trader: bybit.Trader

    @property
    def venue(self) -> SimulatedVenue:
        return self.trader.venue

    @property
    def client(self) -> Client:
        return self.trader.client

    async def send(self, action: str, *client_ids: str) -> None:
        rows = [self._row(action, client_id) for client_id in client_ids]
        if len(rows) == 1:
            await self.trader.send(f"order.{action}", {"category": "linear", **rows[0]})
        else:
            await self.trader.send(f"order.{action}-batch", {"category": "linear", "request": rows})

    def _row(self, action: str, client_id: str) -> dict[str, Any]:
        if action == "create":
            return {**bybit.FAR, "orderLinkId": client_id}
        return {"symbol": "BTCUSDT", "orderLinkId": client_id} | ({"price": "59000"} if action == "amend" else {})

    async def codes(self) -> list[str]:
        answer = await self.client.hear()
        rows = answer["retExtInfo"].get("list")
        return [str(row["code"]) for row in rows] if rows else [str(answer["retCode"])]


@attrs.define
class Okx:
    """Codes and client ids."""

    trader: okx.Trader

    @property
    def venue(self) -> SimulatedVenue:
        return self.trader.venue

    @property
    def client(self) -> Client:
        return self.trader.client

    async def send(self, action: str, *client_ids: str) -> None:
        single = {"create": "order", "amend": "amend-order", "cancel": "cancel-order"}[action]
        op = single if len(client_ids) == 1 else f"batch-{single}s"
        more = {"create": okx.FAR, "amend": {"newPx": "59000"}, "cancel": {}}[action]
        args = [self.trader.arg({**more, "clOrdId": client_id}) for client_id in client_ids]
        await self.client.say({"id": f"n{next(self.trader.numbers)}", "op": op, "args": args})

    async def codes(self) -> list[str]:
        answer = await self.client.hear()
        return [row["sCode"] for row in answer["data"]] or [answer["code"]]


@asynccontextmanager
async def trading(venue: str) -> AsyncIterator[Speaker]:
    if venue == "bybit":
        async with bybit.trading() as trader:
            yield Bybit(trader)
    else:
        async with okx.trading() as other:
            yield Okx(other)


@asynccontextmanager
async def again(speaker: Speaker) -> AsyncIterator[Speaker]:
    """Another connection of the same account."""
    if isinstance(speaker, Bybit):
        async with bybit.open_trader(speaker.venue) as trader:
            yield Bybit(trader)
    else:
        async with okx.open_trader(speaker.venue) as other:
            yield Okx(other)


def counted(speaker: Speaker) -> dict[str, dict[str, tuple[int, int]]]:
    """Per client order id and action: received, taken."""
    orders = speaker.venue.tally.of("main")["orders"]
    return {
        client_id: {action: (each["received"], each["taken"]) for action, each in actions.items()}
        for client_id, actions in orders.items()
    }


def order_of(speaker: Speaker, client_id: str) -> Order:
    (order,) = (each for each in speaker.venue.accounts["main"].orders.values() if each.client_order_id == client_id)
    return order


async def ends(client: Client) -> None:
    with pytest.raises(ConnectionClosed):
        await read_on(client)


@pytest.mark.parametrize("name", VENUES)
async def test_a_connection_dies_before_the_order_is_taken(name: str, autojump_clock: trio.testing.MockClock) -> None:
    async with trading(name) as speaker:
        speaker.venue.fault("drop_before_take")
        await speaker.send("create", "a")
        await ends(speaker.client)
        assert not speaker.venue.accounts["main"].orders
        assert counted(speaker) == {"a": {"create": (1, 0)}}
        async with again(speaker) as other:  # it was for one request
            await other.send("create", "a")
            assert await other.codes() == ["0"]


@pytest.mark.parametrize("name", VENUES)
async def test_a_connection_dies_after_the_order_was_taken(name: str, autojump_clock: trio.testing.MockClock) -> None:
    async with trading(name) as speaker:
        speaker.venue.fault("drop_before_ack", action="cancel")
        await speaker.send("create", "a", "b")
        assert await speaker.codes() == ["0", "0"]
        await speaker.send("cancel", "a", "b")
        await ends(speaker.client)
        assert {order.status for order in speaker.venue.accounts["main"].orders.values()} == {"cancelled"}
        assert counted(speaker) == {each: {"create": (1, 1), "cancel": (1, 1)} for each in ("a", "b")}


@pytest.mark.parametrize("name", VENUES)
async def test_answers_can_be_held_and_released(name: str, autojump_clock: trio.testing.MockClock) -> None:
    async with trading(name) as speaker:
        speaker.venue.fault("hold_acks")
        await speaker.send("create", "a")
        await speaker.send("amend", "a")
        await speaker.client.say("ping" if name == "okx" else {"op": "ping"})
        assert "pong" in await speaker.client.text()  # the requests were read, and nothing else was sent
        assert counted(speaker) == {"a": {"create": (1, 1), "amend": (1, 1)}}
        async with again(speaker) as other:
            await other.send("create", "b")
            await speaker.venue.wait_asked(3)
            assert speaker.venue.fault("release_acks") == 3
            assert await other.codes() == ["0"]
        assert [await speaker.codes(), await speaker.codes()] == [["0"], ["0"]]
        await speaker.send("cancel", "a")
        assert await speaker.codes() == ["0"]


@pytest.mark.parametrize("name", VENUES)
async def test_clearing_releases_what_is_held_and_disarms(name: str, autojump_clock: trio.testing.MockClock) -> None:
    async with trading(name) as speaker:
        speaker.venue.fault("drop_before_ack", action="amend", count=5)
        speaker.venue.fault("hold_acks")
        await speaker.send("create", "a")
        await speaker.venue.wait_asked(1)
        speaker.venue.fault("clear")
        assert await speaker.codes() == ["0"]
        await speaker.send("amend", "a")
        assert await speaker.codes() == ["0"]


@pytest.mark.parametrize(("name", "code"), [("bybit", "110007"), ("okx", "51008")])
async def test_orders_are_refused_one_by_one(name: str, code: str, autojump_clock: trio.testing.MockClock) -> None:
    async with trading(name) as speaker:
        speaker.venue.fault("refuse_order")
        await speaker.send("create", "a", "b")
        assert await speaker.codes() == [code, "0"]
        speaker.venue.fault("refuse_order", error="10005", count=2, action="cancel")
        await speaker.send("amend", "b")
        assert await speaker.codes() == ["0"]
        for expected in ("10005", "10005", "0"):
            await speaker.send("cancel", "b")
            assert await speaker.codes() == [expected]
        assert counted(speaker) == {
            "a": {"create": (1, 0)}, "b": {"create": (1, 1), "amend": (1, 1), "cancel": (3, 1)},
        }  # fmt: skip


@pytest.mark.parametrize(("name", "default", "other"), [("bybit", "10016", "10000"), ("okx", "50004", "51149")])
async def test_a_code_may_leave_open_whether_it_was_done(
    name: str, default: str, other: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with trading(name) as speaker:
        speaker.venue.fault("ambiguous_code")
        await speaker.send("create", "a")
        assert await speaker.codes() == [default]
        assert order_of(speaker, "a").is_open
        speaker.venue.fault("ambiguous_code", error=other, taken=False)
        await speaker.send("create", "b")
        assert await speaker.codes() == [other]
        assert counted(speaker) == {"a": {"create": (1, 1)}, "b": {"create": (1, 0)}}


@pytest.mark.parametrize(("name", "code"), [("bybit", "10006"), ("okx", "50011")])
async def test_a_rate_limit_can_be_hit_at_any_time(
    name: str, code: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with trading(name) as speaker:
        speaker.venue.fault("rate_limited", count=2)
        for expected in (code, code, "0"):
            await speaker.send("create", "a")
            assert await speaker.codes() == [expected]
        assert counted(speaker) == {"a": {"create": (3, 1)}}


@pytest.mark.parametrize(("name", "code"), [("bybit", "110008"), ("okx", "51402")])
async def test_fills_overtake_acknowledgements_and_cancellations(
    name: str, code: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with trading(name) as speaker:
        speaker.venue.fault("fill_before_cancel")
        speaker.venue.fault("fill_before_ack")
        await speaker.send("create", "a", "b")
        assert await speaker.codes() == ["0", "0"]
        assert [order_of(speaker, each).status for each in ("a", "b")] == ["filled", "new"]
        await speaker.send("cancel", "b")
        assert await speaker.codes() == [code]
        assert order_of(speaker, "b").status == "filled"
        assert counted(speaker)["b"] == {"create": (1, 1), "cancel": (1, 0)}


@pytest.mark.parametrize("name", VENUES)
async def test_answers_may_be_late(name: str, autojump_clock: trio.testing.MockClock) -> None:
    async with trading(name) as speaker:
        speaker.venue.fault("slow_ack", seconds=3)
        begin = trio.current_time()
        await speaker.send("create", "a")
        assert await speaker.codes() == ["0"]
        assert trio.current_time() - begin == pytest.approx(3)


@pytest.mark.parametrize("name", VENUES)
async def test_only_order_entry_ends_soon(name: str, autojump_clock: trio.testing.MockClock) -> None:
    public = {"bybit": "/v5/public/linear", "okx": "/ws/v5/public"}[name]
    async with open_venue(name, listen=False, market=SLOW) as venue, connect_in_memory(venue, public):
        assert venue.fault("ends_soon") == 0


@pytest.mark.parametrize("kind", sorted(ORDER_FAULTS))
def test_faults_are_written_and_read(kind: str) -> None:
    assert parse(f"{kind}:action=amend,taken=false,count=2,error=7@3") == (
        3.0, Fault(kind, action="amend", taken=False, count=2, error="7"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"action": "replace"}, "action: "),
        ({"action": 1}, "action: "),
        ({"taken": "yes"}, "taken: "),
        ({"error": "E1"}, "error: "),
        ({"count": 0}, "count: "),
    ],
)
def test_faulty_faults_are_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        from_mapping({"kind": "ambiguous_code", **given})
