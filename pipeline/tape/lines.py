"""Events as lines of JSON: what `normalize` and `replay` print."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

import attrs
import msgspec

from pipeline.avro.codec import Schemas
from pipeline.avro.decoder import event_to_json
from pipeline.avro.encoder import Encoder
from pipeline.model.account import SnapshotEnd
from pipeline.model.errors import Unencodable
from pipeline.model.events import EVENTS, Event


@attrs.define(eq=False)
class JsonLines:
    """Gathers lines, and writes them when it is told to."""

    target: BinaryIO
    report: Callable[[str], None]
    """Takes what is wrong with an event that the service would have sent to the dead letters."""
    _encoders: dict[type[Event], Encoder] = attrs.field(init=False)
    _lines: list[bytes] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        schemas = Schemas.load()
        self._encoders = {event: schemas[event.KIND].encoder() for event in EVENTS}

    def publish(self, event: Event) -> bool:
        """Add an event; False if Avro cannot carry it."""
        if not self.fits(event):
            return False
        if not isinstance(event, SnapshotEnd):
            self._lines += (msgspec.json.encode(event_to_json(event)), b"\n")
        return True

    def fits(self, event: Event) -> bool:
        """Whether Avro can carry it; if not, that is reported."""
        if isinstance(event, SnapshotEnd):
            return True
        try:
            self._encoders[type(event)](event)
        except Unencodable as error:
            self.report(one_line(error))
            return False
        return True

    def flush(self) -> None:
        """Write what has gathered."""
        self.target.write(b"".join(self._lines))
        self.target.flush()
        self._lines.clear()


def one_line(error: Exception) -> str:
    """The text of an error without line feeds."""
    return " ".join(str(error).split())
