"""What two connections bring of the same thing, and what of it is published."""

from __future__ import annotations

import pytest

from pipeline.feeds.handover import Holding, Recording, Sifting, identity
from pipeline.model.account import Fill, Order, Position, SnapshotEnd
from pipeline.model.decimals import DecimalText
from pipeline.model.events import DeadLetter, Event, FeedStatus, Micros, Origin, Ticker
from tests.feeds.toy import instrument

OLD = Origin("okx", "swap", "BTC-USDT-SWAP", None, "main", "okx.main.private.0#1")
NEW = Origin("okx", "swap", "BTC-USDT-SWAP", None, "main", "okx.main.private.0#2")


def position(origin: Origin, size: str, time: int, *, is_snapshot: bool = False) -> Position:
    text = DecimalText(size)
    return Position(origin, Micros(time), Micros(time), None, "positions", is_snapshot, "long", text, "contract")


def order(origin: Origin, time: int) -> Order:
    return Order(
        origin,
        Micros(time),
        Micros(9),
        None,
        "orders",
        False,
        "1",
        "new",
        "live",
        "buy",
        "limit",
        "contract",
        "contract",
    )


def letter(origin: Origin, receive_time: int) -> DeadLetter:
    return DeadLetter(origin, None, Micros(receive_time), None, "parse", "no JSON", b"{", 1, "digest")


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        (order(OLD, 1), order(NEW, 1), True),
        (order(OLD, 1), order(NEW, 2), False),
        (letter(OLD, 1), letter(NEW, 2), True),
        (instrument("BTC"), instrument("BTC"), True),
        (instrument("BTC"), instrument("BTC", tradable=False), False),
        (Ticker(OLD, Micros(1), Micros(2), None, "base"), Ticker(NEW, Micros(1), Micros(3), None, "base"), True),
        (
            Ticker(OLD, Micros(1), Micros(2), None, "base", DecimalText("1")),
            Ticker(NEW, Micros(1), Micros(2), None, "base", DecimalText("2")),
            False,
        ),
    ],
)
def test_identity_is_what_the_venue_said(first: Event, second: Event, is_same: bool) -> None:
    assert (identity(first) == identity(second)) is is_same


def test_the_end_of_a_state_has_no_identity() -> None:
    assert identity(SnapshotEnd(OLD, None, Micros(1), None, "positions", "position")) is None
    status = FeedStatus(OLD, None, Micros(1), None, "gap", "connection", "why")
    assert identity(status) == identity(FeedStatus(NEW, None, Micros(2), None, "gap", "connection", "why"))


def test_a_state_of_an_uninterrupted_account_is_not_published_again() -> None:
    recording = Recording.since([])
    recording([position(OLD, "2", 20)])
    holding = Holding()
    end = SnapshotEnd(NEW, None, Micros(10), None, "positions", "position")
    holding([position(NEW, "1", 10, is_snapshot=True), end, position(NEW, "2", 20), position(NEW, "3", 30)])
    sifting = Sifting(recording.seen, {}, seamless=True)
    assert sifting(holding.released(seamless=True)) == [position(NEW, "3", 30)]
    # What the venue repeats later is a state of that time.
    later = position(NEW, "2", 20, is_snapshot=True)
    assert sifting([later, end]) == [later, end]


def test_a_state_after_an_interruption_is_published_with_all_that_follows() -> None:
    recording = Recording.since([])
    recording([position(OLD, "2", 20)])
    held: list[Event] = [
        position(NEW, "1", 10, is_snapshot=True),
        SnapshotEnd(NEW, None, Micros(10), None, "positions", "position"),
        position(NEW, "2", 20),
    ]
    holding = Holding()
    holding(held)
    assert Sifting(recording.seen, {}, seamless=False)(holding.released(seamless=False)) == held


def test_what_each_topic_brought_last_counts_as_published() -> None:
    fill = Fill(
        OLD, Micros(1), Micros(2), None, "orders", False, "7", "buy", DecimalText("1"), DecimalText("1"), "contract"
    )
    recording = Recording.since([fill])
    again = Fill(
        NEW, Micros(1), Micros(5), None, "orders", False, "7", "buy", DecimalText("1"), DecimalText("1"), "contract"
    )
    assert Sifting(recording.seen, {}, seamless=True)([again]) == []
