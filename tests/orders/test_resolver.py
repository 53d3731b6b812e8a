"""What an order that the venue shows proves about a request without an answer."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.model.account import Order
from pipeline.model.header import Micros
from pipeline.model.orders import AMEND, CANCEL, CREATE
from pipeline.orders.resolver import LAST_PAUSE, Verdict, judge, pause
from tests.orders.samples import item, named
from tests.orders.world import open_order


def order(status: str = "new", **changes: Any) -> Order:
    found = open_order("mine-1", "v-1", **changes)
    found.status = status
    return found


@pytest.mark.parametrize("status", ["new", "partially_filled", "filled", "cancelled", "expired", "Unheard-of"])
def test_an_order_that_is_there_was_created(status: str) -> None:
    verdict = judge(CREATE, item(), order(status), can_still_arrive=True)
    assert verdict == Verdict("acknowledged", f"found at the venue: {status}", "v-1")


def test_an_order_that_the_venue_rejected_is_so() -> None:
    verdict = judge(CREATE, item(), order("rejected"), can_still_arrive=True)
    assert verdict is not None
    assert (verdict.state, verdict.by_venue) == ("rejected", True)


def test_an_older_order_of_the_same_name_is_not_ours() -> None:
    sent = Micros(1_000_000_000_000)
    for created, state in [(sent - 59_000_000, "acknowledged"), (sent - 61_000_000, "rejected")]:
        found = order()
        found.created_time = Micros(created)
        verdict = judge(CREATE, item(), found, can_still_arrive=True, sent=sent)
        assert verdict is not None
        assert (verdict.state, verdict.by_venue) == (state, state == "rejected")


def test_an_order_of_the_other_side_is_not_ours() -> None:
    found = order()
    found.side = "sell" if item().side == "buy" else "buy"
    verdict = judge(CREATE, item(), found, can_still_arrive=True)
    assert verdict is not None
    assert verdict.message == f"another order has the client order id {item().client_order_id}: see v-1"


@pytest.mark.parametrize("action", [CREATE, AMEND, CANCEL])
def test_absence_proves_nothing_while_the_request_may_arrive(action: str) -> None:
    assert judge(action, named(), None, can_still_arrive=True) is None
    verdict = judge(action, named(), None, can_still_arrive=False)
    assert verdict is not None
    assert (verdict.state, verdict.by_venue) == ("rejected", False)


@pytest.mark.parametrize("status", ["new", "partially_filled", "untriggered", "triggered"])
def test_a_cancellation_of_what_is_open_has_not_arrived(status: str) -> None:
    assert judge(CANCEL, named(), order(status), can_still_arrive=True) is None
    verdict = judge(CANCEL, named(), order(status), can_still_arrive=False)
    assert verdict is not None
    assert verdict.state == "rejected"


@pytest.mark.parametrize("status", ["filled", "cancelled", "rejected", "expired"])
def test_what_is_open_no_more_needs_no_cancellation(status: str) -> None:
    verdict = judge(CANCEL, named(), order(status), can_still_arrive=True)
    assert verdict is not None
    assert verdict.state == "acknowledged"


@pytest.mark.parametrize(
    ("wanted", "is_so"),
    [
        ({"price": "65000.50"}, True),  # numbers, not texts
        ({"price": "65000.5", "size": "0.01"}, True),
        ({"price": "65000.5", "size": "0.02"}, False),
        ({"price": "65001"}, False),
        ({"trigger_price": "1"}, False),
        ({}, False),  # extras alone leave no trace here
    ],
)
def test_an_amendment_is_judged_by_what_it_wanted(wanted: dict[str, Any], is_so: bool) -> None:
    verdict = judge(AMEND, named(**wanted), order(), can_still_arrive=True)
    assert (verdict is not None and verdict.state == "acknowledged") == is_so


@pytest.mark.parametrize("status", ["new", "filled"])
def test_what_the_venue_does_not_show_is_not_said_to_have_been_lost(status: str) -> None:
    wanted = named(extras={"takeProfit": "70000"})
    assert judge(AMEND, wanted, order(status), can_still_arrive=True) is None
    verdict = judge(AMEND, wanted, order(status), can_still_arrive=False)
    assert verdict is not None
    assert (verdict.state, verdict.is_proven, verdict.by_venue) == ("rejected", False, False)
    assert verdict.message.endswith(f"the order is {status}")
    gone = judge(AMEND, wanted, None, can_still_arrive=False)
    assert gone is not None
    assert gone.is_proven


def test_extras_beside_a_price_are_said_not_to_be_seen() -> None:
    verdict = judge(AMEND, named(price="65000.5", extras={"takeProfit": "70000"}), order(), can_still_arrive=True)
    assert verdict is not None
    assert verdict.message == "the order is as it was to become; takeProfit cannot be seen"


def test_pauses_grow_up_to_a_bound() -> None:
    pauses = [pause(looks) for looks in range(100)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.25, LAST_PAUSE)
