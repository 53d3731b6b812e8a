"""`python -m pipeline schemas`: what is, or would be, in the schema registry."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Any, Literal

import attrs

from pipeline.avro.codec import Decimals, Schemas
from pipeline.avro.schemas import ORDER_COMMAND, load_schema
from pipeline.model.errors import ConfigError
from pipeline.model.events import KINDS
from pipeline.sink.registry import Finding, inspect_schemas, obstacle, register_schemas
from pipeline.sink.routes import subjects_of
from pipeline.sink.settings import KafkaSettings, RegistrySettings

Action = Literal["check", "register"]


def add_show_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `schemas show`."""
    kinds = sorted((*KINDS, ORDER_COMMAND))
    parser.add_argument(
        "kind", choices=kinds, metavar="KIND", help=f"a kind of event, such as trade; or {ORDER_COMMAND}"
    )
    parser.add_argument(
        "--decimals", choices=("text", "decimal"), default="text", help="the form of prices and sizes (default: text)"
    )


def show(kind: str, decimals: Decimals) -> int:
    """Print a schema as registries and readers get it."""
    schema = load_schema(kind) if kind == ORDER_COMMAND else Schemas.load(decimals).schema(kind)
    sys.stdout.write(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
    return 0


async def run(settings: KafkaSettings, action: Action, *, as_json: bool) -> int:
    """Print how every subject stands, having registered what is missing if that is the action.

    Returns 0 if the service could start, 1 if not. Raises `ConfigError` without a registry, `SinkFailed` if it cannot
    be used.
    """
    registry = settings.schema_registry
    if registry is None:
        raise ConfigError(["kafka.schema_registry: is missing; without one no schema is registered anywhere"])
    schemas = Schemas.load(settings.decimals)
    subjects = {subject: kind for kind, subject in subjects_of(settings, schemas).items()}
    wanted = {subject: schemas[kind].text for subject, kind in subjects.items()}
    if action == "register":
        registry = attrs.evolve(registry, register=True)
        before = {finding.subject: finding for finding in await inspect_schemas(registry, wanted)}
        ids = await register_schemas(registry, wanted)
        rows = [
            {**_row(before[subject], subjects, registry), "schema_id": ids[subject], "state": _done(before[subject])}
            for subject in wanted
        ]
    else:
        rows = [_row(finding, subjects, registry) for finding in await inspect_schemas(registry, wanted)]
    if as_json:
        sys.stdout.write(json.dumps({"schema_registry": registry.url, "subjects": rows}, indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in _text(registry, rows))
    return 0 if all(row["ok"] for row in rows) else 1


def _done(before: Finding) -> str:
    return "registered" if before.state == "registered" else f"registered now ({before.state})"


def _row(finding: Finding, kinds: dict[str, str], registry: RegistrySettings) -> dict[str, Any]:
    return {
        "subject": finding.subject,
        "event": kinds[finding.subject],
        "state": finding.state,
        "ok": obstacle(finding, register=registry.register) is None,
        "schema_id": finding.schema_id,
        "level": finding.level,
        "problems": list(finding.problems),
    }


def _text(registry: RegistrySettings, rows: list[dict[str, Any]]) -> Iterable[str]:
    yield f"schema registry {registry.url}"
    width = max(len(row["subject"]) for row in rows)
    for row in rows:
        detail = row["state"]
        if row["schema_id"] is not None:
            detail += f", id {row['schema_id']}"
        elif row["state"] == "new subject" and registry.compatibility is not None:
            detail += f", to be {registry.compatibility}"
        if row["level"]:
            detail += f", level {row['level']}"
        if row["state"] != "registered" and not registry.register:
            detail += "; kafka.schema_registry.register is off: `schemas register` registers it"
        yield f"{'ok    ' if row['ok'] else 'failed'}  {row['subject']:<{width}}  {detail}"
        yield from (f"        {problem}" for problem in row["problems"])
    wrong = sum(not row["ok"] for row in rows)
    yield f"{len(rows) - wrong} of {len(rows)} subjects are as the service needs them" if wrong else "all is well"
