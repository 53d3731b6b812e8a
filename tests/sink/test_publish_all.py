"""Many events at once are the same records in the same order as one after the other, whatever happens on the way."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
import trio
from confluent_kafka import KafkaError, KafkaException
from trio.testing import MockClock

from pipeline.avro.codec import Schemas
from pipeline.avro.schemas import split_header
from pipeline.model.decimals import DecimalText
from pipeline.model.events import DeadLetter, Event, Micros
from pipeline.sink.backlog import Backlog
from pipeline.sink.opening import open_sink
from pipeline.sink.sink import Sink
from tests.sink.fake_producer import FakeBroker, FakeProducer, Reported
from tests.sink.test_standing import time_of, without_threads
from tests.sink.traffic import kafka_settings, origin, trade

__all__ = ["without_threads"]

COUNT = 60
SCHEMA = Schemas.load()["trade"]
ORIGINS = [origin("BTCUSDT"), origin("ETHUSDT")]


@attrs.define(eq=False)
class Moody(FakeProducer):
    """`produce` does what is said of each record that it is offered at first, then takes all."""

    moods: deque[BaseException | None] = attrs.field(factory=deque)

    def produce(self, *arguments: Any) -> None:
        if self.moods and (mood := self.moods.popleft()) is not None:
            raise mood
        super().produce(*arguments)

    def poll(self, seconds: float) -> int:
        """Of what a broken one gives back, the newest comes before what was to be sent next."""
        wire, following, newest = ([self.queue[index]] for index in range(3)) if self._is_torn else ([], [], [])
        for (reported, report), code in zip(
            [*wire, *newest, *following], [KafkaError._PURGE_INFLIGHT, *2 * [KafkaError._PURGE_QUEUE]], strict=False
        ):
            report(KafkaError(code), reported)
            self.queue.popleft()
        return super().poll(seconds)

    @property
    def _is_torn(self) -> bool:
        return self.fatal and len(self.queue) == 3


@attrs.define(eq=False)
class MoodyBroker(FakeBroker):
    moods: Sequence[BaseException | None] = ()
    producers: list[Moody] = attrs.field(factory=list)  # type: ignore[assignment]

    def make(self, config: dict[str, Any], **_: object) -> Any:
        self.producers.append(Moody(self, config, moods=deque(self.moods)))
        return self.producers[-1]


def some_events(random: Random) -> list[Event]:
    """Trades of two instruments, of which some cannot be encoded and some are too large."""
    events: list[Event] = []
    for number in range(COUNT):
        event = trade(number, random.choice(ORIGINS))
        chance = random.random()
        if chance < 0.05:
            event.price = DecimalText("none")
        elif chance < 0.1:
            event.trade_id = "9" * 3_000
        events.append(event)
    return events


def sequences(broker: FakeBroker) -> list[int]:
    """Of the trades that were delivered."""
    return [SCHEMA.decode(split_header(each.record_value)[1])["sequence"] for each in broker.delivered]


def publish(sink: Sink, events: Sequence[Event], size: int) -> list[Event]:
    """So many at once; returns those that could not be."""
    lost: list[Event] = []
    for start in range(0, len(events), size):
        part = events[start : start + size]
        while (index := sink.publish_all(part)) is not None:
            lost.append(part[index])
            part = part[index + 1 :]
    return lost


async def outcome(
    folder: Path, clock: MockClock, events: Sequence[Event], moods: Sequence[BaseException | None], size: int
) -> tuple[list[Reported], list[Event], dict[str, int]]:
    broker = MoodyBroker(moods=moods)
    settings = attrs.evolve(
        kafka_settings("localhost:1", folder, topic_template="t.{group}.{kind}"),
        verify_topics=False,
        max_record_bytes=2_000,
    )
    with trio.fail_after(600):
        async with open_sink(settings, now=time_of(clock), make_producer=broker.make) as sink:
            while not sink._direct:  # noqa: ASYNC110 - the sink announces nothing
                await trio.sleep(0.01)
            lost = publish(sink, events, size)
            for producer in broker.producers:
                producer.moods.clear()  # what is offered again depends on when
            stats = sink.stats()
            told = {name: getattr(stats, name) for name in ("published", "dead_letters", "own_letters", "spooled")}
            assert stats.published == stats.in_flight + stats.spooled + stats.acknowledged
            await sink.delivered()
    return broker.delivered, lost, told


@pytest.mark.parametrize("seed", range(10))
async def test_the_same_records_in_the_same_order(seed: int, tmp_path: Path, autojump_clock: MockClock) -> None:
    random = Random(seed)
    events = some_events(random)
    refusal = KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "not now"))
    calm = random.randrange(COUNT)
    moods = [None] * calm + [random.choice([None, None, BufferError(), refusal]) for _ in range(COUNT - calm)]
    one, *others = [
        await outcome(tmp_path / str(size), autojump_clock, events, moods, size) for size in (1, 2, 7, COUNT)
    ]
    values = [(each.record_topic, each.record_key, _without_clock(each)) for each in one[0]]
    assert len(values) == len(events)
    for other in others:
        assert [(each.record_topic, each.record_key, _without_clock(each)) for each in other[0]] == values
        assert other[1:] == one[1:]


def _without_clock(reported: Reported) -> object:
    """Of dead letters that Kafka refused, only how many there are: they tell when that was."""
    return reported.record_value if reported.record_topic.endswith("trade") else None


async def test_nothing_is_published_behind_what_cannot_be(tmp_path: Path, autojump_clock: MockClock) -> None:
    events = [trade(number, ORIGINS[0]) for number in range(4)]
    events[2].price = DecimalText("none")
    broker = MoodyBroker()
    settings = attrs.evolve(kafka_settings("localhost:1", tmp_path), verify_topics=False)
    async with open_sink(settings, now=time_of(autojump_clock), make_producer=broker.make) as sink:
        assert sink.publish_all(events) == 2
        assert sink.publish_all([]) is None
        assert sink.publish(events[3])
        assert not sink.publish(events[2])
        await sink.delivered()
    kinds = Counter(each.record_topic.rpartition(".")[2] for each in broker.delivered)
    assert kinds == {"trade": 3, "dead_letter": 2}


async def test_what_the_queue_has_no_room_for_goes_to_the_spool(tmp_path: Path, autojump_clock: MockClock) -> None:
    settings = attrs.evolve(kafka_settings("localhost:1", tmp_path), verify_topics=False, queue_messages=20)
    events = [trade(number, ORIGINS[0]) for number in range(COUNT)]
    broker = MoodyBroker()
    async with open_sink(settings, now=time_of(autojump_clock), make_producer=broker.make) as sink:
        while not sink._direct:  # noqa: ASYNC110 - the sink announces nothing
            await trio.sleep(0.01)
        assert sink.publish_all(events[:15]) is None
        assert sink.publish_all(events[15:]) is None
        stats = sink.stats()
        assert (stats.in_flight, stats.spooled, stats.published) == (20, COUNT - 20, COUNT)
        await sink.delivered()
    encode = sink.routes[type(events[0])].encode
    assert [each.record_value for each in broker.delivered] == [encode(event) for event in events]


async def test_a_record_that_is_given_back_at_once_does_not_stop_everything_else(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[Sink] = []
    go_direct = Sink._go_direct

    def counted(sink: Sink, backlog: Backlog) -> None:
        tries.append(sink)
        assert len(tries) < 100, "nobody else has had a turn"
        go_direct(sink, backlog)

    monkeypatch.setattr(Sink, "_go_direct", counted)
    refusal = KafkaException(KafkaError(KafkaError._UNKNOWN_TOPIC, "there is no such topic"))
    broker = MoodyBroker(moods=[BufferError(), refusal])
    settings = attrs.evolve(kafka_settings("localhost:1", tmp_path), verify_topics=False)
    async with open_sink(settings, now=time_of(autojump_clock), make_producer=broker.make) as sink:
        while not sink._direct:  # noqa: ASYNC110 - the sink announces nothing
            await trio.sleep(0.01)
        assert sink.publish(trade(1, ORIGINS[0]))
        assert sink.stats().spooled == 1
        await sink.delivered()
        assert sink.stats().acknowledged == 1
    assert [each.record_topic.rpartition(".")[2] for each in broker.delivered] == ["trade"]


@pytest.mark.parametrize("is_cut_short", [False, True])
async def test_a_record_that_is_given_back_at_once_stays_behind_those_that_come_back_later(
    is_cut_short: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    unknown = KafkaError(KafkaError._UNKNOWN_TOPIC, "there is no such topic")
    broker = MoodyBroker(moods=[None, None, KafkaException(unknown)])
    settings = attrs.evolve(kafka_settings("localhost:1", tmp_path, drain_within=0.0), verify_topics=False)
    async with open_sink(settings, now=time_of(autojump_clock), make_producer=broker.make) as sink:
        while not sink._direct:  # noqa: ASYNC110 - the sink announces nothing
            await trio.sleep(0.01)
        broker.refusals.extend(2 * [(unknown.code(), False)])
        publish(sink, [trade(number, ORIGINS[0]) for number in range(4)], 4)
        if is_cut_short:
            broker.producers[-1].fatal = True
        else:
            await sink.delivered()
    following = FakeBroker(broker.delivered)
    async with open_sink(settings, now=time_of(autojump_clock), make_producer=following.make) as sink:
        await sink.delivered()
    assert sequences(broker) == list(range(4))


async def test_what_was_on_the_wire_stays_in_front_of_what_was_not(tmp_path: Path, autojump_clock: MockClock) -> None:
    broker = MoodyBroker()
    settings = attrs.evolve(kafka_settings("localhost:1", tmp_path), verify_topics=False)
    async with open_sink(settings, now=time_of(autojump_clock), make_producer=broker.make) as sink:
        while not sink._direct:  # noqa: ASYNC110 - the sink announces nothing
            await trio.sleep(0.01)
        publish(sink, [trade(number, ORIGINS[0]) for number in range(3)], 1)
        broker.producers[-1].fatal = True
        broker.producers[-1].config["error_cb"](KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "as told", True))
        await sink.delivered()
        assert sink.stats().renewals == 1
    assert sequences(broker) == list(range(3))


async def test_nothing_is_too_large_for_a_dead_letter(tmp_path: Path, autojump_clock: MockClock) -> None:
    huge = trade(1, ORIGINS[0])
    huge.exchange_time = Micros(10**4_299 * 1_000)
    wordy = DeadLetter(ORIGINS[0], None, huge.receive_time, None, "parse", 3_000 * "x", 3_000 * b"y", 3_000, "")
    broker = MoodyBroker()
    settings = attrs.evolve(kafka_settings("localhost:1", tmp_path), verify_topics=False, max_record_bytes=2_000)
    async with open_sink(settings, now=time_of(autojump_clock), make_producer=broker.make) as sink:
        assert sink.publish_all([trade(0, ORIGINS[0]), huge]) == 1
        assert not sink.publish(wordy)
        await sink.delivered()
        assert sink.stats().announced_lost == 0
    assert [each.record_topic.rpartition(".")[2] for each in broker.delivered] == ["trade", *2 * ["dead_letter"]]
