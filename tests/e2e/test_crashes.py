"""Processes and brokers that are killed at random moments: counted is what of a numbered stream is in Kafka then."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from confluent_kafka import Producer

from pipeline.sink.opening import open_sink
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.sink import Sink
from pipeline.sink.stats import SinkStats
from tests.conftest import OwnBroker
from tests.services import KafkaBroker
from tests.sink.publisher import RUN, settings_from
from tests.sink.traffic import Tape, arrived, kafka_settings, numbers, origin, trade, until

ROOT = Path(__file__).parents[2]
RATE = 3_000
KILLS = 5
DEADLINE_S = 120
MODES: Mapping[str, Mapping[str, Any]] = {"journal": {"journal": True}, "exactly_once": {"delivery": "exactly_once"}}


def fields(settings: KafkaSettings, **changes: object) -> dict[str, Any]:
    """As `settings_from` reads them."""
    return {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "topic_template": settings.topic_template,
        "connect_within": 20.0,
        "spool": attrs.asdict(settings.spool),
        **changes,
    }


@attrs.define
class Published:
    """What a publisher said."""

    process: subprocess.Popen[str]
    count: int = 0
    lines: Iterator[str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        assert self.process.stdout is not None
        self.lines = iter(self.process.stdout)

    def listen(self, enough: int | None = None) -> None:
        """Until it has published so many, or to its end."""
        for line in self.lines:
            word, number = line.split()
            if word == "published":
                self.count = int(number)
                if enough is not None and self.count >= enough:
                    return


@contextmanager
def publisher(run: int, settings: Mapping[str, Any]) -> Iterator[Published]:
    """A publishing process; killed on leaving the block."""
    command = [sys.executable, "-m", "tests.sink.publisher", str(run), str(RATE), json.dumps(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True) as process:
        try:
            yield Published(process)
        finally:
            process.kill()
            assert process.stderr is not None
            process.stderr.close()


def publish_and_be_killed(run: int, settings: Mapping[str, Any], after: float) -> int:
    """How many it is known to have published when it was killed, `after` seconds from its first ones on."""
    with publisher(run, settings) as published:
        assert published.process.stderr is not None
        drain = threading.Thread(target=published.process.stderr.read)
        drain.start()
        published.listen(enough=1)
        timer = threading.Timer(after, published.process.kill)
        timer.start()
        published.listen()
        timer.join()
        drain.join()
        return published.count


def check_found(settings: KafkaSettings, published: Mapping[int, int]) -> int:
    """Nothing is missing, and each key is in order, repetitions aside; returns how many are repetitions."""
    repeated = 0
    everything = set()
    for sequence in numbers(arrived(settings)).values():
        fresh = list(dict.fromkeys(sequence))
        assert fresh == sorted(fresh)
        repeated += len(sequence) - len(fresh)
        everything.update(fresh)
    wanted = {run * RUN + number for run, count in published.items() for number in range(count)}
    assert wanted <= everything
    return repeated


async def drain(settings: KafkaSettings) -> None:
    """What is left in the spool goes to Kafka."""
    async with open_sink(settings) as sink:
        await sink.delivered()
        assert sink.stats().balanced


@pytest.mark.parametrize("mode", MODES)
async def test_a_process_killed_at_random_moments_loses_nothing(mode: str, broker: KafkaBroker, tmp_path: Path) -> None:
    chosen = fields(kafka_settings(broker.bootstrap, tmp_path), **MODES[mode])
    settings = settings_from(chosen)
    moments = [random.uniform(0.05, 1.5) for _ in range(KILLS)]
    print("killed after", moments)
    published = {}
    with trio.fail_after(DEADLINE_S):
        for run, moment in enumerate(moments):
            published[run] = await trio.to_thread.run_sync(publish_and_be_killed, run, chosen, moment)
        await drain(settings)
    repeated = check_found(settings, published)
    if mode == "exactly_once":
        assert repeated == 0
    assert repeated <= KILLS * settings.commit_records
    gaps = [record.fields for record in arrived(settings, "feed_status") if record.fields["scope"] == "process"]
    assert len(dict.fromkeys(gap["receive_time"] for gap in gaps)) == KILLS
    assert all(gap["status"] == "gap" and gap["from_time"] <= gap["to_time"] for gap in gaps)


async def test_of_two_instances_of_a_shard_the_later_one_lives(broker: KafkaBroker, tmp_path: Path) -> None:
    first, second = (
        fields(kafka_settings(broker.bootstrap, tmp_path / name), delivery="exactly_once", shard="contested")
        for name in ("first", "second")
    )
    second["topic_template"] = first["topic_template"]

    def contest() -> dict[int, int]:
        with publisher(0, first) as older:
            older.listen(enough=3_000)
            with publisher(1, second) as newer:
                listening = threading.Thread(target=newer.listen)
                listening.start()
                _, complaints = older.process.communicate()
                assert older.process.returncode == 1
                assert "another instance with the same kafka.shard has taken over" in complaints
                assert complaints.rstrip().endswith("(shard contested)")
                assert newer.process.poll() is None
                newer.process.kill()
                assert newer.process.stderr is not None
                newer.process.stderr.read()
                listening.join()
                return {0: older.count, 1: newer.count}

    with trio.fail_after(DEADLINE_S):
        published = await trio.to_thread.run_sync(contest)
        await drain(settings_from(second))
        await drain(settings_from(first))  # what the older one could not deliver any more was kept
    repeated = numbers(arrived(settings_from(first)))
    assert all(len(sequence) == len(set(sequence)) for sequence in repeated.values())
    everything = {number for sequence in repeated.values() for number in sequence}
    assert {run * RUN + number for run, count in published.items() for number in range(count)} <= everything


async def test_a_producer_fenced_without_a_rival_is_replaced(broker: KafkaBroker, tmp_path: Path) -> None:
    """As by a transaction that timed out while the broker was away."""
    settings = kafka_settings(broker.bootstrap, tmp_path, delivery="exactly_once", shard=f"lonely-{random.random()}")
    fencing = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": settings.shard_name})
    tape = Tape()
    with trio.fail_after(DEADLINE_S):
        async with open_sink(settings) as sink:
            for _ in range(20):
                tape.publish(sink, 200)
                await until(lambda: sink.stats().in_flight)
            await trio.to_thread.run_sync(fencing.init_transactions)
            tape.publish(sink, 2_000)
            await until(lambda: sink.stats().renewals == 1)
            tape.publish(sink, 2_000)
            await sink.delivered()
            stats = sink.stats()
    assert stats.balanced
    assert stats.journal is not None
    assert not stats.journal.fenced
    assert stats.journal.aborts
    assert numbers(arrived(settings)) == tape.expected()


async def test_a_record_that_kafka_will_not_take_costs_one_dead_letter_in_a_transaction(
    broker: KafkaBroker, tmp_path: Path
) -> None:
    settings = kafka_settings(broker.bootstrap, tmp_path, delivery="exactly_once", commit_interval=0.01)
    settings = attrs.evolve(settings, topics={}, compression="none", shard=f"large-{random.random()}")
    small = {"trade": attrs.evolve(settings.topic_defaults, partitions=1, config={"max.message.bytes": "20000"})}
    settings = attrs.evolve(settings, topics=small)
    with trio.fail_after(DEADLINE_S):
        async with open_sink(settings) as sink:
            for number in range(50):
                sink.publish(trade(number, origin(), trade_id="x" * 30_000 if number == 20 else None))
            await sink.delivered()
            assert sink.stats().balanced
            assert sink.stats().dead_letters == 1
    assert numbers(arrived(settings)) == {origin().key: [number for number in range(50) if number != 20]}
    (letter,) = arrived(settings, "dead_letter")
    assert letter.fields["payload_size"] > 30_000


async def test_a_broker_killed_twice_costs_nothing(own_broker: OwnBroker, tmp_path: Path) -> None:
    broker = await trio.to_thread.run_sync(own_broker)
    both = [kafka_settings(broker.bootstrap, tmp_path / mode, **MODES[mode]) for mode in MODES]
    tapes, over = [Tape() for _ in both], trio.Event()

    async def publish(sink: Sink, tape: Tape) -> None:
        while not over.is_set():
            tape.publish(sink, 20)
            await trio.sleep(0.01)

    def everywhere(condition: Callable[[SinkStats], bool]) -> bool:
        return all(condition(sink.stats()) for sink in sinks)

    with trio.fail_after(DEADLINE_S):
        async with AsyncExitStack() as stack:
            sinks = [await stack.enter_async_context(open_sink(settings)) for settings in both]
            async with trio.open_nursery() as nursery:
                for sink, tape in zip(sinks, tapes, strict=True):
                    nursery.start_soon(publish, sink, tape)
                for count in (2_000, 12_000):
                    await until(partial(everywhere, partial(_acknowledged, count)))
                    await trio.to_thread.run_sync(broker.kill)
                    await until(lambda: everywhere(lambda stats: not stats.broker_up and stats.spooled > 3_000))
                    await trio.to_thread.run_sync(broker.start)
                await until(lambda: everywhere(lambda stats: stats.spooled < 500))
                over.set()
            for sink in sinks:
                await sink.delivered()
            assert everywhere(lambda stats: stats.balanced and stats.acknowledged == stats.published)
    for settings, tape in zip(both, tapes, strict=True):
        assert numbers(arrived(settings)) == tape.expected()


def _acknowledged(count: int, stats: SinkStats) -> bool:
    return stats.acknowledged > count


async def test_what_was_committed_is_not_repeated_though_the_spool_does_not_know(
    broker: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a kill right after a commit."""
    settings = kafka_settings(broker.bootstrap, tmp_path, delivery="exactly_once", shard=f"forgetful-{random.random()}")
    tape = Tape()
    with trio.fail_after(DEADLINE_S):
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.sink.spool.Spool.acknowledge", lambda *_, **__: None)
            patch.setattr("pipeline.sink.spool.Spool.leave", lambda spool, _: spool.abandon())
            async with open_sink(settings) as sink:
                tape.publish(sink, 3_000)
                await sink.delivered()
        async with open_sink(settings) as sink:
            tape.publish(sink, 100)
            await sink.delivered()
            assert sink.stats().recovered == 0
    assert numbers(arrived(settings)) == tape.expected()
