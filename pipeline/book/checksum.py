"""Checksums that venues send along with a book, so that a consumer can prove its copy."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice, zip_longest
from zlib import crc32

from pipeline.model.events import Row

OKX_LEVELS = 25
"""Levels per side that enter the OKX checksum."""


def okx_checksum(bids: Iterable[Row], asks: Iterable[Row]) -> int:
    """The signed CRC-32 of the best 25 levels of each side, which are given best first.

    Rows start with price and size, exactly as the wire had them: "9.50" and "9.5" differ here.
    """
    parts: list[str] = []
    for bid, ask in zip_longest(islice(bids, OKX_LEVELS), islice(asks, OKX_LEVELS)):
        if bid is not None:
            parts += bid[:2]
        if ask is not None:
            parts += ask[:2]
    value = crc32(":".join(parts).encode())
    return value - (1 << 32) if value >= 1 << 31 else value
