"""Orders of an account: `order` and `spread.order`."""

from __future__ import annotations

from pipeline.exchanges.bybit.account_wire import OrderMessage, OrderRow
from pipeline.exchanges.bybit.accounts import (
    LEGS,
    AccountScope,
    extras,
    filled_unit,
    flag,
    lower,
    market_of,
    nonzero,
    ordered_unit,
    position_side,
    state_time,
    word,
)
from pipeline.exchanges.bybit.tickers import millis, number_unless_zero
from pipeline.exchanges.bybit.topics import family_of
from pipeline.model.account import Order
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Event, Micros

_STATUSES = {
    "New": "new",
    "PartiallyFilled": "partially_filled",
    "Filled": "filled",
    "Cancelled": "cancelled",
    "PartiallyFilledCanceled": "cancelled",
    "Rejected": "rejected",
    "Untriggered": "untriggered",
    "Triggered": "triggered",
    "Deactivated": "expired",
}
_PRICE_TYPES = {"LastPrice": "last", "IndexPrice": "index", "MarkPrice": "mark"}
_DIRECTIONS = {0: None, 1: "rise", 2: "fall"}
_NO_REASON = "EC_NoError"


def orders(
    message: OrderMessage, scope: AccountScope, receive_time: Micros, *, is_snapshot: bool = False
) -> list[Event]:
    """One event per order; raises `ValueError` for what cannot be read."""
    channel = family_of(message.topic)
    return [_order(row, scope, channel, message.creation_time, receive_time, is_snapshot) for row in message.data]


def _order(
    row: OrderRow, scope: AccountScope, channel: str, sent: int, receive_time: Micros, is_snapshot: bool
) -> Order:
    market = market_of(row.category)
    is_market_order = row.order_type == "Market"
    # A difference of two prices can be zero.
    price_of = _given if market == "spread" else nonzero
    fees, unused_fee = _fees(row, scope.settle(market, row.symbol))
    tolerance_type = word(row.slippage_tolerance_type)
    time_in_force = row.time_in_force or ""
    return Order(
        scope.origin(market, row.symbol),
        state_time(row.updated_time, sent, is_snapshot=is_snapshot),
        receive_time,
        None,
        channel,
        is_snapshot,
        order_id=row.order_id,
        status=_status(row),
        venue_status=row.order_status,
        side=row.side.lower(),
        order_type=row.order_type.lower(),
        size_unit=ordered_unit(row.category, row.order_type, row.side, row.market_unit),
        filled_size_unit=filled_unit(market),
        client_order_id=row.order_link_id or None,
        parent_order_id=row.parent_order_id or None,
        parent_client_order_id=row.parent_order_link_id or None,
        block_trade_id=row.block_trade_id or None,
        position_side=position_side(row.position_idx),
        leg_kind=row.category if row.category in LEGS else None,
        venue_order_type=row.order_type or None,
        time_in_force="gtc" if time_in_force == "PostOnly" else lower(time_in_force),
        price=None if is_market_order else price_of(row.price),
        size=row.qty or None,
        filled_size=row.cum_exec_qty or None,
        remaining_size=row.leaves_qty or None,
        average_price=price_of(row.avg_price),
        filled_value=row.cum_exec_value or None,
        fees=fees,
        realized_pnl=row.closed_pnl or None,
        is_post_only={"": None, "RPI": None, "PostOnly": True}.get(time_in_force, False),
        is_reduce_only=row.reduce_only,
        is_close_on_trigger=row.close_on_trigger,
        is_leveraged=flag(row.is_leverage),
        trigger_price=nonzero(row.trigger_price),
        trigger_price_type=_price_type(row.trigger_by),
        trigger_direction=_DIRECTIONS.get(row.trigger_direction or 0, str(row.trigger_direction)),
        stop_order_type=word(row.stop_order_type),
        take_profit_price=nonzero(row.take_profit),
        take_profit_limit_price=nonzero(row.tp_limit_price),
        take_profit_price_type=_price_type(row.tp_trigger_by),
        stop_loss_price=nonzero(row.stop_loss),
        stop_loss_limit_price=nonzero(row.sl_limit_price),
        stop_loss_price_type=_price_type(row.sl_trigger_by),
        exit_mode=lower(row.tpsl_mode),
        created_by=word(row.create_type),
        cancel_reason=word(row.cancel_type),
        reject_reason=(row.reject_reason or None) if row.reject_reason != _NO_REASON else None,
        self_match_prevention=(row.smp_type or None) if row.smp_type != "None" else None,
        self_match_group=row.smp_group or None,
        self_match_order_id=row.smp_order_id or None,
        price_type=row.place_type or None,
        implied_volatility=number_unless_zero(row.order_iv or ""),
        slippage_tolerance_type=tolerance_type,
        slippage_tolerance=(row.slippage_tolerance or None) if tolerance_type else None,
        is_rpi_taker=row.rpi_taker_access,
        rpi_filled_size=row.rpi_matched_qty or None,
        created_time=millis(row.created_time or ""),
        extras=extras(
            (
                # The bound of the venue's own making, not a limit that anybody set.
                ("price", nonzero(row.price) if is_market_order else None),
                ("brokerOrderPrice", row.broker_order_price),
                ("leavesValue", row.leaves_value),
                ("lastPriceOnCreated", row.last_price_on_created),
                ("marketUnit", row.market_unit),
                ("ocoTriggerBy", row.oco_trigger_by if row.oco_trigger_by != "OcoTriggerByUnknown" else None),
                ("cumExecFee", unused_fee),
            )
        ),
    )


def _status(row: OrderRow) -> str:
    """A "rejected" order that was filled in part counts as cancelled: its fills are real."""
    if row.order_status == "Rejected" and nonzero(row.cum_exec_qty):
        return "cancelled"
    return _STATUSES.get(row.order_status, row.order_status)


def _fees(row: OrderRow, settle: str | None) -> tuple[dict[str, DecimalText], DecimalText | None]:
    """Fees by currency, and the sum in one currency where it is something else or its currency is not known."""
    total = nonzero(row.cum_exec_fee)
    if row.cum_fee_detail:
        return {currency: fee for currency, fee in row.cum_fee_detail.items() if fee}, total
    currency = row.fee_currency or settle
    if total is None or currency is None:
        return {}, total
    return {currency: total}, None


def _price_type(text: str | None) -> str | None:
    return _PRICE_TYPES.get(text or "", word(text))


def _given(text: DecimalText | None) -> DecimalText | None:
    return text or None
