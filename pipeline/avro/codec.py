"""All kinds of events with their schemas, in the form of decimals that the configuration asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import attrs
from fastavro import parse_schema

from pipeline.avro.decoder import decode
from pipeline.avro.encoder import Encoder, compile_encoder
from pipeline.avro.schemas import FOLDER, Schema, fingerprint, load_schema, single_object_header, to_decimals
from pipeline.model.events import EVENTS, Event

Decimals = Literal["text", "decimal"]
"""How prices and sizes are published: as the venue's exact text, or as Avro decimal(38,18)."""


@attrs.frozen(eq=False)
class Codec:
    """One kind of event and its schema."""

    event_class: type[Event]
    schema: Schema
    fingerprint: bytes = attrs.field(init=False)
    _parsed: Schema = attrs.field(init=False, repr=False)

    @fingerprint.default
    def _fingerprint_of_schema(self) -> bytes:
        return fingerprint(self.schema)

    @_parsed.default
    def _parse(self) -> Schema:
        return cast("Schema", parse_schema(self.schema))

    @property
    def text(self) -> str:
        """The schema as a registry takes it."""
        return json.dumps(self.schema, ensure_ascii=False)

    def encoder(self, header: bytes | None = None) -> Encoder:
        """A new encoder; without a header that of the single-object encoding is written."""
        return compile_encoder(
            self.event_class, self.schema, single_object_header(self.schema) if header is None else header
        )

    def decode(self, fields: bytes) -> dict[str, Any]:
        """One record of this very schema, without its header; raises as `decoder.decode` does."""
        return decode(self._parsed, fields)


@attrs.frozen
class Schemas:
    """The codecs of all kinds, in one form of decimals."""

    decimals: Decimals
    codecs: Mapping[str, Codec]

    @classmethod
    def load(cls, decimals: Decimals = "text", folder: Path = FOLDER) -> Schemas:
        """Read all schemas; raises `OSError` or `ValueError` if one is missing or no schema."""
        codecs = {}
        for event_class in EVENTS:
            schema = load_schema(event_class.KIND, folder)
            codecs[event_class.KIND] = Codec(event_class, to_decimals(schema) if decimals == "decimal" else schema)
        return cls(decimals, codecs)

    def __getitem__(self, kind: str) -> Codec:
        return self.codecs[kind]

    def schema(self, kind: str) -> Schema:
        """The schema of a kind, as it is published."""
        return self.codecs[kind].schema

    def kind_of(self, schema_fingerprint: bytes) -> str:
        """The kind whose schema has this fingerprint; raises `KeyError` if none of these has."""
        for kind, codec in self.codecs.items():
            if codec.fingerprint == schema_fingerprint:
                return kind
        raise KeyError(schema_fingerprint.hex())
