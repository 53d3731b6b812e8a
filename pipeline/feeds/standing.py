"""How the order books of a connection stand at one moment, for whoever asks: nothing is counted as they change."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import attrs

from pipeline.book.order_book import OrderBook
from pipeline.book.tracker import BookTracker
from pipeline.feeds.handover import BookKey

_MAX_NAMED = 20


@attrs.frozen
class BookStanding:
    """The books of one connection."""

    count: int = 0
    """Those seen since the connection was made."""
    out_of_sync: tuple[str, ...] = ()
    """Instruments whose books wait for a snapshot, the first ones."""
    waiting: int = 0
    """How many do."""
    oldest: int = 0
    """When the longest unchanged book was received, in microseconds; 0 without any."""
    oldest_name: str = ""
    kept: int = 0
    """Books whose best prices are known here: those that a BBO is derived from, or that are checked by number."""
    crossed: tuple[str, ...] = ()
    """Of these, those whose best bid is not below the best ask."""
    widest_bp: str = ""
    """The widest spread of the others, in hundredths of a per cent of the bid."""
    widest_name: str = ""


def book_standing(books: Iterable[tuple[BookKey, BookTracker]]) -> BookStanding:
    """Look at all books of a connection."""
    count, kept, oldest = 0, 0, (0, "")
    waiting: list[str] = []
    crossed: list[str] = []
    widest = (Decimal(-1), "")
    for (_, instrument), tracker in books:
        name, place, book = instrument or "", tracker.place, tracker.book
        count += 1
        if place is None:
            waiting.append(name)
            continue
        if not oldest[0] or place.receive_time < oldest[0]:
            oldest = (place.receive_time, name)
        if not isinstance(book, OrderBook):
            continue
        kept += 1
        bid, ask = book.best_bid(), book.best_ask()
        if bid is None or ask is None:
            continue
        below, above = Decimal(bid[0]), Decimal(ask[0])
        if below >= above:
            crossed.append(name)
        elif below > 0:
            widest = max(widest, ((above - below) * 10_000 / below, name))
    spread = "" if widest[0] < 0 else f"{widest[0]:.2f}"
    return BookStanding(
        count, tuple(waiting[:_MAX_NAMED]), len(waiting), *oldest, kept, tuple(crossed[:_MAX_NAMED]), spread, widest[1]
    )
