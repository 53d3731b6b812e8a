"""Balances, positions and greeks of an account."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from pipeline.exchanges.okx.conditions import number
from pipeline.exchanges.okx.streams import ACCOUNT, Stream, amounts
from pipeline.exchanges.okx.topics import market_of, micros
from pipeline.exchanges.okx.wire_account import (
    AccountRow,
    Accounts,
    BalanceDetail,
    BalancesAndPositions,
    CloseOrder,
    Greeks,
    LiquidationWarnings,
    PositionRow,
    Positions,
)
from pipeline.model.account import AccountGreeks, Balance, Position, SnapshotEnd
from pipeline.model.decimals import DecimalText, exact_negation
from pipeline.model.events import Event, Micros, Origin

SNAPSHOT = "snapshot"
NO_TRADE = "0"
"""`tradeId` of a position after a liquidation."""

_NARROWED_BY = ('"instFamily":', '"instId":', '"ccy":')
"""Members of a topic that leave out some of a market's positions or of an account's currencies."""
_ACCOUNT_EXTRAS = (
    "borrowFroz",
    "notionalUsdForBorrow",
    "notionalUsdForSwap",
    "notionalUsdForFutures",
    "notionalUsdForOption",
    "deltaNeutralStatus",
)
_BALANCE_EXTRAS = (
    "fixedBal",
    "frpType",
    "borrowFroz",
    "notionalLever",
    "colBorrAutoConversion",
    "smtSyncEq",
    "spotCopyTradingEq",
    "spotIsoBal",
    "clSpotInUseAmt",
    "maxSpotInUseAmt",
    "spotBal",
    "openAvgPx",
    "accAvgPx",
    "spotUpl",
    "spotUplRatio",
    "totalPnl",
    "totalPnlRatio",
    "autoLendStatus",
    "autoLendMtAmt",
)
_POSITION_EXTRAS = (
    "posCcy",
    "pendingCloseOrdLiabVal",
    "spotInUseAmt",
    "spotInUseCcy",
    "clSpotInUseAmt",
    "maxSpotInUseAmt",
    "bizRefId",
    "bizRefType",
)
_encode = msgspec.json.Encoder(order="deterministic").encode


def balances(stream: Stream, push: Accounts, receive_time: Micros) -> list[Event]:
    """The whole account and its currencies; of a snapshot when its last page has come. What it leaves out is zero."""
    rows, is_snapshot = _paged(stream, push)
    events: list[Event] = []
    if rows:
        # Each page repeats the account; the last one is the latest.
        events.append(_whole(stream, rows[-1], is_snapshot, receive_time))
    origin = stream.listing.origin
    for row in rows:
        events += (
            _balance(origin, stream.channel, detail, row.uTime, is_snapshot, receive_time) for detail in row.details
        )
    return events + _ends(stream, Balance, receive_time) if is_snapshot and push.eventType else events


def positions(stream: Stream, push: Positions, receive_time: Micros) -> list[Event]:
    """Positions; of a snapshot when its last page has come. What it does not mention is closed."""
    rows, is_snapshot = _paged(stream, push)
    events: list[Event] = [_position(stream, row, is_snapshot, receive_time) for row in rows]
    return events + _ends(stream, Position, receive_time) if is_snapshot and push.eventType else events


def balances_and_positions(stream: Stream, push: BalancesAndPositions, receive_time: Micros) -> list[Event]:
    """Cash and sizes of positions: the earliest news of both, with their cause."""
    origin = stream.listing.origin
    events: list[Event] = []
    for row in push.data:
        is_snapshot = row.eventType == SNAPSHOT
        cause = None if is_snapshot else row.eventType or None
        events += (
            Balance(
                origin,
                Micros(cash.uTime * 1000),
                receive_time,
                None,
                stream.channel,
                is_snapshot,
                cash.ccy,
                total=DecimalText(cash.cashBal),
                cause=cause,
            )
            for cash in row.balData
        )
        events += (_position(stream, data, is_snapshot, receive_time, cause=cause) for data in row.posData)
        if is_snapshot:
            events += _ends(stream, Balance, receive_time) + _ends(stream, Position, receive_time)
    return events


def liquidation_warnings(stream: Stream, push: LiquidationWarnings, receive_time: Micros) -> list[Event]:
    """Positions near liquidation."""
    return [_position(stream, row, False, receive_time, is_warning=True) for row in push.data]


def greeks(stream: Stream, push: Greeks, receive_time: Micros) -> list[Event]:
    """Greeks by coin."""
    return [
        AccountGreeks(
            stream.listing.origin,
            Micros(row.ts * 1000),
            receive_time,
            None,
            stream.channel,
            False,
            row.ccy,
            number(row.deltaBS),
            number(row.gammaBS),
            number(row.vegaBS),
            number(row.thetaBS),
            number(row.deltaPA),
            number(row.gammaPA),
            number(row.vegaPA),
            number(row.thetaPA),
        )
        for row in push.data
    ]


def _paged(stream: Stream, push: Accounts | Positions) -> tuple[list[Any], bool]:
    """The rows that are complete now, and whether they are a whole snapshot.

    Raises `ValueError` for a page that does not follow on; the snapshot is then lost as a whole.
    """
    if push.eventType != SNAPSHOT:
        # Before the type was sent, the first push was the snapshot.
        return push.data, not push.eventType and not stream.messages
    page, last, held = push.curPage or 1, stream.page, stream.pages
    stream.page, stream.pages = 0, []
    if page == 1:
        held = []
    elif page != last + 1:
        raise ValueError(f"page {page} of a snapshot after page {last}")
    held += push.data
    if push.lastPage:
        return held, True
    stream.page, stream.pages = page, held
    return [], False


def _ends(stream: Stream, kind: type[Balance | Position], receive_time: Micros) -> list[Event]:
    """The end of a complete snapshot; none where the topic is about a part of a market or of the currencies."""
    if any(name in stream.topic for name in _NARROWED_BY):
        return []
    origin = stream.listing.origin
    market = origin.market if origin.market != ACCOUNT else None
    return [SnapshotEnd(origin, None, receive_time, None, stream.channel, kind.KIND, market)]


def _whole(stream: Stream, row: AccountRow, is_snapshot: bool, receive_time: Micros) -> Balance:
    return Balance(
        stream.listing.origin,
        Micros(row.uTime * 1000),
        receive_time,
        None,
        stream.channel,
        is_snapshot,
        None,
        equity=text(row.totalEq),
        available_equity=text(row.availEq),
        adjusted_equity=text(row.adjEq),
        isolated_equity=text(row.isoEq),
        order_locked=text(row.ordFroz),
        initial_margin=text(row.imr),
        maintenance_margin=text(row.mmr),
        margin_ratio=text(row.mgnRatio),
        unrealized_pnl=text(row.upl),
        usd_notional=text(row.notionalUsd),
        usd_delta=text(row.delta),
        delta_leverage=text(row.deltaLever),
        extras=extras(row, _ACCOUNT_EXTRAS),
    )


def _balance(
    origin: Origin, channel: str, row: BalanceDetail, millis: int, is_snapshot: bool, receive_time: Micros
) -> Balance:
    return Balance(
        origin,
        Micros((millis if row.uTime is None else row.uTime) * 1000),
        receive_time,
        None,
        channel,
        is_snapshot,
        row.ccy,
        total=text(row.cashBal),
        available=text(row.availBal),
        locked=text(row.frozenBal),
        order_locked=text(row.ordFrozen),
        equity=text(row.eq),
        available_equity=text(row.availEq),
        adjusted_equity=text(row.disEq),
        isolated_equity=text(row.isoEq),
        strategy_equity=text(row.stgyEq),
        usd_value=text(row.eqUsd),
        usd_price=text(row.coinUsdPrice),
        initial_margin=text(row.imr),
        maintenance_margin=text(row.mmr),
        margin_ratio=text(row.mgnRatio),
        unrealized_pnl=text(row.upl),
        isolated_unrealized_pnl=text(row.isoUpl),
        liability=text(row.liab),
        cross_liability=text(row.crossLiab),
        isolated_liability=text(row.isoLiab),
        unrealized_pnl_liability=text(row.uplLiab),
        accrued_interest=text(row.interest),
        max_loan=text(row.maxLoan),
        bonus=text(row.rewardBal),
        hedging_size=text(row.spotInUseAmt),
        is_collateral_enabled=row.collateralEnabled,
        collateral_restriction=row.colRes or None,
        repayment_risk=whole(row.twap),
        extras=extras(row, _BALANCE_EXTRAS),
    )


def _position(
    stream: Stream,
    row: PositionRow,
    is_snapshot: bool,
    receive_time: Micros,
    *,
    cause: str | None = None,
    is_warning: bool = False,
) -> Position:
    market = row.instType.lower() or market_of(stream.channel, row.instId)
    listing = stream.listings.get(market, row.instId, receive_time)
    size = DecimalText(row.pos.removeprefix("-"))
    side = _side(row)
    take_profit, stop_loss = _exits(row.closeOrderAlgo)
    beyond = extras(row, _POSITION_EXTRAS)
    if row.closeOrderAlgo:
        beyond["closeOrderAlgo"] = as_json(row.closeOrderAlgo)
    return Position(
        listing.origin,
        Micros(row.uTime * 1000),
        receive_time,
        None,
        stream.channel,
        is_snapshot,
        side,
        size,
        listing.size_unit,
        position_id=row.posId or None,
        position_side=hedge_side(row.posSide),
        margin_mode=row.mgnMode or None,
        margin_currency=row.ccy or None,
        base_size=amounts(listing, size)[0],
        available_size=text(row.availPos.removeprefix("-")),
        hedged_size=text(row.hedgedPos),
        entry_price=text(row.avgPx),
        original_entry_price=text(row.nonSettleAvgPx),
        break_even_price=text(row.bePx),
        mark_price=text(row.markPx),
        last_price=text(row.last),
        index_price=text(row.idxPx),
        usd_price=text(row.usdPx),
        liquidation_price=text(row.liqPx),
        leverage=text(row.lever),
        usd_value=text(row.notionalUsd),
        option_value=text(row.optVal),
        initial_margin=text(row.imr),
        maintenance_margin=text(row.mmr),
        isolated_margin=text(row.margin),
        margin_ratio=text(row.mgnRatio),
        liability=text(row.liab),
        liability_currency=row.liabCcy or None,
        interest=text(row.interest),
        unrealized_pnl=text(row.upl),
        unrealized_pnl_ratio=text(row.uplRatio),
        last_unrealized_pnl=text(row.uplLastPx),
        last_unrealized_pnl_ratio=text(row.uplRatioLastPx),
        realized_pnl=text(row.realizedPnl),
        close_pnl=text(row.pnl),
        settled_pnl=text(row.settledPnl),
        fee=negated(row.fee),
        funding_fee=negated(row.fundingFee),
        liquidation_penalty=negated(row.liqPenalty),
        take_profit_price=take_profit,
        stop_loss_price=stop_loss,
        adl_rank=whole(row.adl),
        is_liquidation_warning=is_warning,
        cause=cause,
        last_trade_id=row.tradeId if row.tradeId and row.tradeId != NO_TRADE else None,
        delta=number(row.deltaBS),
        gamma=number(row.gammaBS),
        vega=number(row.vegaBS),
        theta=number(row.thetaBS),
        coin_delta=number(row.deltaPA),
        coin_gamma=number(row.gammaPA),
        coin_vega=number(row.vegaPA),
        coin_theta=number(row.thetaPA),
        created_time=micros(row.cTime) if row.cTime else None,
        extras=beyond,
    )


def _side(row: PositionRow) -> str:
    """Whether it is long, short or flat: by its hedge side, on margin by its currency, else by the sign."""
    if Decimal(row.pos).is_zero():
        return "flat"
    if row.posSide in ("long", "short"):
        return row.posSide
    if row.posCcy:
        return "long" if row.posCcy == row.instId.partition("-")[0] else "short"
    return "short" if row.pos.startswith("-") else "long"


def _exits(orders: list[CloseOrder]) -> tuple[DecimalText | None, DecimalText | None]:
    """What triggers take-profit and stop-loss, where it is one price each."""
    take_profits = {order.tpTriggerPx for order in orders if order.tpTriggerPx}
    stop_losses = {order.slTriggerPx for order in orders if order.slTriggerPx}
    return (
        DecimalText(take_profits.pop()) if len(take_profits) == 1 else None,
        DecimalText(stop_losses.pop()) if len(stop_losses) == 1 else None,
    )


def hedge_side(value: str) -> str | None:
    """Which of the two positions of hedge mode; None in net mode."""
    return value if value in ("long", "short") else None


def whole(value: str) -> int | None:
    """A small count, None for an empty text. Raises `ValueError`."""
    if not value:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) <= 9):
        raise ValueError(f"{value[:40]!r} is no count")
    return int(value)


def text(value: str) -> DecimalText | None:
    """A decimal number, None for an empty text."""
    return DecimalText(value) if value else None


def negated(value: str) -> DecimalText | None:
    """A number that OKX counts the other way: its fees are negative when paid."""
    return exact_negation(value) if value else None


def extras(row: msgspec.Struct, names: Iterable[str]) -> dict[str, str]:
    """The members of these names that are set."""
    return {name: value for name in names if (value := getattr(row, name))}


def as_json(rows: object) -> str:
    """Compact JSON, for extras that are no plain text."""
    return _encode(rows).decode()
