"""The reference of the configuration file, as Markdown, read from the classes that define it.

What a key means is the text under its attribute in the source; its type, default and bounds are those that the reader
of the file goes by. So the reference says what the program does.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections import abc
from collections.abc import Iterator, Mapping
from itertools import pairwise
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin

import attrs

from pipeline.config import Config
from pipeline.config_checks import PRICE_TYPES, rules
from pipeline.config_reader import Bounds
from pipeline.exchanges import VENUES
from pipeline.exchanges.venue import ChannelSpec, Venue
from pipeline.feeds.shares import Ordinal
from pipeline.model.decimals import DecimalText, is_decimal
from pipeline.model.secret import Secret

_OWN_NAMES = {"venues": "VENUE", "accounts": "ACCOUNT", "topics": "KIND"}
"""How the reference writes the key of a mapping whose keys are the user's."""

_NAMES: Mapping[Any, str] = {
    bool: "true or false",
    str: "text",
    DecimalText: "decimal number",
    Secret: "secret",
    Ordinal: "`{env: NAME}`",
}

_INTRODUCTION = """\
# Configuration

One YAML file. Written by `python -m pipeline reference config` from the program itself.

- What is not given has the default. An unknown key, a key given twice and a value of another type are refused, all
  at once, each with its path: `python -m pipeline check --config config.yaml`.
- **duration**: seconds, or a text like `500ms`, `15s`, `5m`, `2h`, `7d`; above 0, unless bounds are given.
- **size**: bytes, at least 1, or a text like `64MiB`, `10GB`.
- **decimal number**: in quotes, so that it is taken as exactly as it is written: `"0.05"`; whole ones need none.
- **secret**: `{env: NAME}` or `{file: PATH}`. The value itself is refused here.
- A list of texts may be given as one text. `null` is what a key without a value has.
- In paths, names in capitals are yours to choose, or those of a venue or of a [kind of event](events.md); `[]` is each
  entry of a list.

[config.example.yaml](../../config.example.yaml) shows a whole file.
"""


@attrs.frozen
class Key:
    """One key of the file."""

    name: str
    type: str
    default: str
    meaning: str
    below: str | None
    """The path of the section that describes its value, where it has one."""


@attrs.frozen
class Section:
    """One mapping of the file."""

    path: str
    described: type[attrs.AttrsInstance]
    """The class that its value is read into."""
    text: str
    keys: tuple[Key, ...]


def sections(cls: type[attrs.AttrsInstance] = Config, path: str = "") -> Iterator[Section]:
    """The mapping that a class describes, and after it those below it, in the order of their keys."""
    meanings = attribute_docs(cls)
    below: list[tuple[type[attrs.AttrsInstance], str]] = []
    keys = []
    for field in attrs.fields(attrs.resolve_types(cls)):
        found = _described(field.type, field.name)
        place = f"{path}.{field.name}".removeprefix(".") if found else None
        if found is not None:
            inner, suffix = found
            place = f"{place}{suffix}"
            below.append((inner, place))
        keys.append(
            Key(
                field.name,
                _type_text(cls, field.name, field.type),
                _default_text(field),
                yaml_words(meanings.get(field.name) or (_doc(found[0]).split("\n\n")[0] if found else "")),
                place,
            )
        )
    yield Section(path, cls, yaml_words(_doc(cls)), tuple(keys))
    for inner, place in below:
        yield from sections(inner, place)


def markdown(venues: Mapping[str, Venue] = VENUES) -> str:
    """The whole reference."""
    parts = [_INTRODUCTION]
    found = list(sections())
    titles = {section.path: _title(section) for section in found}
    for section in found:
        rows = [
            f"| `{key.name}` | {_type_cell(key, titles)} | {key.default} | {_cell(key.meaning)} |"
            for key in section.keys
        ]
        table = "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows])
        text = f"{section.text}\n\n" if section.path else ""
        parts.append(f"## {_title(section)}\n\n{text}{table}\n")
    parts.append(_offers(venues))
    return "\n".join(parts)


def attribute_docs(cls: type) -> dict[str, str]:
    """The texts under the attributes of a class, by name, each as one line or as paragraphs."""
    (node,) = ast.parse(inspect.cleandoc(inspect.getsource(cls))).body
    body = cast("ast.ClassDef", node).body
    docs = {}
    for attribute, after in pairwise(body):
        match attribute, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[name] = inspect.cleandoc(text)
    return docs


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and the site's generator make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def yaml_words(text: str) -> str:
    """A docstring in the words of the file: null, true and false instead of Python's."""
    for ours, theirs in (("None", "null"), ("True", "true"), ("False", "false")):
        text = re.sub(rf"(?<!`)\b{ours}\b(?!`)", f"`{theirs}`", text)
    return text


def _doc(cls: type) -> str:
    return inspect.cleandoc(cls.__doc__ or "")


def _title(section: Section) -> str:
    return f"`{section.path}`" if section.path else "The file"


def _type_cell(key: Key, titles: Mapping[str, str]) -> str:
    return key.type if key.below is None else f"[{key.type}](#{slug(titles[key.below])})"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _described(kind: Any, name: str) -> tuple[type[attrs.AttrsInstance], str] | None:
    """The class whose section describes a value of this type, and what leads to it from the key."""
    for each in _alternatives(kind):
        if attrs.has(each) and each not in (Secret, Ordinal):
            return each, ""
        arguments = get_args(each)
        if get_origin(each) is tuple and attrs.has(arguments[0]):
            return arguments[0], "[]"
        if get_origin(each) is abc.Mapping:
            inner, suffix = arguments[1], f".{_OWN_NAMES.get(name, 'NAME')}"
            if get_origin(inner) is abc.Mapping:
                inner, suffix = get_args(inner)[1], f".VENUE{suffix}"  # all that is kept so is kept by venue
            if attrs.has(inner):
                return inner, suffix
    return None


def _alternatives(kind: Any) -> list[Any]:
    return list(get_args(kind)) if get_origin(kind) in (Union, UnionType) else [kind]


def _type_text(cls: type[attrs.AttrsInstance], name: str, kind: Any) -> str:
    bounds = rules(VENUES).bounds(cls, name)
    names = dict.fromkeys(_one_type(name, each, bounds) for each in _alternatives(kind) if each is not NoneType)
    return " or ".join(names)


def _one_type(name: str, kind: Any, bounds: Bounds) -> str:
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if get_origin(kind) is tuple:
        return "list of texts" if arguments[0] is str else "list"
    if get_origin(kind) is abc.Mapping:
        if get_origin(arguments[1]) is tuple:
            return "mapping of lists of texts"
        return "mapping of values" if _described(kind, name) is None else "mapping"
    if kind is float and name in rules(VENUES).plain_numbers:
        return "number" + _bounds_text(bounds, str)
    if kind is float:
        return "duration" + _bounds_text(bounds, _duration)
    if kind is int:
        sized = name.endswith("_bytes")
        return (
            "size" + (_bounds_text(bounds, _size) if bounds.high < math.inf else "")
            if sized
            else "whole number" + _bounds_text(bounds, str)
        )
    return _NAMES.get(kind, "mapping")


def _bounds_text(bounds: Bounds, shown: abc.Callable[[Any], str]) -> str:
    if bounds.high < math.inf:
        return f", {shown(_plain(bounds.low))} to {shown(_plain(bounds.high))}"
    if bounds.above or bounds.low == -math.inf:
        return ""
    return f", at least {shown(_plain(bounds.low))}"


def _plain(value: float) -> float:
    return int(value) if value == int(value) else value


def _default_text(field: attrs.Attribute[Any]) -> str:
    default: Any = field.default
    if default is attrs.NOTHING:
        return "required"
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = default.factory()
    if attrs.has(type(default)):
        return "as below"
    match default:
        case None:
            return "`null`"
        case bool():
            return f"`{str(default).lower()}`"
        case float() if field.name not in rules(VENUES).plain_numbers:
            return f"`{_duration(default)}`"
        case int() if field.name.endswith("_bytes"):
            return f"`{_size(default)}`"
        case tuple() if default:
            return f"`[{', '.join(_quoted(item) for item in default)}]`"
        case tuple():
            return "`[]`"
        case abc.Mapping():
            return "`{}`"
        case str():
            return f"`{_quoted(default)}`"
    return f"`{_plain(default)}`"


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[\w./:-]+", text) and not is_decimal(text) else f'"{text}"'


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s" if seconds >= 1 or seconds == 0 else f"{seconds * 1000:g}ms"


def _size(count: int) -> str:
    for unit, length in (("GiB", 2**30), ("GB", 10**9), ("MiB", 2**20), ("MB", 10**6), ("KiB", 2**10), ("kB", 10**3)):
        if count >= length and count % length == 0:
            return f"{count // length}{unit}"
    return str(count)


def _offers(venues: Mapping[str, Venue]) -> str:
    parts = [
        """\
## What the venues offer

The values of `market`, `channel` and `environment`. What else a channel takes (`depth`, `interval`, …) differs by
market; `check` names the choices when one does not exist."""
    ]
    for venue in venues.values():
        environments = ", ".join(f"`{name}`" for name in venue.environments)
        parts.append(f"### {venue.name}\n\nEnvironments: {environments}. The first one is the default.")
        markets = venue.markets
        lines = [f"| channel | {' | '.join(markets)} |", f"|---|{'---|' * len(markets)}"]
        for channel in venue.channels:
            cells = ("✓" if _has(venue, market, channel) else "" for market in markets)
            lines.append(f"| `{channel}` | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
        if venue.accounts is not None:
            private = ", ".join(f"`{name}`" for name in venue.accounts.channels)
            parts.append(f"Channels of [accounts](#venuesvenueaccountsaccountchannels): {private}.")
    return "\n\n".join(parts) + "\n"


def _has(venue: Venue, market: str, channel: str) -> bool:
    candle = channel == "candle"
    specs = (
        ChannelSpec(market, channel, interval="1m" if candle else None, price_type=price_type, with_login=True)
        for price_type in (PRICE_TYPES if candle else PRICE_TYPES[:1])
    )
    # Some want their instruments named in full, which is no reason not to list them.
    return any(
        {field for field, _ in venue.problems(spec)}.isdisjoint({"market", "channel", "price_type"}) for spec in specs
    )
