"""Who owns a command topic, and what an owner learns about the one before, against the real broker."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import Consumer, NewTopic

from pipeline.model.errors import Refused
from pipeline.model.header import Micros
from pipeline.orders import consumer as consumer_module
from pipeline.orders.consumer import CommandConsumer, Consumed, Holding, Mark
from pipeline.session.clock import system_clock
from pipeline.sink.errors import SinkFailed
from pipeline.sink.reader import Decoder
from pipeline.sink.settings import KafkaSettings, RegistrySettings
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
    reasons: list[str] = attrs.field(factory=list)
    news: trio.Event = attrs.field(factory=trio.Event)

    def assigned(self, holdings: Sequence[Holding]) -> None:
        self.holdings.append(list(holdings))
        self._tell()

    def take(self, records: Sequence[Consumed]) -> None:
        self.records.extend(records)
        self._tell()

    def held_up(self, reason: str) -> None:
        self.reasons.append(reason)
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
class ToyDecoder:
    """Knows every record but those that begin with a question mark: for them it asks a registry."""

    asked: threading.Event = attrs.field(factory=threading.Event)
    answer: threading.Event = attrs.field(factory=threading.Event)
    """The registry does not keep one waiting any more."""
    is_away: bool = True

    def knows(self, value: bytes) -> bool:
        return not value.startswith(b"?")

    def decode(self, value: bytes) -> object:
        if not self.knows(value):
            self.asked.set()
            assert self.answer.wait(HANG_GUARD)
            if self.is_away:
                raise SinkFailed("the registry does not answer")
        if value == b"odd":
            raise KeyError("odd")
        return "a text" if value == b"text" else {"value": value}


@attrs.define(eq=False)
class Ground:
    """One command topic of its own."""

    settings: KafkaSettings
    topic: str
    group: str
    decoder: ToyDecoder = attrs.field(factory=ToyDecoder)

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

        return CommandConsumer(
            self.settings, self.topic, self.group, identity, owner, system_clock, self.decoder, claim=claim
        )

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


async def test_what_may_not_be_claimed_is_neither_read_nor_committed(ground: Ground) -> None:
    def refuse(holding: Holding) -> Mark:
        raise Refused(f"{holding.end} are too few")

    ground.write(b"one")
    clerk = Clerk()
    consumer = attrs.evolve(ground.consumer(clerk, "first"), claim=refuse)
    with trio.fail_after(HANG_GUARD), pytest.RaisesGroup(pytest.RaisesExc(Refused, match="1 are too few")):
        await consumer.run()
    assert (clerk.holdings, clerk.records) == ([], [])
    assert (await trio.to_thread.run_sync(ground.committed)).offset < 0


async def test_a_second_member_gets_the_topic_only_when_the_first_has_given_up(ground: Ground) -> None:
    # By name the first of two members gets the only partition.
    async with ground.member("first") as (first, _), ground.member("another") as (second, _):
        await second.until(lambda: any(second.holdings))
        assert first.given_up == 1
        assert second.holdings[-1][0].mark == Mark("first", Micros(5), doubtful_until=0)


async def test_who_was_fenced_by_a_member_of_its_own_name_says_so(ground: Ground) -> None:
    clerk = Clerk()
    consumer = ground.consumer(clerk, "first")
    twin = Consumer(
        {
            "bootstrap.servers": ground.settings.bootstrap_servers[0],
            "group.id": ground.group,
            "group.instance.id": "first",
            "partition.assignment.strategy": "range",
        }
    )
    stop = threading.Event()

    def join() -> None:
        twin.subscribe([ground.topic])
        while not stop.is_set():
            twin.poll(0.1)

    async def run() -> None:
        try:
            with pytest.RaisesGroup(pytest.RaisesExc(SinkFailed, match="[Ff]enced")):
                await consumer.run()
        finally:
            stop.set()

    try:
        with trio.fail_after(HANG_GUARD):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                await clerk.until(lambda: bool(clerk.holdings))
                await trio.to_thread.run_sync(join)
    finally:
        stop.set()
        twin.close()


async def test_what_fails_while_the_topic_is_taken_over_is_told(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "_ANSWER_WITHIN_S", 1e-6)
    with trio.fail_after(HANG_GUARD), pytest.RaisesGroup(pytest.RaisesExc(SinkFailed, match=ground.topic)):
        await ground.consumer(Clerk(), "first").run()


async def test_what_was_deleted_before_it_was_read_is_no_reason_to_begin_elsewhere(ground: Ground) -> None:
    clerk = Clerk()
    consumer = ground.consumer(clerk, "first")

    async def run() -> None:
        with pytest.RaisesGroup(pytest.RaisesExc(SinkFailed, match=ground.topic)):
            await consumer.run()

    def delete() -> None:
        admin = AdminClient({"bootstrap.servers": ground.settings.bootstrap_servers[0]})
        at = TopicPartition(ground.topic, 0, 2)
        admin.delete_records([at])[at].result(HANG_GUARD)

    with trio.fail_after(HANG_GUARD):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await clerk.until(lambda: bool(clerk.holdings))
            consumer.waiting(10**6)
            while not consumer.is_paused:  # noqa: ASYNC110 - nothing announces it
                await trio.sleep(0.01)
            await trio.to_thread.run_sync(ground.write, b"one", b"two", b"three")
            await trio.to_thread.run_sync(delete)
            consumer.waiting(0)
    assert clerk.records == []


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


async def test_records_wait_in_order_for_a_registry_that_is_away(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "DECODE_AGAIN", 0.01)
    decoder = ground.decoder
    ground.write(b"one", b"?two", b"three", b"?four")
    async with ground.member("first") as (clerk, consumer):
        # The registry is being asked for the second one, and has not answered: nothing else stands still.
        await clerk.until(lambda: bool(clerk.records))
        assert await trio.to_thread.run_sync(decoder.asked.wait, HANG_GUARD)
        decoder.answer.set()
        await clerk.until(lambda: bool(clerk.reasons))
        consumer.settle(0, 1, Mark("first", Micros(7)))
        with trio.fail_after(HANG_GUARD):
            while (await trio.to_thread.run_sync(ground.committed)).offset != 1:
                pass
        assert [record.value for record in clerk.records] == [b"one"]
        assert clerk.reasons == ["the record at offset 1 cannot be decoded: the registry does not answer"]
        decoder.is_away = False
        await clerk.until(lambda: len(clerk.records) == 4)
        assert [record.fields for record in clerk.records] == [
            {"value": value} for value in (b"one", b"?two", b"three", b"?four")
        ]
        assert clerk.reasons[1:] == [""]
        await trio.to_thread.run_sync(ground.write, b"five")  # nothing is paused any more
        await clerk.until(lambda: len(clerk.records) == 5)


async def test_what_waits_for_the_registry_is_read_again_by_the_next_owner(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "DECODE_AGAIN", 0.01)
    ground.decoder.answer.set()
    ground.write(b"?one")
    async with ground.member("first") as (first, _):
        await first.until(lambda: bool(first.reasons))
        async with ground.member("another") as (second, _):
            await second.until(lambda: any(second.holdings) and bool(second.reasons))
            assert first.reasons[1:] == [""]
            ground.decoder.is_away = False
            await second.until(lambda: bool(second.records))
    assert not first.records


def test_what_no_schema_of_ours_explains_cannot_be_read() -> None:
    for value, problem in ((b"odd", "'odd'"), (b"text", "by its schema it is no record")):
        record = Consumed.read(ToyDecoder(), "topic", 0, 1, value, Micros(2))
        assert (record.fields, record.problem) == (None, problem)


def test_only_identifiers_that_are_new_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = KafkaSettings(schema_registry=RegistrySettings("http://registry"))
    answers = ['"string"', '{"properties": {}}']
    monkeypatch.setattr("pipeline.sink.reader.fetch_schema", lambda settings, name: answers[name])
    decoder = Decoder(settings)
    text, odd = b"\x00\x00\x00\x00\x00\x02a", b"\x00\x00\x00\x00\x01"
    assert decoder.knows(b"nonsense")
    assert not decoder.knows(text)
    assert Consumed.read(decoder, "topic", 0, 1, text, Micros(2)).problem == "by its schema it is no record"
    assert decoder.knows(text)
    assert not decoder.knows(odd)
    assert "no Avro schema" in Consumed.read(decoder, "topic", 0, 1, odd, Micros(2)).problem
    assert decoder.knows(odd)


def test_marks_of_others_are_none() -> None:
    for text in (None, "", "{}", "[]", "null", '{"owner":1}', '{"owner":"a","since":"x","doubtful_until":0}'):
        assert Mark.read(text) is None
    mark = Mark("a", Micros(1), 2, is_killed=True)
    assert Mark.read(mark.text()) == mark
