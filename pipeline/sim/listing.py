"""What the simulated exchanges list: instruments in venue-neutral terms, and how each venue names its own."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import attrs


@attrs.frozen
class Listing:
    """One instrument. Prices are multiples of `tick`, sizes multiples of `lot`: both keep their decimal scale."""

    market: str
    """Bybit: spot, linear, inverse, option, spread. OKX: SPOT, SWAP, FUTURES, OPTION."""
    symbol: str
    base: str
    quote: str
    settle: str
    tick: Decimal
    lot: Decimal
    price: Decimal
    """Where the book starts."""
    contract_value: Decimal | None = None
    """OKX derivatives: one contract in `contract_currency`."""
    contract_currency: str = ""
    inverse: bool = False
    perpetual: bool = False
    expiry_ms: int | None = None
    strike: Decimal | None = None
    option: str | None = None
    """"C" or "P"."""

    @property
    def index(self) -> str:
        """The underlying index: "BTC-USDT"."""
        return f"{self.base}-{self.quote}"


EXPIRY_MS = 1_806_048_000_000
"""2027-03-26 08:00 UTC: the expiry of the default dated contracts and options."""

COINS: tuple[tuple[str, str, str, str], ...] = (
    ("BTC", "65000.00", "0.10", "0.001"),
    ("ETH", "3200.00", "0.01", "0.01"),
    ("SOL", "150.000", "0.010", "0.1"),
)
"""Base, price, tick, lot."""


def _bybit_spot(base: str, price: str, tick: str) -> Listing:
    return Listing("spot", f"{base}USDT", base, "USDT", "USDT", Decimal(tick), Decimal("0.000001"), Decimal(price))


def _bybit_linear(base: str, price: str, tick: str, lot: str) -> Listing:
    return Listing(
        "linear", f"{base}USDT", base, "USDT", "USDT", Decimal(tick), Decimal(lot), Decimal(price), perpetual=True
    )


def _bybit_inverse(base: str, price: str, tick: str) -> Listing:
    return Listing(
        "inverse", f"{base}USD", base, "USD", base, Decimal(tick), Decimal(1), Decimal(price),
        inverse=True, perpetual=True,
    )  # fmt: skip


def _bybit_options(base: str, price: str) -> list[Listing]:
    spot = Decimal(price)
    premium = spot / 20
    strikes = [(spot * Decimal(percent) / 100).quantize(Decimal(1)) for percent in (90, 100, 110)]
    return [
        Listing(
            "option", f"{base}-26MAR27-{strike}-{side}-USDT", base, "USDT", "USDT",
            Decimal(5 if premium > 1000 else "0.1" if premium > 100 else "0.01"), Decimal("0.01"),
            premium.quantize(Decimal("0.1")), expiry_ms=EXPIRY_MS, strike=strike, option=side,
        )
        for strike in strikes
        for side in ("C", "P")
    ]  # fmt: skip


def bybit_defaults() -> tuple[Listing, ...]:
    """Every market: perpetuals, dated contracts and options of three coins, and a spread."""
    found: list[Listing] = []
    for base, price, tick, lot in COINS:
        found += [
            _bybit_spot(base, price, tick),
            _bybit_linear(base, price, tick, lot),
            _bybit_inverse(base, price, tick),
            *_bybit_options(base, price),
        ]
    half, milli, start = Decimal("0.50"), Decimal("0.001"), Decimal("66000.00")
    found += [
        Listing(
            "linear", "BTCPERP", "BTC", "USDC", "USDC", Decimal("0.10"), milli, Decimal("65000.00"), perpetual=True
        ),
        Listing("linear", "BTCUSDT-26MAR27", "BTC", "USDT", "USDT", half, milli, start, expiry_ms=EXPIRY_MS),
        Listing(
            "inverse", "BTCUSDH27", "BTC", "USD", "BTC", half, Decimal(1), start, inverse=True, expiry_ms=EXPIRY_MS
        ),
        Listing(
            "spread", "SOLUSDT_SOL/USDT", "SOL", "USDT", "USDT", Decimal("0.0001"), Decimal("0.1"), Decimal("21.0000")
        ),
    ]
    return tuple(found)


def _okx_spot(base: str, price: str, tick: str) -> Listing:
    return Listing("SPOT", f"{base}-USDT", base, "USDT", "", Decimal(tick), Decimal("0.00000001"), Decimal(price))


def _okx_swap(base: str, price: str, tick: str, lot: str) -> Listing:
    return Listing(
        "SWAP", f"{base}-USDT-SWAP", base, "USDT", "USDT", Decimal(tick), Decimal("0.01"), Decimal(price),
        contract_value=Decimal(lot) * 10, contract_currency=base, perpetual=True,
    )  # fmt: skip


def _okx_inverse(base: str, price: str, tick: str) -> list[Listing]:
    def contract(symbol: str, market: str, expiry_ms: int | None) -> Listing:
        return Listing(
            market, symbol, base, "USD", base, Decimal(tick), Decimal(1), Decimal(price),
            contract_value=Decimal(100 if base == "BTC" else 10), contract_currency="USD", inverse=True,
            perpetual=expiry_ms is None, expiry_ms=expiry_ms,
        )  # fmt: skip

    return [
        contract(f"{base}-USD-SWAP", "SWAP", None),
        contract(f"{base}-USD-270326", "FUTURES", EXPIRY_MS),
    ]


def _okx_options(base: str, price: str) -> list[Listing]:
    spot = Decimal(price)
    strikes = [(spot * Decimal(percent) / 100).quantize(Decimal(1)) for percent in (90, 100, 110)]
    return [
        Listing(
            "OPTION", f"{base}-USD-270326-{strike}-{side}", base, "USD", base, Decimal("0.0001"), Decimal(1),
            Decimal("0.0500"), contract_value=Decimal("0.01"), contract_currency=base, expiry_ms=EXPIRY_MS,
            strike=strike, option=side,
        )
        for strike in strikes
        for side in ("C", "P")
    ]  # fmt: skip


def okx_defaults() -> tuple[Listing, ...]:
    """Every market: spot, swaps, dated contracts and options."""
    found: list[Listing] = []
    for base, price, tick, lot in COINS:
        found += [_okx_spot(base, price, tick), _okx_swap(base, price, tick, lot), *_okx_inverse(base, price, tick)]
    for base, price, _tick, _lot in COINS[:2]:
        found += _okx_options(base, price)
    return tuple(found)


def many(venue: str, count: int) -> tuple[Listing, ...]:
    """`count` USDT perpetuals: the well-known coins first, then made-up ones (C0003, C0004, …)."""
    made_up = [(f"C{number:04}", "10.0000", "0.0001", "0.1") for number in range(len(COINS), count)]
    make = _bybit_linear if venue == "bybit" else _okx_swap
    return tuple(make(*coin) for coin in [*COINS, *made_up][:count])


def named(venue: str, symbols: Iterable[str]) -> tuple[Listing, ...]:
    """Default listings by symbol (in every market that has it), or new spot pairs and perpetuals against USDT.

    Raises `ValueError` naming a symbol of another form.
    """
    known = bybit_defaults() if venue == "bybit" else okx_defaults()
    found: list[Listing] = []
    for symbol in symbols:
        matches = [listing for listing in known if listing.symbol == symbol]
        found += matches or _invented(venue, symbol)
    return tuple(found)


def _invented(venue: str, symbol: str) -> list[Listing]:
    price, tick, lot = "10.0000", "0.0001", "0.1"
    if venue == "bybit" and symbol.endswith("USDT") and len(symbol) > 4:
        base = symbol.removesuffix("USDT")
        return [_bybit_spot(base, price, tick), _bybit_linear(base, price, tick, lot)]
    match symbol.split("-"):
        case [base, "USDT"] if venue == "okx":
            return [_okx_spot(base, price, tick)]
        case [base, "USDT", "SWAP"] if venue == "okx":
            return [_okx_swap(base, price, tick, lot)]
    raise ValueError(f'unknown {venue} symbol "{symbol}": use one of the default listings or a pair against USDT')
