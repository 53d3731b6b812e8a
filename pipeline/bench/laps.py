"""A stream over and over, numbered on: what a long run is sent without a long file. Pure.

Each lap begins with the stream's snapshots, as after a resynchronization, and goes on where the last one ended in time,
sequence numbers and trade ids, so that nothing in it is old to whoever reads it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from pipeline.bench.stream import subject

_NUMBER = re.compile(
    rb'"(?P<name>ts|cts|T|seq|cs|u|seqId|prevSeqId|tradeId)":"?(?P<number>\d+)|"i":"(?P<id>[0-9a-f]{8})-'
)
_TIMES = (b"ts", b"cts", b"T")
_SAME_LINE = {b"prevSeqId": b"seqId"}
"""Numbers that refer to those of another field."""
_ID_BITS = 32


@attrs.frozen
class _Template:
    form: bytes
    """With a `%d` or `%08x` for each of the numbers."""
    first: tuple[int, ...]
    times: tuple[bool, ...]
    ids: tuple[bool, ...]


@attrs.define(eq=False)
class Laps:
    """The messages of a stream, and of any lap after it."""

    lines: Sequence[bytes]
    _templates: list[_Template] = attrs.field(init=False)
    _span: int = attrs.field(init=False)
    """By how much numbers rise per lap."""
    duration_ms: int = attrs.field(init=False)
    """By how much times do."""

    def __attrs_post_init__(self) -> None:
        least: dict[tuple[bytes, str], int] = {}
        most: dict[tuple[bytes, str], int] = {}
        self._templates = []
        for line in self.lines:
            symbol = subject(line).symbol
            found = list(_NUMBER.finditer(line))
            for match in found:
                if match["name"] is not None:
                    name = b"time" if match["name"] in _TIMES else _SAME_LINE.get(match["name"], match["name"])
                    key, value = (name, symbol), int(match["number"])
                    least[key] = min(value, least.get(key, value))
                    most[key] = max(value, most.get(key, value))
            self._templates.append(_template(line, found))
        times = [key for key in least if key[0] == b"time"]
        self.duration_ms = max((most[key] for key in times), default=0) - min((least[key] for key in times), default=0)
        self.duration_ms += 1
        self._span = 1 + max((most[key] - least[key] for key in least if key[0] != b"time"), default=0)

    def message(self, number: int, lap: int) -> bytes:
        """The message with this number in a lap; the first lap, 0, is the stream itself."""
        if not lap:
            return self.lines[number]
        template, rise, later = self._templates[number], lap * self._span, lap * self.duration_ms
        values = [
            (first ^ lap) % (1 << _ID_BITS) if is_id else first + (later if is_time else rise)
            for first, is_time, is_id in zip(template.first, template.times, template.ids, strict=True)
        ]
        return template.form % tuple(values)


def _template(line: bytes, found: list[re.Match[bytes]]) -> _Template:
    form, at = [], 0
    for match in found:
        group = "id" if match["name"] is None else "number"
        form += [line[at : match.start(group)].replace(b"%", b"%%"), b"%08x" if group == "id" else b"%d"]
        at = match.end(group)
    form.append(line[at:].replace(b"%", b"%%"))
    return _Template(
        b"".join(form),
        tuple(int(match["number"]) if match["name"] is not None else int(match["id"], 16) for match in found),
        tuple(match["name"] in _TIMES for match in found),
        tuple(match["name"] is None for match in found),
    )
