"""A venue of a few lines, to test what is the same for every venue."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from math import inf

import attrs

from pipeline.book.continuity import SequenceRule
from pipeline.exchanges.accounts import Accounts, Login
from pipeline.exchanges.ledger import SUBSCRIBE, SubscriptionLedger
from pipeline.exchanges.trading import Trading
from pipeline.exchanges.venue import (
    BookSeed,
    Catalogue,
    ChannelSpec,
    EndpointLimits,
    Hosts,
    Outcome,
    RestPage,
    SessionTimes,
    StreamState,
    Subscription,
)
from pipeline.model.decimals import DecimalText
from pipeline.model.errors import BadMessage, HeartbeatLost, SessionError
from pipeline.model.events import PRICE_SIZE, BookUpdate, Event, Instrument, Micros, Origin, Ticker, Trade
from pipeline.model.rate import Rate


@attrs.define(eq=False)
class ToySession:
    ledger: SubscriptionLedger
    times: SessionTimes
    wanted: Sequence[Subscription]
    now: float = 0.0
    ends_soon: bool = False
    requests: int = 0
    ping_at: float = inf
    pong_by: float = inf
    sent: list[str] = attrs.field(factory=list)

    @property
    def ready(self) -> bool:
        return self.ledger.settled

    def start(self, now: float) -> None:
        self.ping_at = now + self.times.ping_every
        self.subscribe(self.wanted, now)

    def receive(self, message: bytes, now: float) -> bool:
        if message == b"pong":
            self.pong_by = inf
        elif message.startswith(b"ok "):
            _, op, topic = message.decode().split()
            self.ledger.acknowledged(op, topic)
        elif message == b"end":
            self.ends_soon = True
        elif message.startswith(b"no "):
            self.ledger.topic_failed(message.decode().split()[1], "no such topic")
        else:
            return True
        self._ask(now)
        return False

    def next_deadline(self) -> float:
        return min(self.ping_at, self.pong_by, self.ledger.next_deadline(self.now))

    def on_deadline(self, now: float) -> None:
        if now >= self.pong_by:
            raise HeartbeatLost("no pong")
        if now >= self.ping_at:
            self.sent.append("ping")
            self.ping_at, self.pong_by = now + self.times.ping_every, now + self.times.pong_within
        self.ledger.on_deadline(now)
        self._ask(now)

    def data_to_send(self) -> list[str]:
        out, self.sent = self.sent, []
        return out

    def subscribe(self, subscriptions: Iterable[Subscription], now: float) -> None:
        self.ledger.want(subscriptions)
        self._ask(now)

    def unsubscribe(self, subscriptions: Iterable[Subscription], now: float) -> None:
        self.ledger.drop(subscriptions)
        self._ask(now)

    def resync(self, subscription: Subscription, now: float) -> None:
        self.ledger.resync(subscription)
        self._ask(now)

    def outcomes(self) -> list[Outcome]:
        return self.ledger.outcomes()

    def notices(self) -> list[str]:
        return []

    def _ask(self, now: float) -> None:
        self.now = now
        while (request := self.ledger.next_request(now)) is not None:
            verb = "subscribe" if request.op == SUBSCRIBE else "unsubscribe"
            self.requests += 1
            self.sent.append(f"{verb} {' '.join(request.waiting)}")


@attrs.define(eq=False)
class ToyNormalizer:
    connection: str
    streams: dict[str, StreamState] = attrs.field(factory=dict)
    origins: dict[str, Origin] = attrs.field(factory=dict)
    unknown_fields: Sequence[str] = ()

    def seed(self, subscription: Subscription, body: bytes, receive_time: int) -> BookUpdate:
        [snapshot] = self.normalize(body, receive_time)
        assert isinstance(snapshot, BookUpdate)
        return snapshot

    def normalize(self, message: bytes, receive_time: int) -> list[Event]:
        try:
            wire = json.loads(message)
            topic = wire["topic"]
            kind, instrument = topic.split(".")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise BadMessage(f"toy: {error}") from None
        if kind == "bug":
            raise LookupError("a message nobody thought of")
        stream = self.streams.setdefault(topic, StreamState(topic))
        stream.messages += 1
        stream.last_receive = receive_time
        origin = self.origins.setdefault(instrument, Origin("toy", "spot", instrument, None, None, self.connection))
        if kind == "trade":
            price, size = DecimalText(wire["price"]), DecimalText("1")
            time = Micros(wire.get("time", 1))
            stream.latest = [
                Trade(origin, time, Micros(receive_time), None, wire["id"], price, size, "base", size, None, "buy")
            ]
            return list(stream.latest)
        if kind == "ticker":
            price = DecimalText(wire["price"])
            stream.latest = [Ticker(origin, Micros(wire["time"]), Micros(receive_time), None, "base", price)]
            return list(stream.latest)
        return [
            BookUpdate(
                origin,
                Micros(wire.get("time", 1)),
                Micros(receive_time),
                wire["seq"],
                "book",
                wire.get("snapshot", False),
                wire.get("prev"),
                [tuple(row) for row in wire["bids"]],
                [],
                PRICE_SIZE,
                "base",
                None,
            )
        ]


@attrs.frozen
class ToyVenue:
    """Channels trade, book and ticker on one market; topics are `trade.BTC`, `book.BTC` and `ticker.BTC`."""

    name: str = "toy"
    environments: Mapping[str, Hosts] = attrs.field(factory=lambda: {"main": Hosts("ws://toy", "http://toy")})
    markets: Sequence[str] = ("spot", "linear")
    channels: Sequence[str] = ("trade", "book", "ticker")
    streams: Sequence[str] = ("spot",)
    connects: Rate = attrs.field(default=Rate(100, 1.0))
    rest_requests: Rate = attrs.field(default=Rate(100, 1.0))
    session_times: SessionTimes = attrs.field(default=SessionTimes(20.0, 10.0))
    topics_per_connection: int = 4
    books_per_connection: int = 2
    topics_per_request: int = 10
    accounts: Accounts | None = None
    trading: Trading | None = None
    seed: BookSeed | None = None

    def session_problems(self, times: SessionTimes) -> list[tuple[str, str]]:
        return []

    def problems(self, spec: ChannelSpec) -> list[tuple[str, str]]:
        return []

    def catalogue_markets(self, spec: ChannelSpec) -> Sequence[str]:
        return [spec.market]

    def subscriptions(self, spec: ChannelSpec, instruments: Sequence[Instrument]) -> list[Subscription]:
        silence = spec.max_silence if spec.max_silence is not None else inf
        return [
            Subscription(f"{spec.channel}.{name}", spec.channel, spec.channel, spec.market, name, spec.market, silence)
            for name in (str(instrument.origin.instrument) for instrument in instruments)
        ]

    def path(self, endpoint: str, times: SessionTimes) -> str:
        return f"/{endpoint}"

    def limits(self, endpoint: str) -> EndpointLimits:
        return EndpointLimits(
            self.topics_per_connection,
            10_000,
            self.topics_per_request,
            10_000,
            Rate(1000, 1.0),
            self.books_per_connection,
        )

    def session(
        self, endpoint: str, subscriptions: Sequence[Subscription], times: SessionTimes, login: Login | None = None
    ) -> ToySession:
        ledger = SubscriptionLedger(self.limits(endpoint), times.acknowledge_within)
        return ToySession(ledger, times, subscriptions)

    def close_error(self, code: int, reason: str) -> SessionError | None:
        return None

    def normalizer(
        self,
        stream: str,
        connection: str,
        catalogue: Catalogue,
        resume: dict[str, int] | None = None,
        *,
        account: str | None = None,
    ) -> ToyNormalizer:
        return ToyNormalizer(connection)

    def book_seed(self, subscription: Subscription) -> BookSeed | None:
        return self.seed

    def sequence_rule(self, channel: str) -> SequenceRule | None:
        return SequenceRule(ignores_old=False)

    def instrument_pages(self, market: str) -> list[RestPage]:
        return [RestPage("/instruments")]

    def parse_instruments(
        self, market: str, page: RestPage, body: bytes, receive_time: int
    ) -> tuple[list[Instrument], RestPage | None]:
        return [instrument(name) for name in json.loads(body)], None

    def read_instruments(self, body: bytes, receive_time: int) -> list[Instrument]:
        return [instrument(name) for name in json.loads(body)]


def instrument(name: str, *, tradable: bool = True) -> Instrument:
    origin = Origin("toy", "spot", name, f"{name}-USD", None, "catalogue")
    return Instrument(origin, None, Micros(0), None, "spot", "live", tradable, name, "USD", None, "base")


def catalogue(*names: str) -> dict[tuple[str, str], Instrument]:
    return {("spot", name): instrument(name) for name in names}


def book(seq: int, prev: int | None = None, *, name: str = "BTC", price: str = "10", time: int = 1) -> bytes:
    wire = {"topic": f"book.{name}", "seq": seq, "prev": prev, "snapshot": prev is None, "bids": [[price, "1"]]}
    wire["time"] = time
    return json.dumps(wire).encode()


def trade(trade_id: str, name: str = "BTC", price: str = "10", time: int = 1) -> bytes:
    return json.dumps({"topic": f"trade.{name}", "id": trade_id, "price": price, "time": time}).encode()


def ticker(price: str, name: str = "BTC", *, time: int) -> bytes:
    return json.dumps({"topic": f"ticker.{name}", "price": price, "time": time}).encode()
