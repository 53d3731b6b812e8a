"""Faults on demand: what they are called, whom they hit, how they are written on a command line or in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

CONNECTION_FAULTS = frozenset(
    {"drop", "silence", "garbage", "oversize", "malformed_json", "binary", "fragmented", "notice", "close", "ends_soon"}
)
"""Hit connections: all of them, or those that the fault's target means."""
TOPIC_FAULTS = frozenset({"gap", "stall", "refuse_topic"})
"""Hit topics, for all their subscribers."""
VENUE_FAULTS = frozenset({"refuse_login", "slow_ack", "http_refuse", "clear"})
"""Stay until they are used up or cleared."""
ORDER_FAULTS = frozenset(
    {
        "drop_before_take", "drop_before_ack", "hold_acks", "release_acks", "refuse_order", "ambiguous_code",
        "rate_limited", "fill_before_ack", "fill_before_cancel",
    }
)  # fmt: skip
"""Hit order entry: the next requests or orders, or all answers until they are released."""
KINDS = CONNECTION_FAULTS | TOPIC_FAULTS | VENUE_FAULTS | ORDER_FAULTS
ACTIONS = ("create", "amend", "cancel")


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
    """stall and slow_ack: how long; notice and ends_soon: from the notice to the close."""
    count: int = attrs.field(default=1, validator=_number(1))
    """gap: messages lost; refuse_login and http_refuse: how often; order entry: how many requests or orders."""
    code: int = attrs.field(default=1001, validator=_number(1000))
    """close: the close code."""
    reason: str = ""
    error: str = ""
    """refuse_login: the error code of the refusal, where the venue has several (OKX); refuse_order, ambiguous_code: the
    venue's code for the answer."""
    action: str = ""
    """Order entry: only requests of this action."""
    taken: bool = True
    """ambiguous_code: whether the order is taken in spite of it."""
    status: int = attrs.field(default=503, validator=_number(400))
    """http_refuse: the HTTP status."""
    size: int = attrs.field(default=32 * 1024**2, validator=_number(1))
    """oversize: bytes of the message."""

    def __attrs_post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f'kind: unknown fault "{self.kind}"; known are {", ".join(sorted(KINDS))}')
        if self.kind in TOPIC_FAULTS and self.topic is None:
            raise ValueError(f"topic: {self.kind} needs one")
        if self.kind in ORDER_FAULTS and self.error and not (self.error.isascii() and self.error.isdecimal()):
            raise ValueError(f'error: "{self.error}" is not a code of digits')
        if self.action and self.action not in ACTIONS:
            raise ValueError(f'action: "{self.action}" is not one of {", ".join(ACTIONS)}')

    def is_about(self, action: str) -> bool:
        """Whether it is meant for requests of this action: without an `action` of its own, where it can happen."""
        only = {"fill_before_ack": "create", "fill_before_cancel": "cancel"}.get(self.kind, self.action)
        return only in ("", action)


def from_mapping(given: Mapping[str, Any]) -> Fault:
    """A fault from decoded JSON. Raises `ValueError` naming the field."""
    names = {field.name for field in attrs.fields(Fault)}
    for name, value in given.items():
        if name not in names:
            raise ValueError(f"{name}: unknown field; known are {', '.join(sorted(names))}")
        if name in ("kind", "endpoint", "topic", "reason", "error", "action") and not isinstance(value, str):
            raise ValueError(f"{name}: {value!r} is not a text")
        if name == "taken" and not isinstance(value, bool):
            raise ValueError(f"{name}: {value!r} is neither true nor false")
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


def _typed(name: str, value: str) -> str | int | float | bool:
    if name == "taken":
        return {"true": True, "false": False}.get(value, value)
    try:
        if name in ("connection", "count", "code", "status", "size"):
            return int(value)
        return float(value) if name == "seconds" else value
    except ValueError:
        return value  # refused, with its name, by `from_mapping`
