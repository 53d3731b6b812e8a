"""The generated market: one engine per instrument, pure and seeded. Prices count ticks and sizes count lots.

The same seed, listing and number of steps give the same books and trades, whoever listens and however fast it runs:
time only enters as a label. Only the orders of accounts, which take from the books, make another market of it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from decimal import Decimal
from random import Random

import attrs

from pipeline.sim.listing import Listing

BID, ASK = 0, 1
KEPT = 2
"""Levels that no order takes: there is always a best price."""


class Side:
    """One side of a book: lots per price in ticks, kept sorted with the best price first."""

    def __init__(self, direction: int) -> None:
        self._sign = -1 if direction == BID else 1
        self._keys: list[int] = []  # sign * price: ascending means best first on both sides
        self.lots: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def set(self, price: int, lots: int) -> None:
        """Make `lots` the size at `price`; 0 removes the level."""
        key = self._sign * price
        if lots > 0:
            if price not in self.lots:
                insort(self._keys, key)
            self.lots[price] = lots
        elif self.lots.pop(price, None) is not None:
            del self._keys[bisect_left(self._keys, key)]

    @property
    def best(self) -> int:
        """Price of the best level; the side must not be empty."""
        return self._sign * self._keys[0]

    @property
    def worst(self) -> int:
        """Price of the last level; the side must not be empty."""
        return self._sign * self._keys[-1]

    def price_at(self, rank: int) -> int:
        """Price of the level with this rank, 0 being the best."""
        return self._sign * self._keys[rank]

    def behind(self, price: int, ticks: int) -> int:
        """The price so many ticks worse than `price`."""
        return price + self._sign * ticks

    def reaches(self, limit: int | None) -> bool:
        """Whether its best price is as good as `limit` or better; None asks for no price."""
        return limit is None or self._keys[0] <= self._sign * limit

    def top(self, depth: int) -> dict[int, int]:
        """The best `depth` levels, best first."""
        sign, lots = self._sign, self.lots
        return {sign * key: lots[sign * key] for key in self._keys[:depth]}


@attrs.frozen
class Fill:
    """One taker order's executions at one price: each match has an identifier of its own, counted upwards."""

    price: int
    buy: bool
    first_id: int
    matches: tuple[int, ...]
    """Lots per match."""
    tick_direction: str
    outside: bool = False
    """The taker was an account's order, not the generated market."""

    @property
    def lots(self) -> int:
        """All matches together."""
        return sum(self.matches)

    @property
    def last_id(self) -> int:
        """Identifier of the last match."""
        return self.first_id + len(self.matches) - 1


class Engine:
    """One instrument's market. `step` moves it on; everything else reads."""

    def __init__(self, listing: Listing, seed: int, levels: int) -> None:
        self.listing = listing
        self.steps = 0
        self._random = Random(f"{seed}/{listing.market}/{listing.symbol}")
        self._levels = levels
        start = int(listing.price / listing.tick)
        if start < 10:
            raise ValueError(f"{listing.symbol}: a price of {listing.price} is below ten ticks of {listing.tick}")
        self.last = self.open_24h = self.high_24h = self.low_24h = start
        self.last_lots = 0
        self.last_fill: Fill | None = None
        self.fills: list[Fill] = []
        self.followers: list[Callable[[Engine], None]] = []
        """Called after each step; who has one is stepped even if nobody listens to it."""
        self._taken: list[Fill] = []
        self.tick_direction = "ZeroPlusTick"
        self.traded_lots = 0
        self.turnover = Decimal(0)
        """Sum of price times lots, in quote per lot."""
        self.sequence = self._random.randrange(10**9, 10**10)
        self.next_trade_id = self._random.randrange(10**8, 10**9)
        self.open_interest = self._random.randrange(10**5, 10**6)
        self.funding = self._random.randrange(-1000, 10_000)
        """Rate in units of 1e-8."""
        self.index = self.mark = start
        self.bids, self.asks = Side(BID), Side(ASK)
        for side in (self.bids, self.asks):
            price = side.behind(start, 1)
            while len(side) < levels and price > 0:
                side.set(price, self._size())
                price = side.behind(price, self._random.choice((1, 1, 1, 2, 3)))

    def step(self) -> None:
        """One move of the market: orders come and go, some of them trade. `fills` holds this step's trades."""
        random = self._random
        self.steps += 1
        self.sequence += random.randint(1, 5)
        self.fills, self._taken = self._taken, []
        for _ in range(random.randint(1, 4)):
            side = self.bids if random.random() < 0.5 else self.asks
            action = random.random()
            if action < 0.12:
                self._take(side)
            elif action < 0.40:
                self._cancel(side)
            else:
                self._place(side)
        for side in (self.bids, self.asks):
            self._refill(side)
        self._move_reference()
        for follow in tuple(self.followers):
            follow(self)

    def available(self, *, buy: bool, limit: int | None) -> int:
        """Lots that `take` would find."""
        side, lots = self.asks if buy else self.bids, 0
        for rank in range(len(side) - KEPT):
            price = side.price_at(rank)
            if limit is not None and (price > limit if buy else price < limit):
                break
            lots += side.lots[price]
        return lots

    def take(self, *, buy: bool, limit: int | None, lots: int) -> list[tuple[int, int]]:
        """An order from outside takes up to so many lots at `limit` or better: price and lots, level by level.

        The next step's `fills` tell of it.
        """
        side, found = self.asks if buy else self.bids, list[tuple[int, int]]()
        while lots > 0 and len(side) > KEPT and side.reaches(limit):
            price = side.best
            here = side.lots[price]
            part = min(lots, here)
            side.set(price, here - part)
            self._taken.append(self._fill(price, buy=buy, lots=part, outside=True))
            found.append((price, part))
            lots -= part
        return found

    def _size(self) -> int:
        return 1 + int(self._random.paretovariate(1.2) * 20) % 100_000

    def _place(self, side: Side) -> None:
        """A new size at a price near the best; sometimes better than it, never crossing."""
        improve = -1 if self._random.random() < 0.3 else 0
        distance = improve + int(self._random.expovariate(0.15))
        price = side.behind(side.best, distance)
        bid, ask = self.bids.best, self.asks.best
        if price > 0 and (price < ask if side is self.bids else price > bid):
            side.set(price, self._size())

    def _cancel(self, side: Side) -> None:
        rank = min(int(self._random.expovariate(0.1)), len(side) - 1)
        if len(side) > KEPT:
            side.set(side.price_at(rank), 0)

    def _take(self, side: Side) -> None:
        """A market order against `side`, which eats whole levels and part of the last."""
        left = self._size()
        while left > 0 and len(side) > KEPT:
            price = side.best
            here = side.lots[price]
            lots = min(left, here)
            side.set(price, here - lots)
            left -= lots
            self.fills.append(self._fill(price, buy=side is self.asks, lots=lots))

    def _fill(self, price: int, *, buy: bool, lots: int, outside: bool = False) -> Fill:
        matches = self._split(lots)
        if price != self.last:
            self.tick_direction = "PlusTick" if price > self.last else "MinusTick"
        elif not self.tick_direction.startswith("Zero"):
            self.tick_direction = f"Zero{self.tick_direction}"
        fill = Fill(price, buy, self.next_trade_id, matches, self.tick_direction, outside)
        self.next_trade_id += len(matches)
        self.last, self.last_lots, self.last_fill = price, matches[-1], fill
        self.high_24h, self.low_24h = max(self.high_24h, price), min(self.low_24h, price)
        self.traded_lots += lots
        self.turnover += price * self.listing.tick * lots
        self.open_interest += self._random.randint(-lots, lots) if self.open_interest > lots else lots
        return fill

    def _split(self, lots: int) -> tuple[int, ...]:
        """The maker orders that a taker met at one price: one to four parts."""
        parts: list[int] = []
        for _ in range(self._random.randint(0, 3)):
            if lots < 2:
                break
            part = self._random.randint(1, lots - 1)
            parts.append(part)
            lots -= part
        return (*parts, lots)

    def _refill(self, side: Side) -> None:
        while len(side) > self._levels:
            side.set(side.worst, 0)
        while len(side) < self._levels and (price := side.behind(side.worst, 1)) > 0:
            side.set(price, self._size())

    def _move_reference(self) -> None:
        middle = (self.bids.best + self.asks.best) // 2
        self.index = middle + self._random.randint(-2, 2)
        self.mark = (middle + self.index) // 2
        if self._random.random() < 0.1:
            self.funding += self._random.randint(-20, 20)

    def price(self, ticks: int) -> str:
        """A price as exact decimal text with the scale of the tick."""
        return f"{self.listing.tick * ticks:f}"

    def size(self, lots: int) -> str:
        """A size as exact decimal text with the scale of the lot."""
        return f"{self.listing.lot * lots:f}" if lots else "0"


Levels = dict[int, int]


@attrs.define
class View:
    """What one book channel has told of a book: the best levels as last sent, to find what changed since."""

    depth: int
    bids: Levels = attrs.field(factory=dict, init=False)
    asks: Levels = attrs.field(factory=dict, init=False)

    def advance(self, engine: Engine) -> tuple[Levels, Levels]:
        """Look at the engine anew; the changed levels per side, 0 for those that left the window."""
        bids, asks = engine.bids.top(self.depth), engine.asks.top(self.depth)
        changed = difference(self.bids, bids), difference(self.asks, asks)
        self.bids, self.asks = bids, asks
        return changed


def difference(old: Levels, new: Levels) -> Levels:
    """What turns `old` into `new`: sizes that are new or changed, and 0 for prices that are gone."""
    changed = {price: lots for price, lots in new.items() if old.get(price) != lots}
    changed.update((price, 0) for price in old if price not in new)
    return changed


def best_first(levels: Levels, *, bids: bool) -> Iterable[tuple[int, int]]:
    """Levels sorted as books are printed."""
    return sorted(levels.items(), reverse=bids)
