"""Known channels without a kind of event of their own: their messages are passed on whole."""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from typing import Any

import msgspec

from pipeline.exchanges.okx.streams import Listing, Stream
from pipeline.exchanges.okx.topics import market_of, micros
from pipeline.exchanges.okx.wire_conditions import Unnamed
from pipeline.model.account import AccountRaw
from pipeline.model.events import Event, Micros, Raw

_decode = msgspec.json.Decoder(Unnamed).decode
_TIMES = ("ts", "pTime", "uTime", "cTime")
"""What a row may be dated by, the best first."""


def read(message: bytes) -> Unnamed:
    """A push with its text. Raises one of `wire.UNREADABLE`."""
    push = _decode(message)
    push.text = message.decode()
    return push


def pass_on(stream: Stream, push: Unnamed, receive_time: Micros) -> list[Event]:
    """The message; nothing if it brings no rows."""
    if not push.data:
        return []
    rows = [row for row in push.data if isinstance(row, dict)]
    origin = _listing(stream, rows, receive_time).origin
    time = _time(rows[0]) if rows else None
    digest = sha256(push.text.encode()).hexdigest()
    if stream.is_private:
        return [AccountRaw(origin, time, receive_time, None, stream.channel, False, push.text, digest)]
    return [Raw(origin, time, receive_time, None, stream.channel, push.text, digest)]


def _listing(stream: Stream, rows: list[dict[str, Any]], receive_time: Micros) -> Listing:
    """That of the instrument which the `arg` names, or else the one row."""
    listing = stream.listing
    if listing.origin.instrument is not None:
        return listing
    if len(rows) != 1:
        return listing
    kind, name = rows[0].get("instType"), rows[0].get("instId")
    if not name or not isinstance(name, str):
        return listing
    market = kind.lower() if isinstance(kind, str) and kind else market_of(stream.channel, name)
    return stream.listings.get(market, name, receive_time)


def _time(row: dict[str, Any]) -> Micros | None:
    for name in _TIMES:
        value = row.get(name)
        if isinstance(value, str | int):
            with suppress(ValueError):
                return micros(str(value))
    return None
