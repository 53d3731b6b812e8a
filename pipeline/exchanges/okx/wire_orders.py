"""What OKX sends of our orders and fills, as types; what `wire` and `wire_account` say holds here."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from pipeline.exchanges.okx.wire import Millis, Push, Text


class AttachedOrder(Struct, gc=False, omit_defaults=True):
    """Take-profit and stop-loss that come into force with an order."""

    attachAlgoId: str = ""
    attachAlgoClOrdId: str = ""
    tpOrdKind: str = ""
    tpTriggerPx: str = ""
    tpTriggerPxType: str = ""
    tpOrdPx: str = ""
    slTriggerPx: str = ""
    slTriggerPxType: str = ""
    slOrdPx: str = ""
    sz: str = ""
    amendPxOnTriggerType: str = ""
    callbackRatio: str = ""
    callbackSpread: str = ""
    activePx: str = ""


class LinkedAlgo(Struct, gc=False):
    """`linkedAlgoOrd`."""

    algoId: str = ""


class LinkedOrder(Struct, gc=False):
    """`linkedOrd`."""

    ordId: str = ""


class OrderRow(Struct, gc=False):
    """`orders`."""

    UNREAD: ClassVar = ("stpId", "quickMgnType")

    instType: Text
    instId: Text
    ordId: Text
    side: Text
    ordType: Text
    state: Text
    uTime: Millis
    clOrdId: str = ""
    tag: str = ""
    algoId: str = ""
    algoClOrdId: str = ""
    attachAlgoClOrdId: str = ""
    posSide: str = ""
    tdMode: str = ""
    px: str = ""
    sz: str = ""
    tgtCcy: str = ""
    ccy: str = ""
    lever: str = ""
    reduceOnly: str = ""
    stpMode: str = ""
    tradeQuoteCcy: str = ""
    pxUsd: str = ""
    pxVol: str = ""
    pxType: str = ""
    outcome: str = ""
    tradeId: str = ""
    fillPx: str = ""
    fillSz: str = ""
    fillTime: str = ""
    fillFee: str = ""
    fillFeeCcy: str = ""
    fillPnl: str = ""
    execType: str = ""
    fillNotionalUsd: str = ""
    fillMarkPx: str = ""
    fillIdxPx: str = ""
    fillPxVol: str = ""
    fillPxUsd: str = ""
    fillMarkVol: str = ""
    fillFwdPx: str = ""
    accFillSz: str = ""
    avgPx: str = ""
    fee: str = ""
    feeCcy: str = ""
    rebate: str = ""
    rebateCcy: str = ""
    pnl: str = ""
    notionalUsd: str = ""
    source: str = ""
    category: str = ""
    cancelSource: str = ""
    cancelSourceReason: str = ""
    amendSource: str = ""
    amendResult: str = ""
    reqId: str = ""
    code: str = ""
    msg: str = ""
    cTime: str = ""
    lastPx: str = ""
    tpTriggerPx: str = ""
    tpTriggerPxType: str = ""
    tpOrdPx: str = ""
    slTriggerPx: str = ""
    slTriggerPxType: str = ""
    slOrdPx: str = ""
    attachAlgoOrds: list[AttachedOrder] = []
    linkedAlgoOrd: LinkedAlgo | None = None
    isTpLimit: str = ""


class AlgoRow(Struct, gc=False):
    """`orders-algo`, `algo-advance`."""

    UNREAD: ClassVar = ("ordId", "quickMgnType")

    instType: Text
    instId: Text
    algoId: Text
    side: Text
    ordType: Text
    state: Text
    cTime: Millis
    uTime: str = ""
    pTime: str = ""
    algoClOrdId: str = ""
    clOrdId: str = ""
    tag: str = ""
    posSide: str = ""
    tdMode: str = ""
    ccy: str = ""
    lever: str = ""
    sz: str = ""
    tgtCcy: str = ""
    ordPx: str = ""
    notionalUsd: str = ""
    reduceOnly: str = ""
    triggerPx: str = ""
    triggerPxType: str = ""
    triggerTime: str = ""
    activePx: str = ""
    callbackRatio: str = ""
    callbackSpread: str = ""
    tpTriggerPx: str = ""
    tpTriggerPxType: str = ""
    tpOrdPx: str = ""
    slTriggerPx: str = ""
    slTriggerPxType: str = ""
    slOrdPx: str = ""
    failCode: str = ""
    reqId: str = ""
    amendResult: str = ""
    actualPx: str = ""
    actualSz: str = ""
    actualSide: str = ""
    closeFraction: str = ""
    last: str = ""
    advanceOrdType: str = ""
    amendPxOnTriggerType: str = ""
    chaseType: str = ""
    chaseVal: str = ""
    maxChaseType: str = ""
    maxChaseVal: str = ""
    moveTriggerPx: str = ""
    pxVar: str = ""
    pxSpread: str = ""
    szLimit: str = ""
    pxLimit: str = ""
    timeInterval: str = ""
    count: str = ""
    tradeQuoteCcy: str = ""
    isTradeBorrowMode: bool | str = ""
    linkedOrd: LinkedOrder | None = None
    ordIdList: list[str] = []
    subAlgoIdList: list[str] = []
    attachAlgoOrds: list[AttachedOrder] = []
    advChaseParams: list[dict[str, str | bool]] = []


class FillRow(Struct, gc=False):
    """`fills`."""

    instId: Text
    tradeId: Text
    fillPx: Text
    fillSz: Text
    side: Text
    ts: Millis
    ordId: str = ""
    clOrdId: str = ""
    execType: str = ""
    count: str = ""


class SpreadOrderRow(Struct, gc=False):
    """`sprd-orders`."""

    sprdId: Text
    ordId: Text
    side: Text
    ordType: Text
    state: Text
    uTime: Millis
    clOrdId: str = ""
    tag: str = ""
    px: str = ""
    sz: str = ""
    fillSz: str = ""
    fillPx: str = ""
    tradeId: str = ""
    accFillSz: str = ""
    pendingFillSz: str = ""
    pendingSettleSz: str = ""
    canceledSz: str = ""
    avgPx: str = ""
    cancelSource: str = ""
    cTime: str = ""
    code: str = ""
    msg: str = ""
    reqId: str = ""
    amendResult: str = ""


class SpreadLeg(Struct, gc=False):
    """One leg of a trade in a spread."""

    instId: Text
    tradeId: Text
    px: Text
    sz: Text
    side: Text
    szCont: str = ""
    fillPnl: str = ""
    fee: str = ""
    feeCcy: str = ""


class SpreadTradeRow(Struct, gc=False):
    """`sprd-trades`."""

    sprdId: Text
    tradeId: Text
    fillPx: Text
    fillSz: Text
    side: Text
    state: Text
    ts: Millis
    ordId: str = ""
    clOrdId: str = ""
    tag: str = ""
    execType: str = ""
    legs: list[SpreadLeg] = []
    code: str = ""
    msg: str = ""


class Orders(Push, gc=False):
    """A push of `orders`."""

    data: list[OrderRow]


class AlgoOrders(Push, gc=False):
    """A push of `orders-algo` or `algo-advance`."""

    data: list[AlgoRow]


class Fills(Push, gc=False):
    """A push of `fills`."""

    data: list[FillRow]


class SpreadOrders(Push, gc=False):
    """A push of `sprd-orders`."""

    data: list[SpreadOrderRow]


class SpreadTrades(Push, gc=False):
    """A push of `sprd-trades`."""

    data: list[SpreadTradeRow]
