"""One order book in memory: rows as the venue wrote them, ordered by exact price."""

from __future__ import annotations

import heapq
from decimal import Decimal, InvalidOperation

import attrs

from pipeline.model.errors import BadMessage
from pipeline.model.events import BookUpdate, Row

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


def _change(side: dict[int, Row], rows: list[Row], has_rpi: bool) -> None:
    keys = _keys
    for row in rows:
        size = row[1]
        # The first character tells most sizes from zero; a call per level would cost more than the rest.
        if size[:1] != "0" or size.strip("0.") or (has_rpi and not _is_zero(row[2])):
            side[keys[row[0]]] = row
        else:
            side.pop(keys[row[0]], None)
