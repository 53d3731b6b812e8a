"""What a venue is to the rest of the pipeline: a handful of pure functions and two small state machines.

Adding a venue means one folder beside this file that offers a `Venue`, and one line in `exchanges/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Protocol

import attrs

from pipeline.book.continuity import SequenceRule
from pipeline.exchanges.accounts import Accounts, Login
from pipeline.exchanges.trading import Trading
from pipeline.model.errors import SessionError
from pipeline.model.events import BookUpdate, Event, Instrument, Origin
from pipeline.model.rate import Rate

Catalogue = Mapping[tuple[str, str], Instrument]
"""Known instruments by (market, the venue's own symbol)."""


@attrs.frozen
class Hosts:
    """Where one environment of a venue lives: bases to which a path is appended, without a trailing slash."""

    websocket: str
    rest: str
    rest_headers: Mapping[str, str] = attrs.field(factory=dict)
    """Sent with every REST request (OKX demo trading needs one)."""
    private_websocket: str = ""
    """Of connections with a login, where that is another host (Bybit's paper trading); empty: the same."""
    private_rest: str = ""
    """Of signed requests; empty: the same."""


@attrs.frozen
class ChannelSpec:
    """One wanted channel of one market: an entry of `channels` in the configuration, its lists expanded."""

    market: str
    channel: str
    """Our name of it: trade, book, bbo, ticker, candle, mark_price, index_price, funding_rate, open_interest, …"""
    instruments: tuple[str, ...] = ("*",)
    """The venue's symbols or shell patterns of them (`*`, `?`, `[…]`), case sensitive."""
    depth: int | str | None = None
    """Books: levels per side, or the venue's name of a special book ("rpi"); None for the venue's default."""
    interval: str | None = None
    """Candles: 1m, 1h, 1d, … or the venue's own name of the interval."""
    price_type: str = "trade"
    """Candles: trade, mark or index."""
    max_silence: float | None = None
    """Seconds without data after which a subscription is stale; None for the venue's default per channel."""
    variant: str | None = None
    """The venue's own name of the channel where it has several for one purpose (OKX "trades-all")."""
    with_login: bool = False
    """Whether the connection will be logged in with some account."""


@attrs.frozen
class Subscription:
    """One thing to subscribe to on one connection."""

    topic: str
    """The venue's own text of it, unique on a connection: `orderbook.50.BTCUSDT`, or the JSON of an OKX `arg`."""
    kind: str
    """Our channel name, as in `ChannelSpec.channel`."""
    channel: str
    """The venue's channel, equal to the `channel` of the events it brings: `orderbook.50`, `books`."""
    market: str
    instrument: str | None
    """The venue's symbol; None for a channel over many instruments."""
    endpoint: str
    """Which of the venue's WebSocket paths serves it, e.g. "linear" or "business"."""
    max_silence: float = inf
    needs_login: bool = False
    """Whether only a connection that is logged in gets it."""
    rivals: frozenset[str] = frozenset()
    """Topics that may not be on the same connection."""


@attrs.frozen
class EndpointLimits:
    """What one connection to an endpoint may carry, by the venue's rules."""

    topics_per_connection: int
    topic_bytes_per_connection: int
    """Sum over topics of their UTF-8 length plus three for quotes and comma."""
    topics_per_request: int
    bytes_per_request: int
    requests: Rate
    """Subscribe, unsubscribe and login requests per connection."""
    books_per_connection: int
    """Order-book topics per connection (a recommendation of the venue, or of ours)."""


@attrs.frozen
class SessionTimes:
    """The bounds inside a session, in seconds."""

    ping_every: float
    pong_within: float
    acknowledge_within: float = 10.0
    """Each subscribe request, and the login."""
    max_active_time: float | None = None
    """Idle time after which the venue shall close a connection with a login; None: its own default."""


@attrs.frozen
class Outcome:
    """What became of a subscription: reported once, in the order of happening."""

    subscription: Subscription
    status: str
    """subscribed, unsubscribed or refused."""
    reason: str = ""


class VenueSession(Protocol):
    """One connection's control protocol: heartbeats, subscriptions, acknowledgements. Never reused.

    Times are seconds of the run's monotonic clock. Methods raise `Retryable` (reconnect) or `Refused` (give up);
    `LoginFailed` where the venue's answer leaves open whether the key, the clock or the venue is at fault.
    """

    @property
    def ready(self) -> bool:
        """Whether the login and every request have been answered."""

    @property
    def ends_soon(self) -> bool:
        """Whether the venue has announced that it will close this connection: time to open its replacement."""

    @property
    def requests(self) -> int:
        """Requests sent so far, a login included: venues limit them per connection."""

    def start(self, now: float) -> None:
        """The connection is open: queue what comes first, the login if there is one."""

    def receive(self, message: bytes, now: float) -> bool:
        """Take one message; True if it is data, to be given to the normalizer. Never raises for odd content."""

    def next_deadline(self) -> float:
        """When to call `on_deadline`; `inf` for never."""

    def on_deadline(self, now: float) -> None:
        """Ping, give up on a missing pong or acknowledgement, send what the request budget now allows."""

    def data_to_send(self) -> list[str]:
        """Text messages to send now, each handed out once."""

    def subscribe(self, subscriptions: Iterable[Subscription], now: float) -> None:
        """Add to the wanted subscriptions."""

    def unsubscribe(self, subscriptions: Iterable[Subscription], now: float) -> None:
        """Remove from the wanted subscriptions."""

    def resync(self, subscription: Subscription, now: float) -> None:
        """Unsubscribe, and when that is acknowledged subscribe again, to get a new snapshot."""

    def outcomes(self) -> list[Outcome]:
        """Answers since the last call, each handed out once."""

    def notices(self) -> list[str]:
        """What the venue announced (e.g. a service upgrade) and messages of no known form, each once."""


@attrs.define(eq=False)
class StreamState:
    """What a normalizer remembers of one topic on one connection."""

    topic: str
    origin: Origin | None = None
    last_receive: int = 0
    """Receive time of the last message, in microseconds; 0 if none came."""
    messages: int = 0
    latest: Sequence[Event] = ()
    """The events of the last message, by which a replacement of the connection tells repetitions; none of a book, whose
    updates are numbered."""


class Normalizer(Protocol):
    """Wire messages of one connection to events. Keeps what must be merged (tickers); never reused."""

    @property
    def streams(self) -> Mapping[str, StreamState]:
        """By topic, for every topic that brought a message."""

    @property
    def unknown_fields(self) -> Sequence[str]:
        """Fields that no reference knows, each once, with its family of topics; bounded in number and length."""

    def normalize(self, message: bytes, receive_time: int) -> list[Event]:
        """The events of one message, in order. Control messages give none.

        Raises `BadMessage` naming the field when the message cannot be read: then nothing of it is published.
        """

    def seed(self, subscription: Subscription, body: bytes, receive_time: int) -> BookUpdate:
        """The snapshot in the answer to a `BookSeed`.

        Raises `BadMessage` for a body of another form, `Retryable` or `Refused` for the venue's error answers.
        """


@attrs.frozen
class BookSeed:
    """Where the start of an order book can be read, should the stream not send it."""

    path: str
    """Of an unsigned GET, with its query."""
    is_required: bool
    """Whether the stream never sends a snapshot of its own."""


@attrs.frozen
class RestPage:
    """One GET request of a paged REST listing."""

    path: str
    """With its query string."""
    if_refused: bytes | None = None
    """The body to go on with where a refusal means that there is nothing; None where it is an error."""


class Venue(Protocol):
    """A venue's knowledge, without state and I/O."""

    @property
    def name(self) -> str:
        """As in the configuration, in topics' keys and in metrics."""

    @property
    def environments(self) -> Mapping[str, Hosts]:
        """By name; the first is the default."""

    @property
    def markets(self) -> Sequence[str]:
        """What `ChannelSpec.market` may be."""

    @property
    def channels(self) -> Sequence[str]:
        """What `ChannelSpec.channel` may be."""

    @property
    def streams(self) -> Sequence[str]:
        """Names of what `normalize --stream` takes: the endpoints, public and private."""

    @property
    def connects(self) -> Rate:
        """New WebSocket connections per address."""

    @property
    def rest_requests(self) -> Rate:
        """REST requests per address."""

    @property
    def session_times(self) -> SessionTimes:
        """Defaults of this venue."""

    def session_problems(self, times: SessionTimes) -> list[tuple[str, str]]:
        """What is wrong with configured times, as (field, why)."""

    def problems(self, spec: ChannelSpec) -> list[tuple[str, str]]:
        """What is wrong with a wanted channel, as (field, why); nothing else is called with a faulty one."""

    def catalogue_markets(self, spec: ChannelSpec) -> Sequence[str]:
        """Markets whose instruments must be known to resolve this spec's patterns; empty if it names none."""

    def subscriptions(self, spec: ChannelSpec, instruments: Sequence[Instrument]) -> list[Subscription]:
        """The topics that bring this channel for these (matching, tradable) instruments, without repetitions."""

    @property
    def accounts(self) -> Accounts | None:
        """The private side; None for a venue of which only market data is taken."""

    @property
    def trading(self) -> Trading | None:
        """Order entry; None for a venue that takes no orders over WebSocket."""

    def path(self, endpoint: str, times: SessionTimes) -> str:
        """URL path of an endpoint with its query, e.g. "/v5/public/linear"."""

    def limits(self, endpoint: str) -> EndpointLimits:
        """What one connection to the endpoint may carry."""

    def session(
        self,
        endpoint: str,
        subscriptions: Sequence[Subscription],
        times: SessionTimes,
        login: Login | None = None,
    ) -> VenueSession:
        """A session for one connection, with a login or without."""

    def close_error(self, code: int, reason: str) -> SessionError | None:
        """What a close frame of the venue means where it means more than a lost connection."""

    def normalizer(
        self,
        stream: str,
        connection: str,
        catalogue: Catalogue,
        resume: dict[str, int] | None = None,
        *,
        account: str | None = None,
    ) -> Normalizer:
        """A normalizer for one connection; `account` is our name of the account of a private stream.

        `resume` belongs to the caller and outlives the connection: what must not be published again after a
        reconnect is remembered there (e.g. the last trade id per instrument).
        """

    def book_seed(self, subscription: Subscription) -> BookSeed | None:
        """How a book can be started over REST; None if it cannot."""

    def sequence_rule(self, channel: str) -> SequenceRule | None:
        """How updates of a book channel follow each other; None if each stands alone."""

    def instrument_pages(self, market: str) -> list[RestPage]:
        """The first page of each listing that together hold a market's instruments."""

    def parse_instruments(
        self, market: str, page: RestPage, body: bytes, receive_time: int
    ) -> tuple[list[Instrument], RestPage | None]:
        """One page's instruments, and the next page if there is one.

        Raises `BadMessage` for a body of another form, `Retryable` or `Refused` for the venue's error answers.
        """

    def read_instruments(self, body: bytes, receive_time: int) -> list[Instrument]:
        """Instruments of any saved REST answer (`normalize --instruments`), the market read from the rows."""
