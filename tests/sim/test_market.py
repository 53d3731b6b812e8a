from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.decimals import is_decimal
from pipeline.sim.listing import Listing, bybit_defaults, many, named, okx_defaults
from pipeline.sim.market import ASK, BID, Engine, Side, View

BTC = next(listing for listing in bybit_defaults() if listing.symbol == "BTCUSDT" and listing.market == "linear")


def trace(seed: int, steps: int) -> list[object]:
    engine = Engine(BTC, seed, 50)
    seen: list[object] = []
    for _ in range(steps):
        engine.step()
        seen.append((engine.sequence, tuple(engine.fills), engine.bids.top(50), engine.asks.top(50), engine.funding))
    return seen


def test_the_same_seed_gives_the_same_market() -> None:
    assert trace(7, 300) == trace(7, 300)
    assert trace(7, 300) != trace(8, 300)


@given(
    direction=st.sampled_from([BID, ASK]),
    changes=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=1),
    depth=st.integers(1, 10),
)
def test_a_side_is_a_sorted_dict(direction: int, changes: list[tuple[int, int]], depth: int) -> None:
    side, model = Side(direction), {}
    for price, lots in changes:
        side.set(price, lots)
        model[price] = lots
    kept = sorted(((price, lots) for price, lots in model.items() if lots), reverse=direction == BID)
    assert list(side.top(depth).items()) == kept[:depth]
    assert len(side) == len(kept)
    if kept:
        assert (side.best, side.worst) == (kept[0][0], kept[-1][0])
        assert side.behind(side.best, 1) == side.best + (1 if direction == ASK else -1)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), depth=st.sampled_from([1, 5, 50, 400]), steps=st.integers(1, 200))
def test_deltas_lead_from_any_view_to_the_true_book(seed: int, depth: int, steps: int) -> None:
    engine = Engine(BTC, seed, 60)
    view = View(depth)
    bids, asks = view.advance(engine)
    for _ in range(steps):
        engine.step()
        for side, changed in zip((bids, asks), view.advance(engine), strict=True):
            for price, lots in changed.items():
                if lots:
                    side[price] = lots
                else:
                    del side[price]  # only told prices are deleted
    assert (bids, asks) == (engine.bids.top(depth), engine.asks.top(depth))


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), listing=st.sampled_from([*bybit_defaults(), *okx_defaults()]))
def test_the_book_is_a_book_and_trades_print_in_it(seed: int, listing: Listing) -> None:
    engine = Engine(listing, seed, 30)
    next_id = engine.next_trade_id
    sequence = engine.sequence
    for _ in range(150):
        traded = engine.traded_lots
        engine.step()
        assert 0 < engine.bids.best < engine.asks.best
        assert list(engine.bids.top(30)) == sorted(engine.bids.lots, reverse=True)
        assert list(engine.asks.top(30)) == sorted(engine.asks.lots)
        assert all(lots > 0 for side in (engine.bids, engine.asks) for lots in side.lots.values())
        assert engine.sequence > sequence
        sequence = engine.sequence
        for fill in engine.fills:
            assert fill.first_id == next_id
            next_id = fill.last_id + 1
            assert all(lots > 0 for lots in fill.matches)
        assert engine.traded_lots == traded + sum(fill.lots for fill in engine.fills)
        assert not engine.fills or engine.last == engine.fills[-1].price
    for text in (engine.price(engine.last), engine.size(7)):
        assert is_decimal(text)
    assert Decimal(engine.price(engine.last)) % listing.tick == 0


def test_a_price_below_ten_ticks_is_refused() -> None:
    with pytest.raises(ValueError, match="below ten ticks"):
        Engine(Listing("spot", "XUSDT", "X", "USDT", "USDT", Decimal(1), Decimal(1), Decimal(9)), 1, 10)


def test_listings_by_number_and_by_name() -> None:
    assert len(many("bybit", 500)) == len({listing.symbol for listing in many("bybit", 500)}) == 500
    assert [listing.symbol for listing in many("okx", 2)] == ["BTC-USDT-SWAP", "ETH-USDT-SWAP"]
    assert {listing.market for listing in named("bybit", ["BTCUSDT", "FOOUSDT"])} == {"spot", "linear"}
    assert [listing.symbol for listing in named("okx", ["FOO-USDT-SWAP", "FOO-USDT"])] == ["FOO-USDT-SWAP", "FOO-USDT"]
    with pytest.raises(ValueError, match='unknown okx symbol "FOOUSDT"'):
        named("okx", ["FOOUSDT"])
