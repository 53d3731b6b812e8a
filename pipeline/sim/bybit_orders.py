"""Bybit's arguments of orders, read into ours; its bounds; and its codes for what it does not take."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import attrs

from pipeline.sim.accounts import Order, SimulatedAccount
from pipeline.sim.bybit_rest import LEAST_VALUE, MOST
from pipeline.sim.listing import Listing
from pipeline.sim.matching import Bounds, Ending, Matching, NewOrder, OrderRefused, Problem, Rules
from pipeline.sim.trade_desk import Entry, Rejection

OPEN_PER_SYMBOL = 500
OPEN_PER_OPTION = 50
TEXTS = {
    "10000": "Server Timeout",
    "10001": "params error",
    "10002": "invalid request, please check your server timestamp or recv_window param",
    "10003": "API key is invalid.",
    "10005": "Permission denied, please check your API key permissions.",
    "10006": "Too many visits!",
    "10007": "User authentication failed.",
    "10016": "Internal server error.",
    "10019": "service is restarting",
    "10403": "Too many visits. Exceeded the API Rate Limit.",
    "10404": "op type is not found",
    "20006": "reqId is duplicated",
    "33004": "Your api key has expired.",
    "34040": "not modified",
    "110001": "order not exists or too late to cancel",
    "110007": "ab not enough for new order",
    "110008": "The order has been completed or cancelled.",
    "110010": "The order has been cancelled",
    "110017": "current position is zero, cannot fix reduce-only order qty",
    "110020": "Not allowed to have more than 500 active orders",
    "110064": "The order modified during replacing",
    "110072": "OrderLinkedID is duplicate",
    "110094": "Order does not meet minimum order value 5",
    "110119": "RPI order is only allowed for market makers",
    "170115": "Invalid timeInForce.",
    "170116": "Invalid orderType.",
    "170117": "Invalid side.",
    "170121": "Invalid symbol.",
    "170124": "Order amount too large.",
    "170130": "Data sent for paramter is not valid.",
    "170131": "Insufficient balance.",
    "170134": "Order price has too many decimals.",
    "170136": "Order quantity lower than lower limit.",
    "170137": "Order volume decimal too long",
    "170139": "Order has been filled.",
    "170140": "Order value below the lower limit",
    "170141": "Duplicate clientOrderId",
    "170142": "Order has been canceled.",
    "170213": "Order does not exist.",
    "170313": "The quantity is below what is filled.",
    "170810": "Cannot exceed maximum of 500 conditional, TP/SL and active orders.",
}
_CODES: Mapping[Problem, tuple[str, str]] = {
    "price_step": ("10001", "170134"),
    "size_step": ("10001", "170137"),
    "too_small": ("10001", "170136"),
    "too_large": ("10001", "170124"),
    "too_little_value": ("110094", "170140"),
    "duplicate": ("110072", "170141"),
    "nothing_to_reduce": ("110017", "170130"),
    "too_much_to_reduce": ("110017", "170130"),
    "too_many": ("110020", "170810"),
    "unknown": ("110001", "170213"),
    "filled": ("110008", "170139"),
    "closed": ("110010", "170142"),
    "below_filled": ("110064", "170313"),
    "unchanged": ("34040", "34040"),
    "no_market": ("110118", "170130"),
}
"""Of derivatives and of spot."""
_PARAMETERS = {
    "symbol": "170121", "side": "170117", "orderType": "170116", "timeInForce": "170115",
}  # fmt: skip
"""Spot's own codes for a wrong parameter."""
_LINK_ID = re.compile(r"[A-Za-z0-9_-]{1,36}")
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
"""So few digits that every step and bound can be checked exactly."""


def text_of(code: str) -> str:
    """What goes with a code."""
    return TEXTS.get(code, "error")


def _bounds(listing: Listing) -> Bounds:
    value, most = LEAST_VALUE.get(listing.market), MOST.get(listing.market)
    return Bounds(
        listing.lot,
        None if most is None else Decimal(most),
        # The smallest value is one of quote currency; an inverse contract is worth a dollar.
        None if value is None or listing.inverse else Decimal(value),
        OPEN_PER_OPTION if listing.market == "option" else OPEN_PER_SYMBOL,
    )


def _end(account: SimulatedAccount, order: Order, why: Ending) -> None:
    match why:
        case "post_only":
            end = account.cancel if order.filled else account.reject
            end(order.order_id, "EC_PostOnlyWillTakeLiquidity")
        case "unfilled":
            account.cancel(order.order_id, "EC_NoImmediateQtyToFill")
        case "reduced":
            account.cancel(order.order_id, "CancelByReduceOnly")


RULES = Rules(bounds=_bounds, end=_end, unique_for_ever=True, trims_reductions=True)


@attrs.frozen
class Reader:
    """Reads the objects in `args` of one category."""

    matching: Matching
    account: SimulatedAccount
    category: str

    def entry(self, action: str, args: Mapping[str, Any]) -> Entry:
        """One order; what is wrong with its arguments shows when it is dealt with."""
        acts = {"create": self._create, "amend": self._amend, "cancel": self._cancel}
        order_id = "" if action == "create" else _text(args, "orderId")
        return Entry(
            action, self.account, _text(args, "symbol"), order_id, _text(args, "orderLinkId"),
            lambda: self._translated(acts[action], args), lambda: self._meant(action, args),
        )  # fmt: skip

    def _translated(self, act: Any, args: Mapping[str, Any]) -> Order:
        try:
            order: Order = act(args)
        except OrderRefused as refused:
            code = _CODES[refused.problem][self.category == "spot"]
            raise Rejection(code, text_of(code)) from None
        return order

    def _meant(self, action: str, args: Mapping[str, Any]) -> Order | None:
        if action == "create":
            return None
        if order_id := _text(args, "orderId"):
            return self.account.orders.get(order_id)
        link_id = _text(args, "orderLinkId")
        return self.matching.latest(self.account, link_id) if link_id else None

    def _create(self, args: Mapping[str, Any]) -> Order:
        listing = self._listing(args)
        side, kind = args.get("side"), args.get("orderType")
        if side not in ("Buy", "Sell"):
            raise self._wrong("side")
        if kind not in ("Limit", "Market"):
            raise self._wrong("orderType")
        market = kind == "Market"
        force = args.get("timeInForce") or "GTC"
        if force == "RPI":
            raise Rejection("110119", text_of("110119"))
        if force not in ("GTC", "IOC", "FOK", "PostOnly") or (market and force == "PostOnly"):
            raise self._wrong("timeInForce")
        link_id = args.get("orderLinkId") or ""
        if not isinstance(link_id, str) or (link_id and not _LINK_ID.fullmatch(link_id)):
            raise self._wrong("orderLinkId")
        if self.category == "option" and not link_id:
            raise self._wrong("orderLinkId")
        if args.get("positionIdx", 0) != 0:
            raise Rejection("10001", "position idx not match position mode")
        if "triggerPrice" in args or "orderIv" in args:
            raise Rejection("10001", "params error: conditional orders and orders by volatility are not simulated")
        reduce_only = args.get("reduceOnly", False)
        if not isinstance(reduce_only, bool):
            raise self._wrong("reduceOnly")
        new = NewOrder(
            listing, str(side).lower(), str(kind).lower(), "IOC" if market and force == "GTC" else str(force),
            None if market else self._number(args, "price"), self._number(args, "qty"),
            in_quote=self._is_in_quote(args, market=market, buy=side == "Buy"), client_order_id=link_id,
            reduce_only=reduce_only and self.category != "spot",
        )  # fmt: skip
        return self.matching.create(self.account, new)

    def _is_in_quote(self, args: Mapping[str, Any], *, market: bool, buy: bool) -> bool:
        """A spot market buy is by value unless it says otherwise."""
        unit = args.get("marketUnit") or ("quoteCoin" if buy else "baseCoin")
        if unit not in ("baseCoin", "quoteCoin"):
            raise self._wrong("marketUnit")
        return self.category == "spot" and market and unit == "quoteCoin"

    def _amend(self, args: Mapping[str, Any]) -> Order:
        order = self._named(args)
        price = self._number(args, "price") if args.get("price") else None
        size = self._number(args, "qty") if args.get("qty") else None
        if price is None and size is None:
            raise Rejection("10001", "params error: nothing to amend")
        return self.matching.amend(self.account, order, price, size)

    def _cancel(self, args: Mapping[str, Any]) -> Order:
        return self.matching.cancel(self.account, self._named(args))

    def _named(self, args: Mapping[str, Any]) -> Order:
        listing = self._listing(args)
        order_id, link_id = _text(args, "orderId"), _text(args, "orderLinkId")
        if not order_id and not link_id:
            raise Rejection("10001", "params error: orderId or orderLinkId is required")
        return self.matching.find(self.account, self.category, listing.symbol, order_id, link_id)

    def _listing(self, args: Mapping[str, Any]) -> Listing:
        listing = self.matching.floor.market.find(self.category, _text(args, "symbol"))
        if listing is None:
            raise self._wrong("symbol")
        return listing

    def _number(self, args: Mapping[str, Any], name: str) -> Decimal:
        value = args.get(name)
        number = Decimal(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else Decimal(0)
        if number <= 0:
            raise self._wrong(name)
        return number

    def _wrong(self, name: str) -> Rejection:
        if self.category == "spot":
            code = _PARAMETERS.get(name, "170130")
            return Rejection(code, text_of(code))
        return Rejection("10001", f"params error: {name} invalid")


def _text(args: Mapping[str, Any], name: str) -> str:
    value = args.get(name)
    return value if isinstance(value, str) else ""
