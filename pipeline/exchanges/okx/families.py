"""The table of OKX's channels: how the messages of each are read, and what they become."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from pipeline.exchanges.okx import (
    account,
    books,
    conditions,
    instruments,
    orders,
    passing,
    prices,
    spreads,
    trades,
    wire,
    wire_account,
    wire_conditions,
    wire_orders,
)
from pipeline.exchanges.okx.streams import ACCOUNT, SYSTEM, Family, Stream
from pipeline.model.events import Event, Micros

Build = Callable[[Stream, Any, Micros], list[Event]]

_SPREAD_NAME = "sprdId"


def _family(
    push: type, build: Build, *, named_by: str = "instId", market: str = "", price_type: str = "trade"
) -> Family:
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(push, strict=False).decode
    return Family(
        decode, partial(wire.decode_leniently, kind=push), build, named_by, market, market == ACCOUNT, price_type
    )


def _over_many(push: type, build: Build, market: str) -> Family:
    return _family(push, build, named_by="", market=market)


def _private(push: type, build: Build) -> Family:
    return _family(push, build, named_by="", market=ACCOUNT)


FAMILIES = {
    "trades": _family(wire.Trades, trades.trades),
    "trades-all": _family(wire.Trades, trades.trades),
    "option-trades": _over_many(wire.OptionTrades, trades.option_trades, "option"),
    "public-block-trades": _family(wire.OptionTrades, trades.block_trades),
    "books": _family(wire.IncrementalBook, books.incremental_book),
    "books-l2-tbt": _family(wire.IncrementalBook, books.incremental_book),
    "books50-l2-tbt": _family(wire.IncrementalBook, books.incremental_book),
    "books-rpi": _family(wire.IncrementalBook, books.rpi_book),
    "books-elp": _family(wire.IncrementalBook, books.incremental_book),
    "books5": _family(wire.FullBook, books.full_book),
    "bbo-tbt": _family(wire.FullBook, books.best_quotes),
    "tickers": _family(wire.Tickers, prices.tickers),
    "mark-price": _family(wire.MarkPrices, prices.mark_prices),
    "index-tickers": _family(wire.IndexTickers, prices.index_tickers),
    "funding-rate": _family(wire.Fundings, prices.fundings),
    "open-interest": _family(wire.OpenInterests, prices.open_interests),
    "instruments": _over_many(wire.Instruments, instruments.instruments, "option"),
    "liquidation-orders": _over_many(wire_conditions.Liquidations, conditions.liquidations, SYSTEM),
    "price-limit": _family(wire_conditions.PriceLimits, conditions.price_limits),
    "opt-summary": _over_many(wire_conditions.OptionSummaries, conditions.option_summaries, "option"),
    "estimated-price": _over_many(wire_conditions.EstimatedPrices, conditions.estimated_prices, SYSTEM),
    "adl-warning": _over_many(wire_conditions.AdlWarnings, conditions.adl_warnings, SYSTEM),
    "status": _over_many(wire_conditions.Statuses, conditions.statuses, SYSTEM),
    "sprd-public-trades": _family(wire.Trades, trades.trades, named_by=_SPREAD_NAME),
    "sprd-books-l2-tbt": _family(wire.IncrementalSpreadBook, books.spread_book, named_by=_SPREAD_NAME),
    "sprd-books5": _family(wire.FullSpreadBook, books.full_spread_book, named_by=_SPREAD_NAME),
    "sprd-bbo-tbt": _family(wire.FullSpreadBook, books.best_spread_quotes, named_by=_SPREAD_NAME),
    "sprd-tickers": _family(wire.Tickers, prices.tickers, named_by=_SPREAD_NAME),
    "account": _private(wire_account.Accounts, account.balances),
    "positions": _private(wire_account.Positions, account.positions),
    "balance_and_position": _private(wire_account.BalancesAndPositions, account.balances_and_positions),
    "liquidation-warning": _private(wire_account.LiquidationWarnings, account.liquidation_warnings),
    "account-greeks": _private(wire_account.Greeks, account.greeks),
    "orders": _private(wire_orders.Orders, orders.orders),
    "orders-algo": _private(wire_orders.AlgoOrders, orders.algo_orders),
    "algo-advance": _private(wire_orders.AlgoOrders, orders.algo_orders),
    "fills": _private(wire_orders.Fills, orders.fills),
    "sprd-orders": _private(wire_orders.SpreadOrders, spreads.spread_orders),
    "sprd-trades": _private(wire_orders.SpreadTrades, spreads.spread_trades),
}
"""By channel."""
CANDLES = {
    "mark-price-candle": _family(wire.PriceCandles, prices.price_candles, price_type="mark"),
    "index-candle": _family(wire.PriceCandles, prices.price_candles, price_type="index"),
    "sprd-candle": _family(wire.TradeCandles, prices.spread_candles, named_by=_SPREAD_NAME),
    "candle": _family(wire.TradeCandles, prices.trade_candles),
}
"""By prefix of the channel; the interval follows."""
PASSED_ON = Family(passing.read, passing.read, passing.pass_on, named_by="")
"""All other channels."""
