"""The chain rules of the references: Bybit section 4.1, OKX section 3.4."""

from __future__ import annotations

import pytest

from pipeline.book.continuity import SequenceRule, Verdict
from tests.book.updates import update

CHAINED = SequenceRule(ignores_old=False)
COUNTED = SequenceRule(ignores_old=True)


@pytest.mark.parametrize(
    ("rule", "last", "previous", "sequence", "verdict"),
    [
        (CHAINED, 10, 10, 15, Verdict.NEXT),
        (CHAINED, 15, 15, 15, Verdict.REPEAT),
        (CHAINED, 15, 15, 3, Verdict.RESET),
        (CHAINED, 3, 3, 5, Verdict.NEXT),
        (CHAINED, 5, 9, 12, Verdict.GAP),
        (CHAINED, 15, 3, 10, Verdict.GAP),
        (CHAINED, None, None, None, Verdict.NEXT),
        (CHAINED, 5, None, 12, Verdict.NEXT),
        (COUNTED, 7, 7, 8, Verdict.NEXT),
        (COUNTED, 7, 8, 9, Verdict.GAP),
        (COUNTED, 7, 6, 7, Verdict.OLD),
        (COUNTED, 7, 4, 5, Verdict.OLD),
    ],
)
def test_deltas(
    rule: SequenceRule, last: int | None, previous: int | None, sequence: int | None, verdict: Verdict
) -> None:
    assert rule.judge(last, update(sequence, previous)) is verdict


@pytest.mark.parametrize("last", [None, 1, 10, 99])
def test_a_snapshot_always_replaces(last: int | None) -> None:
    assert CHAINED.judge(last, update(10, snapshot=True)) is Verdict.SNAPSHOT
