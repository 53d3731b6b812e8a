"""OKX v5: environments, limits, and the parts of the venue put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from pipeline.book.continuity import SequenceRule
from pipeline.exchanges.accounts import Accounts, Login
from pipeline.exchanges.okx import books, channels, codes, instruments
from pipeline.exchanges.okx.normalizer import OkxNormalizer
from pipeline.exchanges.okx.private_side import OkxAccounts
from pipeline.exchanges.okx.session import OkxSession
from pipeline.exchanges.okx.trading import OkxTrading
from pipeline.exchanges.trading import Trading
from pipeline.exchanges.venue import (
    BookSeed,
    Catalogue,
    ChannelSpec,
    EndpointLimits,
    Hosts,
    Normalizer,
    RestPage,
    SessionTimes,
    Subscription,
    VenueSession,
)
from pipeline.model.errors import SessionError
from pipeline.model.events import Instrument, Micros
from pipeline.model.rate import Rate

_DEMO = {"x-simulated-trading": "1"}
ENVIRONMENTS = {
    "production": Hosts("wss://ws.okx.com:8443", "https://openapi.okx.com"),
    "demo": Hosts("wss://wspap.okx.com:8443", "https://openapi.okx.com", _DEMO),
    "eea": Hosts("wss://wseea.okx.com:8443", "https://eea.okx.com"),
    "eea-demo": Hosts("wss://wseeapap.okx.com:8443", "https://eea.okx.com", _DEMO),
    "us": Hosts("wss://wsus.okx.com:8443", "https://us.okx.com"),
    "us-demo": Hosts("wss://wsuspap.okx.com:8443", "https://us.okx.com", _DEMO),
}
"""By account region; "us" serves Australia too."""

IDLE_LIMIT = 30.0
"""Seconds of silence after which OKX closes a connection."""

# The venue's caps on topics per connection are not published; requests may have 64 KB and come 480 times an hour.
LIMITS = EndpointLimits(
    topics_per_connection=240,
    topic_bytes_per_connection=60_000,
    topics_per_request=50,
    bytes_per_request=60_000,
    requests=Rate(450, 3600.0),
    books_per_connection=25,
)


class OkxVenue:
    """The venue; see `pipeline.exchanges.venue.Venue` for what each part promises."""

    name: str = "okx"
    environments: Mapping[str, Hosts] = ENVIRONMENTS
    markets: Sequence[str] = channels.MARKETS
    channels: Sequence[str] = tuple(channels.OFFERED)
    streams: Sequence[str] = ("public", "business", "private")
    connects: Rate = Rate(3, 1.2)  # 3 per second, with room for the network to bunch them
    rest_requests: Rate = Rate(10, 2.2)  # the strictest of the listings that are read
    session_times: SessionTimes = SessionTimes(ping_every=15.0, pong_within=10.0)

    def session_problems(self, times: SessionTimes) -> list[tuple[str, str]]:
        """What is wrong with configured times, as (field, why)."""
        found = [
            (field, f"{value:g} s is no positive time")
            for field, value in attrs.asdict(times).items()
            if value is not None and not value > 0
        ]
        if times.ping_every >= IDLE_LIMIT:
            found.append(
                ("ping_every", f"okx closes after {IDLE_LIMIT:g} s of silence; {times.ping_every:g} s is too late")
            )
        return found

    def problems(self, spec: ChannelSpec) -> list[tuple[str, str]]:
        """What is wrong with a wanted channel, as (field, why)."""
        return channels.problems(spec)

    def catalogue_markets(self, spec: ChannelSpec) -> Sequence[str]:
        """The spec's market, unless the channel has no use for its instruments."""
        return channels.catalogue_markets(spec)

    def subscriptions(self, spec: ChannelSpec, instruments: Sequence[Instrument]) -> list[Subscription]:
        """The topics that bring this channel for these instruments, without repetitions."""
        return channels.subscriptions(spec, instruments)

    accounts: Accounts | None = OkxAccounts()
    trading: Trading | None = OkxTrading(tuple(ENVIRONMENTS), LIMITS)

    def path(self, endpoint: str, times: SessionTimes) -> str:
        """URL path of an endpoint: public, business or private."""
        return f"/ws/v5/{endpoint}"

    def limits(self, endpoint: str) -> EndpointLimits:
        """The same for all endpoints."""
        return LIMITS

    def session(
        self,
        endpoint: str,
        subscriptions: Sequence[Subscription],
        times: SessionTimes,
        login: Login | None = None,
    ) -> VenueSession:
        """A session for one connection."""
        return OkxSession(tuple(subscriptions), times, self.limits(endpoint), login=login)

    def close_error(self, code: int, reason: str) -> SessionError | None:
        """What a close code of the venue means."""
        return codes.close_error(code, reason)

    def normalizer(
        self,
        stream: str,
        connection: str,
        catalogue: Catalogue,
        resume: dict[str, int] | None = None,
        *,
        account: str | None = None,
    ) -> Normalizer:
        """A normalizer for one connection; the messages of all streams name their channel."""
        return OkxNormalizer(connection, catalogue, resume, account)

    def book_seed(self, subscription: Subscription) -> BookSeed | None:
        """How a book can be started over REST, should the stream not send its snapshot."""
        return books.book_seed(subscription.channel, subscription.instrument)

    def sequence_rule(self, channel: str) -> SequenceRule | None:
        """How updates of a book channel follow each other; None if each stands alone."""
        return books.sequence_rule(channel)

    def instrument_pages(self, market: str) -> list[RestPage]:
        """The first page of each listing of a market."""
        return instruments.first_pages(market)

    def parse_instruments(
        self, market: str, page: RestPage, body: bytes, receive_time: int
    ) -> tuple[list[Instrument], RestPage | None]:
        """One page's instruments, and the next page if there is one."""
        return instruments.parse_page(market, page, body, Micros(receive_time))

    def read_instruments(self, body: bytes, receive_time: int) -> list[Instrument]:
        """Instruments of any saved REST answer."""
        return instruments.read_answer(body, Micros(receive_time))
