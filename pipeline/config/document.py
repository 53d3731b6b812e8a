"""YAML text to plain values: strict where YAML is generous, and every fault with its line."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from pipeline.model.errors import ConfigError


def parse(text: str) -> Any:
    """The document's value; None if it is empty.

    Raises `ConfigError` for a syntax error and for keys given twice, of which YAML would keep the last.
    """
    loader = _Loader(text)
    try:
        value = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax_problem(error)]) from None
    except yaml.reader.ReaderError as error:
        raise ConfigError([f"character {error.position}: {error.reason}"]) from None
    finally:
        loader.dispose()
    if loader.duplicates:
        raise ConfigError(loader.duplicates)
    return value


class _Loader(yaml.SafeLoader):
    # A date without quotes should stay the text it is; nothing here takes dates.
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                if key.value in first:
                    before = first[key.value]
                    self.duplicates.append(f'line {line}: key "{key.value}" is given twice, first in line {before}')
                else:
                    first[key.value] = line
        return super().construct_mapping(node, deep)


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
