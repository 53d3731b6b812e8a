"""Order entry: what is asked for, and what became of it.

A command has up to `MAX_ITEMS` items; more than one go to the venue as its batch, each with an outcome of its own.
Every item of a command ends in exactly one final result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from pipeline.model.decimals import DecimalText
from pipeline.model.header import Event, Micros

CREATE, AMEND, CANCEL = "create", "amend", "cancel"
CANCEL_ALL, MASS_CANCEL = "cancel_all", "mass_cancel"
KILL, RESUME = "kill", "resume"
ACTIONS = (CREATE, AMEND, CANCEL, CANCEL_ALL, MASS_CANCEL, KILL, RESUME)
ITEM_ACTIONS = frozenset({CREATE, AMEND, CANCEL})
"""Those that name orders; the others concern an account, or a part of it."""

MAX_ITEMS = 20
"""Of one command: what both venues take in one batch."""

ErrorClass = Literal["retryable", "rate_limited", "permanent"]
"""Whether the same order may be asked for again: at once, later, or never in this form."""

State = Literal["accepted", "sent", "unknown", "acknowledged", "rejected", "expired"]
FINAL: frozenset[State] = frozenset({"acknowledged", "rejected", "expired"})
"""What an item ends in. acknowledged: the venue has taken it, which is not execution."""


@attrs.frozen
class OrderItem:
    """One order of a command, in no venue's words; what a command does not need is None."""

    market: str
    instrument: str
    """The venue's own symbol."""
    client_order_id: str | None = None
    """Create: None has it derived from the command (`orders.identity`). Amend, cancel: of the order that is meant."""
    order_id: str | None = None
    """The venue's; amend and cancel may give it instead."""
    side: str | None = None
    """"buy" or "sell"."""
    order_type: str | None = None
    """"limit" or "market"."""
    time_in_force: str | None = None
    """"gtc", "ioc" or "fok"; None: gtc, of market orders what the venue does."""
    price: DecimalText | None = None
    """Of limit orders; of an amendment the new one."""
    size: DecimalText | None = None
    """Of an amendment the new whole size, what is filled included."""
    size_unit: str | None = None
    """"base", "quote" or "contract"; None: the instrument's own unit. quote is for spot market orders only."""
    is_post_only: bool = False
    is_reduce_only: bool = False
    position_side: str | None = None
    """"long" or "short" in hedge mode."""
    margin_mode: str | None = None
    """OKX: cash, cross, isolated or spot_isolated; None: cash for spot, else cross."""
    trigger_price: DecimalText | None = None
    """Makes it a conditional order, where the venue's trade stream takes them."""
    extras: Mapping[str, str] = attrs.field(factory=dict)
    """The venue's own parameters by its names, as texts; the venue's module knows their types and refuses others."""


@attrs.frozen
class OrderCommand:
    """One record of an account's command topic."""

    command_id: str
    """Unique per account for ever: what came once under it is never sent again."""
    venue: str
    account: str
    action: str
    """One of `ACTIONS`."""
    issued_at: Micros
    not_after: Micros
    """It is never sent later than this."""
    items: tuple[OrderItem, ...] = ()
    """For `ITEM_ACTIONS` 1 to `MAX_ITEMS`, else none."""
    market: str | None = None
    """cancel_all, mass_cancel: only this market; None: all."""
    instrument: str | None = None
    """cancel_all: only this instrument; mass_cancel: the family that the venue wants."""
    reason: str | None = None
    """Why, for people: kept in logs and results."""


class OrderResult(Event):
    """One step in the life of an item (or of a command without items, then `item` is 0)."""

    KIND = "order_result"
    IDENTITY = ("venue", "account", "command_id", "item", "state")

    command_id: str
    item: int
    """Which of the command's items, from 0."""
    action: str
    state: State
    is_final: bool
    client_order_id: str | None = None
    order_id: str | None = None
    rejected_by: str | None = None
    """"connector" (schema, ownership, time), "guard" or "venue"; None unless rejected or expired."""
    rule: str | None = None
    """What the connector or the guard went by: schema, account, instrument, tick_size, lot_size, price_band, …"""
    code: str | None = None
    """The venue's own code."""
    message: str | None = None
    """Why, in the venue's words or ours."""
    error_class: ErrorClass | None = None
    consumed_time: Micros | None = None
    """When the record was taken from Kafka."""
    sent_time: Micros | None = None
    """When its bytes were given to the socket."""
    answered_time: Micros | None = None
    """When the answer was read, or the query that found the outcome."""
    venue_in_time: Micros | None = None
    """When the venue's gateway took it, if it tells."""
    venue_out_time: Micros | None = None
    reason: str | None = None
    """The command's own `reason`."""
    topic: str = ""
    """Where the command was read; with partition and offset."""
    partition: int = 0
    offset: int = 0
