"""Which fields of a venue's messages are known, and which turn up that are not.

A venue adds fields without notice. They are ignored, but not silently: messages are decoded by the strict form of
their type, which refuses unknown fields. What it refuses is read in a slower way once, its new fields are noted, and
from then on they belong to the strict form. So no field is missed, and once met it costs nothing.

The types themselves stay lenient. They list what is read; their `UNREAD` names what is known and left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from types import UnionType
from typing import Any, Union, get_args, get_origin

import attrs
import msgspec
from msgspec import Raw, Struct
from msgspec.structs import FieldInfo

MAX_UNKNOWN = 100
"""Unknown fields remembered per connection."""
MAX_LENGTH = 80
"""Characters remembered of one."""

Field = tuple[str, str]
"""The path of an object in a message ("" for the message itself, "data[]" for a row), and the name of a field there."""

_NOTHING: frozenset[Field] = frozenset()


def strict(shape: type[Struct], learned: frozenset[Field] = _NOTHING) -> type[Struct]:
    """The form of a struct type that refuses unknown fields, in nested structs too; `learned` are known as well.

    Only for decoding JSON: what is not read stays encoded.
    """
    return _strict(shape, learned, "")


def unknown_fields(value: object, shape: Any, path: str = "") -> Iterator[Field]:
    """The fields of decoded JSON that a type has no place for, each as often as it occurs."""
    if isinstance(value, dict):
        for kind in _alternatives(shape):
            if isinstance(kind, type) and issubclass(kind, Struct):
                places = _places(kind)
                for name, member in value.items():
                    if name in places:
                        yield from unknown_fields(member, places[name], _member(path, name))
                    else:
                        yield path, name
    elif isinstance(value, list):
        for kind in _alternatives(shape):
            if get_origin(kind) is list:
                (element,) = get_args(kind)
                for member in value:
                    yield from unknown_fields(member, element, f"{path}[]")


@attrs.define(eq=False)
class Vocabulary:
    """The fields that came over one connection and that nobody here knows."""

    unknown: list[str] = attrs.field(factory=list, init=False)
    """Topic family and path, in the order of first sight."""
    _learned: dict[str, frozenset[Field]] = attrs.field(factory=dict, init=False)
    _lenient: set[str] = attrs.field(factory=set, init=False)

    def form(self, family: str, shape: type[Struct]) -> type[Struct]:
        """What to decode messages of a family with: the strict form of the type with what was learned.

        A family that brings another field when there are `MAX_UNKNOWN` is decoded leniently, and so is one with a
        field that no struct can have.
        """
        return shape if family in self._lenient else strict(shape, self._learned.get(family, _NOTHING))

    def learn(self, family: str, shape: type[Struct], message: object) -> bool:
        """Note what is new in decoded JSON that fits the type, though perhaps not its form; whether that changed."""
        form = self.form(family, shape)
        new = dict.fromkeys(unknown_fields(message, form)) if form is not shape else {}
        noted = [self.note(family, _member(path, name)) and _can_be_declared(name) for path, name in new]
        if all(noted):
            self._learned[family] = self._learned.get(family, _NOTHING).union(new)
        else:
            self._lenient.add(family)
        return bool(new)

    def note(self, family: str, path: str) -> bool:
        """Remember an unknown field; False if there is no room for it."""
        name = f"{family}: {path}"[:MAX_LENGTH]
        if name in self.unknown:
            return True
        if len(self.unknown) == MAX_UNKNOWN:
            return False
        self.unknown.append(name)
        return True


def _member(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _alternatives(shape: Any) -> tuple[Any, ...]:
    return get_args(shape) if get_origin(shape) in (Union, UnionType) else (shape,)


@lru_cache(maxsize=1024)
def _places(kind: type[Struct]) -> Mapping[str, Any]:
    return {each.encode_name: each.type for each in msgspec.structs.fields(kind)}


@lru_cache(maxsize=1024)
def _strict(shape: type[Struct], learned: frozenset[Field], path: str) -> type[Struct]:
    read = msgspec.structs.fields(shape)
    names = (*getattr(shape, "UNREAD", ()), *sorted(name for at, name in learned if at == path))
    unread = [name for name in dict.fromkeys(names) if name not in _places(shape)]
    config = shape.__struct_config__
    return msgspec.defstruct(
        shape.__name__,
        [
            # A key is looked for behind the one before it, and most messages begin with what nobody reads.
            *((f"unread_{at}", Raw, msgspec.field(default=None, name=name)) for at, name in enumerate(unread)),
            *(
                (each.name, _strict_type(each.type, learned, _member(path, each.encode_name)), _same(each))
                for each in read
            ),
        ],
        namespace={"__post_init__": _forgetting(len(unread))} if unread and config.omit_defaults else None,
        kw_only=True,
        forbid_unknown_fields=True,
        omit_defaults=config.omit_defaults,
        gc=config.gc,
    )


def _strict_type(shape: Any, learned: frozenset[Field], path: str) -> Any:
    if isinstance(shape, type) and issubclass(shape, Struct):
        return _strict(shape, learned, path)
    origin, arguments = get_origin(shape), get_args(shape)
    if origin is list:
        return list[_strict_type(arguments[0], learned, f"{path}[]")]  # type: ignore[misc]
    if origin in (Union, UnionType):
        return Union[tuple(_strict_type(each, learned, path) for each in arguments)]  # noqa: UP007 - not known here
    return shape


def _same(known: FieldInfo) -> Any:
    given: Any = {"default": known.default, "default_factory": known.default_factory}
    return msgspec.field(name=known.encode_name, **given)


def _forgetting(count: int) -> Callable[[Any], None]:
    """Types that leave defaults out are published whole, but never what is not read."""

    def forget(row: Any) -> None:
        for at in range(count):
            setattr(row, f"unread_{at}", None)

    return forget


def _can_be_declared(name: str) -> bool:
    return name.isprintable() and not set(name) & {'"', "\\"}
