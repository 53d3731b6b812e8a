"""Order-book topics, and the quotes of level 1: published when they changed, although the venue repeats them."""

from __future__ import annotations

from typing import cast

import attrs

from pipeline.exchanges.bybit import wire
from pipeline.exchanges.venue import StreamState
from pipeline.model.decimals import DecimalText
from pipeline.model.events import PRICE_SIZE, Bbo, Event, Layout, Micros, Origin, Row

Quote = tuple[DecimalText, DecimalText]


@attrs.define(eq=False)
class BookStream(StreamState):
    """One order-book topic; level 1 also remembers its quotes."""

    channel: str = ""
    depth: int | None = None
    """Levels per side; None for all."""
    layout: Layout = PRICE_SIZE
    last: int | None = None
    """`u` of the last quotes; None without valid ones."""
    bid: Quote | None = None
    ask: Quote | None = None


def quotes(
    stream: BookStream,
    origin: Origin,
    is_snapshot: bool,
    book: wire.Book | wire.RpiBook,
    time: Micros,
    receive_time: Micros,
    size_unit: str,
) -> list[Event]:
    """The best bid and offer after this message of level 1, if they changed."""
    if is_snapshot:
        bid, ask = _best(None, book.b), _best(None, book.a)
        if book.u == stream.last and bid == stream.bid and ask == stream.ask:
            return []  # repeated every three seconds
    elif stream.last is None or book.u != stream.last + 1:
        # Deltas came until 2025-03. One that does not follow could leave a wrong quote: the next snapshot heals.
        stream.last = None
        return []
    else:
        bid, ask = _best(stream.bid, book.b), _best(stream.ask, book.a)
    stream.last, stream.bid, stream.ask = book.u, bid, ask
    bid_price, bid_size = bid or (None, None)
    ask_price, ask_size = ask or (None, None)
    return [
        Bbo(
            origin,
            time,
            receive_time,
            book.u,
            stream.channel,
            bid_price,
            bid_size,
            ask_price,
            ask_size,
            size_unit,
        )
    ]


def _best(known: Quote | None, rows: list[Row]) -> Quote | None:
    """The quote of one side after these rows: the last one set, unless it was deleted."""
    for row in rows:
        price, size = cast("Quote", row)
        if size.strip("0."):
            known = price, size
        elif known is not None and known[0] == price:
            known = None
    return known
