"""What the events of an account tell the state of, whether anything is left of it, and how its end is told. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from pipeline.model.account import AccountEvent, AccountGreeks, Balance, Order, Position
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Event, Micros, Origin

FINAL = frozenset({"filled", "cancelled", "rejected", "expired"})
"""What an order does not come back from."""
OPEN = frozenset({"new", "partially_filled", "untriggered"})
"""What an order is among a venue's open ones. Venues' own words are in neither."""
ZERO = DecimalText("0")
_AMOUNTS = ("total", "available", "equity")
_GREEKS = ("delta", "gamma", "vega", "theta", "coin_delta", "coin_gamma", "coin_vega", "coin_theta")

Key = tuple[str | None, ...]
"""What an event tells the state of; the kind of event first."""


def key_of(event: Event) -> Key | None:
    """None for what is no state: fills, warnings, messages without a kind of their own."""
    origin = event.origin
    if isinstance(event, Order):
        return event.KIND, origin.market, origin.instrument, event.order_id
    if isinstance(event, Position) and not event.is_liquidation_warning:
        own = (event.position_id, event.position_side, event.margin_mode)
        return event.KIND, event.channel, origin.market, origin.instrument, *own
    if isinstance(event, Balance | AccountGreeks):
        return event.KIND, event.channel, event.currency
    return None


def is_over(event: AccountEvent) -> bool:
    """Whether nothing is left: an order that has ended, a flat position, a balance of zero."""
    if isinstance(event, Order):
        return event.status in FINAL
    if isinstance(event, Position):
        return event.side == "flat"
    if isinstance(event, Balance):
        return not any(_is_nonzero(getattr(event, name)) for name in _AMOUNTS)
    return False


def is_reopened(event: AccountEvent, before: AccountEvent) -> bool:
    """Whether it tells an order open that has ended, which is never news: both may carry the same millisecond."""
    return isinstance(event, Order) and is_over(before) and not is_over(event)


def closing(event: AccountEvent, origin: Origin, exchange_time: Micros | None, receive_time: Micros) -> AccountEvent:
    """What tells that nothing is left of a position, balance or greeks. Raises `TypeError` for other events."""
    head = (origin, exchange_time, receive_time, None, event.channel, True)
    if isinstance(event, Position):
        return Position(
            *head,
            "flat",
            ZERO,
            event.size_unit,
            position_id=event.position_id,
            position_side=event.position_side,
            margin_mode=event.margin_mode,
        )
    if isinstance(event, Balance):
        return Balance(*head, event.currency, event.account_type, total=ZERO, available=ZERO, equity=ZERO)
    if isinstance(event, AccountGreeks):
        zeros = (None if getattr(event, name) is None else 0.0 for name in _GREEKS)
        return AccountGreeks(*head, event.currency, *zeros)
    raise TypeError(f"{event.KIND} is not closed by its absence")


def given_up(order: Order, origin: Origin, now: Micros) -> Order:
    """What tells that an order has ended of which the venue knows nothing any more."""
    return replace(
        order,
        origin=origin,
        receive_time=now,
        sequence=None,
        is_snapshot=True,
        status="cancelled",
        venue_status="",
        extras={**order.extras, "inferred": "not among the open orders, and the venue tells nothing of it"},
    )


def _is_nonzero(amount: DecimalText | None) -> bool:
    return amount is not None and bool(amount.lower().partition("e")[0].strip("-0."))
