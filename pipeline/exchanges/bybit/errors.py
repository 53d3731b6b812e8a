"""Bybit's error codes by what they mean for whoever asked: try again, or not."""

from __future__ import annotations

import re

from pipeline.model.errors import LoginFailed, Refused, Retryable, SessionError

RETRY = frozenset({-1, 429, 10000, 10002, 10006, 10016, 10018, 10019, 10403, 10429, 20003, 110071, 3100197})
"""Time-outs, rate limits, restarts and upgrades: they pass."""

UNAVAILABLE = frozenset({10024, 10028, 100028})
"""Compliance, and the kind of account: a product that this account cannot have."""

REFUSE = UNAVAILABLE | {
    *(-2015, 33004, 10003, 10004, 10005, 10007, 10008, 10009, 10010),  # key, permission, address, region
    *(10027, 10029),  # what the account or the key may trade
    *(10001, 10017, 10404),  # what was asked for does not exist
}

REPEATED_LOGIN = 20001
"""The connection is logged in already."""

_PARAMETERS, _KEY = 10001, 10003
_TIMES = frozenset({-1, 10002})
"""A request that was signed too long ago, or by a clock that runs ahead."""
# How the venue says that an account of this kind lacks a category, which this program never misspells.
_OF_ACCOUNTS = re.compile(r"account ?type|category", re.IGNORECASE)
_SIGNED = re.compile(r"origin_string\[[^\]]*\]?")
"""What the venue says was to be signed, the key in it."""

_PASSING_TEXTS = ("too many visits", "too frequent", "server error", "timeout", "timed out", "restarting")
_NOT_YET = "needs auth first"


class Unlisted(Refused):
    """A parameter is wrong: what it names does not exist."""


class Unavailable(Refused):
    """This account cannot have what was asked for, and so has nothing of it."""


def error_of(code: int, text: str, what: str = "") -> SessionError:
    """The error for a `retCode` other than 0; unknown codes of the general range (10xxx) may pass.

    `text` is the venue's own, `what` names what was asked for.
    """
    kind: type[SessionError] = Refused
    if code in RETRY or (code not in REFUSE and 10000 <= code < 11000):
        kind = Retryable
    elif code in UNAVAILABLE or (code == _PARAMETERS and _OF_ACCOUNTS.search(text)):
        kind = Unavailable
    elif code == _PARAMETERS:
        kind = Unlisted
    return kind(_text(code, text) + (f" ({what})" if what else ""))


def login_error(code: int | None, text: str) -> SessionError:
    """The error for a login that was not granted; None where the answer has no code, as on the private server.

    `LoginFailed` where the venue leaves open what is wrong: "Params Error" stands for late signatures, wrong
    ones and unknown keys alike.
    """
    if code is None or code in _TIMES or code == _PARAMETERS:
        kind: type[SessionError] = Retryable if code is None and is_passing(text) else LoginFailed
    elif code == _KEY and "session" in text.lower():
        kind = Retryable  # too many sessions of this account: the one code has two meanings
    elif code in RETRY:
        kind = Retryable
    else:
        kind = Refused if code in REFUSE else LoginFailed
    return kind(f"login: {_text(code, text)}")


def is_passing(text: str) -> bool:
    """Whether the text of a failed request speaks of trouble that passes; such answers carry no code."""
    lowered = text.lower()
    return any(each in lowered for each in (*_PASSING_TEXTS, _NOT_YET))


def _text(code: int | None, text: str) -> str:
    text = _SIGNED.sub("origin_string[…]", text)
    return f"bybit answered {text or 'no text'}" if code is None else f"bybit answered {code}: {text or 'no text'}"
