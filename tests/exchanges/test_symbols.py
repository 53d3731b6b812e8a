"""The cross-venue names."""

from __future__ import annotations

import pytest

from pipeline.exchanges.symbols import cross_symbol

EXPIRY = 1774598400000000  # 2026-03-27 08:00 UTC


@pytest.mark.parametrize(
    ("arguments", "symbol"),
    [
        (("spot", "BTC", "USDT"), "BTC-USDT"),
        (("perpetual", "BTC", "USD"), "BTC-USD-PERP"),
        (("perpetual", "BTC", "USD_UM"), "BTC-USD_UM-PERP"),
        (("future", "BTC", "USDT", EXPIRY), "BTC-USDT-20260327"),
        (("future", "BTC", "USDT"), None),
        (("option", "BTC", "USDT", EXPIRY, "70000", "put"), "BTC-USDT-20260327-70000-P"),
        (("option", "BTC", "USDT", EXPIRY, "0.5", "call"), "BTC-USDT-20260327-0.5-C"),
        (("option", "BTC", "USDT", EXPIRY, None, "call"), None),
        (("option", "BTC", "USDT", EXPIRY, "70000", "other"), None),
        (("spot", "", "USDT"), None),
        (("spot", "BTC", None), None),
        (("index", "BTC", "USDT"), None),
        (("future", "BTC", "USDT", 10**30), None),
    ],
)
def test_symbols(arguments: tuple[str, str | None, str | None], symbol: str | None) -> None:
    assert cross_symbol(*arguments) == symbol
