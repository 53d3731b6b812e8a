"""Order books and best quotes: `books` and its relatives, `bbo-tbt`."""

from __future__ import annotations

from pipeline.book.checksum import okx_checksum
from pipeline.book.continuity import SequenceRule
from pipeline.exchanges.okx.streams import Stream
from pipeline.exchanges.okx.wire import FullBook, IncrementalBook
from pipeline.model.decimals import DecimalText, exact_difference
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

DEPTHS = {"books": 400, "books-l2-tbt": 400, "books50-l2-tbt": 50, "books-rpi": 400, "books5": 5}
"""Levels per side by channel."""
INCREMENTAL = frozenset(DEPTHS) - {"books5"}
NO_PREVIOUS = -1


def sequence_rule(channel: str) -> SequenceRule | None:
    """How updates of `channel` follow each other.

    An update that does not chain is a gap even if its number is low: OKX restarts numbers at maintenance, and then
    says so by chaining to the last one.
    """
    if channel not in INCREMENTAL:
        return None
    # OKX sends 0 instead of a checksum since June 2026, which the normalizer drops; recordings before have it.
    return SequenceRule(ignores_old=False, checksum=None if channel == "books-rpi" else okx_checksum)


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


def _without_rpi(level: Row) -> Row:
    price, total, organic, count = level[:4]
    return price, organic, exact_difference(total, organic), count


def _incremental(stream: Stream, push: IncrementalBook, receive_time: Micros, layout: Layout) -> list[Event]:
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
                Micros(row.ts * 1000),
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


def full_book(stream: Stream, push: FullBook, receive_time: Micros) -> list[Event]:
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
                Micros(row.ts * 1000),
                receive_time,
                row.seqId,
                stream.channel,
                True,
                None,
                row.bids,
                row.asks,
                PRICE_SIZE_COUNT,
                listing.size_unit,
                DEPTHS[stream.channel],
            )
        )
    stream.last_number = last
    return events


def best_quotes(stream: Stream, push: FullBook, receive_time: Micros) -> list[Event]:
    """Best bid and offer, without the repetitions that OKX sends in silence."""
    listing = stream.listing
    last = stream.last_number
    events: list[Event] = []
    for row in push.data:
        if row.seqId is not None and row.seqId == last:
            continue
        last = row.seqId
        bid_price, bid_size, bid_count = _best(row.bids)
        ask_price, ask_size, ask_count = _best(row.asks)
        events.append(
            Bbo(
                listing.origin,
                Micros(row.ts * 1000),
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


def _best(side: list[Row]) -> tuple[DecimalText | None, DecimalText | None, int | None]:
    if not side:
        return None, None, None
    price, size, _, count = side[0][:4]
    return DecimalText(price), DecimalText(size), int(count) if count.isdecimal() else None
