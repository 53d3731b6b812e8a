"""Durations and sizes as people write them: 500ms, 15s, 2h; 64MiB, 10GB."""

from __future__ import annotations

import re
from decimal import Decimal

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)", re.ASCII)
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3_600), "d": Decimal(86_400)}
_BYTES = {
    "B": 1,
    "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip


def duration(text: str) -> float | None:
    """Seconds; None if `text` is no duration."""
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in _SECONDS:
        return None
    return float(Decimal(match[1]) * _SECONDS[match[2]])


def size(text: str) -> int | None:
    """Bytes; None if `text` is no size, or no whole number of bytes."""
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in _BYTES:
        return None
    count = Decimal(match[1]) * _BYTES[match[2]]
    return int(count) if count == count.to_integral_value() else None
