from __future__ import annotations

from typing import Any

import pytest

from pipeline.book.tracker import BookTracker
from pipeline.exchanges.okx.streams import Stream
from pipeline.exchanges.venue import BookSeed, Subscription
from pipeline.model.errors import BadMessage, Refused, Retryable
from pipeline.model.events import PRICE_SIZE_COUNT, PRICE_SIZE_RPI_COUNT, Bbo, BookUpdate, FeedStatus
from tests.exchanges.okx.samples import RECEIVED, VENUE, events_of, fields, normalizer, push, sample

ASKS = [("63921.5", "790.41", "0", "42"), ("63921.8", "0.32", "0", "1")]
BIDS = [("63921.4", "421.93", "0", "28"), ("63921.3", "0.25", "0", "1")]


def updates(name: str) -> list[BookUpdate]:
    return [event for event in events_of(name) if isinstance(event, BookUpdate)]


def data(seq: int | None, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"asks": [["2", "1", "0", "1"]], "bids": [["1", "1", "0", "1"]], "ts": "5", **more}
    return row if seq is None else {**row, "seqId": seq}


@pytest.mark.parametrize(
    ("channel", "depth"), [("books-l2-tbt", 400), ("books50-l2-tbt", 50)], ids=["400 levels", "50 levels"]
)
def test_incremental_books(channel: str, depth: int) -> None:
    snapshot, delta = events_of(f"public.{channel}.constructed")
    common = {
        "of": ("okx", "swap", "BTC-USDT-SWAP", "BTC-USDT-PERP"),
        "receive_time": RECEIVED,
        "channel": channel,
        "layout": PRICE_SIZE_COUNT,
        "size_unit": "contract",
        "depth": depth,
        "is_reset": False,
        "is_periodic": False,
        "epoch": 0,
    }
    assert fields(snapshot) == common | {
        "exchange_time": 1786541241000000,
        "sequence": 333794734980,
        "is_snapshot": True,
        "bids": BIDS,
        "asks": ASKS,
    }
    assert fields(delta) == common | {
        "exchange_time": 1786541241010000,
        "sequence": 333794734988,
        "is_snapshot": False,
        "previous_sequence": 333794734980,
        "bids": [("63921.4", "400.1", "0", "27")],
        "asks": [("63921.8", "0", "0", "0")],
    }


def test_documented_book_of_a_spot_pair() -> None:
    snapshot, delta = updates("public.books")
    assert (snapshot.origin.market, snapshot.size_unit, snapshot.depth) == ("spot", "base", 400)
    assert (snapshot.is_snapshot, snapshot.previous_sequence, snapshot.sequence) == (True, None, 123456)
    assert (delta.is_snapshot, delta.previous_sequence, delta.sequence) == (False, 123456, 123457)
    assert (snapshot.checksum, len(snapshot.asks), snapshot.bids[0]) == (None, 8, ("8476.97", "256", "0", "12"))


def test_the_sequence_is_passed_on_with_keep_alive_reset_and_gap() -> None:
    found = [
        (u.is_snapshot, u.previous_sequence, u.sequence, u.is_reset)
        for u in updates("public.books.sequence.constructed")
    ]
    assert found == [
        (True, None, 10, False),
        (False, 10, 15, False),
        (False, 15, 15, False),
        (False, 15, 3, True),
        (False, 3, 5, False),
        (False, 9, 12, False),
    ]


def test_the_rule_follows_a_reset_ignores_a_keep_alive_and_finds_the_gap() -> None:
    tracker = BookTracker(VENUE.sequence_rule("books"))
    published = [tracker.apply(update) for update in updates("public.books.sequence.constructed")]
    assert [[type(event) for event in events if not isinstance(event, Bbo)] for events in published] == [
        [BookUpdate],
        [BookUpdate],
        [],
        [BookUpdate],
        [BookUpdate],
        [FeedStatus],
    ]


@pytest.mark.parametrize(
    ("channel", "top"), [("books", {"action": "update"}), ("books5", {})], ids=["incremental", "full"]
)
def test_rows_may_get_longer_and_then_cost_one_slow_reading(channel: str, top: dict[str, str]) -> None:
    reader = normalizer()
    long = data(2, asks=[["2", "1", "0", "1", "new"], ["3", "1", "0", "1", "new", "newer"]], extra="x")
    for number, row in enumerate((data(1), long, data(3)), 1):
        message = push(channel, "BTC-USDT-SWAP", row, **top)
        (event,) = reader.normalize(message, RECEIVED)
        assert isinstance(event, BookUpdate)
        assert (event.sequence, [list(each) for each in event.asks]) == (number, row["asks"])
    assert reader.unknown_fields == [f"{channel}: data[].extra"]
    (stream,) = reader.streams.values()
    assert isinstance(stream, Stream)
    assert stream.family.decode(push(channel, "BTC-USDT-SWAP", long, **top)).data[0].seqId == 2


@pytest.mark.parametrize(
    ("name", "count"), [("recording.books", 99), ("public.books.checksum.constructed", 4)], ids=["recorded", "thin"]
)
def test_checksums_hold_through_normalizer_and_tracker(name: str, count: int) -> None:
    tracker = BookTracker(VENUE.sequence_rule("books"))
    checked = 0
    for update in updates(name):
        assert update.checksum
        checked += any(isinstance(event, BookUpdate) for event in tracker.apply(update))
    assert (checked, tracker.checksum_failures) == (count, 0)


def test_recorded_books_of_2022_have_no_numbers() -> None:
    found = updates("recording.books")
    assert [update.is_snapshot for update in found] == [True] + [False] * 98
    assert {(update.sequence, update.previous_sequence) for update in found} == {(None, None)}
    assert (len(found[0].bids), len(found[0].asks), found[0].checksum) == (72, 64, 1054815633)
    assert found[0].origin.key == b"okx.futures.BTC-USD-220527"


def test_rpi_books_tell_rpi_from_the_ordinary_size() -> None:
    snapshot, delta = updates("public.books-rpi.constructed")
    assert (snapshot.layout, snapshot.depth) == (PRICE_SIZE_RPI_COUNT, 400)
    assert snapshot.asks == [("63921.5", "780.41", "10.00", "42"), ("63921.8", "0.32", "0.00", "1")]
    assert snapshot.bids == [("63921.4", "400.00", "21.93", "28")]
    assert (delta.asks, delta.bids, delta.previous_sequence) == ([("63921.5", "790", "10", "43")], [], 333794734980)


def test_recorded_books5_are_snapshots() -> None:
    found = updates("recording2026.books5")
    assert [(u.origin.instrument, u.sequence, u.size_unit) for u in found] == [
        ("BTC-USDT-SWAP", 333794734980, "contract"),
        ("BTC-USDT-SWAP", 333794734996, "contract"),
        ("BTC-USDT", 79706756139, "base"),
        ("BTC-USDT", 79706756227, "base"),
    ]
    assert fields(found[3]) == {
        "of": ("okx", "spot", "BTC-USDT", "BTC-USDT"),
        "exchange_time": 1786538744903000,
        "receive_time": RECEIVED,
        "sequence": 79706756227,
        "channel": "books5",
        "is_snapshot": True,
        "bids": [
            ("64073", "0.2330179", "0", "41"),
            ("64072.7", "0.00050267", "0", "1"),
            ("64072.2", "0.0000102", "0", "1"),
            ("64071.5", "0.0000102", "0", "1"),
            ("64070.4", "0.00771581", "0", "1"),
        ],
        "asks": [
            ("64073.1", "1.11735037", "0", "11"),
            ("64073.6", "0.15471482", "0", "1"),
            ("64074", "0.0000102", "0", "1"),
            ("64075", "0.00024081", "0", "2"),
            ("64075.8", "0.24629813", "0", "1"),
        ],
        "layout": PRICE_SIZE_COUNT,
        "size_unit": "base",
        "depth": 5,
        "is_reset": False,
        "is_periodic": False,
        "epoch": 0,
    }
    assert updates("public.books5")[0].asks[0] == ("111.06", "55154", "0", "2")


@pytest.mark.parametrize("channel", ["books5", "bbo-tbt"])
def test_what_is_sent_again_in_silence_is_dropped(channel: str) -> None:
    reader = normalizer()
    counts = [len(reader.normalize(push(channel, "BTC-USDT", data(seq)), 1)) for seq in (7, 7, 8, 8, 7, None, None)]
    assert counts == [1, 0, 1, 0, 1, 1, 1]
    (stream,) = reader.streams.values()
    assert stream.messages == 7  # a repetition is a sign of life


def test_best_quotes() -> None:
    (event,) = events_of("public.bbo-tbt")
    assert fields(event) == {
        "of": ("okx", "swap", "BCH-USDT-SWAP", None),
        "exchange_time": 1670324386802000,
        "receive_time": RECEIVED,
        "sequence": 363996337,
        "channel": "bbo-tbt",
        "bid_price": "111.05",
        "bid_size": "57745",
        "ask_price": "111.06",
        "ask_size": "55154",
        "size_unit": "contract",
        "bid_order_count": 2,
        "ask_order_count": 2,
        "is_derived": False,
    }


def test_an_empty_side_has_no_best_quote() -> None:
    full, half = events_of("public.bbo-tbt.constructed")
    assert isinstance(full, Bbo)
    assert isinstance(half, Bbo)
    assert (full.bid_price, full.bid_order_count, full.ask_size) == ("63921.4", 28, "790.41")
    assert (half.bid_price, half.bid_size, half.ask_price, half.ask_size) == ("0.0005", "1", None, None)
    assert (half.bid_order_count, half.ask_order_count) == (1, None)


def test_columns_that_come_new_do_not_hurt() -> None:
    wider = data(1, asks=[["2", "1", "0", "1", "new"]])
    (event,) = normalizer().normalize(push("books5", "BTC-USDT", wider), 1)
    assert isinstance(event, BookUpdate)
    assert event.asks == [("2", "1", "0", "1", "new")]
    (event,) = normalizer().normalize(push("books-rpi", "BTC-USDT", wider, action="snapshot"), 1)
    assert isinstance(event, BookUpdate)
    assert event.asks == [("2", "0", "1", "1")]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (push("books", "BTC-USDT", data(1)), "missing required field `action`"),
        (push("books", "BTC-USDT", data(1), action="partial"), r"Invalid enum value 'partial' - at `\$.action`"),
        (push("books5", "BTC-USDT", {"asks": [], "ts": "1"}), r"missing required field `bids` - at `\$.data\[0\]`"),
        (push("books5", "BTC-USDT", data(1, asks=[["1", "1", "0"]])), r"length >= 4 - at `\$.data\[0\].asks\[0\]`"),
        (push("books-rpi", "X-Y", data(1, asks=[["1", "x", "y", "1"]]), action="update"), "books-rpi"),
    ],
    ids=["no action", "odd action", "no side", "short row", "no numbers"],
)
def test_what_is_missing_or_wrong_is_named(message: bytes, why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        normalizer().normalize(message, RECEIVED)


@pytest.mark.parametrize("channel", ["books5", "bbo-tbt", "tickers"])
def test_channels_that_stand_alone_have_no_rule(channel: str) -> None:
    assert VENUE.sequence_rule(channel) is None


@pytest.mark.parametrize("channel", ["books", "books-rpi", "books-elp", "books-l2-tbt", "books50-l2-tbt"])
def test_incremental_channels_never_take_an_old_number_for_a_repetition(channel: str) -> None:
    rule = VENUE.sequence_rule(channel)
    assert rule is not None
    assert not rule.ignores_old


@pytest.mark.parametrize(
    ("channel", "is_checked"), [("books", True), ("books50-l2-tbt", True), ("books-rpi", False), ("books-elp", False)]
)
def test_books_of_retail_orders_have_no_checksum_to_trust(channel: str, is_checked: bool) -> None:
    rule = VENUE.sequence_rule(channel)
    assert rule is not None
    assert (rule.checksum is not None) is is_checked


@pytest.mark.parametrize(
    ("channel", "depth"), [("books-elp", 400), ("books-l2-tbt", 400), ("books50-l2-tbt", 50), ("books", 400)]
)
def test_books_of_all_depths_are_read_alike(channel: str, depth: int) -> None:
    row = {"asks": [["2", "1", "0", "1"]], "bids": [], "ts": "1", "seqId": 5, "prevSeqId": 4, "checksum": 0}
    (event,) = normalizer().normalize(push(channel, "BTC-USDT-SWAP", row, action="update"), 1)
    assert isinstance(event, BookUpdate)
    assert (event.channel, event.depth, event.sequence, event.previous_sequence) == (channel, depth, 5, 4)
    assert (event.asks, event.checksum, event.is_snapshot) == ([("2", "1", "0", "1")], None, False)


def test_streams_tell_when_and_how_often_a_topic_spoke() -> None:
    reader = normalizer()
    for at, line in enumerate(sample("recording2026.books5"), start=1):
        reader.normalize(line, RECEIVED + at)
    assert {(s.topic, s.messages, s.last_receive - RECEIVED) for s in reader.streams.values()} == {
        ('{"channel":"books5","instId":"BTC-USDT-SWAP"}', 2, 3),
        ('{"channel":"books5","instId":"BTC-USDT"}', 2, 6),
    }
    assert [s.origin.key for s in reader.streams.values() if s.origin] == [
        b"okx.swap.BTC-USDT-SWAP",
        b"okx.spot.BTC-USDT",
    ]


def subscription(channel: str, instrument: str = "BTC-USDT-SWAP") -> Subscription:
    topic = f'{{"channel":"{channel}","instId":"{instrument}"}}'
    return Subscription(topic, "book", channel, "swap", instrument, "public")


@pytest.mark.parametrize(
    ("channel", "levels"),
    [("books", 400), ("books50-l2-tbt", 50), ("books-l2-tbt", 400), ("books5", None), ("books-rpi", None)],
)
def test_where_a_book_could_be_started_over_rest(channel: str, levels: int | None) -> None:
    path = f"/api/v5/market/books?instId=BTC-USDT-SWAP&sz={levels}"
    # OKX normally sends the snapshot itself.
    assert VENUE.book_seed(subscription(channel)) == (None if levels is None else BookSeed(path, is_required=False))


def test_a_book_that_starts_over_rest() -> None:
    (line,) = sample("rest.books")
    event = normalizer().seed(subscription("books"), line, RECEIVED)
    assert fields(event) == {
        "of": ("okx", "swap", "BTC-USDT-SWAP", "BTC-USDT-PERP"),
        "exchange_time": 1629966436396000,
        "receive_time": RECEIVED,
        "sequence": 3235851742,
        "channel": "books",
        "is_snapshot": True,
        "bids": [("41006.3", "0.30178218", "0", "2")],
        "asks": [("41006.8", "0.60038921", "0", "1")],
        "layout": PRICE_SIZE_COUNT,
        "size_unit": "contract",
        "depth": 400,
        "epoch": 0,
        "is_reset": False,
        "is_periodic": False,
    }
    tracker = BookTracker(VENUE.sequence_rule("books"))
    assert tracker.apply(event) == [event]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html>", BadMessage),
        (b'{"code":"0","data":[]}', BadMessage),
        (b'{"code":"0","data":[{"asks":[],"bids":[],"ts":"1"}]}', BadMessage),
        (b'{"code":"0","data":[{"asks":[["1"]],"bids":[],"ts":"1","seqId":1}]}', BadMessage),
        (b'{"code":"50011","msg":"Too Many Requests","data":[]}', Retryable),
        (b'{"code":"51001","msg":"no such instrument","data":[]}', Refused),
    ],
    ids=range(6),
)
def test_answers_that_are_no_book(body: bytes, error: type[Exception]) -> None:
    with pytest.raises(error, match="okx /api/v5/market/books"):
        normalizer().seed(subscription("books"), body, RECEIVED)
