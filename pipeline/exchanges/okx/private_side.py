"""OKX's accounts: which channels they have, how requests are signed, and whether a key is good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.exchanges.accounts import AccountSpec, Credentials, Steps
from pipeline.exchanges.okx import answers, private_channels
from pipeline.exchanges.okx.account_reader import TIME_PATH, OkxAccountReader, read_time
from pipeline.exchanges.okx.signing import signed_headers
from pipeline.exchanges.okx.streams import VENUE
from pipeline.exchanges.venue import Catalogue, Subscription
from pipeline.model.errors import BadMessage
from pipeline.model.events import Micros

_CONFIG = "/api/v5/account/config"


class OkxAccounts:
    """The `Accounts` of OKX; stateless."""

    channels: Sequence[str] = tuple(private_channels.OURS)
    needs_passphrase: bool = True
    time_path: str = TIME_PATH

    def read_time(self, body: bytes) -> Micros:
        """The server's time. Raises `BadMessage`, `Retryable` or `Refused`."""
        return read_time(body)

    def problems(self, spec: AccountSpec) -> list[tuple[str, str]]:
        """What is wrong with a wanted channel, as (field, why)."""
        return private_channels.problems(spec)

    def catalogue_markets(self, spec: AccountSpec) -> Sequence[str]:
        """Markets whose instruments are in the channel's events."""
        return private_channels.catalogue_markets(spec)

    def subscriptions(self, spec: AccountSpec) -> list[Subscription]:
        """The topics of a channel: one for all markets where there is such, else one per market."""
        return private_channels.subscriptions(spec)

    def sign(self, credentials: Credentials, path: str, time: Micros, body: bytes | None = None) -> Mapping[str, str]:
        """The headers of a signed GET, with a body of a POST. Raises `Refused` for keys that no header can carry."""
        return signed_headers(credentials, path, time, body)

    def verify(self) -> Steps[None]:
        """Asks for the account's configuration, which every key may read.

        Raises `Refused` for a key that is not good, `Retryable` for a wrong clock and where OKX has no answer.
        """
        what = f"{VENUE} {_CONFIG}"
        if not answers.rows((yield _CONFIG), what, dict[str, Any]):
            raise BadMessage(f"{what}: no account in the answer")

    def reader(self, account: str, connection: str, catalogue: Catalogue) -> OkxAccountReader:
        """A reader for one connection."""
        return OkxAccountReader(account, connection, catalogue)
