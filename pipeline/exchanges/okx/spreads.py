"""Our orders and fills in spreads: `sprd-orders`, `sprd-trades`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from pipeline.exchanges.okx.account import extras, negated, text
from pipeline.exchanges.okx.orders import LIQUIDITY, STATUSES, failure, order_type, remaining, with_new_fills
from pipeline.exchanges.okx.streams import COIN_MARKETS, SPREAD, Listing, Stream, amounts
from pipeline.exchanges.okx.topics import market_of, micros
from pipeline.exchanges.okx.wire_orders import SpreadLeg, SpreadOrderRow, SpreadOrders, SpreadTradeRow, SpreadTrades
from pipeline.model.account import Fill, Order
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Event, Micros

WHOLE, SPOT_LEG, FUTURE_LEG = "combination", "spot_leg", "future_leg"
_FILLED = "filled"
_ORDER_EXTRAS = ("pendingFillSz", "pendingSettleSz", "canceledSz")
_TRADE_EXTRAS = ("state", "code", "msg")


def spread_orders(stream: Stream, push: SpreadOrders, receive_time: Micros) -> list[Event]:
    """Orders in spreads, each followed by its new fill, which comes again with fees and legs over `sprd-trades`."""

    def found() -> Iterator[tuple[Order, str, Callable[[], Fill]]]:
        for row in push.data:
            listing = stream.listings.get(SPREAD, row.sprdId, receive_time)
            order = _order(stream, listing, row, receive_time)
            yield order, row.tradeId, partial(_early_fill, order, listing, row)

    return with_new_fills(stream, found())


def spread_trades(stream: Stream, push: SpreadTrades, receive_time: Micros) -> list[Event]:
    """Fills in spreads, each followed by its legs; what did not settle has the venue's word for its kind."""
    events: list[Event] = []
    for row in push.data:
        events.append(_fill(stream, row, receive_time))
        events += (_leg(stream, row, leg, receive_time) for leg in row.legs)
    return events


def _order(stream: Stream, listing: Listing, row: SpreadOrderRow, receive_time: Micros) -> Order:
    kind, time_in_force, is_post_only = order_type(row.ordType)
    return Order(
        listing.origin,
        Micros(row.uTime * 1000),
        receive_time,
        None,
        stream.channel,
        False,
        row.ordId,
        STATUSES.get(row.state, row.state),
        row.state,
        row.side,
        kind,
        listing.size_unit,
        listing.size_unit,
        client_order_id=row.clOrdId or None,
        tag=row.tag or None,
        leg_kind=WHOLE,
        venue_order_type=row.ordType,
        time_in_force=time_in_force,
        price=text(row.px),
        size=text(row.sz),
        filled_size=text(row.accFillSz),
        remaining_size=text(row.pendingFillSz) or remaining(row.sz, row.accFillSz, row.state),
        # The average of a spread may be 0; without fills it means nothing.
        average_price=text(row.avgPx) if row.accFillSz.strip("0.") else None,
        is_post_only=is_post_only,
        cancel_reason=row.cancelSource or None,
        reject_reason=failure(row.code),
        reject_message=row.msg or None,
        request_id=row.reqId or None,
        amend_result=row.amendResult or None,
        created_time=micros(row.cTime) if row.cTime else None,
        extras=extras(row, _ORDER_EXTRAS),
    )


def _early_fill(order: Order, listing: Listing, row: SpreadOrderRow) -> Fill:
    base_size, quote_size = amounts(listing, row.fillSz)
    return Fill(
        listing.origin,
        order.exchange_time,
        order.receive_time,
        None,
        order.channel,
        False,
        row.tradeId,
        row.side,
        DecimalText(row.fillPx),
        DecimalText(row.fillSz),
        listing.size_unit,
        is_fast=True,
        order_id=row.ordId,
        client_order_id=order.client_order_id,
        tag=order.tag,
        leg_kind=WHOLE,
        base_size=base_size,
        quote_size=quote_size,
        remaining_size=order.remaining_size,
        order_price=order.price,
        order_size=order.size,
        order_type=order.order_type,
    )


def _fill(stream: Stream, row: SpreadTradeRow, receive_time: Micros) -> Fill:
    listing = stream.listings.get(SPREAD, row.sprdId, receive_time)
    base_size, quote_size = amounts(listing, row.fillSz)
    return Fill(
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
        "trade" if row.state == _FILLED else row.state,
        order_id=row.ordId or None,
        client_order_id=row.clOrdId or None,
        tag=row.tag or None,
        leg_kind=WHOLE,
        base_size=base_size,
        quote_size=quote_size,
        liquidity=LIQUIDITY.get(row.execType),
        extras=extras(row, _TRADE_EXTRAS),
    )


def _leg(stream: Stream, row: SpreadTradeRow, leg: SpreadLeg, receive_time: Micros) -> Fill:
    """A leg; its `sz` is in coin or dollars, as the spread's, and `szCont` in contracts."""
    market = market_of("", leg.instId)
    listing = stream.listings.get(market, leg.instId, receive_time)
    counted = listing
    size = leg.szCont
    if not size or market in COIN_MARKETS:
        counted = stream.listings.get(SPREAD, row.sprdId, receive_time)
        size = leg.sz
    base_size, quote_size = amounts(counted, size)
    return Fill(
        listing.origin,
        Micros(row.ts * 1000),
        receive_time,
        None,
        stream.channel,
        False,
        leg.tradeId,
        leg.side,
        DecimalText(leg.px),
        DecimalText(size),
        counted.size_unit,
        "spread_leg" if row.state == _FILLED else row.state,
        order_id=row.ordId or None,
        client_order_id=row.clOrdId or None,
        parent_fill_id=row.tradeId,
        tag=row.tag or None,
        leg_kind=SPOT_LEG if market == "spot" else FUTURE_LEG,
        base_size=base_size,
        quote_size=quote_size,
        fee=negated(leg.fee),
        fee_currency=leg.feeCcy or None,
        liquidity=LIQUIDITY.get(row.execType),
        realized_pnl=text(leg.fillPnl),
    )
