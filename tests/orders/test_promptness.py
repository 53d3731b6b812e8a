from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from pipeline.orders.promptness import SWITCH_INTERVAL, promptness


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    interval = sys.getswitchinterval()
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize(("before", "within"), [(0.005, SWITCH_INTERVAL), (0.0001, 0.0001)])
def test_threads_take_turns_more_often_for_as_long_as_it_is_wanted(before: float, within: float) -> None:
    sys.setswitchinterval(before)
    with promptness():
        assert sys.getswitchinterval() == pytest.approx(within, abs=1e-5)
    assert sys.getswitchinterval() == pytest.approx(before, abs=1e-5)
