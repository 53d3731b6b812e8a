"""The benchmark's streams are what the venues send: without gaps, uncrossed, and the same from the same seed."""

from __future__ import annotations

import pytest

from pipeline.bench.stream import MIXES, Subject, messages, subject
from pipeline.book.tracker import BookOptions
from pipeline.exchanges import VENUES
from pipeline.feeds.chain import Chain
from pipeline.model.events import BookUpdate, Event, FeedStatus, Micros

START_MS = 1_790_000_000_000
ENDPOINTS = {"bybit": "linear", "okx": "public"}


@pytest.mark.parametrize("name", sorted(MIXES))
def test_a_stream_is_read_without_a_gap_and_its_books_do_not_cross(name: str) -> None:
    mix = MIXES[name]
    events: list[Event] = []

    def publish(event: Event) -> bool:
        events.append(event)
        return True

    options = BookOptions(snapshot_interval=60_000_000)
    chain = Chain(VENUES[mix.venue], ENDPOINTS[mix.venue], "test#1", {}, publish, lambda key: options)
    lines = list(messages(mix, 1_000, 3, 1, START_MS))
    for line in lines:
        chain.message(line, Micros(START_MS * 1_000))
    assert len(events) >= len(lines)
    assert not [event for event in events if isinstance(event, FeedStatus)]
    assert bool(mix.book) == any(isinstance(event, BookUpdate) for event in events)
    for _, tracker in chain.books():
        assert tracker.book is not None
        bid, ask = tracker.book.best_bid(), tracker.book.best_ask()
        assert bid is not None
        assert ask is not None
        assert float(bid[0]) < float(ask[0])


def test_a_seed_always_gives_the_same_stream() -> None:
    first, again, other = (list(messages(MIXES["bybit"], 200, 3, seed, START_MS)) for seed in (1, 1, 2))
    assert first == again != other


def test_the_subject_is_the_same_whatever_depth_is_asked_for() -> None:
    (line, *_) = messages(MIXES["bybit"], 0, 1, 1, START_MS)
    assert subject(line) == Subject.of_topic("orderbook.200.BTCUSDT") == Subject("orderbook", "BTCUSDT")
