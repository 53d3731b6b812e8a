"""Requests of order entry as OKX wants them, what of an order it could not take, and which budgets a request uses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import msgspec

from pipeline.exchanges.okx.streams import COIN_MARKETS
from pipeline.exchanges.trading import Cost, TradeItem, TradeRequest, extra_parameters
from pipeline.model.events import BASE, QUOTE, Instrument
from pipeline.model.orders import AMEND, CANCEL, CREATE, MASS_CANCEL, OrderItem
from pipeline.model.rate import Rate

BATCH = 20
"""Most orders of one request."""
OPERATIONS = {
    CREATE: ("order", "batch-orders"),
    AMEND: ("amend-order", "batch-amend-orders"),
    CANCEL: ("cancel-order", "batch-cancel-orders"),
    MASS_CANCEL: ("mass-cancel", "mass-cancel"),
}
"""The operation for one order, and for several."""
ACCOUNT_BUDGET = "new and amended orders"
"""Key of what an account may do in all markets that count together."""

# Everything is counted over 2 s, with room for the network to bunch it.
_PER_OPERATION = Rate(60, 2.1)
_PER_BATCH_OPERATION = Rate(300, 2.1)
_MASS_CANCELS = Rate(5, 2.1)
_PER_ACCOUNT = Rate(1000, 2.1)
_UNCOUNTED = frozenset({"spot", "margin"})
"""Markets whose orders the account's budget leaves out."""

_CONTRACTS = frozenset({"swap", "futures"})
_MARGIN_MODES = ("cash", "cross", "isolated", "spot_isolated")
_BORROWING = frozenset({"cross", "isolated"})
_LIMIT_ORDERS = {
    ("gtc", False): "limit",
    ("gtc", True): "post_only",
    ("ioc", False): "ioc",
    ("fok", False): "fok",
}
"""By time in force and whether it is post-only."""
_SPECIAL_ORDERS = {
    "optimal_limit_ioc": ("market", "ioc", False),
    "mmp": ("limit", "gtc", False),
    "mmp_and_post_only": ("limit", "gtc", True),
    "op_fok": ("limit", "fok", False),
    "rpi": ("limit", "gtc", True),
}
"""Types that only `ordType` of the extras can name: type, time in force and whether it is post-only."""

# Amounts, units and prices are not here: an order says them itself, where they can be checked.
EXTRAS: Mapping[str, Mapping[str, type]] = {
    CREATE: {
        "ordType": str,
        "ccy": str,
        "tag": str,
        "banAmend": bool,
        "pxAmendType": str,
        "tradeQuoteCcy": str,
        "slippagePct": str,
        "stpMode": str,
        "rpiTakerAccess": bool,
        "rpiPxRound": bool,
        "outcome": str,
        "speedBump": str,
    },
    AMEND: {
        "reqId": str,
        "cxlOnFail": bool,
        "pxAmendType": str,
        "rpiTakerAccess": bool,
        "rpiPxRound": bool,
        "speedBump": str,
    },
    CANCEL: {},
}
"""OKX's own parameters by action, with their types."""

_TEXT_CHARACTERS = 64
"""Of any one parameter: a frame that is too long would cost the connection and the orders of others on it."""
_is_client_id = re.compile(r"[A-Za-z0-9]{1,32}").fullmatch
_is_order_id = re.compile(r"[0-9]{1,32}").fullmatch
_encode = msgspec.json.Encoder().encode


def frame(request: TradeRequest) -> str:
    """The text that asks for it; its items have no `problems`."""
    message: dict[str, object] = {"id": request.id, "op": operation(request)}
    if request.action in (CREATE, AMEND):  # the others have no deadline
        message["expTime"] = str(request.not_after // 1000)
    if request.action == MASS_CANCEL:
        message["args"] = [{"instType": (request.market or "").upper(), "instFamily": request.family}]
    else:
        message["args"] = [_parameters(request.action, entry) for entry in request.items]
    return _encode(message).decode()


def operation(request: TradeRequest) -> str:
    """OKX's name of what is asked for. A batch of one goes as the operation for one, and is counted as such."""
    single, several = OPERATIONS[request.action]
    return single if len(request.items) < 2 else several


def costs(request: TradeRequest) -> list[Cost]:
    """What a request takes of the budgets: its operation's, per instrument, and often the account's."""
    name = operation(request)
    if request.action == MASS_CANCEL:
        return [Cost(name, _MASS_CANCELS)]
    rate = _PER_OPERATION if len(request.items) < 2 else _PER_BATCH_OPERATION
    counted = Counter(budget(name, entry.instrument) for entry in request.items)
    found = [Cost(key, rate, units) for key, units in counted.items()]
    if request.action != CANCEL:
        units = sum(entry.instrument.origin.market not in _UNCOUNTED for entry in request.items)
        if units:
            found.append(Cost(ACCOUNT_BUDGET, _PER_ACCOUNT, units))
    return found


def budget(operation_name: str, instrument: Instrument) -> str:
    """Key of an operation's budget: options are counted by their family."""
    origin = instrument.origin
    by = instrument.underlying if origin.market == "option" else None
    return f"{operation_name} {by or origin.instrument}"


def problems(action: str, entry: TradeItem) -> list[tuple[str, str]]:
    """Why OKX could not be asked for this, as (field, why)."""
    item = entry.item
    found = _identity_problems(action, item)
    if entry.instrument.instrument_code is None:
        found.append(("instrument", "the venue gives no code"))
    try:
        extra_parameters(item.extras, EXTRAS[action])
    except ValueError as error:
        field, _, why = str(error).partition(": ")
        found.append((field, why))
    texts = {"price": item.price or "", "size": item.size or ""}
    texts |= {f"extras.{name}": value for name, value in item.extras.items()}
    found += [
        (field, f"{len(value)} characters; more than {_TEXT_CHARACTERS} are refused")
        for field, value in texts.items()
        if len(value) > _TEXT_CHARACTERS
    ]
    if action != CANCEL and item.trigger_price is not None:
        found.append(("trigger_price", "okx takes no conditional orders over this stream"))
    if action == CREATE:
        found += _new_order_problems(entry)
    elif action == AMEND:
        if item.price is None and item.size is None:
            found.append(("size", "neither a new size nor a new price is given"))
        found += _unit_problems(entry, entry.instrument.size_unit)
    return found


def _identity_problems(action: str, item: OrderItem) -> list[tuple[str, str]]:
    found = []
    if item.client_order_id is not None and not _is_client_id(item.client_order_id):
        found.append(("client_order_id", "okx wants 1 to 32 letters and digits"))
    if action == CREATE:
        if item.client_order_id is None:
            found.append(("client_order_id", "an order without one could not be looked up"))
    elif item.order_id is None and item.client_order_id is None:
        found.append(("client_order_id", "neither this nor order_id tells which order is meant"))
    if item.order_id is not None and not _is_order_id(item.order_id):
        found.append(("order_id", "okx numbers its orders"))
    return found


def _new_order_problems(entry: TradeItem) -> list[tuple[str, str]]:
    item, market = entry.item, entry.instrument.origin.market
    found = []
    if item.side not in ("buy", "sell"):
        found.append(("side", f"{item.side!r} is neither buy nor sell"))
    if _order_word(entry) is None:
        wanted = [item.order_type, item.time_in_force, "post-only" if item.is_post_only else None]
        wanted.append(item.extras.get("ordType"))
        found.append(("order_type", f"okx has no such order in market {market}: {' '.join(filter(None, wanted))}"))
    if item.order_type == "limit" and item.price is None:
        found.append(("price", "a limit order needs one"))
    if item.order_type == "market" and item.price is not None:
        found.append(("price", "a market order has none"))
    if item.size is None:
        found.append(("size", "an order needs one"))
    if item.margin_mode is not None and item.margin_mode not in _MARGIN_MODES:
        found.append(("margin_mode", f"{item.margin_mode!r} is none of {', '.join(_MARGIN_MODES)}"))
    if item.position_side not in (None, "long", "short"):
        found.append(("position_side", f"{item.position_side!r} is neither long nor short"))
    elif item.position_side is not None and market not in _CONTRACTS:
        found.append(("position_side", "only swaps and futures have sides"))
    if item.is_reduce_only and not (market in _CONTRACTS or _on_margin(entry)):
        found.append(("is_reduce_only", "okx knows it for swaps, futures and margin only"))
    return found + _new_size_problems(entry)


def _new_size_problems(entry: TradeItem) -> list[tuple[str, str]]:
    item, unit = entry.item, entry.instrument.size_unit
    if item.order_type != "market" or entry.instrument.origin.market not in COIN_MARKETS:
        return _unit_problems(entry, unit)
    if _on_margin(entry):
        # tgtCcy may not count for these: then a purchase is in quote currency, a sale in base currency.
        return _unit_problems(entry, QUOTE, explicit=True) if item.side == "buy" else _unit_problems(entry, unit)
    return [] if item.size_unit == QUOTE else _unit_problems(entry, unit)


def _unit_problems(entry: TradeItem, unit: str, *, explicit: bool = False) -> list[tuple[str, str]]:
    given = entry.item.size_unit
    if given == unit or (given is None and not explicit):
        return []
    return [("size_unit", f"okx takes this size in {unit}, and {given or 'no unit'} is given")]


def _on_margin(entry: TradeItem) -> bool:
    """Whether an order for coins may be a margin order to OKX."""
    market = entry.instrument.origin.market
    return market in COIN_MARKETS and _trade_mode(entry) in _BORROWING


def _trade_mode(entry: TradeItem) -> str:
    return entry.item.margin_mode or ("cash" if entry.instrument.origin.market == "spot" else "cross")


def _order_word(entry: TradeItem) -> str | None:
    """`ordType`: OKX's one word for type, time in force and post-only; None if it has none."""
    item, market = entry.item, entry.instrument.origin.market
    if (special := item.extras.get("ordType")) is not None:
        kind, time_in_force, post_only = _SPECIAL_ORDERS.get(special, (None, None, False))
        fits = kind == item.order_type and item.time_in_force in (None, time_in_force)
        return special if kind is not None and fits and (post_only or not item.is_post_only) else None
    if item.order_type == "limit":
        return _LIMIT_ORDERS.get((item.time_in_force or "gtc", item.is_post_only))
    if item.order_type != "market" or item.is_post_only or market == "option":
        return None
    if item.time_in_force == "ioc":
        # What a market order for contracts cannot fill at once rests at the edge of the price limit.
        return "optimal_limit_ioc" if market in _CONTRACTS else "market"
    return "market" if item.time_in_force is None else None


def _parameters(action: str, entry: TradeItem) -> dict[str, object]:
    """The `args` entry of one order."""
    item = entry.item
    found: dict[str, object | None] = {"instIdCode": entry.instrument.instrument_code}
    if action == CREATE:
        found |= _new_order(entry)
    else:
        named = {"ordId": item.order_id} if item.order_id is not None else {"clOrdId": item.client_order_id}
        found |= named
        if action == AMEND:
            found |= {"newSz": item.size, "newPx": item.price}
    found |= extra_parameters(item.extras, EXTRAS[action])
    return {name: value for name, value in found.items() if value is not None}


def _new_order(entry: TradeItem) -> dict[str, object | None]:
    item = entry.item
    # Without it OKX takes the size of a purchase for quote currency, that of a sale for base currency.
    is_spot_market = item.order_type == "market" and entry.instrument.size_unit == BASE
    return {
        "tdMode": _trade_mode(entry),
        "clOrdId": item.client_order_id,
        "side": item.side,
        "posSide": item.position_side,
        "ordType": _order_word(entry),
        "px": item.price,
        "sz": item.size,
        "reduceOnly": item.is_reduce_only or None,
        "tgtCcy": ("quote_ccy" if item.size_unit == QUOTE else "base_ccy") if is_spot_market else None,
    }
