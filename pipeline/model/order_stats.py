"""Plain counters of order entry that the gateway keeps and metrics and status read."""

from __future__ import annotations

import attrs

from pipeline.model.latency import Latency

SENT_BOUNDS_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SYNC_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


@attrs.define(eq=False)
class OrderStats:
    """Order entry for one account."""

    venue: str
    account: str
    state: str = "starting"
    """starting, joining (waits for the command topic), owner, retrying, refused or stopped."""
    connection: str = "waiting"
    """Of the connection for orders: waiting, connecting, live, retrying or refused."""
    generation: int = 0
    """Connections opened or tried."""
    reconnects: dict[str, int] = attrs.field(factory=dict)
    """By kind of failure."""
    last_error: str = ""
    """The newest reason for which commands wait."""
    held_up: str = ""
    """Why commands that were read cannot be decoded yet; empty if they can."""
    commands: dict[str, int] = attrs.field(factory=dict)
    """By action, of those that were new."""
    results: dict[str, int] = attrs.field(factory=dict)
    """By state."""
    refusals: dict[str, int] = attrs.field(factory=dict)
    """By rule, of our own."""
    replayed: int = 0
    """Records read once more that were dealt with before."""
    repeated: int = 0
    """Records under the identifier of an earlier command."""
    waiting: int = 0
    """Commands in memory that are not sent yet."""
    pending: int = 0
    """Requests on their way."""
    unknown: int = 0
    """Items whose outcome the venue has not told yet."""
    oldest_unknown: int = 0
    """Since when the oldest of them is so, in microseconds; 0 if there is none."""
    unsettled: int = 0
    """Items whose final result Kafka has not acknowledged."""
    is_killed: bool = False
    """Whether the kill switch is on."""
    swept: int = 0
    """Orders cancelled by it, or by cancel_all."""
    open_orders: int = 0
    result_failures: int = 0
    """Results that Kafka refused at first."""
    price_failures: int = 0
    """Reference prices that could not be read."""
    look_up_failures: int = 0
    """Questions about orders that the venue did not answer."""
    arm_failures: int = 0
    """How often the venue was not told to cancel when we are gone."""
    losses: int = 0
    """How often the command topic went to somebody else."""
    until_sent: Latency = attrs.field(factory=lambda: Latency(SENT_BOUNDS_S))
    """From taking a command from Kafka to its bytes on the wire."""
    sync: Latency = attrs.field(factory=lambda: Latency(SYNC_BOUNDS_S))
    """Waits for the ledger's disk."""

    @property
    def is_able(self) -> bool:
        """Whether a command would be sent now."""
        return self.state == "owner" and self.connection == "live" and not self.held_up
