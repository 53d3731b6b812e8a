"""YAML text to settings objects: every fault is noted with its path, and reading goes on.

Strict where YAML is generous: a key given twice is refused, `true` is no number, and a date without quotes is text.
"""

from __future__ import annotations

import json
import math
import re
import types
from collections import abc
from collections.abc import Callable, Hashable, Iterable, Mapping
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
import cattrs
import yaml

from pipeline.feeds.shares import Ordinal
from pipeline.model.decimals import DecimalText, is_decimal
from pipeline.model.errors import ConfigError
from pipeline.model.secret import Secret
from pipeline.observe.logs import looks_secret

T = TypeVar("T")

Where = tuple[str | int, ...]
"""Keys and list positions from the top of the document."""
Check = Callable[[Any, Where], Iterable[tuple[str, str]]]
"""What is wrong with a whole object at a place, as (path below it, why); a path of "" is the object itself."""

SECRET_FORM = "{env: NAME} or {file: PATH}"


@attrs.frozen
class Bounds:
    """What a number may be."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    """Whether `low` itself is excluded."""

    def problem(self, value: float) -> str | None:
        """Why `value` is out of bounds; None if it is not."""
        if (self.low < value if self.above else self.low <= value) and value <= self.high:
            return None
        if self.high < math.inf:
            return f"must be between {_number(self.low)} and {_number(self.high)}, not {_number(value)}"
        return f"must be {'above' if self.above else 'at least'} {_number(self.low)}, not {_number(value)}"


@attrs.frozen
class Rules:
    """What the types alone do not say."""

    bounds: Callable[[type, str], Bounds]
    """By class and field, for every number."""
    checks: Mapping[type, Check]
    plain_numbers: frozenset[str] = frozenset()
    """Fields of type float that are no durations."""


def read(value: object, cls: type[T], rules: Rules) -> T:
    """A settings object. Raises `ConfigError` with one line per fault."""
    reader = _Reader(rules)
    try:
        settings = reader.structure(value, cls)
    except _Unusable:
        raise ConfigError(reader.problems) from None
    if reader.problems:
        raise ConfigError(reader.problems)
    return settings


def parse_yaml(text: str) -> Any:
    """The document's value; None if it is empty.

    Raises `ConfigError` for a syntax error, for keys given twice, of which YAML would keep the last, and for numbers
    and texts that nothing could do anything with.
    """
    try:
        loader = _Loader(text)
        value = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax_problem(error)]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError([f"line {line}: {error.reason}"]) from None
    except RecursionError:
        raise ConfigError(["is nested too deeply"]) from None
    if loader.duplicates:
        raise ConfigError(loader.duplicates)
    return value


def suggestion(name: str, known: Iterable[str]) -> str:
    """`did you mean "…"?` for a slip of the pen, else the known names."""
    names = list(known)
    close = get_close_matches(name, names, n=1)
    return f'did you mean "{close[0]}"?' if close else f"known: {', '.join(names)}"


def path_text(where: Where) -> str:
    """A place as people write it: `venues.okx.channels[2].depth`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where)
    return text.removeprefix(".")


class _Unusable(Exception):
    """This value gives no object; why is noted already."""


class _Reader:
    def __init__(self, rules: Rules) -> None:
        self.problems: list[str] = []
        self._rules = rules
        self._where: list[str | int] = []
        converter = cattrs.Converter()
        converter.register_structure_hook_func(attrs.has, self._object)
        converter.register_structure_hook_func(lambda kind: _origin(kind) is tuple, self._list)
        converter.register_structure_hook_func(lambda kind: _origin(kind) is abc.Mapping, self._mapping)
        converter.register_structure_hook_func(lambda kind: _origin(kind) is Literal, self._choice)
        converter.register_structure_hook_func(_is_choice_of_types, self._either)
        converter.register_structure_hook(Secret, self._secret)
        converter.register_structure_hook(float, self._float)
        converter.register_structure_hook(int, self._int)
        converter.register_structure_hook(bool, self._bool)
        converter.register_structure_hook(str, self._text)
        converter.register_structure_hook(DecimalText, self._decimal)
        self.structure = converter.structure

    def _fail(self, why: str) -> _Unusable:
        self._note(self._where, why)
        return _Unusable()

    def _note(self, where: Iterable[str | int], why: str) -> None:
        path = path_text(tuple(where))
        line = f"{path}: {why}" if path else why
        if line not in self.problems:
            self.problems.append(line)

    def _expected(self, what: str, value: object) -> _Unusable:
        return self._fail(f"expected {what}, got {self._shown(value)}")

    def _shown(self, value: object) -> str:
        if isinstance(value, dict):
            return "a mapping"
        if isinstance(value, list):
            return "a list"
        if value is None:
            return "nothing"
        if any(isinstance(step, str) and looks_secret(step) for step in self._where) or looks_secret(str(value)):
            return "a value that is not shown"
        text = json.dumps(value, ensure_ascii=False, default=repr)
        return text if len(text) <= 60 else f"{text[:57]}…"

    def _at(self, step: str | int, value: object, kind: Any) -> Any:
        self._where.append(step)
        try:
            return self.structure(value, kind)
        finally:
            self._where.pop()

    def _object(self, value: object, cls: type[attrs.AttrsInstance]) -> object:
        shorthand = getattr(cls, "SHORTHAND", None)
        if shorthand is not None and isinstance(value, str):
            value = {shorthand: value}
        if not isinstance(value, dict | None):
            raise self._expected("a mapping", value)
        fields = {field.name: field for field in attrs.fields(attrs.resolve_types(cls))}
        given: dict[str, Any] = {}
        for key, item in (value or {}).items():
            if key not in fields:
                self._note([*self._where, str(key)], f"unknown key; {suggestion(str(key), fields)}")
                continue
            try:
                made = self._at(key, item, fields[key].type)
            except _Unusable:
                continue
            if (why := self._out_of_bounds(cls, key, made)) is not None:
                self._note([*self._where, key], why)
            else:
                given[key] = made
        required = {name for name, field in fields.items() if field.default is attrs.NOTHING}
        for name in fields:
            if name in required and name not in (value or {}):
                self._note([*self._where, name], "is missing")
        if required - given.keys():
            raise _Unusable
        settings = cls(**given)
        self._check(settings)
        return settings

    def _out_of_bounds(self, cls: type, name: str, value: object) -> str | None:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._rules.bounds(cls, name).problem(value)
        return None

    def _check(self, settings: object) -> None:
        check = self._rules.checks.get(type(settings))
        known = tuple(self.problems)
        for below, why in check(settings, tuple(self._where)) if check is not None else ():
            path = path_text((*self._where, below))
            # What has a fault of its own stands at its default here: what follows from that is no news.
            if not below or not any(line.startswith((f"{path}:", f"{path}.", f"{path}[")) for line in known):
                self._note([*self._where, below] if below else self._where, why)

    def _list(self, value: object, kind: Any) -> tuple[Any, ...]:
        (item_kind, _) = get_args(kind)
        if isinstance(value, str) and item_kind is str:
            value = [value]
        if not isinstance(value, list | None):
            raise self._expected("a list", value)
        items: list[Any] = []
        complete = True
        for position, item in enumerate(value or ()):
            try:
                items.append(self._at(position, item, item_kind))
            except _Unusable:
                complete = False
        if not complete:
            raise _Unusable
        return tuple(items)

    def _mapping(self, value: object, kind: Any) -> dict[str, Any]:
        if not isinstance(value, dict | None):
            raise self._expected("a mapping", value)
        _, item_kind = get_args(kind)
        items: dict[str, Any] = {}
        for key, item in (value or {}).items():
            if not isinstance(key, str):
                self._note([*self._where, str(key)], "a key must be text; put it in quotes")
                continue
            try:
                # Kafka's topic configuration is text throughout, and nobody quotes numbers there.
                items[key] = self._at(key, _as_text(item) if item_kind is str else item, item_kind)
            except _Unusable:
                continue
        return items

    def _choice(self, value: object, kind: Any) -> object:
        choices = get_args(kind)
        if not isinstance(value, str) or value not in choices:
            raise self._expected(f"one of {', '.join(choices)}", value)
        return value

    def _either(self, value: object, kind: Any) -> object:
        kinds = get_args(kind)
        if type(value) in kinds:
            if Secret in kinds and looks_secret(str(self._where[-1])):
                raise self._fail(f"expected {SECRET_FORM}: secrets are not written into this file")
            return value
        if isinstance(value, dict) and Secret in kinds:
            return self._secret(value, Secret)
        if isinstance(value, dict) and (described := next(filter(attrs.has, kinds), None)) is not None:
            return self._object(value, described)
        names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Secret: SECRET_FORM}
        names[Ordinal] = "{env: NAME}"
        if float in kinds:
            del names[int]
        raise self._expected(" or ".join(names[kind] for kind in kinds if kind in names), value)

    def _secret(self, value: object, kind: type[Secret]) -> Secret:
        if not isinstance(value, dict):
            raise self._fail(f"expected {SECRET_FORM}: secrets are not written into this file")
        names = [field.name for field in attrs.fields(kind)]
        for key in value:
            if key not in names:
                raise self._fail(f'unknown key "{key}"; expected {SECRET_FORM}')
        if len(value) != 1:
            raise self._fail(f"expected exactly one of {SECRET_FORM}")
        (name, reference) = next(iter(value.items()))
        if not isinstance(reference, str) or not reference:
            raise self._fail(f"expected {SECRET_FORM}, with a text in it")
        return kind(**{name: reference})

    def _float(self, value: object, _: type[float]) -> float:
        timed = self._where[-1] not in self._rules.plain_numbers
        seconds = _duration(value) if timed and isinstance(value, str) else value
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise self._expected("a number of seconds (or 500ms, 15s, 5m, 2h, 7d)" if timed else "a number", value)
        try:
            number = float(seconds)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self._expected("a finite number", value)
        return number

    def _int(self, value: object, _: type[int]) -> int:
        sized = str(self._where[-1]).endswith("_bytes")
        count = _size(value) if sized and isinstance(value, str) else value
        if isinstance(count, bool) or not isinstance(count, int):
            raise self._expected("a number of bytes (or 64MiB, 10GB)" if sized else "a whole number", value)
        if abs(count) >= _BEYOND:
            raise self._fail("is too large: it must be below 2^63")
        return count

    def _bool(self, value: object, _: type[bool]) -> bool:
        if not isinstance(value, bool):
            raise self._expected("true or false", value)
        return value

    def _text(self, value: object, _: type[str]) -> str:
        if isinstance(value, int | float):
            raise self._fail(f"expected text, got {self._shown(value)}; put it in quotes")
        if not isinstance(value, str):
            raise self._expected("text", value)
        if not value:
            raise self._fail("must not be empty")
        return value

    def _decimal(self, value: object, _: object) -> DecimalText:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        text = self._text(value, str)  # what YAML takes for a float is not exact any more
        if not is_decimal(text):
            raise self._expected("a decimal number", value)
        return DecimalText(text)


def _origin(kind: Any) -> object:
    return get_origin(kind)


def _is_choice_of_types(kind: Any) -> bool:
    is_union = _origin(kind) in (Union, types.UnionType)
    return is_union and len([each for each in get_args(kind) if each is not types.NoneType]) > 1


def _as_text(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


class _Loader(yaml.SafeLoader):
    # A date without quotes should stay the text it is; nothing here takes dates.
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[str] = []

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError):  # `!!int x`; digits beyond what Python reads
            value, why = None, "no value of its type"
        else:
            why = _unfit(value)
        if why:
            raise yaml.constructor.ConstructorError(None, None, why, node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in first:
                    before = first[key.value]
                    self.duplicates.append(f'line {line}: key "{key.value}" is given twice, first in line {before}')
                else:
                    first[key.value] = line
        return super().construct_mapping(node, deep)


def _unfit(value: object) -> str:
    """Why no setting can be this; empty if one can."""
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return "a number with too many digits"
    if isinstance(value, str) and _CONTROL.search(value):
        return "a text with a control character"
    return ""


_BEYOND = 2**63
"""Of what counts; prices and sizes may be larger."""
_MOST_BITS = 256
_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Without tabs and the ends of lines: certificates have them. No system call takes NUL, and UTF-8 no half character."""


def _syntax_problem(error: yaml.MarkedYAMLError) -> str:
    # The library's own text quotes the line, which may hold what must not be shown.
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    what = error.problem or error.context or "not YAML"
    if "alias" in f"{error.context} {error.problem}":
        what += "; a value that begins with * needs quotes"
    elif error.context == "expected a single document in the stream":
        what = "a second document begins; the file must be one"
    return where + what


_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)", re.ASCII)
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3_600), "d": Decimal(86_400)}
_BYTES = {
    "B": 1,
    "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip


def _duration(text: str) -> float | None:
    """Seconds; None if `text` is no duration."""
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in _SECONDS:
        return None
    return float(Decimal(match[1]) * _SECONDS[match[2]])


def _size(text: str) -> int | None:
    """Bytes; None if `text` is no size, or no whole number of bytes."""
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in _BYTES:
        return None
    count = Decimal(match[1]) * _BYTES[match[2]]
    return int(count) if count == count.to_integral_value() else None
