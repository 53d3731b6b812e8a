"""WebSocket frames from a server, sorted into the plain ones and the rest; no I/O.

Nearly all that an exchange sends is one shape of frame: a whole, unmasked, uncompressed text message. Those are
cut out here. All else (control frames, fragments, binary, anything irregular) is handed over whole and unchanged,
in its place, for a full WebSocket implementation to judge.

Text is not checked to be UTF-8: whoever decodes the JSON does that, and one bad message then costs one dead letter
instead of the connection.
"""

from __future__ import annotations

import sys

import attrs

from pipeline.model.errors import ProtocolViolation

_PLAIN_TEXT = 0x81  # FIN set, no RSV bit, opcode 1
_FIN = 0x80
_MASKED = 0x80
_MASK_BYTES = 4
_OPCODE = 0x0F
_FIRST_CONTROL_OPCODE = 0x8
_CLOSE = 0x8
_TWO_BYTES = 126  # markers in the 7-bit length: a 16-bit or a 64-bit length follows
_EIGHT_BYTES = 127
_LENGTH_BYTES = {_TWO_BYTES: 2, _EIGHT_BYTES: 8}
_NEVER = sys.maxsize


@attrs.frozen
class Frame:
    """A frame that is not a plain text message, header included."""

    raw: bytes
    payload_at: int

    @property
    def is_close(self) -> bool:
        return self.raw[0] & _OPCODE == _CLOSE

    @property
    def ends_message(self) -> bool:
        """Whether it is a message's last or only data frame."""
        return bool(self.raw[0] & _FIN) and self.raw[0] & _OPCODE < _FIRST_CONTROL_OPCODE

    def close_code(self) -> tuple[int, str]:
        """Code and reason of a close frame; 1005 stands for none. `ProtocolViolation` if they cannot be read."""
        payload = self.raw[self.payload_at :]
        if not payload:
            return 1005, ""
        try:
            reason = payload[2:].decode()
        except UnicodeDecodeError as error:
            raise ProtocolViolation(f"the reason of a close frame is not UTF-8: {error}") from error
        if len(payload) == 1:
            raise ProtocolViolation("a close frame with half a code")
        return int.from_bytes(payload[:2], "big"), reason


class FrameSplitter:
    """Cuts bytes into messages. Feed it what the socket brought, then `take` until it has nothing more to give."""

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._data = b""
        self._at = 0
        # Joined to `_data` only once they complete something: a big frame in tiny reads stays linear.
        self._fed: list[bytes] = []
        self._missing = 0
        self._fragments_bytes: int | None = None  # of the fragmented message that is under way

    def feed(self, data: bytes) -> None:
        """Append bytes from the socket."""
        self._fed.append(data)
        self._missing -= len(data)

    def take(self, limit: int) -> tuple[list[bytes], Frame | None]:
        """Up to `limit` plain text messages, then the other frame that follows them at once, if one does.

        `([], None)` asks for more bytes. Raises `ProtocolViolation` when a message is too long, after all that
        came before it has been taken.
        """
        if self._fed:
            if self._missing > 0:
                return [], None
            self._join()
        data, at, end = self._data, self._at, len(self._data)
        longest, whole = self._max_message_bytes, self._fragments_bytes is None
        texts: list[bytes] = []
        frame: Frame | None = None
        missing = 0
        while len(texts) < limit:
            # The loop's first half is what nearly every message takes; the second is correct for all of them.
            if at + 4 <= end and data[at] == _PLAIN_TEXT and whole:
                length = data[at + 1]
                if length < _TWO_BYTES:
                    start = at + 2
                    stop = start + length
                elif length == _TWO_BYTES:
                    start = at + 4
                    length = data[at + 2] << 8 | data[at + 3]
                    stop = start + length if length >= _TWO_BYTES else _NEVER
                else:
                    stop = _NEVER
                if stop <= end and length <= longest:
                    texts.append(data[start:stop])
                    at = stop
                    continue
            try:
                start, stop = self._measure(data, at, end)
            except ProtocolViolation:
                if texts:
                    break
                raise
            if stop > end:
                missing = stop - end
                break
            if data[at] == _PLAIN_TEXT and whole and start - at == _header_bytes(stop - start):
                texts.append(data[start:stop])
                at = stop
                continue
            frame = Frame(data[at:stop], start - at)
            self._follow_fragments(frame)
            at = stop
            break
        self._at, self._missing = at, missing
        return texts, frame

    def rest(self) -> bytes:
        """What was fed and not taken; forgotten here."""
        self._join()
        rest, self._data, self._at = self._data[self._at :], b"", 0
        self._missing = 0
        return rest

    def _join(self) -> None:
        tail = self._data[self._at :]
        self._data = b"".join((tail, *self._fed)) if tail or len(self._fed) != 1 else self._fed[0]
        self._at = 0
        self._fed.clear()

    def _measure(self, data: bytes, at: int, end: int) -> tuple[int, int]:
        """Where the payload starts and the frame stops; beyond `end` both are lower bounds."""
        start = at + 2
        if start > end:
            return start, start
        length = data[at + 1] & ~_MASKED
        if length_bytes := _LENGTH_BYTES.get(length, 0):
            start += length_bytes
            if start > end:
                return start, start
            length = int.from_bytes(data[start - length_bytes : start], "big")
        before = 0 if data[at] & _OPCODE >= _FIRST_CONTROL_OPCODE else self._fragments_bytes or 0
        if before + length > self._max_message_bytes:
            raise ProtocolViolation(f"a message of {before + length} bytes or more; {self._max_message_bytes} accepted")
        if data[at + 1] & _MASKED:
            start += _MASK_BYTES
        return start, start + length

    def _follow_fragments(self, frame: Frame) -> None:
        if frame.raw[0] & _OPCODE >= _FIRST_CONTROL_OPCODE:
            return
        if frame.ends_message:
            self._fragments_bytes = None
        else:
            self._fragments_bytes = (self._fragments_bytes or 0) + len(frame.raw) - frame.payload_at


def _header_bytes(length: int) -> int:
    """The size of the header that an unmasked frame must have: the shortest that can hold the length."""
    if length < _TWO_BYTES:
        return 2
    return 4 if length < 1 << 16 else 10
