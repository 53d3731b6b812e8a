"""The services' program files: fetched once per user, and checked against the committed digests at every use.

`artifacts.sha256` is the whole truth about what runs: one line per file, `digest  path in a Maven repository`, so that
no dependency is resolved at test time (`sha256sum --check` reads the same format). `python -m tests.services.pin`
rewrites it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import requests
from jgo.maven import Artifact, MavenContext

PINS = Path(__file__).with_name("artifacts.sha256")
REGISTRY_GROUP = "io/apicurio/"
EXAMPLE_GROUPS = ("org/apache/avro/", "org/eclipse/jdt/")
"""What decodes records in the pages' example in Java, and what compiles it."""

_DOWNLOADS_AT_ONCE = 4
_NETWORK_TRIES = 3
_NETWORK_TIMEOUT_S = 60


class ProvisioningError(Exception):
    """A file of the services cannot be had, or is not the one that was pinned; the text names it."""


def cache_folder() -> Path:
    """`PIPELINE_TEST_CACHE`, or a folder of ours in the user's cache folder."""
    if chosen := os.environ.get("PIPELINE_TEST_CACHE"):
        return Path(chosen).absolute()
    user_cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not user_cache.is_absolute():  # the XDG specification says to ignore a relative one
        user_cache = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return user_cache / "exchange-pipeline" / "test-services"


def read_pins(text: str) -> dict[str, str]:
    """Repository path to SHA-256 digest, as `artifacts.sha256` lists them."""
    pins: dict[str, str] = {}
    for line in text.splitlines():
        digest, _, path = line.partition("  ")
        pins[path] = digest
    return pins


def kafka_jars() -> list[Path]:
    """The broker's class path, present and verified."""
    others = (REGISTRY_GROUP, *EXAMPLE_GROUPS)
    return provision({path: digest for path, digest in _pinned().items() if not path.startswith(others)})


def jars(*names: str) -> list[Path]:
    """Single jars by the names of their artifacts, present and verified."""
    pins = _pinned()
    paths = [path for name in names for path in pins if PurePosixPath(path).parts[-3] == name]
    assert len(paths) == len(names), f"not pinned: {names}"
    return provision({path: pins[path] for path in paths})


def registry_archive() -> Path:
    """The schema registry's application archive, present and verified."""
    (archive,) = provision({path: digest for path, digest in _pinned().items() if path.startswith(REGISTRY_GROUP)})
    return archive


def provision(pins: Mapping[str, str]) -> list[Path]:
    """The pinned files in the cache, fetching what is missing or damaged there; raises `ProvisioningError`."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with only_one_run("artifacts"), ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        return list(pool.map(lambda pin: _ensure(cache, *pin), pins.items()))


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(path: str, scratch: Path) -> Path:
    """Download one file of the central Maven repository into a folder of its own; raises `ProvisioningError`."""
    context = MavenContext(repo_cache=scratch, local_repos=[], timeout=_NETWORK_TIMEOUT_S)
    for tries_left in reversed(range(_NETWORK_TRIES)):
        try:
            return _artifact(context, path).resolve()
        except (requests.RequestException, RuntimeError) as error:  # RuntimeError: jgo's word for "not found"
            _artifact_file(scratch, path).unlink(missing_ok=True)  # a broken download would pass for a cached one
            if not tries_left or isinstance(error, RuntimeError):
                raise ProvisioningError(f"{path}: cannot be fetched: {error}") from error
    raise AssertionError("unreachable")


def _pinned() -> dict[str, str]:
    return read_pins(PINS.read_text("ascii"))


def _ensure(cache: Path, path: str, digest: str) -> Path:
    target = _artifact_file(cache, path)
    if target.exists() and file_digest(target) == digest:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as scratch:
        fetched = fetch(path, Path(scratch))
        if (got := file_digest(fetched)) != digest:
            raise ProvisioningError(f"{path}: fetched a file with SHA-256 {got}, but {digest} is pinned")
        fetched.replace(target)
    return target


@contextmanager
def only_one_run(name: str) -> Iterator[None]:
    """Keep other test runs of this user, and those side by side with this one, from doing the same now."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back by the system even when this run is killed
        yield


def _artifact_file(repository: Path, path: str) -> Path:
    return repository.joinpath(*PurePosixPath(path).parts)


def _artifact(context: MavenContext, path: str) -> Artifact:
    *group, name, version, file_name = PurePosixPath(path).parts
    classifier, packaging = "", file_name.removeprefix(f"{name}-{version}")
    if packaging.startswith("-"):
        classifier, _, packaging = packaging[1:].partition(".")
    component = context.project(".".join(group), name).at_version(version)
    return component.artifact(classifier=classifier, packaging=packaging.lstrip("."))
