"""What OKX sends of our accounts, as types; what `wire` says holds here.

Members that are empty most of the time are text whatever they mean: as numbers they would send most messages the
slow way.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from pipeline.exchanges.okx.wire import Long, Millis, Push, Text


class BalanceDetail(Struct, gc=False):
    """One currency of `account`."""

    UNREAD: ClassVar = ("collateralRestrict",)

    ccy: Text
    uTime: Millis | None = None
    cashBal: str = ""
    availBal: str = ""
    frozenBal: str = ""
    ordFrozen: str = ""
    eq: str = ""
    availEq: str = ""
    disEq: str = ""
    isoEq: str = ""
    stgyEq: str = ""
    eqUsd: str = ""
    coinUsdPrice: str = ""
    imr: str = ""
    mmr: str = ""
    mgnRatio: str = ""
    upl: str = ""
    isoUpl: str = ""
    liab: str = ""
    crossLiab: str = ""
    isoLiab: str = ""
    uplLiab: str = ""
    interest: str = ""
    maxLoan: str = ""
    rewardBal: str = ""
    spotInUseAmt: str = ""
    collateralEnabled: bool | None = None
    colRes: str = ""
    twap: str = ""
    fixedBal: str = ""
    frpType: str = ""
    borrowFroz: str = ""
    notionalLever: str = ""
    colBorrAutoConversion: str = ""
    smtSyncEq: str = ""
    spotCopyTradingEq: str = ""
    spotIsoBal: str = ""
    clSpotInUseAmt: str = ""
    maxSpotInUseAmt: str = ""
    spotBal: str = ""
    openAvgPx: str = ""
    accAvgPx: str = ""
    spotUpl: str = ""
    spotUplRatio: str = ""
    totalPnl: str = ""
    totalPnlRatio: str = ""
    autoLendStatus: str = ""
    autoLendMtAmt: str = ""


class AccountRow(Struct, gc=False):
    """`account`: the whole account in US dollars, and some of its currencies."""

    uTime: Millis
    details: list[BalanceDetail] = []
    totalEq: str = ""
    isoEq: str = ""
    adjEq: str = ""
    availEq: str = ""
    ordFroz: str = ""
    imr: str = ""
    mmr: str = ""
    mgnRatio: str = ""
    notionalUsd: str = ""
    upl: str = ""
    delta: str = ""
    deltaLever: str = ""
    borrowFroz: str = ""
    notionalUsdForBorrow: str = ""
    notionalUsdForSwap: str = ""
    notionalUsdForFutures: str = ""
    notionalUsdForOption: str = ""
    deltaNeutralStatus: str = ""


class CloseOrder(Struct, gc=False, omit_defaults=True):
    """An algo order that closes a position."""

    algoId: str = ""
    slTriggerPx: str = ""
    slTriggerPxType: str = ""
    tpTriggerPx: str = ""
    tpTriggerPxType: str = ""
    closeFraction: str = ""


class PositionRow(Struct, gc=False):
    """`positions`, `liquidation-warning`, and `posData` of `balance_and_position`."""

    UNREAD: ClassVar = (
        "pTime",
        "baseBal",
        "baseBorrowed",
        "baseInterest",
        "quoteBal",
        "quoteBorrowed",
        "quoteInterest",
    )

    instId: Text
    pos: Text
    uTime: Millis
    instType: str = ""
    posId: str = ""
    posSide: str = ""
    posCcy: str = ""
    mgnMode: str = ""
    ccy: str = ""
    availPos: str = ""
    hedgedPos: str = ""
    avgPx: str = ""
    nonSettleAvgPx: str = ""
    bePx: str = ""
    markPx: str = ""
    last: str = ""
    idxPx: str = ""
    usdPx: str = ""
    liqPx: str = ""
    lever: str = ""
    notionalUsd: str = ""
    optVal: str = ""
    imr: str = ""
    mmr: str = ""
    margin: str = ""
    mgnRatio: str = ""
    liab: str = ""
    liabCcy: str = ""
    interest: str = ""
    upl: str = ""
    uplRatio: str = ""
    uplLastPx: str = ""
    uplRatioLastPx: str = ""
    realizedPnl: str = ""
    pnl: str = ""
    settledPnl: str = ""
    fee: str = ""
    fundingFee: str = ""
    liqPenalty: str = ""
    adl: str = ""
    tradeId: str = ""
    deltaBS: str = ""
    gammaBS: str = ""
    vegaBS: str = ""
    thetaBS: str = ""
    deltaPA: str = ""
    gammaPA: str = ""
    vegaPA: str = ""
    thetaPA: str = ""
    cTime: str = ""
    closeOrderAlgo: list[CloseOrder] = []
    pendingCloseOrdLiabVal: str = ""
    spotInUseAmt: str = ""
    spotInUseCcy: str = ""
    clSpotInUseAmt: str = ""
    maxSpotInUseAmt: str = ""
    bizRefId: str = ""
    bizRefType: str = ""


class CashRow(Struct, gc=False):
    """`balData` of `balance_and_position`."""

    ccy: Text
    cashBal: Text
    uTime: Millis


class BalanceAndPositionRow(Struct, gc=False):
    """`balance_and_position`."""

    UNREAD: ClassVar = ("pTime", "trades")

    eventType: str = ""
    balData: list[CashRow] = []
    posData: list[PositionRow] = []


class GreeksRow(Struct, gc=False):
    """`account-greeks`."""

    ccy: Text
    ts: Millis
    deltaBS: str = ""
    gammaBS: str = ""
    vegaBS: str = ""
    thetaBS: str = ""
    deltaPA: str = ""
    gammaPA: str = ""
    vegaPA: str = ""
    thetaPA: str = ""


class Accounts(Push, gc=False):
    """A push of `account`: one page of a snapshot, or changes."""

    data: list[AccountRow]
    eventType: str = ""
    curPage: Long | None = None
    lastPage: bool = True


class Positions(Push, gc=False):
    """A push of `positions`: one page of a snapshot, or changes."""

    data: list[PositionRow]
    eventType: str = ""
    curPage: Long | None = None
    lastPage: bool = True


class BalancesAndPositions(Push, gc=False):
    """A push of `balance_and_position`."""

    data: list[BalanceAndPositionRow]


class LiquidationWarnings(Push, gc=False):
    """A push of `liquidation-warning`."""

    data: list[PositionRow]


class Greeks(Push, gc=False):
    """A push of `account-greeks`."""

    data: list[GreeksRow]
