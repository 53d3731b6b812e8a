"""A chain by itself: what it hands over at once, and what it keeps back behind an event that nobody can encode."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest

from pipeline.book.tracker import BookOptions
from pipeline.feeds import chain as chain_module
from pipeline.feeds.chain import Chain
from pipeline.model.events import (
    PRICE_SIZE_COUNT,
    Bbo,
    BookUpdate,
    DeadLetter,
    Event,
    FeedStatus,
    Micros,
    Origin,
    Row,
    Trade,
)
from tests.feeds.toy import ToyVenue, book, catalogue, trade


@attrs.define(eq=False)
class Publisher:
    """Takes everything but the updates of these numbers."""

    unencodable: frozenset[int] = frozenset()
    published: list[Event] = attrs.field(factory=list)
    batches: list[int] = attrs.field(factory=list)

    def publish(self, event: Event) -> bool:
        if isinstance(event, BookUpdate) and event.sequence in self.unencodable:
            return False
        self.published.append(event)
        return True

    def publish_all(self, events: Sequence[Event]) -> int | None:
        self.batches.append(len(events))
        return next((index for index, event in enumerate(events) if not self.publish(event)), None)

    def told(self) -> list[object]:
        """Kinds, with the number of updates and the identity of trades."""
        found: list[object] = []
        for event in self.published:
            match event:
                case BookUpdate():
                    found.append((event.origin.instrument, event.sequence))
                case Trade():
                    found.append(event.trade_id)
                case FeedStatus():
                    found.append((event.status, event.origin.instrument))
                case DeadLetter() | Bbo():
                    found.append(event.KIND)
        return found


def chain_to(publisher: Publisher, *, at_once: bool, options: BookOptions | None = None) -> Chain:
    return Chain(
        ToyVenue(),
        "spot",
        "toy.0#1",
        catalogue("BTC", "ETH"),
        publisher.publish,
        lambda key: options or BookOptions(),
        publish_all=publisher.publish_all if at_once else None,
    )


at_once = pytest.mark.parametrize("at_once", [True, False])


@at_once
def test_behind_an_update_that_cannot_be_encoded_its_book_is_held_back(at_once: bool) -> None:
    publisher = Publisher(frozenset({2}))
    chain = chain_to(publisher, at_once=at_once, options=BookOptions(derive_bbo=True))
    read = [book(1), book(1, name="ETH"), trade("a"), book(2, 1), book(3, 2, price="11"), trade("b")]
    assert chain.take([*read, book(5, 4, name="ETH")], Micros(7)) == []
    assert chain.take([book(4, 3), trade("c")], Micros(8)) == []
    told = [("BTC", 1), "bbo", ("ETH", 1), "bbo", "a", ("gap", "BTC"), "b", ("gap", "ETH"), "c"]
    assert publisher.told() == told
    assert chain.out_of_sync == {("book", "BTC"), ("book", "ETH")}
    chain.take([book(9)], Micros(9))
    assert publisher.told()[len(told) :] == [("resynced", "BTC"), ("BTC", 9), "bbo"]


@at_once
def test_what_cannot_be_read_keeps_its_place(at_once: bool) -> None:
    publisher = Publisher()
    chain = chain_to(publisher, at_once=at_once, options=BookOptions(derive_bbo=True))
    broken, bad_price = b"{", book(2, 1, price="x")
    unread = chain.take([trade("a"), book(1), broken, trade("b"), bad_price, trade("c")], Micros(7))
    assert [raw for raw, _ in unread] == [broken, bad_price]
    assert publisher.told() == ["a", ("BTC", 1), "bbo", "dead_letter", "b", ("gap", "BTC"), "dead_letter", "c"]


def test_a_long_read_is_handed_over_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_module, "SLICE", 4)
    publisher = Publisher()
    chain = chain_to(publisher, at_once=True)
    chain.take([trade(str(number)) for number in range(10)], Micros(7))
    assert publisher.batches == [4, 4, 2]
    assert publisher.told() == [str(number) for number in range(10)]


@at_once
def test_a_snapshot_that_is_held_back_with_its_book_is_not_announced(at_once: bool) -> None:
    publisher = Publisher(frozenset({2}))
    chain = chain_to(publisher, at_once=at_once)
    chain.take([book(1), book(2, 1), book(4, 3), book(9), book(10, 9)], Micros(7))
    assert publisher.told() == [("BTC", 1), ("gap", "BTC"), ("gap", "BTC")]
    assert chain.out_of_sync == {("book", "BTC")}
    chain.take([book(11, 10), book(20)], Micros(8))
    assert publisher.told()[3:] == [("resynced", "BTC"), ("BTC", 20)]


def counted(sequence: int, previous: int | None, count: str) -> BookUpdate:
    origin = Origin("toy", "spot", "BTC", None, None, "toy.0#1")
    rows: list[Row] = [(str(sequence), "1", "0", count)]
    return BookUpdate(
        origin,
        Micros(1),
        Micros(7),
        sequence,
        "book",
        previous is None,
        previous,
        rows,
        [],
        PRICE_SIZE_COUNT,
        "base",
        5,
    )


def test_an_update_that_nobody_understands_is_missing_from_its_book() -> None:
    publisher = Publisher()
    chain = chain_to(publisher, at_once=True, options=BookOptions(derive_bbo=True))
    chain.emit([counted(1, None, "1")])
    with pytest.raises(ValueError, match="invalid literal"):
        chain.emit([counted(2, 1, "none")])
    chain.emit([counted(3, 2, "1"), counted(4, None, "1")])
    assert publisher.told() == [("BTC", 1), "bbo", ("gap", "BTC"), ("resynced", "BTC"), ("BTC", 4), "bbo"]


def test_what_was_held_is_published_but_for_what_nobody_understands() -> None:
    publisher = Publisher()
    before, after = (chain_to(publisher, at_once=True, options=BookOptions(derive_bbo=True)) for _ in range(2))
    before.emit([counted(1, None, "1")])
    before.record()
    after.hold()
    for update in (counted(1, None, "1"), counted(2, 1, "none"), counted(3, None, "1")):
        after.side_event(update)
    after.take_over(before, seamless=True)
    assert publisher.told() == [("BTC", 1), "bbo", ("gap", "BTC"), ("resynced", "BTC"), ("BTC", 3), "bbo"]


def test_a_third_connection_repeats_nothing_that_the_second_has_not_reached() -> None:
    publisher = Publisher()
    first, second, third = (chain_to(publisher, at_once=True) for _ in range(3))
    first.record()
    second.hold()
    first.take([trade("a"), trade("b"), trade("c")], Micros(7))
    second.take([trade("a")], Micros(8))
    second.take_over(first, seamless=True)
    second.record()
    third.hold()
    third.take([trade("b")], Micros(9))
    third.take_over(second, seamless=True)
    third.take([trade("c"), trade("d")], Micros(10))
    assert publisher.told() == ["a", "b", "c", "d"]


def test_a_book_that_turns_out_to_be_unreadable_is_subscribed_anew_at_once() -> None:
    publisher = Publisher()
    chain = chain_to(publisher, at_once=True, options=BookOptions(snapshot_interval=1))
    chain.take([book(1), book(1, name="ETH"), book(2, 1, price="1O")], Micros(7))
    assert chain.due(Micros(9))
    assert publisher.told()[-2:] == [("gap", "BTC"), ("ETH", 1)]
    assert {instrument for _, instrument in chain.out_of_sync} == {"BTC"}
