"""Rates and rises, told from one look at the counters to the next."""

from __future__ import annotations

import pytest

from pipeline.observe.history import Onsets, Rises, Samples

SECOND = 1_000_000


def test_a_rate_needs_two_looks_and_is_that_of_the_last_seconds() -> None:
    samples = Samples(keep_s=10)
    samples.note(100 * SECOND, {"a": 1_000})
    assert samples.per_second("a") is None
    samples.note(102 * SECOND, {"a": 1_300})
    assert samples.per_second("a") == 150
    for second in range(103, 141):
        samples.note(second * SECOND, {"a": 1_300 + second - 102})
    assert samples.per_second("a") == 1
    assert samples.span_s == 10


@pytest.mark.parametrize("after", [{"a": 5}, {"b": 50}, {}], ids=["restarted", "another", "gone"])
def test_what_cannot_be_compared_has_no_rate(after: dict[str, float]) -> None:
    samples = Samples(keep_s=10)
    samples.note(SECOND, {"a": 10})
    samples.note(2 * SECOND, after)
    assert samples.per_second("a") is None
    assert samples.per_second("b") is None


def test_what_came_later_has_a_rate_of_its_own_time() -> None:
    samples = Samples(keep_s=10)
    for second, counters in enumerate(({"a": 0}, {"a": 10, "b": 100}, {"a": 20, "b": 107})):
        samples.note((second + 1) * SECOND, counters)
    assert (samples.per_second("a"), samples.per_second("b")) == (10, 7)
    samples.note(4 * SECOND, {"a": 2, "b": 114})
    assert samples.per_second("a") == pytest.approx(2 / 3), "begun anew since the first sample, which had none"


def test_a_clock_that_is_set_back_begins_anew() -> None:
    samples = Samples(keep_s=10)
    samples.note(100 * SECOND, {"a": 10})
    samples.note(50 * SECOND, {"a": 20})
    assert samples.per_second("a") is None
    samples.note(51 * SECOND, {"a": 25})
    assert samples.per_second("a") == 5


def test_looks_close_together_replace_each_other() -> None:
    samples = Samples(keep_s=60, apart_s=5)
    for second in range(200):
        samples.note(second * SECOND, {"a": second})
    assert samples.increase("a") == samples.span_s
    assert 60 <= samples.span_s < 66
    assert len(samples._taken) < 20


def test_a_rise_lasts_until_it_has_rested() -> None:
    rises = Rises(rest_s=60)
    rises.note(0, {"gaps": 7})
    assert rises.of("gaps") is None, "what happened before the first look is old"
    rises.note(10 * SECOND, {"gaps": 9})
    rises.note(50 * SECOND, {"gaps": 10})
    rise = rises.of("gaps")
    assert rise is not None
    assert (rise.since, rise.last, rise.count) == (10 * SECOND, 50 * SECOND, 3)
    rises.note(109 * SECOND, {"gaps": 10})
    assert rises.of("gaps") is not None
    rises.note(110 * SECOND, {"gaps": 10})
    assert rises.of("gaps") is None


def test_a_counter_that_begins_anew_is_no_rise() -> None:
    rises = Rises(rest_s=60)
    rises.note(0, {"gaps": 7})
    rises.note(SECOND, {"gaps": 2})
    assert rises.of("gaps") is None
    rises.note(2 * SECOND, {"gaps": 3})
    assert rises.of("gaps") is not None


def test_the_beginning_is_kept_while_something_lasts() -> None:
    onsets = Onsets()
    assert onsets.note(10, {"kafka": None, "okx": 4}) == {"kafka": 10, "okx": 4}
    assert onsets.note(20, {"kafka": None, "okx": 19}) == {"kafka": 10, "okx": 4}
    assert onsets.note(30, {"okx": 29}) == {"okx": 4}
    assert onsets.note(40, {"kafka": None}) == {"kafka": 40}
