"""Order books and best quotes: `books` and its relatives, `bbo-tbt`, and those of spreads."""

from __future__ import annotations

from urllib.parse import urlencode

from pipeline.book.checksum import okx_checksum
from pipeline.book.continuity import SequenceRule
from pipeline.exchanges.okx import answers
from pipeline.exchanges.okx.streams import Listing, Stream
from pipeline.exchanges.okx.wire import FullBook, FullSpreadBook, IncrementalBook, IncrementalSpreadBook, LongBookData
from pipeline.exchanges.venue import BookSeed
from pipeline.model.decimals import DecimalText, exact_difference
from pipeline.model.errors import BadMessage
from pipeline.model.events import (
    PRICE_SIZE_COUNT,
    PRICE_SIZE_RPI_COUNT,
    Bbo,
    BookUpdate,
    Event,
    Layout,
    Micros,
    Row,
)

DEPTHS = {
    "books": 400,
    "books-l2-tbt": 400,
    "books50-l2-tbt": 50,
    "books-rpi": 400,
    "books-elp": 400,
    "books5": 5,
    "sprd-books-l2-tbt": 400,
    "sprd-books5": 5,
}
"""Levels per side by channel."""
INCREMENTAL = frozenset(DEPTHS) - {"books5", "sprd-books5"}
UNCHECKED = ("books-rpi", "books-elp")
"""Books without a checksum that is known to be that of the rows."""
SEEDS = {"books": 400, "books50-l2-tbt": 50, "books-l2-tbt": 400}
"""Books whose sequence numbers those of REST are, and the levels to ask for."""
_REST = "/api/v5/market/books"
SPREAD_ROW: Layout = ("price", "size", "order_count")
NO_PREVIOUS = -1


def sequence_rule(channel: str) -> SequenceRule | None:
    """How updates of `channel` follow each other.

    An update that does not chain is a gap even if its number is low: OKX restarts numbers at maintenance, and then
    says so by chaining to the last one.
    """
    if channel not in INCREMENTAL:
        return None
    # OKX sends 0 instead of a checksum since June 2026, which the normalizer drops; recordings before and spreads
    # have it.
    return SequenceRule(ignores_old=False, checksum=None if channel in UNCHECKED else okx_checksum)


def book_seed(channel: str, instrument: str | None) -> BookSeed | None:
    """Where the start of a book can be read, which OKX normally sends itself."""
    if channel not in SEEDS or instrument is None:
        return None
    return BookSeed(f"{_REST}?{urlencode({'instId': instrument, 'sz': SEEDS[channel]})}", is_required=False)


def seeded(listing: Listing, channel: str, body: bytes, receive_time: Micros) -> BookUpdate:
    """The snapshot in the answer to a `BookSeed`. Raises `BadMessage`, `Retryable` or `Refused`."""
    what = f"okx {_REST}"
    rows = answers.rows(body, what, LongBookData)
    if len(rows) != 1 or rows[0].seqId is None:
        raise BadMessage(f"{what}: no book with a seqId in the answer")
    row: LongBookData = rows[0]
    return BookUpdate(
        listing.origin,
        row.ts * 1000,
        receive_time,
        row.seqId,
        channel,
        True,
        None,
        row.bids,
        row.asks,
        PRICE_SIZE_COUNT,
        listing.size_unit,
        DEPTHS[channel],
    )


def incremental_book(stream: Stream, push: IncrementalBook, receive_time: Micros) -> list[Event]:
    """Snapshots and deltas whose rows are price, size, nothing, order count."""
    return _incremental(stream, push, receive_time, PRICE_SIZE_COUNT)


def rpi_book(stream: Stream, push: IncrementalBook, receive_time: Micros) -> list[Event]:
    """As `incremental_book`; a wire row is price, total, total without RPI, order count.

    Published is the size without RPI, as on other venues, and the RPI size beside it.
    """
    for row in push.data:
        row.bids = [_without_rpi(level) for level in row.bids]
        row.asks = [_without_rpi(level) for level in row.asks]
    return _incremental(stream, push, receive_time, PRICE_SIZE_RPI_COUNT)


def spread_book(stream: Stream, push: IncrementalSpreadBook, receive_time: Micros) -> list[Event]:
    """As `incremental_book`; prices may be zero and negative."""
    return _incremental(stream, push, receive_time, SPREAD_ROW)


def _without_rpi(level: Row) -> Row:
    price, total, organic, count = level[:4]
    return price, organic, exact_difference(total, organic), count


def _incremental(
    stream: Stream, push: IncrementalBook | IncrementalSpreadBook, receive_time: Micros, layout: Layout
) -> list[Event]:
    listing = stream.listing
    channel = stream.channel
    is_snapshot = push.action == "snapshot"
    events: list[Event] = []
    for row in push.data:
        sequence, previous = row.seqId, row.prevSeqId
        if previous == NO_PREVIOUS:
            previous = None
        events.append(
            BookUpdate(
                listing.origin,
                row.ts * 1000,
                receive_time,
                sequence,
                channel,
                is_snapshot,
                previous,
                row.bids,
                row.asks,
                layout,
                listing.size_unit,
                DEPTHS[channel],
                None,
                row.checksum or None,
                not is_snapshot and sequence is not None and previous is not None and sequence < previous,
            )
        )
    return events


def full_book(
    stream: Stream, push: FullBook | FullSpreadBook, receive_time: Micros, layout: Layout = PRICE_SIZE_COUNT
) -> list[Event]:
    """Whole books; the one that OKX sends again after a minute of silence is dropped."""
    listing = stream.listing
    last = stream.last_number
    events: list[Event] = []
    for row in push.data:
        if row.seqId is not None and row.seqId == last:
            continue
        last = row.seqId
        events.append(
            BookUpdate(
                listing.origin,
                row.ts * 1000,
                receive_time,
                row.seqId,
                stream.channel,
                True,
                None,
                row.bids,
                row.asks,
                layout,
                listing.size_unit,
                DEPTHS[stream.channel],
            )
        )
    stream.last_number = last
    return events


def full_spread_book(stream: Stream, push: FullSpreadBook, receive_time: Micros) -> list[Event]:
    """As `full_book`."""
    return full_book(stream, push, receive_time, SPREAD_ROW)


def best_quotes(
    stream: Stream,
    push: FullBook | FullSpreadBook,
    receive_time: Micros,
    count_at: int = PRICE_SIZE_COUNT.index("order_count"),
) -> list[Event]:
    """Best bid and offer, without the repetitions that OKX sends in silence."""
    listing = stream.listing
    last = stream.last_number
    events: list[Event] = []
    for row in push.data:
        if row.seqId is not None and row.seqId == last:
            continue
        last = row.seqId
        bid_price, bid_size, bid_count = _best(row.bids, count_at)
        ask_price, ask_size, ask_count = _best(row.asks, count_at)
        events.append(
            Bbo(
                listing.origin,
                row.ts * 1000,
                receive_time,
                row.seqId,
                stream.channel,
                bid_price,
                bid_size,
                ask_price,
                ask_size,
                listing.size_unit,
                bid_count,
                ask_count,
            )
        )
    stream.last_number = last
    return events


def best_spread_quotes(stream: Stream, push: FullSpreadBook, receive_time: Micros) -> list[Event]:
    """As `best_quotes`."""
    return best_quotes(stream, push, receive_time, SPREAD_ROW.index("order_count"))


def _best(side: list[Row], count_at: int) -> tuple[DecimalText | None, DecimalText | None, int | None]:
    if not side:
        return None, None, None
    level = side[0]
    count = level[count_at]
    return DecimalText(level[0]), DecimalText(level[1]), int(count) if count.isdecimal() else None
