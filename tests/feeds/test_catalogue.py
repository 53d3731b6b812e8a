"""What a catalogue makes of one listing after the other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipeline.exchanges.venue import RestPage
from pipeline.feeds.catalogue import InstrumentBook, read_market
from pipeline.model.errors import Refused, Retryable
from pipeline.model.events import Instrument
from tests.feeds.toy import ToyVenue, instrument


def test_what_is_delisted_is_told_once_and_as_of_then() -> None:
    """With the time of its listing it would pass for a repetition of the entry before: time is part of the identity."""
    book = InstrumentBook()
    listed = [instrument("BTC"), instrument("ADA")]
    assert book.replace("spot", listed, 1_000) == listed
    assert book.replace("spot", listed, 2_000) == []
    (gone,) = book.replace("spot", listed[:1], 3_000)
    assert (gone.origin.instrument, gone.is_tradable, gone.state, gone.receive_time) == (
        "ADA",
        False,
        "delisted",
        3_000,
    )
    assert book.entries["spot", "ADA"] is gone
    assert book.replace("spot", listed[:1], 4_000) == []
    (back,) = book.replace("spot", listed, 5_000)
    assert back.is_tradable


class Guessing(ToyVenue):
    """A listing that may not be there, and after it one that is."""

    def instrument_pages(self, market: str) -> list[RestPage]:
        return [RestPage("/guess", b"nothing"), RestPage("/listed")]

    def parse_instruments(
        self, market: str, page: RestPage, body: bytes, receive_time: int
    ) -> tuple[list[Instrument], RestPage | None]:
        return [instrument(f"{page.path} {body.decode()}")], None


async def names(refused: Sequence[str], error: Exception) -> list[str | None]:
    async def fetch(path: str) -> bytes:
        if path in refused:
            raise error
        return b"body"

    found = await read_market(Guessing(), "spot", fetch, lambda: 0)
    return [each.origin.instrument for each in found]


async def test_a_refusal_may_mean_that_there_is_nothing() -> None:
    refusal = Refused("no such family")
    assert await names([], refusal) == ["/guess body", "/listed body"]
    assert await names(["/guess"], refusal) == ["/guess nothing", "/listed body"]
    with pytest.raises(Refused):
        await names(["/listed"], refusal)
    with pytest.raises(Retryable):
        await names(["/guess"], Retryable("busy"))
