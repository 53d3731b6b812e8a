"""How numbers and times are told to people: short, with their unit, times in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

UNKNOWN = "–"


def moment(micros: int) -> str:
    """The time of day, such as `14:03:07`."""
    return datetime.fromtimestamp(micros / 1e6, UTC).strftime("%H:%M:%S")


def since(micros: int, now: int) -> str:
    """When something began: the time of day, with the date if that was not today."""
    began = datetime.fromtimestamp(micros / 1e6, UTC)
    today = datetime.fromtimestamp(now / 1e6, UTC)
    return began.strftime("%H:%M:%S UTC" if began.date() == today.date() else "%Y-%m-%d %H:%M UTC")


def duration(seconds: float) -> str:
    """In the unit that suits: `50 µs`, `2.5 ms`, `0.4 s`, `12 s`, `5 min`, `3.2 h`, `4.0 d`."""
    if 0 < seconds < 0.00095:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.00995:
        return f"{round(seconds * 1e3, 1):g} ms"
    if seconds < 0.0995:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for limit, unit, size in ((120.0, "s", 1.0), (7_200.0, "min", 60.0)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3_600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"


def age(micros: int, now: int) -> str:
    """How long ago; unknown for a time of 0."""
    return duration(max(0, now - micros) / 1e6) if micros else UNKNOWN


def count(number: float) -> str:
    """A whole number with its thousands apart."""
    return f"{number:,.0f}"


def rate(per_second: float | None) -> str:
    """Per second; unknown until there are two samples."""
    if per_second is None:
        return UNKNOWN
    return f"{per_second:.1f}" if 0 < per_second < 9.95 else f"{per_second:,.0f}"


def size(octets: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if octets < 1024:
            return f"{octets:.0f} {unit}" if unit == "B" or octets >= 100 else f"{octets:.1f} {unit}"
        octets /= 1024
    return f"{octets:.1f} GiB"


def several(number: int, one: str, many: str | None = None) -> str:
    """`1 gap`, `3 gaps`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
