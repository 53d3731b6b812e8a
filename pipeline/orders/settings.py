"""What can be configured about order entry, with the defaults. Off for every account that is not named here."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from pipeline.model.decimals import DecimalText

_PRICE_BAND = DecimalText("0.05")


@attrs.frozen
class AccountOrderSettings:
    """Order entry for one account. What may be ordered has no default: it must be said."""

    instruments: Mapping[str, tuple[str, ...]]
    """By market, the venue's symbols or shell patterns of them that orders may be for."""
    max_order_value: DecimalText
    """Of one order, in the instrument's quote currency (of inverse contracts, in their quote currency too)."""
    price_band: DecimalText = _PRICE_BAND
    """How far a limit price may be from the mark price, as a fraction of that."""
    max_open_orders: int = 100
    """Of the account, over all instruments."""
    command_topic: str | None = None
    """Where commands are read; None: the topic of kind order_command, `.venue.account` appended."""
    max_age: float = 10.0
    """Seconds after `issued_at` at which a command is too old to be sent, whatever its `not_after` allows."""
    rate_wait: float = 0.5
    """Seconds that a command may wait for the venue's rate limit; then it is refused."""
    answer_within: float = 10.0
    """Seconds until a request without an answer counts as unknown and is looked up."""
    not_arrived_after: float = 10.0
    """Seconds after the sending before a venue that knows no such order is believed."""
    price_age: float = 5.0
    """Seconds for which a reference price is good."""
    cancel_on_disconnect: float | None = None
    """Seconds without us after which the venue cancels every order (OKX cancel-all-after, Bybit DCP); None: never."""


@attrs.frozen
class OrderSettings:
    """Order entry: commands from Kafka to the venues."""

    accounts: Mapping[str, Mapping[str, AccountOrderSettings]] = attrs.field(factory=dict)
    """By venue and account; the account's keys and its `order` channel are configured under `venues`."""
    directory: str = "orders"
    """Where the record of what was sent outlives the process; on a disk that survives a restart."""
    kill_file: str | None = None
    """While this file exists, no account takes new orders, and open ones are cancelled."""
    group: str = "exchange-pipeline-orders"
    """Of the consumer groups that read the command topics, one per account: `.venue.account` is appended."""
    remembered: int = 100_000
    """Commands per account whose repetition is recognized wherever it stands in the topic."""
