from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import httpx
import pytest
import trio
import wsproto.connection as ws
from trio_websocket import ConnectionClosed, ConnectionRejected
from wsproto.events import Ping, TextMessage

from pipeline.sim import wire
from pipeline.sim.faults import KINDS, Fault, from_mapping, parse
from pipeline.sim.okx import LIMITS
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.sim.clients import Client, connect, connect_in_memory, is_control, read_on, sample

FAST = MarketSettings(rate=100, levels=60)
BOOK = "orderbook.50.BTCUSDT"
PATH = "/v5/public/linear"


@asynccontextmanager
async def subscribed(*topics: str) -> AsyncIterator[tuple[SimulatedVenue, Client]]:
    """A Bybit client over TCP whose data is flowing."""
    async with open_venue("bybit", market=FAST) as venue, connect(venue, PATH) as client:
        await client.ask({"op": "subscribe", "args": list(topics or (BOOK,))})
        await client.hear()
        yield venue, client


async def closing(client: Client, within: float = 20) -> tuple[int, str | None]:
    """Read until the connection ends: its close code and reason."""
    with trio.fail_after(within), pytest.raises(ConnectionClosed) as caught:
        await read_on(client)
    assert caught.value.reason is not None
    return caught.value.reason.code, caught.value.reason.reason


async def test_drop_cuts_without_a_close_frame() -> None:
    async with subscribed() as (venue, client):
        assert venue.fault("drop") == 1
        assert (await closing(client))[0] == 1006
        await venue.wait_connections(0)


async def test_close_has_its_code_and_reason() -> None:
    async with subscribed() as (venue, client):
        assert venue.fault("close", code=4004, reason="No data received in 30s") == 1
        assert await closing(client) == (4004, "No data received in 30s")
        await venue.wait_connections(0)


async def test_silence_keeps_the_socket_open_and_answers_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with open_venue("bybit", market=FAST, listen=False) as venue, connect_in_memory(venue, PATH) as client:
        await client.ask({"op": "subscribe", "args": [BOOK]})
        assert venue.fault("silence") == 1
        await client.say({"op": "ping"})
        sent = venue.sent.total
        with trio.move_on_after(60) as scope:
            await read_on(client)
        assert scope.cancelled_caught
        assert venue.sent.total == sent
        with trio.move_on_after(60) as scope:
            await client.websocket.ping()
        assert scope.cancelled_caught
        assert len(venue.connections) == 1


@pytest.mark.parametrize("kind", ["garbage", "binary", "malformed_json"])
async def test_what_is_no_message_arrives_as_such(kind: str) -> None:
    async with subscribed() as (venue, client):
        assert venue.fault(kind) == 1
        if kind == "garbage":
            assert (await closing(client))[0] == 1002
            return
        with trio.fail_after(60):
            while True:
                message = await client.websocket.get_message()
                if isinstance(message, bytes):
                    assert kind == "binary"
                    break
                try:
                    json.loads(message)
                except ValueError:
                    assert kind == "malformed_json"
                    break
        assert (await client.hear())["topic"] == BOOK, "the stream goes on"


async def test_oversize_is_as_big_as_ordered() -> None:
    async with subscribed() as (venue, client):
        venue.fault("oversize", size=300_000)
        heard = await client.hear_until(lambda message: "pad" in message)
        assert len(json.dumps(heard[-1], separators=(",", ":"))) == 300_000
        venue.fault("oversize", size=1_200_000)  # this client's limit is 1 MiB
        assert (await closing(client))[0] == 1009


async def test_a_fragmented_message_is_whole_again() -> None:
    async with subscribed() as (venue, client):
        venue.fault("fragmented")
        heard = [await client.text() for _ in range(20)]
        assert not venue.connections[0].fragment_next
        assert heard == [message.decode() for message in venue.sent.messages(BOOK)[1:21]]


def test_a_fragmented_message_has_three_parts_and_a_ping_between_them() -> None:
    peer = ws.Connection(ws.ConnectionType.CLIENT)
    payload = b'{"a":"many bytes"}'
    peer.receive_data(wire.fragmented(payload))
    events = list(peer.events())
    assert [type(event) for event in events] == [TextMessage, TextMessage, Ping, TextMessage]
    parts = [event for event in events if isinstance(event, TextMessage)]
    assert [part.message_finished for part in parts] == [False, False, True]
    assert "".join(part.data for part in parts) == payload.decode()


async def test_gap_loses_as_many_messages_as_ordered_of_that_topic_only() -> None:
    async with subscribed(BOOK, "orderbook.200.BTCUSDT") as (venue, client):
        ids: dict[str, list[int]] = {BOOK: [], "orderbook.200.BTCUSDT": []}
        while len(ids[BOOK]) < 2:
            message = await client.hear()
            ids[message["topic"]].append(message["data"]["u"])
        venue.fault("gap", topic=BOOK, count=3)
        while len(ids[BOOK]) < 20:
            message = await client.hear()
            ids[message["topic"]].append(message["data"]["u"])
        steps = [later - earlier for earlier, later in zip(ids[BOOK], ids[BOOK][1:], strict=False)]
        assert sorted(steps) == [*[1] * (len(steps) - 1), 4]
        other = ids["orderbook.200.BTCUSDT"]
        assert other == list(range(other[0], other[0] + len(other)))


async def test_stall_silences_one_topic_for_a_while(autojump_clock: trio.testing.MockClock) -> None:
    async with open_venue("bybit", market=FAST, listen=False) as venue, connect_in_memory(venue, PATH) as client:
        await client.ask({"op": "subscribe", "args": [BOOK, "tickers.BTCUSDT"]})
        venue.fault("stall", topic=BOOK, seconds=30)
        began = trio.current_time()
        heard = await client.hear_until(lambda message: message["topic"] == BOOK and message["type"] == "delta")
        assert 30 <= trio.current_time() - began <= 31
        assert len(heard) > 1000, "the other topic goes on"


async def test_refused_topics_and_logins_until_cleared() -> None:
    async with subscribed() as (venue, client):
        venue.fault("refuse_topic", topic="publicTrade.*")
        assert (await client.ask({"op": "subscribe", "args": ["publicTrade.BTCUSDT"]}))["success"] is False
        venue.fault("clear")
        assert (await client.ask({"op": "subscribe", "args": ["publicTrade.BTCUSDT"]}))["success"] is True


async def test_a_slow_ack_comes_after_its_data(autojump_clock: trio.testing.MockClock) -> None:
    async with open_venue("bybit", market=FAST, listen=False) as venue, connect_in_memory(venue, PATH) as client:
        venue.fault("slow_ack", seconds=7)
        began = trio.current_time()
        await client.say({"op": "subscribe", "args": [BOOK]})
        heard = await client.hear_until(is_control)
        assert 7 <= trio.current_time() - began <= 7.5
        assert len(heard) > 100


async def test_upgrades_are_refused_as_often_as_ordered() -> None:
    async with open_venue("bybit", market=FAST) as venue:
        venue.fault("http_refuse", status=503, count=2)
        for _ in range(2):
            with pytest.raises(ConnectionRejected) as caught:
                async with connect(venue, PATH):
                    pass
            assert caught.value.status_code == 503
        async with connect(venue, PATH) as client:
            assert (await client.ask({"op": "ping"}))["ret_msg"] == "pong"


async def test_notice_then_close(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_venue("okx", market=FAST, listen=False) as venue,
        connect_in_memory(venue, "/ws/v5/public") as client,
    ):
        await client.ask({"op": "subscribe", "args": [{"channel": "books5", "instId": "BTC-USDT"}]})
        assert venue.fault("notice", seconds=45) == 1
        notice = (await client.hear_until(is_control))[-1]
        assert {**notice, "connId": ""} == {**sample("okx", "control.notice.jsonl"), "connId": ""}
        began = trio.current_time()
        await closing(client, within=3600)
        assert 45 <= trio.current_time() - began <= 46


async def test_bybit_gives_no_notice() -> None:
    async with subscribed() as (venue, _client):
        with pytest.raises(ValueError, match="bybit announces nothing"):
            venue.fault("notice")


async def test_faults_hit_only_whom_they_mean() -> None:
    async with (
        open_venue("bybit", market=FAST) as venue,
        connect(venue, PATH) as one,
        connect(venue, PATH) as two,
        connect(venue, "/v5/public/spot") as three,
    ):
        await one.ask({"op": "subscribe", "args": [BOOK]})
        await two.ask({"op": "subscribe", "args": ["tickers.BTCUSDT"]})
        assert venue.fault("close", topic="tickers.*") == 1
        assert (await closing(two))[0] == 1001
        await venue.wait_connections(2)
        assert venue.fault("close", endpoint="spot", code=4000) == 1
        assert (await closing(three))[0] == 4000
        await venue.wait_connections(1)
        assert venue.fault("close", connection=2) == 0
        assert venue.fault("close", connection=0, code=4001) == 1
        assert (await closing(one))[0] == 4001


async def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "GRACE_S", 0.2)
    small = MarketSettings(rate=2000, levels=400)
    limits = attrs.evolve(LIMITS, outbox_bytes=100_000)
    async with open_venue("okx", market=small, limits=limits) as venue:
        stream = await trio.open_tcp_stream(venue.host, venue.port)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with stream:
            head = (
                "GET /ws/v5/public HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            request = b'{"op":"subscribe","args":[{"channel":"books","instId":"BTC-USDT"}]}'
            masked = bytes((0x81, 0x80 | len(request), 0, 0, 0, 0)) + request
            await stream.send_all(head.encode() + masked)
            with trio.fail_after(60):
                await venue.wait_connections(1)
                await venue.wait_connections(0)


async def test_control_over_http() -> None:
    async with subscribed() as (venue, client), httpx.AsyncClient(base_url=venue.rest_url) as http:
        state = (await http.get("/sim/state")).json()
        assert state["connections"][0]["topics"] == [f"linear/{BOOK}"]
        assert state["sent"][f"linear/{BOOK}"]["count"] > 0
        book = (await http.get("/sim/book", params={"market": "linear", "symbol": "BTCUSDT"})).json()
        assert len(book["bids"]) == len(book["asks"]) == FAST.levels
        for body, status in (
            (b"no json", 400),
            (b'{"kind":"nope"}', 400),
            (b'{"kind":"gap"}', 400),
            (b'{"kind":"close","code":"x"}', 400),
            (b'{"kind":"close","speed":1}', 400),
            (b'{"kind":"notice"}', 400),
        ):
            answer = await http.post("/sim/fault", content=body)
            assert (answer.status_code, "error" in answer.json()) == (status, True)
        listed = await http.post("/sim/list", json={"symbol": "NEWUSDT", "market": "linear", "price": "3.5"})
        assert listed.json() == {"listed": ["NEWUSDT"]}
        assert venue.floor.market.find("linear", "NEWUSDT") is not None
        assert (await http.post("/sim/list", json={"symbol": "NEWUSDT", "price": "x"})).status_code == 400
        assert (await http.post("/sim/delist", json={"symbol": "NEWUSDT", "market": "linear"})).status_code == 200
        assert (await http.post("/sim/delist", json={"symbol": "NEWUSDT", "market": "linear"})).status_code == 404
        assert (await http.get("/sim/nothing")).status_code == 404
        answer = await http.post("/sim/fault", json={"kind": "close", "code": 4009, "reason": "why"})
        assert answer.json() == {"hit": 1}
        assert await closing(client) == (4009, "why")


@pytest.mark.parametrize("kind", sorted(KINDS - {"gap", "stall", "refuse_topic"}))
def test_every_kind_can_be_scheduled(kind: str) -> None:
    assert parse(f"{kind}@1.5") == (1.5, Fault(kind))


def test_scheduled_faults_have_fields() -> None:
    assert parse("gap:topic=orderbook.50.*,count=3@20") == (20.0, Fault("gap", topic="orderbook.50.*", count=3))
    assert parse("close:code=4004,reason=No data@5") == (5.0, Fault("close", code=4004, reason="No data"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("drop", "say when"),
        ("drop@-1", "say when"),
        ("drop@inf", "say when"),
        ("dorp@1", "unknown fault"),
        ("close:code@1", "FIELD=VALUE"),
        ("close:code=x@1", "code: 'x' is not a whole number"),
        ("close:cod=1@1", "cod: unknown field"),
        ("gap@1", "gap needs one"),
        ("stall:topic=x,seconds=-1@1", "seconds"),
    ],
)
def test_faulty_faults_are_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(text)


def test_a_fault_needs_a_kind() -> None:
    with pytest.raises(ValueError, match="kind: missing"):
        from_mapping({})
