"""The venue's messages under `tests/data/bybit`, and what the tests share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.exchanges.bybit.instruments import read_saved
from pipeline.exchanges.bybit.normalizer import BybitNormalizer
from pipeline.exchanges.bybit.venue import Bybit
from pipeline.exchanges.venue import Catalogue
from pipeline.model.events import Event, Micros, Origin

DATA = Path(__file__).parents[2] / "data" / "bybit"
RECEIVED = Micros(1_800_000_000_123_456)
CONNECTION = "bybit.linear.0#3"
PRIVATE_CONNECTION = "bybit.main.0#2"


def lines(name: str) -> list[bytes]:
    """The messages of one sample file."""
    return (DATA / f"{name}.jsonl").read_bytes().splitlines()


def body(name: str) -> bytes:
    """One saved REST answer."""
    return (DATA / f"{name}.json").read_bytes()


def catalogue() -> Catalogue:
    """The instruments of the saved answers."""
    saved = ("rest.market.instruments-info.linear", "rest.market.instruments-info.spot")
    instruments = [each for name in saved for each in read_saved(body(name), RECEIVED)]
    instruments += read_saved(body("rest.market.instruments-info.option"), RECEIVED)
    instruments += read_saved(body("rest.spread.instrument"), RECEIVED)
    return {(each.origin.market, each.origin.instrument or ""): each for each in instruments}


def normalizer(market: str = "linear", known: Catalogue | None = None) -> BybitNormalizer:
    """A normalizer of one connection."""
    return BybitNormalizer(market, CONNECTION, catalogue() if known is None else known)


def normalize(market: str, *messages: bytes) -> list[Event]:
    """All events of these messages on one connection."""
    one = normalizer(market)
    return [event for message in messages for event in one.normalize(message, RECEIVED)]


def private(*messages: bytes, known: Catalogue | None = None) -> list[Event]:
    """All events of these messages on one private connection of the account "main"."""
    one = Bybit().normalizer("private", PRIVATE_CONNECTION, catalogue() if known is None else known, account="main")
    return [event for message in messages for event in one.normalize(message, RECEIVED)]


def first(name: str, **fields: Any) -> bytes:
    """The first message of a sample, its first element with other fields; None leaves one out."""
    message = json.loads(lines(name)[0])
    row = {**message["data"][0], **fields}
    message["data"] = [{key: value for key, value in row.items() if value is not None}]
    return json.dumps(message).encode()


def head(event: Event) -> tuple[str, str, str | None, str | None, str | None, str]:
    """The fields of an event's origin; origins themselves are compared by identity."""
    origin: Origin = event.origin
    return origin.venue, origin.market, origin.instrument, origin.symbol, origin.account, origin.connection


def values(event: Event) -> dict[str, object]:
    """An event's fields without its origin, those that have no value left out."""
    names = [name for each in type(event).__mro__ for name in getattr(each, "__slots__", ())]
    found = {name: getattr(event, name) for name in names if name not in {"origin", "__weakref__"}}
    return {name: value for name, value in found.items() if value is not None}
