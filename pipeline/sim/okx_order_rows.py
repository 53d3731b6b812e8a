"""Orders and fills as OKX prints them: the rows that private channels and REST share."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pipeline.sim.accounts import Fill, Order, SimulatedAccount
from pipeline.sim.listing import Listing
from pipeline.sim.okx_account_rows import LEVERAGE, millis, notional_usd, settle_coin, shown
from pipeline.sim.okx_streams import plain

BILL_BASE = 680 * 10**15
"""What a bill's number is above its trade's."""

_NOTHING = Decimal(0)
_STATES = {"new": "live", "cancelled": "canceled", "rejected": "canceled", "expired": "canceled"}
_KINDS = {"GTC": "limit", "IOC": "ioc", "FOK": "fok", "PostOnly": "post_only"} | {
    "MMP": "mmp", "MMPPostOnly": "mmp_and_post_only",
}  # fmt: skip
_WEBSOCKET_ONLY = frozenset(
    {
        "amendResult", "amendSource", "code", "execType", "fillFee", "fillFeeCcy", "fillFwdPx", "fillIdxPx",
        "fillMarkPx", "fillMarkVol", "fillNotionalUsd", "fillPnl", "fillPxUsd", "fillPxVol", "lastPx", "msg",
        "notionalUsd", "reqId",
    }
)  # fmt: skip
"""Fields of an order that REST does not print."""


def order_state(order: Order) -> str:
    """OKX's word for where an order stands."""
    return _STATES.get(order.status, order.status)


def order_type(order: Order) -> str:
    """OKX's one word for an order's type and how long it is good."""
    return "market" if order.order_type == "market" else _KINDS.get(order.time_in_force, "limit")


def sub_type(fill: Fill) -> str:
    """OKX's number for a bill of a purchase or a sale."""
    return "1" if fill.side == "buy" else "2"


def order_row(account: SimulatedAccount, order: Order, fill: Fill | None) -> dict[str, Any]:
    """A row of orders; `fill` is the one that this update is about."""
    listing = account.market.find(order.market, order.symbol)
    spot = order.market == "SPOT"
    coin = "" if listing is None else settle_coin(listing)
    paid_in = coin or _spot_coin(listing, received=order.side == "buy")
    charged = sum((fee for fee in order.fees.values() if fee > 0 or not spot), _NOTHING)
    rebated = -sum((fee for fee in order.fees.values() if fee < 0 and spot), _NOTHING)
    price = order.price if order.price is not None else order.average_price or _NOTHING
    worth = _NOTHING if listing is None else notional_usd(account.market, listing, price, order.size)
    last = "" if listing is None else plain(listing.tick * account.market.engine(listing).last)
    return {
        "accFillSz": plain(order.filled),
        "algoClOrdId": "",
        "algoId": "",
        "amendResult": "",
        "amendSource": "",
        "avgPx": plain(order.average_price or _NOTHING),
        "cancelSource": _cancel_source(order),
        "category": "normal",
        "ccy": coin,
        "clOrdId": order.client_order_id,
        "code": "0",
        "cTime": millis(order.created_us),
        "execType": "",
        "fee": shown(-charged),
        "feeCcy": paid_in,
        "fillFee": "0",
        "fillFeeCcy": "",
        "fillNotionalUsd": "",
        "fillPx": "",
        "fillSz": "0",
        "fillPnl": "0",
        "fillTime": "",
        "fillPxVol": "",
        "fillPxUsd": "",
        "fillMarkVol": "",
        "fillFwdPx": "",
        "fillMarkPx": "",
        "fillIdxPx": "",
        "instId": order.symbol,
        "instType": order.market,
        "lever": "" if spot else str(LEVERAGE),
        "msg": "",
        "notionalUsd": shown(worth),
        "ordId": order.order_id,
        "ordType": order_type(order),
        "pnl": shown(order.pnl),
        "posSide": "" if spot else "net",
        "px": "" if order.price is None else plain(order.price),
        "pxUsd": "",
        "pxVol": "",
        "pxType": "px" if order.market == "OPTION" else "",
        "quickMgnType": "",
        "rebate": shown(rebated),
        "rebateCcy": coin or _spot_coin(listing, received=order.side == "sell"),
        "reduceOnly": "true" if order.reduce_only else "false",
        "reqId": "",
        "side": order.side,
        "attachAlgoClOrdId": "",
        "slOrdPx": "",
        "slTriggerPx": "",
        "slTriggerPxType": "",
        "source": "",
        "state": order_state(order),
        "stpId": "",
        "stpMode": "cancel_maker",
        "sz": plain(order.quote_size or order.size),
        "tag": "",
        "tdMode": "cash" if spot else "cross",
        "tgtCcy": ("quote_ccy" if order.quote_size else "base_ccy") if spot and order.order_type == "market" else "",
        "tpOrdPx": "",
        "tpTriggerPx": "",
        "tpTriggerPxType": "",
        "attachAlgoOrds": [],
        "tradeId": "",
        "tradeQuoteCcy": listing.quote if listing is not None and spot else "",
        "lastPx": last,
        "uTime": millis(order.updated_us),
        "isTpLimit": "false",
        "linkedAlgoOrd": {"algoId": ""},
    } | (_filled(account, listing, fill) if fill is not None else {})


def amended_row(row: dict[str, Any]) -> dict[str, Any]:
    """As `row`, for the update that tells a successful amendment."""
    return row | {"amendResult": "0", "amendSource": "1"}


def rest_order_row(account: SimulatedAccount, order: Order, last_fill: Fill | None) -> dict[str, Any]:
    """An order over REST, where the fields of a fill mean its last one."""
    row = order_row(account, order, last_fill)
    return {key: value for key, value in row.items() if key not in _WEBSOCKET_ONLY} | {"cancelSourceReason": ""}


def fill_row(fill: Fill) -> dict[str, Any]:
    """A row of the fills channel. It prints client order identifiers only if they are numbers."""
    client = fill.order.client_order_id if fill.order is not None else ""
    number = int(client) if client.isdecimal() and len(client) < 20 else 0
    return {
        "instId": fill.symbol,
        "fillSz": plain(fill.size),
        "fillPx": plain(fill.price),
        "side": fill.side,
        "ts": millis(fill.time_us),
        "ordId": fill.order.order_id if fill.order is not None else "",
        "clOrdId": str(number) if 0 < number < 2**63 else "0",
        "tradeId": fill.fill_id,
        "execType": "M" if fill.maker else "T",
        "count": "1",
    }


def bill_id(fill: Fill) -> str:
    """What REST pages fills by; it rises with time."""
    return str(BILL_BASE + int(fill.fill_id))


def rest_fill_row(account: SimulatedAccount, fill: Fill) -> dict[str, Any]:
    """A fill over REST."""
    listing = account.market.find(fill.market, fill.symbol)
    derivative = fill.market != "SPOT"
    return {
        "side": fill.side,
        "fillSz": plain(fill.size),
        "fillPx": plain(fill.price),
        "fillPxVol": "",
        "fillFwdPx": "",
        "fee": shown(-fill.fee),
        "fillPnl": shown(fill.pnl),
        "ordId": fill.order.order_id if fill.order is not None else "",
        "feeRate": plain(-fill.fee_rate),
        "instType": fill.market,
        "fillPxUsd": "",
        "instId": fill.symbol,
        "clOrdId": fill.order.client_order_id if fill.order is not None else "",
        "posSide": "net",
        "billId": bill_id(fill),
        "subType": sub_type(fill),
        "fillMarkVol": "",
        "tag": "",
        "fillTime": millis(fill.time_us),
        "execType": "M" if fill.maker else "T",
        "fillIdxPx": "",
        "tradeId": fill.fill_id,
        "fillMarkPx": plain(fill.mark) if derivative and fill.mark is not None else "",
        "feeCcy": fill.fee_coin,
        "ts": millis(fill.time_us + 1000),
        "tradeQuoteCcy": "" if derivative or listing is None else listing.quote,
    }


def _filled(account: SimulatedAccount, listing: Listing | None, fill: Fill) -> dict[str, Any]:
    spot = fill.market == "SPOT"
    engine = None if listing is None else account.market.engine(listing)
    worth = _NOTHING if listing is None else notional_usd(account.market, listing, fill.price, fill.size)
    index = plain(listing.tick * engine.index) if listing is not None and engine is not None else ""
    return {
        "execType": "M" if fill.maker else "T",
        "fillFee": shown(-fill.fee),
        "fillFeeCcy": fill.fee_coin,
        "fillNotionalUsd": shown(worth),
        "fillPx": plain(fill.price),
        "fillSz": plain(fill.size),
        "fillPnl": shown(fill.pnl),
        "fillTime": millis(fill.time_us),
        "fillMarkPx": "" if spot or fill.mark is None else plain(fill.mark),
        "fillIdxPx": "" if spot else index,
        "tradeId": fill.fill_id,
    }


def _spot_coin(listing: Listing | None, *, received: bool) -> str:
    if listing is None:
        return ""
    return listing.base if received else listing.quote


def _cancel_source(order: Order) -> str:
    """OKX's number for why an order ended; the account may have been told one."""
    if order.status not in ("cancelled", "rejected", "expired"):
        return ""
    if order.reason:
        return order.reason
    if order.status == "expired":
        return {"FOK": "13", "IOC": "14"}.get(order.time_in_force, "10")
    if order.status == "rejected":
        return "31" if order.time_in_force == "PostOnly" else "3"
    return "1"
