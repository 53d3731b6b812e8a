"""WebSocket frames from a server, sorted into the plain ones and the rest; no I/O.

Nearly all that an exchange sends is one shape of frame: a whole, unmasked text message. Those are cut out here, and
inflated if they were compressed. All else (control frames, fragments, binary, anything irregular) is handed over
whole, in its place, for a full WebSocket implementation to judge: unchanged, except that parts of compressed messages
are handed over as the uncompressed frames they stand for.

Text is not checked to be UTF-8: whoever decodes the JSON does that, and one bad message then costs one dead letter
instead of the connection.
"""

from __future__ import annotations

import sys

import attrs

from pipeline.model.errors import ProtocolViolation
from pipeline.session.deflate import Inflater
from pipeline.session.errors import MessageRefused

_PLAIN_TEXT = 0x81  # FIN set, no RSV bit, opcode 1
_DEFLATED_TEXT = 0xC1  # with RSV1: compressed
_PLAIN_CLOSE = 0x88
_HEARTBEATS = (0x89, 0x8A)
_FIN = 0x80
_DEFLATED = 0x40
_DEFLATED_BEGINS = (0x41, 0x42)  # text or binary, FIN aside
_CONTINUES = 0x00
_MASKED = 0x80
_MASK_BYTES = 4
_OPCODE = 0x0F
_FIRST_CONTROL_OPCODE = 0x8
_CLOSE = 0x8
_TWO_BYTES = 126  # markers in the 7-bit length: a 16-bit or a 64-bit length follows
_EIGHT_BYTES = 127
_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013})
_LENGTH_BYTES = {_TWO_BYTES: 2, _EIGHT_BYTES: 8}
_LONGEST_CONTROL = 125
_NEVER = sys.maxsize
_MESSAGE_TOO_BIG = 1009


@attrs.frozen
class Frame:
    """A frame that is not a plain text message, header included."""

    raw: bytes
    payload_at: int

    @property
    def is_close(self) -> bool:
        """Whether it is a close frame, sound or not."""
        return self.raw[0] & _OPCODE == _CLOSE

    @property
    def is_control(self) -> bool:
        return self.raw[0] & _OPCODE >= _FIRST_CONTROL_OPCODE

    @property
    def is_heartbeat(self) -> bool:
        """Whether it is a ping or a pong that nothing is wrong with."""
        return self.raw[0] in _HEARTBEATS and self.raw[1] <= _LONGEST_CONTROL

    @property
    def ends_message(self) -> bool:
        """Whether it is a message's last or only data frame."""
        return bool(self.raw[0] & _FIN) and not self.is_control

    @property
    def payload(self) -> bytes:
        return self.raw[self.payload_at :]

    def close_code(self) -> tuple[int, str]:
        """Code and reason of a close frame; 1005 stands for none. `ProtocolViolation` if the frame is not sound."""
        if self.raw[0] != _PLAIN_CLOSE or self.raw[1] > _LONGEST_CONTROL:
            raise ProtocolViolation("a malformed close frame")
        payload = self.payload
        if not payload:
            return 1005, ""
        if len(payload) == 1:
            raise ProtocolViolation("a close frame with half a code")
        code = int.from_bytes(payload[:2], "big")
        if not (code in _CLOSE_CODES or 3000 <= code <= 4999):
            raise ProtocolViolation(f"a close frame with the reserved code {code}")
        try:
            return code, payload[2:].decode()
        except UnicodeDecodeError as error:
            raise ProtocolViolation(f"the reason of a close frame is not UTF-8: {error}") from error


class FrameSplitter:
    """Cuts bytes into messages. Feed it what the socket brought, then `take` until it has nothing more to give."""

    def __init__(self, max_message_bytes: int, inflater: Inflater | None = None) -> None:
        """`max_message_bytes` holds for a message's frames and for what they inflate to."""
        self._max_message_bytes = max_message_bytes
        self._inflater = inflater
        self._data = b""
        self._at = 0
        # Joined to `_data` only once they complete something: a big frame in tiny reads stays linear.
        self._fed: bytes | bytearray = b""
        self._missing = 0
        self._fragments_bytes: int | None = None  # of the fragmented message that is under way, inflated
        self._inflating = False  # it is compressed
        self._refused: MessageRefused | None = None

    def feed(self, data: bytes) -> None:
        """Append bytes from the socket."""
        self._missing -= len(data)
        if not self._fed:
            self._fed = data
            return
        if not isinstance(self._fed, bytearray):
            self._fed = bytearray(self._fed)
        self._fed += data

    def take(self, limit: int) -> tuple[list[bytes], Frame | None]:
        """Up to `limit` plain text messages, then the other frame that follows them at once, if one does.

        `([], None)` asks for more bytes. Raises `MessageRefused` when a message is too long or cannot be inflated,
        after all that came before it has been taken, and then every time.
        """
        if self._fed:
            if self._missing > 0:
                return [], None
            self._join()
        if self._refused is not None:
            raise self._refused
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
                if stop > end:
                    missing = stop - end
                    break
                text = self._text(data, at, start, stop) if whole else None
                if text is None:
                    frame = self._uncompressed(Frame(data[at:stop], start - at))
                    self._follow_fragments(frame)
            except MessageRefused as refused:
                self._refused = refused
                if texts:
                    break
                raise
            at = stop
            if text is None:
                break
            texts.append(text)
        self._at, self._missing = at, missing
        return texts, frame

    def _join(self) -> None:
        tail = self._data[self._at :]
        self._data = tail + self._fed if tail else bytes(self._fed)
        self._at = 0
        self._fed = b""

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
            raise MessageRefused(
                _MESSAGE_TOO_BIG, f"a message of {before + length} bytes or more; {self._max_message_bytes} accepted"
            )
        if data[at + 1] & _MASKED:
            start += _MASK_BYTES
        return start, start + length

    def _text(self, data: bytes, at: int, start: int, stop: int) -> bytes | None:
        """The message of a frame that is one whole text; None for any other frame."""
        if data[at:start] == _header(_PLAIN_TEXT, stop - start):
            return data[start:stop]
        if self._inflater is not None and data[at:start] == _header(_DEFLATED_TEXT, stop - start):
            return self._inflater.inflate(data[start:stop], self._max_message_bytes, last=True)
        return None

    def _uncompressed(self, frame: Frame) -> Frame:
        """What a sound part of a compressed message stands for; any other frame as it is."""
        first, payload = frame.raw[0], frame.payload
        begins = self._fragments_bytes is None and first & ~_FIN in _DEFLATED_BEGINS
        continues = self._inflating and first & ~_FIN == _CONTINUES
        if self._inflater is None or not (begins or continues):
            return frame
        if frame.raw[: frame.payload_at] != _header(first, len(payload)):
            return frame
        self._inflating = True
        room = self._max_message_bytes - (self._fragments_bytes or 0)
        content = self._inflater.inflate(payload, room, last=frame.ends_message)
        header = _header(first & ~_DEFLATED, len(content))
        return Frame(header + content, len(header))

    def _follow_fragments(self, frame: Frame) -> None:
        if frame.is_control:
            return
        if frame.ends_message:
            self._fragments_bytes = None
            self._inflating = False
        else:
            self._fragments_bytes = (self._fragments_bytes or 0) + len(frame.raw) - frame.payload_at


def text_frame(text: str, mask: bytes) -> bytes:
    """A message of ours as a frame, under a mask of four bytes: random ones, as RFC 6455 (5.3) demands of clients."""
    payload = text.encode()
    first, length, *longer = _header(_PLAIN_TEXT, len(payload))
    repeated = (mask * (len(payload) // _MASK_BYTES + 1))[: len(payload)]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return bytes((first, length | _MASKED, *longer)) + mask + masked.to_bytes(len(payload), "big")


def _header(first: int, length: int) -> bytes:
    """The header that an unmasked frame must have: the shortest that can hold the length."""
    if length < _TWO_BYTES:
        return bytes((first, length))
    if length < 1 << 16:
        return bytes((first, _TWO_BYTES)) + length.to_bytes(2, "big")
    return bytes((first, _EIGHT_BYTES)) + length.to_bytes(8, "big")
