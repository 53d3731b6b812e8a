"""The envelope around every REST answer of the venue."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import msgspec

from pipeline.exchanges.okx.codes import rest_error
from pipeline.exchanges.okx.wire import UNREADABLE, decode_leniently
from pipeline.model.errors import BadMessage


class _Answer(msgspec.Struct):
    code: str = ""
    msg: str = ""
    data: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Answer).decode


def data(body: bytes, what: str, *, nothing: Container[str] = ()) -> bytes:
    """The rows of an answer, still encoded; none for the codes in `nothing`.

    Raises `BadMessage` for a body of another form, `Retryable` or `Refused` for error answers.
    """
    try:
        answer = _decode(body)
    except UNREADABLE as error:
        raise BadMessage(f"{what}: {error}") from None
    if answer.code == "0" and answer.data:
        return bytes(answer.data)
    if answer.code in ("", "0"):
        raise BadMessage(f"{what}: no code and data in the answer")
    if answer.code in nothing:
        return b"[]"
    raise rest_error(what, answer.code, answer.msg)


def rows(body: bytes, what: str, kind: type[Any], *, nothing: Container[str] = ()) -> list[Any]:
    """The rows of an answer as structs of this kind. Raises as `data`."""
    try:
        found: list[Any] = decode_leniently(data(body, what, nothing=nothing), list[kind])  # type: ignore[valid-type]
    except UNREADABLE as error:
        raise BadMessage(f"{what}: {error}") from None
    return found
