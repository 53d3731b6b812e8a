"""What the spool is for: a broker that is gone, a process that is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import trio

from pipeline.sink.errors import SinkFailed
from pipeline.sink.opening import open_sink
from pipeline.sink.settings import KafkaSettings
from tests.conftest import OwnBroker
from tests.sink.traffic import DEADLINE_S, Tape, arrived, direct, kafka_settings, numbers, until

FOLDER = Path(__file__).resolve().parents[2]


async def test_a_killed_broker_costs_nothing(own_broker: OwnBroker, tmp_path: Path) -> None:
    broker = await trio.to_thread.run_sync(own_broker)
    settings = kafka_settings(broker.bootstrap, tmp_path, queue_messages=2_000)
    tape, over = Tape(), trio.Event()

    async def publish() -> None:
        while not over.is_set():
            tape.publish(sink, 20)
            await trio.sleep(0.01)

    async with open_sink(settings) as sink:
        await direct(sink)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            await until(lambda: sink.stats().acknowledged > 2_000)
            await trio.to_thread.run_sync(broker.kill)
            await until(lambda: sink.stats().spool_bytes > 300_000)
            await until(lambda: not sink.stats().broker_up)
            await trio.to_thread.run_sync(broker.start)
            await until(lambda: sink.stats().broker_up)
            await until(lambda: not sink.stats().is_spooling)
            over.set()
        await sink.delivered()
        stats = sink.stats()
    assert stats.balanced
    assert stats.acknowledged == stats.published
    assert stats.announced_lost == 0
    assert numbers(arrived(settings)) == tape.expected()


async def test_what_the_end_leaves_is_delivered_by_the_next_start(own_broker: OwnBroker, tmp_path: Path) -> None:
    broker = await trio.to_thread.run_sync(own_broker)
    settings = kafka_settings(broker.bootstrap, tmp_path, queue_messages=1_500, drain_within=0.5)
    tape = Tape()
    async with open_sink(settings) as sink:
        await direct(sink)
        tape.publish(sink, 1_000)
        await sink.delivered()
        await trio.to_thread.run_sync(broker.kill)
        await until(lambda: not sink.stats().broker_up)
        tape.publish(sink, 4_000)
    stats = sink.stats()
    assert stats.balanced
    assert stats.spooled == 4_000

    async with open_sink(attrs.evolve(settings, connect_within=0.3)) as sink:
        tape.publish(sink, 500)
    assert sink.stats().spooled == 500

    await trio.to_thread.run_sync(broker.start)
    async with open_sink(attrs.evolve(settings, drain_within=DEADLINE_S)) as sink:
        tape.publish(sink, 500)
    stats = sink.stats()
    assert stats.balanced
    assert stats.recovered == 4_500
    assert stats.acknowledged == 5_000
    assert stats.spool_bytes == 0
    records = list(arrived(settings))
    assert numbers(records) == tape.expected()
    moments = [record.fields["exchange_time"].timestamp() for record in records]
    assert [record.timestamp_ms for record in records] == [int(moment * 1000) for moment in moments]


async def test_a_broker_that_comes_after_the_start(own_broker: OwnBroker, tmp_path: Path) -> None:
    broker = await trio.to_thread.run_sync(own_broker)
    await trio.to_thread.run_sync(broker.kill)
    settings = kafka_settings(broker.bootstrap, tmp_path, connect_within=0.2)
    tape = Tape()
    async with open_sink(settings) as sink:
        tape.publish(sink, 2_000)
        await trio.to_thread.run_sync(broker.start)
        await direct(sink)
        assert sink.stats().acknowledged == 2_000
    assert numbers(arrived(settings)) == tape.expected()


KILLED = """
import sys
from pathlib import Path
import trio
from pipeline.sink.opening import open_sink
from tests.sink.traffic import Tape, kafka_settings

async def main(bootstrap, folder, template):
    settings = kafka_settings(bootstrap, Path(folder), topic_template=template, connect_within=0.1)
    async with open_sink(settings) as sink:
        Tape().publish(sink, 20_000)
        await sink.backlog.flush()
        print("spooled", sink.stats().spooled, flush=True)
        await trio.sleep_forever()

trio.run(main, *sys.argv[1:])
"""


def _spool_and_be_killed(*arguments: str) -> None:
    command = [sys.executable, "-c", KILLED, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=FOLDER, text=True) as child:
        assert child.stdout is not None
        try:
            assert any(line == "spooled 20000\n" for line in child.stdout)
        finally:
            child.kill()


async def test_a_killed_process_leaves_its_spool(settings: KafkaSettings, tmp_path: Path) -> None:
    nowhere = "127.0.0.1:1"
    await trio.to_thread.run_sync(_spool_and_be_killed, nowhere, str(tmp_path), settings.topic_template)
    async with open_sink(settings) as sink:
        await direct(sink)
        assert sink.stats().recovered == 20_000
    found = numbers(arrived(settings))
    assert all(sequence == list(range(len(sequence))) for sequence in found.values())
    assert sum(len(sequence) for sequence in found.values()) == 20_000


async def test_a_disk_that_cannot_be_written_loses_nothing_while_memory_lasts(
    settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape = Tape()
    async with open_sink(attrs.evolve(settings, queue_messages=100)) as sink:
        await direct(sink)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("pipeline.sink.spool.os.fdatasync", full)
            tape.publish(sink, 10_000)
            await until(lambda: sink.stats().spool_failure)
            assert sink.stats().spool_failure == "No space left on device"
            assert sink.stats().balanced
        await direct(sink)
        assert sink.stats().spool_failure is None
    assert numbers(arrived(settings)) == tape.expected()


async def test_what_no_disk_takes_at_the_end_is_told(settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = attrs.evolve(settings, bootstrap_servers=("127.0.0.1:1",), connect_within=0.1, drain_within=0.1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.sink.spool.os.fdatasync", full)
    with pytest.raises(SinkFailed, match=r"^30 records are lost: .*No space left on device"):
        async with open_sink(nowhere) as sink:
            Tape().publish(sink, 30)
    assert sink.stats().announced_lost == 30
    assert sink.stats().balanced
