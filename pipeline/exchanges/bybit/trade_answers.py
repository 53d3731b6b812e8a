"""What /v5/trade answers: which codes leave open what happened, and what is told about our rate limits."""

from __future__ import annotations

from typing import Any

from pipeline.exchanges.bybit.trade_requests import cost
from pipeline.exchanges.trading import Answer, ItemAnswer, ReportedLimit, TradeRequest
from pipeline.model.events import Micros
from pipeline.model.orders import ErrorClass

ACCEPTED, LATE, RESTARTING = 0, 10002, 10019
"""Of `retCode`: taken; a timestamp outside of its window; new requests are wanted on another connection."""

RATE_LIMITED = frozenset({429, 10006, 10018, 10403, 10429, 20003, 30035, 170005, 170222})

_DUPLICATES = frozenset({10014, 20006, 110030, 110072, 170141})
"""A request, or the name of an order, that the venue has seen before: it may be ours."""
_OPEN = (
    frozenset({429, 10000, 10006, 10016, 10019, 10403, 10429, 20003, 500000})
    | {170001, 170005, 170007, 170032, 170146, 170147, 170234, 170310}
    | {40004}  # the order changed while it was being replaced
    | _DUPLICATES
)
"""Time-outs, overload and restarts, in which the request may have been carried out all the same."""
_CLOSED_GENERAL = frozenset(
    {10001, 10002, 10003, 10004, 10005, 10007, 10008, 10009, 10010, 10017, 10018, 10024, 10027, 10028, 10029, 10404}
)
"""Codes of the general range that say for certain that nothing was done."""
_RETRYABLE = frozenset({-1, 10002, 110063, 110066, 110071, 110074, 110079, 170191, 170212, 3100197})

_MESSAGE_CHARACTERS = 500


def read(request: TradeRequest, plain: dict[str, Any]) -> Answer:
    """What the venue said to a request. What cannot be read leaves the outcome open: it is looked up then."""
    header = plain.get("header")
    header = {name.lower(): value for name, value in header.items()} if isinstance(header, dict) else {}
    return Answer(
        request.id,
        _items(request, plain),
        out_time=_micros(header.get("timenow")),
        limits=_limits(request, header),
    )


def code_of(plain: dict[str, Any]) -> int | None:
    """The `retCode`; None if there is none."""
    return _number(plain.get("retCode"))


def verdict(code: int) -> tuple[bool | None, ErrorClass | None]:
    """Whether what was asked for was accepted (None: that is open), and the class of the error."""
    if code == ACCEPTED:
        return True, None
    is_open = code in _OPEN or (10000 <= code < 11000 and code not in _CLOSED_GENERAL)
    error_class: ErrorClass = "permanent"
    if code in RATE_LIMITED:
        error_class = "rate_limited"
    elif code in _RETRYABLE or (is_open and code not in _DUPLICATES):
        error_class = "retryable"
    return None if is_open else False, error_class


def _items(request: TradeRequest, plain: dict[str, Any]) -> tuple[ItemAnswer, ...]:
    code, message, count = code_of(plain), plain.get("retMsg"), len(request.items)
    if count == 1:
        return (_item(code, message, plain.get("data")),)
    if code != ACCEPTED:
        return tuple(_item(code, message, None) for _ in range(count))
    rows, verdicts = _listed(plain.get("data"), count), _listed(plain.get("retExtInfo"), count)
    return tuple(
        _item(_number(said.get("code")), said.get("msg"), row) for row, said in zip(rows, verdicts, strict=True)
    )


def _item(code: int | None, message: object, row: object) -> ItemAnswer:
    """`row` is an element of `data`; refused orders have an empty identifier."""
    text = message[:_MESSAGE_CHARACTERS] if isinstance(message, str) else ""
    order_id = row.get("orderId") if isinstance(row, dict) else None
    order_id = order_id if isinstance(order_id, str) and order_id else None
    if code is None:
        return ItemAnswer(None, order_id, "", text or "the answer has no code for it", "retryable")
    accepted, error_class = verdict(code)
    return ItemAnswer(accepted, order_id, str(code), text, error_class)


def _listed(value: object, count: int) -> list[dict[str, Any]]:
    """The elements of a batch's `list`, of which the two of an answer go by position; empty where one is missing."""
    rows = value.get("list") if isinstance(value, dict) else None
    rows = rows if isinstance(rows, list) and len(rows) == count else []
    return [row if isinstance(row, dict) else {} for row in rows] or [{}] * count


def _limits(request: TradeRequest, header: dict[str, object]) -> tuple[ReportedLimit, ...]:
    remaining, reset = _number(header.get("x-bapi-limit-status")), _micros(header.get("x-bapi-limit-reset-timestamp"))
    if remaining is None or reset is None:
        return ()
    return (ReportedLimit(cost(request).key, remaining, reset),)


def _micros(milliseconds: object) -> Micros | None:
    number = _number(milliseconds)
    return Micros(number * 1000) if number is not None else None


def _number(value: object) -> int | None:
    """An integer, or its text; bounded, so that times stay times."""
    if isinstance(value, str):
        digits = value.removeprefix("-")
        value = int(value) if digits.isascii() and digits.isdecimal() and len(digits) < 16 else None
    return value if type(value) is int and abs(value) < 10**15 else None
