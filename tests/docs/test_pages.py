"""What the pages say can be followed: links lead somewhere, configurations load, commands are understood."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import attrs
import pytest
import yaml

from pipeline import cli
from pipeline.config import Config, loads
from pipeline.model.errors import ConfigError

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

FENCE = re.compile(r"^([ ]*)```([^\n`]*)\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)")
SCHEMAS = [["schemas", action] for action in ("check", "register", "show")]
COMMAND = re.compile(r"python -m pipeline(?![\w.])([^\n`]*)")


def pages() -> list[object]:
    return [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in PAGES]


def prose(text: str) -> str:
    """The text without code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found[anchor] = found.get(anchor, -1) + 1
    return {f"{anchor}-{n}" if n else anchor for anchor, last in found.items() for n in range(last + 1)}


def broken_links(page: Path, text: str) -> list[str]:
    return [
        target
        for target in LINK.findall(prose(text))
        if not re.match(r"[a-z]+:", target) and not leads_somewhere(page, *target.partition("#")[::2])
    ]


def leads_somewhere(page: Path, path: str, anchor: str) -> bool:
    target = (page.parent / unquote(path)).resolve() if path else page
    return (
        target.exists()
        and target.is_relative_to(ROOT)
        and (not anchor or (target.suffix == ".md" and anchor in anchors(target)))
    )


def snippets(text: str) -> Iterator[str]:
    """The YAML blocks that are our configuration, or parts of it."""
    keys = {field.name for field in attrs.fields(Config)}
    for _, language, body in FENCE.findall(text):
        if language.strip() == "yaml" and keys & (yaml.safe_load(body) or {}).keys():
            yield body


def config_problems(snippet: str) -> list[str]:
    try:
        loads(snippet)
    except ConfigError as error:
        # A part may be about something else than channels.
        return [line for line in error.problems if line != "venues: no channel of any venue is configured"]
    return []


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of each command line of ours, alternatives such as `check|register` one by one."""
    for rest in COMMAND.findall(text.replace("\\\n", " ")):
        line = re.sub(r"(^|\s)(?:\d?>|[&|;]).*|[:,.)]+$", "", rest.strip())
        words = shlex.split(line, comments=True)
        # An ellipsis stands for an option's value, or for nothing in particular.
        words = [word for before, word in pairwise(["", *words]) if word != "…" or before.startswith("--")]
        alternatives = next((word for word in words if re.fullmatch(r"\w+(\|\w+)+", word)), "")
        for choice in alternatives.split("|"):
            yield [choice if alternatives and word == alternatives else word for word in words]


def is_understood(words: list[str]) -> bool:
    """Whether the command line would run; a bare name stands for its command in general."""
    if not words:
        return True
    if "--help" in words:
        return words[0] in {"--help", *cli.COMMANDS}
    if words[0] in cli.COMMANDS and (len(words) == 1 or words in SCHEMAS):
        return True
    command = cli.COMMANDS[words[0]] if words[0] in cli.COMMANDS else cli.Command("", cli._service)
    parser = argparse.ArgumentParser(allow_abbrev=False)
    command.prepare(parser)
    try:
        parser.parse_args(words[1:] if words[0] in cli.COMMANDS else words)
    except SystemExit:
        return False
    return True


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text("utf-8")) == []


@pytest.mark.parametrize("page", pages())
def test_configurations_load(page: Path) -> None:
    assert [problem for snippet in snippets(page.read_text("utf-8")) for problem in config_problems(snippet)] == []


@pytest.mark.parametrize("page", pages())
def test_commands_are_understood(page: Path) -> None:
    assert [words for words in commands(page.read_text("utf-8")) if not is_understood(words)] == []


def test_programs_on_the_pages_are_those_in_the_folder() -> None:
    """They are printed for whoever reads the files, and kept as files for whoever runs them."""
    shown = {}
    for page in PAGES:
        for _, _, body in FENCE.findall(page.read_text("utf-8")):
            if match := re.match(r"(?:#|//) examples/(\S+)\n", body):
                shown[match[1]] = body[match.end() :]
    assert shown == {path.name: path.read_text("utf-8") for path in (DOCS / "examples").iterdir() if path.is_file()}


def test_every_page_is_in_the_index_or_its_folders_index() -> None:
    index = (DOCS / "index.md").read_text("utf-8") + (DOCS / "runbook" / "README.md").read_text("utf-8")
    lost = [page.name for page in DOCS.rglob("*.md") if page.name != "index.md" and f"{page.name})" not in index]
    assert lost == []


@pytest.mark.parametrize(
    "text",
    ["[x](nowhere.md)", "[x](#nowhere)", "[x](glossary.md#nowhere)", "[x](examples/consume.py#top)", "[x](../../x)"],
)
def test_a_broken_link_is_noticed(text: str) -> None:
    assert len(broken_links(DOCS / "index.md", f"{text} `[code](is not a link)`\n```\n[nor](this)\n```\n")) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("`python -m pipeline replays`", ["replays"]),
        ("python -m pipeline check --confg x.yaml   # why", ["check", "--confg", "x.yaml"]),
        ("python -m pipeline schemas check|shew", ["schemas", "shew"]),
        ("python -m pipeline --config", ["--config"]),
        ("python -m pipeline tail --config x \\\n  --jsonl > file", ["tail", "--config", "x", "--jsonl"]),
    ],
)
def test_a_command_that_does_not_exist_is_noticed(text: str, words: list[str]) -> None:
    assert [found for found in commands(text) if not is_understood(found)] == [words]


def test_a_configuration_that_does_not_load_is_noticed() -> None:
    text = "```yaml\n# config.yaml\nvenues: {okx: {chanels: []}}\n```\n```yaml\nkind: Pod\n```\n"
    (snippet,) = snippets(text)
    assert config_problems(snippet) == ['venues.okx.chanels: unknown key; did you mean "channels"?']
