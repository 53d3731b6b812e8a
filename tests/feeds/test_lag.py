"""When a connection lags, whatever the clocks say."""

from __future__ import annotations

import pytest

from pipeline.feeds.lag import CALM, LATE, MEMORY, Floor, LagMeter


def ticks(meter: LagMeter, *delays: float | None, start: float = 0.0) -> None:
    for number, delay in enumerate(delays):
        meter.tick(delay, start + number / 4)


@pytest.mark.parametrize("skew", [0.0, 86_400.0, -86_400.0, 1.7e9])
def test_a_lag_is_told_from_its_growth_and_not_from_the_clocks(skew: float) -> None:
    meter = LagMeter(2.0)
    changes = [meter.tick(skew + delay, at / 4) for at, delay in enumerate([0.1, 1.0, 2.0, 2.2, 2.3, 5.0])]
    assert changes == [False, False, False, False, True, False]
    assert meter.lag == pytest.approx(4.9, abs=1e-5)


def test_a_single_late_tick_is_no_lag() -> None:
    meter = LagMeter(2.0)
    for at in range(0, 40, 2):
        assert not meter.tick(0.1, at / 4)
        assert not meter.tick(3_600.0, (at + 1) / 4)


def test_it_has_caught_up_only_when_it_stays_well_within_the_bound() -> None:
    meter = LagMeter(2.0)
    ticks(meter, 0.0, *[3.0] * LATE)
    assert meter.is_lagging
    ticks(meter, *[1.5] * 20, start=1.0)
    assert meter.is_lagging, "within the bound is not enough"
    ticks(meter, *[0.9] * (CALM - 1), 1.5, *[0.9] * (CALM - 1), start=10.0)
    assert meter.is_lagging, "a moment is not enough"
    assert meter.tick(0.9, 20.0)
    assert not meter.is_lagging


def test_what_spoke_for_the_lag_does_not_speak_for_its_end() -> None:
    meter = LagMeter(2.0)
    ticks(meter, 0.0, *[3.0] * LATE, *[0.0] * (CALM - 1))
    assert meter.is_lagging


def test_who_waits_for_data_does_not_lag() -> None:
    meter = LagMeter(2.0)
    ticks(meter, 0.0, *[3.0] * LATE, *[None] * CALM)
    assert not meter.is_lagging
    assert meter.lag == 0.0


def test_the_smallest_delay_is_forgotten_in_the_end() -> None:
    floor = Floor()
    assert floor.note(1.0, 0.0) == 1.0
    assert floor.note(5.0, MEMORY - 1) == 1.0
    assert floor.note(6.0, MEMORY) == 1.0
    assert floor.note(7.0, 2 * MEMORY - 1) == 1.0
    assert floor.note(7.0, 2 * MEMORY) == 6.0
    assert floor.note(0.5, 2 * MEMORY + 1) == 0.5


def test_a_new_generation_knows_what_is_usual() -> None:
    floor = Floor()
    LagMeter(2.0, floor).tick(0.1, 0.0)
    after = LagMeter(2.0, floor)
    assert [after.tick(4.0, 1.0), after.tick(4.0, 1.25)] == [False, True]
