"""The whole service takes orders: a real broker, simulated exchanges, and everything in between."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from pipeline.app import Service
from pipeline.config import loads
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Micros
from pipeline.model.orders import CANCEL, CREATE, KILL, OrderCommand, OrderItem
from pipeline.orders.commands import encode_command
from pipeline.orders.results import read_results
from pipeline.session.clock import system_clock
from pipeline.sim.listing import Listing, named
from pipeline.sim.settings import Account, MarketSettings
from pipeline.sim.venue import SimulatedVenue, open_venue
from pipeline.sink.topics import command_topic, topic_name
from tests.services import KafkaBroker

HANG_GUARD = 120.0
POLL_S = 0.02
LISTED = {"bybit": ("linear", "BTCUSDT"), "okx": ("swap", "BTC-USDT-SWAP")}
ACCOUNT = Account("an-id", "a-secret", "a-phrase", name="main")


@attrs.define(eq=False)
class Desk:
    """A trader with a producer, and the service that serves her."""

    venue: SimulatedVenue
    service: Service
    producer: Producer

    @property
    def listed(self) -> tuple[str, str]:
        return LISTED[self.venue.name]

    @property
    def listing(self) -> Listing:
        listings = self.venue.accounts["main"].market.listings.values()
        return next(each for each in listings if (each.market.lower(), each.symbol) == self.listed)

    def price(self) -> DecimalText:
        """Two per cent below where the market starts: nothing takes it soon."""
        return DecimalText(str(self.listing.price * 98 // 100 // self.listing.tick * self.listing.tick))

    def give(self, action: str, command_id: str, *items: OrderItem, **changes: Any) -> None:
        now = system_clock()
        fields = {"issued_at": Micros(now), "not_after": Micros(now + 60_000_000), **changes}
        wanted = OrderCommand(command_id, self.venue.name, "main", action, items=items, **fields)
        self.producer.produce(self.topic, encode_command(wanted))
        assert self.producer.flush(HANG_GUARD) == 0

    def not_ready(self) -> list[str]:
        assert self.service.orders is not None
        return self.service.orders.not_ready()

    @property
    def topic(self) -> str:
        return command_topic(self.service.config.kafka, self.venue.name, "main")

    def item(self, **changes: Any) -> OrderItem:
        market, instrument = self.listed
        return OrderItem(market, instrument, **changes)

    def order(self, client_order_id: str) -> OrderItem:
        return self.item(
            client_order_id=client_order_id,
            side="buy",
            order_type="limit",
            price=self.price(),
            size=DecimalText(str(self.listing.lot * 100)),
        )

    async def final(self, command_id: str) -> Mapping[str, Any]:
        """The one final result of a command."""
        topic = topic_name(self.service.config.kafka, "order_result")

        def meant(fields: dict[str, Any]) -> bool:
            return fields.get("command_id") == command_id and fields["is_final"] is True

        found: list[dict[str, Any]] = []
        while not found:
            await trio.sleep(POLL_S)
            found = await trio.to_thread.run_sync(read_results, self.service.config.kafka, topic, 0, meant)
        [result] = found
        return result


def config(broker: KafkaBroker, venue: SimulatedVenue, folder: Path, prefix: str) -> str:
    for name, text in (("key", ACCOUNT.key), ("secret", ACCOUNT.secret), ("phrase", ACCOUNT.passphrase)):
        (folder / name).write_text(text)
    keys = {"api_key": {"file": str(folder / "key")}, "api_secret": {"file": str(folder / "secret")}}
    if venue.name == "okx":
        keys["passphrase"] = {"file": str(folder / "phrase")}
    market, _ = LISTED[venue.name]
    return json.dumps(
        {
            "kafka": {
                "bootstrap_servers": [broker.bootstrap],
                "topic_template": f"{prefix}.{{group}}.{{kind}}",
                "spool": {"directory": str(folder / "spool")},
            },
            "http": {"port": 0},
            "venues": {
                venue.name: {
                    "urls": {"websocket": venue.websocket_url, "rest": venue.rest_url},
                    "accounts": {"main": {**keys, "channels": ["order"]}},
                    "reconnect": {"first": "50ms", "max": "200ms"},
                }
            },
            "orders": {
                "directory": str(folder / "orders"),
                "accounts": {
                    venue.name: {
                        "main": {
                            "instruments": {market: ["*"]},
                            "max_order_value": "1000000",
                            "not_arrived_after": "1s",
                        }
                    }
                },
            },
        }
    )


@asynccontextmanager
async def serving(name: str, broker: KafkaBroker, folder: Path, prefix: str = "") -> AsyncIterator[Desk]:
    """A service that is to take orders for a simulated venue, with topics of its own or of an earlier one."""
    listings = named(name, [LISTED[name][1]])
    with trio.fail_after(HANG_GUARD):
        async with open_venue(name, market=MarketSettings(rate=5, instruments=listings), accounts=[ACCOUNT]) as venue:
            service = Service(loads(config(broker, venue, folder, prefix or f"o{uuid.uuid4().hex[:8]}")))
            producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 0})
            async with trio.open_nursery() as nursery:
                await nursery.start(service.run)
                while not service.orders:  # noqa: ASYNC110 - nothing announces it
                    await trio.sleep(POLL_S)
                yield Desk(venue, service, producer)
                service.stop()


@asynccontextmanager
async def trading(name: str, broker: KafkaBroker, folder: Path, prefix: str = "") -> AsyncIterator[Desk]:
    """The same as soon as it takes them."""
    async with serving(name, broker, folder, prefix) as desk:
        while desk.not_ready():  # noqa: ASYNC110 - nothing announces it
            await trio.sleep(POLL_S)
        yield desk


@pytest.mark.parametrize("name", sorted(LISTED))
async def test_an_order_is_created_and_cancelled(name: str, broker: KafkaBroker, tmp_path: Path) -> None:
    async with trading(name, broker, tmp_path) as desk:
        desk.give(CREATE, "c-1", desk.order("mine1"))
        created = await desk.final("c-1")
        assert (created["state"], created["client_order_id"]) == ("acknowledged", "mine1"), created["message"]
        assert created["order_id"]
        desk.give(CANCEL, "c-2", desk.item(client_order_id="mine1"))
        cancelled = await desk.final("c-2")
        assert cancelled["state"] == "acknowledged", cancelled["message"]
        status = desk.service.status()["orders"][f"{name}.main"]
        assert status["results"]["acknowledged"] == 2
        assert not desk.service.not_ready()


async def test_a_killed_account_takes_no_orders_and_has_none(broker: KafkaBroker, tmp_path: Path) -> None:
    async with trading("bybit", broker, tmp_path) as desk:
        desk.give(CREATE, "c-1", desk.order("mine1"))
        created = await desk.final("c-1")
        assert created["state"] == "acknowledged", created["message"]
        desk.give(KILL, "c-2")
        assert (await desk.final("c-2"))["state"] == "acknowledged"
        desk.give(CREATE, "c-3", desk.order("mine2"))
        assert (await desk.final("c-3"))["rule"] == "kill_switch"
        while desk.service.status()["orders"]["bybit.main"]["swept"] < 1:  # noqa: ASYNC110 - nothing announces it
            await trio.sleep(POLL_S)


def make_anew(broker: KafkaBroker, topic: str) -> None:
    """Delete a topic and create it again."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.delete_topics([topic])[topic].result(HANG_GUARD)
    deadline = time.monotonic() + HANG_GUARD
    while True:
        try:
            admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(HANG_GUARD)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS or time.monotonic() > deadline:
                raise
        else:
            return


async def test_a_command_topic_that_was_made_anew_and_has_grown_is_refused(broker: KafkaBroker, tmp_path: Path) -> None:
    prefix = f"o{uuid.uuid4().hex[:8]}"
    async with trading("okx", broker, tmp_path, prefix) as desk:
        desk.give(CREATE, "c-1", desk.order("mine1"))
        assert (await desk.final("c-1"))["state"] == "acknowledged"
    await trio.to_thread.run_sync(make_anew, broker, desk.topic)
    async with serving("okx", broker, tmp_path, prefix) as desk:
        for number in range(3):
            desk.give(CREATE, f"d-{number}", desk.order(f"new{number}"))
        while "it is not the topic that it was" not in "".join(desk.not_ready()):  # noqa: ASYNC110 - as above
            await trio.sleep(POLL_S)
        assert "has the id" in "".join(desk.not_ready())
        assert not desk.venue.accounts["main"].orders
