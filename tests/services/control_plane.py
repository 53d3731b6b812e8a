"""A real Kubernetes API server with its store, on loopback: it takes objects, judges and keeps them; nothing runs them.

Built once per user out of Go modules that `kubernetes/go.sum` pins by digest, which takes minutes; needs Go.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import httpx
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.services import tools
from tests.services.artifacts import ProvisioningError
from tests.services.ports import reserve_port
from tests.services.process import Service

MODULE = Path(__file__).with_name("kubernetes")
BUILD_WITHIN_S = 3600
"""On a small machine that does something else as well."""


class _Store(Service):
    """etcd."""

    def __init__(self, folder: Path, program: Path) -> None:
        super().__init__("etcd", folder)
        self._program = program
        self.url, self._peer = (f"http://127.0.0.1:{reserve_port()}" for _ in range(2))

    def _prepare(self) -> None:
        pass

    def _command(self) -> Sequence[str]:
        return [
            str(self._program),
            f"--data-dir={self.folder / 'data'}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={self._peer}",
            f"--initial-advertise-peer-urls={self._peer}",
            f"--initial-cluster=default={self._peer}",
            "--log-level=error",
            "--unsafe-no-fsync",
        ]

    def _await_ready(self) -> None:
        with httpx.Client(trust_env=False) as client:
            for _ in self._attempts():
                try:
                    if client.get(f"{self.url}/health").is_success:
                        return
                except httpx.TransportError:
                    continue


class _ApiServer(Service):
    """kube-apiserver, with its usual admission but the one that wants a controller to have made service accounts."""

    def __init__(self, folder: Path, program: Path, store: str) -> None:
        super().__init__("apiserver", folder)
        self._program, self._store = program, store
        self._port, self.token = reserve_port(), secrets.token_hex(16)
        self.url = f"https://127.0.0.1:{self._port}"

    def _prepare(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
        self._tokens.write_text(f"{self.token},admin,admin,system:masters\n", "ascii")

    def _command(self) -> Sequence[str]:
        return [
            str(self._program),
            f"--etcd-servers={self._store}",
            f"--cert-dir={self.folder / 'certificates'}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            "--endpoint-reconciler-type=none",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._key}",
            f"--service-account-signing-key-file={self._key}",
            f"--token-auth-file={self._tokens}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--disable-admission-plugins=ServiceAccount",
        ]

    def _await_ready(self) -> None:
        # Its certificate is its own, made at the start.
        with httpx.Client(trust_env=False, verify=False) as client:
            for _ in self._attempts():
                try:
                    answer = client.get(f"{self.url}/readyz", headers={"authorization": f"Bearer {self.token}"})
                except httpx.TransportError:
                    continue
                if answer.is_success:
                    return

    @property
    def _key(self) -> Path:
        return self.folder / "service-accounts.key"

    @property
    def _tokens(self) -> Path:
        return self.folder / "tokens.csv"


class ControlPlane:
    """An API server for administrators; runs from entry to exit."""

    def __init__(self, folder: Path) -> None:
        programs = _programs()
        self._store = _Store(folder, programs / "server")
        self._server = _ApiServer(folder, programs / "kube-apiserver", self._store.url)
        self._kubeconfig = folder / "kubeconfig.yaml"
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._store)
            stack.enter_context(self._server)
            self._kubeconfig.write_text(yaml.safe_dump(self._connection()), "utf-8")
            self._running = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._running.close()

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl as an administrator. Raises `ToolFailed`."""
        return tools.kubectl(*arguments, kubeconfig=self._kubeconfig)

    def _connection(self) -> dict[str, object]:
        cluster = {"server": self._server.url, "insecure-skip-tls-verify": True}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self._server.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }


def version() -> str:
    """Of Kubernetes, as in `1.37.2`."""
    found = re.search(r"^\tk8s\.io/kubernetes v([0-9.]+)", (MODULE / "go.mod").read_text("ascii"), re.MULTILINE)
    assert found is not None
    return found[1]


def _programs() -> Path:
    digest = hashlib.sha256(b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))).hexdigest()[:16]
    return tools.provided(f"kubernetes-{digest}", _build)


def _build(target: Path) -> None:
    if shutil.which("go") is None:
        raise ProvisioningError("go is not on the PATH, and without it no API server can be built")
    major, minor, _ = version().split(".")
    # What a release's build script writes: without it the server takes itself for version 0.
    facts = {"gitVersion": f"v{version()}", "gitMajor": major, "gitMinor": minor}
    flags = " ".join(["-s", "-w", *(f"-X k8s.io/component-base/version.{name}={text}" for name, text in facts.items())])
    environment = {**os.environ, "GOBIN": str(target), "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"}
    target.mkdir()
    command = ["go", "install", "-trimpath", "-ldflags", flags, "tool"]
    tools.fetch(command, MODULE, within_s=BUILD_WITHIN_S, env=environment)
