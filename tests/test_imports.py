"""Who may import whom: the table below is the architecture, and this test keeps the code to it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PIPELINE = ROOT / "pipeline"

# Every package with the packages of ours that it may import beside itself.
ALLOWED = {
    "model": set[str](),
    "book": {"model"},
    "exchanges": {"model", "book"},
    "session": {"model"},
    "avro": {"model"},
    "sink": {"model", "avro"},
    "feeds": {"model", "book", "exchanges", "session", "sink"},
    "orders": {"model", "avro", "exchanges", "session", "sink", "feeds"},
    "observe": {"model"},
    "sim": {"model", "exchanges"},
    "tape": {"model", "book", "avro", "exchanges", "feeds"},
}
# The modules beside the packages (app, cli, config, ...) are the composition root: they may import all of ours, and no
# package imports them. The benchmark runs the whole service beside others with loops and producers of their own.
ABOVE_ALL = {"bench"}

# Pure packages get time, chance and bytes as arguments.
PURE = {"model", "book", "exchanges"}
OUTSIDE_WORLD = {"httpx", "random", "secrets", "select", "selectors", "socket", "subprocess", "threading", "time"}
KAFKA_USERS = {"sink", "orders"}
WITHOUT_TRIO = PURE | {"avro"}
# Trio is the one event loop.
FOREIGN_LOOPS = {"anyio", "asyncio", "curio", "twisted"}


def modules() -> Iterator[Path]:
    return PIPELINE.rglob("*.py")


def package(module: Path) -> str:
    """The package under `pipeline`, or for a module beside the packages its own name."""
    return module.relative_to(PIPELINE).with_suffix("").parts[0]


def imports(module: Path, source: str | None = None) -> Iterator[str]:
    """Full dotted names, imports inside functions and under TYPE_CHECKING included; `from a import b` gives `a.b`."""
    here = module.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(source if source is not None else module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else ()
            stem = (*base, *((node.module,) if node.module else ()))
            yield from (".".join((*stem, alias.name)) for alias in node.names)


def faults(module: Path, source: str | None = None) -> list[str]:
    """The imports that break a rule."""
    return [name for name in imports(module, source) if not may_import(module, name)]


def may_import(module: Path, name: str) -> bool:
    top, *rest = name.split(".")
    return may_import_ours(module, rest) if top == "pipeline" else may_import_library(package(module), top)


def may_import_ours(module: Path, target: list[str]) -> bool:
    own = package(module)
    if module.parent == PIPELINE or own in ABOVE_ALL:
        return True
    if not target or target[0] not in ALLOWED[own] | {own}:
        return False
    theirs, ours = venue(Path(*target)), venue(module.relative_to(PIPELINE))
    return own != "exchanges" or ours is None or theirs in {ours, None}


def may_import_library(own: str, library: str) -> bool:
    return own in ABOVE_ALL or not (
        library in FOREIGN_LOOPS
        or (library == "confluent_kafka" and own not in KAFKA_USERS)
        or (library == "trio" and own in WITHOUT_TRIO)
        or (library == "trio_websocket" and own in WITHOUT_TRIO)
        or (library in OUTSIDE_WORLD and own in PURE)
    )


def venue(path: Path) -> str | None:
    """The venue whose folder under `exchanges` a module or a dotted target lies in."""
    folders = {folder.name for folder in (PIPELINE / "exchanges").iterdir() if folder.is_dir()}
    return next((name for parent, name in pairwise(path.parts) if parent == "exchanges" and name in folders), None)


def test_every_package_is_in_the_table() -> None:
    found = {package(module) for module in modules() if module.parent != PIPELINE}
    assert found <= set(ALLOWED) | ABOVE_ALL, "a new package needs its line in the table"
    assert {"model", "exchanges", "session"} <= found


@pytest.mark.parametrize("module", sorted(modules()), ids=lambda path: path.relative_to(PIPELINE).as_posix())
def test_a_module_imports_only_what_it_may(module: Path) -> None:
    assert faults(module) == []


def test_packages_do_not_import_each_other_in_circles() -> None:
    done: set[str] = set()
    while ready := {name for name, below in ALLOWED.items() if name not in done and below <= done}:
        done |= ready
    assert done == set(ALLOWED)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("model/x.py", "import trio"),
        ("model/x.py", "from pipeline.book import order_book"),
        ("model/x.py", "from time import time"),
        ("book/x.py", "def late():\n    import confluent_kafka.admin"),
        ("exchanges/bybit/x.py", "from pipeline.exchanges.okx import session"),
        ("exchanges/bybit/x.py", "from pipeline.exchanges import okx"),
        ("exchanges/bybit/x.py", "from ..okx.session import X"),
        ("session/x.py", "import asyncio"),
        ("session/x.py", "from .. import app"),
        ("session/x.py", "from pipeline.bench import stream"),
        ("feeds/x.py", "from pipeline.config import Config"),
        ("feeds/x.py", "import pipeline"),
        ("sim/x.py", "from confluent_kafka import Producer"),
        ("cli.py", "from confluent_kafka import Producer"),
    ],
)
def test_a_breach_is_noticed(module: str, source: str) -> None:
    assert len(faults(PIPELINE / module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("exchanges/bybit/x.py", "from .wire import X\nfrom pipeline.exchanges.venue import Y"),
        ("exchanges/x.py", "from pipeline.exchanges.okx import session"),
        ("orders/x.py", "from confluent_kafka import Consumer\nimport trio"),
        ("app.py", "from pipeline.sink import topics\nfrom . import config"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert faults(PIPELINE / module, source) == []


def test_the_tables_name_real_things() -> None:
    assert OUTSIDE_WORLD - {"httpx"} <= sys.stdlib_module_names
