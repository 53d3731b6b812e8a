"""Everything outside of a gateway, in memory: a command topic and its group, results, a venue that counts orders.

What happens here outlives a gateway, as do its ledger's files: a gateway that crashes is followed by another one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import attrs
import trio

from pipeline.exchanges.accounts import Credentials, Login, Post, Requests, Steps
from pipeline.exchanges.trading import Answer, Cost, ItemAnswer, OrderFinder, ReportedLimit, TradeItem, TradeRequest
from pipeline.exchanges.venue import Catalogue, SessionTimes, Subscription
from pipeline.feeds.settings import AccountChannelSettings, AccountSettings, ReconnectSettings, VenueSettings
from pipeline.model.account import Order
from pipeline.model.decimals import DecimalText
from pipeline.model.errors import ConnectionLost, Refused, Retryable
from pipeline.model.events import Event, Instrument, Micros
from pipeline.model.orders import FINAL, OrderCommand, OrderResult
from pipeline.model.rate import Rate
from pipeline.model.secret import Secret
from pipeline.orders.commands import encode_command
from pipeline.orders.consumer import Consumed, Holding, Mark, Owner
from pipeline.orders.gateway import Gateway
from pipeline.orders.settings import AccountOrderSettings
from pipeline.session.limiter import Limiter
from pipeline.sink.reader import Decoder
from pipeline.sink.settings import KafkaSettings
from tests.feeds.toy import ToyVenue
from tests.orders.samples import NOW, command, instrument, item

T = TypeVar("T")
TOPIC = "order.order_command.bybit.main"
HANG_GUARD = 120.0
_DECODER = Decoder(KafkaSettings(), is_plain=True)


class Crash(BaseException):
    """The process is gone."""


@attrs.define(eq=False)
class Exchange:
    """The venue: it counts what it was asked."""

    orders: dict[str, Order] = attrs.field(factory=dict)
    """By client order id."""
    asked: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    """(action, client order id) of every request that arrived."""
    price: str | None = "65000"
    drop: str | None = None
    """"before_take" or "before_ack": the next request cuts the connection."""
    answers: Callable[[str], ItemAnswer | None] = lambda name: None
    """What is answered for an order instead of the truth."""
    held: list[Callable[[], None]] | None = None
    """Answers that wait; None: none does."""
    down: bool = False
    barred: str = ""
    """Why it refuses connections for good."""
    deaf: bool = False
    """Whether REST is away."""
    limits: tuple[ReportedLimit, ...] = ()
    looked_up: list[str] = attrs.field(factory=list)
    armed: list[float | None] = attrs.field(factory=list)

    def handle(self, request: Mapping[str, Any]) -> dict[str, Any]:
        rows = []
        for row in request["items"]:
            name = row["client_order_id"] or self._name(row["order_id"])
            self.asked[request["action"], name] += 1
            rows.append(attrs.asdict(self.answers(name) or self._do(request["action"], name, row)))
        if request["action"] == "mass_cancel":
            self.asked["mass_cancel", request["family"]] += 1
            rows = [attrs.asdict(ItemAnswer(accepted=True))]
        return {"id": request["id"], "items": rows}

    def _name(self, order_id: str) -> str:
        return next((name for name, order in self.orders.items() if order.order_id == order_id), order_id)

    def _do(self, action: str, name: str, row: Mapping[str, Any]) -> ItemAnswer:
        order = self.orders.get(name)
        if action == "create":
            if order is not None:
                return ItemAnswer(accepted=False, code="dup", message="duplicate", error_class="permanent")
            self.orders[name] = open_order(name, f"v-{name}", row["price"], row["size"])
            return ItemAnswer(accepted=True, order_id=f"v-{name}")
        if order is None or order.status != "new":
            return ItemAnswer(accepted=False, code="gone", message="no such order", error_class="permanent")
        if action == "cancel":
            order.status = "cancelled"
        else:
            order.price, order.size = row["price"] or order.price, row["size"] or order.size
        return ItemAnswer(accepted=True, order_id=order.order_id)


def open_order(name: str, order_id: str, price: str | None = "65000.5", size: str | None = "0.010") -> Order:
    origin = instrument().origin
    order = Order(origin, NOW, NOW, None, "order", True, order_id, "new", "New", "buy", "limit", "base", "base", name)
    order.price = None if price is None else DecimalText(price)
    order.size = None if size is None else DecimalText(size)
    return order


@attrs.define(eq=False)
class ToyTradeSession:
    exchange: Exchange
    ready: bool = True
    ends_soon: bool = False
    sent: list[str] = attrs.field(factory=list)

    def start(self, now: float) -> None: ...

    def submit(self, request: TradeRequest, now: float) -> None:
        names = ("client_order_id", "order_id", "price", "size")
        items = [{name: getattr(each.item, name) for name in names} for each in request.items]
        text = {"id": request.id, "action": request.action, "items": items, "family": request.family}
        self.sent.append(json.dumps(text))

    def receive(self, message: bytes, now: float) -> list[Answer]:
        wire = json.loads(message)
        if wire.get("end"):
            self.ends_soon = True
            return []
        return [Answer(wire["id"], tuple(ItemAnswer(**row) for row in wire["items"]), limits=self.exchange.limits)]

    def next_deadline(self) -> float:
        return inf

    def on_deadline(self, now: float) -> None: ...

    def data_to_send(self) -> list[str]:
        out, self.sent = self.sent, []
        return out

    def notices(self) -> list[str]:
        return []


@attrs.define(eq=False)
class ToyTrading:
    exchange: Exchange
    endpoint: str = "trade"
    environments: Sequence[str] = ("main",)
    rate: Rate = attrs.field(default=Rate(100, 1.0))
    most: int = 20

    def problems(self, action: str, item: TradeItem) -> list[tuple[str, str]]:
        return [("extras", "odd")] if "odd" in item.item.extras else []

    def batch(self, action: str, market: str) -> int:
        return self.most if market == "linear" else 0

    def costs(self, request: TradeRequest) -> list[Cost]:
        return [Cost(request.action, self.rate, len(request.items) or 1)]

    def session(self, times: SessionTimes, login: Login) -> ToyTradeSession:
        return ToyTradeSession(self.exchange)

    def finder(self, account: str, connection: str, catalogue: Catalogue) -> OrderFinder:
        def find(trade: TradeItem) -> Steps[Order | None]:
            name = trade.item.client_order_id or self.exchange._name(str(trade.item.order_id))
            self.exchange.looked_up.append(name)
            yield "order"
            return self.exchange.orders.get(name)

        return find

    def reference_price(self, instrument: Instrument) -> Steps[DecimalText | None]:
        yield "price"
        return None if self.exchange.price is None else DecimalText(self.exchange.price)

    def arm(self, seconds: float | None, markets: Sequence[str]) -> Requests[None]:
        yield Post("arm", b"{}")
        self.exchange.armed.append(seconds)

    def arm_every(self, seconds: float) -> float:
        return seconds / 3

    def arm_problems(self, seconds: float, channels: Sequence[str], markets: Sequence[str]) -> list[str]:
        return []


@attrs.define(eq=False)
class ToyAccounts:
    """As much of a private side as orders need."""

    exchange: Exchange

    def subscriptions(self, spec: Any) -> list[Subscription]:
        return [Subscription("order", "order", "order", "account", None, "private")]

    def reader(self, account: str, connection: str, catalogue: Catalogue) -> Any:
        return self

    def snapshot(self, subscription: Subscription) -> Callable[[], Steps[list[Event]]]:
        def steps() -> Steps[list[Event]]:
            yield "open orders"
            return [order for order in self.exchange.orders.values() if order.status == "new"]

        return steps

    def verify(self) -> Steps[None]:
        yield "verify"


@attrs.define(eq=False)
class ToyRest:
    """The venue's REST hosts."""

    world: World
    accounts: ToyAccounts

    async def measure_clock(self) -> None:
        await trio.lowlevel.checkpoint()

    def forget_clock(self) -> None: ...

    def login(self, keys: Credentials) -> Login:
        return Login(keys, 0.0)

    def venue_time(self) -> Micros:
        return Micros(self.world.now())

    async def walk(self, steps: Any, keys: Credentials | None = None) -> Any:
        await trio.lowlevel.checkpoint()
        if self.world.exchange.deaf:
            raise Retryable("nobody answers")
        try:
            next(steps)
            while True:
                steps.send(b"")
        except StopIteration as end:
            return end.value


@attrs.define(eq=False)
class Line:
    """One connection to the venue."""

    world: World
    life: int
    is_closed: bool = False
    _to_client: trio.MemorySendChannel[bytes] = attrs.field(init=False)
    _from_venue: trio.MemoryReceiveChannel[bytes] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._to_client, self._from_venue = trio.open_memory_channel[bytes](inf)

    async def receive(self) -> list[bytes]:
        try:
            return [await self._from_venue.receive()]
        except trio.EndOfChannel:
            raise ConnectionLost("the venue hung up") from None

    async def send(self, text: str) -> None:
        await trio.lowlevel.checkpoint()
        self.world.die_if_dead(self.life)
        exchange, request = self.world.exchange, json.loads(text)
        drop, exchange.drop = exchange.drop, None
        if drop == "before_take":
            self._to_client.close()
            return
        answer = json.dumps(exchange.handle(request)).encode()
        if drop == "before_ack":
            self._to_client.close()
        elif exchange.held is not None:
            exchange.held.append(lambda: self.push(answer))
        else:
            self.push(answer)

    def push(self, message: bytes) -> None:
        self._to_client.send_nowait(message)

    def hang_up(self) -> None:
        self._to_client.close()

    async def aclose(self) -> None:
        self.is_closed = True


@attrs.define(eq=False)
class Topic:
    """The command topic with one partition, and what its group has committed."""

    values: list[bytes] = attrs.field(factory=list)
    id: str | None = "topic-1"
    committed: tuple[int, Mark | None] | None = None
    news: trio.Event = attrs.field(factory=trio.Event)

    def append(self, value: bytes) -> None:
        self.values.append(value)
        self.tell()

    def tell(self) -> None:
        self.news.set()
        self.news = trio.Event()


@attrs.define(eq=False)
class ToyCommands:
    """A membership in the group."""

    world: World
    owner: Owner
    claim: Callable[[Holding], Mark]
    life: int
    stopped: bool = False
    at: int = 0
    waited: int = 0

    async def run(self) -> None:
        topic = self.world.topic
        start, mark = topic.committed if topic.committed is not None else (0, None)
        is_committed = topic.committed is not None
        holding = Holding(0, start, len(topic.values), mark, is_committed=is_committed)
        topic.committed = (start, self.claim(holding))
        self.at = start
        self.owner.assigned([holding])
        while not self.stopped:
            news = topic.news
            found = topic.values[self.at :]
            records = [
                Consumed.read(_DECODER, TOPIC, 0, self.at + n, value, Micros(self.world.now()))
                for n, value in enumerate(found)
            ]
            self.at += len(records)
            if records:
                self.owner.take(records)
            await news.wait()

    def stop(self) -> None:
        self.stopped = True
        self.world.topic.tell()

    def settle(self, partition: int, offset: int, mark: Mark) -> None:
        self.world.die_if_dead(self.life)
        self.world.topic.committed = (offset, mark)
        self.world.tell()

    def waiting(self, count: int) -> None:
        self.waited = count


@attrs.define(eq=False)
class ToyResults:
    """A producer of results: Kafka acknowledges at the next turn of the loop."""

    world: World
    life: int
    failures: int = 0
    sent: list[tuple[OrderResult, Callable[[], None] | None]] = attrs.field(factory=list)
    work: trio.Event = attrs.field(factory=trio.Event)

    @property
    def outstanding(self) -> int:
        return len(self.sent)

    def publish(self, result: OrderResult, delivered: Callable[[], None] | None = None) -> None:
        self.world.die_if_dead(self.life)
        self.sent.append((result, delivered))
        self.work.set()

    async def run(self) -> None:
        while True:
            await self.work.wait()
            self.work = trio.Event()
            while self.sent:
                result, delivered = self.sent[0]
                self.world.results.append(result)
                self.world.tell()
                if delivered is not None:
                    delivered()
                del self.sent[0]
            self.world.tell()

    async def delivered(self) -> None:
        while self.sent:
            await self.world.news.wait()

    def close(self) -> None: ...


@attrs.define(eq=False)
class World:
    """See the module."""

    folder: Path
    exchange: Exchange = attrs.field(factory=Exchange)
    topic: Topic = attrs.field(factory=Topic)
    results: list[OrderResult] = attrs.field(factory=list)
    letters: list[Event] = attrs.field(factory=list)
    settings: AccountOrderSettings = attrs.field(
        default=AccountOrderSettings({"linear": ("*",)}, max_order_value=DecimalText("10000"), not_arrived_after=5.0)
    )
    kill_file: str | None = None
    crash_at: str = ""
    """At which seam the next gateway dies."""
    life: int = 0
    """Of the present gateway; what earlier ones still do has no effect."""
    lines: list[Line] = attrs.field(factory=list)
    catalogue: dict[tuple[str, str], Instrument] = attrs.field(
        factory=lambda: {("linear", "BTCUSDT"): instrument(), ("linear", "ETHUSDT"): instrument("ETHUSDT")}
    )
    trading: ToyTrading = attrs.field(init=False)
    members: list[ToyCommands] = attrs.field(factory=list)
    news: trio.Event = attrs.field(factory=trio.Event)
    steps: list[str] = attrs.field(factory=list)
    acts: dict[str, Callable[[], object]] = attrs.field(factory=dict)
    """What happens when a seam is next passed."""
    ahead: float = 0.0
    """Seconds by which the wall clock was set on."""
    remembered: int = 1_000
    group: str = "main"

    def __attrs_post_init__(self) -> None:
        self.trading = ToyTrading(self.exchange)

    def now(self) -> int:
        return NOW + round((trio.current_time() + self.ahead) * 1e6)

    def tell(self) -> None:
        self.news.set()
        self.news = trio.Event()

    def die_if_dead(self, life: int) -> None:
        if life != self.life:
            raise Crash

    def seam(self, name: str) -> None:
        self.steps.append(name)
        if (act := self.acts.pop(name, None)) is not None:
            act()
        if name == self.crash_at:
            self.crash_at = ""
            self.life += 1
            raise Crash

    # The gateway's `Kafka`

    def give(self, wanted: OrderCommand | bytes) -> None:
        """A command is written to the topic."""
        self.topic.append(wanted if isinstance(wanted, bytes) else encode_command(wanted))

    def order(self, command_id: str, **changes: Any) -> None:
        """A command to create one order."""
        self.give(self.command(item(**changes), command_id=command_id))

    def command(self, *items: Any, **changes: Any) -> OrderCommand:
        """A command that was issued just now."""
        now = self.now()
        return command(*items, **{"issued_at": now, "not_after": now + 5_000_000, **changes})

    def finals(self, command_id: str) -> list[OrderResult]:
        return [result for result in self.results if result.command_id == command_id and result.is_final]

    def states(self, command_id: str) -> list[str]:
        return [result.state for result in self.results if result.command_id == command_id]

    async def until(self, condition: Callable[[], object]) -> None:
        with trio.fail_after(10_000):  # virtual seconds
            while not condition():
                await self.news.wait()

    async def final(self, command_id: str, count: int = 1) -> OrderResult:
        """The final result of a command; of several items the last."""
        await self.until(lambda: len(self.finals(command_id)) >= count)
        return self.finals(command_id)[-1]

    async def settled_after(self, command_id: str) -> None:
        """A command has its final result, and everything in the topic is settled."""
        await self.final(command_id)
        await self.settled()

    async def passed(self, seam: str) -> None:
        """Some gateway came past a seam."""
        with trio.fail_after(10_000):
            while seam not in self.steps:  # noqa: ASYNC110 - nothing announces it
                await trio.sleep(0.001)

    async def closed(self, name: str) -> None:
        """An order is open no more."""
        with trio.fail_after(10_000):
            while self.exchange.orders[name].status == "new":  # noqa: ASYNC110 - nothing announces it
                await trio.sleep(0.1)

    async def until_members(self, count: int) -> None:
        """So many memberships in the group have begun."""
        with trio.fail_after(10_000):
            while len(self.members) < count:  # noqa: ASYNC110 - nothing announces it
                await trio.sleep(0.1)

    async def state(self, gateway: Gateway, state: str) -> None:
        with trio.fail_after(10_000):
            while gateway.stats.state != state:  # noqa: ASYNC110 - nothing announces it
                await trio.sleep(0.1)

    async def settled(self) -> None:
        """Everything in the topic is settled and committed."""
        await self.until(lambda: self.topic.committed is not None and self.topic.committed[0] == len(self.topic.values))

    def gateway(self, folder: str = "ledger") -> Gateway:
        life = self.life
        toy = ToyAccounts(self.exchange)
        venue: Any = ToyVenue(name="bybit", accounts=toy, trading=self.trading)  # type: ignore[arg-type]
        account = AccountSettings(Secret("key"), Secret("secret"), channels=(AccountChannelSettings(("order",)),))
        world = self

        async def open_websocket(nursery: trio.Nursery, url: str, **more: Any) -> Line:
            await trio.lowlevel.checkpoint()
            if world.exchange.down:
                raise ConnectionLost("nobody listens")
            if world.exchange.barred:
                raise Refused(world.exchange.barred)
            world.lines.append(Line(world, life))
            return world.lines[-1]

        class Kafka:
            topic = TOPIC

            def topic_id(self) -> str | None:
                return world.topic.id

            def commands(self, owner: Owner, identity: str, claim: Callable[[Holding], Mark]) -> ToyCommands:
                world.members.append(ToyCommands(world, owner, claim, life))
                return world.members[-1]

            def results(self) -> ToyResults:
                return ToyResults(world, life)

            def read_results(self, since_ms: int) -> list[Mapping[str, Any]]:
                names = OrderResult.__struct_fields__
                return [
                    {name: getattr(each, name) for name in names if name != "origin"}
                    for each in world.results
                    if each.receive_time // 1000 >= since_ms
                ]

        def publish(event: Event) -> bool:
            world.letters.append(event)
            return True

        return Gateway(
            venue=venue,
            account="main",
            settings=self.settings,
            venue_settings=VenueSettings(accounts={"main": account}, reconnect=ReconnectSettings(first=0.1, max=1.0)),
            folder=self.folder / folder,
            remembered=self.remembered,
            kill_file=self.kill_file,
            kafka=Kafka(),
            publish=publish,
            rest=ToyRest(self, toy),  # type: ignore[arg-type]
            connects=Limiter(Rate(100, 1.0)),
            catalogue=self.catalogue,
            open_websocket=open_websocket,
            clock=self.now,
            random=lambda: 0.5,
            seam=self.seam,
        )

    @asynccontextmanager
    async def running(self, folder: str = "ledger") -> AsyncIterator[Gateway]:
        """A gateway at work; leaving it stops it orderly."""
        gateway = self.gateway(folder)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateway.run)
            yield gateway
            gateway.stop()

    async def live_and_die(self, at: str, then: Callable[[], None] = lambda: None, folder: str = "ledger") -> None:
        """A gateway that crashes at a seam."""
        self.crash_at = at
        gateway = self.gateway(folder)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(gateway.run)
                then()
        except BaseExceptionGroup as group:
            crashed, rest = group.split(Crash)
            assert crashed is not None
            assert rest is None
        assert not self.crash_at, f"it never came to {at}"
        self.life += 1
        for line in self.lines:
            line.hang_up()


def final_states(results: Sequence[OrderResult]) -> list[str]:
    return [result.state for result in results if result.state in FINAL]
