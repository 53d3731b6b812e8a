"""Avro encoders, compiled once from a schema and an event class into straight-line Python.

The generated function builds the whole record as one text of latin-1 characters (see `pieces`) and encodes that
once. When a value does not fit, it is found by a second, slow walk over the event: the fast path carries no names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import attrs

from pipeline.avro.levels import Sides, checked, decimals_only
from pipeline.avro.pieces import (
    FALSE,
    HIGH,
    LENGTH,
    LOW,
    MORE,
    NULL,
    SHORT,
    SOME,
    TRUE,
    DecimalTexts,
    Piece,
    Pieces,
    Unfit,
    array_of,
    boolean_piece,
    bytes_piece,
    count_piece,
    decimal_bytes_piece,
    decimal_text_piece,
    double_piece,
    int_piece,
    long_piece,
    map_of,
    nullable,
    text_piece,
)
from pipeline.avro.schemas import HEAD, Schema
from pipeline.model.errors import Unencodable
from pipeline.model.events import Event, Layout, Origin

Encoder = Callable[[Event], bytes]
"""Raises `Unencodable` for an event that does not fit, and can be used on after that."""

_HEAD_TYPES: tuple[Any, ...] = (
    "string",
    "string",
    ["null", "string"],
    ["null", "string"],
    ["null", "string"],
    "string",
)
_HEAD_PIECES: tuple[Piece, ...] = tuple(
    text_piece if kind == "string" else nullable(text_piece) for kind in _HEAD_TYPES
)

_LASTING_LONGS = ("epoch", "funding_time", "next_funding_time", "delivery_time", "open_time", "close_time")
"""Names of long fields that keep their value over many records."""
_NEVER_REPEATED = ("_id", "_sha256", "reason", "payload")
"""Ends of the names of texts that would only push others out of the cache."""
_TIMES = 1024
"""Times that are kept: they come in order, so that old ones are only a burden to the processor's cache."""


@attrs.frozen
class _Type:
    """How values of one Avro type are written: by a function, and by an expression of generated code."""

    piece: Piece
    expression: str
    """What stands in an f-string, braces and all, with `$` once for the value's own expression."""
    nullable_expression: str


def _called(name: str, piece: Piece) -> _Type:
    return _Type(piece, f"{{{name}($)}}", f"{{NULL if (v := $) is None else SOME + {name}(v)}}")


def _cached(name: str, piece: Piece) -> _Type:
    look_up = f"{name}(v) or new_{name}(v)"
    return _Type(
        piece,
        f"{{{name}(v := $) or new_{name}(v)}}",
        f"{{NULL if (v := $) is None else SOME}}{{'' if v is None else {look_up}}}",
    )


# What nearly all numbers and texts are is written without a call. Two pieces side by side are cheaper than their sum.
_LONG = _Type(
    long_piece,
    "{LOW[v & 0x1FFF] if (high := HIGH((v := $) >> 13)) else long_piece(v)}{high or ''}",
    "{NULL if (v := $) is None else SOME_LOW[v & 0x1FFF] if (high := HIGH(v >> 13)) else SOME + long_piece(v)}"
    "{'' if v is None else high or ''}",
)
# Many records share a millisecond. A float that equals a time would find its piece, hence the look at the type.
_TIME = _Type(
    long_piece,
    "{TIME(v) or new_TIME(v) if type(v := $) is int else long_piece(v)}",
    "{NULL if (v := $) is None else SOME}"
    "{'' if v is None else TIME(v) or new_TIME(v) if type(v) is int else long_piece(v)}",
)
_SHORT_TEXT = _Type(
    text_piece,
    "{LENGTH[length] + v if (v := $).isascii() and (length := len(v)) < SHORT else text_piece(v)}",
    "{NULL if (v := $) is None else SOME + (LENGTH[length] + v if v.isascii() and (length := len(v)) < SHORT "
    "else text_piece(v))}",
)


texts_piece = array_of(text_piece)
text_map_piece = map_of(text_piece)
decimal_text_map_piece = map_of(decimal_text_piece)
decimal_bytes_map_piece = map_of(decimal_bytes_piece)

_TYPES = {
    "string": _cached("TEXT", text_piece),
    "string decimal-text": _cached("DECIMAL_TEXT", decimal_text_piece),
    "bytes decimal": _cached("DECIMAL_BYTES", decimal_bytes_piece),
    "bytes": _called("bytes_piece", bytes_piece),
    "boolean": _Type(
        boolean_piece,
        "{FALSE if (v := $) is False else TRUE if v is True else boolean_piece(v)}",
        "{SOME_FALSE if (v := $) is False else NULL if v is None else SOME + boolean_piece(v)}",
    ),
    "double": _called("double_piece", double_piece),
    "int": _cached("INT", int_piece),
    "long": _LONG,
    "long timestamp-micros": _TIME,
    "array of string": _called("texts_piece", texts_piece),
    "map of string": _called("text_map_piece", text_map_piece),
    "map of string decimal-text": _called("decimal_text_map_piece", decimal_text_map_piece),
    "map of bytes decimal": _called("decimal_bytes_map_piece", decimal_bytes_map_piece),
}
_SELDOM_NEW = _cached("LONG", long_piece)
_COUNT = _cached("COUNT", count_piece)
"""In rows, integers are still digits."""


def side_piece(levels: list[str]) -> str:
    """The Avro array of levels that are written already."""
    count = len(levels)
    return f"{LENGTH[count] if count < SHORT else long_piece(count)}{''.join(levels)}{NULL}" if count else NULL


_PIECES: dict[str, Pieces] = {"DECIMAL_TEXT": DecimalTexts()}
for _name, _piece in (
    ("TEXT", text_piece),
    ("DECIMAL_BYTES", decimal_bytes_piece),
    ("COUNT", count_piece),
    ("INT", int_piece),
    ("LONG", long_piece),
):
    _PIECES[_name] = Pieces(_piece)
_PIECES["TIME"] = Pieces(long_piece, limit=_TIMES)

_GLOBALS: dict[str, Any] = {
    # A piece is never empty, and this getter is cheaper than the look-up in a subclass of dict.
    **{name: pieces.get for name, pieces in _PIECES.items()},
    **{f"new_{name}": pieces.__missing__ for name, pieces in _PIECES.items()},
    "FALSE": FALSE,
    "HIGH": HIGH.get,
    "LENGTH": LENGTH,
    "LOW": LOW,
    "MORE": MORE,
    "NULL": NULL,
    "SHORT": SHORT,
    "SOME": SOME,
    "SOME_FALSE": SOME + FALSE,
    "SOME_LOW": tuple(SOME + low for low in LOW),
    "TRUE": TRUE,
    "boolean_piece": boolean_piece,
    "bytes_piece": bytes_piece,
    "decimal_bytes_map_piece": decimal_bytes_map_piece,
    "decimal_text_map_piece": decimal_text_map_piece,
    "double_piece": double_piece,
    "long_piece": long_piece,
    "side": side_piece,
    "text_map_piece": text_map_piece,
    "text_piece": text_piece,
    "texts_piece": texts_piece,
}
_FAILURES = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)
"""What generated code raises for values that do not fit."""


def shown(value: object) -> str:
    """As Python writes it; it writes no integers of thousands of digits, which a decoder may let through."""
    try:
        return repr(value)
    except ValueError as error:
        return f"{type(value).__name__}: {error}"


def _shorten(value: object, limit: int = 80) -> str:
    text = shown(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def compile_encoder(event_class: type[Event], schema: Schema, header: bytes) -> Encoder:
    """The encoder of `event_class`, whose records start with `header`; its generated code is its attribute `source`.

    Raises `ValueError` if the schema does not belong to the class.
    """
    fields = schema["fields"]
    _check_fields(event_class, fields)
    sides = [field["name"] for field in fields if _is_rows(field["type"])]
    if sides not in ([], ["bids", "asks"]):
        raise ValueError(f"{event_class.KIND}: the sides of a book are its bids and its asks, not {sides}")
    body = [_field_expression(event_class, field) for field in fields[len(HEAD) :] if field["name"] != "asks"]
    lines = [
        "def encode(event):",
        "    global last",
        "    try:",
        "        origin = event.origin",
        "        received = event.receive_time",
        "        time = last  # one look at the shared value, so that time and piece belong together",
        "        if time[0] is not received:",
        "            last = time = (received, long_piece(received))",
        "        return (",
        '            f"{HEADER}{origin.prefix or head(origin)}"',
        *(f'            f"{expression}"' for expression in body),
        '        ).encode("latin-1")',
        "    except FAILURES as error:",
        "        raise refusal(event, error) from error",
        "",
    ]
    source = "\n".join(lines)
    namespace = {
        **_GLOBALS,
        "FAILURES": _FAILURES,
        "HEADER": header.decode("latin-1"),
        "head": _head,
        "last": (object(), ""),  # no value is this object, not even None
        "refusal": _Refusal(event_class, fields),
    }
    if sides:
        level = next(field["type"]["items"] for field in fields if _is_rows(field["type"]))
        namespace["ROWS"] = _RowsByLayout(level["fields"])
    encode = _compile(source, "encode", namespace)
    encode.source = source
    return cast("Encoder", encode)


def _compile(source: str, name: str, namespace: dict[str, Any]) -> Any:
    exec(compile(source, f"<generated {name}>", "exec"), namespace)  # noqa: S102 - generated from our own schemas
    return namespace[name]


def _check_fields(event_class: type[Event], fields: list[Schema]) -> None:
    """The schema and the class have the same fields, and the head that `Origin.prefix` is shared for."""
    names = [*HEAD, *(name for name in event_class.__struct_fields__ if name not in ("origin", "layout"))]
    if [field["name"] for field in fields] != names:
        raise ValueError(f"{event_class.KIND}: the schema's fields are not those of {event_class.__name__}")
    if [field["type"] for field in fields[: len(HEAD)]] != list(_HEAD_TYPES):
        raise ValueError(f"{event_class.KIND}: the schema's head is not of the types that all kinds share")


def _head(origin: Origin) -> str:
    """Encode the head and leave it on `origin`, where all encoders find it."""
    head = "".join(piece(getattr(origin, name)) for name, piece in zip(HEAD, _HEAD_PIECES, strict=True))
    origin.prefix = head
    return head


def _is_rows(avro_type: Any) -> bool:
    """Whether it is a side of a book: an array of levels, the first with their record, the other with its name."""
    match avro_type:
        case {"type": "array", "items": "Level" | {"type": "record"}}:
            return True
    return False


def _plain(avro_type: Any) -> tuple[Any, bool]:
    """The type without its null branch, and whether it had one."""
    if isinstance(avro_type, list):
        null, other = avro_type
        if null != "null":
            raise ValueError(f"the only unions are those of null and one type, not {avro_type}")
        return other, True
    return avro_type, False


def _type_of(avro_type: Any, name: str) -> _Type:
    """Raises `ValueError` for types that no event has."""
    label = _label(avro_type)
    if label == "string" and name.endswith(_NEVER_REPEATED):
        return _SHORT_TEXT
    if name in _LASTING_LONGS:
        return _SELDOM_NEW
    if label not in _TYPES:
        raise ValueError(f"{name}: no encoding for {avro_type}")
    return _TYPES[label]


def _label(avro_type: Any) -> str:
    match avro_type:
        case {"type": "array", "items": items}:
            return f"array of {_label(items)}"
        case {"type": "map", "values": values}:
            return f"map of {_label(values)}"
        case {"type": plain, "logicalType": logical}:
            return f"{plain} {logical}"
    return str(avro_type)


def _field_expression(event_class: type[Event], field: Schema) -> str:
    name, avro_type = field["name"], field["type"]
    if name == "receive_time":
        return "{time[1]}"
    if _is_rows(avro_type):
        return "{ROWS[event.layout](event.bids, event.asks)}"
    plain, has_null = _plain(avro_type)
    kind = _type_of(plain, name)
    return (kind.nullable_expression if has_null else kind.expression).replace("$", f"event.{name}")


def _row_type(level_field: Schema) -> tuple[_Type, bool]:
    plain, has_null = _plain(level_field["type"])
    return (_COUNT if plain == "int" else _type_of(plain, level_field["name"])), has_null


class _RowsByLayout(dict[Layout, Sides]):
    """Functions that write both sides of a book, compiled when a layout is first seen."""

    def __init__(self, level_fields: list[Schema]) -> None:
        super().__init__()
        self._level_fields = level_fields

    def __missing__(self, layout: Layout) -> Sides:
        unknown = set(layout) - {field["name"] for field in self._level_fields} - {None}
        if unknown:
            raise Unfit("names what a level does not have")
        names = tuple(field["name"] for field in self._level_fields)
        written, quickly = [], []
        only_decimals = True
        for field in self._level_fields:
            name = field["name"]
            kind, has_null = _row_type(field)
            if name in layout:
                written.append((kind.nullable_expression if has_null else kind.expression).replace("$", name))
                if kind is _TYPES["string decimal-text"]:
                    piece = f"{{LENGTH[len({name})]}}{{{name}}}"
                    quickly.append(rf"\x02{piece}" if has_null else piece)
                else:
                    quickly.append(written[-1])
                only_decimals &= kind is _TYPES["string decimal-text"] and not has_null
            elif has_null:
                written.append(r"\x00")
                quickly.append(r"\x00")
            else:
                raise Unfit(f"lacks {name}")
        one_by_one = _rows_function(layout, written, at_least=True)
        if _TYPES["string decimal-text"] not in map(_kind_of, self._level_fields):
            write = one_by_one
        elif only_decimals and layout == names[: len(layout)] and len(names) - len(layout) != 1:
            write = decimals_only(len(layout), NULL * (len(names) - len(layout)), one_by_one)
        else:
            write = checked(len(layout), _rows_function(layout, quickly, at_least=False), one_by_one)
        self[layout] = write
        return write


def _kind_of(level_field: Schema) -> _Type:
    return _row_type(level_field)[0]


def _rows_function(layout: Layout, written: list[str], *, at_least: bool) -> Sides:
    """A function for rows of this layout; `at_least`: they may be longer."""
    names, rest = ", ".join(name or "_" for name in layout), ", *_" if at_least else ""
    each = f'f"{"".join(written)}" for {names}{rest} in'
    lines = ["def write(bids, asks):", f"    return side([{each} bids]) + side([{each} asks])", ""]
    return cast("Sides", _compile("\n".join(lines), "write", dict(_GLOBALS)))


class _Refusal:
    """Finds the value that kept an event from being encoded, and words the error."""

    def __init__(self, event_class: type[Event], fields: list[Schema]) -> None:
        self._event_class = event_class
        self._fields = fields

    def __call__(self, event: Event, error: Exception) -> Unencodable:
        kind = self._event_class.KIND
        if not isinstance(event, self._event_class):
            return Unencodable(f"{kind}: not an event of this kind: {_shorten(event)}")
        if not isinstance(event.origin, Origin):
            return Unencodable(f"{kind}.origin: is of the wrong type: {_shorten(event.origin)}")
        for path, value, piece in self._values(event):
            try:
                piece(value)
            except Unfit as unfit:
                return Unencodable(f"{kind}.{path}: {unfit}: {_shorten(value)}")
            except UnicodeEncodeError:
                return Unencodable(f"{kind}.{path}: is no text that UTF-8 can carry: {_shorten(value)}")
            except _FAILURES:
                what = "must not be null" if value is None else f"is of the wrong type {type(value).__name__}"
                return Unencodable(f"{kind}.{path}: {what}: {_shorten(value)}")
        return Unencodable(f"{kind}: {error!r}")

    def _values(self, event: Event) -> Iterator[tuple[str, Any, Piece]]:
        """Each value of the event with its path and the function that writes it."""
        for field in self._fields:
            name, avro_type = field["name"], field["type"]
            if name in HEAD:
                yield name, getattr(event.origin, name), _HEAD_PIECES[HEAD.index(name)]
            elif _is_rows(avro_type):
                yield from self._row_values(event, name)
            else:
                plain, has_null = _plain(avro_type)
                piece = _type_of(plain, name).piece
                value = getattr(event, name)
                if isinstance(plain, dict) and isinstance(value, list | tuple | Mapping):
                    yield from _item_values(plain, name, value)
                yield name, value, nullable(piece) if has_null else piece

    def _row_values(self, event: Any, name: str) -> Iterator[tuple[str, Any, Piece]]:
        level = next(field["type"]["items"]["fields"] for field in self._fields if _is_rows(field["type"]))
        positions: dict[str, Piece] = {}
        for field in level:
            kind, has_null = _row_type(field)
            positions[field["name"]] = nullable(kind.piece) if has_null else kind.piece
        yield "layout", event.layout, _layout_piece(level)
        rows = getattr(event, name)
        yield name, rows, _list_piece
        for index, row in enumerate(rows):
            yield f"{name}[{index}]", row, _row_piece(len(event.layout))
            for position, value in zip(event.layout, row, strict=False):
                if position is not None:
                    yield f"{name}[{index}].{position}", value, positions[position]


def _item_values(avro_type: Schema, name: str, value: Any) -> Iterator[tuple[str, Any, Piece]]:
    """The items of an array or map, if the value is of the same shape."""
    match avro_type, value:
        case {"items": item_type}, list() | tuple():
            for index, item in enumerate(value):
                yield f"{name}[{index}]", item, _type_of(item_type, name).piece
        case {"values": item_type}, Mapping():
            for key, item in value.items():
                yield f"{name}: key", key, text_piece
                yield f"{name}[{key!r}]", item, _type_of(item_type, name).piece


def _layout_piece(level_fields: list[Schema]) -> Piece:
    """Only checks: rows of the layout can be written."""

    def check(layout: Layout) -> str:
        _RowsByLayout(level_fields).__missing__(layout)
        return ""

    return check


def _list_piece(rows: Any) -> str:
    """Only checks."""
    if not isinstance(rows, list | tuple):
        raise TypeError
    return ""


def _row_piece(length: int) -> Piece:
    """Only checks: a row has at least the positions of its layout."""

    def check(row: Any) -> str:
        if not isinstance(row, list | tuple):
            raise TypeError
        if len(row) < length:
            raise Unfit(f"has fewer than {length} positions")
        return ""

    return check
