"""Book updates for tests."""

from __future__ import annotations

from pipeline.model.events import PRICE_SIZE, BookUpdate, Layout, Micros, Origin, Row

ORIGIN = Origin("venue", "linear", "BTCUSDT", "BTC-USDT-PERP", None, "venue.linear.book.0#1")


def update(
    sequence: int | None,
    previous: int | None = None,
    *,
    snapshot: bool = False,
    bids: list[Row] | None = None,
    asks: list[Row] | None = None,
    received: int = 1_000_000,
    layout: Layout = PRICE_SIZE,
    checksum: int | None = None,
) -> BookUpdate:
    return BookUpdate(
        ORIGIN,
        Micros(received - 1_000),
        Micros(received),
        sequence,
        "orderbook.50",
        snapshot,
        previous,
        bids or [],
        asks or [],
        layout,
        "base",
        50,
        checksum=checksum,
    )
