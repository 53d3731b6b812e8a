"""Three brokers under load: leaders that die or are restarted, a cluster with one broker left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from pipeline.sink.opening import open_sink
from pipeline.sink.settings import KafkaSettings, TopicSettings
from pipeline.sink.sink import Sink
from pipeline.sink.topics import topic_name
from tests.services import KafkaCluster
from tests.sink.traffic import Tape, arrived, direct, kafka_settings, numbers, until

_PER_TURN, _TURN_S = 20, 0.01
"""2 000 records a second."""


def settings_for(cluster: KafkaCluster, folder: Path) -> KafkaSettings:
    """Topics on all brokers, and a queue that is full after a second."""
    topics = TopicSettings(partitions=3, replication_factor=3, config={"min.insync.replicas": "2"})
    return kafka_settings(cluster.bootstrap, folder, queue_messages=2_000, topic_defaults=topics, connect_within=30.0)


@asynccontextmanager
async def published(settings: KafkaSettings, tape: Tape) -> AsyncIterator[Sink]:
    """A sink with traffic all the while, in Kafka as it was published when the block is left."""
    over = trio.Event()

    async def publish() -> None:
        while not over.is_set():
            tape.publish(sink, _PER_TURN)
            await trio.sleep(_TURN_S)

    async with open_sink(settings) as sink:
        await direct(sink)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            yield sink
            over.set()
        await direct(sink)
        stats = sink.stats()
    assert stats.balanced
    assert stats.acknowledged == stats.published
    assert stats.announced_lost == 0
    assert numbers(await trio.to_thread.run_sync(lambda: list(arrived(settings)))) == tape.expected()


async def advances(sink: Sink, by: int = 500) -> None:
    goal = sink.stats().acknowledged + by
    await until(lambda: sink.stats().acknowledged > goal)


async def test_a_leader_that_is_killed_at_full_rate_costs_nothing(cluster: KafkaCluster, tmp_path: Path) -> None:
    settings, tape = settings_for(cluster, tmp_path), Tape(instruments=30)
    topic = topic_name(settings, "trade")
    async with published(settings, tape) as sink:
        await advances(sink)
        leader = await trio.to_thread.run_sync(cluster.leader, topic)
        await trio.to_thread.run_sync(leader.kill)
        await advances(sink, 2_000)
        await trio.to_thread.run_sync(leader.start)
        await trio.to_thread.run_sync(cluster.await_in_sync, topic)


async def test_one_broker_left_of_three_lets_records_wait(cluster: KafkaCluster, tmp_path: Path) -> None:
    settings, tape = settings_for(cluster, tmp_path), Tape(instruments=30)
    topic = topic_name(settings, "trade")
    async with published(settings, tape) as sink:
        await advances(sink)
        leader = await trio.to_thread.run_sync(cluster.leader, topic)
        others = [node for node in cluster.nodes.values() if node is not leader]
        for node in others:
            await trio.to_thread.run_sync(node.kill)
        await until(lambda: sink.stats().spool_bytes > 300_000)
        await trio.to_thread.run_sync(cluster.start)
        await until(lambda: not sink.stats().is_spooling)
        await trio.to_thread.run_sync(cluster.await_in_sync, topic)


async def test_a_leader_that_is_restarted_in_order_costs_nothing(cluster: KafkaCluster, tmp_path: Path) -> None:
    settings, tape = settings_for(cluster, tmp_path), Tape(instruments=30)
    topic = topic_name(settings, "trade")
    async with published(settings, tape) as sink:
        await advances(sink)
        leader = await trio.to_thread.run_sync(cluster.leader, topic)
        await trio.to_thread.run_sync(leader.restart)
        await advances(sink, 2_000)
        await trio.to_thread.run_sync(cluster.await_in_sync, topic)
