"""One Apicurio schema registry with the Confluent API, on loopback."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from confluent_kafka.schema_registry import SchemaRegistryClient

from tests.services.artifacts import registry_archive
from tests.services.ports import reserve_port
from tests.services.process import Service, java


class SchemaRegistry(Service):
    """A registry at `url`, the base of the Confluent API. Schemas survive a restart.

    Unlike Confluent's, its global compatibility level is NONE until someone sets one.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__("registry", folder)
        self._port = reserve_port()
        self.url = f"http://127.0.0.1:{self._port}/apis/ccompat/v7"
        self._archive = registry_archive()

    @contextmanager
    def client(self) -> Iterator[SchemaRegistryClient]:
        """A client whose connections are closed afterwards: it has no way to do so itself."""
        client = SchemaRegistryClient({"url": self.url})
        try:
            yield client
        finally:
            client._rest_client.session.close()

    def _prepare(self) -> None:
        if self._program.exists():
            return
        unpacked = self.folder / "unpacking"
        with tarfile.open(self._archive) as archive:
            archive.extractall(unpacked, filter="data")
        unpacked.rename(self._program)

    def _command(self) -> Sequence[str]:
        (runner,) = self._program.glob("*-runner.jar")
        return java(
            "-Xmx256m",
            "-Dquarkus.http.host=127.0.0.1",
            f"-Dquarkus.http.port={self._port}",
            "-Dapicurio.storage.kind=sql",
            "-Dapicurio.storage.sql.kind=h2",
            f"-Dapicurio.datasource.url=jdbc:h2:file:{self.folder / 'data'};WRITE_DELAY=0",  # survives SIGKILL
            "-jar",
            str(runner),
        )

    def _await_ready(self) -> None:
        with httpx.Client(trust_env=False) as client:  # a proxy has no business on loopback
            for _ in self._attempts():
                try:
                    if client.get(f"{self.url}/subjects").is_success:
                        return
                except httpx.TransportError:
                    continue

    @property
    def _program(self) -> Path:
        return self.folder / "program"
