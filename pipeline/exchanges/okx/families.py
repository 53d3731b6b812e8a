"""The table of OKX's channels: how the messages of each are read, and what they become."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from pipeline.exchanges.vocabulary import strict
from pipeline.model.events import Event, Micros

Build = Callable[[Stream, Any, Micros], list[Event]]

_SPREAD_NAME = "sprdId"


def decoder(push: type[msgspec.Struct]) -> Callable[[bytes], Any]:
    """A decoder of this form of push, with numbers in text."""
    return msgspec.json.Decoder(push, strict=False).decode


def _family(
    name: str,
    push: type[msgspec.Struct],
    build: Build,
    *,
    named_by: str = "instId",
    market: str = "",
    price_type: str = "trade",
    loose: type[msgspec.Struct] | None = None,
) -> Family:
    return Family(name, push, decoder(strict(push)), build, named_by, market, market == ACCOUNT, price_type, loose)


def _incremental_book(name: str, build: Build) -> Family:
    return _family(name, wire.IncrementalBook, build, loose=wire.LongIncrementalBook)


def _full_book(name: str, build: Build) -> Family:
    return _family(name, wire.FullBook, build, loose=wire.LongFullBook)


def _over_many(name: str, push: type[msgspec.Struct], build: Build, market: str) -> Family:
    return _family(name, push, build, named_by="", market=market)


def _private(name: str, push: type[msgspec.Struct], build: Build) -> Family:
    return _family(name, push, build, named_by="", market=ACCOUNT)


def _passed_on(name: str, *, is_private: bool) -> Family:
    return Family(name, None, passing.read, passing.pass_on, named_by="", is_private=is_private)


def _by_name(*families: Family) -> Mapping[str, Family]:
    return {family.name: family for family in families}


FAMILIES = _by_name(
    _family("trades", wire.Trades, trades.trades),
    _family("trades-all", wire.Trades, trades.trades),
    _over_many("option-trades", wire.OptionTrades, trades.option_trades, "option"),
    _family("public-block-trades", wire.OptionTrades, trades.block_trades),
    _incremental_book("books", books.incremental_book),
    _incremental_book("books-l2-tbt", books.incremental_book),
    _incremental_book("books50-l2-tbt", books.incremental_book),
    _incremental_book("books-rpi", books.rpi_book),
    _incremental_book("books-elp", books.incremental_book),
    _full_book("books5", books.full_book),
    _full_book("bbo-tbt", books.best_quotes),
    _family("tickers", wire.Tickers, prices.tickers),
    _family("mark-price", wire.MarkPrices, prices.mark_prices),
    _family("index-tickers", wire.IndexTickers, prices.index_tickers),
    _family("funding-rate", wire.Fundings, prices.fundings),
    _family("open-interest", wire.OpenInterests, prices.open_interests),
    _over_many("instruments", wire.Instruments, instruments.instruments, "option"),
    _over_many("liquidation-orders", wire_conditions.Liquidations, conditions.liquidations, SYSTEM),
    _family("price-limit", wire_conditions.PriceLimits, conditions.price_limits),
    _over_many("opt-summary", wire_conditions.OptionSummaries, conditions.option_summaries, "option"),
    _over_many("estimated-price", wire_conditions.EstimatedPrices, conditions.estimated_prices, SYSTEM),
    _over_many("adl-warning", wire_conditions.AdlWarnings, conditions.adl_warnings, SYSTEM),
    _over_many("status", wire_conditions.Statuses, conditions.statuses, SYSTEM),
    _family("sprd-public-trades", wire.Trades, trades.trades, named_by=_SPREAD_NAME),
    _family("sprd-books-l2-tbt", wire.IncrementalSpreadBook, books.spread_book, named_by=_SPREAD_NAME),
    _family("sprd-books5", wire.FullSpreadBook, books.full_spread_book, named_by=_SPREAD_NAME),
    _family("sprd-bbo-tbt", wire.FullSpreadBook, books.best_spread_quotes, named_by=_SPREAD_NAME),
    _family("sprd-tickers", wire.Tickers, prices.tickers, named_by=_SPREAD_NAME),
    _private("account", wire_account.Accounts, account.balances),
    _private("positions", wire_account.Positions, account.positions),
    _private("balance_and_position", wire_account.BalancesAndPositions, account.balances_and_positions),
    _private("liquidation-warning", wire_account.LiquidationWarnings, account.liquidation_warnings),
    _private("account-greeks", wire_account.Greeks, account.greeks),
    _private("orders", wire_orders.Orders, orders.orders),
    _private("orders-algo", wire_orders.AlgoOrders, orders.algo_orders),
    _private("algo-advance", wire_orders.AlgoOrders, orders.algo_orders),
    _private("fills", wire_orders.Fills, orders.fills),
    _private("sprd-orders", wire_orders.SpreadOrders, spreads.spread_orders),
    _private("sprd-trades", wire_orders.SpreadTrades, spreads.spread_trades),
)
"""By channel."""
CANDLES = _by_name(
    _family("mark-price-candle", wire.PriceCandles, prices.price_candles, price_type="mark"),
    _family("index-candle", wire.PriceCandles, prices.price_candles, price_type="index"),
    _family("sprd-candle", wire.TradeCandles, prices.spread_candles, named_by=_SPREAD_NAME),
    _family("candle", wire.TradeCandles, prices.trade_candles),
)
"""By prefix of the channel; the interval follows."""
PASSED_ON = _by_name(
    *(
        _passed_on(name, is_private=False)
        for name in (
            "block-tickers",
            "call-auction-details",
            "economic-calendar",
            "event-contract-markets",
            "public-struc-block-trades",
        )
    ),
    *(
        _passed_on(name, is_private=True)
        for name in (
            "algo-recurring-buy",
            "copytrading-lead-notification",
            "deposit-info",
            "grid-orders-contract",
            "grid-orders-spot",
            "grid-positions",
            "grid-sub-orders",
            "quotes",
            "rfqs",
            "struc-block-trades",
            "withdrawal-info",
        )
    ),
)
"""Channels that are known, but have no kind of event."""
