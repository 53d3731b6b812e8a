"""A stream made of recorded order books: the recording over and over, for many instruments, numbered anew. Pure.

Rows, their number and the pauses are the recording's. Sequence numbers, times and symbols are ours, and so is where a
book stands: each lap lies some ticks off the last one, or every text in it would soon have been seen before. One more
update per lap leads from its end to the beginning of the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from random import Random

import attrs
import msgspec

from pipeline.sim.listing import Listing, many

Row = list[str]
"""Price, size, an obsolete field, number of orders."""

_SEQUENCE = 7_000_000_000
_FARTHEST = 200
"""Ticks between two laps, at most."""
_NOTHING = ("0", "0", "0")


class _Data(msgspec.Struct):
    asks: list[Row]
    bids: list[Row]
    ts: str


class _Push(msgspec.Struct):
    action: str
    data: list[_Data]


_decode = msgspec.json.Decoder(_Push).decode
_encode = msgspec.json.Encoder().encode


@attrs.frozen
class Recording:
    """One book's messages: a snapshot and the updates that follow it."""

    messages: tuple[_Push, ...]
    scale: int
    """Decimals of a price."""
    last: tuple[dict[str, Row], dict[str, Row]]
    """Asks and bids at the end, by price."""

    @classmethod
    def read(cls, lines: Sequence[bytes]) -> Recording:
        """From one wire message per line; raises `ValueError` unless a snapshot comes first, and only there."""
        messages = tuple(_decode(line) for line in lines)
        if [message.action for message in messages] != ["snapshot"] + ["update"] * (len(messages) - 1):
            raise ValueError("a recording is one snapshot and its updates")
        asks: dict[str, Row] = {}
        bids: dict[str, Row] = {}
        for message in messages:
            for side, rows in ((asks, message.data[0].asks), (bids, message.data[0].bids)):
                for row in rows:
                    if row[1] == "0":
                        side.pop(row[0], None)
                    else:
                        side[row[0]] = row
        prices = [row[0] for message in messages for row in (*message.data[0].asks, *message.data[0].bids)]
        return cls(messages, max(len(price.partition(".")[2]) for price in prices), (asks, bids))


def recorded_messages(recording: Recording, count: int, instruments: int, seed: int, start_ms: int) -> Iterator[bytes]:
    """A snapshot per instrument, then `count` updates, in the order of sending."""
    random = Random(seed)
    books = [
        _Book(recording, listing, Random(seed * 1_000_003 + number), number, start_ms)
        for number, listing in enumerate(many("okx", instruments))
    ]
    for book in books:
        yield book.snapshot()
    # A few instruments bring most of the traffic, as on a real market.
    weights = [1 / (1 + number) for number in range(len(books))]
    for book in random.choices(books, weights, k=count):
        yield book.update()


class _Book:
    def __init__(self, recording: Recording, listing: Listing, random: Random, number: int, start_ms: int) -> None:
        self._recording = recording
        self._symbol = listing.symbol
        self._random = random
        self._shift = number * 1_000
        self._at = 0
        self._sequence = _SEQUENCE + number * 1_000_003
        self._lap_ms = start_ms
        first, last = (int(recording.messages[at].data[0].ts) for at in (0, -1))
        self._first_ms, self._span_ms = first, last - first

    def snapshot(self) -> bytes:
        data = self._recording.messages[0].data[0]
        return self._push("snapshot", self._moved(data.asks), self._moved(data.bids), 0, -1)

    def update(self) -> bytes:
        self._at += 1
        if self._at == len(self._recording.messages):
            return self._return()
        data = self._recording.messages[self._at].data[0]
        offset = int(data.ts) - self._first_ms
        return self._push("update", self._moved(data.asks), self._moved(data.bids), offset, self._sequence)

    def _return(self) -> bytes:
        """The update that leads to the next lap's beginning."""
        asks, bids = ({row[0]: row for row in self._moved(side.values())} for side in self._recording.last)
        self._shift += self._random.randrange(-_FARTHEST, _FARTHEST + 1)
        self._at = 0
        first = self._recording.messages[0].data[0]
        self._lap_ms += self._span_ms + 100
        changes = (_changes(asks, self._moved(first.asks)), _changes(bids, self._moved(first.bids)))
        return self._push("update", *changes, 0, self._sequence)

    def _moved(self, rows: Iterable[Row]) -> list[Row]:
        scale = self._recording.scale
        shift = self._shift
        return [[_text(_ticks(row[0], scale) + shift, scale), *row[1:]] for row in rows]

    def _push(self, action: str, asks: list[Row], bids: list[Row], offset_ms: int, previous: int) -> bytes:
        self._sequence += self._random.randrange(1, 40)
        row = {
            "asks": asks,
            "bids": bids,
            "ts": str(self._lap_ms + offset_ms),
            "checksum": 0,  # as OKX sends since it has given up on checksums
            "seqId": self._sequence,
            "prevSeqId": previous,
        }
        return _encode({"arg": {"channel": "books", "instId": self._symbol}, "action": action, "data": [row]})


def _changes(before: dict[str, Row], after: list[Row]) -> list[Row]:
    wanted = {row[0]: row for row in after}
    gone = [[price, *_NOTHING] for price in before if price not in wanted]
    return gone + [row for row in after if before.get(row[0]) != row]


def _ticks(price: str, scale: int) -> int:
    whole, _, fraction = price.partition(".")
    return int(whole + fraction.ljust(scale, "0"))


def _text(ticks: int, scale: int) -> str:
    """As OKX writes prices: without trailing zeros."""
    if not scale:
        return str(ticks)
    digits = str(ticks).rjust(scale + 1, "0")
    return f"{digits[:-scale]}.{digits[-scale:]}".rstrip("0").rstrip(".")
