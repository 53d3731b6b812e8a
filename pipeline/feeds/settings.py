"""What can be configured about venues and their feeds, with the defaults. Times are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import attrs

from pipeline.model.secret import Secret


@attrs.frozen
class BookSettings:
    """What is made from order books beyond passing their updates on.

    Books are kept in memory only where one of these asks for it (or the venue sends checksums).
    """

    derive_bbo: bool = False
    """Publish best bid and offer from the book, on change."""
    snapshot_interval: float | None = 60.0
    """Publish the whole book this often, marked periodic, for consumers that join late; None: never."""
    top_levels: int | None = None
    """Publish the best levels per side as `book_top`; None: not at all."""
    top_interval: float = 1.0
    """Seconds between `book_top` events of one book."""
    seed_after: float | None = None
    """Read the first snapshot over REST if the stream did not send it within so many seconds (OKX); None: wait.

    A book that only starts over REST (Bybit depth "full") is read at once, whatever is set here.
    """


@attrs.frozen
class ArchiveFileSettings:
    """Compressed files of a venue's messages; one is written at a time, and begins with all that reading it takes."""

    directory: str
    """Shared by venues and processes: the files' names tell the venue and the time."""
    rotate_bytes: int = 256 * 1024**2
    """Compressed size beyond which the next file is begun."""
    rotate_every: float = 3600.0
    """Seconds after which the next file is begun, whatever the size."""
    keep: float | None = None
    """Seconds after its last change that a file is deleted; None: never."""
    max_bytes: int | None = None
    """Of all the venue's files; beyond it the oldest ones are deleted. None: no bound."""
    flush_interval: float = 1.0
    """Seconds between writes; what was not written is lost when the process is killed."""
    buffer_bytes: int = 64 * 1024**2
    """Bound of what waits in memory for the disk; what does not fit is lost to the archive, and announced."""


@attrs.frozen
class ArchiveSettings:
    """Every message of a venue as it came, with its receive time; `python -m pipeline replay` makes events of it."""

    topic: bool = False
    """Into Kafka, as `wire_message` records."""
    files: ArchiveFileSettings | None = None


@attrs.frozen
class ChannelSettings:
    """One entry of `channels`."""

    market: str
    """The venue's market segment: spot, linear, swap, …"""
    channel: tuple[str, ...]
    """One name or a list of them."""
    instruments: tuple[str, ...] = ("*",)
    """The venue's symbols, or shell patterns of them."""
    depth: int | str | None = None
    """Books: levels per side, or the venue's name of a depth; None: the venue's default."""
    interval: tuple[str, ...] = ()
    """Candles: one interval or a list of them."""
    price_type: str = "trade"
    """Candles: of trade, mark or index prices."""
    variant: str | None = None
    """Another of the venue's topics for the same channel, by its name; None: the usual one."""
    max_silence: float | None = None
    """Seconds without data until a subscription counts as stale; None: the venue's default of the channel."""
    book: BookSettings = attrs.field(factory=BookSettings)
    connections: str = "own"
    """"own": connections of its own; any other name: shared with the channels of that name."""
    account: str | None = None
    """Log in with this account of the venue: for market data that only some accounts get (OKX depth 50 and "tbt")."""
    archive: bool | None = None
    """Whether to archive its messages, and with them all of its connections; None: if the venue has an archive."""
    overload: Literal["queue", "conflate"] = "queue"
    """While the connection lags: "queue" publishes everything, however late; "conflate" only the latest state of each
    instrument, of tickers, BBOs and book tops (the latter two also where they are derived from a book)."""


@attrs.frozen
class AccountChannelSettings:
    """One entry of an account's `channels`; a bare text is taken for its `channel`."""

    SHORTHAND: ClassVar[str] = "channel"

    channel: tuple[str, ...]
    """Our names (order, fill, position, balance, account_greeks, …) or the venue's own names of private channels."""
    market: str | None = None
    """Only this market; None: all."""
    params: Mapping[str, str] = attrs.field(factory=dict)
    """The venue's own parameters of the subscription, by its names."""


@attrs.frozen
class ReconcileSettings:
    """Reading an account's state over REST, which completes streams that send changes only."""

    enabled: bool = True
    """False: publish the stream alone; what happened while disconnected is then missing."""
    every: float | None = 3600.0
    """Seconds between readings while connected; None: after each (re)connect only."""
    lookback: float = 86_400.0
    """How far back fills are read at a start of the process; later they are read from where the last reading began."""
    overlap: float = 60.0
    """Queries lag behind the venue: fills are read again from so many seconds before that, and the first reading on a
    connection is repeated after so long."""
    remembered_fills: int = 100_000
    """Identities kept per account, to publish each fill once."""


@attrs.frozen
class AccountSettings:
    """One account of a venue; its name is part of its events and their keys."""

    api_key: Secret
    """The key's public half, as the venue shows it."""
    api_secret: Secret
    """The secret, or where the venue takes them an RSA private key (PEM)."""
    passphrase: Secret | None = None
    """OKX only."""
    channels: tuple[AccountChannelSettings, ...] = ()
    """What to subscribe to, by channel; an account without any can still log in for market data."""
    reconcile: ReconcileSettings = attrs.field(factory=ReconcileSettings)
    archive: bool = False
    """Whether to archive its messages, which tell all about it to whoever may read the archive."""


@attrs.frozen
class UrlSettings:
    """Hosts instead of an environment's: a proxy, a gateway or a simulated exchange."""

    websocket: str | None = None
    """Base such as wss://host:port; the venue's path is appended."""
    rest: str | None = None
    """Base such as https://host:port."""
    private_websocket: str | None = None
    """For connections with a login; None: as `websocket`."""
    private_rest: str | None = None
    """For signed requests; None: as `rest`."""
    ca_file: str | None = None
    """A PEM file of certificate authorities to trust for these hosts instead of the system's."""


@attrs.frozen
class HeartbeatSettings:
    """Overrides of the venue's own habits; None: the venue's default."""

    ping_every: float | None = None
    """Seconds between pings."""
    pong_within: float | None = None
    """Seconds until an unanswered ping ends the connection."""
    max_active_time: float | None = None
    """Bybit private and trade connections: idle time after which the venue closes, 30 to 600."""


@attrs.frozen
class TimeoutSettings:
    """Bounds of a connection's life."""

    connect: float = 10.0
    """Name resolution, TCP, TLS."""
    handshake: float = 10.0
    """The WebSocket upgrade."""
    acknowledge: float = 10.0
    """Each subscribe request."""
    ready: float = 60.0
    """From the open WebSocket until every subscription is answered."""
    first_data: float = 30.0
    """From a granted order-book subscription to its first snapshot; then it is subscribed anew."""
    handover: float = 20.0
    """From an announced end of a connection until its replacement takes over, ready or not."""
    send: float = 10.0
    """Writing one message to the socket."""
    close: float = 5.0
    """The closing handshake; then the socket is closed without."""
    rest: float = 15.0
    """Each REST request."""


@attrs.frozen
class ReconnectSettings:
    """Back-off of a connection: exponential with full jitter, reset only after real data has flowed."""

    first: float = 0.5
    """Upper end of the first delay, in seconds; the delay is drawn below it."""
    max: float = 60.0
    """Seconds that no delay exceeds."""
    factor: float = 2.0
    """By how much the upper end grows with each failure."""
    max_bugs: int = 5
    """This many unexpected errors within `bug_window` end the process."""
    bug_window: float = 600.0
    """Seconds in which `max_bugs` counts."""


@attrs.frozen
class OverloadSettings:
    """What one connection may take of the process, and when it counts as behind the venue."""

    messages_per_turn: int = 256
    """Most messages of one connection until timers, HTTP and the other connections have their turn."""
    lag: float = 2.0
    """Seconds behind the venue at which `feed_status` tells "lagging"; "caught_up" follows at half of that."""
    interval: float = 0.1
    """While a connection lags: seconds between the states of one instrument, in channels with `overload: conflate`."""


@attrs.frozen
class VenueSettings:
    """One venue."""

    environment: str | None = None
    """None: the venue's production environment."""
    channels: tuple[ChannelSettings, ...] = ()
    """The market data to subscribe to."""
    accounts: Mapping[str, AccountSettings] = attrs.field(factory=dict)
    """By the name that their events shall have."""
    urls: UrlSettings = attrs.field(factory=UrlSettings)
    heartbeat: HeartbeatSettings = attrs.field(factory=HeartbeatSettings)
    timeouts: TimeoutSettings = attrs.field(factory=TimeoutSettings)
    reconnect: ReconnectSettings = attrs.field(factory=ReconnectSettings)
    refresh_instruments: float = 300.0
    """Seconds between readings of the instrument catalogue."""
    publish_instruments: bool = True
    """Publish the catalogue's entries as `instrument` events when they are new or changed."""
    max_message_bytes: int = 16 * 1024**2
    """A longer message ends its connection."""
    compression: bool = False
    """Accept compressed messages (permessage-deflate): a quarter of the traffic for about 2 µs more per message."""
    max_topics_per_connection: int | None = None
    """A bound below the venue's own, to spread load over connections."""
    silent_reconnects: bool = True
    """Reconnect when a stale subscription stays silent after it was subscribed anew."""
    overload: OverloadSettings = attrs.field(factory=OverloadSettings)
    archive: ArchiveSettings | None = None
    """None: nothing is archived."""
