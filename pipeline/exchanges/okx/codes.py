"""OKX's codes for what went wrong, and what is to be done about each."""

from __future__ import annotations

from enum import Enum

from pipeline.model.errors import LoginFailed, Refused, Retryable, SessionError


class Remedy(Enum):
    """What helps against an error."""

    CONFIGURE = "another key, passphrase, region or environment"
    ASK = "a look at the key over REST, and at the clock"
    WAIT = "asking again after a pause"
    LOG_IN = "asking again after the login"
    LEAVE = "nothing: this topic is not to be had"
    TIER = "an account of a higher fee tier, or another channel"


WEBSOCKET = {
    "60004": Remedy.ASK,  # invalid timestamp
    "60005": Remedy.CONFIGURE,  # invalid key
    "60006": Remedy.ASK,  # timestamp expired
    "60007": Remedy.CONFIGURE,  # invalid signature
    "60008": Remedy.LEAVE,  # not on this path
    "60009": Remedy.ASK,  # login failed, without a reason
    "60011": Remedy.LOG_IN,
    "60012": Remedy.LEAVE,  # invalid request
    "60013": Remedy.LEAVE,  # invalid arguments
    "60014": Remedy.WAIT,  # too many requests
    "60018": Remedy.LEAVE,  # wrong path, or no such channel or instrument
    "60019": Remedy.LEAVE,  # invalid operation
    "60023": Remedy.WAIT,  # too many logins
    "60024": Remedy.CONFIGURE,  # wrong passphrase
    "60026": Remedy.CONFIGURE,  # two ways of logging in at once
    "60027": Remedy.LEAVE,  # a parameter is empty
    "60028": Remedy.LEAVE,  # not on this path
    "60029": Remedy.TIER,
    "60030": Remedy.TIER,
    "60031": Remedy.CONFIGURE,  # a second login on one connection
    "60032": Remedy.CONFIGURE,  # unknown key, or one of another region or environment
    "60033": Remedy.LEAVE,  # a parameter is wrong
    "63999": Remedy.WAIT,  # login failed inside OKX
    "64000": Remedy.LEAVE,  # uly instead of instFamily
    "64001": Remedy.LEAVE,  # on the business path
    "64002": Remedy.LEAVE,  # not on the business path
    "64003": Remedy.TIER,
    "64004": Remedy.LEAVE,  # two books of an instrument that exclude each other
    "64007": Remedy.WAIT,  # failed inside OKX
}
"""By the code of an error event. One that is missing here concerns the request that it answers, and no other."""

HINTS = {
    "books-l2-tbt": "depth 400 needs no fee tier",
    "books50-l2-tbt": "depth 400 and depth 5 need no fee tier",
    "fills": "channel order brings the same fills",
}
"""What to take instead of a channel for which the fee tier is too low."""

UPGRADE = "64008"
"""The notice that the connection is about to be closed."""

_CLOSES: dict[int, tuple[type[SessionError], str]] = {
    1009: (Retryable, "a request was longer than okx takes"),
    4001: (LoginFailed, "the login failed"),
    4002: (Retryable, "a request was invalid"),
    4003: (Retryable, "one key has more than 100 logins or subscriptions"),
    4007: (LoginFailed, "the key was changed or deleted"),
    4008: (Retryable, "there are more channels than okx allows in total"),
    4009: (Retryable, "there are more channels than okx allows on one connection: lower max_topics_per_connection"),
}

_REST_PASSING = frozenset({"50001", "50004", "50011", "50013", "50026", "50040", "50061"})
"""Maintenance, timeout, too many requests, busy, internal error, too many orders."""
_REST_CLOCK = frozenset({"50102", "50112"})
"""A timestamp that is too far off, or of another form."""
_REST_HINTS = {
    "50101": "the key belongs to the other environment (production or demo)",
    "50110": "the key is bound to other addresses than ours",
    "50119": "the key does not exist in this region",
}


def close_error(code: int, reason: str) -> SessionError | None:
    """What a close code means where it means more than a lost connection."""
    if code not in _CLOSES:
        return None
    kind, what = _CLOSES[code]
    return kind(f"okx closed with {code}, {what}: {reason}" if reason else f"okx closed with {code}, {what}")


def rest_error(what: str, code: str, message: str) -> SessionError:
    """The error of a REST answer: `Retryable` for passing ones and for a wrong clock, else `Refused`."""
    text = f"{what}: error {code}: {message}"
    if code in _REST_PASSING or code in _REST_CLOCK:
        return Retryable(text)
    hint = _REST_HINTS.get(code)
    return Refused(f"{text}; {hint}" if hint else text)
