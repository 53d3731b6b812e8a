"""Bybit's private messages as they are on the wire. What `wire` says about types holds here.

Fields may be missing, null or "" for no value. What a message may repeat without being told by it (deprecated
fields, duplicates) is not listed.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from pipeline.model.decimals import DecimalText

Text = str | None
Amount = DecimalText | None


class OrderRow(msgspec.Struct, rename="camel", gc=False):
    """One element of `order` or `spread.order`."""

    category: str
    symbol: str
    order_id: str
    side: str
    order_type: str
    order_status: str
    order_link_id: Text = None
    parent_order_id: Text = None
    """Of a leg: the order of the spread."""
    parent_order_link_id: Text = None
    is_leverage: Text = None
    block_trade_id: Text = None
    price: Amount = None
    broker_order_price: Text = None
    qty: Amount = None
    position_idx: int | None = None
    create_type: Text = None
    cancel_type: Text = None
    reject_reason: Text = None
    avg_price: Amount = None
    leaves_qty: Amount = None
    leaves_value: Text = None
    cum_exec_qty: Amount = None
    cum_exec_value: Amount = None
    cum_exec_fee: Amount = None
    cum_fee_detail: dict[str, DecimalText] | None = None
    fee_currency: Text = None
    closed_pnl: Amount = None
    time_in_force: Text = None
    stop_order_type: Text = None
    oco_trigger_by: Text = None
    order_iv: Text = None
    market_unit: Text = None
    slippage_tolerance_type: Text = None
    slippage_tolerance: Amount = None
    trigger_price: Amount = None
    take_profit: Amount = None
    stop_loss: Amount = None
    tp_limit_price: Amount = None
    sl_limit_price: Amount = None
    tpsl_mode: Text = None
    tp_trigger_by: Text = None
    sl_trigger_by: Text = None
    trigger_by: Text = None
    trigger_direction: int | None = None
    last_price_on_created: Text = None
    reduce_only: bool | None = None
    close_on_trigger: bool | None = None
    place_type: Text = None
    smp_type: Text = None
    smp_group: int | None = None
    smp_order_id: Text = None
    created_time: Text = None
    updated_time: Text = None
    rpi_taker_access: bool | None = None
    rpi_matched_qty: Amount = None


class OrderMessage(msgspec.Struct, rename="camel", gc=False):
    """`order`, `order.{category}` or `spread.order`."""

    UNREAD: ClassVar = ("id",)

    topic: str
    creation_time: int
    data: list[OrderRow]


class ExtraFee(msgspec.Struct, rename="camel", gc=False):
    """A tax or another charge on a fill."""

    UNREAD: ClassVar = ("feeRate",)

    fee: DecimalText
    fee_coin: str
    fee_type: str
    sub_fee_type: Text = None


class FillRow(msgspec.Struct, rename="camel", gc=False):
    """One element of `execution`, `execution.fast` or `spread.execution`."""

    category: str
    symbol: str
    exec_id: str
    exec_price: DecimalText
    exec_qty: DecimalText
    side: str
    exec_time: Text = None
    exec_type: Text = None
    exec_value: Amount = None
    exec_fee: Amount = None
    exec_fee_v2: Amount = msgspec.field(name="execFeeV2", default=None)
    """Of a spread's spot leg."""
    fee_currency: Text = None
    fee_coin: Text = None
    fee_rate: Amount = None
    extra_fees: list[ExtraFee] | Text = None
    exec_pnl: Amount = None
    order_id: Text = None
    order_link_id: Text = None
    parent_exec_id: Text = None
    block_trade_id: Text = None
    is_maker: bool | None = None
    is_leverage: Text = None
    closed_size: Amount = None
    leaves_qty: Amount = None
    order_price: Amount = None
    order_qty: Amount = None
    order_type: Text = None
    stop_order_type: Text = None
    create_type: Text = None
    market_unit: Text = None
    trade_iv: Text = None
    mark_iv: Text = None
    mark_price: Amount = None
    index_price: Amount = None
    underlying_price: Amount = None
    seq: int | None = None


class FillMessage(msgspec.Struct, rename="camel", gc=False):
    """`execution`, `execution.{category}`, `execution.fast…` or `spread.execution`."""

    UNREAD: ClassVar = ("id",)

    topic: str
    creation_time: int
    data: list[FillRow]


class PositionRow(msgspec.Struct, rename="camel", gc=False):
    """One element of `position`."""

    UNREAD: ClassVar = ("bustPrice", "positionBalance", "tpslMode", "tradeMode")

    category: str
    symbol: str
    size: DecimalText
    side: str
    """"": there is none."""
    position_idx: int | None = None
    position_value: Amount = None
    entry_price: Amount = None
    session_avg_price: Amount = None
    mark_price: Amount = None
    leverage: Amount = None
    break_even_price: Amount = None
    liq_price: Amount = None
    auto_add_margin: int | None = None
    position_im: Amount = msgspec.field(name="positionIM", default=None)
    position_mm: Amount = msgspec.field(name="positionMM", default=None)
    position_im_by_mp: Text = msgspec.field(name="positionIMByMp", default=None)
    position_mm_by_mp: Text = msgspec.field(name="positionMMByMp", default=None)
    take_profit: Amount = None
    stop_loss: Amount = None
    trailing_stop: Amount = None
    unrealised_pnl: Amount = None
    cur_realised_pnl: Amount = None
    cum_realised_pnl: Amount = None
    delta: Text = None
    gamma: Text = None
    vega: Text = None
    theta: Text = None
    position_status: Text = None
    adl_rank_indicator: int | None = None
    risk_id: int | None = None
    risk_limit_value: Amount = None
    is_reduce_only: bool | None = None
    mmr_sys_updated_time: Text = None
    leverage_sys_updated_time: Text = None
    created_time: Text = None
    updated_time: Text = None
    open_time: int | None = None
    seq: int | None = None
    """-1 while the symbol was never traded."""


class PositionMessage(msgspec.Struct, rename="camel", gc=False):
    """`position` or `position.{category}`."""

    UNREAD: ClassVar = ("id",)

    topic: str
    creation_time: int
    data: list[PositionRow]


class CoinRow(msgspec.Struct, rename="camel", gc=False):
    """One coin of a wallet."""

    UNREAD: ClassVar = ("availableToWithdraw", "availableToBorrow", "free")

    coin: str
    equity: Amount = None
    usd_value: Amount = None
    wallet_balance: Amount = None
    locked: Amount = None
    spot_hedging_qty: Amount = None
    borrow_amount: Amount = None
    spot_borrow: Amount = None
    accrued_interest: Amount = None
    total_order_im: Amount = msgspec.field(name="totalOrderIM", default=None)
    total_position_im: Amount = msgspec.field(name="totalPositionIM", default=None)
    total_position_mm: Amount = msgspec.field(name="totalPositionMM", default=None)
    unrealised_pnl: Amount = None
    cum_realised_pnl: Amount = None
    bonus: Amount = None
    collateral_switch: bool | None = None
    margin_collateral: bool | None = None
    col_res: Text = None


class WalletRow(msgspec.Struct, rename="camel", gc=False):
    """One account: its totals in US dollars, and the coins that changed."""

    UNREAD: ClassVar = (
        "accountIMRateByMp",
        "accountMMRateByMp",
        "totalInitialMarginByMp",
        "totalMaintenanceMarginByMp",
        "accountLTV",
    )

    coin: list[CoinRow]
    account_type: Text = None
    account_im_rate: Amount = msgspec.field(name="accountIMRate", default=None)
    account_mm_rate: Amount = msgspec.field(name="accountMMRate", default=None)
    total_equity: Amount = None
    total_wallet_balance: Amount = None
    total_margin_balance: Amount = None
    total_available_balance: Amount = None
    total_perp_upl: Amount = msgspec.field(name="totalPerpUPL", default=None)
    total_perp_upl_too: Amount = msgspec.field(name="totalPerpUpl", default=None)
    """The other spelling that was seen of the field before."""
    total_initial_margin: Amount = None
    total_maintenance_margin: Amount = None


class WalletMessage(msgspec.Struct, rename="camel", gc=False):
    """`wallet`."""

    UNREAD: ClassVar = ("id",)

    topic: str
    creation_time: int
    data: list[WalletRow]


class GreeksRow(msgspec.Struct, rename="camel", gc=False):
    """One element of `greeks`."""

    base_coin: str
    total_delta: Text = None
    total_gamma: Text = None
    total_vega: Text = None
    total_theta: Text = None


class GreeksMessage(msgspec.Struct, rename="camel", gc=False):
    """`greeks`."""

    UNREAD: ClassVar = ("id",)

    topic: str
    creation_time: int
    data: list[GreeksRow]
