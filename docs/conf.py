"""How Sphinx builds the site from the Markdown files in this folder: `make docs`. It loads nothing from elsewhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent

project = "exchange-pipeline"
release = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))["project"]["version"]
copyright = "its authors, Apache License 2.0"  # noqa: A001 - Sphinx's name

extensions = ["myst_parser"]
root_doc = "index"
html_theme = "furo"
html_title = f"{project} {release}"
html_show_sphinx = False
html_copy_source = False

myst_heading_anchors = 4  # as GitHub makes them: the files are read there as they are
# Links to folders outside of this one are text on the site; tests/docs sees that all links are good.
# DuckDB's structs are no SQL that the highlighter knows.
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]

# The order of the side bar; pages that are not named follow.
CHAPTERS = {
    "Use it": ["tutorial", "consumers", "sql", "orders", "guarantees", "glossary"],
    "Look it up": ["reference/configuration", "reference/events", "reference/metrics"],
    "Run it": ["operations", "runbook/README"],
    "Work on it": ["add-a-venue", "performance"],
}


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("source-read", add_navigation)
    app.connect("source-read", take_along)


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Give the site its side bar, which the files themselves, read as they are, have no use for."""
    if page == "index":
        named = {name for names in CHAPTERS.values() for name in names}
        others = [path.stem for path in sorted(HERE.glob("*.md")) if path.stem not in {*named, "index"}]
        for title, names in {**CHAPTERS, "More": others}.items():
            source[0] += _toctree(names, title)
    elif page == "runbook/README":
        source[0] += _toctree(
            sorted(path.stem for path in (HERE / "runbook").glob("*.md") if path.stem != "README"), ""
        )


def take_along(app: Sphinx, page: str, source: list[str]) -> None:
    """Copy pages from outside of this folder, such as ARCHITECTURE.md, that are linked to."""
    folder = (HERE / page).parent

    def link(match: re.Match[str]) -> str:
        inside = (folder / match[1]).resolve().is_relative_to(HERE)
        return match[0] if inside else f"](path:{match[1]})"

    source[0] = re.sub(r"\]\(([\w./-]+\.md)(?:#[\w-]+)?\)", link, source[0])


def _toctree(names: list[str], title: str) -> str:
    return "\n".join(["\n```{toctree}", ":hidden:", *([f":caption: {title}"] if title else []), "", *names, "```", ""])
