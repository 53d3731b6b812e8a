"""Books that start over REST: what comes meanwhile is kept and joined to the snapshot, and nothing is told as lost."""

from __future__ import annotations

from typing import cast

import attrs

from pipeline.book.tracker import BookOptions
from pipeline.exchanges.venue import BookSeed, SessionTimes, Subscription
from pipeline.feeds.chain import Chain
from pipeline.feeds.errands import Errand, Errands
from pipeline.feeds.feed import SEED_AGAIN, TICK, Feed, FeedTimes
from pipeline.model.events import BookUpdate, Event, FeedStatus
from pipeline.model.stats import ConnectionStats
from tests.feeds.toy import ToyVenue, book, catalogue

TOPIC = "book.BTC"


@attrs.define
class Queue:
    """Stands for `Errands`: keeps what is asked for."""

    errands: list[Errand] = attrs.field(factory=list)

    def add(self, *errands: Errand) -> None:
        self.errands.extend(errands)

    def answer(self, body: bytes) -> None:
        """Let the venue answer the oldest question."""
        errand = self.errands.pop(0)
        steps = errand.steps()
        assert next(steps) == "/book"
        try:
            steps.send(body)
        except StopIteration as end:
            errand.done(end.value)


class Bench:
    def __init__(self, *, is_required: bool, after: float | None = None) -> None:
        self.now = 100.0
        self.published: list[Event] = []
        self.queue = Queue()
        venue = ToyVenue(seed=BookSeed("/book", is_required))
        subscription = Subscription(TOPIC, "book", "book", "spot", "BTC", "spot")
        self.stats = ConnectionStats("toy.0", "toy", "spot", "spot", "ws://toy/spot")
        self.feed = Feed(
            "toy.0#1",
            venue.session("spot", [subscription], SessionTimes(20.0, 10.0)),
            Chain(venue, "spot", "toy.0#1", catalogue("BTC"), self.publish),
            self.publish,
            lambda: round(self.now * 1e6),
            self.stats,
            FeedTimes(),
            lambda event, text: None,
            errands=cast(Errands, self.queue),
            seed_after=lambda key: after,
        )
        self.feed.start(self.now)
        self.receive(f"ok subscribe {TOPIC}".encode())

    def publish(self, event: Event) -> bool:
        self.published.append(event)
        return True

    def receive(self, *messages: bytes) -> None:
        self.feed.receive(list(messages), self.now)

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += TICK
            self.feed.on_deadline(self.now)

    def books(self) -> list[tuple[bool, int | None]]:
        return [(e.is_snapshot, e.sequence) for e in self.published if isinstance(e, BookUpdate)]

    def gaps(self) -> list[str]:
        return [e.reason for e in self.published if isinstance(e, FeedStatus) and e.status == "gap"]


def test_updates_are_joined_to_the_snapshot() -> None:
    bench = Bench(is_required=True)
    bench.receive(book(5, 4), book(6, 5))
    bench.wait(TICK)
    bench.receive(book(7, 6))
    assert bench.books() == []
    bench.queue.answer(book(6))
    bench.receive(book(8, 7))
    assert bench.books() == [(True, 6), (False, 7), (False, 8)]
    assert bench.gaps() == []
    assert bench.stats.seeds == 1


def test_an_update_that_begins_before_the_snapshot_and_ends_after_it_is_joined() -> None:
    bench = Bench(is_required=True)
    bench.receive(book(4, 2), book(8, 4))
    bench.wait(TICK)
    bench.queue.answer(book(6))
    bench.receive(book(9, 8))
    assert bench.books() == [(True, 6), (False, 8), (False, 9)]
    assert bench.gaps() == []


def test_the_stream_may_be_behind_the_snapshot() -> None:
    bench = Bench(is_required=True)
    bench.receive(book(4, 2))
    bench.wait(TICK)
    bench.queue.answer(book(9))
    bench.receive(book(8, 4), book(9, 8), book(12, 9), book(13, 12))
    assert bench.books() == [(True, 9), (False, 12), (False, 13)]
    ahead = Bench(is_required=True)
    ahead.wait(TICK)
    ahead.queue.answer(book(9))
    ahead.receive(book(8, 4), book(11, 8), book(14, 12))
    assert ahead.books() == [(True, 9), (False, 11)]
    assert (bench.gaps(), len(ahead.gaps())) == ([], 1)


def test_an_answer_older_than_the_stream_is_asked_for_again() -> None:
    bench = Bench(is_required=True)
    bench.receive(book(5, 4))
    bench.wait(TICK)
    bench.queue.answer(book(3))
    assert bench.books() == []
    assert not bench.queue.errands
    bench.wait(SEED_AGAIN + 2 * TICK)
    bench.queue.answer(book(5))
    assert bench.books() == [(True, 5)]


def test_a_snapshot_that_nobody_understands_does_not_end_the_connection() -> None:
    bench = Bench(is_required=True)
    bench.feed.chain.book_options = lambda key: BookOptions(derive_bbo=True)
    bench.wait(TICK)
    bench.queue.answer(b'{"topic": "book.BTC", "seq": 4, "snapshot": true, "bids": [["10"]]}')
    bench.receive(book(5, 4), book(9))
    assert bench.books() == [(True, 9)]
    assert bench.gaps() == ["tuple index out of range"]


def test_a_hole_in_what_was_kept_is_not_joined() -> None:
    bench = Bench(is_required=True)
    bench.receive(book(5, 4), book(9, 8))
    bench.wait(TICK)
    bench.queue.answer(book(6))  # 7 and 8 are in neither
    assert bench.books() == []
    bench.wait(SEED_AGAIN + 2 * TICK)
    bench.queue.answer(book(8))
    assert bench.books() == [(True, 8), (False, 9)]


def test_a_gap_is_healed_by_a_new_snapshot() -> None:
    bench = Bench(is_required=True)
    bench.wait(TICK)
    bench.queue.answer(book(1))
    bench.receive(book(3, 2))
    assert len(bench.gaps()) == 1
    bench.wait(TICK * 8)
    assert "unsubscribe book.BTC" in bench.feed.data_to_send()
    bench.receive(f"ok unsubscribe {TOPIC}".encode())
    bench.receive(f"ok subscribe {TOPIC}".encode(), book(4, 3))
    bench.wait(TICK)
    bench.queue.answer(book(4))
    bench.receive(book(5, 4))
    assert bench.books() == [(True, 1), (True, 4), (False, 5)]
    assert len(bench.gaps()) == 1


def test_where_the_stream_sends_snapshots_rest_is_asked_only_if_none_comes() -> None:
    bench = Bench(is_required=False, after=5.0)
    bench.receive(book(1))
    bench.wait(10.0)
    assert not bench.queue.errands
    late = Bench(is_required=False, after=5.0)
    late.receive(book(2, 1))
    late.wait(4.5)
    assert not late.queue.errands
    late.wait(1.0)
    late.queue.answer(book(1))
    assert late.books() == [(True, 1), (False, 2)]
    assert late.gaps() == []


def test_a_snapshot_of_the_stream_overtakes_the_answer() -> None:
    bench = Bench(is_required=False, after=1.0)
    bench.wait(2.0)
    bench.receive(book(7), book(8, 7))
    bench.queue.answer(book(5))
    bench.receive(book(9, 8))
    assert bench.books() == [(True, 7), (False, 8), (False, 9)]


def test_without_the_setting_nothing_is_asked() -> None:
    bench = Bench(is_required=False)
    bench.receive(book(2, 1))
    bench.wait(5.0)
    assert not bench.queue.errands
    assert len(bench.gaps()) == 1
