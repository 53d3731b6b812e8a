"""Bybit v5: where it lives, what it offers, what it allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from pipeline.book.continuity import SequenceRule
from pipeline.exchanges.accounts import Accounts, Login
from pipeline.exchanges.bybit import instruments as catalogue_of
from pipeline.exchanges.bybit.accounts import VENUE
from pipeline.exchanges.bybit.normalizer import BybitNormalizer
from pipeline.exchanges.bybit.private_side import BybitAccounts
from pipeline.exchanges.bybit.session import BybitSession
from pipeline.exchanges.bybit.suggestions import unknown
from pipeline.exchanges.bybit.topics import (
    BOOK_DEPTHS,
    CHANNELS,
    FULL,
    INTERVALS,
    MARKETS,
    MAX_SILENCE,
    POOL_CHANNELS,
    WITHOUT_INSTRUMENT,
    offered,
    venue_interval,
)
from pipeline.exchanges.bybit.trading import BybitTrading
from pipeline.exchanges.trading import Trading
from pipeline.exchanges.venue import (
    BookSeed,
    Catalogue,
    ChannelSpec,
    EndpointLimits,
    Hosts,
    RestPage,
    SessionTimes,
    Subscription,
)
from pipeline.model.errors import SessionError
from pipeline.model.events import Instrument
from pipeline.model.rate import Rate

ENVIRONMENTS: Mapping[str, Hosts] = {
    "mainnet": Hosts("wss://stream.bybit.com", "https://api.bybit.com"),
    # The same under the venue's other name, for networks that do not let the first one through.
    "bytick": Hosts("wss://stream.bytick.com", "https://api.bytick.com"),
    "testnet": Hosts("wss://stream-testnet.bybit.com", "https://api-testnet.bybit.com"),
    # Paper trading runs on mainnet data; its own hosts serve private streams and signed requests only.
    "demo": Hosts(
        "wss://stream.bybit.com",
        "https://api.bybit.com",
        private_websocket="wss://stream-demo.bybit.com",
        private_rest="https://api-demo.bybit.com",
    ),
    "turkey": Hosts("wss://stream.bybit.tr", "https://api.bybit.tr"),
    "turkey-legacy": Hosts("wss://stream.bybit-tr.com", "https://api.bybit.tr"),
    "kazakhstan": Hosts("wss://stream.bybit.kz", "https://api.bybit.kz"),
    "georgia": Hosts("wss://stream.bybitgeorgia.ge", "https://api.bybitgeorgia.ge"),
    "indonesia": Hosts("wss://stream.bybit.id", "https://api.bybit.id"),
    "japan": Hosts("wss://stream.manepa.jp", "https://api.manepa.jp"),
    "eu": Hosts("wss://stream.bybit.eu", "https://api.bybit.eu"),
}

PATHS: Mapping[str, str] = {
    **{market: f"/v5/public/{market}" for market in MARKETS},
    "private": "/v5/private",
    "trade": "/v5/trade",
    "status": "/v5/public/misc/status",
    "rfq": "/v5/public/rfq",
    "fp": "/v5/public/fp",
}

IDLE_CUT_OFF = 600.0
"""Seconds after which the venue closes a connection without traffic, unless it was told another time."""
SHORTEST_IDLE = 30.0
WITH_LOGIN = frozenset({"private", "trade"})
"""Endpoints that take a login, and the idle time as a parameter."""

_MOST_TOPICS = 2_000
"""Topics per connection: the venue's limit for options, and ours elsewhere, where its limit is on characters."""
_MOST_CHARACTERS = 20_000
"""Of topics per connection; the venue counts to 21,000."""
_BOOKS = 100
"""Ours: a level-50 book brings up to 50 messages a second."""


_PER_REQUEST = {
    "spot": 10,
    # All markets together and one of them must not be asked for in one request, and answers name no topics.
    "private": 1,
}


def _limits(endpoint: str) -> EndpointLimits:
    return EndpointLimits(
        topics_per_connection=_MOST_TOPICS,
        topic_bytes_per_connection=_MOST_CHARACTERS,
        topics_per_request=_PER_REQUEST.get(endpoint, 200),
        bytes_per_request=_MOST_CHARACTERS,
        requests=Rate(20, 1.0),  # the venue names no limit
        books_per_connection=_BOOKS,
    )


class Bybit:
    """The `Venue` Bybit; stateless."""

    name: str = VENUE
    environments: Mapping[str, Hosts] = ENVIRONMENTS
    markets: Sequence[str] = MARKETS
    channels: Sequence[str] = CHANNELS
    streams: Sequence[str] = tuple(PATHS)
    connects: Rate = Rate(500, 300.0)
    rest_requests: Rate = Rate(400, 5.0)
    """The venue allows 600 and locks an address out for ten minutes beyond, counting all of its programs."""
    session_times: SessionTimes = SessionTimes(ping_every=20.0, pong_within=10.0)

    def session_problems(self, times: SessionTimes) -> list[tuple[str, str]]:
        """What is wrong with configured times, as (field, why)."""
        problems = []
        if not 0 < times.ping_every < IDLE_CUT_OFF:
            problems.append(
                ("ping_every", f"must be above 0 and below {IDLE_CUT_OFF:g}, when bybit closes an idle connection")
            )
        problems += [
            (field, "must be above 0")
            for field in ("pong_within", "acknowledge_within")
            if not 0 < getattr(times, field) < inf
        ]
        idle = times.max_active_time
        if idle is not None and not (SHORTEST_IDLE <= idle <= IDLE_CUT_OFF and idle.is_integer()):
            problems.append(("max_active_time", f"must be whole seconds from {SHORTEST_IDLE:g} to {IDLE_CUT_OFF:g}"))
        elif idle is not None and not times.ping_every < idle:
            problems.append(("max_active_time", f"must be above ping_every, which is {times.ping_every:g} s"))
        return problems

    def problems(self, spec: ChannelSpec) -> list[tuple[str, str]]:
        """What is wrong with a wanted channel, as (field, why)."""
        if spec.market not in MARKETS:
            return [("market", unknown("market", spec.market, MARKETS))]
        if spec.channel not in CHANNELS:
            return [("channel", unknown("channel", spec.channel, CHANNELS))]
        found = []
        if spec.channel not in offered(spec.market):
            found.append(("channel", _not_offered(spec)))
        if not spec.instruments:
            found.append(("instruments", "names none"))
        if spec.max_silence is not None and not spec.max_silence > 0:
            found.append(("max_silence", "must be above 0"))
        if spec.variant is not None:
            found.append(("variant", "bybit has one channel for each purpose"))
        if spec.price_type != "trade":
            found.append(("price_type", "bybit streams candles of trades only"))
        found += _depth_problems(spec)
        found += _interval_problems(spec)
        return found

    def catalogue_markets(self, spec: ChannelSpec) -> Sequence[str]:
        """Every channel is subscribed instrument by instrument or by what these have in common, but for a few."""
        return () if spec.channel in WITHOUT_INSTRUMENT else (spec.market,)

    def subscriptions(self, spec: ChannelSpec, instruments: Sequence[Instrument]) -> list[Subscription]:
        """The topics of a channel for these instruments.

        The channels of prices, rates and open interest are parts of the one topic `tickers`: equal topics wanted
        by several channels are one subscription, which brings all of its events. Option trades come by base
        coin, and funds and their alerts by pool, so a subscription brings those of every instrument in it. The
        status of the venue, trades by quote and offers to savers are the same in every market.
        """
        silence = spec.max_silence
        if silence is None:
            silence = MAX_SILENCE.get(spec.channel, inf)
        if spec.channel in WITHOUT_INSTRUMENT:
            endpoint, topics = WITHOUT_INSTRUMENT[spec.channel]
            return [Subscription(each, spec.channel, each, spec.market, None, endpoint, silence) for each in topics]
        channel = _venue_channel(spec)
        by_topic: dict[str, Subscription] = {}
        for instrument in instruments:
            group = _group(spec, instrument)
            symbol = None if group else instrument.origin.instrument
            topic = f"{channel}.{group or symbol}"
            by_topic[topic] = Subscription(topic, spec.channel, channel, spec.market, symbol, spec.market, silence)
        return list(by_topic.values())

    accounts: Accounts | None = BybitAccounts()
    trading: Trading | None = BybitTrading()

    def path(self, endpoint: str, times: SessionTimes) -> str:
        """URL path of an endpoint; raises `KeyError` for an unknown one."""
        path, idle = PATHS[endpoint], times.max_active_time
        return path if idle is None or endpoint not in WITH_LOGIN else f"{path}?max_active_time={idle:.0f}s"

    def limits(self, endpoint: str) -> EndpointLimits:
        """What one connection to the endpoint may carry."""
        return _limits(endpoint)

    def session(
        self,
        endpoint: str,
        subscriptions: Sequence[Subscription],
        times: SessionTimes,
        login: Login | None = None,
    ) -> BybitSession:
        """A session for one connection."""
        return BybitSession(tuple(subscriptions), times, _limits(endpoint), endpoint, login=login)

    def close_error(self, code: int, reason: str) -> SessionError | None:
        """The venue documents no close codes."""
        return None

    def normalizer(
        self,
        stream: str,
        connection: str,
        catalogue: Catalogue,
        resume: dict[str, int] | None = None,
        *,
        account: str | None = None,
    ) -> BybitNormalizer:
        """A normalizer for one connection; answers to orders (`trade`) are read by their own session."""
        return BybitNormalizer(stream, connection, catalogue, {} if resume is None else resume, account)

    def book_seed(self, subscription: Subscription) -> BookSeed | None:
        """Only the full book starts over REST; all others bring their snapshot."""
        if subscription.channel != f"orderbook.{FULL}":
            return None
        query = f"category={subscription.market}&symbol={subscription.instrument}"
        return BookSeed(f"/v5/market/full_orderbook?{query}", is_required=True)

    def sequence_rule(self, channel: str) -> SequenceRule | None:
        """Books count by one and repeat harmlessly; level 1 sends whole quotes."""
        family, _, level = channel.partition(".")
        if family != "orderbook" or level == "1" or not (level.isdecimal() or level in ("rpi", FULL)):
            return None
        return SequenceRule(ignores_old=True)

    def instrument_pages(self, market: str) -> list[RestPage]:
        """The first page of each listing that together hold a market's instruments."""
        return catalogue_of.first_pages(market)

    def parse_instruments(
        self, market: str, page: RestPage, body: bytes, receive_time: int
    ) -> tuple[list[Instrument], RestPage | None]:
        """One page's instruments, and the next page if there is one.

        Raises `BadMessage` for a body of another form, `Retryable` or `Refused` for the venue's error answers.
        """
        return catalogue_of.parse_page(market, page, body, receive_time)

    def read_instruments(self, body: bytes, receive_time: int) -> list[Instrument]:
        """Instruments of any saved answer of `instruments-info`; raises as `parse_instruments` does."""
        return catalogue_of.read_saved(body, receive_time)


def _venue_channel(spec: ChannelSpec) -> str:
    match spec.channel:
        case "trade":
            return "publicTrade"
        case "book":
            return f"orderbook.{spec.depth or BOOK_DEPTHS[spec.market][0]}"
        case "bbo":
            return "orderbook.1"
        case "candle":
            return f"kline.{venue_interval(spec.interval or '')}"
        case "liquidation":
            return "allLiquidation"
        case "price_limit":
            return "priceLimit"
        case channel:
            return POOL_CHANNELS.get(channel, "tickers")


def _group(spec: ChannelSpec, instrument: Instrument) -> str | None:
    """What a channel is subscribed by, where that is not the instrument: base coin of options, insurance pool."""
    if spec.market == "option" and spec.channel == "trade":
        return instrument.base or str(instrument.origin.instrument).partition("-")[0]
    if spec.channel in POOL_CHANNELS:
        return "inverse" if spec.market == "inverse" else instrument.settle or "USDT"
    return None


def _not_offered(spec: ChannelSpec) -> str:
    if spec.channel == "bbo":
        return f"bybit has no level-1 book in {spec.market}; derive the BBO from a book instead"
    elsewhere = [market for market in MARKETS if spec.channel in offered(market)]
    return f"bybit has no {spec.channel} in {spec.market}, only in {', '.join(elsewhere)}"


def _depth_problems(spec: ChannelSpec) -> list[tuple[str, str]]:
    if spec.depth is None:
        return []
    if spec.channel != "book":
        return [("depth", f"{spec.channel} has no depth")]
    depth, offer = str(spec.depth), BOOK_DEPTHS[spec.market]
    if depth in offer:
        return []
    if depth == "1":
        return [("depth", "level 1 is the channel bbo")]
    return [("depth", f"bybit has no {depth} levels in {spec.market}; it has {', '.join(offer)}")]


def _interval_problems(spec: ChannelSpec) -> list[tuple[str, str]]:
    if spec.channel != "candle":
        return [] if spec.interval is None else [("interval", f"{spec.channel} has no interval")]
    offer = ", ".join(INTERVALS.values())
    if spec.interval is None:
        return [("interval", f"is missing; bybit has {offer}")]
    if venue_interval(spec.interval) is None:
        return [("interval", f'bybit has no candles of "{spec.interval}"; it has {offer}')]
    return []
