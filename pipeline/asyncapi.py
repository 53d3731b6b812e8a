"""The topics and their records as an AsyncAPI 3 document, for tools that generate clients and catalogues from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from pipeline import __version__
from pipeline.avro.codec import Schemas
from pipeline.event_reference import cleanup
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.topics import TopicPlan, group_of, plan_topics

VERSION = "3.0.0"
_BINDING = {"bindingVersion": "0.5.0"}
_AVRO = "application/vnd.apache.avro;version=1.9.0"
_DESCRIPTION = (
    "Streams of crypto exchanges, normalized. One topic per kind of event; the key keeps the records of one instrument "
    "in order. Two records that agree in the fields of x-identity tell the same fact."
)


def document(settings: KafkaSettings | None = None) -> dict[str, Any]:
    """The topics as a configuration has them; by default, as the defaults do."""
    settings = settings or KafkaSettings()
    schemas = Schemas.load(settings.decimals)
    plans = plan_topics(settings, schemas.codecs)
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "exchange-pipeline",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/vnd.apache.avro",
        "servers": {f"broker{n}": server for n, server in enumerate(map(_server, settings.bootstrap_servers))},
        "channels": {plan.kind: _channel(plan) for plan in plans},
        "operations": {
            f"publish_{plan.kind}": {
                "action": "send",
                "summary": schemas.schema(plan.kind)["doc"],
                "channel": {"$ref": f"#/channels/{plan.kind}"},
            }
            for plan in plans
        },
        "components": {
            "messages": {plan.kind: _message(plan.kind, schemas.schema(plan.kind), settings) for plan in plans}
        },
    }


def text(settings: KafkaSettings | None = None) -> str:
    """The same as YAML."""
    comment = "# Written by `python -m pipeline reference asyncapi`.\n"
    return comment + yaml.dump(
        document(settings), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False
    )


class _Dumper(yaml.SafeDumper):
    # An alias would hide from readers, and from some tools, what stands there.
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _server(address: str) -> dict[str, str]:
    scheme, _, host = address.rpartition("://")
    return {"host": host, "protocol": "kafka-secure" if scheme.upper().endswith("SSL") else "kafka"}


def _channel(plan: TopicPlan) -> dict[str, Any]:
    policy = cleanup(plan)
    config: dict[str, Any] = {"cleanup.policy": [policy]}
    if policy == "delete":
        config["retention.ms"] = int(plan.config["retention.ms"])
    config["max.message.bytes"] = int(plan.config["max.message.bytes"])
    kafka = {"topic": plan.name, "partitions": plan.partitions, "topicConfiguration": config, **_BINDING}
    if plan.replication_factor is not None:
        kafka["replicas"] = plan.replication_factor
    return {
        "address": plan.name,
        "messages": {plan.kind: {"$ref": f"#/components/messages/{plan.kind}"}},
        "bindings": {"kafka": kafka},
    }


def _message(kind: str, schema: Mapping[str, Any], settings: KafkaSettings) -> dict[str, Any]:
    scope = "account" if group_of(kind) == "account" else "market"
    kafka: dict[str, Any] = {"key": {"type": "string", "description": f"venue.{scope}.instrument"}, **_BINDING}
    if settings.schema_registry is not None:
        kafka |= {"schemaIdLocation": "payload", "schemaIdPayloadEncoding": "confluent"}
    return {
        "name": schema["name"],
        "summary": schema["doc"],
        "payload": {"schemaFormat": _AVRO, "schema": schema},
        "bindings": {"kafka": kafka},
        "x-identity": schema["identity"],
    }
