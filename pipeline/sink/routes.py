"""Where each kind of event goes and how it is encoded: the one place that joins schemas, topics and the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from pipeline.avro.codec import Schemas
from pipeline.avro.schemas import Schema, confluent_header
from pipeline.model.events import Event
from pipeline.sink.registry import register_schemas
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.topics import topic_name


@attrs.define(eq=False)
class Route:
    """The way of one kind of event."""

    kind: str
    topic: str
    encode: Callable[[Event], bytes]
    """Raises `Unencodable`."""
    nullable_time: bool = False
    """Whether the schema has the exchange time as a union with null."""
    published: int = 0


Routes = Mapping[type[Event], Route]


async def compile_routes(settings: KafkaSettings, schemas: Schemas | None = None) -> dict[type[Event], Route]:
    """The routes of all kinds; with a registry the schemas are registered or looked up first.

    Raises `SinkFailed` or `Refused` as `register_schemas` does.
    """
    schemas = schemas or Schemas.load(settings.decimals)
    headers: dict[str, bytes] = {}
    if settings.schema_registry is not None:
        subjects = subjects_of(settings, schemas)
        wanted = {subject: schemas[kind].text for kind, subject in subjects.items()}
        ids = await register_schemas(settings.schema_registry, wanted)
        headers = {kind: confluent_header(ids[subject]) for kind, subject in subjects.items()}
    return {
        codec.event_class: Route(
            kind, topic_name(settings, kind), codec.encoder(headers.get(kind)), _nullable_time(codec.schema)
        )
        for kind, codec in schemas.codecs.items()
    }


def _nullable_time(schema: Schema) -> bool:
    return any(field["name"] == "exchange_time" and isinstance(field["type"], list) for field in schema["fields"])


def subjects_of(settings: KafkaSettings, schemas: Schemas) -> dict[str, str]:
    """The registry's subject of each kind's schema; empty without a registry."""
    if settings.schema_registry is None:
        return {}
    named = {"topic": "{topic}-value", "record": "{record}", "topic_record": "{topic}-{record}"}
    pattern = named[settings.schema_registry.subjects]
    return {
        kind: pattern.format(topic=topic_name(settings, kind), record=f"{schema['namespace']}.{schema['name']}")
        for kind, schema in ((kind, codec.schema) for kind, codec in schemas.codecs.items())
    }
