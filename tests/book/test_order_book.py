"""The book equals a plain dictionary under any mix of snapshots and deltas."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipeline.book.order_book import OrderBook, StoredBook
from pipeline.model.errors import BadMessage
from pipeline.model.events import PRICE_SIZE_RPI, BookUpdate, Row
from tests.book.updates import update

prices = st.decimals(min_value="-5", max_value="30", places=2).map(lambda price: str(price + 0))  # 0, never -0
sizes = st.sampled_from(["0", "0.0", "0.000", "1", "2.50", "1000000000000.000000000001"])
rows = st.lists(st.tuples(prices, sizes), max_size=6, unique_by=lambda row: Decimal(row[0]))


class BookMachine(RuleBasedStateMachine):
    """Any mix of snapshots and deltas leaves both kinds of book equal to two dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.books = OrderBook(), StoredBook()
        self.bids: dict[Decimal, str] = {}
        self.asks: dict[Decimal, str] = {}

    @rule(bids=rows, asks=rows)
    def snapshot(self, bids: list[Row], asks: list[Row]) -> None:
        self.bids, self.asks = {}, {}
        self._apply(update(1, snapshot=True, bids=bids, asks=asks))

    @rule(bids=rows, asks=rows)
    def delta(self, bids: list[Row], asks: list[Row]) -> None:
        self._apply(update(2, 1, bids=bids, asks=asks))

    def _apply(self, change: BookUpdate) -> None:
        for book in self.books:
            book.apply(change)
        _overlay(self.bids, change.bids)
        _overlay(self.asks, change.asks)

    @invariant()
    def same_as_model(self) -> None:
        for book in self.books:
            bids = [(Decimal(price), size) for price, size in book.bids()]
            asks = [(Decimal(price), size) for price, size in book.asks()]
            assert bids == sorted(self.bids.items(), reverse=True)
            assert asks == sorted(self.asks.items())
            assert book.bids(2) == book.bids()[:2]
            assert book.asks(2) == book.asks()[:2]

    @invariant()
    def best_is_first(self) -> None:
        kept, _ = self.books
        assert kept.best_bid() == next(iter(kept.bids()), None)
        assert kept.best_ask() == next(iter(kept.asks()), None)


TestBook = BookMachine.TestCase


def test_a_stored_book_forgets_what_was_deleted() -> None:
    book = StoredBook()
    book.apply(update(1, snapshot=True, asks=[("1", "1")]))
    for price in range(2, 10_000):
        book.apply(update(price, price - 1, bids=[(str(price), "1")], asks=[(str(price), "2")]))
        book.apply(update(price, price - 1, bids=[(str(price), "0.0")], asks=[(str(price), "0")]))
        assert len(book._bids) + len(book._asks) < 600
    assert (book.bids(), book.asks()) == ([], [("1", "1")])


def test_a_stored_book_knows_what_it_cannot_tell() -> None:
    for size in "0", "2":
        book = StoredBook()
        book.apply(update(1, snapshot=True, bids=[("9.5", "1")]))
        book.apply(update(2, 1, bids=[("9.50", size)]))
        with pytest.raises(BadMessage, match=r"9\.5 is written in two ways"):
            book.bids()
        with pytest.raises(BadMessage, match="two ways"):
            book.apply(update(3, 2, bids=[(f"{price}.0", "0") for price in range(1_000)]))
    book.apply(update(4, snapshot=True, bids=[("x", "1")]))
    with pytest.raises(BadMessage, match="'x' is not a decimal number"):
        book.bids()


def test_a_level_that_is_no_pair_is_refused() -> None:
    for odd in ("1", "2", "3"), 5:
        with pytest.raises(BadMessage, match="no pair"):
            StoredBook().apply(update(1, snapshot=True, bids=[odd]))  # type: ignore[list-item]


def _overlay(side: dict[Decimal, str], changes: list[Row]) -> None:
    for price, size in changes:
        if Decimal(size) == 0:
            side.pop(Decimal(price), None)
        else:
            side[Decimal(price)] = size


def test_one_price_in_two_spellings_is_one_level() -> None:
    book = OrderBook()
    book.apply(update(1, snapshot=True, bids=[("9.50", "1")]))
    book.apply(update(2, 1, bids=[("9.5", "3")]))
    assert book.bids() == [("9.5", "3")]


def test_a_level_with_only_rpi_size_stays() -> None:
    book = OrderBook()
    book.apply(update(1, snapshot=True, bids=[("9", "0", "0.16"), ("8", "0", "0")], layout=PRICE_SIZE_RPI))
    assert book.bids() == [("9", "0", "0.16")]
    book.apply(update(2, 1, bids=[("9", "0", "0")], layout=PRICE_SIZE_RPI))
    assert book.bids() == []


@given(st.text(max_size=20))
def test_a_price_is_a_number_or_refused(text: str) -> None:
    book = OrderBook()
    try:
        book.apply(update(1, snapshot=True, bids=[(text, "1")]))
    except BadMessage:
        return
    assert Decimal(text).is_finite()


def test_a_price_finer_than_the_key_is_refused_not_rounded() -> None:
    with pytest.raises(BadMessage, match="fractional digits"):
        OrderBook().apply(update(1, snapshot=True, bids=[("0." + "0" * 24 + "1", "1")]))
