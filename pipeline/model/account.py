"""Events of an account of ours: orders, fills, positions, balances. What `events` says about attributes holds here.

Signs are one over the venues: fees are positive when paid, profits when made. A venue that writes it otherwise has
its text negated, digit by digit. What only one venue has and nobody computes with is in `extras`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pipeline.model.decimals import DecimalText
from pipeline.model.header import Event, Micros


class AccountEvent(Event):
    """What every event of an account carries; its `origin` has the `account`."""

    channel: str
    """The venue's channel; of a snapshot by query, the channel that it completes."""
    is_snapshot: bool
    """Part of the whole state, as found after a (re)connect or repeated by the venue, instead of a change."""


class Order(AccountEvent):
    """An order of ours as it stands after a change, or as a query after a (re)connect found it."""

    KIND = "order"
    IDENTITY = (
        "venue",
        "account",
        "market",
        "instrument",
        "order_id",
        "exchange_time",
        "venue_status",
        "filled_size",
        "price",
        "size",
        "cancel_reason",
        "request_id",
    )

    order_id: str
    status: str
    """new, partially_filled, filled, cancelled, rejected, untriggered, triggered or expired;
    else the venue's own word.
    """
    venue_status: str
    side: str
    """"buy" or "sell"."""
    order_type: str
    """"market" or "limit"; else the venue's own word in lower case."""
    size_unit: str
    """Unit of `size` and `remaining_size`; quote for spot market orders given by value."""
    filled_size_unit: str
    """Unit of `filled_size`."""
    client_order_id: str | None = None
    parent_order_id: str | None = None
    parent_client_order_id: str | None = None
    algo_order_id: str | None = None
    """Of the algo order that placed this one."""
    algo_client_order_id: str | None = None
    linked_order_id: str | None = None
    block_trade_id: str | None = None
    tag: str | None = None
    position_side: str | None = None
    """"long" or "short" in hedge mode, None in one-way mode."""
    leg_kind: str | None = None
    """combination, spot_leg or future_leg of a spread."""
    venue_order_type: str | None = None
    time_in_force: str | None = None
    """"gtc", "ioc" or "fok"; else the venue's own word in lower case."""
    price: DecimalText | None = None
    size: DecimalText | None = None
    filled_size: DecimalText | None = None
    """So far."""
    remaining_size: DecimalText | None = None
    average_price: DecimalText | None = None
    filled_value: DecimalText | None = None
    """In quote currency; inverse: base."""
    usd_value: DecimalText | None = None
    fees: Mapping[str, DecimalText] = msgspec.field(default_factory=dict)
    """Currency to amount so far. Positive: paid (Bybit's own sign, OKX's negated); negative: received."""
    rebates: Mapping[str, DecimalText] = msgspec.field(default_factory=dict)
    """Currency to amount so far, beside the fees. Positive: received."""
    realized_pnl: DecimalText | None = None
    is_post_only: bool | None = None
    is_reduce_only: bool | None = None
    is_close_on_trigger: bool | None = None
    is_leveraged: bool | None = None
    """Whether a spot order may borrow."""
    margin_mode: str | None = None
    """cash, cross, isolated or spot_isolated."""
    margin_currency: str | None = None
    leverage: DecimalText | None = None
    trigger_price: DecimalText | None = None
    trigger_price_type: str | None = None
    """"last", "index" or "mark"."""
    trigger_direction: str | None = None
    """"rise" or "fall"."""
    trigger_time: Micros | None = None
    stop_order_type: str | None = None
    """The venue's own word: "TakeProfit", "conditional"."""
    callback_ratio: DecimalText | None = None
    """Distance of a trailing stop, as a fraction."""
    callback_spread: DecimalText | None = None
    take_profit_price: DecimalText | None = None
    """What triggers it; as in `stop_loss_price`."""
    take_profit_limit_price: DecimalText | None = None
    """None: a market order."""
    take_profit_price_type: str | None = None
    stop_loss_price: DecimalText | None = None
    stop_loss_limit_price: DecimalText | None = None
    stop_loss_price_type: str | None = None
    exit_mode: str | None = None
    """"full" or "partial": how much of the position take-profit and stop-loss close."""
    created_by: str | None = None
    """The venue's own word: "CreateByUser", "adl"."""
    cancel_reason: str | None = None
    """The venue's own word or code."""
    reject_reason: str | None = None
    reject_message: str | None = None
    request_id: str | None = None
    """Of the amendment that this answers."""
    amend_source: str | None = None
    amend_result: str | None = None
    self_match_prevention: str | None = None
    """The venue's own word: "CancelMaker", "cancel_maker"."""
    self_match_group: int | None = None
    self_match_order_id: str | None = None
    price_type: str | None = None
    """What an option order is priced in, the venue's own word."""
    implied_volatility: float | None = None
    usd_price: DecimalText | None = None
    slippage_tolerance_type: str | None = None
    slippage_tolerance: DecimalText | None = None
    is_rpi_taker: bool | None = None
    rpi_filled_size: DecimalText | None = None
    created_time: Micros | None = None
    extras: Mapping[str, str] = msgspec.field(default_factory=dict)


class Fill(AccountEvent):
    """A trade of ours, or another booking that the venue lists among them; `kind` tells."""

    KIND = "fill"
    IDENTITY = ("venue", "account", "market", "instrument", "fill_id", "order_id", "is_fast")

    fill_id: str
    """Unique per instrument at least."""
    side: str
    """Ours: "buy" or "sell"."""
    price: DecimalText
    size: DecimalText
    size_unit: str
    kind: str = "trade"
    """trade, funding, liquidation, adl, delivery, settlement, block, move_position, spread_leg or corporate_action;
    else the venue's own word.
    """
    is_fast: bool = False
    """From a channel that is early and incomplete: no fees, and the same fill comes again."""
    order_id: str | None = None
    client_order_id: str | None = None
    parent_fill_id: str | None = None
    block_trade_id: str | None = None
    tag: str | None = None
    position_side: str | None = None
    leg_kind: str | None = None
    base_size: DecimalText | None = None
    quote_size: DecimalText | None = None
    value: DecimalText | None = None
    """In quote currency; inverse: base."""
    usd_value: DecimalText | None = None
    fee: DecimalText | None = None
    """Positive: paid (Bybit's own sign, OKX's negated); negative: received. Of kind funding: the funding."""
    fee_currency: str | None = None
    fee_rate: DecimalText | None = None
    """A fraction, of the sign of `fee`."""
    extra_fees: Mapping[str, DecimalText] = msgspec.field(default_factory=dict)
    """"type.subtype.currency" to amount. Positive: paid."""
    liquidity: str | None = None
    """"maker" or "taker"."""
    realized_pnl: DecimalText | None = None
    closed_size: DecimalText | None = None
    remaining_size: DecimalText | None = None
    match_count: int | None = None
    order_price: DecimalText | None = None
    order_size: DecimalText | None = None
    order_type: str | None = None
    """As in `Order`."""
    stop_order_type: str | None = None
    created_by: str | None = None
    implied_volatility: float | None = None
    mark_implied_volatility: float | None = None
    mark_price: DecimalText | None = None
    index_price: DecimalText | None = None
    underlying_price: DecimalText | None = None
    forward_price: DecimalText | None = None
    usd_price: DecimalText | None = None
    extras: Mapping[str, str] = msgspec.field(default_factory=dict)


class Position(AccountEvent):
    """A position of ours as it stands; what a channel does not carry is None, so compare positions of one channel."""

    KIND = "position"
    IDENTITY = (
        "venue",
        "account",
        "market",
        "instrument",
        "channel",
        "position_id",
        "position_side",
        "margin_mode",
        "exchange_time",
        "sequence",
        "side",
        "size",
        "mark_price",
        "unrealized_pnl",
    )

    side: str
    """"long", "short" or "flat"."""
    size: DecimalText
    """Absolute; 0 if flat."""
    size_unit: str
    position_id: str | None = None
    position_side: str | None = None
    """"long" or "short" in hedge mode, also of a flat position; None in one-way mode."""
    margin_mode: str | None = None
    """"cross" or "isolated"."""
    margin_currency: str | None = None
    """Of margin, profit and loss."""
    base_size: DecimalText | None = None
    available_size: DecimalText | None = None
    hedged_size: DecimalText | None = None
    entry_price: DecimalText | None = None
    session_entry_price: DecimalText | None = None
    """Since the last settlement."""
    original_entry_price: DecimalText | None = None
    """Regardless of settlements."""
    break_even_price: DecimalText | None = None
    mark_price: DecimalText | None = None
    last_price: DecimalText | None = None
    index_price: DecimalText | None = None
    usd_price: DecimalText | None = None
    """Of the margin currency."""
    liquidation_price: DecimalText | None = None
    """An estimate under cross margin."""
    leverage: DecimalText | None = None
    value: DecimalText | None = None
    usd_value: DecimalText | None = None
    option_value: DecimalText | None = None
    initial_margin: DecimalText | None = None
    maintenance_margin: DecimalText | None = None
    isolated_margin: DecimalText | None = None
    margin_ratio: DecimalText | None = None
    liability: DecimalText | None = None
    liability_currency: str | None = None
    interest: DecimalText | None = None
    unrealized_pnl: DecimalText | None = None
    """By the mark price."""
    unrealized_pnl_ratio: DecimalText | None = None
    last_unrealized_pnl: DecimalText | None = None
    """By the last price."""
    last_unrealized_pnl_ratio: DecimalText | None = None
    realized_pnl: DecimalText | None = None
    """`close_pnl` + `settled_pnl` less the fees and the penalty, since the position was opened."""
    cumulative_realized_pnl: DecimalText | None = None
    """By all positions in the instrument."""
    close_pnl: DecimalText | None = None
    settled_pnl: DecimalText | None = None
    fee: DecimalText | None = None
    """Positive: paid (OKX's sign negated), as `funding_fee` and `liquidation_penalty`."""
    funding_fee: DecimalText | None = None
    liquidation_penalty: DecimalText | None = None
    take_profit_price: DecimalText | None = None
    stop_loss_price: DecimalText | None = None
    trailing_stop: DecimalText | None = None
    state: str | None = None
    """The venue's own word: "Normal", "Liq", "Adl"."""
    adl_rank: int | None = None
    """Up to 5: first in line for auto-deleveraging."""
    is_reduce_only: bool | None = None
    is_auto_margin: bool | None = None
    is_liquidation_warning: bool = False
    cause: str | None = None
    """The venue's own word: "filled", "funding_fee"."""
    last_trade_id: str | None = None
    risk_id: int | None = None
    risk_limit_value: DecimalText | None = None
    delta: float | None = None
    """`delta` to `theta` and `coin_delta` to `coin_theta`: of options, as in `OptionSummary`."""
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None
    coin_delta: float | None = None
    coin_gamma: float | None = None
    coin_vega: float | None = None
    coin_theta: float | None = None
    created_time: Micros | None = None
    opened_time: Micros | None = None
    extras: Mapping[str, str] = msgspec.field(default_factory=dict)


class Balance(AccountEvent):
    """What an account holds in one currency, in that currency; without `currency` the whole account, in US dollars."""

    KIND = "balance"
    IDENTITY = (
        "venue",
        "account",
        "channel",
        "currency",
        "exchange_time",
        "total",
        "equity",
        "available",
        "unrealized_pnl",
    )

    currency: str | None
    """None for the whole account; all its amounts are in US dollars then."""
    account_type: str | None = None
    total: DecimalText | None = None
    """Cash, borrowed amounts included."""
    available: DecimalText | None = None
    locked: DecimalText | None = None
    order_locked: DecimalText | None = None
    equity: DecimalText | None = None
    """With unrealized profits and losses."""
    available_equity: DecimalText | None = None
    adjusted_equity: DecimalText | None = None
    """After the venue's discounts, in US dollars."""
    isolated_equity: DecimalText | None = None
    strategy_equity: DecimalText | None = None
    margin_balance: DecimalText | None = None
    usd_value: DecimalText | None = None
    usd_price: DecimalText | None = None
    initial_margin: DecimalText | None = None
    maintenance_margin: DecimalText | None = None
    order_initial_margin: DecimalText | None = None
    position_initial_margin: DecimalText | None = None
    initial_margin_rate: DecimalText | None = None
    maintenance_margin_rate: DecimalText | None = None
    margin_ratio: DecimalText | None = None
    unrealized_pnl: DecimalText | None = None
    isolated_unrealized_pnl: DecimalText | None = None
    cumulative_realized_pnl: DecimalText | None = None
    borrowed: DecimalText | None = None
    spot_borrowed: DecimalText | None = None
    liability: DecimalText | None = None
    cross_liability: DecimalText | None = None
    isolated_liability: DecimalText | None = None
    unrealized_pnl_liability: DecimalText | None = None
    accrued_interest: DecimalText | None = None
    max_loan: DecimalText | None = None
    bonus: DecimalText | None = None
    hedging_size: DecimalText | None = None
    is_collateral_allowed: bool | None = None
    """By the venue."""
    is_collateral_enabled: bool | None = None
    """By the account's owner."""
    collateral_restriction: str | None = None
    repayment_risk: int | None = None
    """0 to 5: forced repayment is near."""
    usd_notional: DecimalText | None = None
    usd_delta: DecimalText | None = None
    delta_leverage: DecimalText | None = None
    cause: str | None = None
    """As in `Position`."""
    extras: Mapping[str, str] = msgspec.field(default_factory=dict)


class AccountGreeks(AccountEvent):
    """The greeks of all option positions of an account in one coin, as in `OptionSummary`."""

    KIND = "account_greeks"
    IDENTITY = ("venue", "account", "currency", "exchange_time")

    currency: str
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None
    coin_delta: float | None = None
    coin_gamma: float | None = None
    coin_vega: float | None = None
    coin_theta: float | None = None


class AccountRaw(AccountEvent):
    """A message of a private channel that no kind of event is made for, as the venue sent it."""

    KIND = "account_raw"
    IDENTITY = ("venue", "account", "market", "instrument", "channel", "exchange_time", "payload_sha256")

    payload: str
    """The whole message."""
    payload_sha256: str
    """Of the payload's UTF-8 bytes, in lower-case hexadecimal."""


class SnapshotEnd(Event):
    """Not published: the venue has told the whole state behind a channel, so what it did not name is no more.

    Its `origin` names the account; `market` is None if the state covers all markets.
    """

    channel: str
    kind: str
    """The kind of event that the state consists of: "position", "balance"."""
    market: str | None = None
