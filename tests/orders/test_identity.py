from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.orders import CANCEL
from pipeline.orders.identity import client_order_id, identified
from tests.orders.samples import command, item, named


def test_it_stays_what_it_was_in_every_version() -> None:
    assert client_order_id("c-1", 0) == "801033055598586185349315906321"
    assert client_order_id("c-1", 1) == "618834795867028553819399252931"


@given(st.text(min_size=1, max_size=64), st.integers(0, 19))
def test_both_venues_take_it(command_id: str, position: int) -> None:
    made = client_order_id(command_id, position)
    assert (len(made), made.isdecimal(), made.isascii(), made[0] != "0") == (30, True, True, True)


def test_no_two_items_share_one() -> None:
    made = [client_order_id(f"c-{number}", position) for number in range(100) for position in range(20)]
    assert len(set(made)) == len(made)


def test_new_orders_without_one_get_it() -> None:
    given_one = item(client_order_id="mine")
    first, second, third = identified(command(item(), given_one, item())).items
    assert first.client_order_id == client_order_id("c-1", 0)
    assert second is given_one
    assert third.client_order_id == client_order_id("c-1", 2)


def test_known_orders_keep_their_names() -> None:
    cancel = command(named(None, order_id="7"), action=CANCEL)
    assert identified(cancel) == cancel
