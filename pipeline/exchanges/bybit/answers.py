"""The envelope around every REST answer of the venue."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from pipeline.exchanges.bybit import wire
from pipeline.exchanges.bybit.accounts import VENUE
from pipeline.exchanges.bybit.errors import error_of
from pipeline.model.errors import BadMessage


@attrs.frozen
class Answer:
    """A successful answer."""

    what: str
    """What was asked for, in texts of errors."""
    result: dict[str, Any]
    milliseconds: int | None
    """When the venue answered; some endpoints leave it out."""

    @property
    def time(self) -> int:
        """When the venue answered, in milliseconds. Raises `BadMessage` if it does not say."""
        if self.milliseconds is None:
            raise BadMessage(f"{VENUE} {self.what}: time is missing")
        return self.milliseconds

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The elements of a listing. Raises `BadMessage` if it is none."""
        rows = self.result.get("list")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise BadMessage(f"{VENUE} {self.what}: result.list is no list of objects")
        return rows

    @property
    def cursor(self) -> str:
        """Where the next page of a listing starts, percent-encoded by the venue; "" on the last one."""
        cursor = self.result.get("nextPageCursor")
        return cursor if isinstance(cursor, str) else ""


def read_answer(what: str, body: bytes) -> Answer:
    """What an answer says. Raises `BadMessage` for another form, and the venue's error answers by their code."""
    try:
        plain = wire.decode_plain(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadMessage(f"{VENUE} {what}: {error}") from error
    code = plain.get("retCode") if isinstance(plain, dict) else None
    if type(code) is not int:
        raise BadMessage(f"{VENUE} {what}: not an answer of the venue: retCode is missing")
    if code:
        raise error_of(code, str(plain.get("retMsg", "")), what)
    result, time = plain.get("result"), plain.get("time")
    return Answer(what, result if isinstance(result, dict) else {}, time if type(time) is int else None)
