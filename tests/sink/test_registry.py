from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import h11
import pytest
import trio

from pipeline.avro.codec import Schemas
from pipeline.model.events import KINDS
from pipeline.model.secret import Secret
from pipeline.sink.errors import SinkFailed
from pipeline.sink.opening import open_sink
from pipeline.sink.registry import fetch_schema, register_schemas
from pipeline.sink.routes import compile_routes, subject_of
from pipeline.sink.settings import KafkaSettings, RegistrySettings
from pipeline.sink.topics import topic_name
from tests.services import SchemaRegistry
from tests.sink.traffic import Tape, arrived, numbers, origin, trade

SCHEMAS = Schemas.load()


async def test_records_name_registered_schemas_and_are_read_by_them(
    settings: KafkaSettings, registry: SchemaRegistry
) -> None:
    settings = attrs.evolve(settings, schema_registry=RegistrySettings(registry.url))
    tape = Tape()
    async with open_sink(settings) as sink:
        tape.publish(sink, 100)
    records = await trio.to_thread.run_sync(lambda: list(arrived(settings)))
    assert numbers(records) == tape.expected()
    assert {record.value[0] for record in records} == {0}


async def test_what_was_registered_is_looked_up(registry: SchemaRegistry, settings: KafkaSettings) -> None:
    first = RegistrySettings(registry.url)
    subjects = {subject_of(topic_name(settings, kind)): SCHEMAS[kind].text for kind in KINDS}
    lookup = attrs.evolve(first, register=False)
    with pytest.raises(SinkFailed, match=r"looking up subject t\w+\.market\.trade-value: HTTP 404"):
        await register_schemas(lookup, subjects)
    ids = await register_schemas(first, subjects)
    assert len(ids) == len(KINDS)
    assert await register_schemas(first, subjects) == ids
    assert await register_schemas(lookup, subjects) == ids
    found = await trio.to_thread.run_sync(fetch_schema, first, ids[subject_of(topic_name(settings, "trade"))])
    assert json.loads(found)["name"] == "Trade"
    routes = await compile_routes(attrs.evolve(settings, schema_registry=lookup))
    event = trade(1, origin())
    value = routes[type(event)].encode(event)
    assert int.from_bytes(value[1:5], "big") == ids[subject_of(topic_name(settings, "trade"))]


async def test_without_a_registry_records_carry_the_fingerprint() -> None:
    event = trade(1, origin())
    value = (await compile_routes(KafkaSettings()))[type(event)].encode(event)
    assert value[:10] == b"\xc3\x01" + SCHEMAS["trade"].fingerprint


async def test_an_unreachable_registry_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sink.registry._PAUSE_S", 0.01)
    with pytest.raises(SinkFailed, match=r"schema registry http://127\.0\.0\.1:1 cannot be reached"):
        await register_schemas(RegistrySettings("http://127.0.0.1:1"), {"s": "{}"})


@asynccontextmanager
async def door(credentials: str) -> AsyncIterator[RegistrySettings]:
    """A registry that lets in whoever sends this Authorization header."""

    async def answer(stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        async with stream:
            request: Mapping[bytes, bytes] = {}
            while type(event := connection.next_event()) is not h11.EndOfMessage:
                if event is h11.NEED_DATA:
                    connection.receive_data(await stream.receive_some())
                elif isinstance(event, h11.Request):
                    request = dict(event.headers)
            allowed = request.get(b"authorization", b"").decode() == credentials
            body = b'{"id": 7}' if allowed else b'{"error_code": 401, "message": "no entry"}'
            head = [("Content-Length", str(len(body))), ("Connection", "close")]
            response = h11.Response(status_code=200 if allowed else 401, headers=head)
            parts = (response, h11.Data(data=body), h11.EndOfMessage())
            await stream.send_all(b"".join(connection.send(part) or b"" for part in parts))

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        yield RegistrySettings(f"http://127.0.0.1:{listener.socket.getsockname()[1]}/")
        nursery.cancel_scope.cancel()


async def test_basic_and_bearer_credentials_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_SECRET", "s3cret")
    secret = Secret(env="REGISTRY_SECRET")
    async with door("Basic " + base64.b64encode(b"me:s3cret").decode()) as settings:
        assert await register_schemas(attrs.evolve(settings, username="me", password=secret), {"s": "{}"}) == {"s": 7}
        with pytest.raises(SinkFailed, match=r"registering subject s: HTTP 401 .*: no entry"):
            await register_schemas(settings, {"s": "{}"})
    async with door("Bearer s3cret") as settings:
        assert await register_schemas(attrs.evolve(settings, bearer_token=secret), {"s": "{}"}) == {"s": 7}


async def test_a_ca_file_that_is_none_is_named(tmp_path: Path) -> None:
    settings = RegistrySettings("https://127.0.0.1:1", ca_file=str(tmp_path / "ca.pem"))
    with pytest.raises(SinkFailed, match=r"CA file .*ca\.pem"):
        await register_schemas(settings, {"s": "{}"})
