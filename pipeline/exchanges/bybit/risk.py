"""What the venue tells about liquidations, price limits, its insurance funds and its own state.

Rare messages: each wire type stands beside what becomes of it. The functions raise `ValueError` for a value that
cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import ClassVar

import msgspec

from pipeline.exchanges.bybit.tickers import millis
from pipeline.exchanges.bybit.wire import Kind
from pipeline.model.decimals import DecimalText, is_decimal
from pipeline.model.events import (
    BASE,
    QUOTE,
    AdlAlert,
    Event,
    InsuranceFund,
    Liquidation,
    Micros,
    Origin,
    PriceLimit,
    SystemStatus,
)

OriginOf = Callable[[str | None], Origin]
"""The origin of an instrument in the connection's market; of None for what concerns no single one."""

_POSITION_SIDES = {"Buy": "long", "Sell": "short"}
_ORDER_SIDES = {"Buy": "sell", "Sell": "buy"}


class LiquidationRow(msgspec.Struct, gc=False):
    """One element of `allLiquidation`."""

    T: int
    s: str
    S: str
    """The side of the position: "Buy" was a long one."""
    v: DecimalText
    p: DecimalText


class LiquidationMessage(msgspec.Struct, gc=False):
    """`allLiquidation.{symbol}`: what happened in half a second."""

    UNREAD: ClassVar = ("type", "ts")

    topic: str
    data: list[LiquidationRow]


class PriceLimits(msgspec.Struct, rename="camel", gc=False):
    """`data` of `priceLimit`; "" is no limit."""

    symbol: str
    buy_lmt: DecimalText | None = None
    sell_lmt: DecimalText | None = None


class PriceLimitMessage(msgspec.Struct, gc=False):
    """`priceLimit.{symbol}`."""

    topic: str
    ts: int
    data: PriceLimits


class FundRow(msgspec.Struct, rename="camel", gc=False):
    """One element of `insurance`."""

    balance: DecimalText
    coin: str | None = None
    symbols: str | None = None
    """One contract; several with commas between them share a fund."""
    update_time: str | None = None


class InsuranceMessage(msgspec.Struct, gc=False):
    """`insurance.{pool}`; a delta lists what changed."""

    topic: str
    type: Kind
    ts: int
    data: list[FundRow]


class AdlRow(msgspec.Struct, gc=False):
    """One element of `adlAlert`: documented as text, shown as JSON numbers."""

    UNREAD: ClassVar = ("mb",)

    s: str
    c: str | None = None
    b: DecimalText | None = None
    i_pr: DecimalText | None = None
    pr: DecimalText | None = None
    adl_tt: DecimalText | None = None
    adl_sr: DecimalText | None = None


class AdlMessage(msgspec.Struct, gc=False):
    """`adlAlert.{pool}`."""

    UNREAD: ClassVar = ("type",)

    topic: str
    ts: int
    data: list[AdlRow]


class StatusRow(msgspec.Struct, rename="camel", gc=False):
    """One element of `system.status`."""

    state: str
    title: str
    id: str | None = None
    begin: str | None = None
    end: str | None = None
    href: str | None = None
    service_types: list[int | str] | None = None
    product: list[int | str] | None = None
    uid_suffix: list[int | str] | None = None
    maintain_type: int | str | None = None
    env: int | str | None = None


class StatusMessage(msgspec.Struct, gc=False):
    """`system.status`."""

    topic: str
    ts: int
    data: list[StatusRow]


def liquidations(message: LiquidationMessage, origin_of: OriginOf, receive_time: Micros) -> list[Event]:
    """One event per position taken over."""
    events: list[Event] = []
    for row in message.data:
        origin = origin_of(row.s)
        is_inverse = origin.market == "inverse"
        events.append(
            Liquidation(
                origin,
                Micros(row.T * 1000),
                receive_time,
                None,
                row.p,
                row.v,
                QUOTE if is_inverse else BASE,
                _POSITION_SIDES.get(row.S, row.S.lower() or None),
                _ORDER_SIDES.get(row.S),
                None if is_inverse else row.v,
                row.v if is_inverse else None,
            )
        )
    return events


def price_limits(message: PriceLimitMessage, origin_of: OriginOf, receive_time: Micros) -> list[Event]:
    """The bounds of one instrument."""
    limits = message.data
    return [
        PriceLimit(
            origin_of(limits.symbol),
            Micros(message.ts * 1000),
            receive_time,
            None,
            limits.buy_lmt or None,
            limits.sell_lmt or None,
        )
    ]


def insurance_funds(message: InsuranceMessage, origin_of: OriginOf, receive_time: Micros) -> list[Event]:
    """One event per fund; a fund that several contracts share is of none of them and named by them all."""
    pool = message.topic.partition(".")[2] or None
    events: list[Event] = []
    for row in message.data:
        shared = "," in (row.symbols or "")
        events.append(
            InsuranceFund(
                origin_of(None if shared else row.symbols or None),
                millis(row.update_time or "") or Micros(message.ts * 1000),
                receive_time,
                None,
                row.balance,
                row.coin or None,
                row.symbols if shared else pool,
                message.type == "snapshot",
            )
        )
    return events


def adl_alerts(message: AdlMessage, origin_of: OriginOf, receive_time: Micros) -> list[Event]:
    """One event per contract."""
    pool = message.topic.partition(".")[2] or None
    time = Micros(message.ts * 1000)
    return [
        AdlAlert(
            origin_of(row.s),
            time,
            receive_time,
            None,
            pool,
            None,
            _is_deleveraging(row),
            row.c or None,
            row.b or None,
            row.pr or None,
            row.i_pr or None,
            row.adl_tt or None,
            row.adl_sr or None,
        )
        for row in message.data
    ]


def system_statuses(message: StatusMessage, origin_of: OriginOf, receive_time: Micros) -> list[Event]:
    """One event per announcement."""
    origin, time = origin_of(None), Micros(message.ts * 1000)
    return [
        SystemStatus(
            origin,
            time,
            receive_time,
            None,
            row.state,
            row.title,
            row.id or None,
            millis(row.begin or ""),
            millis(row.end or ""),
            href=row.href or None,
            service_types=_texts(row.service_types),
            products=_texts(row.product),
            uid_suffixes=_texts(row.uid_suffix),
            maintenance_type=_text(row.maintain_type),
            environment=_text(row.env),
        )
        for row in message.data
    ]


def _is_deleveraging(row: AdlRow) -> bool | None:
    """By the venue's thresholds: an empty fund, or a drawdown beyond the trigger in a fund that is worth counting.

    Between trigger and stop ratio it depends on what was before, which nobody tells: None.
    """
    balance, drawdown = _number(row.b), _number(row.pr)
    floor, trigger, stop = _number(row.adl_tt), _number(row.i_pr), _number(row.adl_sr)
    if balance is None:
        return None
    if balance <= 0:
        return True
    if drawdown is None:
        return None
    if floor is not None and trigger is not None and balance > floor and drawdown < trigger:
        return True
    return False if stop is not None and drawdown > stop else None


def _number(text: str | None) -> Decimal | None:
    if not text:
        return None
    if not is_decimal(text):
        raise ValueError(f"{text!r} is not a decimal number")
    return Decimal(text)


def _text(value: int | str | None) -> str | None:
    return str(value) if value is not None and value != "" else None


def _texts(values: list[int | str] | None) -> tuple[str, ...]:
    return tuple(str(value) for value in values or ())
