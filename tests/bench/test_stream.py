"""The benchmark's streams are what the venues send: without gaps, uncrossed, and the same from the same seed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from pipeline.bench.exchange import MARKETS, catalogue
from pipeline.bench.laps import Laps
from pipeline.bench.recorded import Recording, recorded_messages
from pipeline.bench.stream import MIXES, Subject, is_data, messages, subject
from pipeline.book.tracker import BookOptions
from pipeline.exchanges import VENUES
from pipeline.feeds.chain import Chain
from pipeline.model.events import BookUpdate, Event, FeedStatus, Micros, Trade

START_MS = 1_790_000_000_000
ENDPOINTS = {"bybit": "linear", "okx": "public"}
RECORDING = Path(__file__).parents[1] / "data" / "okx" / "recording.books.jsonl"


def published(venue: str, lines: Iterable[bytes]) -> tuple[list[Event], Chain]:
    """What the service makes of these messages, and the chain with its books."""
    events: list[Event] = []

    def publish(event: Event) -> bool:
        events.append(event)
        return True

    options = BookOptions(snapshot_interval=60_000_000)
    chain = Chain(VENUES[venue], ENDPOINTS[venue], "test#1", {}, publish, lambda key: options)
    for line in lines:
        chain.message(line, Micros(START_MS * 1_000))
    return events, chain


def assert_books_in_order(chain: Chain) -> None:
    for _, tracker in chain.books():
        assert tracker.book is not None
        [bid], [ask] = tracker.book.bids(1), tracker.book.asks(1)
        assert float(bid[0]) < float(ask[0])


@pytest.mark.parametrize("name", sorted(MIXES))
def test_a_stream_is_read_without_a_gap_and_its_books_do_not_cross(name: str) -> None:
    mix = MIXES[name]
    lines = list(messages(mix, 1_000, 3, 1, START_MS))
    events, chain = published(mix.venue, lines)
    assert len(events) >= len(lines)
    assert not [event for event in events if isinstance(event, FeedStatus)]
    assert bool(mix.book) == any(isinstance(event, BookUpdate) for event in events)
    assert_books_in_order(chain)
    assert all(map(is_data, lines))


@pytest.mark.parametrize("name", sorted(MIXES))
def test_a_stream_has_as_many_messages_as_are_asked_for_beside_its_snapshots(name: str) -> None:
    mix = MIXES[name]
    first_of_each = sum(channel != "trade" for channel in mix.channels) * 4
    assert len(list(messages(mix, 500, 4, 1, START_MS))) == 500 + (4 if mix.is_recorded else first_of_each)


def test_the_mixed_stream_has_the_size_of_real_ones() -> None:
    lines = list(messages(MIXES["bybit"], 5_000, 10, 1, START_MS))[20:]
    share = {
        family: sum(subject(line).family == family for line in lines) / 5_000 for family in ("orderbook", "tickers")
    }
    assert 0.57 < share["orderbook"] < 0.63
    assert 0.08 < share["tickers"] < 0.12
    assert 350 < sum(map(len, lines)) / len(lines) < 600


@pytest.mark.parametrize("name", ["bybit", "okx-recorded"])
def test_a_seed_always_gives_the_same_stream(name: str) -> None:
    first, again, other = (list(messages(MIXES[name], 200, 3, seed, START_MS)) for seed in (1, 1, 2))
    assert first == again != other


def test_the_subject_is_the_same_whatever_depth_is_asked_for() -> None:
    (line, *_) = messages(MIXES["bybit"], 0, 1, 1, START_MS)
    assert subject(line) == Subject.of_topic("orderbook.200.BTCUSDT") == Subject("orderbook", "BTCUSDT")


def test_a_recorded_book_is_the_recording_numbered_anew() -> None:
    recorded = [json.loads(line) for line in RECORDING.read_bytes().splitlines()]
    recording = Recording.read(RECORDING.read_bytes().splitlines())
    played = [json.loads(line) for line in recorded_messages(recording, len(recorded) - 1, 1, 1, START_MS)]
    begin = int(recorded[0]["data"][0]["ts"])
    before = -1
    for one, other in zip(recorded, played, strict=True):
        theirs, ours = one["data"][0], other["data"][0]
        assert (ours["asks"], ours["bids"]) == (theirs["asks"], theirs["bids"])
        assert int(ours["ts"]) - START_MS == int(theirs["ts"]) - begin
        assert (other["action"], other["arg"]) == (one["action"], {"channel": "books", "instId": "BTC-USDT-SWAP"})
        assert ours["prevSeqId"] == before
        before = ours["seqId"]


def test_each_lap_of_a_recorded_book_begins_with_its_snapshot_moved() -> None:
    recording = Recording.read(RECORDING.read_bytes().splitlines())
    lap = len(recording.messages)
    lines = list(recorded_messages(recording, 5 * lap, 1, 1, START_MS))
    _, chain = published("okx", lines[: 3 * lap + 1])
    [(_, tracker)] = chain.books()
    assert tracker.book is not None
    snapshot = json.loads(lines[0])["data"][0]
    best_asks = sorted((float(row[0]), row[1:]) for row in snapshot["asks"])
    now = [(float(row[0]), list(row[1:])) for row in tracker.book.asks()]
    shift = now[0][0] - best_asks[0][0]
    assert [(round(price - shift, 1), rest) for price, rest in now] == best_asks
    assert shift
    assert_books_in_order(published("okx", lines)[1])


def test_a_recording_that_does_not_begin_with_its_snapshot_is_refused() -> None:
    with pytest.raises(ValueError, match="one snapshot and its updates"):
        Recording.read(RECORDING.read_bytes().splitlines()[1:])


@pytest.mark.parametrize("name", sorted(MIXES))
def test_laps_follow_on_each_other(name: str) -> None:
    mix = MIXES[name]
    lines = list(messages(mix, 400, 3, 1, START_MS))
    laps = Laps(lines)
    assert [laps.message(number, 0) for number in range(len(lines))] == lines
    played = [laps.message(number, lap) for lap in range(3) for number in range(len(lines))]
    events, chain = published(mix.venue, played)
    assert not [event for event in events if isinstance(event, FeedStatus)]
    assert_books_in_order(chain)
    by_instrument: dict[str, list[int]] = {}
    for event in events:
        if isinstance(event, BookUpdate | Trade):
            assert event.exchange_time is not None
            by_instrument.setdefault(f"{event.KIND} {event.origin.key!r}", []).append(event.exchange_time)
    assert all(times == sorted(times) for times in by_instrument.values())
    assert min(times[-1] - times[0] for times in by_instrument.values()) > 2 * laps.duration_ms * 1_000
    trades = [(event.origin.key, event.trade_id) for event in events if isinstance(event, Trade)]
    assert len(trades) == len(set(trades))
    books = [(event.origin.key, event.sequence) for event in events if isinstance(event, BookUpdate)]
    assert len(books) == len(set(books))


@pytest.mark.parametrize("venue", ["bybit", "okx"])
def test_the_catalogue_has_the_instruments_of_the_stream(venue: str) -> None:
    known = catalogue(venue, 7)
    mix = next(mix for mix in MIXES.values() if mix.venue == venue)
    wanted = {(MARKETS[venue], subject(line).symbol) for line in messages(mix, 500, 7, 1, START_MS)}
    assert wanted == known.keys()
