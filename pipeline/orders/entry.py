"""Order entry as the service runs it: a gateway per account that is configured for orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import structlog
import trio
from confluent_kafka import Consumer, Producer

from pipeline.exchanges.venue import Venue
from pipeline.feeds.intake import Intake
from pipeline.feeds.link import Surroundings
from pipeline.model.account import Order
from pipeline.model.errors import Refused
from pipeline.model.order_stats import OrderStats
from pipeline.orders.consumer import CommandConsumer, Holding, Mark, Owner
from pipeline.orders.gateway import Commands, Gateway
from pipeline.orders.promptness import promptness
from pipeline.orders.results import ResultWriter, read_results
from pipeline.orders.settings import AccountOrderSettings, OrderSettings
from pipeline.orders.tenure import Results
from pipeline.sink.errors import SinkFailed
from pipeline.sink.opening import report_topics
from pipeline.sink.reader import Decoder
from pipeline.sink.routes import Route
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.topic_ids import TopicIds
from pipeline.sink.topics import command_topic, prepare_command_topic

log = structlog.get_logger(__name__)

PREPARE_AGAIN = 5.0
"""Seconds until the command topic is asked for once more."""


@attrs.define(eq=False)
class AccountKafka:
    """Kafka as one account's gateway sees it."""

    settings: KafkaSettings
    topic: str
    group: str
    route: Route
    """Of results."""
    clock: Callable[[], int]
    make_consumer: Callable[..., Consumer] = Consumer
    make_producer: Callable[..., Producer] = Producer
    _decoder: Decoder = attrs.field(init=False)
    _topic_ids: TopicIds = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._decoder = Decoder(self.settings, is_plain=True)
        self._topic_ids = TopicIds(self.settings)

    def topic_id(self) -> str | None:
        return self._topic_ids.ask(self.topic)

    def commands(self, owner: Owner, identity: str, claim: Callable[[Holding], Mark]) -> Commands:
        return CommandConsumer(
            self.settings,
            self.topic,
            self.group,
            identity,
            owner,
            self.clock,
            self._decoder,
            self.make_consumer,
            claim=claim,
        )

    def results(self) -> Results:
        return ResultWriter(self.settings, self.route, self.make_producer)

    def read_results(self, since_ms: int) -> Sequence[Mapping[str, Any]]:
        return read_results(self.settings, self.route.topic, since_ms, lambda fields: fields.get("topic") == self.topic)


@attrs.define(eq=False, kw_only=True)
class OrderEntry:
    """All accounts that orders are taken for."""

    settings: OrderSettings
    kafka: KafkaSettings
    venues: Mapping[str, Venue]
    intakes: Mapping[str, Intake]
    """Running, or about to; by venue."""
    around: Surroundings
    route: Route
    seam: Callable[[str], None] = lambda _: None
    gateways: dict[tuple[str, str], Gateway] = attrs.field(factory=dict, init=False)
    waiting: dict[tuple[str, str], str] = attrs.field(factory=dict, init=False)
    """Accounts without a gateway so far, and what they wait for."""
    ended: trio.Event = attrs.field(factory=trio.Event, init=False)
    _stopping: bool = attrs.field(default=False, init=False)
    _preparing: list[trio.CancelScope] = attrs.field(factory=list, init=False)
    """What accounts without a gateway wait in, one each."""

    def __attrs_post_init__(self) -> None:
        for venue, accounts in self.settings.accounts.items():
            for account in accounts:
                self.waiting[venue, account] = "the catalogue has not been read yet"

    async def run(self) -> None:
        """Serve until `stop`, then drain. Raises `ConfigError` for a ledger that cannot be used."""
        try:
            with promptness():
                async with trio.open_nursery() as nursery:
                    for venue, accounts in self.settings.accounts.items():
                        for account, settings in accounts.items():
                            nursery.start_soon(self._run, venue, account, settings)
        finally:
            self.ended.set()

    def stop(self) -> None:
        """Send nothing more, wait for what is under way, and let `run` return."""
        self._stopping = True
        for scope in self._preparing:
            scope.cancel()
        for gateway in self.gateways.values():
            gateway.stop()

    def on_order(self, order: Order) -> None:
        """An order of an account has changed."""
        gateway = self.gateways.get((order.origin.venue, order.origin.account or ""))
        if gateway is not None:
            gateway.on_order(order)

    async def switch(self, venue: str, account: str, reason: str | None, *, is_killed: bool) -> None:
        """Use an account's kill switch. Raises `Refused` if that cannot be done here and now."""
        gateway = self.gateways.get((venue, account))
        if gateway is None:
            raise Refused(f"{venue}.{account}: {self.waiting.get((venue, account), 'no orders are configured')}")
        await gateway.switch(reason, is_killed=is_killed)

    def stats(self) -> list[OrderStats]:
        """Of all gateways."""
        return [gateway.measured() for gateway in self.gateways.values()]

    def not_ready(self) -> list[str]:
        """Why orders would not be sent now."""
        reasons = [f"orders of {venue}.{account}: {why}" for (venue, account), why in self.waiting.items()]
        for gateway in self.gateways.values():
            stats = gateway.stats
            if stats.state != "owner" or stats.connection != "live":
                what = stats.state if stats.state != "owner" else f"the connection is {stats.connection}"
                reasons.append(f"orders of {gateway.name}: {what}: {stats.last_error}".rstrip(": "))
            if stats.held_up:
                reasons.append(f"orders of {gateway.name}: commands wait: {stats.held_up}")
        return reasons

    async def _run(self, name: str, account: str, settings: AccountOrderSettings) -> None:
        topic = settings.command_topic or command_topic(self.kafka, name, account)
        intake = self.intakes[name]
        with trio.CancelScope() as scope:
            self._preparing.append(scope)
            await intake.listed.wait()
            self.waiting[name, account] = f"topic {topic} is not there yet"
            await self._prepare(topic)
        if self._stopping:
            return
        rest = intake.rest
        assert rest is not None
        gateway = Gateway(
            venue=self.venues[name],
            account=account,
            settings=settings,
            venue_settings=intake.settings,
            folder=Path(self.settings.directory) / f"{name}.{account}",
            remembered=self.settings.remembered,
            kill_file=self.settings.kill_file,
            kafka=AccountKafka(
                self.kafka, topic, f"{self.settings.group}.{name}.{account}", self.route, self.around.clock
            ),
            publish=self.around.publish,
            rest=rest,
            connects=intake.connects,
            catalogue=intake.catalogue,
            open_websocket=self.around.open_websocket,
            clock=self.around.clock,
            random=self.around.random,
            seam=self.seam,
        )
        self.gateways[name, account] = gateway
        del self.waiting[name, account]
        await gateway.run()

    async def _prepare(self, topic: str) -> None:
        while self.kafka.verify_topics:
            try:
                report_topics(await trio.to_thread.run_sync(partial(prepare_command_topic, self.kafka, topic)))
            except SinkFailed as error:
                log.error("command_topic_unfit", topic=topic, text=str(error))
                await trio.sleep(PREPARE_AGAIN)
            else:
                return
