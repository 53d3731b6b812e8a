"""What OKX answers to requests of order entry: whether each item was accepted, refused, or may have been either."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from pipeline.exchanges.okx.trade_requests import ACCOUNT_BUDGET, budget, costs, operation
from pipeline.exchanges.okx.wire import UNREADABLE, decode_plain, leniently
from pipeline.exchanges.trading import Answer, ItemAnswer, ReportedLimit, TradeItem, TradeRequest
from pipeline.model.events import Micros
from pipeline.model.orders import CREATE, MASS_CANCEL, ErrorClass

LOG_IN = "60011"
"""The connection is not logged in, for OKX."""

_DONE, _PARTLY = "0", "2"
_OPEN = frozenset({"50004", "50026", "50042", "51149", "64007"})
"""Timeout, internal error, repeated request: the request may have been done all the same."""
_OPEN_FOR_NEW = frozenset({"50071", "51011", "51016"})
"""The identifier is taken, maybe by this very order."""
_OPERATION_LIMIT = frozenset({"50011", "60014"})
_ACCOUNT_LIMIT = frozenset({"50061"})
_RATE_LIMITED = _OPERATION_LIMIT | _ACCOUNT_LIMIT | {"50040"}
_RETRYABLE = frozenset(
    {
        "50001",  # out of service
        "50013",  # busy
        "50017",  # frozen for a moment, by deleveraging, liquidation or funding
        "50019",
        "50020",
        "50022",
        "50023",
        "50036",  # too late by the venue's clock
        "50037",
        "50046",  # under repair
        "51029",  # in settlement
        "51030",  # funding fees are being settled
        "51034",  # market maker protection has struck
        "51513",  # three amendments of this order are in progress
        "54008",  # locked after a mass-cancel
        LOG_IN,
    }
)
_PAUSE = 2_000_000
"""Microseconds in which every count of requests has started anew."""
_MESSAGE_CHARACTERS = 400


class Response(Struct):
    """An answer to one request, or the error event that takes its place."""

    id: str = ""
    op: str = ""
    code: str = ""
    msg: str = ""
    data: list[object] = []
    inTime: str = ""
    outTime: str = ""


class _Row(Struct):
    ordId: str = ""
    clOrdId: str = ""
    sCode: str = ""
    sMsg: str = ""
    subCode: str = ""
    result: bool | None = None
    """Of a mass-cancel."""


def read_response(message: bytes) -> Response | None:
    """The answer in a message, None if it is none."""
    try:
        response: Response = leniently(decode_plain(message), Response)
    except UNREADABLE:
        return None
    return response if response.id and response.code else None


def read_answer(request: TradeRequest, response: Response, venue_time: Micros) -> Answer:
    """What became of each item. Of what OKX does not tell, nothing is assumed."""
    if request.action == MASS_CANCEL:
        items = [_mass_cancel(response)]
    else:
        rows = [_row(value) for value in response.data]
        items = [_item(request, place, response, rows) for place in range(len(request.items))]
    out_time = _micros(response.outTime)
    limits = dict.fromkeys(_exhausted(request, items))
    reset = Micros((out_time or venue_time) + _PAUSE)
    return Answer(
        request.id,
        tuple(items),
        _micros(response.inTime),
        out_time,
        tuple(ReportedLimit(key, 0, reset) for key in limits),
    )


def _mass_cancel(response: Response) -> ItemAnswer:
    row = _row(response.data[0]) if response.data else None
    if response.code != _DONE:
        return _verdict(MASS_CANCEL, response.code, response.msg)
    if row is None or row.result is None:
        return _untold(response)
    if row.result:
        return ItemAnswer(True)
    return ItemAnswer(False, code=response.code, message="okx did not do it", error_class="permanent")


def _item(request: TradeRequest, place: int, response: Response, rows: list[_Row | None]) -> ItemAnswer:
    row = _row_of(request.items[place], place, rows, len(request.items))
    if row is not None and row.sCode:
        text = f"{row.sMsg} (subCode {row.subCode})" if row.subCode else row.sMsg
        return _verdict(request.action, row.sCode, text, row.ordId or None)
    if response.data or response.code in (_DONE, _PARTLY, ""):
        return _untold(response)
    return _verdict(request.action, response.code, response.msg)


def _row_of(entry: TradeItem, place: int, rows: list[_Row | None], expected: int) -> _Row | None:
    """The row of an item: the one in its place, unless that names another order; else the only one that names it."""
    if len(rows) == expected and (row := rows[place]) is not None and _names(entry, row) is not False:
        return row
    naming = [row for row in rows if row is not None and _names(entry, row)]
    return naming[0] if len(naming) == 1 else None


def _names(entry: TradeItem, row: _Row) -> bool | None:
    """Whether a row is about this order; None if it does not tell."""
    item = entry.item
    told, wanted = (row.ordId, item.order_id) if item.order_id else (row.clOrdId, item.client_order_id)
    return told == wanted if told else None


def _verdict(action: str, code: str, message: str, order_id: str | None = None) -> ItemAnswer:
    message = message[:_MESSAGE_CHARACTERS]
    if code == _DONE:
        return ItemAnswer(True, order_id)
    if code in _OPEN or (action == CREATE and code in _OPEN_FOR_NEW):
        return ItemAnswer(None, order_id, code, message)
    return ItemAnswer(False, order_id, code, message, _error_class(code))


def _error_class(code: str) -> ErrorClass:
    if code in _RATE_LIMITED:
        return "rate_limited"
    return "retryable" if code in _RETRYABLE else "permanent"


def _untold(response: Response) -> ItemAnswer:
    return ItemAnswer(None, code=response.code, message=response.msg or "okx does not tell what became of it")


def _exhausted(request: TradeRequest, items: list[ItemAnswer]) -> Iterator[str]:
    """Keys of the budgets that OKX says are used up."""
    if request.action == MASS_CANCEL:
        yield from (cost.key for cost in costs(request) if items[0].code in _OPERATION_LIMIT)
        return
    for entry, item in zip(request.items, items, strict=True):
        if item.code in _OPERATION_LIMIT:
            yield budget(operation(request), entry.instrument)
        elif item.code in _ACCOUNT_LIMIT:
            yield ACCOUNT_BUDGET


def _row(value: object) -> _Row | None:
    try:
        return msgspec.convert(value, _Row, strict=False)
    except UNREADABLE:
        return None


def _micros(text: str) -> Micros | None:
    return Micros(int(text)) if text.isascii() and text.isdecimal() and len(text) <= 18 else None
