"""Orders of an account and the fills that they bring: `orders`, `fills`, and those of algo orders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from pipeline.exchanges.okx.account import NO_TRADE, as_json, extras, hedge_side, negated, text, whole
from pipeline.exchanges.okx.conditions import number
from pipeline.exchanges.okx.streams import Listing, Stream, amounts
from pipeline.exchanges.okx.topics import market_of, micros
from pipeline.exchanges.okx.wire_orders import AlgoOrders, AlgoRow, AttachedOrder, Fills, OrderRow, Orders
from pipeline.model.account import Fill, Order
from pipeline.model.decimals import DecimalText, exact_difference
from pipeline.model.events import QUOTE, Event, Micros

MAX_FILLS = 10_000
"""Fills remembered per stream; a repetition comes soon after."""
MARKET_PRICE = "-1"
"""The limit of a triggered order that is a market order."""
LIQUIDITY = {"M": "maker", "T": "taker"}

STATUSES = {
    "live": "new",
    "partially_filled": "partially_filled",
    "filled": "filled",
    "canceled": "cancelled",
    "mmp_canceled": "cancelled",
}
_ALGO_STATUSES = {
    "live": "untriggered",
    "effective": "triggered",
    "canceled": "cancelled",
    "order_failed": "rejected",
}
_ORDER_TYPES = {
    "market": ("market", None, False),
    "limit": ("limit", "gtc", False),
    "post_only": ("limit", "gtc", True),
    "fok": ("limit", "fok", False),
    "ioc": ("limit", "ioc", False),
    "optimal_limit_ioc": ("market", "ioc", False),
    "mmp": ("limit", "gtc", False),
    "mmp_and_post_only": ("limit", "gtc", True),
    "op_fok": ("limit", "fok", False),
}
"""Type, time in force and whether it is post-only, by OKX's one word for all three."""
_FILL_KINDS = {
    "": "trade",
    "normal": "trade",
    "twap": "trade",
    "ddh": "trade",
    "adl": "adl",
    "full_liquidation": "liquidation",
    "partial_liquidation": "liquidation",
    "delivery": "delivery",
}
_FLAGS = {"true": True, "false": False}
_OPEN = ("live", "partially_filled")

_ORDER_EXTRAS = (
    "attachAlgoClOrdId",
    "tradeQuoteCcy",
    "outcome",
    "fillNotionalUsd",
    "source",
    "cancelSourceReason",
    "lastPx",
    "isTpLimit",
)
_ALGO_EXTRAS = (
    "clOrdId",
    "actualPx",
    "actualSz",
    "actualSide",
    "closeFraction",
    "last",
    "advanceOrdType",
    "amendPxOnTriggerType",
    "chaseType",
    "chaseVal",
    "maxChaseType",
    "maxChaseVal",
    "moveTriggerPx",
    "pxVar",
    "pxSpread",
    "szLimit",
    "pxLimit",
    "timeInterval",
    "count",
    "tradeQuoteCcy",
)


def orders(stream: Stream, push: Orders, receive_time: Micros) -> list[Event]:
    """Orders as they stand now, each followed by the fill that it brings, if that is new.

    A market order that is filled at last comes once more without a trade: that is no fill.
    """

    def found() -> Iterator[tuple[Order, str, Callable[[], Fill]]]:
        for row in push.data:
            listing = stream.listings.get(row.instType.lower(), row.instId, receive_time)
            order = read_order(row, listing, stream.channel, receive_time, is_snapshot=False)
            yield order, row.tradeId, partial(_order_fill, order, listing, row)

    return with_new_fills(stream, found())


def with_new_fills(stream: Stream, found: Iterable[tuple[Order, str, Callable[[], Fill]]]) -> list[Event]:
    """Orders, each followed by the fill that it brings, if that is new.

    They come with the trade's identifier and what makes the fill. A trade without one, or with 0 as positions have
    it after a liquidation, could not be told from the same trade in the listing of fills: it is left to that.
    """
    events: list[Event] = []
    new: dict[tuple[str, str, str], None] = {}
    for order, trade_id, make_fill in found:
        events.append(order)
        key = (order.origin.instrument or "", trade_id, order.order_id)
        if trade_id and trade_id != NO_TRADE and key not in stream.fills and key not in new:
            new[key] = None
            events.append(make_fill())
    remember(stream, new)
    return events


def algo_orders(stream: Stream, push: AlgoOrders, receive_time: Micros) -> list[Event]:
    """Algo orders; what they place comes over `orders`."""
    return [_algo_order(stream, row, receive_time) for row in push.data]


def fills(stream: Stream, push: Fills, receive_time: Micros) -> list[Event]:
    """Fills ahead of their orders: without fees, and the same ones come again over `orders`."""
    events: list[Event] = []
    new: dict[tuple[str, str, str], None] = {}
    for row in push.data:
        key = (row.instId, row.tradeId, row.ordId)
        if key in stream.fills or key in new:
            continue
        new[key] = None
        listing = stream.listings.get(market_of(stream.channel, row.instId), row.instId, receive_time)
        base_size, quote_size = amounts(listing, row.fillSz)
        events.append(
            Fill(
                listing.origin,
                Micros(row.ts * 1000),
                receive_time,
                None,
                stream.channel,
                False,
                row.tradeId,
                row.side,
                DecimalText(row.fillPx),
                DecimalText(row.fillSz),
                listing.size_unit,
                is_fast=True,
                order_id=row.ordId or None,
                # 0 stands for identifiers that are no number too.
                client_order_id=row.clOrdId if row.clOrdId and row.clOrdId != "0" else None,
                base_size=base_size,
                quote_size=quote_size,
                liquidity=LIQUIDITY.get(row.execType),
                match_count=whole(row.count),
            )
        )
    remember(stream, new)
    return events


def remember(stream: Stream, new: Iterable[tuple[str, str, str]]) -> None:
    """Keep the fills of a message that could be read, and forget the oldest."""
    for key in new:
        stream.fills[key] = None
    while len(stream.fills) > MAX_FILLS:
        del stream.fills[next(iter(stream.fills))]


def remaining(size: str, filled: str, state: str) -> DecimalText | None:
    """What an order still waits for; both sizes are in one unit. Raises `ArithmeticError`."""
    if state not in _OPEN:
        return DecimalText("0")
    return exact_difference(size, filled) if size and filled else None


def order_type(word: str) -> tuple[str, str | None, bool | None]:
    """Type, time in force and whether it is post-only; of an unknown word only itself."""
    return _ORDER_TYPES.get(word, (word.lower(), None, None))


def read_order(
    row: OrderRow, listing: Listing, channel: str, receive_time: Micros, *, is_snapshot: bool = True
) -> Order:
    """An order as it stands, from a push or from a query. Raises `ArithmeticError` or `ValueError`."""
    kind, time_in_force, is_post_only = order_type(row.ordType)
    size_unit = QUOTE if row.tgtCcy == "quote_ccy" else listing.size_unit
    exits: OrderRow | AttachedOrder = row
    if len(row.attachAlgoOrds) == 1 and not row.tpTriggerPx and not row.slTriggerPx:
        exits = row.attachAlgoOrds[0]
    beyond = extras(row, _ORDER_EXTRAS)
    if row.attachAlgoOrds:
        beyond["attachAlgoOrds"] = as_json(row.attachAlgoOrds)
    return Order(
        listing.origin,
        Micros(row.uTime * 1000),
        receive_time,
        None,
        channel,
        is_snapshot,
        row.ordId,
        STATUSES.get(row.state, row.state),
        row.state,
        row.side,
        kind,
        size_unit,
        listing.size_unit,
        client_order_id=row.clOrdId or None,
        algo_order_id=row.algoId or None,
        algo_client_order_id=row.algoClOrdId or None,
        linked_order_id=row.linkedAlgoOrd.algoId or None if row.linkedAlgoOrd else None,
        tag=row.tag or None,
        position_side=hedge_side(row.posSide),
        venue_order_type=row.ordType,
        time_in_force=time_in_force,
        price=text(row.px),
        size=text(row.sz),
        filled_size=text(row.accFillSz),
        remaining_size=remaining(row.sz if size_unit == listing.size_unit else "", row.accFillSz, row.state),
        average_price=text(row.avgPx) if row.avgPx != "0" else None,
        usd_value=text(row.notionalUsd),
        fees=_by_currency(row.feeCcy, negated(row.fee)),
        rebates=_by_currency(row.rebateCcy, text(row.rebate)),
        realized_pnl=text(row.pnl),
        is_post_only=is_post_only,
        is_reduce_only=_FLAGS.get(row.reduceOnly),
        margin_mode=row.tdMode or None,
        margin_currency=row.ccy or None,
        leverage=text(row.lever),
        take_profit_price=text(exits.tpTriggerPx),
        take_profit_limit_price=_limit(exits.tpOrdPx),
        take_profit_price_type=exits.tpTriggerPxType or None if exits.tpTriggerPx else None,
        stop_loss_price=text(exits.slTriggerPx),
        stop_loss_limit_price=_limit(exits.slOrdPx),
        stop_loss_price_type=exits.slTriggerPxType or None if exits.slTriggerPx else None,
        created_by=row.category or None,
        cancel_reason=row.cancelSource or None,
        reject_reason=failure(row.code),
        reject_message=row.msg or None,
        request_id=row.reqId or None,
        amend_source=row.amendSource or None,
        amend_result=row.amendResult or None,
        self_match_prevention=row.stpMode or None,
        price_type=row.pxType or None,
        implied_volatility=number(row.pxVol),
        usd_price=text(row.pxUsd),
        created_time=micros(row.cTime) if row.cTime else None,
        extras=beyond,
    )


def _order_fill(order: Order, listing: Listing, row: OrderRow) -> Fill:
    base_size, quote_size = amounts(listing, row.fillSz)
    in_one_unit = order.size_unit == listing.size_unit
    return Fill(
        listing.origin,
        micros(row.fillTime) if row.fillTime else order.exchange_time,
        order.receive_time,
        None,
        order.channel,
        False,
        row.tradeId,
        row.side,
        DecimalText(row.fillPx),
        DecimalText(row.fillSz),
        listing.size_unit,
        _FILL_KINDS.get(row.category, row.category),
        order_id=row.ordId,
        client_order_id=order.client_order_id,
        tag=order.tag,
        position_side=order.position_side,
        base_size=base_size,
        quote_size=quote_size,
        fee=negated(row.fillFee),
        fee_currency=row.fillFeeCcy or None,
        liquidity=LIQUIDITY.get(row.execType),
        realized_pnl=text(row.fillPnl),
        remaining_size=order.remaining_size,
        order_price=order.price,
        order_size=order.size if in_one_unit else None,
        order_type=order.order_type,
        created_by=order.created_by,
        implied_volatility=number(row.fillPxVol),
        mark_implied_volatility=number(row.fillMarkVol),
        mark_price=text(row.fillMarkPx),
        index_price=text(row.fillIdxPx),
        forward_price=text(row.fillFwdPx),
        usd_price=text(row.fillPxUsd),
    )


def _algo_order(stream: Stream, row: AlgoRow, receive_time: Micros) -> Order:
    listing = stream.listings.get(row.instType.lower(), row.instId, receive_time)
    changed = row.uTime or row.pTime
    beyond = extras(row, _ALGO_EXTRAS)
    if row.isTradeBorrowMode != "":
        beyond["isTradeBorrowMode"] = str(row.isTradeBorrowMode).lower()
    for name in ("ordIdList", "subAlgoIdList", "attachAlgoOrds", "advChaseParams"):
        if rows := getattr(row, name):
            beyond[name] = as_json(rows)
    price = row.ordPx or row.tpOrdPx or row.slOrdPx
    return Order(
        listing.origin,
        micros(changed) if changed else Micros(row.cTime * 1000),
        receive_time,
        None,
        stream.channel,
        False,
        row.algoId,
        _ALGO_STATUSES.get(row.state, row.state),
        row.state,
        row.side,
        "market" if price == MARKET_PRICE else "limit" if price else row.ordType.lower(),
        QUOTE if row.tgtCcy == "quote_ccy" else listing.size_unit,
        listing.size_unit,
        client_order_id=row.algoClOrdId or None,
        linked_order_id=row.linkedOrd.ordId or None if row.linkedOrd else None,
        tag=row.tag or None,
        position_side=hedge_side(row.posSide),
        venue_order_type=row.ordType,
        price=_limit(row.ordPx),
        size=text(row.sz),
        usd_value=text(row.notionalUsd),
        is_reduce_only=_FLAGS.get(row.reduceOnly),
        margin_mode=row.tdMode or None,
        margin_currency=row.ccy or None,
        leverage=text(row.lever),
        trigger_price=text(row.triggerPx or row.activePx),
        trigger_price_type=row.triggerPxType or None,
        trigger_time=micros(row.triggerTime) if row.triggerTime else None,
        stop_order_type=row.ordType,
        callback_ratio=text(row.callbackRatio),
        callback_spread=text(row.callbackSpread),
        take_profit_price=text(row.tpTriggerPx),
        take_profit_limit_price=_limit(row.tpOrdPx),
        take_profit_price_type=row.tpTriggerPxType or None if row.tpTriggerPx else None,
        stop_loss_price=text(row.slTriggerPx),
        stop_loss_limit_price=_limit(row.slOrdPx),
        stop_loss_price_type=row.slTriggerPxType or None if row.slTriggerPx else None,
        reject_reason=failure(row.failCode),
        request_id=row.reqId or None,
        amend_result=row.amendResult or None,
        created_time=Micros(row.cTime * 1000),
        extras=beyond,
    )


def failure(code: str) -> str | None:
    """An error code, None for success."""
    return code if code and code != "0" else None


def _by_currency(currency: str, amount: DecimalText | None) -> dict[str, DecimalText]:
    return {currency: amount} if currency and amount is not None else {}


def _limit(price: str) -> DecimalText | None:
    return DecimalText(price) if price and price != MARKET_PRICE else None
