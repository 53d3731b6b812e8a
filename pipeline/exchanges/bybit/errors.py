"""Bybit's error codes by what they mean for whoever asked: try again, or not."""

from __future__ import annotations

from pipeline.model.errors import Refused, Retryable, SessionError

RETRY = frozenset({-1, 429, 10000, 10002, 10006, 10016, 10018, 10019, 10403, 10429, 20003, 110071, 3100197})
"""Time-outs, rate limits, restarts and upgrades: they pass."""

REFUSE = frozenset(
    {
        *(-2015, 33004, 10003, 10004, 10005, 10007, 10008, 10009, 10010),  # key, permission, address, region
        *(10024, 10027, 10028, 10029, 100028),  # compliance, kind of account
        *(10001, 10017, 10404),  # what was asked for does not exist
    }
)

_PASSING_TEXTS = ("too many visits", "too frequent", "server error", "timeout", "timed out", "restarting")


def error_of(code: int, text: str) -> SessionError:
    """The error for a `retCode` other than 0; unknown codes of the general range (10xxx) may pass."""
    retry = code in RETRY or (code not in REFUSE and 10000 <= code < 11000)
    kind: type[SessionError] = Retryable if retry else Refused
    return kind(f"bybit answered {code}: {text or 'no text'}")


def is_passing(text: str) -> bool:
    """Whether the text of a failed subscription speaks of trouble that passes; such answers carry no code."""
    lowered = text.lower()
    return any(each in lowered for each in _PASSING_TEXTS)
