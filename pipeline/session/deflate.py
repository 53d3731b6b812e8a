"""permessage-deflate (RFC 7692), as far as a client that sends uncompressed needs it; no I/O.

The extension leaves it to each message whether it is compressed. Ours are short, so only the parameters that
concern the server's messages ask anything of us.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from pipeline.model.errors import ProtocolViolation
from pipeline.session.errors import MessageRefused

OFFER = "permessage-deflate; client_max_window_bits"
"""The value of our `Sec-WebSocket-Extensions` header."""

_NAME = "permessage-deflate"
_NO_VALUE = re.compile(r"")
_WINDOW_BITS = re.compile(r'[89]|1[0-5]|"(?:[89]|1[0-5])"')
_PARAMETERS = {
    "server_no_context_takeover": _NO_VALUE,
    "client_no_context_takeover": _NO_VALUE,
    "server_max_window_bits": _WINDOW_BITS,
    "client_max_window_bits": _WINDOW_BITS,
}
_LARGEST_WINDOW = -zlib.MAX_WBITS  # negative: no zlib header; what was made with a smaller window reads as well
_END_OF_MESSAGE = b"\x00\x00\xff\xff"  # every message ends so, and the sender leaves it out
_INVALID_PAYLOAD = 1007
_MESSAGE_TOO_BIG = 1009


class Inflater:
    """Inflates the messages of one connection; `keeps_context` if one may refer to what earlier ones held."""

    def __init__(self, *, keeps_context: bool = True) -> None:
        self._keeps_context = keeps_context
        self._stream = zlib.decompressobj(_LARGEST_WINDOW)

    def inflate(self, data: bytes, room: int, *, last: bool) -> bytes:
        """The content of a message, or of its next part unless this is the `last`.

        Raises `MessageRefused` when it exceeds `room` bytes, without inflating it any further, or cannot be read.
        """
        if last:
            data += _END_OF_MESSAGE
        try:
            content = self._stream.decompress(data, room + 1)
            if self._stream.eof:
                content += self._begin_anew(self._stream.unused_data, room + 1)
        except zlib.error as error:
            raise MessageRefused(_INVALID_PAYLOAD, f"a message cannot be inflated: {error}") from error
        if len(content) > room:
            raise MessageRefused(_MESSAGE_TOO_BIG, f"a message inflates to more than the {room} bytes left to it")
        if last and not self._keeps_context:
            self._stream = zlib.decompressobj(_LARGEST_WINDOW)
        return content

    def _begin_anew(self, rest: bytes, max_bytes: int) -> bytes:
        # Some senders end their stream where others flush it. Once per part is enough for those; without a bound
        # each three bytes of a hostile message would cost a copy of its rest.
        self._stream = zlib.decompressobj(_LARGEST_WINDOW)
        content = self._stream.decompress(rest, max_bytes)
        if self._stream.eof:
            raise zlib.error("the stream ends more than once")
        return content


def agreed(headers: Iterable[str]) -> Inflater | None:
    """What the server's `Sec-WebSocket-Extensions` headers make of our offer; None if it declined.

    Raises `ProtocolViolation` for anything that was not offered or is not understood.
    """
    extensions = [extension for header in headers for extension in header.split(",") if extension.strip()]
    if not extensions:
        return None
    name, *parameters = (part.strip() for part in extensions[0].split(";"))
    if len(extensions) > 1 or name.lower() != _NAME:
        raise ProtocolViolation(f"extensions that were not offered: {', '.join(extensions)}")
    seen: set[str] = set()
    for parameter in parameters:
        key, equals, value = (part.strip() for part in parameter.partition("="))
        key = key.lower()
        form = _PARAMETERS.get(key)
        if form is None or key in seen or not form.fullmatch(equals + value if form is _NO_VALUE else value):
            raise ProtocolViolation(f"a parameter of {_NAME} that is not understood: {parameter}")
        seen.add(key)
    return Inflater(keeps_context="server_no_context_takeover" not in seen)
