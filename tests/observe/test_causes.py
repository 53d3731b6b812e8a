"""Faults one by one: what is wrong, and why, is in `/status`, on the page, in the metrics and in the probe."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from pipeline.app import Service
from pipeline.config import loads
from pipeline.model.errors import ConfigError
from pipeline.observe.page import StatusPage
from pipeline.reloader import Source
from pipeline.sim.listing import many
from pipeline.sim.settings import Account, MarketSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from tests.observe.test_breaking import DEADLINE_S, kafka
from tests.observe.test_metrics import parsed

pytestmark = pytest.mark.usefixtures("logged")

SKEW_S = 3
ACCOUNT = Account("main", "key-of-main", "secret-of-main", "phrase-of-main")


@attrs.frozen
class Scene:
    """What a fault may break."""

    venue: SimulatedVenue
    service: Service
    folder: Path
    kill_kafka: Callable[[], None]


Break = Callable[[Scene], Awaitable[None]]


async def nothing(_: Scene) -> None:
    """The fault is there from the start."""


async def refuse_one_topic(scene: Scene) -> None:
    scene.venue.fault("refuse_topic", topic="trades*BTC*")
    scene.venue.fault("drop")


async def lose_updates(scene: Scene) -> None:
    for _ in range(5):
        scene.venue.fault("gap", topic="books*", count=3)
        await trio.sleep(0.1)  # the market goes on between two gaps


async def fall_silent(scene: Scene) -> None:
    scene.venue.fault("silence")


async def end_kafka(scene: Scene) -> None:
    scene.kill_kafka()


async def take_folder_away(scene: Scene) -> None:
    shutil.rmtree(scene.folder / "spool")
    scene.kill_kafka()


async def mistake(scene: Scene) -> None:
    path = scene.folder / "config.yaml"
    path.write_text(path.read_text().replace('"trade"', '"tradez"'))
    with pytest.raises(ConfigError):
        await scene.service.reloader.reload("the test")


@attrs.frozen(kw_only=True)
class Fault:
    """What is broken, and what must then be seen."""

    act: Break = nothing
    kafka: Mapping[str, Any] = attrs.Factory(dict)
    okx: Mapping[str, Any] = attrs.Factory(dict)
    skew_s: int = 0
    """How much the venue's clock is ahead."""
    title: str
    """Of one of the problems, a part."""
    detail: str
    metric: tuple[str, Mapping[str, str], Callable[[float], bool]] | None
    unready: str = ""
    """What `/readyz` says; empty: it is ready."""


TRADES = {"venue": "okx", "connection": "okx.swap.trade.0"}
BOOKS = {"venue": "okx", "connection": "okx.swap.book.0"}
UNSENT = {"venue": "okx", "kind": "trade", "le": "0.0"}
LOGIN = {"venue": "okx", "connection": "okx.main.private.0"}
WRONG_KEY = {
    "accounts": {
        "main": {
            "api_key": {"env": "WRONG_KEY"},
            "api_secret": {"env": "WRONG_KEY"},
            "passphrase": {"env": "WRONG_KEY"},
            "channels": ["order"],
        }
    }
}


def is_one(value: float) -> bool:
    return value == 1


def is_zero(value: float) -> bool:
    return value == 0


FAULTS = {
    "login refused": Fault(
        okx=WRONG_KEY, title="okx.main.private.0 is refused", detail="API key doesn't exist",
        metric=("pipeline_connection_live", LOGIN, is_zero), unready="okx.main.private.0 is refused: okx error 60032",
    ),
    "one subscription refused": Fault(
        act=refuse_one_topic, title="okx refuses 1 subscription", detail="BTC-USDT-SWAP",
        metric=("pipeline_subscriptions_refused", TRADES, is_one),
    ),
    "gaps": Fault(
        act=lose_updates, title="okx: gaps in order books", detail="okx.swap.book.0: ",
        metric=("pipeline_book_gaps_total", BOOKS, lambda value: value > 0),
    ),
    "silent connections": Fault(
        act=fall_silent, okx={"heartbeat": {"ping_every": "1s", "pong_within": "1s"}},
        title="okx: connections were lost lately", detail="no frame within 1 s after a ping",
        metric=("pipeline_reconnects_total", {**BOOKS, "cause": "HeartbeatLost"}, lambda value: value > 0),
    ),
    "clock ahead": Fault(
        skew_s=-SKEW_S, title="Our clock and okx's differ", detail="ours is ahead",
        metric=("pipeline_exchange_lag_seconds", TRADES, lambda value: value > SKEW_S - 1),
    ),
    "clock behind": Fault(
        skew_s=SKEW_S, title="Our clock and okx's differ", detail="ours is behind",
        metric=("pipeline_exchange_to_receive_seconds_bucket", UNSENT, lambda value: value > 0),
    ),
    "record too large": Fault(
        kafka={"max_record_bytes": 1_200}, title="became dead letters", detail="over kafka.max_record_bytes of 1200",
        metric=("pipeline_sink_dead_letters_total", {}, lambda value: value > 0),
    ),
    "Kafka away": Fault(
        act=end_kafka, title="Kafka is down", detail="records wait, safe; 127.0.0.1:",
        metric=("pipeline_kafka_up", {}, is_zero),
    ),
    "spool folder gone": Fault(
        act=take_folder_away, kafka={"queue_messages": 50}, title="The spool cannot be written",
        detail="No such file or directory", metric=("pipeline_spool_broken", {}, is_one),
        unready="the spool cannot be written: No such file",
    ),
    "spool full": Fault(
        act=end_kafka, kafka={"queue_messages": 50, "spool": {"max_bytes": 100_000, "segment_bytes": 65_536}},
        title="Records are being lost", detail="the spool is full", metric=("pipeline_spool_full", {}, is_one),
        unready="the spool is full: records are being lost",
    ),
    "registry away": Fault(
        kafka={"schema_registry": {"url": "http://127.0.0.1:1"}}, title="The schema registry has not answered yet",
        detail="schema registry http://127.0.0.1:1 cannot be reached", metric=("pipeline_ready", {}, is_zero),
        unready="the schema registry has not been reached yet: schema registry http://127.0.0.1:1 cannot be reached",
    ),
    "mistaken configuration": Fault(
        act=mistake, title="The changed configuration is refused", detail='did you mean "trade"?',
        metric=("pipeline_config_refused", {}, is_one),
    ),
}  # fmt: skip


def configured(fault: Fault, venue: SimulatedVenue, broker: str, folder: Path) -> str:
    """The configuration of a small service that a fault is done to."""
    changes = dict(fault.kafka)
    return json.dumps(
        {
            "kafka": {
                "bootstrap_servers": [broker],
                "create_topics": False,
                "verify_topics": False,
                "statistics_interval": "500ms",
                "drain_within": "200ms",
                "properties": {"reconnect.backoff.max.ms": 500},
                "spool": {"directory": str(folder / "spool"), **changes.pop("spool", {})},
                **changes,
            },
            "http": {"port": 0},
            "venues": {
                "okx": {
                    "urls": {"websocket": venue.websocket_url, "rest": venue.rest_url},
                    "channels": [{"market": "swap", "channel": ["trade", "book"], "instruments": ["*"]}],
                    "reconnect": {"first": "50ms", "max": "200ms"},
                    **fault.okx,
                }
            },
        }
    )


@pytest.mark.parametrize("name", FAULTS)
async def test_the_cause_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = FAULTS[name]
    monkeypatch.setenv("WRONG_KEY", "wrong-in-every-way")
    monkeypatch.setattr("pipeline.sink.registry._PAUSE_S", 0.05)
    start_us = time.time_ns() // 1_000 + fault.skew_s * 1_000_000
    market = MarketSettings(rate=40, instruments=many("okx", 2), levels=40)
    with trio.fail_after(DEADLINE_S):
        async with AsyncExitStack() as stack:
            broker, kill = await stack.enter_async_context(kafka())
            venue = await stack.enter_async_context(
                open_venue("okx", market=market, accounts=[ACCOUNT], start_us=start_us)
            )
            text = configured(fault, venue, broker, tmp_path)
            (tmp_path / "config.yaml").write_text(text)
            listening = trio.Event()
            service = Service(
                loads(text), on_listening=lambda _: listening.set(), source=Source(str(tmp_path / "config.yaml"), text)
            )
            nursery = await stack.enter_async_context(trio.open_nursery())
            nursery.start_soon(run, service)
            await listening.wait()
            http = await stack.enter_async_context(httpx.AsyncClient(base_url=service.address, trust_env=False))
            if not fault.unready or fault.act is not nothing:
                await venue.wait_sent(40)  # all is well at first
            page = StatusPage()
            page.note((await http.get("/status")).json())
            await fault.act(Scene(venue, service, tmp_path, kill))
            await seen(fault, page, http)
            service.stop()


async def seen(fault: Fault, page: StatusPage, http: httpx.AsyncClient) -> None:
    """Wait until everything tells of the fault."""
    while True:
        status = (await http.get("/status")).json()
        found, _ = page.note(status)
        told = [problem for problem in found if fault.title in problem.title and fault.detail in problem.detail]
        probe = await http.get("/readyz")
        reasons = "; ".join(probe.json().get("reasons", ()))
        is_probed = fault.unready in reasons if fault.unready else probe.status_code == 200
        metrics = parsed((await http.get("/metrics")).content)
        if told and is_probed and (fault.metric is None or is_counted(fault.metric, metrics)):
            break
        await trio.sleep(0.1)
    verdict = page.view(status).sections["verdict"]
    assert told[0].title in verdict.replace("&#39;", "'").replace("&#x27;", "'")
    assert told[0].look


def is_counted(
    metric: tuple[str, Mapping[str, str], Callable[[float], bool]],
    metrics: Mapping[tuple[str, tuple[tuple[str, str], ...]], float],
) -> bool:
    name, labels, judge = metric
    value = metrics.get((name, tuple(sorted(labels.items()))))
    return value is not None and judge(value)


async def run(service: Service) -> None:
    """Until it has ended, even if the spool's folder has gone by then."""
    try:
        await service.run()
    except* Exception as group:
        if not all("cannot be written" in str(error) for error in group.exceptions):
            raise


@pytest.mark.parametrize("enabled", [True, False])
async def test_an_account_that_is_not_to_be_read_is_never_overdue(
    enabled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("KEY", ACCOUNT.key), ("SECRET", ACCOUNT.secret), ("PHRASE", ACCOUNT.passphrase)):
        monkeypatch.setenv(name, value)
    account = {"api_key": {"env": "KEY"}, "api_secret": {"env": "SECRET"}, "passphrase": {"env": "PHRASE"}}
    settings = {**account, "channels": ["order"], "reconcile": {"enabled": enabled, "every": "10m"}}
    fault = Fault(okx={"accounts": {"main": settings}}, title="", detail="", metric=None)
    with trio.fail_after(DEADLINE_S):
        async with (
            kafka() as (broker, _),
            open_venue("okx", accounts=[ACCOUNT]) as venue,
            trio.open_nursery() as nursery,
        ):
            service = Service(loads(configured(fault, venue, broker, tmp_path)))
            await nursery.start(service.run)
            async with httpx.AsyncClient(base_url=service.address, trust_env=False) as http:
                where = tuple(sorted(LOGIN.items()))
                live, metrics = 0.0, dict[tuple[str, tuple[tuple[str, str], ...]], float]()
                while live != 1 or (enabled and not metrics["pipeline_reconciled_timestamp_seconds", where]):
                    metrics = parsed((await http.get("/metrics")).content)
                    live = metrics.get(("pipeline_connection_live", where), 0.0)
                    await trio.sleep(0.05)
                names = {name for name, labels in metrics if labels == where and "reconcile" in name}
                kept = {"pipeline_reconciled_timestamp_seconds", "pipeline_reconcile_interval_seconds"}
                assert names - {"pipeline_reconciliations_total"} == (kept if enabled else set())
                if enabled:
                    assert metrics["pipeline_reconcile_interval_seconds", where] == 600
            service.stop()
