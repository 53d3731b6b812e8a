"""A trader on two simulated exchanges at once: the service as a process, a producer of commands, and who counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from pipeline.config import Config
from pipeline.model.decimals import DecimalText
from pipeline.model.header import Micros
from pipeline.model.orders import FINAL, OrderCommand, OrderItem
from pipeline.orders.commands import encode_command
from pipeline.session.clock import system_clock
from pipeline.sim.faults import from_mapping
from pipeline.sim.listing import Listing, named
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from pipeline.sink.topics import prepare_command_topic, prepare_topics
from tests.e2e.accounts import configured, simulated
from tests.e2e.connector import QUICK, configuration, parsed, urls
from tests.e2e.consumer import Record, Topics
from tests.e2e.program import ROOT, write

VENUES = ("bybit", "okx")
LISTED = {"bybit": ("linear", "BTCUSDT"), "okx": ("swap", "BTC-USDT-SWAP")}
CHANNELS = {"bybit": ["order", "fill"], "okx": ["order"]}
MINUTE_US = 60_000_000
KAFKA_WITHIN_S = 60.0
POLL_S = 0.05


@attrs.define(eq=False)
class Tail:
    """The results, as they come, by one consumer that stays: a new one each time costs more than what it reads."""

    topic: str
    consumer: Consumer
    decode: AvroDeserializer
    records: list[Record] = attrs.field(factory=list)

    def begin(self) -> None:
        """Read the topic from its beginning."""
        partitions = self.consumer.list_topics(self.topic, timeout=KAFKA_WITHIN_S).topics[self.topic].partitions
        self.consumer.assign([TopicPartition(self.topic, number, 0) for number in partitions])

    def more(self) -> None:
        """Wait a little for further ones; blocks."""
        context = SerializationContext(self.topic, MessageField.VALUE)
        for message in self.consumer.consume(1_000, POLL_S):
            assert message.error() is None, message.error()
            key = message.key() or b""
            value: Any = self.decode(message.value(), context)
            place = message.partition() or 0, message.offset() or 0
            self.records.append(Record(key.decode(), value, *place, message.timestamp()[1]))

    async def until(self, enough: Callable[[list[Record]], bool]) -> list[Record]:
        """All so far, when it is enough; the caller bounds the time."""
        while not enough(self.records):
            await trio.to_thread.run_sync(self.more)
        return self.records


@attrs.define(eq=False)
class Trader:
    """Gives commands for both venues, and knows what the exchanges have counted."""

    topics: Topics
    venues: Mapping[str, SimulatedVenue]
    folder: Path
    config: Path
    producer: Producer
    group: str
    results: Tail
    members: dict[str, Consumer] = attrs.field(factory=dict, init=False)
    """Of the groups that read commands, as far as they were asked for what is committed."""
    given: list[tuple[str, str]] = attrs.field(factory=list, init=False)
    """Venue and command id of all that has to end in final results, an entry per item."""

    def topic(self, venue: str) -> str:
        """Of commands."""
        return f"{self.topics.prefix}.order.order_command.{venue}.main"

    def listing(self, venue: str) -> Listing:
        """What is traded."""
        listings = self.venues[venue].accounts["main"].market.listings.values()
        return next(each for each in listings if (each.market.lower(), each.symbol) == LISTED[venue])

    def price(self, venue: str, percent: int = 98) -> DecimalText:
        """So much of where the market started."""
        listing = self.listing(venue)
        return DecimalText(str(listing.price * percent // 100 // listing.tick * listing.tick))

    def size(self, venue: str, lots: int = 100) -> DecimalText:
        return DecimalText(str(self.listing(venue).lot * lots))

    def item(self, venue: str, **fields: Any) -> OrderItem:
        """An item about the one instrument."""
        return OrderItem(*LISTED[venue], **fields)

    def order(self, venue: str, **changes: Any) -> OrderItem:
        """A limit order that rests."""
        price, size = self.price(venue), self.size(venue)
        return self.item(venue, **{"side": "buy", "order_type": "limit", "price": price, "size": size, **changes})

    def command(self, venue: str, action: str, *items: OrderItem, **changes: Any) -> OrderCommand:
        now = system_clock()
        fields = {"account": "main", "issued_at": Micros(now), "not_after": Micros(now + 2 * MINUTE_US), **changes}
        return OrderCommand(uuid.uuid4().hex, venue, action=action, items=items, **fields)

    def give(self, venue: str, action: str, *items: OrderItem, **changes: Any) -> str:
        """Write a command; returns its id."""
        command = self.command(venue, action, *items, **changes)
        self.write(venue, encode_command(command))
        self.given.extend([(venue, command.command_id)] * max(1, len(items)))
        return command.command_id

    def give_nonsense(self, venue: str, value: bytes, command_id: str | None = None) -> str:
        """Write what is no command as a whole; returns the id that stands in its one result."""
        place = self.write(venue, value)
        self.given.append((venue, command_id or place))
        return command_id or place

    def write(self, venue: str, value: bytes) -> str:
        """Write any record; returns its place."""
        places = []
        self.producer.produce(
            self.topic(venue), value, b"main", on_delivery=lambda error, message: places.append((error, message))
        )
        assert self.producer.flush(KAFKA_WITHIN_S) == 0
        [(error, message)] = places
        assert error is None
        return f"{message.topic()}/{message.partition()}/{message.offset()}"

    def fault(self, venue: str, kind: str, **fields: Any) -> None:
        """Break the exchange's order entry."""
        self.venues[venue].apply(from_mapping({"kind": kind, **fields}))

    async def finals(self, *commands: str) -> list[Record]:
        """The final results of these commands, as soon as each item has one; of one command in its items' order."""
        wanted = Counter(command for _, command in self.given if command in commands)
        wanted |= Counter(dict.fromkeys(commands, 1))

        def meant(records: Sequence[Record]) -> list[Record]:
            return [each for each in records if each["is_final"] and each["command_id"] in wanted]

        def enough(records: list[Record]) -> bool:
            return Counter(each["command_id"] for each in meant(records)) >= wanted

        found = meant(await self.results.until(enough))
        return sorted(found, key=lambda each: (commands.index(each["command_id"]), each["item"]))

    async def final(self, command: str) -> Record:
        """Of a command with one item."""
        [found] = await self.finals(command)
        return found

    def counted(self, venue: str, client_order_id: str, action: str = "create") -> tuple[int, int]:
        """How often the exchange was asked, and how often it did it."""
        orders = self.venues[venue].dialect.tally.of("main")["orders"]
        count = orders.get(client_order_id, {}).get(action, {"received": 0, "taken": 0})
        return count["received"], count["taken"]

    async def check(self) -> None:
        """Every item has one final result, and nothing was asked of an exchange twice."""
        results = await self.topics.read("order_result")
        finals = Counter((each["venue"], each["command_id"], each["item"]) for each in results if each["is_final"])
        assert set(finals.values()) <= {1}, [each for each in finals.items() if each[1] > 1]
        by_command = Counter((venue, command) for venue, command, _ in finals.elements())
        wanted = Counter(self.given)
        assert by_command == wanted, f"too many: {by_command - wanted}, missing: {wanted - by_command}"
        odd = [each for each in results if each["is_final"] != (each["state"] in FINAL)]
        assert not odd, told(odd)
        for venue in VENUES:
            for name, actions in self.venues[venue].dialect.tally.of("main")["orders"].items():
                assert actions.get("create", {"received": 1})["received"] == 1, f"{name}: {actions}"

    async def settled(self) -> None:
        """Wait until every command that was given is committed."""
        for venue in VENUES:
            while await trio.to_thread.run_sync(self._behind, venue):  # noqa: ASYNC110 - the group tells nobody
                await trio.sleep(POLL_S)

    def _behind(self, venue: str) -> bool:
        group = f"{self.group}.{venue}.main"
        if (consumer := self.members.get(group)) is None:
            consumer = self.members[group] = _consumer(self.topics, group)
        partition = TopicPartition(self.topic(venue), 0)
        [committed] = consumer.committed([partition], timeout=KAFKA_WITHIN_S)
        _, end = consumer.get_watermark_offsets(partition, timeout=KAFKA_WITHIN_S)
        assert committed.offset <= end
        return committed.offset < end

    def forget_commits(self) -> None:
        """Have the topics read from the beginning: by groups that have never read them."""
        fields = json.loads(self.config.read_text("utf-8"))
        self.group = fields["orders"]["group"] = f"{self.group}x"
        self.config.write_text(json.dumps(fields), "utf-8")

    @asynccontextmanager
    async def service(self, *, fatal: str = "") -> AsyncIterator[trio.Process]:
        """Run the service; leaving the block has it drain, if it still runs."""
        command = [sys.executable, "-m", "tests.e2e.order_service", str(self.config), fatal]
        log = (self.folder / "service.log").open("ab")
        async with trio.open_nursery() as nursery:
            run = partial(
                trio.run_process,
                command,
                cwd=ROOT,
                check=False,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=_ENVIRONMENT,
            )
            process = await nursery.start(run)
            log.close()
            try:
                yield process
            except BaseException:
                process.kill()
                raise
            if process.returncode is None:
                process.terminate()
                assert await process.wait() == 0, (self.folder / "service.log").read_text("utf-8")[-2000:]


def _consumer(topics: Topics, group: str) -> Consumer:
    return Consumer(
        {"bootstrap.servers": topics.broker.bootstrap, "group.id": group, "enable.auto.commit": False, "log_level": 2}
    )


_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@asynccontextmanager
async def trading(topics: Topics, folder: Path, **settings: Any) -> AsyncIterator[Trader]:
    """Both exchanges, and a trader whose service is still to be started; `settings` are those of both accounts."""
    account = simulated()
    async with (
        open_venue("bybit", market=_market("bybit"), accounts=[account]) as bybit,
        open_venue("okx", market=_market("okx"), accounts=[account]) as okx,
    ):
        venues = {"bybit": bybit, "okx": okx}
        config = configuration(
            topics,
            folder,
            {
                name: {
                    "urls": urls(venue),
                    "accounts": {"main": configured(folder, name, account, channels=CHANNELS[name])},
                    "reconnect": QUICK,
                }
                for name, venue in venues.items()
            },
        )
        limits = {"max_order_value": "1000000", "not_arrived_after": "500ms", "max_age": "2m", **settings}
        config["orders"] = {
            "directory": str(folder / "orders"),
            "group": topics.prefix,
            "accounts": {name: {"main": {"instruments": {LISTED[name][0]: ["*"]}, **limits}} for name in VENUES},
        }
        producer = Producer({"bootstrap.servers": topics.broker.bootstrap, "linger.ms": 0})
        with topics.registry.client() as client:
            results = Tail(
                topics.name("order_result"), _consumer(topics, f"{topics.prefix}-tail"), AvroDeserializer(client)
            )
            trader = Trader(topics, venues, folder, write(config, folder), producer, topics.prefix, results)
            await trio.to_thread.run_sync(_create_topics, parsed(config), trader)
            try:
                await trio.to_thread.run_sync(results.begin)
                yield trader
            finally:
                for consumer in (results.consumer, *trader.members.values()):
                    consumer.close()


def _create_topics(config: Config, trader: Trader) -> None:
    """The service would do it; who reads them is earlier."""
    prepare_topics(config.kafka, config.written_kinds)
    for venue in VENUES:
        prepare_command_topic(config.kafka, trader.topic(venue))


def _market(venue: str) -> MarketSettings:
    return MarketSettings(rate=5, instruments=named(venue, [LISTED[venue][1]]), levels=20)


def told(records: Collection[Record]) -> list[str]:
    """For messages of failed assertions."""
    names = ("venue", "action", "state", "rejected_by", "rule", "code", "message")
    return [" ".join(str(each[name]) for name in names if each[name] is not None) for each in records]


def states(records: Collection[Record]) -> list[str]:
    """In short: state, and the rule of what was refused."""
    return [" ".join(filter(None, (each["state"], each["rule"]))) for each in records]


def total(records: Collection[Record], field: str) -> Decimal:
    """The sum of a field."""
    return sum((Decimal(each[field]) for each in records), Decimal(0))
