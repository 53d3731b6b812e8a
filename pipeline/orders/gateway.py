"""Order entry of one account: membership in the group that reads its commands, and what follows from owning them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs
import structlog
import trio

from pipeline.exchanges.venue import Catalogue, Venue
from pipeline.feeds.chain import Publish
from pipeline.feeds.link import OpenWebSocket, restart_policy
from pipeline.feeds.settings import VenueSettings
from pipeline.feeds.venue_rest import VenueRest
from pipeline.model.account import Order
from pipeline.model.errors import PipelineError, Refused, Retryable
from pipeline.model.header import Micros
from pipeline.model.order_stats import OrderStats
from pipeline.orders.consumer import Consumed, Holding, Mark, Owner
from pipeline.orders.desk import Desk
from pipeline.orders.ledger import Ledger, LedgerBroken, open_ledger
from pipeline.orders.ledger_entries import TopicId
from pipeline.orders.open_orders import OpenOrders
from pipeline.orders.prices import Prices, price_fetcher
from pipeline.orders.settings import AccountOrderSettings
from pipeline.orders.takeover import anew, claim
from pipeline.orders.tenure import Results, Tenure, fail
from pipeline.orders.trade_link import TradeLink
from pipeline.session.failures import describe, settle
from pipeline.session.limiter import Limiter
from pipeline.sink.errors import SinkFailed

log = structlog.get_logger(__name__)

TOPIC_LOOK = 10.0
"""Seconds between looks at whether the command topic is still the one that it was."""
COMPACT_LOOK = 10.0
"""Seconds between looks at how large the ledger has become."""
DRAIN_WITHIN = 10.0
"""Seconds at the end for answers and results that are on their way."""


class Commands(Protocol):
    """One membership in the group that reads the commands; a `CommandConsumer` in earnest."""

    async def run(self) -> None: ...
    def stop(self) -> None: ...
    def settle(self, partition: int, offset: int, mark: Mark) -> None: ...
    def waiting(self, count: int) -> None: ...


class Kafka(Protocol):
    """What a gateway needs of Kafka: the seam for tests."""

    topic: str

    def topic_id(self) -> str | None:
        """Of the command topic, None if Kafka does not tell; blocks. Raises `SinkFailed`."""

    def commands(self, owner: Owner, identity: str, claim: Callable[[Holding], Mark]) -> Commands:
        """A new membership in the account's group. Raises `ConfigError` or `Refused`."""

    def results(self) -> Results:
        """A new producer of results. Raises `ConfigError` or `Refused`."""

    def read_results(self, since_ms: int) -> Sequence[Mapping[str, Any]]:
        """All results of this account's commands from a record time on; blocks. Raises `SinkFailed`."""


@attrs.define(eq=False, kw_only=True)
class Gateway:
    """See the module. An `Owner` of the command topic."""

    venue: Venue
    account: str
    settings: AccountOrderSettings
    venue_settings: VenueSettings
    folder: Path
    """Of this account's ledger."""
    remembered: int
    kill_file: str | None
    kafka: Kafka
    publish: Publish
    """For dead letters."""
    rest: VenueRest
    connects: Limiter
    catalogue: Catalogue
    open_websocket: OpenWebSocket
    clock: Callable[[], int]
    random: Callable[[], float]
    seam: Callable[[str], None] = lambda _: None
    """Is told each step; tests crash there."""
    stats: OrderStats = attrs.field(init=False)
    open_orders: OpenOrders = attrs.field(init=False)
    _stopping: trio.Event = attrs.field(factory=trio.Event, init=False)
    _tenure: Tenure | None = attrs.field(default=None, init=False)
    _ledger: Ledger | None = attrs.field(default=None, init=False)
    _commands: Commands | None = attrs.field(default=None, init=False)
    _topic_id: str | None = attrs.field(default=None, init=False)
    """As it was when the topic became ours."""
    _nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    _lost: str = attrs.field(default="", init=False)
    """Why the last tenure was cut short; empty while one lasts, and after one that was given up."""

    def __attrs_post_init__(self) -> None:
        self.stats = OrderStats(self.venue.name, self.account)
        self.open_orders = OpenOrders()

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.venue.name}.{self.account}"

    async def run(self) -> None:
        """Serve until `stop`, then drain; or until cancelled, which leaves open what is open.

        Raises `ConfigError` for a ledger that cannot be used: then nothing may be sent.
        """
        policy = restart_policy(self.venue_settings, self.random)
        failures = 0
        try:
            while not self._stopping.is_set():
                began = trio.current_time()
                self.stats.state = "joining"
                try:
                    await self._join()
                except (Exception, BaseExceptionGroup) as error:
                    end = settle(error)
                    if not isinstance(end, Retryable | Refused | SinkFailed | LedgerBroken):
                        raise
                    self._failed(end)
                    failures = failures + 1 if trio.current_time() - began < policy.cap_s else 1
                    with trio.move_on_after(policy.delay(failures)):
                        await self._stopping.wait()
        finally:
            self.stats.state = "stopped"

    def stop(self) -> None:
        """Send nothing more, wait for what is under way, and let `run` return."""
        self._stopping.set()

    async def switch(self, reason: str | None, *, is_killed: bool) -> None:
        """Use the kill switch; returns when that would survive us. Raises `Refused` if we are not the ones to do so."""
        if self._tenure is None:
            raise Refused(f"{self.name}: this instance does not own the command topic now")
        await self._tenure.switch(reason, is_killed=is_killed)

    def on_order(self, order: Order) -> None:
        """An order of the account has changed."""
        self.open_orders.observed(order)

    def measured(self) -> OrderStats:
        """The counters, with what is only looked up when somebody asks."""
        if self._tenure is not None:
            self._tenure.desk.measure()
            self.stats.result_failures = self._tenure.results.failures
            self.stats.price_failures = self._tenure.prices.failures
        return self.stats

    # consumer.Owner

    def assigned(self, holdings: Sequence[Holding]) -> None:
        ledger, nursery = self._ledger, self._nursery
        if nursery is None or ledger is None:
            return
        if not holdings:
            self.stats.state = "joining"
            log.info("orders_standby", account=self.name)
            return
        log.info("orders_owner", account=self.name, partitions=[holding.partition for holding in holdings])
        try:
            self._tenure = self._make_tenure(ledger)
        except PipelineError as problem:  # here it would end the event loop
            nursery.start_soon(fail, problem)
        else:
            nursery.start_soon(self._hold, self._tenure, holdings, ledger)

    def take(self, records: Sequence[Consumed]) -> None:
        if self._tenure is not None:
            self._tenure.take(records)

    def held_up(self, reason: str) -> None:
        if reason:
            log.error("commands_wait", account=self.name, text=reason)
        self.stats.held_up = reason

    async def give_up(self) -> None:
        tenure, self._tenure = self._tenure, None
        if tenure is not None:
            self.stats.losses += 1
            log.warning("orders_given_up", account=self.name)
            await tenure.give_up()

    def lost(self, reason: str) -> None:
        tenure, self._tenure = self._tenure, None
        if tenure is not None:
            self.stats.losses += 1
            self._lost = reason
            log.error("orders_lost", account=self.name, text=reason)
            tenure.scope.cancel()

    async def _join(self) -> None:
        """One membership, from joining the group until it fails or we stop."""
        ledger = await trio.to_thread.run_sync(open_ledger, self.folder, self.remembered)
        if ledger.recovery.cut_bytes:
            log.warning("ledger_cut", account=self.name, bytes=ledger.recovery.cut_bytes)
        try:
            async with trio.open_nursery() as nursery:
                self._ledger, self._nursery = ledger, nursery
                self._commands = self.kafka.commands(
                    self, ledger.state.identifier, lambda holding: self._claim(holding, ledger)
                )
                nursery.start_soon(self._keep_compact, ledger)
                nursery.start_soon(self._watch_topic)
                nursery.start_soon(self._until_stopped, self._commands)
                await self._commands.run()
                if self._tenure is not None:
                    self._tenure.scope.cancel()
                nursery.cancel_scope.cancel()
        finally:
            self._tenure = self._nursery = self._ledger = None
            ledger.close()

    def _claim(self, holding: Holding, ledger: Ledger) -> Mark:
        """In the consumer's thread, before anything of a partition is read. Raises `Refused` or `SinkFailed`."""
        self._topic_id = self.kafka.topic_id()
        why = anew(self.kafka.topic, self._topic_id, holding, ledger.state)
        if why is not None:
            raise self._another_topic(why)
        return claim(self.kafka.topic, holding, ledger.state, Micros(self.clock()))

    def _another_topic(self, why: str) -> Refused:
        return Refused(
            f"{why}: it is not the topic that it was. Have commands in another one (orders.accounts.{self.name}."
            f"command_topic), or move {self.folder} away: then what stands there is looked up, and not sent"
        )

    async def _watch_topic(self) -> None:
        """A consumer goes on in a topic that was made anew, at the place where it was in the old one."""
        while True:
            await trio.sleep(TOPIC_LOOK)
            if self._tenure is None or self._topic_id is None:
                continue
            try:
                found = await trio.to_thread.run_sync(self.kafka.topic_id, abandon_on_cancel=True)
            except SinkFailed as error:
                log.warning("command_topic_unseen", account=self.name, text=str(error))
                continue
            if found not in (None, self._topic_id):
                why = f"{self.kafka.topic} has the id {found}, and had {self._topic_id} when it became ours"
                raise self._another_topic(why)

    async def _hold(self, tenure: Tenure, holdings: Sequence[Holding], ledger: Ledger) -> None:
        self.stats.state, self._lost = "owner", ""
        topic, found = self.kafka.topic, self._topic_id
        if found is not None and ledger.state.topics.get(topic) != found:
            ledger.append(TopicId(topic, found))
        try:
            await tenure.run(holdings)
        finally:
            if self._tenure is tenure:
                self._tenure = None
            if self._tenure is None:  # else another one has begun, and tells its own
                self.stats.state, self.stats.connection = "joining", "waiting"
                self.stats.last_error = self._lost or self.stats.last_error

    async def _until_stopped(self, commands: Commands) -> None:
        await self._stopping.wait()
        if self._tenure is not None:
            await self._tenure.drain(DRAIN_WITHIN)
            self._tenure.scope.cancel()
            await self._tenure.ended.wait()
        commands.stop()

    async def _keep_compact(self, ledger: Ledger) -> None:
        while True:
            await trio.sleep(COMPACT_LOOK)
            if ledger.wants_compaction:
                try:
                    await trio.to_thread.run_sync(ledger.compact)
                except OSError as error:
                    log.error("ledger_not_compacted", account=self.name, text=str(error))

    def _failed(self, end: BaseException) -> None:
        self.stats.state = "refused" if isinstance(end, Refused) else "retrying"
        self.stats.last_error = describe(end)
        log.error("orders_failed", account=self.name, text=self.stats.last_error)

    def _make_tenure(self, ledger: Ledger) -> Tenure:
        trading, commands = self.venue.trading, self._commands
        assert trading is not None
        assert commands is not None
        desk = Desk(
            venue=self.venue.name,
            account=self.account,
            topic=self.kafka.topic,
            settings=self.settings,
            trading=trading,
            catalogue=self.catalogue,
            open_orders=self.open_orders,
            known=ledger.state,
            stats=self.stats,
            # Requests need names that no earlier connection has used: the ledger's and the time's.
            run=f"{ledger.state.identifier[:6]}{self.clock():x}x",
        )
        link = TradeLink(
            venue=self.venue,
            settings=self.venue_settings,
            account=self.account,
            answer_within=self.settings.answer_within,
            rest=self.rest,
            connects=self.connects,
            open_websocket=self.open_websocket,
            random=self.random,
            stats=self.stats,
        )
        return Tenure(
            desk=desk,
            ledger=ledger,
            link=link,
            prices=Prices(price_fetcher(trading, self.rest), self.settings.price_age),
            rest=self.rest,
            results=self.kafka.results(),
            commits=commands,
            read_results=self.kafka.read_results,
            publish=self.publish,
            kill_file=None if self.kill_file is None else Path(self.kill_file),
            markets=tuple(self.settings.instruments),
            clock=self.clock,
            seam=self.seam,
            stats=self.stats,
        )
