"""Normalized events: what is published, one class per kind and one Avro schema per class.

Attribute names are the Avro field names; `tests/avro` holds classes and `schemas/*.avsc` together. Times are
integer microseconds since 1970 UTC. Prices and sizes are the venue's own decimal text. `None` means that the
venue gave no value. Events are complete when built and never changed after. They are structs of msgspec, which are
built in C in a third of the time, and not tracked by the garbage collector: no event refers to what refers to it.

The kinds of a private account are in `account`, those of order entry in `orders`, what all kinds share in `header`.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.model.account import AccountGreeks, AccountRaw, Balance, Fill, Order, Position
from pipeline.model.decimals import DecimalText
from pipeline.model.header import BASE, CONTRACT, QUOTE, Event, Micros, Origin
from pipeline.model.orders import OrderResult

__all__ = [
    "BASE",
    "CONTRACT",
    "EVENTS",
    "KINDS",
    "PRICE_SIZE",
    "PRICE_SIZE_COUNT",
    "PRICE_SIZE_RPI",
    "PRICE_SIZE_RPI_COUNT",
    "QUOTE",
    "AdlAlert",
    "Bbo",
    "BookTop",
    "BookUpdate",
    "Candle",
    "DeadLetter",
    "EstimatedPrice",
    "Event",
    "FeedStatus",
    "FundingRate",
    "IndexPrice",
    "Instrument",
    "InsuranceFund",
    "Layout",
    "Liquidation",
    "MarkPrice",
    "Micros",
    "OpenInterest",
    "OptionSummary",
    "OrderResult",
    "Origin",
    "PriceLimit",
    "Raw",
    "Row",
    "SystemStatus",
    "Ticker",
    "Trade",
    "WireMessage",
]

Row = tuple[str, ...]
"""One price level as it came from the wire; a `Layout` names its positions."""
Layout = tuple[str | None, ...]
"""Names of a row's positions: "price", "size", "rpi_size", "order_count", or None for what is not published."""

PRICE_SIZE: Layout = ("price", "size")
PRICE_SIZE_RPI: Layout = ("price", "size", "rpi_size")
PRICE_SIZE_COUNT: Layout = ("price", "size", None, "order_count")
PRICE_SIZE_RPI_COUNT: Layout = ("price", "size", "rpi_size", "order_count")


class Trade(Event):
    """One public trade, as the venue printed it."""

    KIND = "trade"
    IDENTITY = ("venue", "market", "instrument", "trade_id")

    trade_id: str
    price: DecimalText
    size: DecimalText
    size_unit: str
    base_size: DecimalText | None
    """Exact size in base currency, where it follows from the size without a division."""
    quote_size: DecimalText | None
    """Exact size in quote currency, for contracts that are worth a fixed quote amount (inverse)."""
    aggressor: str
    """The taker's side: "buy" or "sell"."""
    is_block: bool | None = None
    is_rpi: bool | None = None
    """Whether it was against retail-price-improvement liquidity."""
    match_count: int | None = None
    """How many maker matches the venue put into this print; None if it prints each match."""
    tick_direction: str | None = None
    implied_volatility: float | None = None
    mark_implied_volatility: float | None = None
    mark_price: DecimalText | None = None
    index_price: DecimalText | None = None
    forward_price: DecimalText | None = None


class BookUpdate(Event):
    """An order book: a snapshot replaces it, a delta sets absolute sizes per price.

    A delta deletes a level whose `size` and, where given, `rpi_size` are both 0.
    """

    KIND = "book_update"
    IDENTITY = ("venue", "market", "instrument", "channel", "epoch", "sequence", "is_snapshot", "is_periodic")

    channel: str
    """The venue's channel, e.g. "orderbook.50" or "books": books of different channels are different books."""
    is_snapshot: bool
    previous_sequence: int | None
    """A delta follows the update whose `sequence` this is; None where the venue numbers nothing."""
    bids: list[Row]
    """Best first in a snapshot."""
    asks: list[Row]
    layout: Layout
    """Not published: names the positions of `bids` and `asks`."""
    size_unit: str
    depth: int | None
    """Levels per side that the channel carries; None for the full book."""
    cross_sequence: int | None = None
    """Engine sequence across channels of the instrument (Bybit `seq`)."""
    checksum: int | None = None
    is_reset: bool = False
    """The venue restarted its numbering: `sequence` may be below that of the update before."""
    is_periodic: bool = False
    """A repetition of the current book for late joiners; whoever follows the deltas may skip it."""
    epoch: int = 0
    """Rises with every (re)synchronization; deltas belong to the snapshot of the same epoch."""


class Bbo(Event):
    """Best bid and offer; a side without orders is None."""

    KIND = "bbo"
    IDENTITY = ("venue", "market", "instrument", "channel", "sequence", "is_derived")

    channel: str
    bid_price: DecimalText | None
    bid_size: DecimalText | None
    ask_price: DecimalText | None
    ask_size: DecimalText | None
    size_unit: str
    bid_order_count: int | None = None
    ask_order_count: int | None = None
    is_derived: bool = False
    """Computed from the order book of `channel` instead of sent by the venue."""


class BookTop(Event):
    """The best levels of a book at an interval, for consumers that keep no books."""

    KIND = "book_top"
    IDENTITY = ("venue", "market", "instrument", "channel", "epoch", "sequence", "receive_time")

    channel: str
    epoch: int
    bids: list[Row]
    asks: list[Row]
    layout: Layout
    """Not published, as in `BookUpdate`."""
    size_unit: str


class Ticker(Event):
    """The whole current ticker, merged from partial messages; never a partial."""

    KIND = "ticker"
    IDENTITY = ("venue", "market", "instrument", "exchange_time", "sequence")

    size_unit: str
    """Unit of `last_size`, `bid_size`, `ask_size` and `open_interest`."""
    last_price: DecimalText | None = None
    last_size: DecimalText | None = None
    bid_price: DecimalText | None = None
    bid_size: DecimalText | None = None
    ask_price: DecimalText | None = None
    ask_size: DecimalText | None = None
    open_24h: DecimalText | None = None
    """Price 24 hours ago."""
    high_24h: DecimalText | None = None
    low_24h: DecimalText | None = None
    price_1h_ago: DecimalText | None = None
    change_24h: float | None = None
    """A fraction: 0.01 is one percent."""
    volume_24h: DecimalText | None = None
    """In `size_unit`."""
    base_volume_24h: DecimalText | None = None
    quote_volume_24h: DecimalText | None = None
    open_utc0: DecimalText | None = None
    open_utc8: DecimalText | None = None
    tick_direction: str | None = None
    mark_price: DecimalText | None = None
    index_price: DecimalText | None = None
    open_interest: DecimalText | None = None
    open_interest_value: DecimalText | None = None
    funding_rate: DecimalText | None = None
    funding_time: Micros | None = None
    basis: DecimalText | None = None
    basis_rate: DecimalText | None = None
    basis_rate_year: DecimalText | None = None
    predicted_delivery_price: DecimalText | None = None
    delivery_time: Micros | None = None
    delivery_fee_rate: DecimalText | None = None
    pre_open_price: DecimalText | None = None
    pre_open_size: DecimalText | None = None
    pre_listing_phase: str | None = None
    underlying_price: DecimalText | None = None
    bid_implied_volatility: float | None = None
    ask_implied_volatility: float | None = None
    mark_implied_volatility: float | None = None
    delta: float | None = None
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None
    total_volume: DecimalText | None = None
    total_turnover: DecimalText | None = None


class MarkPrice(Event):
    """The price that margins are computed with."""

    KIND = "mark_price"
    IDENTITY = ("venue", "market", "instrument", "exchange_time", "price")

    price: DecimalText


class IndexPrice(Event):
    """The price of the underlying index."""

    KIND = "index_price"
    IDENTITY = ("venue", "market", "instrument", "exchange_time", "price")

    price: DecimalText
    currency: str | None = None
    """What the price is in, where that is not the instrument's quote currency."""
    open_24h: DecimalText | None = None
    high_24h: DecimalText | None = None
    low_24h: DecimalText | None = None
    open_utc0: DecimalText | None = None
    open_utc8: DecimalText | None = None


class FundingRate(Event):
    """The funding rate that will be exchanged at `funding_time`; positive: longs pay shorts."""

    KIND = "funding_rate"
    IDENTITY = ("venue", "market", "instrument", "exchange_time", "funding_time", "funding_rate")

    funding_rate: DecimalText
    """A fraction per interval."""
    funding_time: Micros | None
    next_funding_time: Micros | None = None
    """The settlement after `funding_time`."""
    interval_hours: int | None = None
    min_funding_rate: DecimalText | None = None
    max_funding_rate: DecimalText | None = None
    """The cap; on Bybit the bound of the rate's absolute value."""
    settled_funding_rate: DecimalText | None = None
    settlement_state: str | None = None
    premium: DecimalText | None = None
    interest_rate: DecimalText | None = None
    impact_value: DecimalText | None = None
    formula_type: str | None = None
    method: str | None = None


class OpenInterest(Event):
    """Contracts that are open at the venue."""

    KIND = "open_interest"
    IDENTITY = ("venue", "market", "instrument", "exchange_time", "open_interest")

    open_interest: DecimalText
    """Both sides, in `size_unit`."""
    size_unit: str
    base_open_interest: DecimalText | None = None
    value: DecimalText | None = None
    """In the venue's value currency: quote for linear, base for inverse."""
    usd_value: DecimalText | None = None
    single_side: DecimalText | None = None
    single_side_value: DecimalText | None = None


class Candle(Event):
    """One candle; published while it forms, and once with `closed`."""

    KIND = "candle"
    IDENTITY = (
        "venue",
        "market",
        "instrument",
        "price_type",
        "venue_interval",
        "open_time",
        "closed",
        "high",
        "low",
        "close",
        "volume",
    )

    price_type: str
    """Which price: "trade", "mark" or "index"."""
    interval: str
    """One vocabulary over the venues: 1s 1m 5m 1h 4h 1d 1w 1M."""
    venue_interval: str
    """The venue's own name; on OKX "1D" opens at 16:00 UTC and "1Dutc" at midnight UTC."""
    open_time: Micros
    close_time: Micros | None
    """The last instant of the candle, where the venue gives it."""
    open: DecimalText
    high: DecimalText
    low: DecimalText
    close: DecimalText
    closed: bool | None
    """False while the candle forms; None where the venue did not tell."""
    volume: DecimalText | None = None
    """In `size_unit`."""
    size_unit: str | None = None
    base_volume: DecimalText | None = None
    quote_volume: DecimalText | None = None


class Liquidation(Event):
    """A position that the venue took over; venues neither number these nor tell of all."""

    KIND = "liquidation"
    IDENTITY = (
        "venue",
        "market",
        "instrument",
        "exchange_time",
        "order_side",
        "position_side",
        "price",
        "size",
    )

    price: DecimalText | None
    """The bankruptcy price: what the position is taken over at, not what it is then traded at."""
    size: DecimalText
    size_unit: str
    position_side: str | None = None
    """long or short, as the position was."""
    order_side: str | None = None
    """buy or sell, as the order is that closes the position: buy for a short."""
    base_size: DecimalText | None = None
    quote_size: DecimalText | None = None
    loss: DecimalText | None = None
    """Beyond the bankruptcy price, in the settlement currency."""
    currency: str | None = None


class PriceLimit(Event):
    """The prices that the venue accepts orders between at present."""

    KIND = "price_limit"
    IDENTITY = (
        "venue",
        "market",
        "instrument",
        "exchange_time",
        "max_buy_price",
        "min_sell_price",
        "is_enabled",
    )

    max_buy_price: DecimalText | None = None
    """Above it no buy order is accepted."""
    min_sell_price: DecimalText | None = None
    """Below it no sell order is accepted."""
    is_enabled: bool | None = None


class EstimatedPrice(Event):
    """What a settlement, a delivery or an exercise would be computed with if it were now."""

    KIND = "estimated_price"
    IDENTITY = ("venue", "market", "instrument", "exchange_time", "price", "settlement_type")

    price: DecimalText
    settlement_type: str | None = None
    """settlement, delivery or exercise."""


class InsuranceFund(Event):
    """The balance of a fund that covers losses beyond bankruptcy; of one contract where `instrument` is set."""

    KIND = "insurance_fund"
    IDENTITY = ("venue", "market", "instrument", "pool", "currency", "exchange_time", "balance", "is_snapshot")

    balance: DecimalText
    currency: str | None = None
    pool: str | None = None
    """The venue's name of what the fund stands for: "USDT", "inverse", "BTC-USDT"."""
    is_snapshot: bool = False


class AdlAlert(Event):
    """How near an insurance fund is to auto-deleveraging: profitable positions are reduced when it is active."""

    KIND = "adl_alert"
    IDENTITY = (
        "venue",
        "market",
        "instrument",
        "pool",
        "exchange_time",
        "state",
        "is_active",
        "balance",
        "pnl_ratio",
    )

    pool: str | None = None
    """As in `InsuranceFund`."""
    state: str | None = None
    """The venue's own word: "warning", "adl"."""
    is_active: bool | None = None
    """None between the thresholds, where it depends on what was before."""
    currency: str | None = None
    balance: DecimalText | None = None
    pnl_ratio: DecimalText | None = None
    """A fraction over 8 hours; negative: the fund lost."""
    trigger_ratio: DecimalText | None = None
    trigger_balance: DecimalText | None = None
    stop_ratio: DecimalText | None = None


class SystemStatus(Event):
    """Maintenance or trouble that the venue announces, at each of its steps."""

    KIND = "system_status"
    IDENTITY = ("venue", "status_id", "title", "state", "begin_time", "end_time", "exchange_time")

    state: str
    """scheduled, ongoing, pre_open, completed or canceled, as the venues write it."""
    title: str
    status_id: str | None = None
    begin_time: Micros | None = None
    end_time: Micros | None = None
    """Expected until it is completed, actual after that."""
    pre_open_time: Micros | None = None
    """From when on cancelling, post-only orders and transfers work again."""
    href: str | None = None
    description: str | None = None
    service_types: Sequence[str] = ()
    """The venue's own codes, as in its manual."""
    products: Sequence[str] = ()
    uid_suffixes: Sequence[str] = ()
    """Last digits of the account numbers concerned; empty for all."""
    maintenance_type: str | None = None
    environment: str | None = None
    system: str | None = None


class OptionSummary(Event):
    """Prices, volatilities and greeks of one option; volatilities are fractions per year: 0.5 is 50 percent."""

    KIND = "option_summary"
    IDENTITY = ("venue", "market", "instrument", "exchange_time", "sequence")

    bid_price: DecimalText | None = None
    bid_size: DecimalText | None = None
    bid_implied_volatility: float | None = None
    ask_price: DecimalText | None = None
    ask_size: DecimalText | None = None
    ask_implied_volatility: float | None = None
    mark_price: DecimalText | None = None
    mark_implied_volatility: float | None = None
    forward_price: DecimalText | None = None
    underlying_price: DecimalText | None = None
    index_price: DecimalText | None = None
    predicted_delivery_price: DecimalText | None = None
    delta: float | None = None
    """`delta` to `theta`: after Black and Scholes, valued in dollars (OKX: `deltaBS`, …)."""
    gamma: float | None = None
    vega: float | None = None
    theta: float | None = None
    coin_delta: float | None = None
    """`coin_delta` to `coin_theta`: valued in the coin that the option is margined in."""
    coin_gamma: float | None = None
    coin_vega: float | None = None
    coin_theta: float | None = None
    leverage: DecimalText | None = None
    realized_volatility: float | None = None
    atm_implied_volatility: float | None = None
    """At the money."""
    open_interest: DecimalText | None = None
    size_unit: str | None = None
    """Unit of `bid_size`, `ask_size` and `open_interest`."""


class Instrument(Event):
    """One entry of a venue's catalogue of what can be traded."""

    KIND = "instrument"
    IDENTITY = ("venue", "market", "instrument", "receive_time")

    kind: str
    """spot, perpetual, future, option, index or spread."""
    state: str
    """The venue's own word: "Trading", "live", …"""
    is_tradable: bool
    """Whether market data can be expected now."""
    base: str | None
    quote: str | None
    settle: str | None
    size_unit: str
    contract_value: DecimalText | None = None
    """One contract is worth this much `contract_currency` (multiplier included); None where sizes are in coin."""
    contract_currency: str | None = None
    is_inverse: bool = False
    tick_size: DecimalText | None = None
    lot_size: DecimalText | None = None
    min_size: DecimalText | None = None
    max_limit_size: DecimalText | None = None
    max_market_size: DecimalText | None = None
    min_value: DecimalText | None = None
    min_price: DecimalText | None = None
    max_price: DecimalText | None = None
    listing_time: Micros | None = None
    expiry_time: Micros | None = None
    strike: DecimalText | None = None
    option_type: str | None = None
    """"call" or "put"."""
    underlying: str | None = None
    """The index or family that the venue groups derivatives by."""
    funding_interval_minutes: int | None = None
    max_leverage: DecimalText | None = None
    instrument_code: int | None = None
    """The venue's integer code of the instrument (OKX `instIdCode`, Bybit `symbolId`)."""


class FeedStatus(Event):
    """What a consumer must know about the feed itself: losses are announced, never silent."""

    KIND = "feed_status"
    IDENTITY = ("venue", "market", "instrument", "connection", "status", "receive_time")

    status: str
    """connected, lost, replaced, gap, stale, resynced, subscribed, unsubscribed, refused, lagging or caught_up."""
    scope: str
    """What it concerns: connection, channel, instrument, the sink, or the whole process."""
    reason: str
    channel: str | None = None
    from_sequence: int | None = None
    """Last sequence before the gap."""
    to_sequence: int | None = None
    """First sequence after the gap."""
    from_time: Micros | None = None
    to_time: Micros | None = None
    count: int | None = None
    """How many records are concerned, where that is known."""


class DeadLetter(Event):
    """A message that could not be published, whole, with the reason."""

    KIND = "dead_letter"
    IDENTITY = ("venue", "connection", "receive_time", "payload_sha256")

    stage: str
    """Where it failed: parse, encode or produce."""
    reason: str
    payload: bytes
    """The original bytes: the wire message, or the encoded record; empty if only referenced by its digest."""
    payload_size: int
    """Bytes."""
    payload_sha256: str
    topic: str | None = None
    """The Kafka topic that refused the record, for stage produce."""


class Raw(Event):
    """A message of a channel that no kind of event is made for, as the venue sent it."""

    KIND = "raw"
    IDENTITY = ("venue", "market", "instrument", "account", "channel", "exchange_time", "payload_sha256")

    channel: str
    """The venue's channel or topic."""
    payload: str
    """The whole message."""
    payload_sha256: str
    """Of the payload's UTF-8 bytes, in lower-case hexadecimal."""


class WireMessage(Event):
    """An entry of the raw archive: a message as it came over a connection, or a note of what happened between."""

    KIND = "wire_message"
    IDENTITY = ("venue", "run", "connection", "sequence")

    run: Micros
    """When the process started that received it: connections are numbered anew then."""
    entry: str
    """"data", "other" (answers, heartbeats, what nobody looked at), "note" or "begin"."""
    payload: bytes


EVENTS: tuple[type[Event], ...] = (
    Trade,
    BookUpdate,
    Bbo,
    BookTop,
    Ticker,
    MarkPrice,
    IndexPrice,
    FundingRate,
    OpenInterest,
    Candle,
    Liquidation,
    PriceLimit,
    EstimatedPrice,
    InsuranceFund,
    AdlAlert,
    SystemStatus,
    OptionSummary,
    Instrument,
    Order,
    Fill,
    Position,
    Balance,
    AccountGreeks,
    AccountRaw,
    OrderResult,
    FeedStatus,
    DeadLetter,
    Raw,
    WireMessage,
)
KINDS: dict[str, type[Event]] = {event.KIND: event for event in EVENTS}
