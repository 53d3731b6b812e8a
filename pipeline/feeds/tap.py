"""Where a raw archive listens: everything that goes into a venue's chains, in the order in which it goes in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from pipeline.book.tracker import BookOptions
from pipeline.exchanges.venue import Subscription
from pipeline.feeds.conflation import ConflationPolicy
from pipeline.feeds.handover import BookKey
from pipeline.model.events import Event, Instrument, Micros


class Tap(Protocol):
    """One generation of a connection. Its methods neither wait nor raise, and are called before what they tell of.

    From what they are told a `Chain` can be led through the same states again, and publish the same.
    """

    def message(self, raw: bytes, receive_time: Micros, *, is_data: bool) -> None:
        """A message as it came; `is_data` if it goes on to the chain."""

    def published(self, event: Event) -> None:
        """The feed itself has something to say."""

    def due(self, now: Micros) -> None:
        """Periodic snapshots, book tops and conflated states are published; told right after that."""

    def awaited(self, key: BookKey) -> None:
        """A book waits for its snapshot over REST."""

    def seeded(self, subscription: Subscription, body: bytes, receive_time: Micros) -> None:
        """The snapshot has come."""

    def books(self, options: Mapping[BookKey, BookOptions], now: Micros) -> None:
        """The plan has changed: what is made of books from now on."""

    def invalidated(self, key: BookKey, now: Micros, reason: str) -> None:
        """Somebody wants a new snapshot of a book."""

    def dropped(self, key: BookKey) -> None:
        """A book is not subscribed any more."""

    def conflated(self, policy: ConflationPolicy | None) -> None:
        """Of these topics only the latest states are published from now on; None: the connection has caught up."""

    def recorded(self) -> None:
        """A successor is being prepared."""

    def taken_over(self, before: str, *, seamless: bool) -> None:
        """This connection goes on where another one stops, which publishes nothing from here on."""

    def forgotten(self) -> None:
        """Nothing is compared with the predecessor's any more."""

    def ended(self) -> None:
        """Nothing more comes."""


class Archive(Protocol):
    """One venue."""

    def opened(
        self,
        connection: str,
        endpoint: str,
        account: str | None,
        books: Mapping[BookKey, BookOptions],
        *,
        is_held: bool,
        is_joined: bool = False,
    ) -> Tap:
        """A connection begins. It is held if it is to replace another, and joined if it has been running for a while.

        `connection` has the generation in it, `account` is whose events come.
        """

    def known(self, market: str, instruments: Iterable[Instrument]) -> None:
        """The catalogue has these entries of a market from now on."""

    def listed(self, instruments: Iterable[Instrument]) -> None:
        """Entries of the catalogue are published."""
