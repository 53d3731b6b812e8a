"""Hypothesis strategies for every kind of event, and the same events as records that fastavro takes.

Built from the schemas, so that a new field is covered without a change here.
"""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Any

from hypothesis import strategies as st

from pipeline.avro.schemas import HEAD, Schema, load_schema
from pipeline.model.decimals import DecimalText
from pipeline.model.events import (
    KINDS,
    PRICE_SIZE,
    PRICE_SIZE_COUNT,
    PRICE_SIZE_RPI,
    PRICE_SIZE_RPI_COUNT,
    Event,
    Layout,
    Origin,
    Row,
)

LAYOUTS: tuple[Layout, ...] = (
    PRICE_SIZE,
    PRICE_SIZE_RPI,
    PRICE_SIZE_COUNT,
    PRICE_SIZE_RPI_COUNT,
    ("price", "size", "order_count"),
    (None, "size", "price"),
)
_EXACT = Context(prec=2000)

_words = st.sampled_from(["", "a", "BTCUSDT", "x" * 63, "x" * 64, "ß" * 31, "ß" * 32, "中文", "𝄞", "\x00\x7f\x80\xff"])
texts = _words | st.text(max_size=100)
"""Any text: empty, of 63 and 64 characters, beyond ASCII and latin-1."""

longs = st.integers(-(2**63), 2**63 - 1) | st.integers(-(2**28) - 2, 2**28 + 2) | st.integers(0, 2**42)
ints = st.integers(-(2**31), 2**31 - 1)
times = st.integers(0, 4_102_444_800_000_000)
"""Microseconds up to the year 2100."""


@st.composite
def decimal_texts(draw: st.DrawFn) -> DecimalText:
    """Decimal numbers that fit decimal(38,18), in every notation."""
    sign = draw(st.sampled_from(["", "", "-"]))
    digits = draw(st.integers(0, 10 ** draw(st.integers(1, 38)) - 1))
    text = str(digits).rjust(draw(st.integers(1, 39)), "0")
    point = draw(st.integers(0, min(18, len(text) - 1)))
    whole, fraction = (text[:-point], text[-point:]) if point else (text, "")
    if len(whole.lstrip("0")) > 20:
        whole = whole[-20:]
    plain = sign + whole + ("." + fraction if fraction else "")
    notation = draw(st.sampled_from(["plain", "plain", "e", "E", "e+", "e0"]))
    if notation == "plain":
        return DecimalText(plain)
    if notation == "e0":
        return DecimalText(f"{plain}e{draw(st.sampled_from(['0', '-0', '+00']))}")
    # The same number with all digits before the point, or with one digit before it.
    if notation == "E":
        return DecimalText(f"{sign}{whole}{fraction}E-{len(fraction)}")
    rest = whole[1:] + fraction
    return DecimalText(f"{sign}{whole[0]}{'.' + rest if rest else ''}{notation}{len(whole) - 1}")


@st.composite
def origins(draw: st.DrawFn) -> Origin:
    """Heads, with and without an instrument, a symbol and an account."""
    optional = st.none() | texts
    return Origin(draw(texts), draw(texts), draw(optional), draw(optional), draw(optional), draw(texts))


def rows(layout: Layout) -> st.SearchStrategy[list[Any]]:
    """Rows as the wire brings them: of texts, in either sequence type, sometimes longer than their layout."""
    counts = ints.filter(lambda count: count >= 0).map(str)
    positions = [counts if name == "order_count" else decimal_texts() if name else texts for name in layout]
    row = st.tuples(*positions)
    longer = st.tuples(*positions, texts).map(list)
    return st.lists(st.one_of(row, longer), max_size=5)


def values(avro_type: Any) -> st.SearchStrategy[Any]:
    """Values of one field's type."""
    match avro_type:
        case ["null", other]:
            return st.none() | values(other)
        case {"logicalType": "timestamp-micros"}:
            return times
        case {"logicalType": "decimal-text"}:
            return decimal_texts()
        case {"type": "array", "items": item}:
            items = st.lists(values(item), max_size=3)
            return items | items.map(tuple)
        case {"type": "map", "values": item}:
            return st.dictionaries(texts, values(item), max_size=3)
        case _:
            return {
                "string": texts,
                "boolean": st.booleans(),
                "int": ints,
                "long": longs,
                "double": st.floats(),
                "bytes": st.binary(max_size=100),
            }[avro_type]


@st.composite
def events(draw: st.DrawFn, kind: str, *, any_time: bool = False) -> Event:
    """Events of a kind; with `any_time`, times beyond what `datetime` can hold too."""
    arguments: dict[str, Any] = {"origin": draw(origins())}
    event_class = KINDS[kind]
    if "layout" in event_class.__struct_fields__:
        arguments["layout"] = draw(st.sampled_from(LAYOUTS))
    for field in load_schema(kind)["fields"]:
        name, avro_type = field["name"], field["type"]
        if name in HEAD:
            continue
        if name in ("bids", "asks"):
            arguments[name] = draw(rows(arguments["layout"]))
        elif any_time and name.endswith("_time") and "double" not in avro_type:
            arguments[name] = draw(longs)
        else:
            arguments[name] = draw(values(avro_type))
    return event_class(**arguments)


def to_record(event: Event, schema: Schema) -> dict[str, Any]:
    """The event as fastavro's writer takes it for this schema."""
    record = {name: getattr(event.origin, name) for name in HEAD}
    for field in schema["fields"][len(HEAD) :]:
        value = getattr(event, field["name"])
        if field["name"] in ("bids", "asks"):
            level = next(other["type"]["items"] for other in schema["fields"] if other["name"] == "bids")
            value = [_to_level(event.layout, row, level) for row in value]  # type: ignore[attr-defined]
        record[field["name"]] = _to_value(value, field["type"])
    return record


def _to_level(layout: Layout, row: Row, schema: Schema) -> dict[str, Any]:
    named: dict[str, Any] = {name: value for name, value in zip(layout, row, strict=False) if name is not None}
    if "order_count" in named:
        named["order_count"] = int(named["order_count"])
    return {field["name"]: _to_value(named.get(field["name"]), field["type"]) for field in schema["fields"]}


def _to_value(value: Any, avro_type: Any) -> Any:
    plain = avro_type[1] if isinstance(avro_type, list) else avro_type
    if isinstance(plain, dict) and plain["type"] == "map":
        return {key: _to_value(item, plain["values"]) for key, item in value.items()}
    if value is not None and isinstance(plain, dict) and plain.get("logicalType") == "decimal":
        return Decimal(value).normalize(_EXACT)
    return value
