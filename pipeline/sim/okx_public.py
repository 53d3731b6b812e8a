"""Which stream stands behind each of OKX's public channels."""

from __future__ import annotations

import attrs

from pipeline.sim import okx_streams
from pipeline.sim.floor import Market
from pipeline.sim.generator import Stream
from pipeline.sim.listing import Listing
from pipeline.sim.market import Engine
from pipeline.sim.okx_candles import CandleChannel
from pipeline.sim.okx_channels import candle
from pipeline.sim.okx_conditions import LatestChannel, OptionTradeChannel, SummaryChannel, price_limit
from pipeline.sim.okx_spreads import spread, spread_stream
from pipeline.sim.okx_streams import (
    BookChannel,
    Channel,
    RpiBookChannel,
    StateChannel,
    TopChannel,
    TradeChannel,
)

MARKETS = ("SPOT", "SWAP", "FUTURES", "OPTION")
DERIVATIVES = MARKETS[1:]
ESTIMATED = (*DERIVATIVES, "EVENTS")
_BY_INSTRUMENT_ON_DEMAND = ("call-auction-details", "block-tickers", "public-block-trades")


@attrs.define(eq=False)
class PublicStreams:
    """Makes the streams of public data over a market; None for what does not exist."""

    market: Market
    latest: dict[str, list[bytes]] = attrs.field(factory=dict)
    """Latest pushes of channels that repeat them to new subscribers, by topic name; changed in place."""

    def make(self, arg: dict[str, str]) -> Stream | None:
        """The stream of a faultless topic's arg."""
        channel, kind = arg["channel"], arg.get("instType", "")
        family, name = arg.get("instFamily", ""), arg.get("instId", "")
        match channel:
            case "instruments":
                return Channel(arg, []) if kind in (*MARKETS, "MARGIN") else None
            case "status":
                return LatestChannel(arg, [], self.latest.setdefault(channel, []))
            case "economic-calendar" | "public-struc-block-trades":
                return Channel(arg, [])
            case "event-contract-markets":
                return Channel(arg, []) if kind == "EVENTS" else None
            case "liquidation-orders":
                return Channel(arg, []) if kind in (*DERIVATIVES, "MARGIN") else None
            case "adl-warning":
                return Channel(arg, []) if kind in DERIVATIVES and self._named(kind, family) else None
            case "estimated-price":
                known = kind in ESTIMATED and bool(family or name) and self._named(kind, family, name)
                return Channel(arg, []) if known else None
            case "option-trades" | "opt-summary":
                return self._options(arg)
        if "sprdId" in arg:
            engine = spread(self.market, arg["sprdId"])
            bar = candle(channel)
            return None if engine is None else spread_stream(channel, arg, engine, bar[1] if bar else None)
        return self._by_instrument(channel, arg, name)

    def _by_instrument(self, channel: str, arg: dict[str, str], name: str) -> Stream | None:
        bar = candle(channel)
        if channel == "index-tickers" or (bar is not None and bar[0] == "index"):
            engine = self.underlying(name)
        else:
            engine = self._engine(name)
        if engine is None:
            return None
        if bar is not None:
            return CandleChannel(arg, [engine], bar=bar[1], kind=bar[0])
        return _instrument_stream(channel, arg, engine)

    def _options(self, arg: dict[str, str]) -> Stream | None:
        family, name = arg.get("instFamily", ""), arg.get("instId", "")
        trades = arg["channel"] == "option-trades"
        if not (family or name) or (trades and arg.get("instType") != "OPTION"):
            return None
        listings = [
            each for each in self.market.of("OPTION") if family in ("", each.index) and name in ("", each.symbol)
        ]
        if not listings:
            return None
        engines = [self.market.engine(each) for each in listings]
        underlying = self.underlying(listings[0].index)
        return (OptionTradeChannel if trades else SummaryChannel)(arg, engines, underlying=underlying)

    def _engine(self, name: str) -> Engine | None:
        found = next((each for each in self.market.listings.values() if each.symbol == name), None)
        return None if found is None else self.market.engine(found)

    def underlying(self, index: str) -> Engine | None:
        """The engine of the first instrument on an index that is no option."""
        found: Listing | None = next(
            (each for each in self.market.listings.values() if each.index == index and each.option is None), None
        )
        return None if found is None else self.market.engine(found)

    def _named(self, kind: str, family: str, name: str = "") -> bool:
        """Whether a market has such a family and instrument; of events nothing is listed, so every name will do."""
        return kind == "EVENTS" or any(
            family in ("", each.index) and name in ("", each.symbol) for each in self.market.of(kind)
        )


def _instrument_stream(channel: str, arg: dict[str, str], engine: Engine) -> Stream | None:
    derivative, engines = engine.listing.market != "SPOT", [engine]
    match channel:
        case "books" | "books-l2-tbt":
            return BookChannel(arg, engines)
        case "books50-l2-tbt":
            return BookChannel(arg, engines, depth=50)
        case "books-rpi":
            return RpiBookChannel(arg, engines)
        case "books5" | "bbo-tbt":
            return TopChannel(arg, engines, depth=5 if channel == "books5" else 1)
        case "trades" | "trades-all":
            return TradeChannel(arg, engines, single=channel == "trades-all")
        case "tickers":
            return StateChannel(arg, engines, okx_streams.ticker)
        case "mark-price":
            return StateChannel(arg, engines, okx_streams.mark_price, quiet_ms=okx_streams.MARK_QUIET_MS)
        case "index-tickers":
            return StateChannel(arg, engines, okx_streams.index_ticker, quiet_ms=okx_streams.QUIET_MS)
        case "price-limit":
            return StateChannel(arg, engines, price_limit)
        case "open-interest" if derivative:
            return StateChannel(arg, engines, okx_streams.open_interest)
        case "funding-rate" if engine.listing.perpetual:
            return StateChannel(arg, engines, okx_streams.funding_rate)
        case _ if channel in _BY_INSTRUMENT_ON_DEMAND:
            return Channel(arg, [])
    return None
