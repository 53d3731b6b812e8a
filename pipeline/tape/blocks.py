"""Archive files: a row of gzip members, each telling its own length, so that damage costs what it hits and no more.

Any gzip reader gives the whole content; the length is in an extra field of the member's header. Pure.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

LEVEL = 3
"""Twice as fast as gzip's default, for a tenth more bytes."""
MAX_BLOCK_BYTES = 256 * 1024**2
"""Of content: a larger one can only be damage."""

_MARK = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + struct.pack("<H2sH", 8, b"XA", 4)
"""Deflated, with an extra field, of no time and no system; the field is ours and holds four bytes."""
_LENGTH = struct.Struct("<I")
_TAIL = struct.Struct("<II")  # checksum and length of the content
_HEAD_BYTES = len(_MARK) + _LENGTH.size


class Block(NamedTuple):
    """Content of bytes `start` to `end` (exclusive) of a file."""

    start: int
    end: int
    content: bytes


class Damage(NamedTuple):
    """Bytes `start` to `end` (exclusive) hold nothing readable."""

    start: int
    end: int
    is_cut: bool = False
    """Whether it is a block that the file ends in: its writer was killed, or is still at it."""


def pack(content: bytes) -> bytes:
    """One block."""
    deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflate.compress(content) + deflate.flush()
    tail = _TAIL.pack(zlib.crc32(content), len(content) & 0xFFFFFFFF)
    return b"".join((_MARK, _LENGTH.pack(len(body)), body, tail))


def scan(data: bytes | mmap) -> Iterator[Block | Damage]:
    """The blocks of a file, and what is between them. `data` may be a memory map."""
    at, size = 0, len(data)
    while at < size:
        block = _block(data, at)
        if block is None:
            resumed = _next_block(data, at + 1)
            yield Damage(at, resumed, is_cut=resumed == size and _is_cut(data, at))
            at = resumed
        else:
            yield block
            at = block.end


def _end(data: bytes | mmap, at: int) -> int | None:
    """Where a block that starts here says that it ends, maybe beyond the data; None if none starts here."""
    if data[at : at + len(_MARK)] != _MARK or at + _HEAD_BYTES > len(data):
        return None
    (length,) = _LENGTH.unpack_from(data, at + len(_MARK))
    return int(at + _HEAD_BYTES + length + _TAIL.size)


def _is_cut(data: bytes | mmap, at: int) -> bool:
    head = data[at : at + len(_MARK)]
    end = _end(data, at)
    return (end is None and _MARK.startswith(head)) or (end is not None and end > len(data))


def _block(data: bytes | mmap, at: int) -> Block | None:
    end = _end(data, at)
    if end is None or end > len(data):
        return None
    checksum, length = _TAIL.unpack_from(data, end - _TAIL.size)
    if length > MAX_BLOCK_BYTES:
        return None
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflate.decompress(data[at + _HEAD_BYTES : end - _TAIL.size], length + 1)
    except zlib.error:
        return None
    whole = inflate.eof and not inflate.unused_data and len(content) == length
    return Block(at, end, content) if whole and zlib.crc32(content) == checksum else None


def _next_block(data: bytes | mmap, start: int) -> int:
    """Where the next readable block starts, or the end."""
    at = data.find(_MARK, start)
    while at >= 0:
        if _block(data, at) is not None:
            return at
        at = data.find(_MARK, at + 1)
    return len(data)
