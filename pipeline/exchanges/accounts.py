"""What a venue knows of accounts: credentials, signatures, private channels, and reading an account's state over REST.

Pure as the rest of a venue: who has sockets and clocks hands in bytes and times.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import attrs

from pipeline.model.account import Order
from pipeline.model.events import Event, Micros

if TYPE_CHECKING:
    from pipeline.exchanges.venue import Catalogue, Subscription

T = TypeVar("T")

WHOLE_ACCOUNT = "account"
"""The market of subscriptions and events that concern an account as a whole."""

Steps = Generator[str, bytes, T]
"""Something that takes several REST answers: yields a path with its query to GET, is sent the body, returns the result.

Raises `BadMessage` for a body of another form, `Retryable` or `Refused` for the venue's error answers.
"""


@attrs.frozen
class Post:
    """A POST that may be made more than once."""

    path: str
    body: bytes
    """JSON, as it is signed and sent."""


Requests = Generator[str | Post, bytes, T]
"""As `Steps`, of requests that change something too."""


@attrs.frozen
class Credentials:
    """What proves an account's owner."""

    api_key: str = attrs.field(repr=False)
    api_secret: str = attrs.field(repr=False)
    """A shared secret, or an RSA private key as PEM text where the venue takes one."""
    passphrase: str = attrs.field(default="", repr=False)


@attrs.frozen
class Login:
    """What a session needs to log in."""

    credentials: Credentials
    epoch: float
    """The venue's wall-clock time, in seconds since 1970, is this plus the session's `now`."""

    def micros(self, now: float) -> Micros:
        """The venue's time at `now`."""
        return Micros(round((self.epoch + now) * 1e6))


@attrs.frozen
class AccountSpec:
    """One wanted channel of an account: an entry of its `channels` in the configuration."""

    channel: str
    """Our name of it (order, fill, position, balance, account_greeks, …), or the venue's own channel or topic."""
    market: str | None = None
    """Only what concerns this market; None: everything."""
    params: Mapping[str, str] = attrs.field(factory=dict)
    """The venue's own parameters of the subscription, by its names (OKX `updateInterval`, `ccy`)."""


class AccountReader(Protocol):
    """Reads one account's state over REST, for one connection.

    Every event it returns has `is_snapshot` set. It has no clock: whoever publishes the events sets `receive_time`.
    """

    def snapshot(self, subscription: Subscription) -> Callable[[], Steps[list[Event]]] | None:
        """Makes the steps that read the whole present state behind a subscription: open orders, positions, balances.

        None where the venue sends that state itself, or where there is none to read (fills).
        """

    def fills(self, subscription: Subscription, since: Micros) -> Callable[[], Steps[list[Event]]] | None:
        """Makes the steps that read the fills since a venue time, oldest first; None if the channel brings no fills."""

    def order(self, lost: Order) -> Callable[[], Steps[list[Event]]] | None:
        """Makes the steps that read what became of an order that is open no longer; None if that cannot be asked."""


class Accounts(Protocol):
    """A venue's private side, without state and I/O."""

    @property
    def channels(self) -> Sequence[str]:
        """Our names of private channels; the venue's own names are taken as well, see `problems`."""

    @property
    def needs_passphrase(self) -> bool:
        """Whether credentials have a third part."""

    @property
    def time_path(self) -> str:
        """The GET that tells the server's time."""

    def read_time(self, body: bytes) -> Micros:
        """The server's time. Raises `BadMessage`, `Retryable` or `Refused`."""

    def problems(self, spec: AccountSpec) -> list[tuple[str, str]]:
        """What is wrong with a wanted channel, as (field, why); nothing else is called with a faulty one."""

    def catalogue_markets(self, spec: AccountSpec) -> Sequence[str]:
        """Markets whose instruments must be known for symbols and contract values of the channel's events."""

    def subscriptions(self, spec: AccountSpec) -> list[Subscription]:
        """The topics that bring this channel. `kind` is our name of the channel."""

    def sign(self, credentials: Credentials, path: str, time: Micros, body: bytes | None = None) -> Mapping[str, str]:
        """The headers of a signed GET, with a body of a POST; `path` has its query as sent, `time` is the venue's.

        Raises `Refused` for a secret that cannot sign.
        """

    def verify(self) -> Steps[None]:
        """One signed request whose answer tells whether the key is good: returns, or raises `Refused`."""

    def reader(self, account: str, connection: str, catalogue: Catalogue) -> AccountReader:
        """A reader for one connection."""
