"""Any interleaving of events: states lose only what is out of date, all else loses nothing."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.feeds.conflation import Conflation, ConflationPolicy, Topic
from pipeline.model.decimals import DecimalText
from pipeline.model.events import (
    PRICE_SIZE,
    Bbo,
    BookTop,
    BookUpdate,
    Event,
    FeedStatus,
    FundingRate,
    Micros,
    Origin,
    Ticker,
    Trade,
)

INTERVAL = 100
ORIGINS = {name: Origin("toy", "spot", name, None, None, "toy.0#1") for name in ("BTC", "ETH", "SOL")}
TOPICS: frozenset[Topic] = frozenset(
    {(None, "BTC"), (None, "ETH"), ("bbo", "BTC"), ("bbo", "ETH"), ("book", "BTC"), ("book", "ETH")}
)
"""All but SOL, and but the channel "other"."""


def ticker(name: str, number: int, now: int) -> Event:
    return Ticker(ORIGINS[name], None, Micros(now), number, "base")


def bbo(name: str, number: int, now: int, channel: str = "bbo") -> Event:
    return Bbo(ORIGINS[name], None, Micros(now), number, channel, None, None, None, None, "base")


def other_bbo(name: str, number: int, now: int) -> Event:
    return bbo(name, number, now, "other")


def top(name: str, number: int, now: int) -> Event:
    return BookTop(ORIGINS[name], None, Micros(now), number, "book", 1, [], [], PRICE_SIZE, "base")


def update(name: str, number: int, now: int) -> Event:
    origin = ORIGINS[name]
    return BookUpdate(origin, None, Micros(now), number, "book", False, None, [], [], PRICE_SIZE, "base", None)


def trade(name: str, number: int, now: int) -> Event:
    one = DecimalText("1")
    return Trade(ORIGINS[name], None, Micros(now), number, "1", one, one, "base", one, None, "buy")


def funding(name: str, number: int, now: int) -> Event:
    return FundingRate(ORIGINS[name], None, Micros(now), number, DecimalText("0"), None)


def gap(name: str, number: int, now: int) -> Event:
    return FeedStatus(ORIGINS[name], None, Micros(now), number, "gap", "instrument", "why", "book")


STATES = (ticker, bbo, top)
STREAMS = (*STATES, other_bbo, update, trade, funding, gap)


@attrs.define
class Bench:
    replaced: dict[str, int] = attrs.field(factory=dict)
    published: list[Event] = attrs.field(factory=list)
    now: int = 0
    conflation: Conflation = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.conflation = Conflation(ConflationPolicy(TOPICS, INTERVAL), self.onward, self.replaced)

    def onward(self, event: Event) -> bool:
        self.published.append(event)
        return True


def stream(event: Event) -> tuple[str, str | None, str | None]:
    return event.KIND, getattr(event, "channel", None), event.origin.instrument


def is_conflated(event: Event) -> bool:
    kind, channel, name = stream(event)
    return kind in ("ticker", "bbo", "book_top") and (channel, name) in TOPICS


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(STREAMS), st.sampled_from(list(ORIGINS)), st.integers(0, 60)),
            st.tuples(st.none(), st.just(""), st.integers(0, 200)),
        ),
        max_size=60,
    )
)
def test_only_states_that_are_out_of_date_are_missing(
    steps: list[tuple[object, str, int]],
) -> None:
    bench, sent = Bench(), list[Event]()
    for number, (make, name, passed) in enumerate(steps):
        bench.now += passed
        if make is None:
            bench.conflation.due(Micros(bench.now))
        else:
            event = make(name, number, bench.now)  # type: ignore[operator]
            sent.append(event)
            bench.conflation.publish(event)
    bench.conflation.flush()

    for each in {stream(event) for event in sent}:
        before = [event for event in sent if stream(event) == each]
        after = [event for event in bench.published if stream(event) == each]
        if not is_conflated(before[0]):
            assert after == before
            continue
        assert after[-1] is before[-1], "the newest state is never lost"
        numbers = [event.sequence for event in after if event.sequence is not None]
        assert numbers == sorted(set(numbers)), "in order, and none twice"
    assert len(sent) - len(bench.published) == sum(bench.replaced.values())
    # What is not conflated keeps its order over all instruments and kinds.
    assert [e for e in bench.published if not is_conflated(e)] == [e for e in sent if not is_conflated(e)]


@given(st.lists(st.tuples(st.sampled_from(STATES), st.sampled_from(["BTC", "ETH"]), st.integers(0, 90)), max_size=60))
def test_an_instrument_has_one_state_per_interval(steps: list[tuple[object, str, int]]) -> None:
    bench = Bench()
    for number, (make, name, passed) in enumerate(steps):
        bench.now += passed
        bench.conflation.publish(make(name, number, bench.now))  # type: ignore[operator]
    for stream_ in {stream(event) for event in bench.published}:
        times = [event.receive_time for event in bench.published if stream(event) == stream_]
        windows = [time // INTERVAL for time in times]
        assert windows == sorted(set(windows))


def test_what_was_replaced_is_counted_by_kind() -> None:
    bench = Bench()
    for number in range(4):
        bench.conflation.publish(ticker("BTC", number, number))
        bench.conflation.publish(bbo("ETH", number, number))
    bench.conflation.publish(top("ETH", 9, 5))
    assert bench.published == []
    assert bench.replaced == {"ticker": 3, "bbo": 3}
    assert bench.conflation.due(Micros(INTERVAL - 1)) is False
    assert bench.conflation.due(Micros(INTERVAL)) is True
    assert [event.sequence for event in bench.published] == [3, 3, 9]
    assert bench.conflation.due(Micros(10 * INTERVAL)) is False


def test_a_clock_that_was_set_back_holds_nothing_back() -> None:
    bench = Bench()
    bench.conflation.publish(ticker("BTC", 1, 1_000_000))
    assert bench.conflation.due(Micros(999_000))
    assert [event.sequence for event in bench.published] == [1]


def test_a_state_from_before_a_gap_is_published_before_it() -> None:
    bench = Bench()
    for event in (top("BTC", 1, 0), bbo("BTC", 2, 0), top("ETH", 3, 0), gap("BTC", 4, 1)):
        bench.conflation.publish(event)
    assert [event.sequence for event in bench.published] == [1, 2, 4]


@pytest.mark.parametrize("make", [update, trade, funding])
def test_whether_an_event_could_be_encoded_is_passed_on(make: object) -> None:
    conflation = Conflation(ConflationPolicy(TOPICS, INTERVAL), lambda event: False)
    assert conflation.publish(make("BTC", 1, 0)) is False  # type: ignore[operator]
