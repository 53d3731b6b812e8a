"""Known secrets go through everything that can be read from outside, its error paths too, and are in none of it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from pipeline.app import Service
from pipeline.config import loads
from pipeline.sim.listing import named
from pipeline.sim.settings import Account, MarketSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.e2e.connector import until
from tests.observe.watcher import watching

DEADLINE_S = 60
MARK = "Hush5e7"
"""Part of every secret."""
TOKEN = f"{MARK}-token"
ACCOUNT = Account(f"{MARK}-id", f"{MARK}-secret", f"{MARK}-phrase", name="main")
PATHS = ("/", "/status", "/metrics", "/healthz", "/readyz", "/startupz", "/page.js", "/nothing")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"KEY": ACCOUNT.key, "SECRET": ACCOUNT.secret, "PHRASE": ACCOUNT.passphrase, "TOKEN": TOKEN}
    for name, value in {**secrets, "KAFKA": f"{MARK}-sasl", "BEARER": f"{MARK}-bearer"}.items():
        monkeypatch.setenv(name, value)


def service(venue: SimulatedVenue, folder: Path, port: int) -> Service:
    """With a secret wherever one can be, and a Kafka that is not there."""
    account = {name: {"env": name.rpartition("_")[2].upper()} for name in ("api_key", "api_secret")}
    configuration: dict[str, Any] = {
        "kafka": {
            "bootstrap_servers": [f"127.0.0.1:{port}"],
            "connect_within": "200ms",
            "drain_within": "100ms",
            "spool": {"directory": str(folder / "spool")},
            "properties": {
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "PLAIN",
                "sasl.username": "pipeline",
                "sasl.password": {"env": "KAFKA"},
            },
        },
        "http": {"port": 0, "token": {"env": "TOKEN"}},
        "venues": {
            "okx": {
                "urls": {"websocket": venue.websocket_url, "rest": venue.rest_url},
                "accounts": {"main": {**account, "passphrase": {"env": "PHRASE"}, "channels": ["order", "balance"]}},
                "reconnect": {"first": "10ms", "max": "20ms"},
            }
        },
    }
    return Service(loads(json.dumps(configuration)))


async def read_everything(address: str) -> list[str]:
    """Every page with and without the token, and what goes wrong."""
    found: list[str] = []
    async with httpx.AsyncClient(base_url=address, trust_env=False) as http:
        for shown in (TOKEN, f"{TOKEN}-wrong", "none"):
            for method in ("GET", "POST"):
                for path in PATHS:
                    answer = await http.request(method, path, headers={"authorization": f"Bearer {shown}"})
                    found.append(f"{answer.status_code} {answer.headers} {answer.text}")
    return found


async def test_no_secret_is_shown_anywhere(
    logged: io.StringIO, tmp_path: Path, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = MarketSettings(rate=20, instruments=named("okx", ["BTC-USDT"]), levels=20)
    pages: list[str] = []
    with trio.fail_after(DEADLINE_S):
        async with open_venue("okx", market=market, accounts=[ACCOUNT]) as venue, trio.open_nursery() as nursery:
            venue.fault("refuse_login", count=3)
            running = service(venue, tmp_path, unused_port)
            await nursery.start(running.run)
            private = next(iter(running.intakes.values())).stats.connections
            await until(lambda: any(c.reconciliations and c.reconnects for c in private.values()))
            pages += await read_everything(running.address)
            venue.revoke("main", drop=True)
            await until(lambda: any(c.state in ("refused", "retrying") for c in private.values()))
            pages += await read_everything(running.address)
            monkeypatch.delenv("TOKEN")
            pages += await read_everything(running.address)
            running.stop()
    assert {page[:3] for page in pages} == {"200", "401", "404", "405", "503"}
    assert any("okx.main.private.0" in page for page in pages)
    lines = logged.getvalue()
    assert "kafka_absent" in lines
    assert "http_token_unreadable" in lines
    for text in (*pages, lines):
        assert MARK not in text


async def test_no_secret_is_told_to_who_watches(
    logged: io.StringIO, tmp_path: Path, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(DEADLINE_S):
        async with open_venue("okx", accounts=[ACCOUNT]) as venue, trio.open_nursery() as nursery:
            venue.fault("refuse_login", count=1_000)
            running = service(venue, tmp_path, unused_port)
            await nursery.start(running.run)
            async with watching(running.address) as stranger:
                assert stranger.status == 401
            async with watching(running.address, token=TOKEN) as watcher:
                told = ""
                while "okx.main.private.0" not in told or "LoginFailed" not in told:
                    told += json.dumps(await watcher.event())
                assert MARK not in told
            running.stop()
