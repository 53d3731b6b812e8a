"""What was published of an account, in a file from which the next process goes on."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import msgspec

from pipeline.feeds.account_memory import AccountImage, Shown
from pipeline.feeds.fill_memory import FillImage, FillKey
from pipeline.model.account import AccountEvent, AccountGreeks, Balance, Order, Position
from pipeline.model.errors import BadMessage
from pipeline.model.events import Micros
from pipeline.sink.folders import sync_folder

VERSION = 1
MOST_FILLS = 20_000
"""Identities of fills in a file."""

_KINDS: dict[str, type[AccountEvent]] = {kind.KIND: kind for kind in (Order, Position, Balance, AccountGreeks)}
_HEAD = ("venue", "market", "instrument", "symbol", "account")


class _Entry(msgspec.Struct):
    kind: str
    time: Micros | None
    sequence: int | None
    event: dict[str, Any]


class _About(msgspec.Struct):
    version: int
    venue: str
    account: str


class _Content(_About):
    written: Micros
    read_at: dict[str, int]
    forgotten: dict[str, int]
    fills: list[tuple[FillKey, Micros | None]]
    present: list[_Entry]
    ended: list[_Entry]


# msgspec works out a type when it first meets it, and ends the process if two threads do so at once (seen with 0.22.0):
# so all that worker threads read here is worked out before there are any.
_about = msgspec.json.Decoder(_About)
_content = msgspec.json.Decoder(_Content)
for _kind in _KINDS.values():
    msgspec.json.Decoder(_kind)


@attrs.frozen
class AccountFile:
    """The file of one account. Its methods block, and belong to a worker thread."""

    directory: Path
    venue: str
    account: str

    @property
    def path(self) -> Path:
        """Where it is; an account may have any name."""
        return self.directory / f"{self.venue}.{quote(self.account, safe='')}.json"

    def read(self) -> AccountImage:
        """What was written last. Raises `OSError`, or `BadMessage` for what is damaged or not ours."""
        return decode(self.path.read_bytes(), self.venue, self.account)

    def write(self, image: AccountImage, now: Micros) -> None:
        """Replace the file: whatever happens, there is the former one or this one. Raises `OSError`.

        It tells all about the account, so nobody else may read it.
        """
        content = encode(image, self.venue, self.account, now)
        path = self.path
        self.directory.mkdir(0o700, parents=True, exist_ok=True)
        unfinished = path.with_suffix(".new")
        unfinished.unlink(missing_ok=True)  # it would keep its mode
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        sync_folder(self.directory)


def encode(image: AccountImage, venue: str, account: str, now: Micros) -> bytes:
    """An image as JSON."""
    fills = image.fills.newest(MOST_FILLS)
    present, ended = ([_entry(shown) for shown in part] for part in (image.present, image.ended))
    content = _Content(VERSION, venue, account, now, fills.read_at, fills.forgotten, fills.seen, present, ended)
    return msgspec.json.encode(content)


def decode(text: bytes, venue: str, account: str) -> AccountImage:
    """The image. Raises `BadMessage` for what is damaged, of another version or of another account."""
    try:
        about = _about.decode(text)
        if about.version != VERSION:
            raise BadMessage(f"it is of version {about.version}, not {VERSION}")
        if (about.venue, about.account) != (venue, account):
            raise BadMessage(f"it is about {about.account} of {about.venue}, not {account} of {venue}")
        content = _content.decode(text)
        present, ended = ([_shown(entry) for entry in part] for part in (content.present, content.ended))
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise BadMessage(f"it is damaged: {error}") from None
    return AccountImage(present, ended, FillImage(content.read_at, content.forgotten, content.fills))


def _entry(shown: Shown) -> _Entry:
    event = shown.event
    fields: dict[str, Any] = {"origin": {name: getattr(event.origin, name) for name in _HEAD}}
    for name, may_be_left_out in _told(type(event)):
        value = getattr(event, name)
        if value is not None or not may_be_left_out:
            fields[name] = value
    return _Entry(event.KIND, shown.time, shown.sequence, fields)


@cache  # to work out the types of a kind takes a millisecond, and the event loop waits for this thread meanwhile
def _told(kind: type[AccountEvent]) -> tuple[tuple[str, bool], ...]:
    """The fields that are kept, and whether they may be left out for None."""
    fields = msgspec.structs.fields(kind)
    return tuple((each.name, each.default is None) for each in fields if each.name not in ("origin", "receive_time"))


def _shown(entry: _Entry) -> Shown:
    kind = _KINDS.get(entry.kind)
    if kind is None:
        raise ValueError(f"no state is a {entry.kind}")
    # What comes of it is published as of another connection and another time.
    origin = {**entry.event.get("origin", {}), "connection": "", "key": "", "prefix": ""}
    event = msgspec.convert({**entry.event, "origin": origin, "receive_time": 0}, kind)
    return Shown(event, entry.time, entry.sequence)
