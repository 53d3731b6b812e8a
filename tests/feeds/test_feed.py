"""One generation of a connection, driven by hand: what it publishes, sends and gives up."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pipeline.book.tracker import BookOptions
from pipeline.exchanges.venue import SessionTimes, Subscription
from pipeline.feeds.chain import Chain
from pipeline.feeds.feed import TICK, Feed, FeedTimes
from pipeline.model.errors import DeadlineMissed, HeartbeatLost, Refused
from pipeline.model.events import BookUpdate, DeadLetter, Event, FeedStatus, Trade
from pipeline.model.stats import ConnectionStats
from tests.feeds.toy import ToySession, ToyVenue, book, catalogue, trade


class Bench:
    """A feed with its clock in hand."""

    def __init__(self, *topics: str, max_silence: float = float("inf"), options: BookOptions | None = None) -> None:
        self.now = 100.0
        self.published: list[Event] = []
        self.refuse_encoding = False
        self.logged: list[tuple[str, str]] = []
        venue = ToyVenue()
        self.subscriptions = [self.subscription(topic, max_silence) for topic in topics]
        self.stats = ConnectionStats("toy.0", "toy", "spot", "spot", "ws://toy/spot")
        self.feed = Feed(
            "toy.0#1",
            venue.session("spot", self.subscriptions, SessionTimes(20.0, 10.0)),
            Chain(venue, "spot", "toy.0#1", catalogue("BTC"), self.publish, lambda key: options or BookOptions()),
            self.publish,
            lambda: round(self.now * 1e6),
            self.stats,
            FeedTimes(first_data=30.0),
            lambda event, text: self.logged.append((event, text)),
        )
        self.feed.start(self.now)

    @staticmethod
    def subscription(topic: str, max_silence: float = float("inf")) -> Subscription:
        kind, name = topic.split(".")
        return Subscription(topic, kind, kind, "spot", name, "spot", max_silence)

    def publish(self, event: Event) -> bool:
        if self.refuse_encoding and isinstance(event, BookUpdate):
            return False
        self.published.append(event)
        return True

    def receive(self, *messages: bytes) -> None:
        self.feed.receive(list(messages), self.now)

    def grant(self) -> None:
        self.receive(*[b"ok subscribe " + s.topic.encode() for s in self.subscriptions])
        self.feed.data_to_send()

    def run_to(self, now: float) -> None:
        """Let time pass, answering pings."""
        while self.feed.next_deadline() <= now:
            self.now = max(self.now, self.feed.next_deadline())
            self.feed.on_deadline(self.now)
            self.sent = [text for text in self.feed.data_to_send() if text != "ping"]
            self.receive(b"pong")
            if self.sent:
                return
        self.now = now

    def run_unanswered(self) -> None:
        """Let time pass without answers until the feed gives up."""
        while True:
            self.now = self.feed.next_deadline()
            self.feed.on_deadline(self.now)

    def statuses(self) -> list[tuple[str, str]]:
        return [(e.status, e.scope) for e in self.published if isinstance(e, FeedStatus)]


def test_the_life_of_a_quiet_connection() -> None:
    bench = Bench("trade.BTC", "book.BTC")
    assert bench.feed.data_to_send() == ["subscribe trade.BTC book.BTC"]
    assert not bench.feed.ready
    bench.grant()
    assert bench.feed.ready
    assert not bench.feed.flowing
    bench.receive(trade("1"), book(1))
    assert bench.feed.flowing
    bench.feed.closed(bench.now, "done")
    assert bench.statuses() == [
        ("connected", "connection"),
        ("subscribed", "instrument"),
        ("subscribed", "instrument"),
        ("lost", "connection"),
    ]
    assert [type(e) for e in bench.published if not isinstance(e, FeedStatus)] == [Trade, BookUpdate]
    assert (bench.stats.messages, bench.stats.events, bench.stats.subscribed) == (4, 2, 2)


def test_an_unreadable_message_goes_whole_to_the_dead_letters_and_the_rest_is_published() -> None:
    bench = Bench("trade.BTC")
    bench.grant()
    bench.receive(trade("1"), b'{"broken', trade("2"))
    kinds = [type(e) for e in bench.published if not isinstance(e, FeedStatus)]
    assert kinds == [Trade, DeadLetter, Trade]
    [letter] = [e for e in bench.published if isinstance(e, DeadLetter)]
    assert (letter.payload, letter.stage, letter.payload_size) == (b'{"broken', "parse", 8)
    assert bench.stats.dead_letters == 1


def test_a_flood_of_unreadable_messages_is_published_whole_and_logged_in_part() -> None:
    bench = Bench("trade.BTC")
    bench.grant()
    bench.receive(*[b"junk %d" % n for n in range(50)])
    assert sum(isinstance(e, DeadLetter) for e in bench.published) == 50
    assert sum(event == "unreadable_message" for event, _ in bench.logged) == 10
    assert not bench.feed.flowing


def test_a_bug_in_reading_one_message_costs_that_message_alone() -> None:
    bench = Bench("trade.BTC")
    bench.grant()
    bench.receive(b'{"topic":"bug.BTC"}', trade("2"))
    [letter] = [e for e in bench.published if isinstance(e, DeadLetter)]
    assert letter.reason == "unexpected LookupError: a message nobody thought of"
    assert [e.trade_id for e in bench.published if isinstance(e, Trade)] == ["2"]


class EndingSession(ToySession):
    """Of a venue that ends the conversation with an answer."""

    def receive(self, message: bytes, now: float) -> bool:
        if message == b"bye":
            raise Refused("bye")
        return ToySession.receive(self, message, now)


def test_what_came_before_the_answer_that_ends_the_conversation_is_published() -> None:
    bench = Bench("trade.BTC")
    bench.grant()
    session = bench.feed.session
    assert isinstance(session, ToySession)
    bench.feed.session = EndingSession(session.ledger, session.times, session.wanted)
    with pytest.raises(Refused, match="bye"):
        bench.receive(trade("1"), b'{"broken', trade("2"), b"bye", trade("3"))
    kinds = [type(e) for e in bench.published if not isinstance(e, FeedStatus)]
    assert kinds == [Trade, DeadLetter, Trade]
    assert bench.stats.dead_letters == 1


def test_a_missing_pong_ends_the_connection() -> None:
    bench = Bench("trade.BTC")
    bench.grant()
    with pytest.raises(HeartbeatLost):
        bench.run_unanswered()
    assert bench.now == 130


def test_a_gap_resubscribes_that_book_alone_and_tells() -> None:
    bench = Bench("trade.BTC", "book.BTC")
    bench.grant()
    bench.receive(book(1), book(5, 4))
    assert bench.feed.data_to_send() == ["unsubscribe book.BTC"]
    bench.receive(b"ok unsubscribe book.BTC")
    assert bench.feed.data_to_send() == ["subscribe book.BTC"]
    bench.receive(b"ok subscribe book.BTC", book(9))
    assert [status for status, _ in bench.statuses()][3:] == ["gap", "resynced"]
    bench.run_to(bench.now + 2)
    assert (bench.stats.gaps, bench.stats.resyncs) == (1, 1)


def test_resynchronizations_of_one_book_are_spaced_out() -> None:
    bench = Bench("book.BTC")
    bench.grant()
    times = []
    bench.receive(book(1))
    for _ in range(5):
        bench.receive(book(50, 49))
        sent = bench.feed.data_to_send()
        if not sent:
            bench.run_to(bench.now + 100)
            sent = bench.sent
        assert sent == ["unsubscribe book.BTC"]
        times.append(bench.now)
        bench.receive(b"ok unsubscribe book.BTC")
        bench.feed.data_to_send()
        bench.receive(b"ok subscribe book.BTC", book(1))
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses == sorted(pauses)
    assert [round(pause - pause % 2) for pause in pauses] == [2, 4, 8, 16]


def test_a_resync_that_brings_no_snapshot_is_tried_again() -> None:
    bench = Bench("book.BTC")
    bench.grant()
    bench.receive(book(1), book(5, 4))
    bench.feed.data_to_send()
    bench.receive(b"ok unsubscribe book.BTC")
    bench.feed.data_to_send()
    bench.receive(b"ok subscribe book.BTC")
    bench.run_to(bench.now + 5)
    assert bench.sent == ["unsubscribe book.BTC"]


def test_a_book_without_a_first_snapshot_is_subscribed_anew_then_the_connection_is_given_up() -> None:
    bench = Bench("book.BTC")
    bench.grant()
    bench.run_to(200)
    assert bench.now == pytest.approx(130, abs=TICK)
    assert bench.sent == ["unsubscribe book.BTC"]
    assert ("stale", "instrument") in bench.statuses()
    bench.receive(b"ok unsubscribe book.BTC")
    bench.feed.data_to_send()
    bench.receive(b"ok subscribe book.BTC")
    with pytest.raises(DeadlineMissed, match=r"book\.BTC: silent for another 30 s"):
        bench.run_to(200)


def test_silence_is_judged_per_subscription() -> None:
    bench = Bench("trade.BTC", max_silence=5.0)
    bench.grant()
    for second in range(8):
        bench.now = 101.0 + second
        bench.receive(trade(str(second)))
        bench.feed.on_deadline(bench.now)
    assert bench.stats.stale == 0
    bench.run_to(120)
    assert bench.now == pytest.approx(113, abs=2 * TICK)
    assert bench.sent == ["unsubscribe trade.BTC"]


def test_changes_of_the_plan_reach_the_living_connection() -> None:
    bench = Bench("trade.BTC")
    bench.grant()
    bench.feed.change([bench.subscription("trade.ETH")], bench.subscriptions)
    bench.run_to(bench.now + 1)
    assert bench.sent == ["unsubscribe trade.BTC", "subscribe trade.ETH"]
    bench.receive(b"ok unsubscribe trade.BTC", b"ok subscribe trade.ETH")
    assert bench.statuses()[2:] == [("unsubscribed", "instrument"), ("subscribed", "instrument")]
    assert bench.stats.subscribed == 1


def test_a_refused_topic_leaves_its_neighbours_alone() -> None:
    bench = Bench("trade.BTC", "trade.NO")
    bench.receive(b"ok subscribe trade.BTC", b"no trade.NO")
    assert bench.feed.ready
    assert bench.stats.refused == {"trade.NO": "no such topic"}
    assert ("refused", "instrument") in bench.statuses()
    assert ("subscription_refused", "trade.NO: no such topic") in bench.logged


def test_a_connection_whose_every_topic_is_refused_is_refused() -> None:
    bench = Bench("trade.NO", "trade.NEVER")
    bench.receive(b"no trade.NEVER")
    with pytest.raises(Refused, match="no such topic"):
        bench.receive(b"no trade.NO")


def test_an_update_that_cannot_be_encoded_breaks_the_books_chain_openly() -> None:
    bench = Bench("book.BTC")
    bench.grant()
    bench.receive(book(1))
    bench.refuse_encoding = True
    bench.receive(book(2, 1))
    assert bench.statuses()[-1] == ("gap", "instrument")
    assert bench.feed.data_to_send() == ["unsubscribe book.BTC"]


def test_periodic_snapshots_come_with_the_ticks() -> None:
    bench = Bench("book.BTC", options=BookOptions(snapshot_interval=3_000_000))
    bench.grant()
    bench.receive(book(1))
    bench.run_to(bench.now + 7)
    periodic = [e for e in bench.published if isinstance(e, BookUpdate) and e.is_periodic]
    assert len(periodic) == 2


def test_the_age_of_what_comes_is_noted_in_one_turn_of_eight_by_kind() -> None:
    bench = Bench("trade.BTC")
    bench.grant()
    for number in range(24):
        bench.receive(trade(str(number)))
    [(kind, ages)] = bench.feed.arrivals.items()
    [event] = {e.exchange_time or 0 for e in bench.published if isinstance(e, Trade)}
    assert (kind, sum(ages.counts)) == ("trade", 3)
    assert ages.sum_s == pytest.approx(3 * (bench.now - event / 1e6))
