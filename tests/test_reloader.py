"""When a changed configuration is read, what is told about it, and what is left alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from pipeline.config import loads
from pipeline.model.errors import ConfigError, Refused
from pipeline.observe.metrics import render
from pipeline.reload import Change
from pipeline.reloader import ReloadCollector, Reloader, Source


def text(**more: Any) -> str:
    trades = {"market": "linear", "channel": "trade"}
    return json.dumps({"venues": {"bybit": {"channels": [trades]}}, **more})


@attrs.define(eq=False)
class Reader(Reloader):
    """Reads a file that is made up."""

    file: str = ""
    looks: int = 0

    async def _look(self) -> str:
        await trio.lowlevel.checkpoint()
        self.looks += 1
        return self.file


@attrs.define(eq=False)
class Bench:
    reader: Reader
    changes: list[Change]
    orders: list[dict[str, Any]]

    def metrics(self) -> list[str]:
        lines = render([ReloadCollector(self.reader)])().decode().splitlines()
        return [line for line in lines if line.startswith("pipeline_config") and "timestamp" not in line]


def bench(start: str = "") -> Bench:
    start = start or text()
    changes: list[Change] = []
    orders: list[dict[str, Any]] = []
    ticks: Iterator[int] = iter(range(1, 1_000_000))
    source = Source("config.yaml", start)
    return Bench(
        Reader(loads(start), changes.append, lambda: next(ticks), source, orders.append, file=start), changes, orders
    )


async def test_a_changed_file_is_followed_when_it_has_settled(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    made = bench()
    nursery.start_soon(made.reader.watch)
    await trio.sleep(35)
    assert (made.reader.looks, made.changes) == (3, [])
    made.reader.file = text(log={"level": "debug"})[:20]
    await trio.sleep(5.5)
    made.reader.file = text(log={"level": "debug"})
    assert made.reader.refusal is None, "it was being written"
    await trio.sleep(2)
    [change] = made.changes
    assert change.log
    assert change.config.log.level == made.reader.config.log.level == "debug"
    assert made.orders == [{"config": made.reader.file}]
    looks = made.reader.looks
    await trio.sleep(100)
    assert made.reader.looks == looks + 10
    assert len(made.changes) == 1
    assert made.reader.results == {"applied": 1, "refused": 0, "unchanged": 0}


async def test_a_file_that_is_not_to_be_watched_is_not_looked_at(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    made = bench(text(reload={"check": 0}))
    nursery.start_soon(made.reader.watch)
    await trio.sleep(1_000)
    assert made.reader.looks == 0
    made.reader.file = text(reload={"check": "2s"})
    assert (await made.reader.reload("a test"))["result"] == "applied"
    looks = made.reader.looks
    await trio.sleep(100)
    assert made.reader.looks > looks + 40


async def test_a_bad_file_is_refused_whole_and_once(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    made = bench()
    before = made.reader.config
    nursery.start_soon(made.reader.watch)
    made.reader.file = text(log={"level": "debug"}, kafka={"linger": "1 year"})
    with capture_logs() as lines:
        await trio.sleep(60)
    [line] = lines
    assert (line["event"], line["log_level"]) == ("config_refused", "error")
    assert line["problems"] == ['kafka.linger: expected a number of seconds (or 500ms, 15s, 5m, 2h, 7d), got "1 year"']
    assert (made.reader.config, made.changes, made.orders) == (before, [], [])
    status = made.reader.status()
    assert list(status["refused"]["problems"]) == line["problems"]
    assert 'pipeline_config_reloads_total{result="refused"} 1.0' in made.metrics()
    assert "pipeline_config_refused 1.0" in made.metrics()
    with pytest.raises(ConfigError, match="linger"):
        await made.reader.reload("somebody who wants to know again")
    made.reader.file = text()
    await trio.sleep(20)
    assert made.reader.status()["refused"] is None
    assert "pipeline_config_refused 0.0" in made.metrics()
    assert made.reader.results == {"applied": 0, "refused": 2, "unchanged": 1}


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_venue_that_could_not_begin_is_refused(content: str | None, tmp_path: Path) -> None:
    made, ca_file = bench(), tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_text(content)
    okx: dict[str, Any] = {"channels": [{"market": "swap", "channel": "trade"}]}
    okx["urls"] = {"websocket": "wss://localhost:1", "rest": "https://localhost:1", "ca_file": str(ca_file)}
    made.reader.file = json.dumps({"venues": {"okx": okx}})
    with pytest.raises(ConfigError, match=r"venues\.okx\.urls\.ca_file: cannot be used: \S+"):
        await made.reader.reload("a test")
    assert made.changes == []


@pytest.mark.parametrize("content", ["[" * 100_000, f"workers: {'9' * 5000}", f"shutdown_within: {'9' * 400}"])
async def test_what_no_reader_can_take_is_refused(content: str) -> None:
    made = bench()
    made.reader.file = content
    with pytest.raises(ConfigError, match=r"nested too deeply|no value of its type|too many digits"):
        await made.reader.reload("a test")
    assert made.changes == []


async def test_what_needs_a_restart_is_told_once_and_the_rest_applied() -> None:
    made = bench()
    made.reader.file = text(log={"level": "warning"}, kafka={"linger": "1s"})
    with capture_logs() as lines:
        assert await made.reader.reload("a test") == {"result": "applied", "needs_restart": ["kafka.linger"]}
        assert await made.reader.reload("a test") == {"result": "unchanged", "needs_restart": ["kafka.linger"]}
    assert [line["event"] for line in lines] == ["config_applied", "config_needs_restart", "config_unchanged"]
    assert lines[1]["keys"] == ["kafka.linger"]
    assert made.reader.status()["needs_restart"] == ["kafka.linger"]
    assert "pipeline_config_needs_restart 1.0" in made.metrics()
    assert made.reader.config.log.level == "warning"
    assert made.reader.config.kafka == loads(text()).kafka
    made.reader.file = text()
    assert (await made.reader.reload("a test"))["needs_restart"] == []


async def test_what_was_asked_for_lives_until_the_file_is_read_again() -> None:
    made = bench()
    add = {"venue": "bybit", "add": [{"market": "spot", "channel": "ticker"}]}
    with capture_logs() as lines:
        answer = made.reader.change_subscriptions(add)
        made.reader.change_log_level({"level": "error"})
    assert answer == {"result": "applied", "lives_until": "the next restart, or until the configuration is read anew"}
    assert (lines[0]["event"], lines[0]["subscriptions"]) == ("control_accepted", add)
    asked = [{"subscriptions": add}, {"log_level": {"level": "error"}}]
    assert made.reader.status()["temporary"] == made.orders == asked
    assert [change.changed for change in made.changes] == [("bybit",), ()]
    assert await made.reader.reload("a test") == {"result": "applied", "needs_restart": []}
    assert made.reader.config == loads(text())
    assert made.reader.status()["temporary"] == []
    with pytest.raises(ConfigError, match="level: expected one of debug, info"):
        made.reader.change_log_level({"level": "loud"})


def test_orders_bring_another_process_to_the_same_configuration() -> None:
    made, follower = bench(), bench()
    made.reader.change_subscriptions({"venue": "bybit", "add": [{"market": "spot", "channel": "ticker"}]})
    made.reader.take(text(log={"level": "debug"}), "a test")
    made.reader.change_log_level({"level": "error"})
    for order in made.orders:
        follower.reader.obey(json.loads(json.dumps(order)))
    assert follower.reader.config == made.reader.config


async def test_a_file_is_read_and_its_absence_is_a_refusal(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text())
    changes: list[Change] = []
    reloader = Reloader(loads(text()), changes.append, lambda: 0, Source(str(path), text()))
    assert (await reloader.reload("a test"))["result"] == "unchanged"
    path.write_bytes(bytes(4096))  # what a crash of the machine may leave of it
    with pytest.raises(ConfigError, match="line 1: special characters are not allowed"):
        await reloader.reload("a test")
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        await reloader.reload("a test")
    with pytest.raises(Refused, match="not this process's to read"):
        await Reloader(loads(text()), changes.append, lambda: 0).reload("a test")
