"""What can be set on a simulated exchange. Times are seconds."""

from __future__ import annotations

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
    """Credentials that a login may use."""

    key: str
    secret: str = attrs.field(repr=False)
    passphrase: str = attrs.field(default="", repr=False)


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
