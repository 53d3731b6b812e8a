"""Fills of an account: `execution`, `execution.fast` and `spread.execution`."""

from __future__ import annotations

from pipeline.exchanges.bybit.account_wire import ExtraFee, FillMessage, FillRow
from pipeline.exchanges.bybit.accounts import (
    LEGS,
    AccountScope,
    extras,
    filled_unit,
    lower,
    market_of,
    ordered_unit,
    time_of,
    word,
)
from pipeline.exchanges.bybit.tickers import number
from pipeline.exchanges.bybit.topics import family_of
from pipeline.model.account import Fill
from pipeline.model.decimals import DecimalText, exact_difference, exact_negation, is_decimal
from pipeline.model.events import Event, Micros

_KINDS = {
    "Trade": "trade",
    "Funding": "funding",
    "BustTrade": "liquidation",
    "AdlTrade": "adl",
    "Delivery": "delivery",
    "Settle": "settlement",
    "BlockTrade": "block",
    "MovePosition": "move_position",
    "FutureSpread": "spread_leg",
    "CorporateAction": "corporate_action",
}
_LIQUIDITY = {None: None, True: "maker", False: "taker"}
_NO_MATCHES = frozenset({"funding", "delivery", "settlement", "corporate_action"})
"""Bookings without a maker and a taker; the venue's flag says taker for them."""
_FAST = "execution.fast"


def fills(message: FillMessage, scope: AccountScope, receive_time: Micros, *, is_snapshot: bool = False) -> list[Event]:
    """One event per fill; raises `ValueError` for what cannot be read."""
    channel = family_of(message.topic)
    return [_fill(row, scope, channel, message.creation_time, receive_time, is_snapshot) for row in message.data]


def _fill(row: FillRow, scope: AccountScope, channel: str, sent: int, receive_time: Micros, is_snapshot: bool) -> Fill:
    market = market_of(row.category)
    unit = filled_unit(market)
    # What was ordered by value is no size of this fill's unit.
    same_unit = ordered_unit(row.category, row.order_type, row.side, row.market_unit) == unit
    kind = "trade" if channel == _FAST else _KINDS.get(row.exec_type or "", row.exec_type or "trade")
    fee = (row.exec_fee_v2 if row.category == "spot_leg" else None) or row.exec_fee or None
    is_inverse = market == "inverse"
    return Fill(
        scope.origin(market, row.symbol),
        time_of(row.exec_time, sent),
        receive_time,
        row.seq,
        channel,
        is_snapshot,
        fill_id=row.exec_id,
        side=row.side.lower(),
        price=row.exec_price,
        size=row.exec_qty,
        size_unit=unit,
        kind=kind,
        is_fast=channel == _FAST,
        order_id=row.order_id or None,
        client_order_id=row.order_link_id or None,
        parent_fill_id=row.parent_exec_id or None,
        block_trade_id=row.block_trade_id or None,
        leg_kind=row.category if row.category in LEGS else None,
        base_size=None if is_inverse else row.exec_qty,
        quote_size=row.exec_qty if is_inverse else None,
        value=row.exec_value or None,
        fee=fee,
        fee_currency=None if fee is None else _fee_currency(row, scope, market, fee),
        fee_rate=row.fee_rate or None,
        extra_fees=_extra_fees(row.extra_fees),
        liquidity=None if kind in _NO_MATCHES else _LIQUIDITY.get(row.is_maker),
        realized_pnl=row.exec_pnl or None,
        closed_size=row.closed_size or None,
        remaining_size=(row.leaves_qty or None) if same_unit else None,
        order_price=row.order_price or None,
        order_size=(row.order_qty or None) if same_unit else None,
        order_type=lower(row.order_type),
        stop_order_type=word(row.stop_order_type),
        created_by=word(row.create_type),
        implied_volatility=number(row.trade_iv or ""),
        mark_implied_volatility=number(row.mark_iv or ""),
        mark_price=row.mark_price or None,
        index_price=row.index_price or None,
        underlying_price=row.underlying_price or None,
        extras=extras(
            (
                ("isLeverage", row.is_leverage),
                ("marketUnit", row.market_unit),
                ("leavesQty", None if same_unit else row.leaves_qty),
                ("orderQty", None if same_unit else row.order_qty),
            )
        ),
    )


def _fee_currency(row: FillRow, scope: AccountScope, market: str, fee: str) -> str | None:
    """As told, or by the venue's rule: on spot what is received, but of a maker's rebate what is given."""
    if row.fee_currency or row.fee_coin:
        return row.fee_currency or row.fee_coin
    entry = scope.entry(market, row.symbol)
    if entry is None:
        return None
    if market != "spot":
        return entry.settle
    is_rebate = bool(row.is_maker) and (row.fee_rate or fee).startswith("-")
    return entry.base if (row.side == "Buy") != is_rebate else entry.quote


def _extra_fees(rows: list[ExtraFee] | str | None) -> dict[str, DecimalText]:
    """Sums by type, subtype and currency."""
    sums: dict[str, DecimalText] = {}
    for row in rows if isinstance(rows, list) else ():
        name = ".".join(part for part in (row.fee_type, row.sub_fee_type, row.fee_coin) if part)
        before = sums.get(name)
        if before is None:
            sums[name] = row.fee
        elif is_decimal(before) and is_decimal(row.fee):
            sums[name] = exact_difference(before, exact_negation(row.fee))
        else:
            raise ValueError(f"extraFees: {row.fee!r} cannot be added to {before!r}")
    return sums
