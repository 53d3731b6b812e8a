"""The cross-venue name of an instrument: one spelling for the same thing everywhere."""

from __future__ import annotations

from datetime import UTC, datetime

from pipeline.model.decimals import DecimalText
from pipeline.model.events import Micros


def cross_symbol(
    kind: str,
    base: str | None,
    quote: str | None,
    expiry_micros: Micros | int | None = None,
    strike: DecimalText | str | None = None,
    option_type: str | None = None,
) -> str | None:
    """The symbol, or None if a part of it is unknown or the kind has no such name (index, spread).

    spot BASE-QUOTE, perpetual BASE-QUOTE-PERP, future BASE-QUOTE-YYYYMMDD, option
    BASE-QUOTE-YYYYMMDD-STRIKE-C or -P; dates are UTC. A venue that lists several instruments under one such name
    adds its family's suffix to `quote` ("USD_UM").
    """
    if not base or not quote:
        return None
    pair = f"{base}-{quote}"
    if kind == "spot":
        return pair
    if kind == "perpetual":
        return f"{pair}-PERP"
    date = _date(expiry_micros)
    if kind == "future" and date:
        return f"{pair}-{date}"
    if kind == "option" and date and strike and option_type in {"call", "put"}:
        return f"{pair}-{date}-{strike}-{'C' if option_type == 'call' else 'P'}"
    return None


def _date(micros: int | None) -> str | None:
    if not micros or micros < 0:
        return None
    try:
        return f"{datetime.fromtimestamp(micros // 1_000_000, UTC):%Y%m%d}"
    except (ValueError, OverflowError, OSError):
        return None
