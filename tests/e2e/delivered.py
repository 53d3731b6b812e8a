"""The promise, counted: what the sockets brought is in Kafka, once and in order."""

from __future__ import annotations

from collections.abc import Iterable

from tests.e2e.connector import Connector
from tests.e2e.consumer import Record, Topics, books, check_book, prints
from tests.e2e.wire import BookName

KINDS = ("trade", "book_update", "feed_status", "dead_letter")


async def check_everything(
    topics: Topics, connector: Connector, *, instruments: int, repeated: bool = False
) -> dict[BookName, list[Record]]:
    """All trades and book updates that were received are in Kafka, once and in order; returns the book records.

    With `repeated` records may be there again, as the promise allows after a stop that could not deliver.
    """
    found = {kind: await topics.read(kind) for kind in KINDS}
    assert connector.service.sink is not None
    stats = connector.service.sink.stats()
    assert stats.balanced
    assert stats.acknowledged == stats.published + stats.recovered
    if not stats.recovered:
        assert {kind: len(records) for kind, records in found.items()} == {kind: stats.by_kind[kind] for kind in KINDS}
    if repeated:
        found = {kind: _first_of_each(records) for kind, records in found.items()}
    trades = connector.witness.trades()
    assert len(trades) == instruments
    assert prints(found["trade"]) == trades
    by_book, changes = books(found["book_update"]), connector.witness.books()
    assert by_book.keys() == changes.keys()
    assert len(by_book) == instruments
    for name, records in by_book.items():
        check_book(records, changes[name])
    for kind in ("trade", "book_update"):
        places = {(record.key, record.partition) for record in found[kind]}
        assert len(places) == instruments, "a key is in more than one partition"
    return by_book


def _first_of_each(records: Iterable[Record]) -> list[Record]:
    """Without repetitions, told as the schemas say: by trade id, by epoch and sequence."""
    names = ("trade_id", "channel", "epoch", "sequence", "is_snapshot", "receive_time", "status")
    seen: dict[tuple[object, ...], Record] = {}
    for record in records:
        seen.setdefault((record.key, *(record.value.get(name) for name in names)), record)
    return list(seen.values())
