"""Why records of one schema cannot be read with another, by field: registries say that, seldom why. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.avro.schemas import Schema

_PROMOTED = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}
"""What a reader's type may be instead of the writer's."""
_PRIMITIVE = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


def differences(reader: Schema, writer: Schema) -> list[str]:
    """Each thing that keeps readers with the one schema from records written with the other; empty if nothing does.

    Stricter than Avro in one point: text and decimals are not the same, though their bytes pass for each other.
    """
    return list(_Comparison().differences(reader, writer, ""))


class _Comparison:
    def __init__(self) -> None:
        self._named: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        self._seen: set[tuple[str, str]] = set()

    def differences(self, reader: Any, writer: Any, path: str) -> Iterator[str]:
        if isinstance(reader, list) or isinstance(writer, list):
            yield from self._unions(reader, writer, path)
            return
        reader, writer = self._resolved(reader, 0), self._resolved(writer, 1)
        ours, theirs = _type(reader), _type(writer)
        if ours != theirs and ours not in _PROMOTED.get(theirs, ()):
            yield _at(path, f"{_shown(writer)} became {_shown(reader)}")
        elif _number_form(reader) != _number_form(writer):
            yield _at(path, f"{_shown(writer)} became {_shown(reader)}, and the bytes of one pass for the other")
        elif ours == "record":
            yield from self._records(reader, writer, path)
        elif ours == "array":
            yield from self.differences(reader["items"], writer["items"], path)
        elif ours == "map":
            yield from self.differences(reader["values"], writer["values"], path)
        elif ours == "fixed" and reader["size"] != writer["size"]:
            yield _at(path, f"fixed({writer['size']}) became fixed({reader['size']})")
        elif ours == "enum" and "default" not in reader:
            gone = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
            if gone:
                yield _at(path, f"no longer has {', '.join(gone)}")

    def _records(self, reader: Any, writer: Any, path: str) -> Iterator[str]:
        names = reader["name"].rsplit(".", 1)[-1], writer["name"].rsplit(".", 1)[-1]
        if names[0] != names[1]:
            yield _at(path, f"record {names[1]} became {names[0]}")
            return
        if path and names in self._seen:
            return
        self._seen.add(names)
        written = {field["name"]: field for field in writer["fields"]}
        for field in reader["fields"]:
            below = f"{path}.{field['name']}".lstrip(".")
            known = next((n for n in (field["name"], *field.get("aliases", ())) if n in written), None)
            if known is not None:
                yield from self.differences(field["type"], written[known]["type"], below)
            elif "default" not in field:
                yield _at(below, "is new and has no default")

    def _unions(self, reader: Any, writer: Any, path: str) -> Iterator[str]:
        ours, theirs = _branches(reader), _branches(writer)
        for branch in theirs:
            tried = [list(self.differences(own, branch, path)) for own in ours]
            if all(tried):
                kind = _type(self._resolved(branch, 1))
                alike = [found for own, found in zip(ours, tried, strict=True) if _type(self._resolved(own, 0)) == kind]
                yield from [_at(path, "is no longer nullable")] if kind == "null" else (alike or tried)[-1]

    def _resolved(self, node: Any, side: int) -> Any:
        """The definition behind a name; definitions are remembered where they come first."""
        if isinstance(node, str) and node not in _PRIMITIVE:
            return self._named[side].get(node.rsplit(".", 1)[-1], node)
        if isinstance(node, dict) and "name" in node:
            self._named[side][node["name"].rsplit(".", 1)[-1]] = node
        return node


def _branches(node: Any) -> list[Any]:
    return node if isinstance(node, list) else [node]


def _type(node: Any) -> str:
    return str(node["type"]) if isinstance(node, dict) else str(node)


def _number_form(node: Any) -> object:
    """How a number is written, where bytes or text hold one."""
    kind = node.get("logicalType") if isinstance(node, dict) else None
    return (kind, node.get("precision"), node.get("scale", 0)) if kind == "decimal" else None


def _shown(node: Any) -> str:
    if isinstance(node, dict) and node.get("logicalType") == "decimal":
        return f"decimal({node.get('precision')},{node.get('scale', 0)})"
    return _type(node)


def _at(path: str, what: str) -> str:
    return f"field {path}: {what}" if path else what
