"""Bybit's accounts: which channels they have, how requests are signed, and whether a key is good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.exchanges.accounts import AccountSpec, Credentials, Steps
from pipeline.exchanges.bybit import account_channels
from pipeline.exchanges.bybit.account_reader import BybitAccountReader
from pipeline.exchanges.bybit.accounts import VENUE
from pipeline.exchanges.bybit.answers import read_answer
from pipeline.exchanges.bybit.signing import signature
from pipeline.exchanges.venue import Catalogue, Subscription
from pipeline.model.errors import BadMessage
from pipeline.model.events import Micros

RECEIVE_WINDOW = 5_000
"""Milliseconds for which a signed request is good."""
_ACCOUNT = "/v5/account/info"


class BybitAccounts:
    """The `Accounts` of Bybit; stateless."""

    channels: Sequence[str] = tuple(account_channels.CHANNELS)
    needs_passphrase: bool = False
    time_path: str = "/v5/market/time"

    def read_time(self, body: bytes) -> Micros:
        """The server's time. Raises `BadMessage`, `Retryable` or `Refused`."""
        answer = read_answer(self.time_path, body)
        nanoseconds = answer.result.get("timeNano")
        try:
            return Micros(int(nanoseconds) // 1000 if nanoseconds else answer.time * 1000)
        except (TypeError, ValueError) as error:
            raise BadMessage(f"{VENUE} {self.time_path}: timeNano: {error}") from error

    def problems(self, spec: AccountSpec) -> list[tuple[str, str]]:
        """What is wrong with a wanted channel, as (field, why)."""
        return account_channels.problems(spec)

    def catalogue_markets(self, spec: AccountSpec) -> Sequence[str]:
        """Markets whose instruments are in the channel's events."""
        return account_channels.catalogue_markets(spec)

    def subscriptions(self, spec: AccountSpec) -> list[Subscription]:
        """The one topic of a channel: of all markets together, or of the one that was named."""
        return [account_channels.subscription(spec)]

    def sign(self, credentials: Credentials, path: str, time: Micros, body: bytes | None = None) -> Mapping[str, str]:
        """The headers of a signed GET, with a body of a POST. Raises `Refused` for a secret that cannot sign."""
        milliseconds, payload = time // 1000, path.partition("?")[2] if body is None else body.decode()
        text = f"{milliseconds}{credentials.api_key}{RECEIVE_WINDOW}{payload}"
        return {
            "X-BAPI-API-KEY": credentials.api_key,
            "X-BAPI-TIMESTAMP": str(milliseconds),
            "X-BAPI-RECV-WINDOW": str(RECEIVE_WINDOW),
            "X-BAPI-SIGN": signature(credentials.api_secret, text),
        }

    def verify(self) -> Steps[None]:
        """Asks what every key may ask. Raises `Refused` for a key that is not good, `Retryable` where that is open."""
        read_answer(_ACCOUNT, (yield _ACCOUNT))

    def reader(self, account: str, connection: str, catalogue: Catalogue) -> BybitAccountReader:
        """A reader for one connection."""
        return BybitAccountReader(account, connection, catalogue)
