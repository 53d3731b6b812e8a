from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.avro.codec import Schemas
from pipeline.avro.schemas import confluent_header
from pipeline.model.events import FeedStatus, Micros, Origin
from pipeline.sink.losses import Losses
from pipeline.sink.records import UNKNOWN_TIME, Record
from pipeline.sink.times import as_published, place, receive_time, timestamp_ms
from tests.sink.traffic import origin, trade

SCHEMAS = Schemas.load()
TEXTS = st.text(max_size=200)
MOMENTS = st.integers(0, 2**62).map(Micros)


@given(st.builds(Origin, TEXTS, TEXTS, *[st.none() | TEXTS] * 3, TEXTS), MOMENTS, MOMENTS | st.none())
@pytest.mark.parametrize("header", [None, confluent_header(7)])
def test_the_time_is_found_in_the_encoded_record(
    header: bytes | None, at: Origin, received: Micros, happened: Micros | None
) -> None:
    status = FeedStatus(at, happened, received, None, "gap", "sink", "")
    value = SCHEMAS["feed_status"].encoder(header)(status)
    assert timestamp_ms(value, nullable=True) == (received if happened is None else happened) // 1000
    print_ = trade(1, at)
    value = SCHEMAS["trade"].encoder(header)(print_)
    assert print_.exchange_time is not None
    assert timestamp_ms(value, nullable=False) == print_.exchange_time // 1000

    assert receive_time(value, nullable=False) == print_.receive_time
    assert place(value, nullable=False) == (print_.receive_time, print_.exchange_time, 1)
    assert place(SCHEMAS["feed_status"].encoder(header)(status), nullable=True) == (received, happened or 0, 0)


@given(st.lists(st.integers(1, 5), min_size=1), st.data())
def test_what_a_purge_gives_back_is_put_in_order(times: list[int], data: st.DataObject) -> None:
    """Per partition librdkafka gives the newer run first; records of one socket read share their time."""
    times.sort()
    records = [Record("trade", b"one", 0, b"%d %d" % (number, time)) for number, time in enumerate(times)]
    cut = data.draw(st.integers(0, len(times)))
    assume(times[:cut] != times[cut:] or not cut)
    assume(not cut or cut == len(times) or times[0] < times[cut] or times[cut - 1] < times[-1])
    other = [Record("trade", b"two", 0, b"0 3"), Record("trade", b"two", 0, b"1 4")]
    given_back = [*records[cut:], *other, *records[:cut]]
    put = as_published(given_back, lambda record: (int(record.value.split()[1]), 0, 0))
    assert [record for record in put if record.key == b"one"] == records
    assert [record for record in put if record.key == b"two"] == other


@given(st.lists(st.tuples(st.just(7), st.integers(1, 3), st.integers(0, 3)), min_size=1), st.data())
def test_what_one_read_brought_is_put_in_order_by_what_the_venue_says(
    places: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    places.sort()
    records = [Record("trade", b"one", 0, b"%d" % number) for number in range(len(places))]
    cut = data.draw(st.integers(0, len(places)))
    put = as_published([*records[cut:], *records[:cut]], lambda record: places[int(record.value)])
    assert [places[int(record.value)] for record in put] == places


@pytest.mark.parametrize("sequences", [(5, 4, 6), (2, 1, 3, 2), (7, 7, 7)])
def test_numbers_that_do_not_rise_along_the_runs_change_nothing(sequences: tuple[int, ...]) -> None:
    records = [Record("trade", b"one", 0, b"%d %d" % each) for each in enumerate(sequences)]
    assert as_published(records, lambda record: (7, 0, int(record.value.split()[1]))) == records


@given(st.binary(max_size=30))
def test_bytes_without_a_time_are_no_error(value: bytes) -> None:
    assert isinstance(timestamp_ms(value, nullable=True), int)
    assert timestamp_ms(b"\x01", nullable=True) == UNKNOWN_TIME


def test_losses_are_told_once_per_kind_and_instrument() -> None:
    losses = Losses()
    for moment in (5, 3, 9):
        losses.add("trade", origin(), Micros(moment))
    losses.add("ticker", origin(), Micros(4))
    trades, tickers = losses.announcements(Micros(10), "the spool was full")
    assert (trades.count, trades.from_time, trades.to_time) == (3, 3, 9)
    assert trades.reason == "3 trade records lost: the spool was full"
    assert tickers.count == 1
    assert losses.announcements(Micros(11), "") == []
