"""One order book in memory: rows as the venue wrote them, ordered by exact price."""

from __future__ import annotations

import heapq
from decimal import Decimal, InvalidOperation

import attrs

from pipeline.model.errors import BadMessage
from pipeline.model.events import PRICE_SIZE, BookUpdate, Row

_SCALE = 24
"""Fractional digits of the integer that stands for a price; no venue quotes finer."""


class _PriceKeys(dict[str, int]):
    """Price text to the exact integer `price * 10**24`, so that "9.50" and "9.5" are one level. Bounded."""

    limit = 100_000

    def __missing__(self, text: str) -> int:
        try:
            scaled = Decimal(text).scaleb(_SCALE)
            key = int(scaled)
        except (InvalidOperation, ValueError, OverflowError):
            raise BadMessage(f"price {text[:40]!r} is not a decimal number") from None
        if key != scaled:
            raise BadMessage(f"price {text[:40]!r} has more than {_SCALE} fractional digits")
        if len(self) >= self.limit:
            self.clear()
        self[text] = key
        return key


_keys = _PriceKeys()
_TIDY_FROM = 500
"""Levels, deleted ones included, from which on a stored side is tidied."""


def _is_zero(size: str) -> bool:
    return size == "0" or not size.strip("0.")


@attrs.define(eq=False)
class OrderBook:
    """Both sides of one book.

    Deleting an unknown price is no error: venues delete levels that came and went inside one push window.
    """

    _bids: dict[int, Row] = attrs.field(factory=dict, init=False)
    _asks: dict[int, Row] = attrs.field(factory=dict, init=False)
    _best_bid: int | None = attrs.field(default=None, init=False)
    _best_ask: int | None = attrs.field(default=None, init=False)

    def apply(self, update: BookUpdate) -> None:
        """Replace the book by a snapshot, or change it by a delta of absolute sizes.

        Raises `BadMessage` for a price that is no number; the book must then be thrown away.
        """
        if update.is_snapshot:
            self.clear()
        has_rpi = len(update.layout) > 2 and update.layout[2] == "rpi_size"
        _change(self._bids, update.bids, has_rpi)
        _change(self._asks, update.asks, has_rpi)
        self._best_bid = self._best_ask = None

    def clear(self) -> None:
        """Forget all levels."""
        self._bids.clear()
        self._asks.clear()
        self._best_bid = self._best_ask = None

    def best_bid(self) -> Row | None:
        """The highest bid, None on an empty side."""
        if not self._bids:
            return None
        if self._best_bid is None:
            self._best_bid = max(self._bids)
        return self._bids[self._best_bid]

    def best_ask(self) -> Row | None:
        """The lowest ask, None on an empty side."""
        if not self._asks:
            return None
        if self._best_ask is None:
            self._best_ask = min(self._asks)
        return self._asks[self._best_ask]

    def bids(self, levels: int | None = None) -> list[Row]:
        """Best first; all, or the best `levels`."""
        keys = sorted(self._bids, reverse=True) if levels is None else heapq.nlargest(levels, self._bids)
        return [self._bids[key] for key in keys]

    def asks(self, levels: int | None = None) -> list[Row]:
        """Best first; all, or the best `levels`."""
        keys = sorted(self._asks) if levels is None else heapq.nsmallest(levels, self._asks)
        return [self._asks[key] for key in keys]

    def __len__(self) -> int:
        return len(self._bids) + len(self._asks)


@attrs.define(eq=False)
class StoredBook:
    """Both sides of one book of prices and sizes that changes often and is seldom looked at.

    A change is one call per side, without a look at the levels: they are kept by the text of their price, and deleted
    ones until there are many. So it is looking at the book that costs, and that finds a price that is no number, or
    one that was written in two ways, of which nobody knows the later. The book must then be thrown away.
    """

    _bids: dict[str, str] = attrs.field(factory=dict, init=False)
    _asks: dict[str, str] = attrs.field(factory=dict, init=False)
    _tidy_at: int = attrs.field(default=_TIDY_FROM, init=False)

    @staticmethod
    def holds(update: BookUpdate) -> bool:
        """Whether the levels of such updates are prices and sizes and nothing else."""
        return update.layout == PRICE_SIZE

    def apply(self, update: BookUpdate) -> None:
        """Replace the book by a snapshot, or change it by a delta of absolute sizes.

        Raises `BadMessage` for levels of another form, and as the class says.
        """
        bids, asks = self._bids, self._asks
        if update.is_snapshot:
            bids.clear()
            asks.clear()
        try:
            # A dict keeps its keys, so that nothing but the new sizes stays in memory.
            bids.update(update.bids)  # type: ignore[arg-type] # pairs
            asks.update(update.asks)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise BadMessage(f"a level is no pair of price and size: {error}") from None
        if len(bids) + len(asks) > self._tidy_at:
            self._tidy()

    def bids(self, levels: int | None = None) -> list[Row]:
        """Best first; all, or the best `levels`. Raises `BadMessage` as the class says."""
        return [(price, self._bids[price]) for _, price in sorted(_tidied(self._bids), reverse=True)[:levels]]

    def asks(self, levels: int | None = None) -> list[Row]:
        """Best first; all, or the best `levels`. Raises `BadMessage` as the class says."""
        return [(price, self._asks[price]) for _, price in sorted(_tidied(self._asks))[:levels]]

    def _tidy(self) -> None:
        self._tidy_at = max(_TIDY_FROM, 2 * (len(_tidied(self._bids)) + len(_tidied(self._asks))))


def _tidied(side: dict[str, str]) -> list[tuple[int, str]]:
    """Delete what is deleted; returns the prices that are left, as numbers and as texts."""
    numbers = {_keys[price]: price for price in side}
    if len(numbers) < len(side):
        [price, *_] = [price for price in side if numbers[_keys[price]] is not price]
        raise BadMessage(f"price {price} is written in two ways")
    for price in [price for price, size in side.items() if _is_zero(size)]:
        del side[price]
    return [(number, price) for number, price in numbers.items() if price in side]


def _change(side: dict[int, Row], rows: list[Row], has_rpi: bool) -> None:
    keys = _keys
    for row in rows:
        size = row[1]
        # The first character tells most sizes from zero; a call per level would cost more than the rest.
        if size[:1] != "0" or size.strip("0.") or (has_rpi and not _is_zero(row[2])):
            side[keys[row[0]]] = row
        else:
            side.pop(keys[row[0]], None)
