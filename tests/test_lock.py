"""The lock files hold what pyproject.toml asks for, by digest and without any address."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
RUNTIME = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
DEVELOPMENT = [Requirement(text) for text in PROJECT["dependency-groups"]["dev"]]
BENCHMARK = [Requirement(text) for text in PROJECT["dependency-groups"]["bench"]]
DOCS = [Requirement(text) for text in PROJECT["dependency-groups"]["docs"]]
AUDIT = [Requirement(text) for text in PROJECT["dependency-groups"]["audit"]]
LOCKS = [
    "requirements.lock",
    "requirements-dev.lock",
    "requirements-bench.lock",
    "requirements-docs.lock",
    "requirements-audit.lock",
]

# The interpreters that the lock is held to; markers name the rest of the world.
ENVIRONMENTS = [
    {"python_version": python[:4], "python_full_version": python, "sys_platform": platform, "os_name": "posix"}
    for python in ("3.11.0", "3.13.0")
    for platform in ("linux", "darwin")
]


def pinned(lock: str) -> dict[NormalizedName, list[Requirement]]:
    """The locked requirements by name; one name has several where markers tell them apart."""
    pins: dict[NormalizedName, list[Requirement]] = {}
    for requirement, _ in entries(lock):
        pins.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return pins


def entries(lock: str) -> Iterator[tuple[Requirement, list[str]]]:
    """Each locked requirement with its options."""
    for entry in (ROOT / lock).read_text("ascii").replace("\\\n", "").splitlines():
        requirement, *options = re.split(r"\s+(?=--)", entry.strip())
        yield Requirement(requirement), options


def unmet(wanted: Iterable[Requirement], pins: dict[NormalizedName, list[Requirement]]) -> list[str]:
    """Requirements without exactly one fitting pin in some environment."""
    return [
        str(requirement)
        for requirement in wanted
        for environment in ENVIRONMENTS
        if (requirement.marker is None or requirement.marker.evaluate(environment))
        and [requirement.specifier.contains(version) for version in versions(requirement, pins, environment)] != [True]
    ]


def versions(
    requirement: Requirement, pins: dict[NormalizedName, list[Requirement]], environment: dict[str, str]
) -> list[Version]:
    return [
        version(pin)
        for pin in pins.get(canonicalize_name(requirement.name), ())
        if pin.marker is None or pin.marker.evaluate(environment)
    ]


def version(pin: Requirement) -> Version:
    (specifier,) = pin.specifier
    assert specifier.operator == "=="
    return Version(specifier.version)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_digests_and_no_address(lock: str) -> None:
    assert not re.search(
        r"://|--(extra-)?index|--find-links|--trusted-host|[\w-]+\.(org|com|net|io)\b", lock_text(lock)
    )
    for requirement, options in entries(lock):
        assert options, f"{requirement} has no digest"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", option) for option in options)


def lock_text(lock: str) -> str:
    return (ROOT / lock).read_text("ascii")


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("requirements.lock", RUNTIME),
        ("requirements-dev.lock", [*RUNTIME, *DEVELOPMENT]),
        ("requirements-bench.lock", [*RUNTIME, *DEVELOPMENT, *BENCHMARK]),
        ("requirements-docs.lock", DOCS),
        ("requirements-audit.lock", AUDIT),
    ],
    ids=LOCKS,
)
def test_a_lock_satisfies_the_project(lock: str, wanted: list[Requirement]) -> None:
    assert unmet(wanted, pinned(lock)) == [], "run `make lock`"


def test_tests_run_against_the_versions_that_are_released() -> None:
    runtime, development = pinned("requirements.lock"), pinned("requirements-dev.lock")
    assert {name: pinned_versions(pins) for name, pins in runtime.items()} == {
        name: pinned_versions(development.get(name, ())) for name in runtime
    }


def pinned_versions(pins: Iterable[Requirement]) -> set[str]:
    """Without markers: what tests need beside may ask for the same version on more platforms."""
    return {str(pin.specifier) for pin in pins}


def test_extras_are_locked_too() -> None:
    """A lock that was made without the extras would satisfy the names above."""
    names = set(pinned("requirements-dev.lock"))
    assert {"authlib", "cachetools"} <= names, "confluent-kafka[schemaregistry]"
    assert {"h2", "wsproto"} <= names, "hypercorn"


@pytest.mark.parametrize("text", ["attrs>=999", "no-such-project"])
def test_an_outdated_lock_is_noticed(text: str) -> None:
    assert unmet([Requirement(text)], pinned("requirements.lock"))
