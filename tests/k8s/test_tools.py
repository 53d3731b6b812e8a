"""The validators' lock, and what becomes of a tool that is not content or not to be had."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.services import tools
from tests.services.artifacts import ProvisioningError
from tests.test_lock import entries, pinned, unmet

LOCK = "tests/services/tools.lock"


def test_the_lock_holds_digests_and_no_address() -> None:
    assert "://" not in tools.LOCK.read_text("ascii")
    for requirement, options in entries(LOCK):
        assert options, f"{requirement} has no digest"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", option) for option in options)


def test_the_lock_has_what_is_wanted() -> None:
    lines = tools.LOCK.with_suffix(".in").read_text("ascii").splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert len(wanted) == 3
    assert unmet(wanted, pinned(LOCK)) == [], "run `make lock`"


def test_a_tool_that_is_not_content_says_why(tmp_path: Path) -> None:
    with pytest.raises(tools.ToolFailed, match=r"kubectl: .*unable to find one of 'kustomization.yaml'"):
        tools.kustomize(tmp_path)


def test_a_tool_that_cannot_be_had_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_TEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProvisioningError, match="promtool is not on the PATH, and without apt-get"):
        tools.promtool("--version", folder=tmp_path)
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"apt.lock", "tools.lock"}
