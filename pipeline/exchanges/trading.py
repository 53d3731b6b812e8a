"""What a venue knows of order entry: its requests, its answers, its limits, and how an outcome is found out.

Pure as the rest of a venue: who has sockets and clocks hands in bytes and times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs

from pipeline.exchanges.accounts import Login, Requests, Steps
from pipeline.model.account import Order
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Instrument, Micros
from pipeline.model.orders import ErrorClass, OrderItem
from pipeline.model.rate import Rate

if TYPE_CHECKING:
    from pipeline.exchanges.venue import Catalogue, SessionTimes

REQUEST_ID_CHARACTERS = 32


@attrs.frozen
class TradeItem:
    """An item with what the catalogue knows of its instrument; its client order id is filled in where it needs one."""

    item: OrderItem
    instrument: Instrument


@attrs.frozen
class TradeRequest:
    """What goes to the venue in one message."""

    id: str
    """Ours, unique on a connection: letters and digits, at most `REQUEST_ID_CHARACTERS`."""
    action: str
    """create, amend or cancel; or mass_cancel, then without items."""
    items: tuple[TradeItem, ...]
    """All of one market; more than one is a batch."""
    not_after: Micros
    """Told to the venue where it takes it."""
    market: str | None = None
    """Of a mass_cancel."""
    family: str | None = None


@attrs.frozen
class ItemAnswer:
    """What the venue said to one item."""

    accepted: bool | None
    """None: its code leaves open whether it was done."""
    order_id: str | None = None
    code: str = ""
    message: str = ""
    error_class: ErrorClass | None = None
    """Of what was not accepted."""


@attrs.frozen
class ReportedLimit:
    """What the venue told about its own count of our requests."""

    key: str
    """As in `Cost.key`."""
    remaining: int
    reset: Micros
    """When there is more, by the venue's clock."""


@attrs.frozen
class Answer:
    """The answer to one request, its items in the request's order."""

    request_id: str
    items: tuple[ItemAnswer, ...]
    """As many as the request had; of a mass_cancel one."""
    in_time: Micros | None = None
    out_time: Micros | None = None
    limits: tuple[ReportedLimit, ...] = ()


@attrs.frozen
class Cost:
    """What a request takes of one of the venue's budgets."""

    key: str
    """Names the budget: an operation, with the instrument or family where the venue counts by it."""
    rate: Rate
    units: int = 1


class TradeSession(Protocol):
    """One connection for order entry: login, heartbeats, requests and answers. Never reused.

    Times are seconds of the run's monotonic clock. Methods raise `Retryable`, `Refused` or `LoginFailed` as a
    `VenueSession` does.
    """

    @property
    def ready(self) -> bool:
        """Whether the login was granted and no end has been announced: requests are welcome."""

    @property
    def ends_soon(self) -> bool:
        """Whether the venue will close it, or wants new requests elsewhere (Bybit 10019): open another one."""

    def start(self, now: float) -> None:
        """The connection is open: log in."""

    def submit(self, request: TradeRequest, now: float) -> None:
        """Queue a request; `data_to_send` hands out its text."""

    def receive(self, message: bytes, now: float) -> list[Answer]:
        """Take one message. Never raises for odd content: it becomes a notice."""

    def next_deadline(self) -> float:
        """When to call `on_deadline`; `inf` for never."""

    def on_deadline(self, now: float) -> None:
        """Ping, give up on a missing pong or login."""

    def data_to_send(self) -> list[str]:
        """Text messages to send now, each handed out once."""

    def notices(self) -> list[str]:
        """What the venue announced, and messages of no known form, each once."""


OrderFinder = Callable[[TradeItem], Steps[Order | None]]
"""Makes the steps that read an order by its client order id, or else by the venue's; None: the venue knows none such.

It looks among the closed ones too."""


class Trading(Protocol):
    """A venue's order entry, without state and I/O."""

    endpoint: str
    """Name of the WebSocket endpoint, for `Venue.path`."""
    environments: Sequence[str]
    """Where it is offered; in others a configuration that asks for it is refused."""

    def problems(self, action: str, item: TradeItem) -> list[tuple[str, str]]:
        """Why the venue could not even be asked, as (field, why): an odd client order id, an unknown extra."""

    def batch(self, action: str, market: str) -> int:
        """Most items of one request; 0 where the venue has no such action."""

    def costs(self, request: TradeRequest) -> list[Cost]:
        """What a request takes of the venue's budgets."""

    def session(self, times: SessionTimes, login: Login) -> TradeSession:
        """A session for one connection."""

    def finder(self, account: str, connection: str, catalogue: Catalogue) -> OrderFinder:
        """Looks up single orders over signed REST."""

    def reference_price(self, instrument: Instrument) -> Steps[DecimalText | None]:
        """Reads the mark price, where there is none the last one; unsigned. None: the venue tells none now."""

    def arm(self, seconds: float | None, markets: Sequence[str]) -> Requests[None]:
        """Has the venue cancel the orders of these markets, or more, when we are gone for so long. Signed.

        None takes that back where the venue lets it be.
        """

    def arm_every(self, seconds: float) -> float:
        """How often `arm` has to be repeated; `inf`: once."""

    def arm_problems(self, seconds: float, channels: Sequence[str], markets: Sequence[str]) -> list[str]:
        """What speaks against it for these markets: seconds out of bounds, or a private channel that is not there.

        `channels` are the topics of the account's subscriptions (`Subscription.topic`).
        """


def extra_parameters(extras: Mapping[str, str], types: Mapping[str, type]) -> dict[str, str | int | bool]:
    """Extras in the types that the venue wants. Raises `ValueError` naming what is unknown or cannot be one."""
    found: dict[str, str | int | bool] = {}
    for name, text in extras.items():
        kind = types.get(name)
        if kind is None:
            raise ValueError(f"extras.{name}: not a parameter of the venue; known are {', '.join(sorted(types))}")
        if kind is bool:
            if text not in ("true", "false"):
                raise ValueError(f'extras.{name}: {text!r} is neither "true" nor "false"')
            found[name] = text == "true"
        elif kind is int:
            if not (text.isascii() and text.removeprefix("-").isdecimal()):
                raise ValueError(f"extras.{name}: {text!r} is not an integer")
            found[name] = int(text)
        else:
            found[name] = text
    return found
