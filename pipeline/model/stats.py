"""Plain counters that the hot path keeps and metrics and status read."""

from __future__ import annotations

import attrs

from pipeline.model.latency import Latency


@attrs.define(eq=False)
class ConnectionStats:
    """One connection over all its generations."""

    id: str
    venue: str
    group: str
    endpoint: str
    url: str
    state: str = "waiting"
    """waiting, connecting, subscribing, live, lagging (live, and behind the venue), retrying, refused or stopped."""
    generation: int = 0
    since: int = 0
    """When the state was entered, in microseconds."""
    subscriptions: int = 0
    """Wanted topics."""
    subscribed: int = 0
    """Granted topics."""
    refused: dict[str, str] = attrs.field(factory=dict)
    """Reason by topic."""
    messages: int = 0
    bytes: int = 0
    events: int = 0
    dead_letters: int = 0
    requests: int = 0
    """Login, subscribe and unsubscribe requests sent."""
    gaps: int = 0
    resyncs: int = 0
    checksum_failures: int = 0
    stale: int = 0
    """How often a subscription fell silent beyond its bound."""
    reconnects: dict[str, int] = attrs.field(factory=dict)
    """By kind of failure."""
    last_receive: int = 0
    """Microseconds."""
    exchange_lag: int = 0
    """Receive time minus exchange time, the smallest in the last quarter of a second, in microseconds."""
    lag: int = 0
    """The same without what the venue's clock and ours differ by, and 0 when nothing comes: how far behind we are."""
    lags: int = 0
    """How often the connection fell behind the venue by more than the bound."""
    conflated: dict[str, int] = attrs.field(factory=dict)
    """States never published because a later one came while the connection lagged, by kind."""
    last_error: str = ""
    notices: int = 0
    unknown_fields: dict[str, None] = attrs.field(factory=dict)
    """Names of fields that no reference knows, with their family of topics, in the order of their first sight."""
    account: str | None = None
    """Who is logged in."""
    handovers: int = 0
    """How often a replacement took over before the venue closed the connection."""
    seeds: int = 0
    """Order books started over REST."""
    query_failures: int = 0
    """REST requests beside the stream that failed or were refused."""
    reconciles: bool = False
    """Whether the account's state is read here."""
    reconcile_every: float | None = None
    """Seconds from one such reading to the next; None: one after each (re)connect."""
    reconciled: int = 0
    """When the account's state was last read completely, in microseconds; 0 if never."""
    reconciliations: int = 0
    unread: tuple[str, ...] = ()
    """What of an account's state the venue refused to tell in the last reading, with its reasons."""
    repeated_fills: int = 0
    """Fills that came again and were not published twice."""

    @property
    def is_live(self) -> bool:
        """Whether the connection is subscribed, be it with a lag."""
        return self.state in ("live", "lagging")


@attrs.define(eq=False)
class ArchiveStats:
    """The raw archive of one venue."""

    messages: int = 0
    """Handed to the archive."""
    lost: int = 0
    """Messages and notes that did not get into the files."""
    waiting_bytes: int = 0
    """In memory, on their way to the files."""
    written_bytes: int = 0
    """To files, compressed."""
    files: int = 0
    """Begun so far."""
    failure: str = ""
    """Why the last write failed; empty if it did not."""


@attrs.define(eq=False)
class VenueStats:
    """One venue."""

    name: str
    state: str = "starting"
    """starting, running, refused or stopped."""
    instruments: int = 0
    markets: int = 0
    """Whose instruments are needed."""
    markets_read: int = 0
    """Of those, how many have been read so far."""
    catalogue_reads: int = 0
    catalogue_failures: int = 0
    last_error: str = ""
    connect_waiting: int = 0
    """Connections that wait for their turn under the venue's rate of new connections."""
    connect_waited: float = 0.0
    """Seconds spent so, in total."""
    rest_waited: float = 0.0
    """Seconds that REST requests have waited for the venue's rate, in total."""
    clock_offset: int = 0
    """The venue's clock minus ours, in microseconds, as last measured for a login."""
    clock_failures: int = 0
    """How often the venue did not tell its time."""
    state_failures: int = 0
    """How often what an account has shown could not be written to its file."""
    unmatched: tuple[str, ...] = ()
    """Configured patterns that match nothing tradable."""
    connections: dict[str, ConnectionStats] = attrs.field(factory=dict)
    arrivals: dict[str, Latency] = attrs.field(factory=dict)
    """From the exchange's time to receiving, by the two clocks and of a sample of the turns, by kind of event."""
    archive: ArchiveStats | None = None
