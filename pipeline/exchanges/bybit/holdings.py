"""What an account holds: `position`, `wallet` and `greeks`."""

from __future__ import annotations

from pipeline.exchanges.bybit.account_wire import (
    CoinRow,
    GreeksMessage,
    PositionMessage,
    PositionRow,
    WalletMessage,
    WalletRow,
)
from pipeline.exchanges.bybit.accounts import (
    ACCOUNT,
    AccountScope,
    extras,
    filled_unit,
    nonzero,
    position_side,
    state_time,
    word,
)
from pipeline.exchanges.bybit.tickers import millis, number
from pipeline.exchanges.bybit.topics import family_of
from pipeline.model.account import AccountGreeks, Balance, Position
from pipeline.model.events import Event, Micros, Origin

_SIDES = {"Buy": "long", "Sell": "short", "": "flat"}

_Head = tuple[Origin, Micros, Micros, None, str, bool]
"""What the events of one message share, in the order of their attributes."""


def positions(
    message: PositionMessage, scope: AccountScope, receive_time: Micros, *, is_snapshot: bool = False
) -> list[Event]:
    """One event per position; raises `ValueError` for what cannot be read."""
    channel = family_of(message.topic)
    return [_position(row, scope, channel, message.creation_time, receive_time, is_snapshot) for row in message.data]


def _position(
    row: PositionRow, scope: AccountScope, channel: str, sent: int, receive_time: Micros, is_snapshot: bool
) -> Position:
    market = row.category
    side = row.side or ""
    return Position(
        scope.origin(market, row.symbol),
        state_time(row.updated_time, sent, is_snapshot=is_snapshot),
        receive_time,
        row.seq if row.seq != -1 else None,
        channel,
        is_snapshot,
        side=_SIDES.get(side, side.lower()),
        size=row.size,
        size_unit=filled_unit(market),
        position_side=position_side(row.position_idx),
        base_size=None if market == "inverse" else row.size,
        entry_price=nonzero(row.entry_price),
        session_entry_price=nonzero(row.session_avg_price),
        break_even_price=nonzero(row.break_even_price),
        mark_price=nonzero(row.mark_price),
        liquidation_price=nonzero(row.liq_price),
        leverage=row.leverage or None,
        value=row.position_value or None,
        initial_margin=row.position_im or None,
        maintenance_margin=row.position_mm or None,
        unrealized_pnl=row.unrealised_pnl or None,
        realized_pnl=row.cur_realised_pnl or None,
        cumulative_realized_pnl=row.cum_realised_pnl or None,
        take_profit_price=nonzero(row.take_profit),
        stop_loss_price=nonzero(row.stop_loss),
        trailing_stop=nonzero(row.trailing_stop),
        state=word(row.position_status),
        adl_rank=row.adl_rank_indicator,
        is_reduce_only=row.is_reduce_only,
        is_auto_margin=None if row.auto_add_margin is None else bool(row.auto_add_margin),
        risk_id=row.risk_id or None,
        risk_limit_value=nonzero(row.risk_limit_value),
        delta=number(row.delta or ""),
        gamma=number(row.gamma or ""),
        vega=number(row.vega or ""),
        theta=number(row.theta or ""),
        created_time=millis(row.created_time or ""),
        opened_time=Micros(row.open_time * 1000) if row.open_time else None,
        extras=extras(
            (
                ("positionIMByMp", row.position_im_by_mp),
                ("positionMMByMp", row.position_mm_by_mp),
                ("mmrSysUpdatedTime", row.mmr_sys_updated_time),
                ("leverageSysUpdatedTime", row.leverage_sys_updated_time),
            )
        ),
    )


def balances(
    message: WalletMessage, scope: AccountScope, receive_time: Micros, *, is_snapshot: bool = False
) -> list[Event]:
    """The whole account, then the coins that changed, of a snapshot all that it has."""
    head: _Head = (
        scope.origin(ACCOUNT, None),
        Micros(message.creation_time * 1000),
        receive_time,
        None,
        family_of(message.topic),
        is_snapshot,
    )
    events: list[Event] = []
    for row in message.data:
        events.append(_whole(row, head))
        events += (_coin(coin, row.account_type, head) for coin in row.coin)
    return events


def _whole(row: WalletRow, head: _Head) -> Balance:
    return Balance(
        *head,
        currency=None,
        account_type=row.account_type or None,
        total=row.total_wallet_balance or None,
        available=row.total_available_balance or None,
        equity=row.total_equity or None,
        margin_balance=row.total_margin_balance or None,
        initial_margin=row.total_initial_margin or None,
        maintenance_margin=row.total_maintenance_margin or None,
        initial_margin_rate=row.account_im_rate or None,
        maintenance_margin_rate=row.account_mm_rate or None,
        unrealized_pnl=row.total_perp_upl or row.total_perp_upl_too or None,
    )


def _coin(coin: CoinRow, account_type: str | None, head: _Head) -> Balance:
    return Balance(
        *head,
        currency=coin.coin,
        account_type=account_type or None,
        total=coin.wallet_balance or None,
        locked=coin.locked or None,
        equity=coin.equity or None,
        usd_value=coin.usd_value or None,
        maintenance_margin=coin.total_position_mm or None,
        order_initial_margin=coin.total_order_im or None,
        position_initial_margin=coin.total_position_im or None,
        unrealized_pnl=coin.unrealised_pnl or None,
        cumulative_realized_pnl=coin.cum_realised_pnl or None,
        borrowed=coin.borrow_amount or None,
        spot_borrowed=coin.spot_borrow or None,
        accrued_interest=coin.accrued_interest or None,
        bonus=coin.bonus or None,
        hedging_size=coin.spot_hedging_qty or None,
        is_collateral_allowed=coin.margin_collateral,
        is_collateral_enabled=coin.collateral_switch,
        collateral_restriction=coin.col_res or None,
    )


def greeks(
    message: GreeksMessage, scope: AccountScope, receive_time: Micros, *, is_snapshot: bool = False
) -> list[Event]:
    """One event per coin; raises `ValueError` for what is no number."""
    origin, time = scope.origin(ACCOUNT, None), Micros(message.creation_time * 1000)
    return [
        AccountGreeks(
            origin,
            time,
            receive_time,
            None,
            family_of(message.topic),
            is_snapshot,
            row.base_coin,
            number(row.total_delta or ""),
            number(row.total_gamma or ""),
            number(row.total_vega or ""),
            number(row.total_theta or ""),
        )
        for row in message.data
    ]
