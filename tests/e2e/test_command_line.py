"""The program as its users meet it: the process, its exit codes, its signals, its HTTP pages and its other commands."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from pipeline.sim.listing import many
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import open_venue
from tests.e2e import wire
from tests.e2e.connector import Journal, configuration, urls
from tests.e2e.consumer import Topics, books, check_book, prints
from tests.e2e.program import Program, command, started, write
from tests.services.ports import reserve_port

DEADLINE_S = 120
MARKET = MarketSettings(rate=60, instruments=many("bybit", 2), levels=60)
CHANNELS = [
    {"market": "linear", "channel": ["trade", "book", "ticker"], "instruments": ["*"]},
    {"market": "linear", "channel": "bbo", "instruments": ["NOSUCHUSDT", "BTCUSDT"]},
]


async def test_every_fault_of_a_configuration_is_named_and_nothing_is_contacted(tmp_path: Path) -> None:
    with trio.fail_after(DEADLINE_S):
        async with open_venue("bybit", market=MARKET) as venue:
            wrong: dict[str, Any] = {
                "shutdown_within": "soon",
                "kafka": {"spool": {"directry": "x"}},
                "venues": {
                    "bybit": {
                        "urls": urls(venue),
                        "channels": [
                            {"market": "linear", "channel": "tickerz", "instruments": ["BTCUSDT"]},
                            {"market": "linear", "channel": "book", "depth": 7, "instruments": ["BTCUSDT"]},
                        ],
                    },
                    "kraken": {"channels": []},
                },
            }
            config = write(wrong, tmp_path)
            runs = {}

            async def run(*arguments: str) -> None:
                runs[arguments] = await command(*arguments)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(run, "--config", str(config))
                nursery.start_soon(run, "check", "--connect", "--config", str(config))
            assert venue.opened == 0
    for done in runs.values():
        assert done.returncode == 2
        lines = done.stderr.decode().splitlines()
        for path in (
            "shutdown_within",
            "kafka.spool.directry",
            "venues.bybit.channels[0].channel",
            "venues.bybit.channels[1].depth",
            "venues.kraken",
        ):
            assert sum(f"{path}:" in line for line in lines) == 1, f"{path} in {lines}"


async def test_a_service_tells_about_itself_and_ends_in_order(topics: Topics, tmp_path: Path) -> None:
    journal, port, nowhere = Journal(), reserve_port(), reserve_port()
    with trio.fail_after(DEADLINE_S):
        async with open_venue("bybit", market=MARKET, journal=journal) as venue:
            venue.fault("refuse_topic", topic="tickers.ETHUSDT")
            away = {"websocket": f"ws://127.0.0.1:{nowhere}", "rest": f"http://127.0.0.1:{nowhere}"}
            venues = {
                "bybit": {"urls": urls(venue), "channels": CHANNELS},
                "okx": {"urls": away, "channels": [{"market": "swap", "channel": "trade", "instruments": ["*"]}]},
            }
            settings = configuration(topics, tmp_path, venues, drain_within="10s")
            config = write({**settings, "http": {"port": port}}, tmp_path)
            async with started(config, port) as program:
                await program.logged("service_started")
                await venue.wait_sent(100, "publicTrade.*")
                status = await _status(program)
                _check_pages(status)
                metrics = (await program.get("/metrics")).text
                assert 'pipeline_connection_live{connection="bybit.linear.book.0",venue="bybit"} 1.0' in metrics
                refused = 'pipeline_subscriptions_refused{connection="bybit.linear.ticker.0",venue="bybit"} 1.0'
                assert refused in metrics
                readiness = await program.get("/readyz")
                assert readiness.status_code == 503
                assert [reason.split()[0] for reason in readiness.json()["reasons"]] == ["okx"]
                assert (await program.get("/healthz")).status_code == 200
                await _check_other_commands(config)
                before = {topic: list(record.messages) for topic, record in venue.sent.topics.items()}
                wanted = sum(map(len, before.values()))
                while sum(c["messages"] for c in _connections(await _status(program))) < wanted:
                    await venue.wait_sent(venue.sent.total + 1)
                program.process.send_signal(signal.SIGTERM)
                assert await program.process.wait() == 0
                closed = await program.logged("sink_closed")
    assert closed["published"] == closed["acknowledged"]
    assert closed["announced_lost"] == closed["spooled"] == 0
    trades, sent = prints(await topics.read("trade")), wire.trades(venue.sent.messages("publicTrade.*"))
    old = wire.trades(message for topic, messages in before.items() if "publicTrade" in topic for message in messages)
    assert trades.keys() == sent.keys()
    for instrument, found in trades.items():
        assert found == sent[instrument][: len(found)]
        assert len(found) >= len(old[instrument])
    changes = wire.book_changes(venue.sent.messages("orderbook.50.*"))
    for name, records in books(await topics.read("book_update")).items():
        delivered = sum(not record["is_periodic"] for record in records)
        check_book(records, changes[name][:delivered])
        assert delivered >= len(before[f"linear/{name[1]}.{name[0]}"])


def _connections(status: dict[str, Any]) -> list[dict[str, Any]]:
    return list(status["venues"]["bybit"]["connections"].values())


async def _status(program: Program) -> dict[str, Any]:
    status = (await program.get("/status")).json()
    assert isinstance(status, dict)
    return status


def _check_pages(status: dict[str, Any]) -> None:
    bybit, okx = status["venues"]["bybit"], status["venues"]["okx"]
    assert (bybit["state"], okx["state"]) == ("running", "starting")
    assert okx["last_error"]
    assert bybit["unmatched"] == ["linear bbo NOSUCHUSDT"]
    (topic,) = bybit["connections"]["bybit.linear.ticker.0"]["refused"]
    assert topic == "tickers.ETHUSDT"
    assert {connection["state"] for connection in bybit["connections"].values()} == {"live"}
    assert not status["ready"]


async def _check_other_commands(config: Path) -> None:
    """`check` and `tail`, beside the running service."""
    done: dict[str, Any] = {}

    async def run(name: str, *arguments: str) -> None:
        done[name] = await command(name, "--config", str(config), "--json", *arguments)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, "check", "--connect")
        nursery.start_soon(run, "tail", "--from-beginning", "--count", "20", "--event", "trade")
    assert done["check"].returncode == 1, "one venue is not there"
    report = json.loads(done["check"].stdout)
    verdicts = {check["what"].split(" at ")[0]: check["ok"] for check in report["checks"]}
    assert verdicts["bybit instruments"]
    assert verdicts["bybit WebSocket"]
    assert verdicts["Kafka"]
    assert not verdicts["okx instruments"]
    subscribed = [s["topic"] for c in report["venues"]["bybit"]["connections"] for s in c["subscriptions"]]
    assert "orderbook.50.BTCUSDT" in subscribed
    assert done["tail"].returncode == 0
    events = [json.loads(line) for line in done["tail"].stdout.splitlines()]
    assert len(events) == 20
    assert {event["venue"] for event in events} == {"bybit"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_process_at_once(registry: Any, number: signal.Signals, tmp_path: Path) -> None:
    """The broker is away, so that the first signal alone would wait for it."""
    port, away = reserve_port(), reserve_port()
    with trio.fail_after(DEADLINE_S):
        async with open_venue("bybit", market=MARKET) as venue:
            config = {
                "kafka": {
                    "bootstrap_servers": [f"127.0.0.1:{away}"],
                    "schema_registry": {"url": registry.url},
                    "connect_within": "500ms",
                    "drain_within": "50s",
                    "spool": {"directory": str(tmp_path / "spool")},
                },
                "shutdown_within": "55s",
                "http": {"port": port},
                "venues": {"bybit": {"urls": urls(venue), "channels": CHANNELS}},
            }
            async with started(write(config, tmp_path), port) as program:
                await program.logged("kafka_absent")
                await venue.wait_sent(50)
                await program.ready()
                program.process.send_signal(number)
                await program.logged("intake_stopped")
                assert program.process.returncode is None
                program.process.send_signal(number)
                with trio.fail_after(60):
                    assert await program.process.wait() == 128 + number
