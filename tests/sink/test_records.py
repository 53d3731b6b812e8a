from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.sink.records import MARK, Damage, Record, pack, parse

records = st.lists(
    st.builds(
        Record,
        topic=st.text(st.characters(codec="ascii", categories=("L", "Nd")), min_size=1, max_size=12),
        key=st.binary(max_size=12),
        timestamp_ms=st.integers(-1, 2**62),
        value=st.one_of(st.binary(max_size=40), st.just(MARK), st.just(MARK + b"\0\0\0\x14" * 3)),
    ),
    max_size=8,
)


def ends(written: list[Record]) -> list[int]:
    return [len(pack(written[: count + 1])) for count in range(len(written))]


@given(records, st.integers(1, 9))
def test_what_is_packed_is_parsed_again(written: list[Record], limit: int) -> None:
    data, found, at = pack(written), [], 0
    while at < len(data):
        some, damages, consumed = parse(data[at:], limit, final=True)
        assert not damages
        assert len(some) <= limit
        found += some
        at += consumed
    assert found == written


@given(records, st.data())
def test_a_cut_costs_only_the_record_it_hits_and_is_told(written: list[Record], data: st.DataObject) -> None:
    whole = pack(written)
    cut = data.draw(st.integers(0, len(whole)))
    found, damages, consumed = parse(whole[:cut], 100, final=True)
    intact = [end for end in ends(written) if end <= cut]
    assert found == written[: len(intact)]
    assert consumed == cut
    last = intact[-1] if intact else 0
    assert damages == ([Damage(last, cut)] if last < cut else [])


@given(records, st.data())
def test_more_bytes_may_follow(written: list[Record], data: st.DataObject) -> None:
    whole = pack(written)
    cut = data.draw(st.integers(0, len(whole)))
    found, damages, consumed = parse(whole[:cut], 100, final=False)
    rest, more_damages, _ = parse(whole[consumed:], 100, final=True)
    assert found + rest == written
    assert not damages + more_damages


@given(records.filter(bool), st.data())
def test_a_flipped_bit_costs_only_its_record_and_is_told(written: list[Record], data: st.DataObject) -> None:
    whole = bytearray(pack(written))
    where = data.draw(st.integers(0, len(whole) - 1))
    whole[where] ^= 1 << data.draw(st.integers(0, 7))
    found, damages, consumed = parse(bytes(whole), 100, final=True)
    hit = sum(end <= where for end in ends(written))
    assert found == written[:hit] + written[hit + 1 :]
    assert consumed == len(whole)
    assert damages
    assert damages[0].start <= where < damages[-1].end
