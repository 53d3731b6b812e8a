"""What an archive consists of: messages as they came, and notes of all else that a replay has to know. Pure.

In a file an entry is a line that tells about it, as a JSON list, then its payload, which may hold anything, then a
line feed. So `zcat` shows what there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from pipeline.book.tracker import BookOptions
from pipeline.feeds.conflation import ConflationPolicy
from pipeline.model.events import KINDS, Event, Origin

FORMAT = 1

DATA, OTHER, NOTE, BEGIN = "data", "other", "note", "begin"
"""What an entry is: a message that went on to the normalizer, any other message, a note, the head of a segment."""


class Entry(NamedTuple):
    """One entry. Those of one connection and generation are numbered from 1, without holes."""

    kind: str
    receive_time: int
    """Of a note: when it happened."""
    sequence: int
    connection: str
    """Of what concerns no connection: the venue."""
    payload: bytes


class Begin(Struct):
    """The head of a segment: what follows can be understood without what was before.

    A segment repeats the catalogue, and which connections there are; a file is a segment.
    """

    format: int
    venue: str
    run: int
    """When the process started, in microseconds."""
    number: int
    """Of the segment in this run, from 1."""
    is_whole: bool
    """Whether nothing is missing between the segment before and this one."""
    version: str
    """Of the program."""


class Book(Struct):
    """What is made of a book. Names and units as in `BookOptions`."""

    channel: str
    instrument: str | None
    derive_bbo: bool
    snapshot_interval: int | None
    top_levels: int | None
    top_interval: int

    @property
    def options(self) -> BookOptions:
        """As the tracker takes them."""
        return BookOptions(self.derive_bbo, self.snapshot_interval, self.top_levels, self.top_interval)


class Conflated(Struct, tag="conflated"):
    """The connection lags: of these topics only the latest states are published from here on."""

    interval: int
    """Microseconds."""
    topics: list[tuple[str | None, str | None]]

    @property
    def policy(self) -> ConflationPolicy:
        """As the chain takes it."""
        return ConflationPolicy(frozenset(self.topics), self.interval)


class CaughtUp(Struct, tag="caught_up"):
    """The states that waited were published, and everything is from here on."""


class Opened(Struct, tag="opened"):
    """A connection begins, or (`is_joined`) goes on from before the segment."""

    endpoint: str
    account: str | None
    is_held: bool
    is_joined: bool
    books: list[Book]
    conflated: Conflated | None = None
    """Set if it lags."""


class Books(Struct, tag="books"):
    """What is made of books from here on."""

    books: list[Book]


class Invalidated(Struct, tag="invalidated"):
    """Somebody wanted a new snapshot of a book."""

    channel: str
    instrument: str | None
    reason: str


class Dropped(Struct, tag="dropped"):
    """A book was not subscribed any more."""

    channel: str
    instrument: str | None


class Known(Struct, tag="known"):
    """The catalogue of a market has this entry from here on."""

    market: str
    instrument: dict[str, Any]


class Listed(Struct, tag="listed"):
    """Entries of the catalogue, by the market and instrument of their heads, were published."""

    keys: list[tuple[str, str]]


class Published(Struct, tag="published"):
    """The feed itself had something to say."""

    event: dict[str, Any]


class Due(Struct, tag="due"):
    """Periodic snapshots, book tops and conflated states were published."""


class Awaited(Struct, tag="awaited"):
    """A book waits for its snapshot over REST."""

    channel: str
    instrument: str | None


class Seeded(Struct, tag="seeded"):
    """The snapshot of a book, from REST."""

    topic: str
    kind: str
    channel: str
    market: str
    instrument: str | None
    body: bytes


class Recorded(Struct, tag="recorded"):
    """A successor was being prepared."""


class TakenOver(Struct, tag="taken_over"):
    """The connection went on where `before` stopped."""

    before: str
    is_seamless: bool


class Forgotten(Struct, tag="forgotten"):
    """The overlap with the predecessor was over."""


Note = (
    Opened
    | Books
    | Invalidated
    | Dropped
    | Known
    | Listed
    | Published
    | Due
    | Awaited
    | Seeded
    | Conflated
    | CaughtUp
    | Recorded
    | TakenOver
    | Forgotten
)

encode_note = msgspec.json.Encoder().encode
"""Takes a `Note` or a `Begin`."""
_decode_note = msgspec.json.Decoder(Note)
_decode_begin = msgspec.json.Decoder(Begin)
_encode_line = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(tuple[str, int, int, str, int])
_UNREADABLE = (msgspec.MsgspecError, ValueError, LookupError, TypeError)


def pack(entry: Entry) -> bytes:
    """An entry as it is written to files."""
    kind, receive_time, sequence, connection, payload = entry
    return b"%b\n%b\n" % (_encode_line((kind, receive_time, sequence, connection, len(payload))), payload)


def parse(content: bytes) -> Iterator[Entry]:
    """The entries of a block. Raises `ValueError` where it holds something else."""
    at = 0
    while at < len(content):
        start = content.find(b"\n", at) + 1
        try:
            kind, receive_time, sequence, connection, length = _decode_line.decode(content[at : start - 1])
        except msgspec.MsgspecError as error:
            raise ValueError(f"byte {at} of the content begins no entry: {error}") from None
        end = start + length
        if not start or content[end : end + 1] != b"\n":
            raise ValueError(f"the entry at byte {at} of the content is cut short")
        yield Entry(kind, receive_time, sequence, connection, content[start:end])
        at = end + 1


def read_begin(payload: bytes) -> Begin:
    """The head of a segment. Raises `ValueError`, also for a format that is newer than this program."""
    try:
        begin = _decode_begin.decode(payload)
    except msgspec.MsgspecError as error:
        raise ValueError(f"the head of the archive cannot be read: {error}") from None
    if begin.format != FORMAT:
        raise ValueError(f"the archive is of format {begin.format}, this program reads {FORMAT}")
    return begin


def read_note(payload: bytes) -> Note:
    """A note. Raises `ValueError`."""
    try:
        note: Note = _decode_note.decode(payload)
    except msgspec.MsgspecError as error:
        raise ValueError(f"the note cannot be read: {error}") from None
    return note


def event_fields(event: Event) -> dict[str, Any]:
    """A flat event as a note holds it."""
    origin = event.origin
    head = [origin.venue, origin.market, origin.instrument, origin.symbol, origin.account, origin.connection]
    names = (name for name in event.__struct_fields__ if name != "origin")
    return {"event": event.KIND, "origin": head, **{name: getattr(event, name) for name in names}}


def read_event(fields: dict[str, Any]) -> Event:
    """The event of such fields; those that it has not got any more are left out. Raises `ValueError`."""
    try:
        made = KINDS[fields["event"]]
        known = {name: value for name, value in fields.items() if name in made.__struct_fields__}
        return made(**{**known, "origin": Origin(*fields["origin"])})
    except _UNREADABLE as error:
        raise ValueError(f"the event in the note cannot be read: {error!r}") from None
