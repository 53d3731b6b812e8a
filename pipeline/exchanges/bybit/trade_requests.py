"""What goes to /v5/trade: an order in the venue's words, the frame around it, and what it takes of the rate limits."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from pipeline.exchanges.bybit.private_side import RECEIVE_WINDOW
from pipeline.exchanges.trading import Cost, TradeItem, TradeRequest, extra_parameters
from pipeline.model.events import BASE, CONTRACT, QUOTE, Micros
from pipeline.model.orders import AMEND, CANCEL, CREATE, ITEM_ACTIONS, OrderItem
from pipeline.model.rate import Rate

Parameters = dict[str, str | int | bool]

MARKETS = ("spot", "linear", "inverse", "option")
"""Spreads are traded over REST alone."""
FUTURES = frozenset({"linear", "inverse"})

_SIDES = {"buy": "Buy", "sell": "Sell"}
_ORDER_TYPES = {"limit": "Limit", "market": "Market"}
_TIMES_IN_FORCE = {"gtc": "GTC", "ioc": "IOC", "fok": "FOK"}
_POSITIONS = {"long": 1, "short": 2}
_POST_ONLY = "PostOnly"

_EXITS: Mapping[str, type] = dict.fromkeys(
    ("takeProfit", "stopLoss", "tpTriggerBy", "slTriggerBy", "tpslMode", "tpLimitPrice", "slLimitPrice"), str
)
_CREATE: Mapping[str, type] = {
    **_EXITS,
    **dict.fromkeys(("tpOrderType", "slOrderType", "triggerBy", "timeInForce", "smpType"), str),
    **dict.fromkeys(("slippageToleranceType", "slippageTolerance"), str),
    "rpiTakerAccess": bool,
}
_AMEND: Mapping[str, type] = {**_EXITS, "triggerBy": str}
_CREATE_FUTURE: Mapping[str, type] = {
    **_CREATE,
    "closeOnTrigger": bool,
    "triggerDirection": int,
}
EXTRAS: Mapping[str, Mapping[str, Mapping[str, type]]] = {
    CREATE: {
        "spot": {**_CREATE, "isLeverage": int, "orderFilter": str},
        "linear": _CREATE_FUTURE,
        "inverse": _CREATE_FUTURE,
        "option": {**_CREATE, "mmp": bool},
    },
    AMEND: dict.fromkeys(MARKETS, _AMEND),
    CANCEL: {"spot": {"orderFilter": str}, "linear": {}, "inverse": {}, "option": {}},
}
"""The venue's parameters by action and market, but for those that an item has fields for, and for those that set the
price in another way (`orderIv`, `bboSideType`, `bboLevel`): no guard would see it."""

_CONDITIONAL, _PLAIN = "StopOrder", "Order"
_CLIENT_ORDER_ID = re.compile(r"[A-Za-z0-9_-]{1,36}", re.ASCII).fullmatch
_PLAIN_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?", re.ASCII).fullmatch


def frame(request: TradeRequest, time: Micros) -> str:
    """The message that asks for this at a time of the venue's clock. Raises `ValueError` for faulty extras."""
    stamp, window = validity(time, request.not_after)
    op, category = f"order.{request.action}", request.items[0].item.market
    args: dict[str, object] = {"category": category}
    if len(request.items) > 1:
        op += "-batch"
        args["request"] = [parameters(request.action, each.item) for each in request.items]
    else:
        args |= parameters(request.action, request.items[0].item)
    header = {"X-BAPI-TIMESTAMP": str(stamp), "X-BAPI-RECV-WINDOW": str(window)}
    return msgspec.json.encode({"reqId": request.id, "header": header, "op": op, "args": [args]}).decode()


def validity(time: Micros, not_after: Micros) -> tuple[int, int]:
    """Timestamp and receive window, in milliseconds.

    The venue takes a request until the sum of both. A window of 0 might mean its default: what is too late already
    gets a timestamp in the past instead.
    """
    now, end = time // 1000, not_after // 1000
    return (now, min(RECEIVE_WINDOW, end - now)) if end > now else (end - 1, 1)


def parameters(action: str, item: OrderItem) -> Parameters:
    """One order in the venue's words, without its category. Raises `ValueError` for faulty extras."""
    own = {CREATE: _new, AMEND: _changed, CANCEL: _meant}[action](item)
    extras = extra_parameters(item.extras, EXTRAS[action][item.market])
    for name in own.keys() & extras.keys():
        raise ValueError(f"extras.{name}: contradicts what the order itself says, {own[name]}")
    if action != AMEND and item.market == "spot" and item.trigger_price is not None:
        # By default the venue makes an order that is in the market at once, and cancels among those alone.
        extras.setdefault("orderFilter", _CONDITIONAL)
    return {"symbol": item.instrument, **own, **extras}


def _new(item: OrderItem) -> Parameters:
    found: Parameters = {
        "side": _SIDES[item.side or ""],
        "orderType": _ORDER_TYPES[item.order_type or ""],
        "qty": item.size or "",
    }
    if item.price is not None:
        found["price"] = item.price
    if item.is_post_only:
        found["timeInForce"] = _POST_ONLY
    elif item.time_in_force is not None:
        found["timeInForce"] = _TIMES_IN_FORCE[item.time_in_force]
    found["orderLinkId"] = item.client_order_id or ""
    if item.position_side is not None:
        found["positionIdx"] = _POSITIONS[item.position_side]
    if item.is_reduce_only:
        found["reduceOnly"] = True
    if item.market == "spot" and item.order_type == "market":
        # Always said: without it, the venue reads the size of a market order to buy as a value.
        found["marketUnit"] = "quoteCoin" if item.size_unit == QUOTE else "baseCoin"
    if item.trigger_price is not None:
        found["triggerPrice"] = item.trigger_price
    return found


def _meant(item: OrderItem) -> Parameters:
    """Which order an amendment or a cancellation means: one name of it, and the same by which it is looked up."""
    return {"orderLinkId": item.client_order_id} if item.client_order_id else {"orderId": item.order_id or ""}


def _changed(item: OrderItem) -> Parameters:
    changes = {"qty": item.size, "price": item.price, "triggerPrice": item.trigger_price}
    return {**_meant(item), **{name: value for name, value in changes.items() if value is not None}}


def problems(action: str, trade: TradeItem) -> list[tuple[str, str]]:
    """Why the venue could not even be asked, as (field, why)."""
    item = trade.item
    if item.market not in MARKETS:
        return [("market", f"bybit takes no orders for {item.market} on this stream, only for {', '.join(MARKETS)}")]
    found = [*_name_problems(action, item), *_number_problems(item), *_unit_problems(trade)]
    if item.margin_mode is not None:
        found.append(("margin_mode", "bybit has one for the whole account, not one per order"))
    if item.trigger_price is not None and item.market == "option":
        found.append(("trigger_price", "bybit has no conditional orders for options"))
    if action == CREATE:
        found += [*_word_problems(item), *_time_problems(item), *_position_problems(item), *_trigger_problems(item)]
    if not found:
        try:
            parameters(action, item)
        except ValueError as error:
            field, _, why = str(error).partition(": ")
            found.append((field, why))
    return found


def _name_problems(action: str, item: OrderItem) -> list[tuple[str, str]]:
    name = item.client_order_id
    if name is not None and not _CLIENT_ORDER_ID(name):
        return [("client_order_id", f"{name!r} is not of 1 to 36 of bybit's characters: A-Z a-z 0-9 _ -")]
    if action == CREATE and name is None:
        return [("client_order_id", "is missing: without it nobody could find out what became of the order")]
    if name is None and not item.order_id:
        return [("client_order_id", "is missing, and order_id as well: which order is meant?")]
    return []


def _number_problems(item: OrderItem) -> list[tuple[str, str]]:
    numbers = {"price": item.price, "size": item.size, "trigger_price": item.trigger_price}
    return [
        (field, f"{text!r} must be written without an exponent")
        for field, text in numbers.items()
        if text is not None and not _PLAIN_NUMBER(text)
    ]


def _unit_problems(trade: TradeItem) -> list[tuple[str, str]]:
    item = trade.item
    units = {trade.instrument.size_unit}
    if item.market == "inverse":
        units |= {CONTRACT, QUOTE}  # a contract is worth one of the quote currency
    elif item.market == "spot" and item.order_type == "market":
        units |= {BASE, QUOTE}
    if item.size_unit is None or item.size_unit in units:
        return []
    return [("size_unit", f"bybit takes {' or '.join(sorted(units))} for this order, not {item.size_unit}")]


def _word_problems(item: OrderItem) -> list[tuple[str, str]]:
    words = (
        ("side", item.side, _SIDES, True),
        ("order_type", item.order_type, _ORDER_TYPES, True),
        ("time_in_force", item.time_in_force, _TIMES_IN_FORCE, False),
        ("position_side", item.position_side, _POSITIONS, False),
    )
    found = [
        (field, f"{value!r} is none of {', '.join(known)}" if value is not None else "is missing")
        for field, value, known, is_required in words
        if value not in known and (is_required or value is not None)
    ]
    if item.size is None:
        found.append(("size", "is missing"))
    if item.price is None and item.order_type == "limit":
        found.append(("price", "is missing"))
    if item.price is not None and item.order_type == "market":
        found.append(("price", "a market order has none"))
    return found


def _time_problems(item: OrderItem) -> list[tuple[str, str]]:
    is_market = item.order_type == "market"
    if item.is_post_only and is_market:
        return [("is_post_only", "a market order takes at once")]
    if item.is_post_only and item.time_in_force in ("ioc", "fok"):
        return [("is_post_only", f"contradicts time_in_force {item.time_in_force}, which rests never")]
    if is_market and item.time_in_force in ("gtc", "fok"):
        return [("time_in_force", f"bybit executes market orders as ioc, never as {item.time_in_force}")]
    return []


def _position_problems(item: OrderItem) -> list[tuple[str, str]]:
    found = []
    if item.is_reduce_only and item.market == "spot":
        found.append(("is_reduce_only", "spot has no positions to reduce"))
    if item.position_side is not None and item.market not in FUTURES:
        found.append(("position_side", f"bybit has no hedge mode for {item.market}"))
    return found


def _trigger_problems(item: OrderItem) -> list[tuple[str, str]]:
    extras = item.extras
    if item.trigger_price is None:
        # Without a price to wait for, the order would be in the market at once.
        meant = extras.keys() & {"triggerDirection", "triggerBy"}
        if extras.get("orderFilter", _PLAIN) != _PLAIN:
            meant.add("orderFilter")
        return [("trigger_price", f"is missing, but there is extras.{name}") for name in sorted(meant)]
    if item.market in FUTURES and "triggerDirection" not in extras:
        why = "is missing: 1 triggers when the price rises to trigger_price, 2 when it falls to it"
        return [("extras.triggerDirection", why)]
    if item.market == "spot" and extras.get("orderFilter") == _PLAIN:
        return [("extras.orderFilter", f"{_PLAIN} ignores trigger_price; leave it out, or say {_CONDITIONAL}")]
    return []


def batch_size(action: str, market: str) -> int:
    """Most items of one request: what the venue takes, but not more than its rate limit lets through at once."""
    if action not in ITEM_ACTIONS or market not in MARKETS:
        return 0
    if market == "option":
        return 20  # counted as one
    return 10 if market == "spot" else min(20, _rate(action, market, is_batch=True).count)


def cost(request: TradeRequest) -> Cost:
    """What a request takes of the account's budget, at the rates of accounts without a tier.

    Batches have budgets of their own and count each of their orders, those of options as one.
    """
    market, count = request.items[0].item.market, len(request.items)
    group = "futures" if market in FUTURES else market
    operation = f"{request.action}-batch" if count > 1 else request.action
    rate = _rate(request.action, market, is_batch=count > 1)
    return Cost(f"{operation} {group}", rate, 1 if market == "option" else count)


def _rate(action: str, market: str, *, is_batch: bool) -> Rate:
    return Rate(20 if market == "spot" and (is_batch or action != AMEND) else 10, 1.0)
