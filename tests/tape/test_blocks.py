from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.tape.blocks import Block, Damage, pack, scan
from pipeline.tape.entries import DATA, OTHER, Entry, parse
from pipeline.tape.entries import pack as pack_entry

contents = st.lists(st.binary(max_size=300), min_size=1, max_size=6)


def read(data: bytes) -> list[bytes]:
    return [found.content for found in scan(data) if isinstance(found, Block)]


@given(contents)
def test_any_gzip_reader_gives_the_content(parts: list[bytes]) -> None:
    file = b"".join(map(pack, parts))
    assert gzip.decompress(file) == b"".join(parts)
    assert read(file) == parts


@given(contents, st.data())
def test_a_file_that_ends_anywhere_gives_its_whole_blocks(parts: list[bytes], data: st.DataObject) -> None:
    blocks = [pack(part) for part in parts]
    file = b"".join(blocks)
    end = data.draw(st.integers(0, len(file)))
    whole = [part for n, part in enumerate(parts) if sum(map(len, blocks[: n + 1])) <= end]
    assert read(file[:end]) == whole
    damages = [found for found in scan(file[:end]) if isinstance(found, Damage)]
    start = sum(len(block) for block in blocks[: len(whole)])
    assert damages == ([Damage(start, end, is_cut=True)] if end > start else [])


@given(contents, st.data())
def test_a_wrong_byte_costs_one_block(parts: list[bytes], data: st.DataObject) -> None:
    blocks = [pack(part) for part in parts]
    hit = data.draw(st.integers(0, len(blocks) - 1))
    at = data.draw(st.integers(0, len(blocks[hit]) - 1))
    start = sum(map(len, blocks[:hit]))
    file = bytearray(b"".join(blocks))
    file[start + at] ^= data.draw(st.integers(1, 255))
    found = list(scan(bytes(file)))
    contents = [each.content for each in found if isinstance(each, Block)]
    damages = [each for each in found if isinstance(each, Damage)]
    if contents == parts:  # a bit of no meaning: what deflate pads its last byte with
        assert damages == []
        return
    assert contents == parts[:hit] + parts[hit + 1 :]
    (damage,) = damages
    assert (damage.start, damage.end) == (start, start + len(blocks[hit]))


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_entries_hold_any_bytes_and_names(payloads: list[bytes]) -> None:
    entries = [Entry(DATA, 17, n, 'a "b"\n#1', payload) for n, payload in enumerate(payloads)]
    assert list(parse(b"".join(map(pack_entry, entries)))) == entries


@pytest.mark.parametrize("content", [b"x", b'["data",1,2,"a",3]\nxx', b'["data",1,2,"a",1]\nxx', b"[]\n\n", b"\n"])
def test_what_is_no_entry_is_told_with_its_place(content: bytes) -> None:
    good = pack_entry(Entry(OTHER, 1, 1, "a", b"pong"))
    found = parse(good + content)
    assert next(found).payload == b"pong"
    with pytest.raises(ValueError, match=f"byte {len(good)} "):
        next(found)
