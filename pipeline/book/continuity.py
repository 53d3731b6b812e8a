"""Does this update follow the last one? One rule with the venues' few differences as data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

import attrs

from pipeline.model.events import BookUpdate, Row

Checksum = Callable[[Iterable[Row], Iterable[Row]], int]
"""Of bids and asks, best first."""


class Verdict(Enum):
    """What an update means for the chain of its book."""

    SNAPSHOT = "snapshot"
    """Replaces the book, solicited or not."""
    NEXT = "next"
    RESET = "reset"
    """Follows, though the venue restarted its numbering lower."""
    REPEAT = "repeat"
    """A keep-alive: nothing changed."""
    OLD = "old"
    """Precedes what is known."""
    GAP = "gap"


@attrs.frozen
class SequenceRule:
    """How the updates of a book channel are numbered.

    A delta must name the sequence it follows (`previous_sequence`); a venue that only counts (Bybit) has its
    normalizer fill in `sequence - 1`.
    """

    ignores_old: bool
    """Whether a delta at or below the last sequence is a harmless duplicate; otherwise it is a gap.

    One that says of itself that the numbering began anew (`is_reset`) is a gap in any case.
    """
    checksum: Checksum | None = None
    """Verifies the whole book after each update that carries a checksum."""

    def judge(self, last: int | None, update: BookUpdate) -> Verdict:
        """`last` is the sequence of the update before in a valid book; None if that one had no number."""
        if update.is_snapshot:
            return Verdict.SNAPSHOT
        sequence, previous = update.sequence, update.previous_sequence
        if last is None or sequence is None or previous is None:
            return Verdict.NEXT
        if previous == last:
            if sequence > previous:
                return Verdict.NEXT
            return Verdict.RESET if sequence < previous else Verdict.REPEAT
        is_old = self.ignores_old and sequence <= last and not update.is_reset
        return Verdict.OLD if is_old else Verdict.GAP
