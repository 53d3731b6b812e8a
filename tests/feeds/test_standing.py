"""How the books of a connection stand."""

from __future__ import annotations

import pytest

from pipeline.book.continuity import SequenceRule
from pipeline.book.tracker import BookOptions, BookTracker
from pipeline.feeds.standing import BookStanding, book_standing
from tests.book.updates import update

RULE = SequenceRule(ignores_old=False)


def tracker(bid: str, ask: str, *, received: int = 1_000_000, derives: bool = True) -> BookTracker:
    made = BookTracker(RULE, BookOptions(derive_bbo=derives))
    made.apply(update(1, snapshot=True, bids=[(bid, "1")], asks=[(ask, "1")], received=received))
    return made


def test_no_books() -> None:
    assert book_standing([]) == BookStanding()


def test_the_oldest_the_widest_and_the_lost_are_named() -> None:
    lost = tracker("1", "2", received=10)
    lost.apply(update(5, 4, received=20))
    assert not lost.valid
    books = {
        ("book", "A"): tracker("100.00", "100.05", received=3_000_000),
        ("book", "B"): tracker("100", "101", received=2_000_000),
        ("book", "C"): tracker("1", "9", received=4_000_000, derives=False),
        ("book", "D"): lost,
        ("book", None): tracker("8", "9", received=5_000_000, derives=False),
    }
    assert book_standing(books.items()) == BookStanding(5, ("D",), 1, 2_000_000, "B", 2, (), "100.00", "B")


@pytest.mark.parametrize("ask", ["100.00", "99.5"])
def test_a_crossed_book_has_no_spread(ask: str) -> None:
    standing = book_standing([(("book", "A"), tracker("100", ask))])
    assert (standing.crossed, standing.widest_bp) == (("A",), "")


def test_an_empty_side_is_neither() -> None:
    made = tracker("100", "101")
    made.apply(update(2, 1, bids=[("100", "0")]))
    standing = book_standing([(("book", "A"), made)])
    assert (standing.kept, standing.crossed, standing.widest_bp) == (1, (), "")
