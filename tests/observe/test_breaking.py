"""Things are broken on purpose, and only the page, the metrics and the probes are looked at: they tell the cause."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from pipeline.app import Service
from pipeline.config import loads
from pipeline.sim.listing import many
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.observe.test_metrics import parsed
from tests.services.browser import Browser, Tab

pytestmark = pytest.mark.usefixtures("logged")

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120
CONNECTIONS = ("okx.swap.book.0", "okx.swap.trade.0")


def service(venue: SimulatedVenue, broker: str, folder: Path) -> Service:
    """Two connections to one venue, and a broker that is gone when its process is killed."""
    configuration: dict[str, Any] = {
        "kafka": {
            "bootstrap_servers": [broker],
            "create_topics": False,
            "verify_topics": False,
            "statistics_interval": "500ms",
            "drain_within": "200ms",
            "spool": {"directory": str(folder / "spool")},
            "properties": {"reconnect.backoff.max.ms": 500},
        },
        "http": {"port": 0},
        "venues": {
            "okx": {
                "urls": {"websocket": venue.websocket_url, "rest": venue.rest_url},
                "channels": [{"market": "swap", "channel": ["trade", "book"], "instruments": ["*"]}],
                "reconnect": {"first": "50ms", "max": "200ms"},
            }
        },
    }
    return Service(loads(json.dumps(configuration)))


async def headline(tab: Tab, text: str) -> None:
    """Wait until the page says this first."""
    await tab.until(f"document.querySelector('h1').innerText.startsWith({json.dumps(text)})", within=40)


@asynccontextmanager
async def kafka() -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """The address of a small Kafka in a process of its own, and what kills it."""
    command = [sys.executable, "-m", "pipeline.bench.mock_kafka"]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdin is not None
    assert process.stdout is not None
    async with process.stdin, process.stdout:
        try:
            yield (await process.stdout.receive_some()).decode().strip(), process.kill
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def test_the_cause_can_be_told(browser: Browser, tmp_path: Path) -> None:
    market = MarketSettings(rate=40, instruments=many("okx", 2), levels=40)
    with trio.fail_after(DEADLINE_S):
        async with (
            kafka() as (broker, kill),
            open_venue("okx", market=market) as venue,
            trio.open_nursery() as nursery,
            browser.tab() as tab,
        ):
            running = service(venue, broker, tmp_path)
            await nursery.start(running.run)
            async with httpx.AsyncClient(base_url=running.address, trust_env=False) as http:

                async def number(name: str, **labels: str) -> float:
                    return parsed((await http.get("/metrics")).content)[name, tuple(sorted(labels.items()))]

                await tab.look()
                await tab.open(running.address)
                await headline(tab, "All 2 connections are live; Kafka is up; nothing waiting")
                assert (await http.get("/startupz")).status_code == (await http.get("/readyz")).status_code == 200
                await tab.until("document.querySelector('#books tbody').innerText.includes(' bp (')")

                venue.fault("http_refuse", count=1_000_000)
                venue.fault("drop")
                await headline(tab, "okx: all 2 connections are down")
                await tab.until("document.querySelector('#verdict .detail').innerText.includes('HTTP 503')")
                answer = await http.get("/readyz")
                assert answer.status_code == 503
                assert any(f"{CONNECTIONS[0]} is " in reason for reason in answer.json()["reasons"])
                assert await number("pipeline_connection_live", venue="okx", connection=CONNECTIONS[0]) == 0
                assert (await http.get("/healthz")).status_code == 200

                venue.fault("clear")
                await tab.until("document.querySelectorAll('#connections .state.good').length == 2")
                await tab.until("document.querySelector('#events').innerText.includes('connection live')")

                kill()
                await headline(tab, "Kafka is down")
                assert "records wait, safe" in await tab.text("#verdict .detail")
                where = json.dumps(broker)
                await tab.until(f"document.querySelector('#verdict .detail').innerText.includes({where})")
                assert await number("pipeline_kafka_up") == 0
                assert (await http.get("/readyz")).status_code == 200, "what comes is safe in the queue and the spool"
                assert tab.complaints == []
            running.stop()
