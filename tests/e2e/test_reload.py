"""A configuration that is changed under load: what stays shows no trace of it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import trio
from confluent_kafka.admin import AdminClient

from pipeline.reloader import Source
from pipeline.sim.listing import many
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.e2e.accounts import Trader, configured, simulated
from tests.e2e.connector import Journal, check_sockets, configuration, fall_quiet, running, until, urls
from tests.e2e.consumer import Record, Topics
from tests.e2e.program import POLL_S, Program, started
from tests.services.ports import reserve_port

DEADLINE_S = 120
TOKEN = "open-sesame-4711"
BEARER = {"authorization": f"Bearer {TOKEN}"}


class Mount:
    """A file as Kubernetes mounts a ConfigMap: a link into a directory that is a link, which is replaced."""

    def __init__(self, folder: Path, content: Mapping[str, Any]) -> None:
        self.folder, self.generation = folder, 0
        self.path = folder / "config.yaml"
        self.replace(content)
        self.path.symlink_to(Path("..data") / "config.yaml")

    def replace(self, content: Mapping[str, Any]) -> None:
        """Change what is mounted, in one step."""
        self.generation += 1
        target = self.folder / f"..{self.generation}"
        target.mkdir()
        (target / "config.yaml").write_text(json.dumps({**content, "log": {"format": "json"}}))
        link = self.folder / "..new"
        link.symlink_to(target.name)
        os.replace(link, self.folder / "..data")

    @property
    def source(self) -> Source:
        return Source(str(self.path), self.path.read_text())


def linear(channel: list[str] | str, *instruments: str, **more: Any) -> dict[str, Any]:
    return {"market": "linear", "channel": channel, "instruments": list(instruments), **more}


def told(records: list[Record]) -> list[tuple[str, str | None, str]]:
    by_time = sorted(records, key=lambda record: (record["receive_time"], record.offset))
    return [(record["venue"], record["instrument"], record["status"]) for record in by_time]


async def test_a_mounted_file_is_changed_under_load(topics: Topics, tmp_path: Path) -> None:
    journals, market = (Journal(), Journal()), MarketSettings(rate=40, instruments=many("bybit", 3), levels=60)
    with trio.fail_after(DEADLINE_S):
        async with (
            open_venue("bybit", market=market, journal=journals[0]) as venue,
            open_venue("okx", market=MarketSettings(rate=20, instruments=many("okx", 1))) as other,
        ):

            def venues(*channels: dict[str, Any]) -> dict[str, Any]:
                return {"bybit": {"urls": urls(venue), "channels": channels}}

            swaps = {"market": "swap", "channel": "trade", "instruments": ["*"]}
            okx = {"okx": {"urls": urls(other), "channels": [swaps]}}
            first = venues(linear("trade", "BTCUSDT", "ETHUSDT"), linear("book", "BTCUSDT", "ETHUSDT"))
            base = {**configuration(topics, tmp_path, {}), "reload": {"check": "50ms"}, "log": {"format": "json"}}
            mount = Mount(tmp_path, {**base, "venues": first})
            async with running({**base, "venues": first}, mount.source) as connector:
                reloads = connector.service.reloader.results
                await flowing(venue, "publicTrade.BTCUSDT", "orderbook.50.ETHUSDT")

                second = venues(linear("trade", "BTCUSDT", "SOLUSDT"), linear(["book", "ticker"], "BTCUSDT"))
                mount.replace({**base, "venues": {**second, **okx}})
                await flowing(venue, "publicTrade.SOLUSDT", "tickers.BTCUSDT", "publicTrade.BTCUSDT")
                await other.wait_sent(5)
                await until(lambda: not venue.subscriptions("*ETHUSDT"))
                assert reloads == {"applied": 1, "refused": 0, "unchanged": 0}

                mount.replace({**base, "venues": {**second, "okx": {"channels": "none"}}})
                await until(lambda: reloads["refused"] == 1)
                assert "venues.okx.channels: expected a list" in str(connector.service.status()["config"]["refused"])
                assert connector.service.intakes.keys() == {"bybit", "okx"}

                mount.replace({**base, "venues": second, "shutdown_within": "31s"})
                await until(lambda: reloads["applied"] == 2)
                assert connector.service.status()["config"]["needs_restart"] == ["shutdown_within"]
                await until(lambda: not other.connections)
                assert connector.service.intakes.keys() == {"bybit"}

                assert connector.service.renew_books({"venue": "bybit", "instrument": "BTCUSDT"})["resynced"] == 1
                await until(lambda: connector.connections()["bybit.linear.book.0"].resyncs == 1)
                await flowing(venue, "orderbook.50.BTCUSDT", "publicTrade.BTCUSDT")
                await until(lambda: not connector.service.not_ready())
                await fall_quiet(venue, journals[0], connector.witness)
                assert {stats.generation for stats in connector.connections().values()} == {1}
                await connector.stop()
            check_sockets(venue, journals[0], connector.witness)
    statuses = await topics.read("feed_status")
    found = told(statuses)
    [gap] = [record for record in statuses if record["status"] == "gap"]
    assert (gap["instrument"], gap["reason"]) == ("BTCUSDT", "asked for by /control/resync")
    for line in (
        ("bybit", "ETHUSDT", "unsubscribed"),
        ("bybit", "SOLUSDT", "subscribed"),
        ("bybit", "BTCUSDT", "resynced"),
        ("okx", None, "lost"),
    ):
        assert line in found
    books = [record for record in await topics.read("book_update") if not record["is_periodic"]]
    by_name = {name: [r for r in books if r["instrument"] == name] for name in ("BTCUSDT", "ETHUSDT")}
    assert [sum(r["is_snapshot"] for r in records) for records in by_name.values()] == [2, 1]
    epochs = [record["epoch"] for record in by_name["BTCUSDT"]]
    assert len(set(epochs)) == 2
    for before, after in zip(by_name["BTCUSDT"], by_name["BTCUSDT"][1:], strict=False):
        assert after["is_snapshot"] or after["previous_sequence"] in (None, before["sequence"])
    assert by_name["ETHUSDT"][-1]["receive_time"] < books[-1]["receive_time"]
    sent = {name: len(v) for name, v in connector.witness.trades().items()}
    trades = await topics.read("trade")
    assert {name: sum(r["instrument"] == name for r in trades) for name in sent} == sent


async def flowing(venue: SimulatedVenue, *topics: str) -> None:
    """Wait until each of these has brought more."""
    for topic in topics:
        await venue.wait_sent(venue.sent.count(topic) + 15, topic)


async def test_topics_are_made_for_what_is_published_and_for_more_when_more_is(topics: Topics, tmp_path: Path) -> None:
    main, admin = simulated(), AdminClient({"bootstrap.servers": topics.broker.bootstrap})

    def groups() -> set[str]:
        names = [name for name in admin.list_topics(timeout=30).topics if name.startswith(f"{topics.prefix}.")]
        return {name.split(".")[1] for name in names}

    with trio.fail_after(DEADLINE_S):
        async with open_venue("bybit") as public, open_venue("okx", accounts=[main]) as private:
            Trader(private.accounts["main"]).several(30)
            trades = {"urls": urls(public), "channels": [linear("trade", "BTCUSDT")]}
            account = {"urls": urls(private), "accounts": {"main": configured(tmp_path, "okx", main)}}
            base = {**configuration(topics, tmp_path, {}), "reload": {"check": "50ms"}, "log": {"format": "json"}}
            mount = Mount(tmp_path, {**base, "venues": {"bybit": trades}})
            async with running({**base, "venues": {"bybit": trades}}, mount.source) as connector:
                await public.wait_sent(1, "publicTrade.BTCUSDT")
                assert await trio.to_thread.run_sync(groups) == {"market", "control"}
                mount.replace({**base, "venues": {"bybit": trades, "okx": account}})
                await until(lambda: "okx.main.private.0" in connector.connections())
                stats = connector.connections()["okx.main.private.0"]
                await until(lambda: stats.reconciliations > 0)
                await connector.stop()
    assert await trio.to_thread.run_sync(groups) == {"market", "account", "control"}
    assert await topics.read("balance")
    assert not await topics.read("dead_letter")


async def test_a_process_reads_its_configuration_anew_and_takes_requests(topics: Topics, tmp_path: Path) -> None:
    port = reserve_port()
    (tmp_path / "token").write_text(TOKEN)
    market = MarketSettings(rate=60, instruments=many("bybit", 2))
    with trio.fail_after(DEADLINE_S):
        async with open_venue("bybit", market=market) as venue:

            def settings(*channels: dict[str, Any], **more: Any) -> dict[str, Any]:
                http = {"port": port, "token": {"file": str(tmp_path / "token")}}
                venues = {"bybit": {"urls": urls(venue), "channels": channels}}
                return {**configuration(topics, tmp_path, venues), "http": http, "reload": {"check": 0}, **more}

            mount = Mount(tmp_path, settings(linear("trade", "BTCUSDT")))
            async with started(mount.path, port) as program:
                await program.logged("service_started")
                await venue.wait_subscribed("publicTrade.BTCUSDT")
                mount.replace(settings(linear("trade", "BTCUSDT", "ETHUSDT")))
                program.process.send_signal(signal.SIGHUP)
                await venue.wait_subscribed("publicTrade.ETHUSDT")
                assert (await program.logged("config_applied"))["asked_by"] == "SIGHUP"

                mount.replace(settings(linear("trades", "BTCUSDT")))
                program.process.send_signal(signal.SIGHUP)
                refused = await program.logged("config_refused")
                [problem] = refused["problems"]
                assert problem.startswith("venues.bybit.channels[0].channel: unknown channel")
                answer = await program.post("/control/reload", {}, **BEARER)
                assert (answer.status_code, answer.json()["problems"]) == (400, [problem])
                assert (await program.post("/control/reload", {})).status_code == 401

                add = {"venue": "bybit", "add": [linear("book", "BTCUSDT")], "remove": [linear("trade", "BTCUSDT")]}
                answer = await program.post("/control/subscriptions", add, **BEARER)
                assert answer.status_code == 200, answer.text
                await venue.wait_subscribed("orderbook.50.BTCUSDT")
                await until(lambda: not venue.subscriptions("publicTrade.BTCUSDT"))
                await venue.wait_sent(5, "orderbook.50.BTCUSDT")
                resync = {"venue": "bybit", "channel": "orderbook.50", "instrument": "BTCUSDT"}
                while (await program.post("/control/resync", resync, **BEARER)).json().get("resynced") != 1:  # noqa: ASYNC110
                    await trio.sleep(POLL_S)
                await program.logged("book_resync")
                answer = await program.post("/control/resync", {**resync, "instrument": "X"}, **BEARER)
                assert answer.json()["error"] == "instrument: no book of X is subscribed that is meant"
                status = (await get(program, "/status")).json()["config"]
                assert status["temporary"] == [{"subscriptions": add}]
                assert status["refused"]["problems"] == [problem]
                assert status["reloads"] == {"applied": 1, "refused": 2, "unchanged": 0}
                metrics = (await get(program, "/metrics")).text
                assert 'pipeline_config_reloads_total{result="refused"} 2.0' in metrics
                assert "pipeline_config_loaded_timestamp_seconds 1." in metrics

                mount.replace(settings(linear("trade", "BTCUSDT", "ETHUSDT")))
                assert (await program.post("/control/reload", {}, **BEARER)).json()["result"] == "applied"
                await until(lambda: not venue.subscriptions("orderbook*"))
                program.process.send_signal(signal.SIGTERM)
                assert await program.process.wait() == 0
                assert TOKEN not in str(program.log)


async def get(program: Program, path: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, base_url=program.http, headers=BEARER) as client:
        return await client.get(path)


async def test_workers_follow_together_and_so_does_one_that_is_started_later(topics: Topics, tmp_path: Path) -> None:
    port = reserve_port()
    (tmp_path / "token").write_text(TOKEN)
    with trio.fail_after(DEADLINE_S):
        async with open_venue("bybit", market=MarketSettings(rate=20, instruments=many("bybit", 4))) as venue:

            def settings(*channels: str) -> dict[str, Any]:
                http = {"port": port, "token": {"file": str(tmp_path / "token")}}
                wanted = {"urls": urls(venue), "channels": [linear(list(channels), "*")]}
                base = configuration(topics, tmp_path, {"bybit": wanted})
                return {**base, "http": http, "reload": {"check": 0}, "workers": 2}

            mount = Mount(tmp_path, settings("trade"))
            async with started(mount.path, port) as program:
                await venue.wait_subscribed(count=4)
                await program.logged("connection_live", times=2)
                mount.replace(settings("trade", "book"))
                program.process.send_signal(signal.SIGHUP)
                await venue.wait_subscribed(count=8)
                add = {"venue": "bybit", "add": [linear("ticker", "*")], "remove": [linear("trade", "*")]}
                answer = await program.post("/control/subscriptions", add, **BEARER)
                assert answer.json()["result"] == "applied", answer.text
                await venue.wait_subscribed("tickers.*", count=4)
                await until(lambda: not venue.subscriptions("publicTrade*"))

                status = (await get(program, "/status")).json()
                os.kill(status["workers"][1]["pid"], signal.SIGKILL)
                await program.logged("worker_died")
                await until(lambda: venue.subscriptions() < 8)
                await venue.wait_subscribed(count=8)
                assert {venue.subscriptions(f"{name}*") for name in ("tickers", "orderbook")} == {4}
                assert not venue.subscriptions("publicTrade*"), "as it was when the first one started"

                for instrument in ("BTCUSDT", "ETHUSDT", "SOLUSDT"):
                    resync = {"venue": "bybit", "instrument": instrument}
                    while (await program.post("/control/resync", resync, **BEARER)).json().get("resynced") != 1:  # noqa: ASYNC110
                        await trio.sleep(POLL_S)
                answer = await program.post("/control/resync", {**resync, "instrument": "X"}, **BEARER)
                assert answer.status_code == 400, answer.text
                metrics = (await get(program, "/metrics")).text
                assert metrics.count("pipeline_config_needs_restart 0.0") == 1
                assert not any(line["event"] == "config_needs_restart" for line in program.log)
                assert sum(line["event"] == "control_accepted" and "subscriptions" in line for line in program.log) == 1
                program.process.send_signal(signal.SIGTERM)
                assert await program.process.wait() == 0
