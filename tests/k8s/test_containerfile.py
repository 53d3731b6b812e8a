"""The recipe of the image, without building it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.k8s.manifests import ROOT
from tests.services import tools

FILE = ROOT / "Containerfile"
TEXT = FILE.read_text("utf-8")


def test_the_linter_is_content() -> None:
    tools.hadolint(FILE)


@pytest.mark.parametrize(
    ("good", "bad"),
    [('ENTRYPOINT ["python", "-m", "pipeline"]', "ENTRYPOINT python -m pipeline"), ("COPY schemas", "ADD schemas")],
)
def test_the_linter_looks(tmp_path: Path, good: str, bad: str) -> None:
    file = tmp_path / "Containerfile"
    assert good in TEXT
    file.write_text(TEXT.replace(good, bad), "utf-8")
    with pytest.raises(tools.ToolFailed):
        tools.hadolint(file)


def test_what_is_installed_is_held_to_digests() -> None:
    assert "--require-hashes -r requirements.lock" in TEXT
    assert "--only-binary :all:" in TEXT
    assert TEXT.count("FROM ${BASE}") == 2
    assert re.search(r"^ARG BASE=\S+:\d+\.\d+-slim-\w+$", TEXT, re.MULTILINE)


def test_the_page_on_operations_names_the_base() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", TEXT, re.MULTILINE)
    page = (ROOT / "docs/operations.md").read_text("utf-8")
    assert f"docker://{base} " in page
    assert f"--build-arg BASE={base}@sha256:" in page


def test_the_program_is_the_first_process_and_nobody_special() -> None:
    (entry,) = re.findall(r"^ENTRYPOINT (.+)$", TEXT, re.MULTILINE)
    assert json.loads(entry) == ["python", "-m", "pipeline"]
    (user,) = re.findall(r"^USER (\d+):(\d+)$", TEXT, re.MULTILINE)
    assert all(int(number) >= 10_000 for number in user)
    for label in ("source", "revision", "version"):
        assert f"org.opencontainers.image.{label}=" in TEXT


def test_only_what_the_image_is_made_of_gets_to_the_builder() -> None:
    ignored = (ROOT / ".containerignore").read_text("utf-8")
    assert (ROOT / ".dockerignore").read_text("utf-8") == ignored, "Docker reads the one, Podman the other"
    rules = [line for line in ignored.splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:].split("/")[0] for rule in rules if rule.startswith("!")}
    copied = {
        name.rstrip("/")
        for names in re.findall(r"^COPY (?!--from)(.+) \S+$", TEXT, re.MULTILINE)
        for name in names.split()
    }
    assert allowed == copied
