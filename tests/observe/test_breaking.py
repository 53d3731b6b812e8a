"""Things are broken on purpose, and only the page, the metrics and the probes are looked at: they tell the cause."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import trio

from pipeline.app import Service
from pipeline.config import loads
from pipeline.observe.logs import configure
from pipeline.observe.recent import RECENT
from pipeline.observe.settings import LogSettings
from pipeline.sim.listing import many
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.conftest import OwnBroker
from tests.observe.test_metrics import parsed
from tests.services import KafkaBroker
from tests.services.browser import Browser, Tab

DEADLINE_S = 120
CONNECTIONS = ("okx.swap.book.0", "okx.swap.trade.0")


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """The causes that the page tells come from the log."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    RECENT.clear()
    configure(LogSettings(), io.StringIO())
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    RECENT.clear()


def service(venue: SimulatedVenue, broker: KafkaBroker, folder: Path) -> Service:
    """Two connections to one venue, and a real broker."""
    configuration: dict[str, Any] = {
        "kafka": {
            "bootstrap_servers": [broker.bootstrap],
            "topic_template": "breaking.{kind}",
            "topic_defaults": {"partitions": 1},
            "statistics_interval": "500ms",
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


async def test_the_cause_can_be_told(browser: Browser, own_broker: OwnBroker, tmp_path: Path) -> None:
    broker = await trio.to_thread.run_sync(own_broker)
    market = MarketSettings(rate=40, instruments=many("okx", 2), levels=40)
    with trio.fail_after(DEADLINE_S):
        async with open_venue("okx", market=market) as venue, trio.open_nursery() as nursery, browser.tab() as tab:
            running = service(venue, broker, tmp_path)
            await nursery.start(running.run)
            http = httpx.AsyncClient(base_url=running.address, trust_env=False)

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
            assert "HTTP 503" in await tab.text("#verdict .detail")
            answer = await http.get("/readyz")
            assert answer.status_code == 503
            assert any(f"{CONNECTIONS[0]} is " in reason for reason in answer.json()["reasons"])
            assert await number("pipeline_connection_live", venue="okx", connection=CONNECTIONS[0]) == 0
            assert (await http.get("/healthz")).status_code == 200

            venue.fault("clear")
            await tab.until("document.querySelectorAll('#connections .state.good').length == 2")
            await tab.until("document.querySelector('#events').innerText.includes('connection live')")

            await trio.to_thread.run_sync(broker.kill)
            await headline(tab, "Kafka is down")
            assert "records wait, safe" in await tab.text("#verdict .detail")
            await tab.until("/refused|disconnected|down/i.test(document.querySelector('#verdict .detail').innerText)")
            assert await number("pipeline_kafka_up") == 0
            assert (await http.get("/readyz")).status_code == 200, "what comes is safe in the queue and the spool"
            assert tab.complaints == []
            await http.aclose()
            running.stop()
