from __future__ import annotations

import argparse
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
import trustme
from trio_websocket import ConnectionRejected

from pipeline.sim import command
from pipeline.sim.settings import Account, MarketSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.sim.bybit_client import auth
from tests.sim.clients import Client, connect

ROOT = Path(__file__).parents[2]
PROGRAM = """
import argparse, sys, trio
from pipeline.sim import command
parser = argparse.ArgumentParser()
command.add_arguments(parser)
sys.exit(trio.run(command.run, parser.parse_args()))
"""


@attrs.define
class Running:
    """A `simulate` process: its address, and what it printed."""

    process: trio.Process
    printed: list[str]
    venue: SimulatedVenue
    """Only knows the address, for `connect`."""


@asynccontextmanager
async def simulate(*arguments: str) -> AsyncIterator[Running]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        printed = ""
        with trio.fail_after(60):
            while printed.count("\n") < 4 and (more := await process.stdout.receive_some()):
                printed += more.decode()
        async with open_venue("bybit", listen=False) as address:
            address.port = int(printed.split("ws")[1].split()[0].rpartition(":")[2] if printed else 0)
            yield Running(process, printed.splitlines(), address)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await process.stdout.aclose()
        await process.stderr.aclose()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_prints_where_it_is_serves_and_ends_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with simulate("--venue", "bybit", "--rate", "50", "--journal", str(journal), "--seed", "4") as running:
        url = f"127.0.0.1:{running.venue.port}"
        assert running.printed == [
            f"simulated bybit at ws://{url} and http://{url}",
            "in the configuration, below venues: bybit: urls:",
            f"      websocket: ws://{url}",
            f"      rest: http://{url}",
        ]
        async with connect(running.venue, "/v5/public/linear") as client:
            await client.ask({"op": "subscribe", "args": ["orderbook.50.BTCUSDT"]})
            heard = [await client.text() for _ in range(10)]
        running.process.send_signal(number)
        with trio.fail_after(60):
            assert await running.process.wait() == 0
        written = [json.loads(line) for line in journal.read_text().splitlines()]
        assert [line["message"] for line in written][:10] == heard
        assert {line["topic"] for line in written} == {"linear/orderbook.50.BTCUSDT"}


async def test_scheduled_faults_happen() -> None:
    async with simulate("--venue", "okx", "--fault", "http_refuse:status=503@0.1") as running:
        assert running.process.stderr is not None
        with trio.fail_after(60):
            assert b"http_refuse" in await running.process.stderr.receive_some()
        with pytest.raises(ConnectionRejected) as caught:
            async with connect(running.venue, "/ws/v5/public"):
                pass
        assert caught.value.status_code == 503


async def test_accounts_enter_orders_at_the_rate_that_was_given() -> None:
    arguments = ("--account", "a-key:TESTSECRET", "--order-factor", "3", "--fault", "hold_acks@3600")
    async with simulate("--venue", "bybit", *arguments) as running, connect(running.venue, "/v5/trade") as client:
        now_ms = time.time_ns() // 1_000_000
        assert (await client.ask(auth(Account("a-key", "TESTSECRET"), now_ms + 60_000)))["retCode"] == 0
        order = {
            "category": "linear",
            "symbol": "BTCUSDT",
            "side": "Buy",
            "orderType": "Limit",
            "qty": "1",
            "price": "1",
        }
        header = {"X-BAPI-TIMESTAMP": str(now_ms), "X-BAPI-RECV-WINDOW": "120000"}
        answer = await client.ask({"reqId": "1", "op": "order.create", "header": header, "args": [order]})
        assert (answer["retCode"], answer["header"]["X-Bapi-Limit"]) == (110094, "30")


async def expect_close(client: Client, code: int) -> None:
    with trio.fail_after(60):
        while client.websocket.closed is None:
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert client.websocket.closed.code == code


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--venue", "kraken"], "invalid choice"),
        (["--venue", "bybit", "--rate", "0"], "above zero"),
        (["--venue", "bybit", "--fault", "dorp@1"], "unknown fault"),
        (["--venue", "bybit", "--fault", "notice@1"], "announces nothing"),
        (["--venue", "bybit", "--instruments", "X"], "unknown bybit symbol"),
        (["--venue", "bybit", "--replay", "/no/such/file"], "No such file"),
        (["--venue", "bybit", "--tls-key", "x"], "--tls-key needs --tls-cert"),
        (["--venue", "bybit", "--port", "99999"], "0 to 65535"),
        (["--venue", "bybit", "--account", "x"], "KEY:SECRET"),
        (["--venue", "bybit", "--order-factor", "0"], "1 to 1000"),
        (["--venue", "bybit", "--fault", "refuse_order:error=E1@1"], "not a code"),
    ],
)
async def test_faulty_arguments_end_with_2(arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    try:
        code: object = await command.run(parser.parse_args(arguments))
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert why in capsys.readouterr().err


def test_arguments_become_settings() -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args(["--venue", "okx", "--rate", "max", "--account", "k:s:p", "--speed", "2.5"])
    assert (args.rate, args.speed, args.host) == (float("inf"), 2.5, "127.0.0.1")
    assert (args.account[0].key, args.account[0].secret, args.account[0].passphrase) == ("k", "s", "p")


async def test_tls() -> None:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    async with open_venue("bybit", tls=server, market=MarketSettings(rate=50)) as venue:
        assert venue.websocket_url.startswith("wss://")
        assert venue.rest_url.startswith("https://")
        async with connect(venue, "/v5/public/linear", client_side) as client:
            await client.ask({"op": "subscribe", "args": ["orderbook.50.BTCUSDT"]})
            assert (await client.hear())["type"] == "snapshot"
            assert venue.fault("drop") == 1
            await expect_close(client, 1006)
