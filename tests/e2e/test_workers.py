"""Several workers as real processes under one supervisor: who takes what, who dies, who is left behind."""

from __future__ import annotations

import os
import signal
import uuid
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from pipeline.config import Config
from pipeline.feeds.shares import WHOLE, Share
from pipeline.leftovers import deliver_leftovers, find_leftovers
from pipeline.sim.listing import many
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from pipeline.sink.opening import open_sink
from tests.e2e import wire
from tests.e2e.connector import QUICK, configuration, parsed, urls
from tests.e2e.consumer import Record, Topics, prints
from tests.e2e.program import POLL_S, Program, started, write
from tests.services import KafkaBroker
from tests.services.ports import reserve_port
from tests.sink.traffic import Tape, arrived, kafka_settings, numbers, origin, trade

DEADLINE_S = 120
INSTRUMENTS = 6
MARKET = MarketSettings(rate=20, instruments=many("bybit", INSTRUMENTS))
CHANNELS = [{"market": "linear", "channel": ["trade", "book", "ticker"], "instruments": ["*"]}]
WANTED = 3 * INSTRUMENTS


def of_two(venue: SimulatedVenue, port: int) -> dict[str, Any]:
    """What makes a configuration one of two workers."""
    return {
        "workers": 2,
        "http": {"port": port},
        "venues": {"bybit": {"urls": urls(venue), "channels": CHANNELS, "reconnect": QUICK}},
    }


async def status(program: Program) -> dict[str, Any]:
    found = (await program.get("/status")).json()
    assert isinstance(found, dict)
    return found


def generations(found: dict[str, Any], share: int) -> dict[str, int]:
    """How often each of a share's connections was opened."""
    connections = found["venues"]["bybit"]["connections"]
    return {name: each["generation"] for name, each in connections.items() if f".{share}-" in name}


async def leave_a_record(kafka: dict[str, Any]) -> None:
    """As one process without workers does that found no broker."""
    whole = parsed({"kafka": kafka, "venues": {"bybit": {"channels": CHANNELS}}}).kafka
    away = attrs.evolve(whole, bootstrap_servers=(f"127.0.0.1:{reserve_port()}",), connect_within=0.1, drain_within=0.1)
    async with open_sink(away) as sink:
        sink.publish(trade(7, origin("OLDUSDT")))


async def test_two_workers_share_the_subscriptions_and_one_that_dies_is_replaced(
    topics: Topics, tmp_path: Path
) -> None:
    port = reserve_port()
    with trio.fail_after(DEADLINE_S):
        async with open_venue("bybit", market=MARKET) as venue:
            settings = {**configuration(topics, tmp_path, {}), **of_two(venue, port)}
            await leave_a_record(settings["kafka"])
            async with started(write(settings, tmp_path), port) as program:
                await program.logged("supervisor_started")
                await venue.wait_subscribed(count=WANTED)
                await program.ready()
                assert venue.subscriptions() == WANTED
                before = await status(program)
                first, second = before["workers"]
                assert len({first["pid"], second["pid"], program.process.pid}) == 3
                assert sum(c["subscribed"] for c in before["venues"]["bybit"]["connections"].values()) == WANTED
                assert len(generations(before, 0)) == len(generations(before, 1)) == 3
                listed = await topics.until("instrument", lambda records: len(records) >= INSTRUMENTS)
                assert len(listed) == INSTRUMENTS

                os.kill(second["pid"], signal.SIGKILL)
                died = await program.logged("worker_died")
                assert (died["worker"], died["ended"]) == (1, "signal SIGKILL")
                await program.logged("unclean_end")
                await venue.wait_subscribed(count=WANTED)
                while not (found := await _replaced(program, second["pid"])):  # noqa: ASYNC110 - it can only be asked
                    await trio.sleep(POLL_S)
                assert found["workers"][0]["pid"] == first["pid"]
                assert generations(found, 0) == generations(before, 0)
                assert venue.subscriptions() == WANTED
                gaps = await topics.until("feed_status", _announced)
                [gap] = filter(_is_gap, gaps)
                assert gap["connection"] == "exchange-pipeline-1-of-2"
                assert gap["from_time"] <= gap["to_time"]
                await _check_metrics(program)

                await program.logged("spool_adopted")
                await venue.wait_sent(venue.sent.total + 200)
                sent = wire.trades(venue.sent.messages("publicTrade.*"))
                program.process.send_signal(signal.SIGTERM)
                assert await program.process.wait() == 0
                await program.over.wait()
    ends = {line["worker"]: line for line in program.log if line["event"] == "sink_closed" and line["published"] > 1}
    assert ends.keys() == {0, 1}
    assert all(end["published"] == end["acknowledged"] for end in ends.values())
    trades = prints(await topics.read("trade"))
    assert len(trades.pop("OLDUSDT")) == 1
    ids = [each.id for records in trades.values() for each in records]
    assert len(ids) == len(set(ids))
    assert trades.keys() == sent.keys()
    untouched = before["venues"]["bybit"]["connections"]["bybit.linear.trade.0-0"]
    complete = [name for name in sent if trades[name][: len(sent[name])] == sent[name]]
    assert len(complete) >= untouched["subscribed"]
    assert not any(path.stat().st_size for path in (tmp_path / "spool").glob("*.spool"))


async def _replaced(program: Program, pid: int) -> dict[str, Any] | None:
    """The status when another process than this one is ready in its place."""
    found = await status(program)
    return found if found["ready"] and found["workers"][1]["pid"] not in (None, pid) else None


def _is_gap(record: Record) -> bool:
    return bool(record["status"] == "gap" and record["scope"] == "process")


def _announced(records: list[Record]) -> bool:
    return any(map(_is_gap, records))


async def _check_metrics(program: Program) -> None:
    text = (await program.get("/metrics")).text
    lines = text.splitlines()
    assert 'pipeline_worker_restarts_total{worker="1"} 1.0' in lines
    assert 'pipeline_worker_up{worker="0"} 1.0' in lines
    for worker in (0, 1):
        live = (
            f'pipeline_connection_live{{connection="bybit.linear.book.{worker}-0",venue="bybit",worker="{worker}"}} 1.0'
        )
        assert live in lines
    heads = [line for line in lines if line.startswith("# TYPE")]
    assert len(heads) == len(set(heads))


async def test_a_killed_supervisor_leaves_no_worker_behind(tmp_path: Path) -> None:
    port = reserve_port()
    kafka = {
        "bootstrap_servers": [],
        "properties": {"test.mock.num.brokers": 1},
        "verify_topics": False,
        "spool": {"directory": str(tmp_path / "spool")},
    }
    with trio.fail_after(DEADLINE_S):
        async with open_venue("bybit", market=MARKET) as venue:
            config = write({"kafka": kafka, **of_two(venue, port)}, tmp_path)
            async with started(config, port) as program:
                await program.logged("supervisor_started")
                await venue.wait_subscribed(count=WANTED)
                await program.ready()
                program.process.kill()
                await program.over.wait()
            assert venue.subscriptions() == 0
    stopped = [line["worker"] for line in program.log if line["event"] == "service_stopped"]
    assert sorted(stopped) == [0, 1]
    assert all(line["published"] == line["acknowledged"] for line in program.log if line["event"] == "sink_closed")


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_what_former_shares_left_reaches_kafka_once(delivery: str, broker: KafkaBroker, tmp_path: Path) -> None:
    shared = kafka_settings(broker.bootstrap, tmp_path, delivery=delivery, shard=None)
    config = Config(kafka=attrs.evolve(shared, client_id=f"leaving-{uuid.uuid4().hex}"))
    tape = Tape()
    with trio.fail_after(DEADLINE_S):
        for share in (WHOLE, Share(2, 3)):
            own = config.for_share(share).kafka
            nowhere = (f"127.0.0.1:{reserve_port()}",)
            async with open_sink(
                attrs.evolve(own, bootstrap_servers=nowhere, connect_within=0.1, drain_within=0.1)
            ) as sink:
                tape.publish(sink, 50)
        await deliver_leftovers(config.kafka, Share(0, 2))
        await deliver_leftovers(config.kafka, Share(0, 2))
    assert {key: sorted(found) for key, found in numbers(arrived(config.kafka)).items()} == tape.expected()
    assert find_leftovers(Path(config.kafka.spool.directory), Share(0, 2)) == []
