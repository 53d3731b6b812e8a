"""The topics and their records as an AsyncAPI 3 document, for tools that generate clients and catalogues from one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from pipeline import __version__
from pipeline.avro.codec import Schemas
from pipeline.avro.schemas import ORDER_COMMAND, load_schema
from pipeline.event_reference import cleanup
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.topics import TopicPlan, group_of, plan_topics

VERSION = "3.0.0"
_BINDING = {"bindingVersion": "0.5.0"}
_AVRO = "application/vnd.apache.avro;version=1.9.0"
_DESCRIPTION = (
    "Streams of crypto exchanges, normalized. One topic per kind of event; the key keeps the records of one instrument "
    "in order. Two records that agree in the fields of x-identity tell the same fact. Orders are commands on topics "
    "of accounts."
)


def document(settings: KafkaSettings | None = None) -> dict[str, Any]:
    """The topics as a configuration has them; by default, as the defaults do."""
    settings = settings or KafkaSettings()
    schemas = Schemas.load(settings.decimals)
    plans = plan_topics(settings, schemas.codecs)
    (commands,) = plan_topics(settings, [ORDER_COMMAND])
    command = load_schema(ORDER_COMMAND)
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
        "channels": {**{plan.kind: _channel(plan) for plan in plans}, ORDER_COMMAND: _command_channel(commands)},
        "operations": {
            **{
                f"publish_{plan.kind}": _operation("send", plan.kind, schemas.schema(plan.kind)["doc"])
                for plan in plans
            },
            f"read_{ORDER_COMMAND}": _operation("receive", ORDER_COMMAND, command["doc"]),
        },
        "components": {
            "messages": {
                **{plan.kind: _message(plan.kind, schemas.schema(plan.kind), settings) for plan in plans},
                ORDER_COMMAND: _message(ORDER_COMMAND, command, settings),
            }
        },
    }


def _operation(action: str, kind: str, summary: str) -> dict[str, Any]:
    return {"action": action, "summary": summary, "channel": {"$ref": f"#/channels/{kind}"}}


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


def _command_channel(plan: TopicPlan) -> dict[str, Any]:
    """A topic per account, which whoever trades writes."""
    channel = _channel(plan)
    del channel["bindings"]["kafka"]["topic"]  # which would contradict an address with parameters
    return {
        **channel,
        "address": f"{plan.name}.{{venue}}.{{account}}",
        "parameters": {
            "venue": {"description": "The exchange: bybit, okx."},
            "account": {"description": "The configured account."},
        },
    }


def _message(kind: str, schema: Mapping[str, Any], settings: KafkaSettings) -> dict[str, Any]:
    scope = "account" if group_of(kind) in ("account", "order") else "market"
    key = "any" if kind == ORDER_COMMAND else f"venue.{scope}.instrument"
    kafka: dict[str, Any] = {"key": {"type": "string", "description": key}, **_BINDING}
    if settings.schema_registry is not None and kind != ORDER_COMMAND:
        kafka |= {"schemaIdLocation": "payload", "schemaIdPayloadEncoding": "confluent"}
    return {
        "name": schema["name"],
        "summary": schema["doc"],
        "payload": {"schemaFormat": _AVRO, "schema": schema},
        "bindings": {"kafka": kafka},
        "x-identity": schema["identity"],
    }
