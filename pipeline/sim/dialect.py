"""What makes a simulated exchange speak like a particular venue."""

from __future__ import annotations

from typing import Any, Protocol

from pipeline.sim.accounts import SimulatedAccount
from pipeline.sim.generator import Stream
from pipeline.sim.http import Request, Response
from pipeline.sim.listing import Listing
from pipeline.sim.tally import Tally
from pipeline.sim.wire import Connection


class Dialect(Protocol):
    """One venue's protocol over the floor that it was made for. Nothing here waits; the floor has the clock."""

    name: str
    order_endpoint: str
    """The WebSocket endpoint that takes orders."""

    @property
    def tally(self) -> Tally:
        """The orders that it was asked for."""

    def endpoint(self, path: str) -> str | None:
        """Name of the WebSocket endpoint at a URL path, None if there is none."""

    def idle(self, request: Request) -> float:
        """Seconds without traffic after which a connection that is opened by this request is closed.

        Raises `ValueError` for a request that the venue refuses.
        """

    def connection_id(self, index: int, endpoint: str) -> str:
        """What the venue calls its `index`-th connection."""

    def receive(self, connection: Connection, text: str) -> None:
        """A client's message."""

    def cut_idle(self, connection: Connection) -> None:
        """Close a connection that was idle for too long."""

    def cut_revoked(self, connection: Connection) -> None:
        """Close a connection whose API key is no longer good."""

    def cut_slow(self, connection: Connection) -> None:
        """Close a connection whose client does not keep up."""

    def give_notice(self, connection: Connection) -> bool:
        """Announce the end of the connection; False if the venue makes no announcements."""

    def end_order_entry(self, connection: Connection) -> None:
        """Tell, in the venue's way, that an order-entry connection will be closed soon."""

    def stream(self, topic: str) -> Stream | None:
        """A new stream for a topic key; None if the topic or its instrument does not exist."""

    def recorded_topic(self, message: dict[str, Any]) -> str | None:
        """Name (a key without endpoint) of the topic that a recorded message belongs to; None for what is no data."""

    def recorded_ms(self, message: dict[str, Any]) -> int | None:
        """When a recorded data message was sent, in milliseconds."""

    def is_snapshot(self, message: dict[str, Any]) -> bool | None:
        """Whether a recorded message starts its topic anew (True) or continues it (False); None if it stands alone."""

    def rest(self, request: Request) -> Response | None:
        """The answer of the REST interface; None for an unknown path."""

    def rest_bucket(self, request: Request) -> str:
        """Which requests share a rate limit with this one."""

    def rest_refusal(self) -> Response:
        """The answer to a request beyond the rate limit."""

    def relisted(self, listing: Listing, *, listed: bool) -> None:
        """An instrument was listed or delisted: tell those who subscribed to such news."""

    def push(self, body: dict[str, Any]) -> int:
        """Send public data that nothing here generates to its subscribers; how many got it.

        Raises `ValueError` naming the field.
        """

    def push_private(self, account: SimulatedAccount, body: dict[str, Any]) -> int:
        """As `push`, for an account's own channels."""
