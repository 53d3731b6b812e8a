"""Texts about names that are not known."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


def unknown(what: str, name: str, known: Sequence[str]) -> str:
    """What to say about a name that is not among the known ones."""
    close = get_close_matches(name, known, n=1)
    if close:
        return f'unknown {what} "{name}"; did you mean "{close[0]}"?'
    return f'unknown {what} "{name}"; bybit has {", ".join(known)}'
