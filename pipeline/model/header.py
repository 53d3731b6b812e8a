"""What all events share: the head that says where they come from, and their times."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NewType

import attrs
import msgspec

if TYPE_CHECKING:
    Micros = NewType("Micros", int)
    """Microseconds since 1970-01-01 UTC."""
else:  # calling a NewType takes four times as long, several times per message
    Micros = int

BASE, QUOTE, CONTRACT = "base", "quote", "contract"
"""Units of a size: the base currency, the quote currency, or contracts of `Instrument.contract_value` each."""


@attrs.define(eq=False)
class Origin:
    """Where events come from: the head that all events of one instrument on one connection share.

    One object per (connection generation, instrument), so that the encoder can prepare these fields once.
    """

    venue: str
    market: str
    instrument: str | None
    """The venue's own symbol: "BTCUSDT", "BTC-USDT-SWAP"; None for what concerns no single instrument."""
    symbol: str | None
    """The cross-venue name, e.g. "BTC-USDT-PERP"; None while the catalogue does not know the instrument."""
    account: str | None
    connection: str
    """Connection identifier and generation: "bybit.linear.0#3"."""
    key: bytes = attrs.field(init=False)
    """The Kafka record key: `venue.market.instrument`, or `venue.account.instrument` for private events."""
    prefix: str = attrs.field(init=False, default="")
    """The encoded head; a cache that belongs to the encoder."""

    def __attrs_post_init__(self) -> None:
        parts = (self.venue, self.account or self.market, self.instrument)
        self.key = ".".join(part for part in parts if part).encode()


class Event(msgspec.Struct, gc=False):
    """What every event carries. `IDENTITY` names the fields that tell a repeated record from a new one."""

    KIND: ClassVar[str] = ""
    IDENTITY: ClassVar[tuple[str, ...]] = ()

    origin: Origin
    exchange_time: Micros | None
    """When it happened: the matching engine's time where given, else when the venue sent it."""
    receive_time: Micros
    """When the bytes were read from the socket."""
    sequence: int | None
    """The venue's own sequence number of the message, if it has one."""
