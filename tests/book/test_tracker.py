"""What is published of a book, and what is announced instead."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from pipeline.book.continuity import SequenceRule
from pipeline.book.order_book import OrderBook
from pipeline.book.tracker import BookOptions, BookTracker
from pipeline.model.errors import BadMessage
from pipeline.model.events import Bbo, BookTop, BookUpdate, Event, FeedStatus, Micros, Origin, Row
from tests.book.updates import update

RULE = SequenceRule(ignores_old=False)
BIDS: list[Row] = [("10", "1"), ("9", "2")]
ASKS: list[Row] = [("11", "3")]


def snapshot(sequence: int = 10, received: int = 1_000_000) -> BookUpdate:
    return update(sequence, snapshot=True, bids=list(BIDS), asks=list(ASKS), received=received)


def statuses(events: list[Event]) -> list[tuple[str, int | None, int | None]]:
    return [(e.status, e.from_sequence, e.to_sequence) for e in events if isinstance(e, FeedStatus)]


def test_nothing_before_a_snapshot_but_the_announcement() -> None:
    tracker = BookTracker(RULE)
    assert statuses(tracker.apply(update(11, 10))) == [("gap", None, 11)]
    assert tracker.wants_resync
    assert tracker.apply(update(12, 11)) == []
    events = tracker.apply(snapshot(12))
    assert statuses(events) == [("resynced", None, 12)]
    assert isinstance(events[0], FeedStatus)
    assert events[0].count == 2
    assert events[1:] == [snapshot(12)] or events[1].sequence == 12
    assert not tracker.wants_resync


def test_updates_of_one_chain_share_the_epoch_of_their_snapshot() -> None:
    tracker = BookTracker(RULE)
    [first] = tracker.apply(snapshot(10, received=5))
    [second] = tracker.apply(update(15, 10, received=9))
    assert isinstance(first, BookUpdate)
    assert isinstance(second, BookUpdate)
    assert first.epoch == second.epoch == 5


@pytest.mark.parametrize("options", [BookOptions(), BookOptions(snapshot_interval=1)])
def test_the_levels_of_an_update_do_not_stay_in_memory(options: BookOptions) -> None:
    tracker = BookTracker(RULE, options)
    for one in (snapshot(10), update(11, 10, bids=[("10", "5")]), update(12, 11, bids=[("10", "4")])):
        before = sys.getrefcount(one)
        tracker.apply(one)
        assert sys.getrefcount(one) == before


def test_what_is_made_of_a_book_tells_its_last_update() -> None:
    tracker = BookTracker(RULE, BookOptions(snapshot_interval=1, top_levels=1))
    renamed = Origin("venue", "linear", "BTCUSDT", "BTC-USD-PERP", None, "venue.linear.book.0#1")
    newest = replace(update(11, 10, received=2_000_000), origin=renamed, cross_sequence=77)
    tracker.apply(snapshot(10))
    tracker.apply(newest)
    periodic, top = tracker.due(Micros(3_000_000))
    place = tracker.place
    assert isinstance(periodic, BookUpdate)
    assert isinstance(top, BookTop)
    assert place is not None
    for each in (periodic, top, place):
        assert (each.origin, each.exchange_time, each.sequence) == (renamed, Micros(1_999_000), 11)
    assert (periodic.cross_sequence, place.cross_sequence, place.receive_time) == (77, 77, Micros(2_000_000))


def test_a_snapshot_may_change_what_deltas_do_not() -> None:
    tracker = BookTracker(RULE, BookOptions(snapshot_interval=1))
    tracker.apply(snapshot(10))
    tracker.apply(replace(snapshot(20), size_unit="contract", depth=200))
    [periodic] = tracker.due(Micros(3_000_000))
    assert isinstance(periodic, BookUpdate)
    assert (periodic.size_unit, periodic.depth) == ("contract", 200)


def test_a_gap_stops_the_book_and_a_snapshot_starts_a_higher_epoch() -> None:
    tracker = BookTracker(RULE)
    tracker.apply(snapshot(10, received=5))
    assert statuses(tracker.apply(update(20, 15, received=6))) == [("gap", 10, 20)]
    assert tracker.wants_resync
    assert not tracker.valid
    assert tracker.apply(update(25, 20)) == []
    events = tracker.apply(snapshot(30, received=5))
    assert statuses(events) == [("resynced", 10, 30)]
    assert isinstance(events[1], BookUpdate)
    assert events[1].epoch == 6
    assert tracker.gaps == 1


def test_a_keep_alive_is_not_published_and_a_reset_is() -> None:
    tracker = BookTracker(RULE)
    tracker.apply(snapshot(15))
    assert tracker.apply(update(15, 15)) == []
    [reset] = tracker.apply(update(3, 15))
    assert isinstance(reset, BookUpdate)
    assert reset.is_reset
    [after] = tracker.apply(update(5, 3))
    assert isinstance(after, BookUpdate)
    assert not after.is_reset
    assert tracker.resets == 1


def test_old_deltas_are_dropped_where_the_rule_says_so() -> None:
    tracker = BookTracker(SequenceRule(ignores_old=True))
    tracker.apply(snapshot(10))
    assert tracker.apply(update(9, 8)) == []
    assert tracker.valid


def test_standalone_books_keep_their_epoch() -> None:
    tracker = BookTracker(None)
    [first] = tracker.apply(snapshot(10, received=5))
    [second] = tracker.apply(snapshot(11, received=9))
    assert isinstance(first, BookUpdate)
    assert isinstance(second, BookUpdate)
    assert (first.epoch, second.epoch) == (5, 5)


def test_derived_quotes_come_on_change_only() -> None:
    tracker = BookTracker(RULE, BookOptions(derive_bbo=True))
    [_, bbo] = tracker.apply(snapshot())
    assert isinstance(bbo, Bbo)
    assert (bbo.bid_price, bbo.bid_size, bbo.ask_price, bbo.ask_size) == ("10", "1", "11", "3")
    assert bbo.is_derived
    assert len(tracker.apply(update(11, 10, bids=[("9", "5")]))) == 1
    [_, changed] = tracker.apply(update(12, 11, asks=[("11", "0")]))
    assert isinstance(changed, Bbo)
    assert changed.ask_price is None


def test_periodic_snapshots_repeat_the_present_book_in_its_epoch() -> None:
    tracker = BookTracker(RULE, BookOptions(snapshot_interval=60))
    tracker.apply(snapshot(10, received=100))
    tracker.apply(update(11, 10, bids=[("10", "0"), ("8", "4")], received=120))
    assert tracker.due(Micros(159)) == []
    [periodic] = tracker.due(Micros(160))
    assert isinstance(periodic, BookUpdate)
    assert periodic.is_snapshot
    assert periodic.is_periodic
    assert (periodic.sequence, periodic.epoch, periodic.receive_time) == (11, 100, 160)
    assert periodic.bids == [("9", "2"), ("8", "4")]
    assert tracker.due(Micros(219)) == []
    assert len(tracker.due(Micros(220))) == 1


def test_book_top_at_its_interval() -> None:
    tracker = BookTracker(RULE, BookOptions(top_levels=1, top_interval=50))
    tracker.apply(snapshot(10, received=100))
    [top] = tracker.due(Micros(100))
    assert isinstance(top, BookTop)
    assert (top.bids, top.asks) == ([("10", "1")], [("11", "3")])
    assert tracker.due(Micros(149)) == []
    assert len(tracker.due(Micros(150))) == 1


def test_nothing_is_due_of_a_broken_book() -> None:
    tracker = BookTracker(RULE, BookOptions(snapshot_interval=1, top_levels=1))
    tracker.apply(snapshot())
    tracker.apply(update(20, 15))
    assert tracker.due(Micros(10**12)) == []


def test_levels_are_kept_only_where_asked_for() -> None:
    plain, keeping = BookTracker(RULE), BookTracker(RULE, BookOptions(derive_bbo=True))
    plain.apply(snapshot())
    keeping.apply(snapshot())
    assert plain.book is None
    assert isinstance(keeping.book, OrderBook)


def test_a_book_whose_prices_are_written_in_two_ways_starts_again() -> None:
    tracker = BookTracker(RULE, BookOptions(snapshot_interval=10))
    tracker.apply(update(1, snapshot=True, bids=[("9.5", "1")], received=100))
    tracker.apply(update(2, 1, bids=[("9.50", "0"), ("8", "1")], received=101))
    (gap,) = tracker.due(Micros(110))
    assert isinstance(gap, FeedStatus)
    assert (gap.status, gap.reason) == ("gap", "the book cannot be read: price 9.5 is written in two ways")
    assert tracker.wants_resync
    assert tracker.due(Micros(120)) == []
    tracker.apply(update(3, snapshot=True, bids=[("9.5", "1")], received=130))
    tracker.apply(update(4, 3, bids=[("9.50", "0"), ("8", "1")], received=131))
    (whole,) = tracker.due(Micros(140))
    assert isinstance(whole, BookUpdate)
    assert whole.bids == [("8", "1")]


def crc(bids: Iterable[Row], asks: Iterable[Row]) -> int:
    return zlib.crc32(repr((list(bids), list(asks))).encode())


def test_a_wrong_checksum_is_a_gap_and_a_right_one_is_not() -> None:
    tracker = BookTracker(SequenceRule(ignores_old=False, checksum=crc))
    good = update(10, snapshot=True, bids=list(BIDS), asks=list(ASKS), checksum=crc(BIDS, ASKS))
    assert tracker.apply(good) == [good]
    after = crc([("9", "2")], ASKS)
    assert len(tracker.apply(update(11, 10, bids=[("10", "0")], checksum=after))) == 1
    assert statuses(tracker.apply(update(12, 11, bids=[("9", "7")], checksum=after))) == [("gap", 11, 12)]
    assert tracker.checksum_failures == 1
    assert tracker.wants_resync


def test_an_unreadable_price_loses_the_book() -> None:
    tracker = BookTracker(RULE, BookOptions(derive_bbo=True))
    tracker.apply(snapshot(10))
    with pytest.raises(BadMessage):
        tracker.apply(update(11, 10, bids=[("ten", "1")]))
    assert tracker.wants_resync
    assert tracker.apply(update(12, 11)) == []
    assert statuses(tracker.apply(snapshot(20))) == [("resynced", 10, 20)]


def test_invalidation_from_outside_is_announced_once() -> None:
    tracker = BookTracker(RULE)
    assert tracker.invalidate(Micros(7), "stale") is None
    tracker.apply(snapshot(10))
    status = tracker.invalidate(Micros(7), "stale")
    assert status is not None
    assert (status.status, status.reason, status.from_sequence) == ("gap", "stale", 10)
    assert tracker.invalidate(Micros(8), "stale") is None


class LossyFeed(RuleBasedStateMachine):
    """Whatever is lost on the way, a consumer that follows the published chain holds the true book or knows better."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = BookTracker(RULE)
        self.true, self.sequence, self.now = OrderBook(), 0, 0
        self.consumer: OrderBook | None = None
        self.chain: tuple[int, int | None] = (0, None)

    def _deliver(self, message: BookUpdate) -> None:
        for event in self.tracker.apply(message):
            if isinstance(event, FeedStatus):
                if event.status == "gap":
                    self.consumer = None
                continue
            assert isinstance(event, BookUpdate)
            if event.is_snapshot:
                assert event.epoch > self.chain[0]
                self.consumer = OrderBook()
            else:
                assert event.epoch == self.chain[0]
                assert event.previous_sequence == self.chain[1]
            assert self.consumer is not None
            self.consumer.apply(event)
            self.chain = (event.epoch, event.sequence)

    @rule(
        changes=st.lists(st.tuples(st.sampled_from("123456"), st.sampled_from(["0", "1", "2"])), max_size=3),
        lost=st.booleans(),
    )
    def change(self, changes: list[Row], lost: bool) -> None:
        self.now += 1
        previous, self.sequence = self.sequence, self.sequence + 1
        message = update(self.sequence, previous, bids=changes, received=self.now)
        self.true.apply(message)
        if not lost:
            self._deliver(message)

    @rule()
    def snapshot(self) -> None:
        self.now += 1
        self._deliver(update(self.sequence, snapshot=True, bids=self.true.bids(), received=self.now))

    @invariant()
    def consumer_is_right(self) -> None:
        if self.consumer is not None and self.chain[1] == self.sequence:
            assert self.consumer.bids() == self.true.bids()


TestLossyFeed = LossyFeed.TestCase
