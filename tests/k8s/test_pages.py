"""Pages for operators lead somewhere, and do not tell what harms."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.k8s.manifests import ROOT

PAGES = [
    ROOT / "SECURITY.md",
    ROOT / "docs/operations.md",
    ROOT / "k8s/README.md",
    *sorted((ROOT / "docs/runbook").glob("*.md")),
]

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@pages
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text("utf-8")):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, anchor


@pages
def test_commands_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([\w-]+)[`\s]*(?:#|`|$)", page.read_text("utf-8"), re.MULTILINE)) <= targets


@pages
def test_folders_that_are_applied_exist(page: Path) -> None:
    for folder in re.findall(r"kubectl (?:apply|diff|delete) -k (\S+?)[`,.;)]*(?:\s|$)", page.read_text("utf-8")):
        assert folder == "…" or (ROOT / folder / "kustomization.yaml").exists(), folder


@pages
def test_nobody_is_told_to_make_the_set_anew(page: Path) -> None:
    """While the old pods end, an ordinal may stay missing."""
    assert not re.search(r"kubectl [^`\n]*delete (?:statefulset|sts)\b", page.read_text("utf-8"))
