"""Real containers without a container service: podman over runc, as root, with a base of our own making.

No image is pulled: the base that the Containerfile names is bootstrapped from Debian's packages and put under its name.
It has Debian's Python in place of the official image's, which the Containerfile does not notice. All lies in the tests'
cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.services.artifacts import ProvisioningError, cache_folder

_PACKAGES = ("podman", "runc", "debootstrap")
_RELEASE = "trixie"
_INCLUDED = "ca-certificates,python3,python3-venv"
_INSTALL_WITHIN_S = 1800
_RUN_WITHIN_S = 600
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_MIRROR = re.compile(r"^(?:URIs:|deb)\s+(?:\[.*\]\s+)?(\S+)", re.MULTILINE)

# The packaged crun does not take every layout of control groups, and there may be no journal to log to.
_ENGINE = """\
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
log_driver = "k8s-file"
"""


@attrs.frozen
class Podman:
    """Podman with a store of its own; its images survive, its containers are the caller's to remove."""

    folder: Path

    @classmethod
    def ready(cls) -> Podman:
        """Installs what is missing. Raises `ProvisioningError` where that cannot be done."""
        _install()
        folder = cache_folder() / "containers"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "containers.conf").write_text(_ENGINE, "utf-8")
        return cls(folder)

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command to its end; raises `AssertionError` with what a failed one says."""
        done = subprocess.run(
            ["podman", "--root", str(self.folder / "store"), "--runroot", str(self._run_folder), *arguments],
            env={**os.environ, "CONTAINERS_CONF": str(self.folder / "containers.conf")},
            check=False,
            capture_output=True,
            text=True,
            timeout=_RUN_WITHIN_S,
        )
        if check and done.returncode:
            raise AssertionError(f"podman {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done

    @property
    def _run_folder(self) -> Path:
        # Podman takes no more than 50 characters for it: sockets lie there.
        return Path("/run") / f"pipeline-{hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]}"

    def ensure_base(self, name: str) -> None:
        """Have an image of this full name, made from Debian's packages if it is not there."""
        with _alone(self.folder):
            if self("image", "exists", name, check=False).returncode:
                with tempfile.TemporaryDirectory(dir=self.folder, prefix="base-") as scratch:
                    self("import", str(_bootstrap(Path(scratch))), name)

    def build(self, context: Path, tag: str, arguments: Mapping[str, str]) -> None:
        """Build a Containerfile with the machine's network and certificate authorities, of which nothing stays."""
        given = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
        authorities = ["--volume", f"{_AUTHORITIES}:{_AUTHORITIES}:ro"] if _AUTHORITIES.exists() else []
        file = ["--file", str(context / "Containerfile"), "--tag", tag]
        self("build", "--quiet", "--network=host", *authorities, *given, *file, str(context))


def _install() -> None:
    missing = [name for name in _PACKAGES if shutil.which(name) is None]
    if not missing:
        return
    if os.geteuid() or shutil.which("apt-get") is None:
        raise ProvisioningError(f"{', '.join(missing)}: not found, and only root on Debian can install them from here")
    _run(["apt-get", "update", "-qq"])
    _run(["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing])


def _bootstrap(scratch: Path) -> Path:
    """A minimal system with Python, as an archive."""
    root, archive = scratch / "root", scratch / "base.tar"
    _run(["debootstrap", "--variant=minbase", f"--include={_INCLUDED}", _RELEASE, str(root), _mirror()])
    _run(["tar", "--directory", str(root), "--create", "--file", str(archive), "."])
    return archive


def _mirror() -> str:
    """Where this machine has its own packages from."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("debian*"))]
    for source in sources:
        if source.exists() and (
            found := re.search(r"^(?:URIs:|deb)\s+(?:\[.*\]\s+)?(\S+)", source.read_text(), re.MULTILINE)
        ):
            return found[1]
    raise ProvisioningError("this machine names no source of Debian's packages")


def _run(command: Sequence[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, timeout=_INSTALL_WITHIN_S
    )
    if done.returncode:
        raise ProvisioningError(f"{command[0]}: {(done.stderr or done.stdout).strip()[-2000:]}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
