"""Orders and requests as the order gateway makes them, and the venue's order entry."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from pipeline.exchanges.trading import TradeItem, TradeRequest, Trading
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Instrument, Micros, Origin
from pipeline.model.orders import CREATE, OrderItem
from tests.exchanges.okx.samples import CATALOGUE, VENUE

SPOT, MARGIN, SWAP, OPTION = "BTC-USDT", "margin BTC-USDT", "BTC-USDT-SWAP", "BTC-USD-261225-50000-C"
NOT_AFTER = Micros(1786541246000_999)


def venue_trading() -> Trading:
    assert VENUE.trading is not None
    return VENUE.trading


TRADING = venue_trading()


def listed(name: str, code: int | None = 123456, **changes: Any) -> Instrument:
    """An instrument of the catalogue with the code of the manual's examples."""
    markets = {SPOT: "spot", MARGIN: "margin", SWAP: "swap", OPTION: "option"}
    if name == MARGIN:
        spot = CATALOGUE["spot", SPOT]
        origin = Origin("okx", "margin", SPOT, spot.origin.symbol, None, spot.origin.connection)
        return structs.replace(spot, origin=origin, instrument_code=code, **changes)
    return structs.replace(CATALOGUE[markets[name], name], instrument_code=code, **changes)


def item(instrument: Instrument, **fields: Any) -> TradeItem:
    """An order for an instrument; prices and sizes are written as texts."""
    origin = instrument.origin
    fields = {name: DecimalText(value) if name in ("price", "size") else value for name, value in fields.items()}
    return TradeItem(OrderItem(origin.market, origin.instrument or "", **fields), instrument)


def limit_order(instrument: Instrument | None = None, **changes: Any) -> TradeItem:
    fields: dict[str, Any] = {
        "client_order_id": "arb1001",
        "side": "buy",
        "order_type": "limit",
        "price": "63900.10",
        "size": "3",
        **changes,
    }
    return item(
        listed(SWAP, 10458) if instrument is None else instrument,
        **{name: value for name, value in fields.items() if value is not None},
    )


def market_order(instrument: Instrument | None = None, **changes: Any) -> TradeItem:
    return limit_order(instrument, **{"order_type": "market", "price": None, **changes})


def request(*items: TradeItem, action: str = CREATE, name: str = "1512", **more: Any) -> TradeRequest:
    return TradeRequest(name, action, items, NOT_AFTER, **more)
