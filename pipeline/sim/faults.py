"""Faults on demand: what they are called, whom they hit, how they are written on a command line or in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

CONNECTION_FAULTS = frozenset(
    {"drop", "silence", "garbage", "oversize", "malformed_json", "binary", "fragmented", "notice", "close"}
)
"""Hit connections: all of them, or those that the fault's target means."""
TOPIC_FAULTS = frozenset({"gap", "stall", "refuse_topic"})
"""Hit topics, for all their subscribers."""
VENUE_FAULTS = frozenset({"refuse_login", "slow_ack", "http_refuse", "clear"})
"""Stay until they are used up or cleared."""
KINDS = CONNECTION_FAULTS | TOPIC_FAULTS | VENUE_FAULTS


def _number(least: float) -> Any:
    def check(_fault: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or value < least:
            raise ValueError(f"{attribute.name}: {value!r} is not a number of at least {least:g}")

    return check


@attrs.frozen
class Fault:
    """One fault. Which fields matter depends on its kind; the others are ignored."""

    kind: str
    connection: int | None = None
    """Target: the connection with this index."""
    endpoint: str | None = None
    """Target: connections to this endpoint ("linear", "public", …)."""
    topic: str | None = None
    """Target: connections that subscribed to this topic, or the topic itself; shell wildcards are understood."""
    seconds: float | None = attrs.field(default=None, validator=attrs.validators.optional(_number(0)))
    """stall and slow_ack: how long; notice: from the notice to the close."""
    count: int = attrs.field(default=1, validator=_number(1))
    """gap: messages lost; refuse_login and http_refuse: how often."""
    code: int = attrs.field(default=1001, validator=_number(1000))
    """close: the close code."""
    reason: str = ""
    error: str = ""
    """refuse_login: the error code of the refusal, where the venue has several (OKX)."""
    status: int = attrs.field(default=503, validator=_number(400))
    """http_refuse: the HTTP status."""
    size: int = attrs.field(default=32 * 1024**2, validator=_number(1))
    """oversize: bytes of the message."""

    def __attrs_post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f'kind: unknown fault "{self.kind}"; known are {", ".join(sorted(KINDS))}')
        if self.kind in TOPIC_FAULTS and self.topic is None:
            raise ValueError(f"topic: {self.kind} needs one")


def from_mapping(given: Mapping[str, Any]) -> Fault:
    """A fault from decoded JSON. Raises `ValueError` naming the field."""
    names = {field.name for field in attrs.fields(Fault)}
    for name, value in given.items():
        if name not in names:
            raise ValueError(f"{name}: unknown field; known are {', '.join(sorted(names))}")
        if name in ("kind", "endpoint", "topic", "reason", "error") and not isinstance(value, str):
            raise ValueError(f"{name}: {value!r} is not a text")
        if name in ("connection", "count", "code", "status", "size") and type(value) is not int:
            raise ValueError(f"{name}: {value!r} is not a whole number")
    if "kind" not in given:
        raise ValueError("kind: missing")
    return Fault(**given)


def parse(text: str) -> tuple[float, Fault]:
    """A scheduled fault as `KIND[:FIELD=VALUE,...]@SECONDS`, e.g. `gap:topic=orderbook.50.BTCUSDT,count=3@20`.

    Raises `ValueError` naming what is wrong.
    """
    what, at, when = text.rpartition("@")
    try:
        seconds = float(when)
    except ValueError:
        seconds = -1.0
    if not at or not 0 <= seconds < float("inf"):
        raise ValueError(f'fault "{text}": say when, as in drop@10 (seconds after the start)')
    kind, _, rest = what.partition(":")
    given: dict[str, Any] = {"kind": kind}
    for item in filter(None, rest.split(",")):
        name, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f'fault "{text}": "{item}" is not FIELD=VALUE')
        given[name] = _typed(name, value)
    try:
        return seconds, from_mapping(given)
    except ValueError as error:
        raise ValueError(f'fault "{text}": {error}') from None


def _typed(name: str, value: str) -> str | int | float:
    try:
        if name in ("connection", "count", "code", "status", "size"):
            return int(value)
        return float(value) if name == "seconds" else value
    except ValueError:
        return value  # refused, with its name, by `from_mapping`
