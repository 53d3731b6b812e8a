from __future__ import annotations

import io
import json
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from pipeline.sim.bybit import LIMITS
from pipeline.sim.settings import ReplaySettings
from pipeline.sim.venue import open_venue
from tests.sim.clients import DATA, Client, connect, connect_in_memory

PATH = "/v5/public/linear"
BOOK = "orderbook.50.BTCUSDT"
RECORDED = (DATA / "bybit" / "derived.public.linear.orderbook.50.sequence.jsonl").read_text().splitlines()
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*lines: str, name: str = "recording.jsonl") -> str:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)

    return write


def line(topic: str, number: int, ts: int = 1000) -> str:
    return json.dumps({"topic": topic, "type": "snapshot", "ts": ts, "data": [{"number": number}]})


async def take(client: Client, count: int) -> list[dict[str, Any]]:
    heard: list[dict[str, Any]] = []
    while len(heard) < count:
        message = await client.hear()
        if "topic" in message or "data" in message:
            heard.append(message)
    return heard


async def test_a_replay_waits_for_its_subscribers_and_keeps_the_order_of_the_file(
    write: Write, autojump_clock: trio.testing.MockClock
) -> None:
    topics = ["publicTrade.A", "publicTrade.B"]
    lines = [line(topics[number % 3 % 2], number) for number in range(200)]
    control = '{"success":true,"ret_msg":"","conn_id":"x","op":"subscribe"}'
    file = write(lines[0], control, "", "pong", *lines[1:])
    settings = ReplaySettings((file,), speed=inf, wait_for=2)
    async with (
        open_venue("bybit", replay=settings, listen=False) as venue,
        connect_in_memory(venue, PATH) as client,
    ):
        await client.ask({"op": "subscribe", "args": topics[:1]})
        await trio.sleep(100)
        assert venue.replay is not None
        assert venue.replay.published == 0
        await client.ask({"op": "subscribe", "args": topics[1:]})
        heard = await take(client, 200)
        assert [message["data"][0]["number"] for message in heard] == list(range(200))
        await venue.replay.finished.wait()
        assert [json.loads(each) for each in venue.sent.messages(topics[0])] == [
            message for message in heard if message["topic"] == topics[0]
        ]


async def test_messages_are_sent_byte_for_byte(autojump_clock: trio.testing.MockClock) -> None:
    settings = ReplaySettings((str(DATA / "bybit" / "derived.public.linear.orderbook.50.sequence.jsonl"),), inf)
    async with open_venue("bybit", replay=settings, listen=False) as venue, connect_in_memory(venue, PATH) as client:
        await client.say({"op": "subscribe", "args": [BOOK]})
        await client.text()
        assert [await client.text() for _ in RECORDED] == RECORDED


async def test_the_recorded_pace_and_multiples_of_it(write: Write, autojump_clock: trio.testing.MockClock) -> None:
    file = write(*(line("publicTrade.A", number, ts=1000 + 500 * number) for number in range(5)))
    for settings, seconds in (
        (ReplaySettings((file,)), 2.0),
        (ReplaySettings((file,), speed=4), 0.5),
        (ReplaySettings((file,), rate=0.1), 40.0),
        (ReplaySettings((file,), speed=inf), 0.0),
    ):
        async with (
            open_venue("bybit", replay=settings, listen=False) as venue,
            connect_in_memory(venue, PATH) as client,
        ):
            await client.ask({"op": "subscribe", "args": ["publicTrade.A"]})
            began = trio.current_time()
            with trio.fail_after(100):
                assert venue.replay is not None
                await venue.replay.finished.wait()
            assert trio.current_time() - began == pytest.approx(seconds, abs=0.01)


async def test_who_comes_late_gets_the_book_up_to_now(write: Write, autojump_clock: trio.testing.MockClock) -> None:
    sequence = [json.loads(text) for text in RECORDED]
    file = write(*RECORDED[:3], line("publicTrade.A", 0, ts=sequence[2]["ts"] + 1_000_000))
    settings = ReplaySettings((file,))
    async with open_venue("bybit", replay=settings, listen=False) as venue, connect_in_memory(venue, PATH) as client:
        await client.ask({"op": "subscribe", "args": [BOOK]})
        await take(client, 3)
        await client.ask({"op": "unsubscribe", "args": [BOOK]})
        await client.ask({"op": "subscribe", "args": [BOOK]})
        assert await take(client, 3) == sequence[:3]


async def test_loops_and_several_files(write: Write, autojump_clock: trio.testing.MockClock) -> None:
    files = (write(line("publicTrade.A", 1), name="1"), write(line("publicTrade.A", 2), name="2"))
    settings = ReplaySettings(files, speed=inf, loop=True)
    async with open_venue("bybit", replay=settings, listen=False) as venue, connect_in_memory(venue, PATH) as client:
        await client.ask({"op": "subscribe", "args": ["publicTrade.A"]})
        assert [message["data"][0]["number"] for message in await take(client, 6)] == [1, 2, 1, 2, 1, 2]


async def test_okx_recordings_are_routed_by_their_arg(autojump_clock: trio.testing.MockClock) -> None:
    settings = ReplaySettings((str(DATA / "okx" / "recording2026.trades.jsonl"),), speed=inf, wait_for=2)
    async with (
        open_venue("okx", replay=settings, listen=False) as venue,
        connect_in_memory(venue, "/ws/v5/public") as client,
    ):
        args = [{"channel": "trades", "instId": name} for name in ("BTC-USDT-SWAP", "BTC-USDT")]
        await client.say({"op": "subscribe", "args": args})
        heard = await take(client, 4)
        assert [message["arg"] for message in heard] == [args[0], args[0], args[1], args[1]]


async def test_unreadable_recordings_name_the_line(write: Write) -> None:
    file = write(line("publicTrade.A", 1), "no json")
    with pytest.raises(ValueError, match=r"recording\.jsonl, line 2"):
        async with open_venue("bybit", replay=ReplaySettings((file,)), listen=False):
            pass
    with pytest.raises(FileNotFoundError):
        async with open_venue("bybit", replay=ReplaySettings((file + ".missing",)), listen=False):
            pass


@pytest.mark.parametrize("settings", [{"files": ()}, {"files": ("x",), "speed": 0}, {"files": ("x",), "rate": -1.0}])
def test_replay_settings_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"file|above zero"):
        ReplaySettings(**settings)


@pytest.mark.parametrize("frames_per_send", [1, 64])
async def test_flat_out_loses_nothing(write: Write, frames_per_send: int) -> None:
    count = 20_000
    file = write(*(line("publicTrade.A", number) for number in range(count)))
    journal = io.StringIO()
    limits = attrs.evolve(LIMITS, frames_per_send=frames_per_send)
    settings = ReplaySettings((file,), speed=inf)
    async with open_venue("bybit", replay=settings, limits=limits, journal=journal) as venue:
        async with connect(venue, PATH) as client:
            await client.say({"op": "subscribe", "args": ["publicTrade.A"]})
            with trio.fail_after(60):
                await venue.wait_sent(1)
                numbers = [int(message["data"][0]["number"]) for message in await take(client, count)]
        assert numbers == list(range(count))
        assert venue.sent.count("publicTrade.A") == count
        lines = [json.loads(each) for each in journal.getvalue().splitlines()]
        assert [json.loads(each["message"])["data"][0]["number"] for each in lines] == numbers
        assert {each["topic"] for each in lines} == {"linear/publicTrade.A"}
