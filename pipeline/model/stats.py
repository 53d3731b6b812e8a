"""Plain counters that the hot path keeps and metrics and status read."""

from __future__ import annotations

import attrs


@attrs.define(eq=False)
class ConnectionStats:
    """One connection over all its generations."""

    id: str
    venue: str
    group: str
    endpoint: str
    url: str
    state: str = "waiting"
    """waiting, connecting, subscribing, live, retrying, refused or stopped."""
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
    """Receive time minus exchange time of the last trade or book update, in microseconds."""
    last_error: str = ""
    notices: int = 0


@attrs.define(eq=False)
class VenueStats:
    """One venue."""

    name: str
    state: str = "starting"
    """starting, running, refused or stopped."""
    instruments: int = 0
    catalogue_reads: int = 0
    catalogue_failures: int = 0
    last_error: str = ""
    connect_waiting: int = 0
    """Connections that wait for their turn under the venue's rate of new connections."""
    connect_waited: float = 0.0
    """Seconds spent so, in total."""
    rest_waited: float = 0.0
    """Seconds that REST requests have waited for the venue's rate, in total."""
    unmatched: tuple[str, ...] = ()
    """Configured patterns that match nothing tradable."""
    connections: dict[str, ConnectionStats] = attrs.field(factory=dict)
