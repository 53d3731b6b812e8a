"""The venues' messages, read a second time and by hand: what a test expects does not come from the code it tests."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import attrs

Rows = list[tuple[str, str]]
"""Price and size as the venue wrote them."""
BookName = tuple[str, str]
"""Instrument and the venue's channel."""


@attrs.frozen
class Change:
    """One message of an order book."""

    is_snapshot: bool
    sequence: int | None
    previous: int | None
    """What a delta follows; None where the recording does not number."""
    bids: Rows
    asks: Rows
    checksum: int | None = None


@attrs.frozen
class Print:
    """One trade."""

    id: str
    price: str
    size: str
    side: str
    time_us: int


class Book:
    """Price levels in two plain dictionaries."""

    def __init__(self) -> None:
        self.bids: dict[Decimal, tuple[str, str]] = {}
        self.asks: dict[Decimal, tuple[str, str]] = {}

    def apply(self, bids: Iterable[tuple[str, str]], asks: Iterable[tuple[str, str]], *, anew: bool) -> None:
        """Replace the book, or set sizes where zero deletes."""
        for side, rows in ((self.bids, bids), (self.asks, asks)):
            if anew:
                side.clear()
            for price, size in rows:
                if Decimal(size):
                    side[Decimal(price)] = (price, size)
                else:
                    side.pop(Decimal(price), None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Book) and (self.bids, self.asks) == (other.bids, other.asks)

    __hash__ = None  # type: ignore[assignment]

    def checksum(self) -> int:
        """OKX's CRC-32 over the best 25 levels, bid and ask in turn."""
        bids = [self.bids[price] for price in sorted(self.bids, reverse=True)[:25]]
        asks = [self.asks[price] for price in sorted(self.asks)[:25]]
        parts = []
        for rank in range(25):
            parts += [":".join(side[rank]) for side in (bids, asks) if rank < len(side)]
        unsigned = zlib.crc32(":".join(parts).encode())
        return unsigned - (1 << 32) if unsigned >= 1 << 31 else unsigned


def is_data(message: bytes) -> bool:
    """Whether it is a push, not an answer or a pong. What is no JSON is neither."""
    try:
        fields = json.loads(message)
    except ValueError:
        return False
    return isinstance(fields, dict) and ("topic" in fields or ("arg" in fields and "data" in fields))


def trades(messages: Iterable[bytes]) -> dict[str, list[Print]]:
    """The prints by instrument; one that repeats an earlier id is left out, as OKX repeats the last one."""
    found: dict[str, dict[str, Print]] = {}
    for message in messages:
        fields = json.loads(message)
        if str(fields.get("topic")).startswith("publicTrade."):
            prints = [
                (row["s"], Print(row["i"], row["p"], row["v"], row["S"].lower(), row["T"] * 1000))
                for row in fields["data"]
            ]
        elif fields.get("arg", {}).get("channel") in ("trades", "trades-all"):
            prints = [
                (row["instId"], Print(row["tradeId"], row["px"], row["sz"], row["side"], int(row["ts"]) * 1000))
                for row in fields["data"]
            ]
        else:
            continue
        for instrument, each in prints:
            found.setdefault(instrument, {}).setdefault(each.id, each)
    return {instrument: list(prints.values()) for instrument, prints in found.items()}


def book_changes(messages: Iterable[bytes]) -> dict[BookName, list[Change]]:
    """The messages of incremental books, in order."""
    found: dict[BookName, list[Change]] = {}
    for message in messages:
        for name, change in _changes(json.loads(message)):
            found.setdefault(name, []).append(change)
    return found


def unbroken(changes: Sequence[Change]) -> list[Change]:
    """What of one connection's book can be used: nothing from a gap to the next snapshot, nothing before the first."""
    usable: list[Change] = []
    last: int | None = None
    in_order = False
    for change in changes:
        if change.is_snapshot:
            in_order = True
        elif in_order and change.previous is not None and change.previous != last:
            in_order = False
        last = change.sequence
        if in_order:
            usable.append(change)
    return usable


def _changes(fields: Mapping[str, Any]) -> Iterator[tuple[BookName, Change]]:
    topic = str(fields.get("topic"))
    if topic.startswith("orderbook.") and not topic.startswith("orderbook.1."):
        channel, _, instrument = topic.rpartition(".")
        data, is_snapshot = fields["data"], fields["type"] == "snapshot"
        previous = None if is_snapshot else data["u"] - 1
        yield (instrument, channel), Change(is_snapshot, data["u"], previous, _rows(data["b"]), _rows(data["a"]))
    elif fields.get("arg", {}).get("channel") == "books":
        is_snapshot = fields["action"] == "snapshot"
        for row in fields["data"]:
            previous = None if is_snapshot else row.get("prevSeqId")
            if previous is not None and previous == row["seqId"]:
                continue  # a sign of life
            change = Change(
                is_snapshot,
                row.get("seqId"),
                previous,
                _rows(row["bids"]),
                _rows(row["asks"]),
                row.get("checksum") or None,
            )
            yield (fields["arg"]["instId"], "books"), change


def _rows(rows: Iterable[Sequence[str]]) -> Rows:
    return [(row[0], row[1]) for row in rows]
