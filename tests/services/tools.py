"""Programs that judge manifests, the image and the alerts: fetched once per user, kept in the tests' cache.

`tools.lock` pins those that come as Python packages, by digest; `make lock` rewrites it. promtool is of the Debian
package `prometheus`, held to the distribution's signatures, and is neither installed nor does it need an administrator.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.services.artifacts import ProvisioningError, cache_folder, only_one_run

LOCK = Path(__file__).with_name("tools.lock")
KUBERNETES = "1.37"
"""The version whose schemas manifests are held to."""

_FETCH_WITHIN_S = 600
_RUN_WITHIN_S = 60
_PROMETHEUS = "prometheus"


class ToolFailed(Exception):
    """A tool is not content; the text is what it says."""


def kustomize(folder: Path) -> str:
    """What a kustomization amounts to, as YAML documents. Raises `ToolFailed`."""
    return run([str(_python_tools() / "bin/kubectl"), "kustomize", str(folder)])


def kubectl(*arguments: str, kubeconfig: Path) -> str:
    """Talk to an API server; says what it says. Raises `ToolFailed`."""
    return run([str(_python_tools() / "bin/kubectl"), f"--kubeconfig={kubeconfig}", *arguments])


def hadolint(file: Path) -> None:
    """Judge a Containerfile. Raises `ToolFailed` with what is wrong."""
    run([str(_python_tools() / "bin/hadolint"), "--no-color", str(file)])


def validate_manifests(files: Sequence[Path]) -> str:
    """Hold objects to the schemas of Kubernetes, unknown fields included; says what was looked at.

    Objects of custom kinds are not judged. Raises `ToolFailed`.
    """
    tools = _python_tools()
    program = [sys.executable, str(tools / "bin/kubernetes-validate"), "-k", KUBERNETES, "--strict"]
    return run([*program, *map(str, files)], env={**os.environ, "PYTHONPATH": str(tools)})


def promtool(*arguments: str, folder: Path) -> str:
    """Run promtool in a folder; says what it says. Raises `ToolFailed`."""
    return run([str(_promtool()), *arguments], folder=folder)


def run(command: Sequence[str], *, folder: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a program to its end; gives standard output. Raises `ToolFailed` with what a failed one says."""
    done = subprocess.run(
        command, check=False, cwd=folder, env=env, capture_output=True, text=True, timeout=_RUN_WITHIN_S
    )
    if done.returncode:
        raise ToolFailed(f"{Path(command[0]).name}: {done.stdout}{done.stderr}".strip())
    return done.stdout


def _python_tools() -> Path:
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    # Some of the packages are compiled for one version of Python.
    return provided(f"tools-{digest}-{sys.implementation.cache_tag}", _install_python_tools)


def _install_python_tools(target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    fetch([*pip, "--require-hashes", "--target", str(target), "-r", str(LOCK)], target.parent)


def _promtool() -> Path:
    found = shutil.which("promtool")
    return Path(found) if found else provided("promtool", _unpack_prometheus) / "usr/bin/promtool"


def _unpack_prometheus(target: Path) -> None:
    with only_one_run("apt"):
        _unpack_package(target)


def _unpack_package(target: Path) -> None:
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        raise ProvisioningError(f"promtool is not on the PATH, and without {missing[0]} it cannot be fetched")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        try:
            fetch(["apt-get", "download", "-qq", _PROMETHEUS], Path(scratch))
        except ProvisioningError:
            if os.geteuid():
                raise
            fetch(["apt-get", "update", "-qq"], Path(scratch))  # a new machine has no lists, or old ones
            fetch(["apt-get", "download", "-qq", _PROMETHEUS], Path(scratch))
        (package,) = Path(scratch).glob("*.deb")
        fetch(["dpkg-deb", "--extract", str(package), str(target)], Path(scratch))


def fetch(
    command: Sequence[str], folder: Path, *, within_s: float = _FETCH_WITHIN_S, env: dict[str, str] | None = None
) -> None:
    """Run what gets or makes a tool, in a folder. Raises `ProvisioningError` with what it says."""
    done = subprocess.run(command, check=False, cwd=folder, env=env, capture_output=True, text=True, timeout=within_s)
    if done.returncode:
        raise ProvisioningError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")


def provided(name: str, make: Callable[[Path], None]) -> Path:
    """A folder of the cache, made if it is not there; half of one is never seen."""
    cache = cache_folder()
    folder = cache / name
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with only_one_run("tools"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as scratch:
                made = Path(scratch) / name
                make(made)
                made.rename(folder)
    return folder
