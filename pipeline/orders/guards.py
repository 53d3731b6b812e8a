"""What an order must keep to before anything is sent: the instrument's rules, and those of the account. Pure.

All numbers are exact: nothing is rounded, and nothing passes through float. A refusal names the rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from fnmatch import fnmatchcase

import attrs

from pipeline.exchanges.trading import TradeItem
from pipeline.exchanges.venue import Catalogue
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Instrument
from pipeline.model.header import BASE, CONTRACT, QUOTE
from pipeline.model.orders import AMEND, CANCEL, CREATE, MASS_CANCEL, ErrorClass, OrderItem
from pipeline.orders.open_orders import KnownOrder
from pipeline.orders.settings import AccountOrderSettings

_EXACT = Context(prec=400, Emax=9_999, Emin=-9_999, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])


@attrs.frozen
class Facts:
    """What is known at the moment when an order is judged."""

    is_killed: bool = False
    """Whether the kill switch is on."""
    reference_price: DecimalText | None = None
    """The mark price, or what stands for it; None if none is fresh."""
    open_orders: int = 0
    """Of the account, with those that passed in the same command."""
    known_order: KnownOrder | None = None
    """Of an amendment, the order that is meant; None if it is not known."""


@attrs.frozen
class Refusal:
    """Why an order is not sent."""

    rule: str
    message: str
    error_class: ErrorClass = "permanent"


def check(action: str, trade: TradeItem, facts: Facts, settings: AccountOrderSettings) -> Refusal | None:
    """The first rule that an item does not keep to; None if it may be sent. Cancellations always may."""
    if action == CANCEL:
        return None
    if facts.is_killed:
        return Refusal("kill_switch", f"the kill switch is on: no {action} until it is resumed", "retryable")
    return next(_refusals(action, trade, facts, settings), None)


def check_scope(action: str, market: str | None, name: str | None, venue: str, catalogue: Catalogue) -> Refusal | None:
    """Why a cancel_all or mass_cancel is for nothing that is known; `name` is an instrument, of mass_cancel a family.

    There nothing is open, and to answer so would calm who has mistyped it.
    """
    if market is None:
        return None
    listed = [(of, instrument) for (known, of), instrument in catalogue.items() if known == market]
    if not listed:
        return Refusal("instrument", f"{venue} has no market {market} that is known")
    if action == MASS_CANCEL:
        families = {instrument.underlying for _, instrument in listed}
        if name not in families:
            return Refusal("instrument", f"{venue} {market} has no family {name} that is known")
    elif name is not None and (market, name) not in catalogue:
        return Refusal("instrument", f"{venue} {market} has no instrument {name} that is known")
    return None


def _refusals(action: str, trade: TradeItem, facts: Facts, settings: AccountOrderSettings) -> Iterator[Refusal]:
    item, instrument = trade.item, trade.instrument
    yield from _instrument(item, instrument, settings)
    if action == CREATE and facts.open_orders >= settings.max_open_orders:
        why = f"{facts.open_orders} orders are open, max_open_orders is {settings.max_open_orders}"
        yield Refusal("max_open_orders", why, "retryable")
    order = _wanted(action, item, instrument, facts.known_order)
    yield from _prices(item, instrument)
    if item.price is not None:
        yield from _band(item.price, facts.reference_price, settings.price_band)
    if item.size is not None:
        yield from _size(item.size, order, instrument)
    yield from _value(order, instrument, facts.reference_price, settings)


@attrs.frozen
class _Wanted:
    """The order as it would be."""

    order_type: str
    price: DecimalText | None
    size: DecimalText | None
    size_unit: str
    is_reduce_only: bool


def _wanted(action: str, item: OrderItem, instrument: Instrument, known: KnownOrder | None) -> _Wanted:
    if action != AMEND or known is None:
        unit = item.size_unit or instrument.size_unit
        return _Wanted(item.order_type or "limit", item.price, item.size, unit, item.is_reduce_only)
    return _Wanted(
        known.order_type or "limit",
        item.price or known.price,
        item.size or known.size,
        known.size_unit or instrument.size_unit,
        known.is_reduce_only,
    )


def _instrument(item: OrderItem, instrument: Instrument, settings: AccountOrderSettings) -> Iterator[Refusal]:
    allowed = settings.instruments.get(item.market, ())
    if not any(fnmatchcase(item.instrument, pattern) for pattern in allowed):
        yield Refusal("instrument", f"{item.market} {item.instrument} is not among the instruments that are allowed")
    if not instrument.is_tradable:
        why = f"{item.market} {item.instrument} is not traded now: the venue calls its state {instrument.state}"
        yield Refusal("instrument", why, "retryable")


def _prices(item: OrderItem, instrument: Instrument) -> Iterator[Refusal]:
    for name in ("price", "trigger_price"):
        price = getattr(item, name)
        if price is not None and instrument.tick_size is not None and not _is_multiple(price, instrument.tick_size):
            yield Refusal("tick_size", f"{name} {price} is not a multiple of {instrument.tick_size}")
    if item.price is None:
        return
    price = Decimal(item.price)
    if instrument.min_price is not None and price < Decimal(instrument.min_price):
        yield Refusal("price_limits", f"price {item.price} is below {instrument.min_price}")
    if instrument.max_price is not None and price > Decimal(instrument.max_price):
        yield Refusal("price_limits", f"price {item.price} is above {instrument.max_price}")


def _band(text: DecimalText, reference: DecimalText | None, band: DecimalText) -> Iterator[Refusal]:
    if reference is None or Decimal(reference) <= 0:
        yield Refusal("price_band", "there is no fresh reference price to hold the price against", "retryable")
        return
    distance = _EXACT.abs(_EXACT.subtract(Decimal(text), Decimal(reference)))
    if distance > _EXACT.multiply(Decimal(reference), Decimal(band)):
        yield Refusal("price_band", f"price {text} is further than {band} of it from the reference price {reference}")


def _size(size: DecimalText, order: _Wanted, instrument: Instrument) -> Iterator[Refusal]:
    if order.size_unit != instrument.size_unit:
        if order.size_unit != QUOTE or order.order_type != "market" or instrument.kind != "spot":
            why = (
                f"size is in {order.size_unit}, and {instrument.origin.instrument} is traded in {instrument.size_unit}"
            )
            yield Refusal("lot_size", why)
        return  # an amount of money has no lots
    if instrument.lot_size is not None and not _is_multiple(size, instrument.lot_size):
        yield Refusal("lot_size", f"size {size} is not a multiple of {instrument.lot_size}")
    if instrument.min_size is not None and Decimal(size) < Decimal(instrument.min_size):
        yield Refusal("min_size", f"size {size} is below {instrument.min_size}")
    most = instrument.max_market_size if order.order_type == "market" else instrument.max_limit_size
    if most is not None and Decimal(size) > Decimal(most):
        yield Refusal("max_size", f"size {size} is above {most}, the most of a {order.order_type} order")


def _value(
    order: _Wanted, instrument: Instrument, reference: DecimalText | None, settings: AccountOrderSettings
) -> Iterator[Refusal]:
    """What it would cost, in quote currency. An amendment of an unknown order's price has no size to tell it."""
    if order.size is None:
        return
    price = order.price or reference
    if price is None and _needs_price(order, instrument):
        yield Refusal("max_order_value", "there is no fresh reference price to tell its value by", "retryable")
        return
    value = quote_value(Decimal(order.size), order.size_unit, None if price is None else Decimal(price), instrument)
    if value is None:
        yield Refusal("max_order_value", f"nobody tells what a contract of {instrument.origin.instrument} is worth")
        return
    if value > Decimal(settings.max_order_value):
        yield Refusal(
            "max_order_value", f"value {value:f} is above max_order_value, which is {settings.max_order_value}"
        )
    least = instrument.min_value
    # To close what is left of a position, venues take less.
    if least is not None and value < Decimal(least) and not order.is_reduce_only:
        yield Refusal("min_value", f"value {value:f} is below {least}")


def _needs_price(order: _Wanted, instrument: Instrument) -> bool:
    if order.size_unit == CONTRACT:
        return instrument.contract_currency != instrument.quote and not _is_priced_in_coin(instrument)
    return order.size_unit == BASE


def quote_value(size: Decimal, unit: str, price: Decimal | None, instrument: Instrument) -> Decimal | None:
    """In quote currency; None where it cannot be told.

    Of options that are priced in their coin the value at their strike: their price is not in quote currency.
    """
    if unit == QUOTE:
        return size
    if unit == CONTRACT:
        if instrument.contract_value is None:
            return None
        size = _EXACT.multiply(size, Decimal(instrument.contract_value))
        if instrument.contract_currency == instrument.quote:
            return size
    if _is_priced_in_coin(instrument):
        price = None if instrument.strike is None else Decimal(instrument.strike)
    return None if price is None else _EXACT.multiply(size, price)


def _is_priced_in_coin(instrument: Instrument) -> bool:
    return instrument.kind == "option" and instrument.settle is not None and instrument.settle == instrument.base


def _is_multiple(value: DecimalText, step: DecimalText) -> bool:
    return Decimal(step) <= 0 or not _EXACT.remainder(Decimal(value), Decimal(step))
