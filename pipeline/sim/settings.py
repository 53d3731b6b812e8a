"""What can be set on a simulated exchange. Times are seconds."""

from __future__ import annotations

from decimal import Decimal
from math import inf

import attrs

from pipeline.model.rate import Rate
from pipeline.sim.listing import Listing


@attrs.frozen
class MarketSettings:
    """The generated market."""

    seed: int = 1
    rate: float = 10.0
    """Market steps per second and instrument; a step brings about one message per subscribed book. `inf`: flat out."""
    instruments: tuple[Listing, ...] | None = None
    """None: the venue's default listings."""
    levels: int = 300
    """Price levels per side that a book is kept at."""


@attrs.frozen
class Account:
    """An account with the one key that opens it."""

    key: str
    secret: str = attrs.field(repr=False)
    """Unused with a public key."""
    passphrase: str = attrs.field(default="", repr=False)
    """OKX only."""
    name: str = ""
    """What the control interface calls it; by default as its key."""
    public_key: str | None = None
    """PEM: signatures are RSA's instead of an HMAC (Bybit only)."""
    permissions: frozenset[str] | None = None
    """Groups of REST paths that the key may read ("order", "position", …); None: all."""
    maker_fee: Decimal = Decimal("0.0002")
    """Fraction of the traded value; negative: a rebate."""
    taker_fee: Decimal = Decimal("0.00055")
    vip: bool = False
    """Of the fee tier that OKX's gated channels need."""
    demo: bool = False
    """Made in OKX's demo environment: its REST requests must say so, those of the others must not."""
    may_trade: bool = True
    """Whether the key may enter orders."""


@attrs.frozen
class Limits:
    """What the venue allows a client; each venue's module has its defaults."""

    connects: Rate
    """New WebSocket connections; beyond it the upgrade is refused."""
    idle: float
    """A connection without traffic for this long is closed."""
    idle_tick: float
    """How often idleness is looked for: a cut may come this much late."""
    rest: Rate
    """REST requests."""
    requests: Rate | None = None
    """Subscribe, unsubscribe and login requests per connection."""
    request_bytes: int = 65_536
    """A longer message closes the connection with 1009."""
    refused_status: int = 429
    """HTTP status of an upgrade beyond `connects`."""
    login_age: float = 30.0
    """How old a login's timestamp may be (OKX)."""
    channel_connections: int = 30
    """Connections per account that may have the same private channel (OKX)."""
    page_rows: int = 20
    """Rows on one page of a private snapshot (OKX)."""
    trade_sessions: int = 20
    """Order-entry connections per account (Bybit, which has not published its number)."""
    order_factor: int = 1
    """Multiple of the venue's published order rates, as accounts of a higher tier have it."""
    outbox_bytes: int = 16 * 1024**2
    """Unsent data at which a slow consumer is cut off."""
    frames_per_send: int | None = None
    """Most WebSocket frames per write to the socket, which is one record with TLS.

    None: 1 with TLS, as the venues do it; 64 without, where bytes are bytes and a replay is several times faster.
    """


@attrs.frozen
class ReplaySettings:
    """Recorded messages instead of a generated market."""

    files: tuple[str, ...]
    """JSON lines of wire messages; several files are played one after the other."""
    speed: float = 1.0
    """Multiple of the recorded pace; `inf`: flat out."""
    rate: float | None = None
    """Messages per second instead of the recorded pace."""
    loop: bool = False
    wait_for: int = 1
    """Subscriptions to recorded topics that must exist before the first message is sent."""

    def __attrs_post_init__(self) -> None:
        if not self.files:
            raise ValueError("a replay needs at least one file")
        if not self.speed > 0 or (self.rate is not None and not 0 < self.rate <= inf):
            raise ValueError("speed and rate must be above zero")
