"""Fills as REST lists them: the same ones that `orders` brings, with the same identities."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from pipeline.exchanges.okx.account import hedge_side, negated, text
from pipeline.exchanges.okx.conditions import number
from pipeline.exchanges.okx.orders import LIQUIDITY
from pipeline.exchanges.okx.streams import Listing, amounts
from pipeline.exchanges.okx.topics import micros
from pipeline.exchanges.okx.wire import Millis, Text
from pipeline.model.account import Fill
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Micros

CHANNEL = "orders"
"""Whose fills these are."""

_KINDS: Mapping[str, range | tuple[int, ...]] = {
    "trade": (*range(1, 7), *range(410, 414)),
    "liquidation": range(100, 108),
    "delivery": (112, 113),
    "adl": range(125, 129),
    "block": range(204, 210),
    "spread_leg": range(270, 276),
    "move_position": range(324, 330),
}
_KIND_BY_TYPE = {"": "trade", **{str(number): kind for kind, numbers in _KINDS.items() for number in numbers}}
"""By `subType`; others are conversions of currencies and the like, which go by the venue's number."""


class BillRow(Struct, gc=False):
    """A row of /trade/fills."""

    instType: Text
    instId: Text
    tradeId: Text
    billId: Text
    fillPx: Text
    fillSz: Text
    side: Text
    ts: Millis
    ordId: str = ""
    clOrdId: str = ""
    tag: str = ""
    posSide: str = ""
    subType: str = ""
    execType: str = ""
    fillTime: str = ""
    fee: str = ""
    feeCcy: str = ""
    feeRate: str = ""
    fillPnl: str = ""
    fillPxVol: str = ""
    fillPxUsd: str = ""
    fillMarkVol: str = ""
    fillFwdPx: str = ""
    fillMarkPx: str = ""
    fillIdxPx: str = ""


def fill(row: BillRow, listing: Listing, receive_time: Micros) -> Fill:
    """The fill. Liquidations and auto-deleveraging have negative identifiers. Raises `ValueError`."""
    base_size, quote_size = amounts(listing, row.fillSz)
    return Fill(
        listing.origin,
        micros(row.fillTime) if row.fillTime else Micros(row.ts * 1000),
        receive_time,
        None,
        CHANNEL,
        True,
        row.tradeId,
        row.side,
        DecimalText(row.fillPx),
        DecimalText(row.fillSz),
        listing.size_unit,
        _KIND_BY_TYPE.get(row.subType, row.subType),
        order_id=row.ordId or None,
        client_order_id=row.clOrdId or None,
        tag=row.tag or None,
        position_side=hedge_side(row.posSide),
        base_size=base_size,
        quote_size=quote_size,
        fee=negated(row.fee),
        fee_currency=row.feeCcy or None,
        fee_rate=negated(row.feeRate),
        liquidity=LIQUIDITY.get(row.execType),
        realized_pnl=text(row.fillPnl),
        implied_volatility=number(row.fillPxVol),
        mark_implied_volatility=number(row.fillMarkVol),
        mark_price=text(row.fillMarkPx),
        index_price=text(row.fillIdxPx),
        forward_price=text(row.fillFwdPx),
        usd_price=text(row.fillPxUsd),
    )
