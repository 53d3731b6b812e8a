"""The book equals a plain dictionary under any mix of snapshots and deltas."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipeline.book.order_book import OrderBook
from pipeline.model.errors import BadMessage
from pipeline.model.events import PRICE_SIZE_RPI, Row
from tests.book.updates import update

prices = st.decimals(min_value="-5", max_value="30", places=2).map(str)
sizes = st.sampled_from(["0", "0.0", "0.000", "1", "2.50", "1000000000000.000000000001"])
rows = st.lists(st.tuples(prices, sizes), max_size=6, unique_by=lambda row: Decimal(row[0]))


class BookMachine(RuleBasedStateMachine):
    """Any mix of snapshots and deltas leaves the book equal to two dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.book = OrderBook()
        self.bids: dict[Decimal, str] = {}
        self.asks: dict[Decimal, str] = {}

    @rule(bids=rows, asks=rows)
    def snapshot(self, bids: list[Row], asks: list[Row]) -> None:
        self.bids, self.asks = {}, {}
        self.book.apply(update(1, snapshot=True, bids=bids, asks=asks))
        _overlay(self.bids, bids)
        _overlay(self.asks, asks)

    @rule(bids=rows, asks=rows)
    def delta(self, bids: list[Row], asks: list[Row]) -> None:
        self.book.apply(update(2, 1, bids=bids, asks=asks))
        _overlay(self.bids, bids)
        _overlay(self.asks, asks)

    @invariant()
    def same_as_model(self) -> None:
        bids = [(Decimal(price), size) for price, size in self.book.bids()]
        asks = [(Decimal(price), size) for price, size in self.book.asks()]
        assert bids == sorted(self.bids.items(), reverse=True)
        assert asks == sorted(self.asks.items())
        assert self.book.bids(2) == self.book.bids()[:2]
        assert self.book.asks(2) == self.book.asks()[:2]
        assert self.book.best_bid() == next(iter(self.book.bids()), None)
        assert self.book.best_ask() == next(iter(self.book.asks()), None)


TestBook = BookMachine.TestCase


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
