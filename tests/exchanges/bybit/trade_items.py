"""Orders and requests, as little of them as a test has to say."""

from __future__ import annotations

from typing import Any

from pipeline.exchanges.trading import TradeItem, TradeRequest
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Instrument, Micros, Origin
from pipeline.model.orders import OrderItem

NOW = Micros(1_711_001_595_207_000)
"""When the manual's first order was sent, by the venue's clock."""
SYMBOLS = {
    "spot": "BTCUSDT",
    "linear": "ETHUSDT",
    "inverse": "BTCUSD",
    "option": "BTC-6JAN23-17500-C",
    "spread": "SOLUSDT_SOL/USDT",
}


def instrument(market: str, symbol: str | None = None) -> Instrument:
    """An entry of the catalogue."""
    return Instrument(
        Origin("bybit", market, symbol or SYMBOLS.get(market, "X"), None, None, "catalogue"),
        None,
        Micros(0),
        None,
        kind=market,
        state="Trading",
        is_tradable=True,
        base=None,
        quote=None,
        settle=None,
        size_unit="quote" if market == "inverse" else "base",
        contract_value=DecimalText("1") if market == "inverse" else None,
    )


def trade(market: str = "linear", symbol: str | None = None, **fields: Any) -> TradeItem:
    """An order of these fields and no others."""
    return TradeItem(OrderItem(market, symbol or SYMBOLS.get(market, "X"), **fields), instrument(market, symbol))


def limit(market: str = "linear", **fields: Any) -> TradeItem:
    """A limit order to buy; a field that is None is left out."""
    given = {"client_order_id": "c1", "side": "buy", "order_type": "limit", "size": "0.2", "price": "2800", **fields}
    return trade(market, **{name: value for name, value in given.items() if value is not None})


def market_order(market: str = "spot", **fields: Any) -> TradeItem:
    """A market order to buy."""
    return limit(market, order_type="market", price=None, **fields)


def request(action: str, *items: TradeItem, id: str = "r1", not_after: int = NOW + 60_000_000) -> TradeRequest:
    """A request that is not about to expire."""
    return TradeRequest(id, action, items, Micros(not_after))
