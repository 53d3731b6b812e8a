"""Messages of the venue, and a normalizer that knows its instruments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from pipeline.exchanges.okx import OkxVenue
from pipeline.exchanges.venue import Catalogue, Normalizer
from pipeline.model.account import SnapshotEnd
from pipeline.model.events import Event

DATA = Path(__file__).parent.parent.parent / "data" / "okx"
VENUE = OkxVenue()
RECEIVED = 1_800_000_000_000_000
CATALOGUE_FILES = ("rest.instruments.jsonl", "rest.instruments.constructed.jsonl", "recording.rest.instruments.jsonl")


def sample(name: str) -> list[bytes]:
    return (DATA / f"{name}.jsonl").read_bytes().splitlines()


def catalogue() -> Catalogue:
    found = [
        instrument
        for name in CATALOGUE_FILES
        for line in (DATA / name).read_bytes().splitlines()
        for instrument in VENUE.read_instruments(line, RECEIVED)
    ]
    return {(entry.origin.market, str(entry.origin.instrument)): entry for entry in found}


CATALOGUE = catalogue()


def normalizer(known: Catalogue = CATALOGUE, resume: dict[str, int] | None = None) -> Normalizer:
    return VENUE.normalizer("public", "okx.public.0#1", known, resume)


def account_events(name: str) -> list[Event]:
    """Events of a sample as they come over the private stream of an account called "main", without `SnapshotEnd`s."""
    reader = VENUE.normalizer("private", "okx.private.0#1", CATALOGUE, account="main")
    events = [event for line in sample(name) for event in reader.normalize(line, RECEIVED)]
    assert {(event.origin.account, event.receive_time) for event in events} <= {("main", RECEIVED)}
    return told(events)


def told(events: list[Event]) -> list[Event]:
    """The events that are published."""
    return [event for event in events if not isinstance(event, SnapshotEnd)]


def events_of(name: str, known: Catalogue = CATALOGUE) -> list[Event]:
    reader = normalizer(known)
    return [event for line in sample(name) for event in reader.normalize(line, RECEIVED)]


def push(channel: str, instrument: str, *rows: Any, **top: Any) -> bytes:
    """A push as the venue writes it."""
    message = {"arg": {"channel": channel, "instId": instrument}, **top, "data": list(rows)}
    return json.dumps(message, separators=(",", ":")).encode()


def own_fields(event: Event) -> dict[str, Any]:
    """`fields` without the receive time and what is an empty collection."""
    named = fields(event)
    del named["receive_time"]
    return {name: value for name, value in named.items() if value not in ({}, ())}


def fields(event: Event) -> dict[str, Any]:
    """All fields but the origin, which is told apart by market, instrument and symbol; without what is unset."""
    named = asdict(event)
    origin = named.pop("origin")
    named["of"] = (origin.venue, origin.market, origin.instrument, origin.symbol)
    return {name: value for name, value in named.items() if value is not None}
