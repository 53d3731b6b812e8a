"""OKX's arguments of orders, read into ours; its bounds; and its codes for what it does not take."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import attrs

from pipeline.sim.accounts import Order, SimulatedAccount
from pipeline.sim.listing import Listing
from pipeline.sim.matching import Bounds, Ending, Matching, NewOrder, OrderRefused, Problem, Rules
from pipeline.sim.okx_streams import instrument_code
from pipeline.sim.trade_desk import Entry, Rejection

OPEN_PER_INSTRUMENT = 500
TEXTS = {
    "50004": "API endpoint request timeout.",
    "50011": "Rate limit reached. Please refer to API documentation and throttle requests accordingly.",
    "50014": "Parameter instIdCode can not be empty.",
    "50026": "System error. Try again later",
    "50036": "The expTime can't be earlier than the current system time. Please adjust the expTime and try again.",
    "50061": "You've reached the maximum order rate limit for this account.",
    "50120": "This API key doesn't have permission to use this function.",
    "51001": "Instrument ID, Instrument ID code, or Spread ID doesn't exist.",
    "51003": "Either client order ID or order ID is required.",
    "51004": "Order failed. The number of open orders exceeds the limit.",
    "51008": "Order failed. Insufficient USDT balance in account",
    "51010": "Request unsupported under current account mode.",
    "51016": "Client order ID already exists.",
    "51020": "Your order should meet or exceed the minimum order amount.",
    "51111": "Maximum order limit for a batch request is exceeded.",
    "51112": "The size of your close order exceeds the available position.",
    "51121": "Order quantity must be a multiple of the lot size.",
    "51149": "Order timed out. Please try again later.",
    "51169": "Order failed because you don't have any positions in this direction to reduce or close.",
    "51400": "Cancellation failed as the order has been filled, canceled or does not exist.",
    "51401": "Cancellation failed as the order is already canceled.",
    "51402": "Cancellation failed as the order is already completed.",
    "51503": "Your order has already been filled or canceled.",
    "51509": "Modification failed as the order has been canceled.",
    "51510": "Modification failed as the order has been completed.",
    "51603": "Order does not exist.",
    "54008": "This operation is disabled by the 'mass cancel order' endpoint.",
}
KINDS = {
    "limit": "GTC", "market": "IOC", "post_only": "PostOnly", "fok": "FOK", "ioc": "IOC",
    "optimal_limit_ioc": "IOC", "mmp": "MMP", "mmp_and_post_only": "MMPPostOnly",
}  # fmt: skip
"""Order types, and how long each is good."""
MARKET_KINDS = ("market", "optimal_limit_ioc")
MMP_FORCES = ("MMP", "MMPPostOnly")
_PROBLEMS: Mapping[Problem, str] = {
    "size_step": "51121",
    "too_small": "51020",
    "too_large": "51101",
    "too_little_value": "51020",
    "duplicate": "51016",
    "nothing_to_reduce": "51169",
    "too_much_to_reduce": "51112",
    "too_many": "51004",
    "unknown": "51603",
    "unchanged": "51000",
    "below_filled": "51000",
    "price_step": "51000",
    "no_market": "51006",
}
_ENDED: Mapping[str, Mapping[Problem, str]] = {
    "cancel": {"filled": "51402", "closed": "51401", "unknown": "51400"},
    "amend": {"filled": "51510", "closed": "51509", "unknown": "51503"},
}
"""The same problems have other codes by what was asked for."""
_NAMES: Mapping[Problem, str] = {"price_step": "px", "below_filled": "newSz", "unchanged": "newPx"}
_CLIENT_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_TAG = re.compile(r"[A-Za-z0-9]{0,16}")
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
"""So few digits that every step and bound can be checked exactly."""


def text_of(code: str) -> str:
    """What goes with a code."""
    return TEXTS.get(code, "Operation failed.")


def _parameter(name: str) -> Rejection:
    return Rejection("51000", f"Parameter {name} error")


def _end(account: SimulatedAccount, order: Order, why: Ending) -> None:
    match why:
        case "post_only" if not order.filled:
            account.reject(order.order_id, "31")
        case "post_only":
            account.cancel(order.order_id, "31")
        case "unfilled":
            account.expire(order.order_id)
        case "reduced":
            account.cancel(order.order_id, "17")


RULES = Rules(
    bounds=lambda listing: Bounds(listing.lot, most_open=OPEN_PER_INSTRUMENT),
    end=_end,
    unique_for_ever=False,
    trims_reductions=False,
)


@attrs.frozen
class Reader:
    """Reads the objects in `args`."""

    matching: Matching
    account: SimulatedAccount
    locked: Callable[[Listing], bool]
    """Whether a mass-cancel keeps protected orders of the instrument's family out for now."""

    def listing(self, args: Mapping[str, Any]) -> Listing | None:
        """The instrument that is meant, by its code: names are ignored."""
        code = args.get("instIdCode")
        if type(code) is not int:
            return None
        return next(
            (each for each in self.matching.floor.market.listings.values() if instrument_code(each) == code), None
        )

    def entry(self, action: str, args: Mapping[str, Any], check: Callable[[Listing], None]) -> Entry:
        """One order; `check` may refuse it for its instrument. What is wrong shows when it is dealt with."""
        acts = {"create": self._create, "amend": self._amend, "cancel": self._cancel}
        order_id = "" if action == "create" else _text(args, "ordId")

        def act() -> Order:
            try:
                listing = self._required(args)
                check(listing)
                return acts[action](listing, args)
            except OrderRefused as refused:
                raise _rejection(action, refused.problem) from None

        listing = self.listing(args)
        symbol = "" if listing is None else listing.symbol
        return Entry(
            action, self.account, symbol, order_id, _text(args, "clOrdId"), act, lambda: self._meant(action, args)
        )

    def _meant(self, action: str, args: Mapping[str, Any]) -> Order | None:
        if action == "create":
            return None
        if order_id := _text(args, "ordId"):
            return self.account.orders.get(order_id)
        client_id = _text(args, "clOrdId")
        return self.matching.latest(self.account, client_id) if client_id else None

    def _required(self, args: Mapping[str, Any]) -> Listing:
        code = args.get("instIdCode")
        if code is None:
            raise Rejection("50014", text_of("50014"))
        if type(code) is not int:
            raise _parameter("instIdCode")
        listing = self.listing(args)
        if listing is None:
            raise Rejection("51001", text_of("51001"))
        return listing

    def _create(self, listing: Listing, args: Mapping[str, Any]) -> Order:
        spot = listing.market == "SPOT"
        kind, side = args.get("ordType"), args.get("side")
        self._check_account(listing, args)
        if side not in ("buy", "sell"):
            raise _parameter("side")
        if not isinstance(kind, str) or kind not in KINDS or (kind.startswith("mmp") and listing.market != "OPTION"):
            raise _parameter("ordType")
        force = KINDS[kind]
        if force in MMP_FORCES and self.locked(listing):
            raise Rejection("54008", text_of("54008"))
        client_id, tag, reduce_only = args.get("clOrdId") or "", args.get("tag") or "", args.get("reduceOnly", False)
        if not isinstance(client_id, str) or (client_id and not _CLIENT_ID.fullmatch(client_id)):
            raise _parameter("clOrdId")
        if not isinstance(tag, str) or not _TAG.fullmatch(tag):
            raise _parameter("tag")
        if not isinstance(reduce_only, bool):
            raise _parameter("reduceOnly")
        market = kind in MARKET_KINDS
        target = args.get("tgtCcy") or ("quote_ccy" if side == "buy" else "base_ccy")
        if target not in ("quote_ccy", "base_ccy"):
            raise _parameter("tgtCcy")
        new = NewOrder(
            listing, str(side), "market" if market else "limit", force, None if market else _number(args, "px"),
            _number(args, "sz"), in_quote=spot and market and target == "quote_ccy", client_order_id=client_id,
            reduce_only=reduce_only and not spot,
        )  # fmt: skip
        return self.matching.create(self.account, new)

    def _check_account(self, listing: Listing, args: Mapping[str, Any]) -> None:
        """Accounts here are in net mode and without margin for spot."""
        mode = args.get("tdMode")
        if mode not in ("cash", "cross", "isolated", "spot_isolated"):
            raise _parameter("tdMode")
        if (mode == "cash") != (listing.market == "SPOT"):
            raise Rejection("51010", text_of("51010"))
        if args.get("posSide", "net") not in ("net", ""):
            raise _parameter("posSide")

    def _amend(self, listing: Listing, args: Mapping[str, Any]) -> Order:
        order = self._named(listing, args)
        price = _number(args, "newPx") if args.get("newPx") else None
        size = _number(args, "newSz") if args.get("newSz") else None
        if price is None and size is None:
            raise _parameter("newSz")
        return self.matching.amend(self.account, order, price, size)

    def _cancel(self, listing: Listing, args: Mapping[str, Any]) -> Order:
        return self.matching.cancel(self.account, self._named(listing, args))

    def _named(self, listing: Listing, args: Mapping[str, Any]) -> Order:
        order_id, client_id = _text(args, "ordId"), _text(args, "clOrdId")
        if not order_id and not client_id:
            raise Rejection("51003", text_of("51003"))
        return self.matching.find(self.account, listing.market, listing.symbol, order_id, client_id)


def _rejection(action: str, problem: Problem) -> Rejection:
    code = _ENDED.get(action, {}).get(problem) or _PROBLEMS.get(problem, "51000")
    return _parameter(_NAMES.get(problem, problem)) if code == "51000" else Rejection(code, text_of(code))


def _text(args: Mapping[str, Any], name: str) -> str:
    value = args.get(name)
    return value if isinstance(value, str) else ""


def _number(args: Mapping[str, Any], name: str) -> Decimal:
    value = args.get(name)
    number = Decimal(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else Decimal(0)
    if number <= 0:
        raise _parameter(name)
    return number
