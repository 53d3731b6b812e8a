"""HTML from Python values: what is not markup already is escaped, so that no text of a venue can become markup."""

from __future__ import annotations

from html import escape

_VOID = frozenset({"meta", "link", "br", "col"})


class Html(str):
    """Markup."""

    __slots__ = ()


def element(name: str, /, *children: str | None, **attributes: str | None) -> Html:
    """One element. `class_` is `class`, `aria_label` is `aria-label`; what is None is left out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{joined(*children)}</{name}>")


def joined(*children: str | None) -> Html:
    """Several pieces one after the other."""
    return Html("".join(c if isinstance(c, Html) else escape(c, quote=False) for c in children if c is not None))
