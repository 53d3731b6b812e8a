"""Dead letters of commands that cannot be read. Pure."""

from __future__ import annotations

from hashlib import sha256

from pipeline.exchanges.accounts import WHOLE_ACCOUNT
from pipeline.model.events import DeadLetter, Micros, Origin
from pipeline.orders.consumer import Consumed


def dead_letter(venue: str, account: str, record: Consumed, reason: str, now: Micros) -> DeadLetter:
    """The record's bytes, and why they are no command."""
    place = f"{record.topic}/{record.partition}/{record.offset}"
    return DeadLetter(
        Origin(venue, WHOLE_ACCOUNT, None, None, account, place),
        None,
        now,
        None,
        "parse",
        reason,
        record.value,
        len(record.value),
        sha256(record.value).hexdigest(),
        record.topic,
    )
