"""Reading an account over REST: open orders, positions, the wallet, greeks, and fills since a time.

The rows of an answer are brought into the form of the stream's messages and read by the same functions, so that
what was missed looks like what came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any
from urllib.parse import quote

import attrs
import msgspec

from pipeline.exchanges.accounts import Steps
from pipeline.exchanges.bybit import account_wire, fills, holdings, orders, wire
from pipeline.exchanges.bybit.accounts import ACCOUNT, VENUE, AccountScope
from pipeline.exchanges.bybit.answers import Answer, read_answer
from pipeline.exchanges.bybit.errors import Unavailable
from pipeline.exchanges.bybit.instruments import OPTION_BASES
from pipeline.exchanges.venue import Catalogue, Subscription
from pipeline.model.account import Order
from pipeline.model.errors import BadMessage
from pipeline.model.events import Event, Micros

_WINDOW = 7 * 86_400_000
"""Milliseconds: the longest span that fills may be asked for."""
_CURSOR = "&cursor="


@attrs.frozen
class Listing:
    """One query of an account's rows, over any number of pages."""

    market: str
    """Of its rows, which do not name it; `ACCOUNT` for what is of no market."""
    path: str


@attrs.frozen
class _Form:
    """The message of the stream that rows are brought into."""

    shape: type[Any]
    events: Callable[..., list[Event]]
    names: Mapping[str, str] = attrs.field(factory=dict)
    """The stream's names of fields that REST calls otherwise."""


ORDERS, HISTORY = "/v5/order/realtime?category=", "/v5/order/history?category="
_POSITIONS, _FILLS = "/v5/position/list?category=", "/v5/execution/list?category="

STATES: Mapping[str, tuple[Listing, ...]] = {
    "order": (
        Listing("spot", f"{ORDERS}spot&limit=50"),
        # Conditional orders have been seen to be missing unless they are asked for.
        Listing("spot", f"{ORDERS}spot&orderFilter=StopOrder&limit=50"),
        Listing("linear", f"{ORDERS}linear&settleCoin=USDT&limit=50"),
        Listing("linear", f"{ORDERS}linear&settleCoin=USDC&limit=50"),
        Listing("inverse", f"{ORDERS}inverse&limit=50"),
        Listing("option", f"{ORDERS}option&limit=50"),
    ),
    "position": (
        Listing("linear", f"{_POSITIONS}linear&settleCoin=USDT&limit=200"),
        Listing("linear", f"{_POSITIONS}linear&settleCoin=USDC&limit=200"),
        Listing("inverse", f"{_POSITIONS}inverse&limit=200"),
        Listing("option", f"{_POSITIONS}option&limit=200"),
    ),
    "balance": (Listing(ACCOUNT, "/v5/account/wallet-balance?accountType=UNIFIED"),),
    "account_greeks": (Listing(ACCOUNT, "/v5/asset/coin-greeks"),),
}
"""By our channel: what together tells the whole state behind it."""

_FORMS: Mapping[str, _Form] = {
    "order": _Form(account_wire.OrderMessage, orders.orders),
    "fill": _Form(account_wire.FillMessage, fills.fills),
    "position": _Form(
        account_wire.PositionMessage,
        holdings.positions,
        {"avgPrice": "entryPrice", "mmrSysUpdateTime": "mmrSysUpdatedTime"},
    ),
    "balance": _Form(account_wire.WalletMessage, holdings.balances),
    "account_greeks": _Form(account_wire.GreeksMessage, holdings.greeks),
}


@attrs.define(eq=False)
class BybitAccountReader:
    """The `AccountReader` of one connection.

    Error codes that say that an account cannot have a product (its kind, its region) mean that it has nothing of
    it; only where that is the answer to everything, they are raised as `Refused`. All other errors end the reading,
    so that what was not read is never taken for what is not there.
    """

    account: str
    connection: str
    catalogue: Catalogue
    _scope: AccountScope = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._scope = AccountScope(self.connection, self.catalogue, self.account)

    def snapshot(self, subscription: Subscription) -> Callable[[], Steps[list[Event]]] | None:
        """Makes the steps that read open orders, positions, the wallet or greeks; None for other channels."""
        listings = _of_market(STATES.get(subscription.kind, ()), subscription.market)
        if not listings:
            return None
        return lambda: self._state(subscription, listings)

    def fills(self, subscription: Subscription, since: Micros) -> Callable[[], Steps[list[Event]]] | None:
        """Makes the steps that read fills; None but for the channel `fill`, and so for `fast_fill`.

        That one is early or it is nothing, and what it brings comes by `fill` as well.
        """
        if subscription.kind != "fill":
            return None
        return lambda: self._fills(subscription, since)

    def order(self, lost: Order) -> Callable[[], Steps[list[Event]]] | None:
        """Makes the steps that read what became of an order; no event if the venue does not know.

        None for spreads, which have endpoints of their own.
        """
        if lost.channel != "order":
            return None
        return lambda: self._order(lost)

    def _state(self, subscription: Subscription, listings: Iterable[Listing]) -> Steps[list[Event]]:
        def read(listing: Listing) -> Steps[list[Event]]:
            events, _ = yield from self._rows(subscription.kind, subscription.channel, listing)
            return events

        return (yield from _together(listings, read))

    def _fills(self, subscription: Subscription, since: Micros) -> Steps[list[Event]]:
        def read(listing: Listing) -> Steps[list[Event]]:
            start, present, events = since // 1000, inf, list[Event]()
            while start < present:
                end = start + _WINDOW
                window = Listing(listing.market, f"{listing.path}&startTime={start}&endTime={end}&limit=100")
                found, present = yield from self._rows("fill", subscription.channel, window)
                # The venue lists the newest first, also of those with equal times.
                events += reversed(found)
                start = end
            return events

        events = yield from _together(_of_market(self._fill_listings(), subscription.market), read)
        return sorted(events, key=lambda event: event.exchange_time or 0)

    def _fill_listings(self) -> list[Listing]:
        """Fills of options must be asked for coin by coin; the catalogue knows those of today."""
        markets = [Listing(market, f"{_FILLS}{market}") for market in ("spot", "linear", "inverse")]
        listed = {each.base for (market, _), each in self.catalogue.items() if market == "option" and each.base}
        bases = (*OPTION_BASES, *sorted(listed.difference(OPTION_BASES)))
        return [*markets, *(Listing("option", f"{_FILLS}option&baseCoin={quote(base, safe='')}") for base in bases)]

    def _order(self, lost: Order) -> Steps[list[Event]]:
        """Listings lag, so it may be open still; closed ones move to the history, at a restart of the venue all."""
        market, symbol = lost.origin.market, quote(lost.origin.instrument or "", safe="")
        one = f"{market}&symbol={symbol}&orderId={quote(lost.order_id, safe='')}"
        for path in (f"{ORDERS}{one}&openOnly=1", f"{ORDERS}{one}", f"{HISTORY}{one}"):
            events = yield from self.orders(Listing(market, path), lost.channel)
            if events:
                return events
        return []

    def orders(self, listing: Listing, channel: str = "order") -> Steps[list[Event]]:
        """The orders of one listing."""
        events, _ = yield from self._rows("order", channel, listing)
        return events

    def _rows(self, kind: str, channel: str, listing: Listing) -> Steps[tuple[list[Event], int]]:
        """All events of a query, and when the venue answered it last, in milliseconds."""
        form = _FORMS[kind]
        events: list[Event] = []
        path, seen = listing.path, set[str]()
        while True:
            answer = read_answer(listing.path, (yield path))
            events += self._events(form, channel, listing.market, answer)
            cursor = answer.cursor
            if not cursor:
                return events, answer.time
            if cursor in seen:
                raise BadMessage(f"{VENUE} {path}: the answer names a page that was read before")
            seen.add(cursor)
            # It comes percent-encoded and must arrive so: quoting leaves its percent signs alone.
            path = f"{listing.path}{_CURSOR}{quote(cursor, safe='%')}"

    def _events(self, form: _Form, channel: str, market: str, answer: Answer) -> list[Event]:
        rows = [{form.names.get(key, key): value for key, value in row.items()} for row in answer.rows]
        if market != ACCOUNT:
            rows = [{**row, "category": market} for row in rows]
        plain = {"topic": channel, "creationTime": answer.time, "data": rows}
        try:
            message = wire.loosely(plain, form.shape)
            return form.events(message, self._scope, Micros(answer.time * 1000), is_snapshot=True)
        except (msgspec.MsgspecError, ValueError) as error:
            raise BadMessage(f"{VENUE} {answer.what}: {error}") from error


def _of_market(listings: Iterable[Listing], market: str) -> list[Listing]:
    return [each for each in listings if market in {ACCOUNT, each.market}]


def _together(listings: Iterable[Listing], read: Callable[[Listing], Steps[list[Event]]]) -> Steps[list[Event]]:
    """The events of these listings, each once, without those that the account cannot have unless those are all."""
    found: dict[object, Event] = {}
    refusal, read_any = None, False
    for listing in listings:
        try:
            events = yield from read(listing)
        except Unavailable as error:
            refusal = error
        else:
            read_any = True
            found.update((_identity(event), event) for event in events)
    if refusal is not None and not read_any:
        raise refusal
    return list(found.values())


def _identity(event: Event) -> tuple[object, ...]:
    """What tells a row that two queries bring from two rows."""
    origin = event.origin
    names = ("order_id", "fill_id", "position_side", "currency")
    return origin.market, origin.instrument, *(getattr(event, name, None) for name in names)
