"""Commands and instruments that the tests of order entry begin with."""

from __future__ import annotations

from typing import Any

from pipeline.model.decimals import DecimalText
from pipeline.model.events import Instrument, Micros, Origin
from pipeline.model.orders import CREATE, OrderCommand, OrderItem

NOW = Micros(1_767_225_600_000_000)


def item(**changes: Any) -> OrderItem:
    """A limit order for bitcoin, or as changed."""
    fields = {
        "market": "linear",
        "instrument": "BTCUSDT",
        "side": "buy",
        "order_type": "limit",
        "price": "65000.5",
        "size": "0.010",
        **changes,
    }
    return OrderItem(**fields)


def named(client_order_id: str | None = "mine-1", **changes: Any) -> OrderItem:
    """An order that is there, as amendments and cancellations name it."""
    return OrderItem(market="linear", instrument="BTCUSDT", client_order_id=client_order_id, **changes)


def command(*items: OrderItem, action: str = CREATE, **changes: Any) -> OrderCommand:
    """A command of the account bybit.main with these items."""
    fields = {
        "command_id": "c-1",
        "venue": "bybit",
        "account": "main",
        "issued_at": NOW,
        "not_after": NOW + 5_000_000,
        **changes,
    }
    return OrderCommand(action=action, items=items, **fields)


def instrument(symbol: str = "BTCUSDT", market: str = "linear", **changes: Any) -> Instrument:
    """A linear perpetual, or as changed."""
    fields: dict[str, Any] = {
        "kind": "perpetual",
        "state": "Trading",
        "is_tradable": True,
        "base": "BTC",
        "quote": "USDT",
        "settle": "USDT",
        "size_unit": "base",
        "tick_size": DecimalText("0.10"),
        "lot_size": DecimalText("0.001"),
        "min_size": DecimalText("0.001"),
        "max_limit_size": DecimalText("100"),
        "max_market_size": DecimalText("10"),
        "min_value": DecimalText("5"),
        "min_price": DecimalText("0.1"),
        "max_price": DecimalText("1999999.8"),
        **changes,
    }
    origin = Origin("bybit", market, symbol, None, None, "test")
    return Instrument(origin, None, NOW, None, **fields)
