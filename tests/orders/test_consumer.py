"""Who owns a command topic, and what an owner learns about the one before, against the real broker."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import Consumer, NewTopic

from pipeline.model.header import Micros
from pipeline.orders.consumer import CommandConsumer, Consumed, Holding, Mark
from pipeline.session.clock import system_clock
from pipeline.sink.settings import KafkaSettings
from tests.services import KafkaBroker

_numbers = itertools.count(1)
HANG_GUARD = 120.0


@attrs.define(eq=False)
class Clerk:
    """An owner that keeps what it is told."""

    holdings: list[list[Holding]] = attrs.field(factory=list)
    records: list[Consumed] = attrs.field(factory=list)
    given_up: int = 0
    losses: list[str] = attrs.field(factory=list)
    news: trio.Event = attrs.field(factory=trio.Event)

    def assigned(self, holdings: Sequence[Holding]) -> None:
        self.holdings.append(list(holdings))
        self._tell()

    def take(self, records: Sequence[Consumed]) -> None:
        self.records.extend(records)
        self._tell()

    async def give_up(self) -> None:
        self.given_up += 1
        self._tell()

    def lost(self, reason: str) -> None:
        self.losses.append(reason)
        self._tell()

    def _tell(self) -> None:
        self.news.set()
        self.news = trio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(HANG_GUARD):
            while not condition():
                await self.news.wait()


@attrs.define(eq=False)
class Ground:
    """One command topic of its own."""

    settings: KafkaSettings
    topic: str
    group: str

    def write(self, *values: bytes) -> None:
        producer = Producer({"bootstrap.servers": self.settings.bootstrap_servers[0], "linger.ms": 0})
        for value in values:
            producer.produce(self.topic, value)
        assert producer.flush(HANG_GUARD) == 0

    def committed(self) -> TopicPartition:
        consumer = Consumer({"bootstrap.servers": self.settings.bootstrap_servers[0], "group.id": self.group})
        try:
            return consumer.committed([TopicPartition(self.topic, 0)], timeout=HANG_GUARD)[0]
        finally:
            consumer.close()

    def consumer(self, owner: Clerk, identity: str) -> CommandConsumer:
        def claim(holding: Holding) -> Mark:
            return Mark(identity, Micros(5), doubtful_until=holding.end)

        return CommandConsumer(self.settings, self.topic, self.group, identity, owner, system_clock, claim=claim)

    @asynccontextmanager
    async def member(self, identity: str) -> AsyncIterator[tuple[Clerk, CommandConsumer]]:
        clerk = Clerk()
        consumer = self.consumer(clerk, identity)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(consumer.run)
            await clerk.until(lambda: bool(clerk.holdings))
            yield clerk, consumer
            consumer.stop()


@pytest.fixture
def ground(broker: KafkaBroker) -> Ground:
    topic = f"commands-{next(_numbers)}-{time.time_ns()}"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(HANG_GUARD)
    return Ground(KafkaSettings(bootstrap_servers=(broker.bootstrap,)), topic, f"group-{topic}")


async def test_a_new_topic_is_claimed_before_anything_is_read(ground: Ground) -> None:
    ground.write(b"one", b"two")
    async with ground.member("first") as (clerk, _):
        [[holding]] = clerk.holdings
        assert (holding.start, holding.end, holding.mark, holding.is_committed) == (0, 2, None, False)
        await clerk.until(lambda: len(clerk.records) == 2)
        found = await trio.to_thread.run_sync(ground.committed)
        assert (found.offset, Mark.read(found.metadata)) == (0, Mark("first", Micros(5), doubtful_until=2))
        assert [record.value for record in clerk.records] == [b"one", b"two"]


async def test_what_is_settled_is_committed_with_the_owners_mark(ground: Ground) -> None:
    ground.write(b"one", b"two", b"three")
    async with ground.member("first") as (clerk, consumer):
        await clerk.until(lambda: len(clerk.records) == 3)
        consumer.settle(0, 2, Mark("first", Micros(7), is_killed=True))
    async with ground.member("first") as (clerk, consumer):
        [[holding]] = clerk.holdings
        assert (holding.start, holding.end, holding.is_committed) == (2, 3, True)
        assert holding.mark == Mark("first", Micros(7), is_killed=True)
        await clerk.until(lambda: bool(clerk.records))
        assert [record.offset for record in clerk.records] == [2]


async def test_a_second_member_gets_the_topic_only_when_the_first_has_given_up(ground: Ground) -> None:
    # By name the first of two members gets the only partition.
    async with ground.member("first") as (first, _), ground.member("another") as (second, _):
        await second.until(lambda: any(second.holdings))
        assert first.given_up == 1
        assert second.holdings[-1][0].mark == Mark("first", Micros(5), doubtful_until=0)


async def test_commands_are_fetched_at_once(ground: Ground) -> None:
    async with ground.member("first") as (clerk, _):
        for number in range(3):
            before = len(clerk.records)
            await trio.to_thread.run_sync(ground.write, b"%d" % number)
            await clerk.until(lambda before=before: len(clerk.records) > before)  # type: ignore[misc]
        assert all(record.time > 0 for record in clerk.records)


async def test_no_more_is_fetched_while_too_much_waits(ground: Ground) -> None:
    async with ground.member("first") as (clerk, consumer):
        consumer.waiting(10**6)
        with trio.fail_after(HANG_GUARD):
            while not consumer.is_paused:  # noqa: ASYNC110 - nothing announces it
                await trio.sleep(0.01)
        await trio.to_thread.run_sync(ground.write, b"one")
        consumer.waiting(0)
        await clerk.until(lambda: bool(clerk.records))
        assert not consumer.is_paused


def test_marks_of_others_are_none() -> None:
    for text in (None, "", "{}", "[]", "null", '{"owner":1}', '{"owner":"a","since":"x","doubtful_until":0}'):
        assert Mark.read(text) is None
    mark = Mark("a", Micros(1), 2, is_killed=True)
    assert Mark.read(mark.text()) == mark
