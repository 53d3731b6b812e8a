"""Rewrites `artifacts.sha256` for the versions below: `python -m tests.services.pin`, then review the difference."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from jgo.maven import Artifact, Dependency, MavenContext

from tests.services.artifacts import PINS, fetch, file_digest

KAFKA = ("org.apache.kafka", "kafka_2.13", "4.1.0")
LOGGING = ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.24.3")  # without a provider the broker logs nothing
AVRO = ("org.apache.avro", "avro", "1.12.0")  # as docs/consumers.md says; what else it needs, the broker brings
COMPILER = ("org.eclipse.jdt", "ecj", "3.40.0")  # the JVM of the tests has none
REGISTRY = ("io.apicurio", "apicurio-registry-app", "3.0.9")


def wanted(context: MavenContext) -> Iterator[Artifact]:
    """Every file the services need."""
    group, name, version = KAFKA
    kafka = context.project(group, name).at_version(version).artifact()
    # Kafka is resolved alone: a second input would bring its managed versions, and with them another kafka-clients.
    inputs, transitive = context.resolver.resolve([Dependency(kafka)])
    for dependency in (*inputs, *transitive):
        yield dependency.artifact
    for group, name, version in (LOGGING, AVRO, COMPILER):
        yield context.project(group, name).at_version(version).artifact()
    group, name, version = REGISTRY
    yield context.project(group, name).at_version(version).artifact(classifier="all", packaging="tar.gz")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        repository = Path(scratch)
        context = MavenContext(repo_cache=repository, local_repos=[])
        paths = {(artifact.component.path_prefix / artifact.filename).as_posix() for artifact in wanted(context)}
        lines = [f"{file_digest(fetch(path, repository))}  {path}\n" for path in sorted(paths)]
    PINS.write_text("".join(lines), "ascii")


if __name__ == "__main__":
    main()
