from __future__ import annotations

from typing import Any

import pytest

from pipeline.exchanges.trading import TradeItem
from pipeline.model.account import Order
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Micros, Origin
from pipeline.orders import open_orders
from pipeline.orders.open_orders import CONFIRMED_WITHIN, KnownOrder, OpenOrders
from tests.orders.samples import NOW, instrument, item

NAMES = ("client_order_id", "order_id")


def trade(client_order_id: str = "mine", **changes: Any) -> TradeItem:
    return TradeItem(item(client_order_id=client_order_id, **changes), instrument())


def order(client_order_id: str | None = "mine", order_id: str = "7", status: str = "new", **changes: Any) -> Order:
    fields: dict[str, Any] = {
        "price": DecimalText("65000.5"),
        "size": DecimalText("0.010"),
        "is_reduce_only": False,
        **changes,
    }
    return Order(
        origin=Origin("bybit", "linear", "BTCUSDT", None, "main", "c"),
        exchange_time=Micros(NOW),
        receive_time=Micros(NOW),
        sequence=None,
        channel="order",
        is_snapshot=False,
        order_id=order_id,
        status=status,
        venue_status=status,
        side="buy",
        order_type="limit",
        size_unit="base",
        filled_size_unit="base",
        client_order_id=client_order_id,
        **fields,
    )


@pytest.fixture
def orders() -> OpenOrders:
    return OpenOrders()


def test_the_stream_opens_and_closes_them(orders: OpenOrders) -> None:
    orders.observed(order())
    orders.observed(order("other", "8", "untriggered"))
    assert orders.count == 2
    expected = KnownOrder(
        "linear", "BTCUSDT", "mine", "7", "limit", DecimalText("65000.5"), DecimalText("0.010"), "base"
    )
    assert orders.find("mine", None) == orders.find(None, "7") == expected
    orders.observed(order(status="partially_filled", price=DecimalText("65001")))
    assert orders.count == 2
    assert [each.price for each in orders if each.order_id == "7"] == ["65001"]
    orders.observed(order(status="filled"))
    assert orders.count == 1
    assert orders.find("mine", "7") is None


@pytest.mark.parametrize("status", ["filled", "cancelled", "rejected", "expired", "Lapsed"])
def test_what_is_not_open_is_over(orders: OpenOrders, status: str) -> None:
    orders.observed(order())
    orders.observed(order(status=status))
    assert orders.count == 0


def test_orders_without_our_identifier(orders: OpenOrders) -> None:
    orders.observed(order(None))
    orders.observed(order(None, "8"))
    assert orders.count == 2
    orders.observed(order(None, status="cancelled"))
    assert orders.find(None, "7") is None
    assert orders.find(None, "8") is not None


def test_what_is_on_its_way_counts(orders: OpenOrders) -> None:
    orders.sent(trade(), 0)
    orders.sent(trade(), 1)
    assert orders.count == 1
    found = orders.find("mine", None)
    assert found is not None
    assert (found.order_id, found.price, found.size, found.size_unit) == (None, "65000.5", "0.010", "base")


def test_an_answer_names_it(orders: OpenOrders) -> None:
    orders.sent(trade(), 0)
    orders.created(trade(), "7", 1)
    assert orders.count == 1
    assert orders.find(None, "7") == orders.find("mine", None) is not None


def test_the_stream_may_be_quicker_than_the_answer(orders: OpenOrders) -> None:
    orders.sent(trade(), 0)
    orders.observed(order(price=DecimalText("65001")))
    orders.created(trade(), "7", 1)
    found = orders.find("mine", "7")
    assert (orders.count, found and found.price) == (1, "65001")


@pytest.mark.parametrize("name", ["mine", None])
def test_the_stream_may_have_seen_its_end_before_the_answer(orders: OpenOrders, name: str | None) -> None:
    orders.sent(trade(), 0)
    orders.observed(order(name, status="filled"))
    orders.created(trade(), "7", 1)
    assert orders.count == 0


def test_a_late_event_opens_nothing_again(orders: OpenOrders) -> None:
    orders.observed(order(status="cancelled"))
    orders.observed(order(status="new"))
    assert orders.count == 0


def test_what_failed_does_not_count(orders: OpenOrders) -> None:
    orders.sent(trade(), 0)
    orders.failed(trade())
    assert orders.count == 0
    orders.failed(trade())


def test_what_the_stream_has_shown_did_not_fail(orders: OpenOrders) -> None:
    """A client order id that is taken is refused, and says nothing about the order that has it."""
    orders.observed(order())
    orders.sent(trade(), 0)
    orders.failed(trade())
    assert orders.count == 1


def test_a_name_can_be_used_again_for_another_order(orders: OpenOrders) -> None:
    orders.observed(order("mine", "7"))
    orders.observed(order("mine", "8"))
    assert orders.count == 2
    assert orders.find("mine", "8") is not None
    orders.observed(order("mine", "7", "filled"))
    found = orders.find("mine", None)
    assert (orders.count, found and found.order_id) == (1, "8")


def test_orders_that_the_stream_never_shows_are_given_up(orders: OpenOrders) -> None:
    orders.sent(trade("a"), 0)
    orders.created(trade("b"), "8", 10)
    orders.observed(order("c", "9"))
    orders.expire(CONFIRMED_WITHIN)
    assert orders.count == 3
    orders.expire(CONFIRMED_WITHIN + 5)
    assert orders.find("a", None) is None
    orders.expire(CONFIRMED_WITHIN * 100)
    assert [each.order_id for each in orders] == ["9"]


def test_the_memory_of_what_is_over_is_bounded(orders: OpenOrders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_orders, "MAX_ENDED", 4)
    for number in range(10):
        orders.observed(order(f"n{number}", str(number), "filled"))
    assert list(orders._ended) == ["8", "n8", "9", "n9"]
