"""Enough of PromQL to tell which metrics and labels an expression uses."""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)?\s*\{([^{}]*)\}")
_RANGE = re.compile(r"\[[^\]]*\]")
_LABEL_LIST = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")
_WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\w)(?!\s*\()")
_KEYWORDS = frozenset({"and", "or", "unless", "by", "without", "on", "ignoring", "bool", "offset", "inf", "nan"})


@attrs.frozen
class Use:
    """What an expression asks for."""

    metrics: frozenset[str]
    labels: frozenset[str]
    """In matchers and in lists such as that of `by`."""


def uses(expression: str) -> Use:
    """The metrics and labels of an expression, functions and numbers left out."""
    text = _STRING.sub('""', expression)
    labels = {name.strip() for names in _LABEL_LIST.findall(text) for name in names.split(",") if name.strip()}
    text = _LABEL_LIST.sub(" ", text)
    for _, matchers in _SELECTOR.findall(text):
        labels.update(_matched(matchers))
    text = _RANGE.sub(" ", _SELECTOR.sub(r" \1 ", text))
    metrics = {word for word in _WORD.findall(text) if word.lower() not in _KEYWORDS}
    return Use(frozenset(metrics), frozenset(labels))


def _matched(matchers: str) -> Iterator[str]:
    for matcher in matchers.split(","):
        if matcher.strip():
            yield re.split(r"=|!", matcher, maxsplit=1)[0].strip()
