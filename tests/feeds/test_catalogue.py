"""What a catalogue makes of one listing after the other."""

from __future__ import annotations

from pipeline.feeds.catalogue import InstrumentBook
from tests.feeds.toy import instrument


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
