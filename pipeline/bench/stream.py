"""Streams of wire messages made up from a seed: the same one for every contestant. No I/O but reading a recording.

Sizes and shares are those of real sessions: 60 % book deltas of twelve levels on average, 30 % trades of one to
five prints, 10 % tickers, about 400 bytes per message. Books follow on without a gap and stay uncrossed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import attrs
import msgspec

from pipeline.bench.recorded import Recording, recorded_messages
from pipeline.sim.listing import Listing, many

_RECORDED_BOOKS = Path(__file__).parents[2] / "tests" / "data" / "okx" / "recording.books.jsonl"
_DEPTH = 50
_SEQUENCE = 7_000_000_000
_TICKERS = (
    ("lastPrice", "{price}"),
    ("markPrice", "{price}"),
    ("indexPrice", "{price}"),
    ("openInterest", "{size}"),
    ("openInterestValue", "{value}"),
    ("turnover24h", "{value}"),
    ("volume24h", "{size}"),
    ("bid1Price", "{price}"),
    ("bid1Size", "{size}"),
    ("ask1Price", "{price}"),
    ("ask1Size", "{size}"),
)
_encode = msgspec.json.Encoder().encode

Level = tuple[str, str]


@attrs.frozen
class Mix:
    """What a stream consists of."""

    venue: str
    what: str
    """For the report."""
    book: float
    trade: float
    ticker: float
    """Shares of the messages."""
    is_recorded: bool = False
    """Whether it is made of a recording; see `recorded`."""

    @property
    def channels(self) -> tuple[str, ...]:
        """What has a share."""
        return tuple(name for name in ("book", "trade", "ticker") if getattr(self, name))


MIXES = {
    "bybit": Mix("bybit", "Bybit linear: 60 % book deltas, 30 % trades, 10 % tickers", 0.6, 0.3, 0.1),
    "okx-recorded": Mix("okx", "OKX: recorded order books", 1.0, 0.0, 0.0, is_recorded=True),
    "okx": Mix("okx", "OKX swaps: 60 % book deltas, 30 % trades, 10 % tickers", 0.6, 0.3, 0.1),
    "trades": Mix("bybit", "Bybit linear: trades only", 0.0, 1.0, 0.0),
}


def messages(
    mix: Mix, count: int, instruments: int, seed: int, start_ms: int, *, is_even: bool = False
) -> Iterator[bytes]:
    """Book and ticker snapshots of all instruments, then `count` further messages, in the order of sending.

    `start_ms` is the exchange's time of the first: brokers refuse records from far off their own time. `is_even`: of a
    stream that is made up all instruments bring as much. Raises `OSError` when a recording cannot be read.
    """
    if mix.is_recorded:
        recording = Recording.read(_RECORDED_BOOKS.read_bytes().splitlines())
        yield from recorded_messages(recording, count, instruments, seed, start_ms)
        return
    random = Random(seed)
    listings = many(mix.venue, instruments)
    markets = [_Market(listing, random, number, start_ms) for number, listing in enumerate(listings)]
    dialect = _DIALECTS[mix.venue]
    for market in markets:
        if mix.book:
            yield dialect.book(market, *market.levels(), snapshot=True)
        if mix.ticker:
            yield dialect.ticker(market, snapshot=True)
    makers: Sequence[Callable[[_Market], bytes]] = (
        lambda market: dialect.book(market, *market.change()),
        dialect.trades,
        dialect.ticker,
    )
    # A few instruments bring most of the traffic, as on a real market.
    weights = [1.0 if is_even else 1 / (1 + number) for number in range(len(markets))]
    kinds = random.choices(makers, (mix.book, mix.trade, mix.ticker), k=count)
    for make, market in zip(kinds, random.choices(markets, weights, k=count), strict=True):
        market.now_ms += random.randrange(3)
        yield make(market)


class _Market:
    """One instrument: a window of levels around a price that walks."""

    def __init__(self, listing: Listing, random: Random, number: int, start_ms: int) -> None:
        self.listing = listing
        self.random = random
        self.now_ms = self.start_ms = start_ms
        self.sequence = _SEQUENCE + number * 1_000_003
        self.previous = 0
        self.update = 1_000_000 + number
        self.trade = 0
        self._mid = int(listing.price / listing.tick)
        self._size_scale = max(0, -int(listing.lot.as_tuple().exponent))

    def follow(self) -> None:
        """Number the next change of the book."""
        self.update += 1
        self.previous, self.sequence = self.sequence, self.sequence + self.random.randrange(1, 40)

    def price(self, ticks: int | None = None) -> str:
        return f"{(self._mid if ticks is None else ticks) * self.listing.tick:f}"

    def size(self) -> str:
        # Small round sizes repeat, as on a real market; the rest hardly ever do.
        lots = self.random.choice((1, 2, 5, 10, 20, 50, 100)) if self.random.random() < 0.3 else None
        return f"{(lots or self.random.randrange(1, 90_000)) * self.listing.lot:.{self._size_scale}f}"

    def levels(self) -> tuple[list[Level], list[Level]]:
        """The whole book: bids and asks, best first."""
        bids = [(self.price(self._mid - 1 - n), self.size()) for n in range(_DEPTH)]
        asks = [(self.price(self._mid + 1 + n), self.size()) for n in range(_DEPTH)]
        return bids, asks

    def change(self) -> tuple[list[Level], list[Level]]:
        """Changed bids and asks, twelve on average; size 0 deletes."""
        random = self.random
        bids: dict[int, str] = {}
        asks: dict[int, str] = {}
        if random.random() < 0.3:
            step = random.choice((-1, 1))
            gaining, losing = (bids, asks) if step > 0 else (asks, bids)
            self._mid += step
            gaining[self._mid - step] = self.size()
            gaining[self._mid - step * (_DEPTH + 1)] = "0"
            losing[self._mid] = "0"
            losing[self._mid + step * _DEPTH] = self.size()
        for _ in range(min(1 + int(random.expovariate(1 / 14)), 60)):
            distance = 1 + min(int(random.expovariate(0.09)), _DEPTH - 1)
            if random.random() < 0.5:
                bids[self._mid - distance] = self.size()
            else:
                asks[self._mid + distance] = self.size()
        return (
            [(self.price(ticks), size) for ticks, size in bids.items()],
            [(self.price(ticks), size) for ticks, size in asks.items()],
        )


class _Bybit:
    def book(self, market: _Market, bids: list[Level], asks: list[Level], *, snapshot: bool = False) -> bytes:
        symbol = market.listing.symbol
        market.follow()
        return _encode(
            {
                "topic": f"orderbook.{_DEPTH}.{symbol}",
                "type": "snapshot" if snapshot else "delta",
                "ts": market.now_ms + 2,
                "data": {"s": symbol, "b": bids, "a": asks, "u": market.update, "seq": market.sequence},
                "cts": market.now_ms,
            }
        )

    def trades(self, market: _Market) -> bytes:
        symbol, random = market.listing.symbol, market.random
        rows = [
            {
                "T": market.now_ms,
                "s": symbol,
                "S": random.choice(("Buy", "Sell")),
                "v": market.size(),
                "p": market.price(),
                "L": random.choice(("PlusTick", "ZeroPlusTick", "MinusTick", "ZeroMinusTick")),
                "i": _uuid(random),
                "BT": False,
                "RPI": False,
                "seq": market.sequence,
            }
            for _ in range(random.choice((1, 1, 1, 1, 2, 2, 3, 5)))
        ]
        return _encode({"topic": f"publicTrade.{symbol}", "type": "snapshot", "ts": market.now_ms + 1, "data": rows})

    def ticker(self, market: _Market, *, snapshot: bool = False) -> bytes:
        symbol, random = market.listing.symbol, market.random
        wanted = len(_TICKERS) if snapshot else random.randrange(2, 7)
        fields = {
            name: form.format(price=market.price(), size=market.size(), value=f"{random.randrange(10**14) / 10**4:.4f}")
            for name, form in random.sample(_TICKERS, wanted)
        }
        if snapshot:
            fields |= {
                "tickDirection": "PlusTick",
                "price24hPcnt": "0.017103",
                "prevPrice24h": market.price(),
                "highPrice24h": market.price(),
                "lowPrice24h": market.price(),
                "prevPrice1h": market.price(),
                "nextFundingTime": str(market.start_ms + 8 * 3_600_000),
                "fundingRate": "-0.000212",
            }
        return _encode(
            {
                "topic": f"tickers.{symbol}",
                "type": "snapshot" if snapshot else "delta",
                "data": {"symbol": symbol, **fields},
                "cs": market.sequence,
                "ts": market.now_ms,
            }
        )


class _Okx:
    def book(self, market: _Market, bids: list[Level], asks: list[Level], *, snapshot: bool = False) -> bytes:
        market.follow()
        return _encode(
            {
                "arg": {"channel": "books", "instId": market.listing.symbol},
                "action": "snapshot" if snapshot else "update",
                "data": [
                    {
                        "asks": self._rows(market, asks),
                        "bids": self._rows(market, bids),
                        "ts": str(market.now_ms),
                        "checksum": 0,
                        "seqId": market.sequence,
                        "prevSeqId": -1 if snapshot else market.previous,
                    }
                ],
            }
        )

    def _rows(self, market: _Market, levels: list[Level]) -> list[list[str]]:
        return [
            [price, size, "0", "0" if size == "0" else str(market.random.randrange(1, 40))] for price, size in levels
        ]

    def trades(self, market: _Market) -> bytes:
        symbol, random = market.listing.symbol, market.random
        market.trade += 1
        row = {
            "instId": symbol,
            "tradeId": str(900_000_000 + market.trade),
            "px": market.price(),
            "sz": market.size(),
            "side": random.choice(("buy", "sell")),
            "ts": str(market.now_ms),
            "count": str(random.randrange(1, 5)),
            "source": "0",
            "seqId": market.sequence,
        }
        return _encode({"arg": {"channel": "trades", "instId": symbol}, "data": [row]})

    def ticker(self, market: _Market, *, snapshot: bool = False) -> bytes:
        del snapshot  # every message is whole
        symbol, price = market.listing.symbol, market.price()
        row = {
            "instType": market.listing.market,
            "instId": symbol,
            "last": price,
            "lastSz": market.size(),
            "askPx": price,
            "askSz": market.size(),
            "bidPx": price,
            "bidSz": market.size(),
            "open24h": price,
            "high24h": price,
            "low24h": price,
            "volCcy24h": market.size(),
            "vol24h": market.size(),
            "sodUtc0": price,
            "sodUtc8": price,
            "ts": str(market.now_ms),
        }
        return _encode({"arg": {"channel": "tickers", "instId": symbol}, "data": [row]})


_DIALECTS: dict[str, _Bybit | _Okx] = {"bybit": _Bybit(), "okx": _Okx()}


def _uuid(random: Random) -> str:
    digits = f"{random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@attrs.frozen
class Subject:
    """What a message is about: a subscription to the same subject brings it, whatever depth was asked for."""

    family: str
    symbol: str

    @classmethod
    def of_topic(cls, topic: str) -> Subject:
        """From a Bybit topic."""
        family, _, rest = topic.partition(".")
        return cls(family, rest.rpartition(".")[2])


class _Arg(msgspec.Struct):
    channel: str
    instId: str = ""


class _Envelope(msgspec.Struct):
    topic: str = ""
    arg: _Arg | None = None


_decode = msgspec.json.Decoder(_Envelope).decode


def subject(message: bytes) -> Subject:
    """The subject of a data message; raises `msgspec.MsgspecError` for what is no JSON object of a known form."""
    envelope = _decode(message)
    if envelope.arg is not None:
        return Subject(envelope.arg.channel, envelope.arg.instId)
    return Subject.of_topic(envelope.topic)


def is_data(message: bytes) -> bool:
    """Whether a message is one of a stream's, and no answer to a request."""
    return message.startswith((b'{"topic"', b'{"arg"'))
