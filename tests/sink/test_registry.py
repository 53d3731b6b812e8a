from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import attrs
import h11
import pytest
import structlog
import trio
import trustme

from pipeline.avro.codec import Schemas
from pipeline.avro.schemas import FOLDER, load_schema, to_decimals
from pipeline.model.errors import Refused
from pipeline.model.events import KINDS
from pipeline.model.secret import Secret
from pipeline.sink.errors import SinkFailed
from pipeline.sink.opening import open_sink
from pipeline.sink.registry import Finding, fetch_schema, inspect_schemas, register_schemas
from pipeline.sink.routes import compile_routes, subjects_of
from pipeline.sink.settings import KafkaSettings, RegistrySettings
from tests.services import SchemaRegistry
from tests.sink.traffic import Tape, arrived, direct, numbers, origin, trade

SCHEMAS = Schemas.load()
RELEASES = sorted(path for path in (FOLDER / "released").iterdir() if path.is_dir())


def wanted(settings: KafkaSettings, schemas: Schemas = SCHEMAS) -> dict[str, str]:
    """The subjects of all kinds with their schemas."""
    return {subject: schemas[kind].text for kind, subject in subjects_of(settings, schemas).items()}


def with_fields(*fields: dict[str, Any]) -> str:
    return json.dumps({"type": "record", "name": "Probe", "namespace": "tests", "fields": list(fields)})


PRICE: dict[str, Any] = {"name": "price", "type": {"type": "string", "logicalType": "decimal-text"}}
SIDE: dict[str, Any] = {"name": "side", "type": "string"}
SIZE: dict[str, Any] = {"name": "size", "type": ["null", "long"], "default": None}


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
    settings = attrs.evolve(settings, schema_registry=first)
    subjects = wanted(settings)
    lookup = attrs.evolve(first, register=False)
    with pytest.raises(SinkFailed, match=r"subject t\w+\.market\.trade-value: the schema is not registered") as caught:
        await register_schemas(lookup, subjects)
    assert len(str(caught.value).splitlines()) == len(KINDS)
    ids = await register_schemas(first, subjects)
    assert len(ids) == len(KINDS)
    assert await register_schemas(first, subjects) == ids
    assert await register_schemas(lookup, subjects) == ids
    trade_subject = subjects_of(settings, SCHEMAS)["trade"]
    found = await trio.to_thread.run_sync(fetch_schema, first, ids[trade_subject])
    assert json.loads(found)["name"] == "Trade"
    routes = await compile_routes(attrs.evolve(settings, schema_registry=lookup))
    event = trade(1, origin())
    value = routes[type(event)].encode(event)
    assert int.from_bytes(value[1:5], "big") == ids[trade_subject]


async def test_without_a_registry_records_carry_the_fingerprint() -> None:
    event = trade(1, origin())
    value = (await compile_routes(KafkaSettings()))[type(event)].encode(event)
    assert value[:10] == b"\xc3\x01" + SCHEMAS["trade"].fingerprint


async def test_an_unreachable_registry_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sink.registry._PAUSE_S", 0.01)
    with pytest.raises(SinkFailed, match=r"schema registry http://127\.0\.0\.1:1 cannot be reached"):
        await register_schemas(RegistrySettings("http://127.0.0.1:1"), {"s": "{}"})


@pytest.mark.parametrize("decimals", ["text", "decimal"])
async def test_todays_schemas_go_on_after_every_released_one(
    decimals: Literal["text", "decimal"], registry: SchemaRegistry, settings: KafkaSettings
) -> None:
    settings = attrs.evolve(
        settings, schema_registry=RegistrySettings(registry.url, compatibility="BACKWARD_TRANSITIVE"), decimals=decimals
    )
    assert settings.schema_registry is not None
    schemas = Schemas.load(decimals)
    for release in RELEASES:
        released = {}
        for kind, subject in subjects_of(settings, schemas).items():
            if (release / f"{kind}.avsc").exists():
                old = load_schema(kind, release)
                released[subject] = json.dumps(to_decimals(old) if decimals == "decimal" else old)
        await register_schemas(settings.schema_registry, released)
    ids = await register_schemas(settings.schema_registry, wanted(settings, schemas))
    findings = await inspect_schemas(settings.schema_registry, wanted(settings, schemas))
    assert findings == [Finding(subject, "registered", schema_id) for subject, schema_id in ids.items()]


async def test_an_incompatible_schema_is_refused_with_its_field_before_anything_is_registered(
    registry: SchemaRegistry,
) -> None:
    settings = RegistrySettings(registry.url, compatibility="BACKWARD_TRANSITIVE")
    await register_schemas(settings, {"refused-value": with_fields(PRICE, SIZE)})
    changed = {
        "earlier-value": with_fields(PRICE),
        "refused-value": with_fields(SIZE | {"type": "long", "default": 0}, SIDE),
    }
    with pytest.raises(SinkFailed) as caught:
        await register_schemas(settings, changed)
    assert str(caught.value) == (
        f"schema registry {registry.url}: subject refused-value: the schema is incompatible under BACKWARD_TRANSITIVE: "
        "field size: is no longer nullable (version 1 of the subject); "
        "field side: is new and has no default (version 1 of the subject)"
    )
    (earlier,) = await inspect_schemas(settings, {"earlier-value": with_fields(PRICE)})
    assert earlier.state == "new subject"


async def test_text_does_not_turn_into_decimals_unnoticed(registry: SchemaRegistry) -> None:
    """Avro lets the bytes of one pass for the other, and so does the registry."""
    settings = RegistrySettings(registry.url, compatibility="BACKWARD")
    number = to_decimals(json.loads(with_fields(PRICE)))
    await register_schemas(settings, {"decimals-value": with_fields(PRICE)})
    with pytest.raises(SinkFailed, match=r"field price: string became decimal\(38,18\)"):
        await register_schemas(settings, {"decimals-value": json.dumps(number)})


async def test_of_the_level_forward_the_other_direction_is_explained(registry: SchemaRegistry) -> None:
    settings = RegistrySettings(registry.url, compatibility="FORWARD")
    await register_schemas(settings, {"forward-value": with_fields(PRICE)})
    with pytest.raises(SinkFailed, match=r"under FORWARD: field price: is new and has no default"):
        await register_schemas(settings, {"forward-value": with_fields(SIZE)})


async def test_where_the_level_allows_everything_it_is_told_and_done(registry: SchemaRegistry) -> None:
    settings = RegistrySettings(registry.url)  # this registry's own level is NONE
    await register_schemas(settings, {"anything-value": with_fields(PRICE)})
    with structlog.testing.capture_logs() as logs:
        await register_schemas(settings, {"anything-value": with_fields(PRICE, SIDE)})
    assert [(line["event"], line.get("reason")) for line in logs] == [
        ("schema_incompatible", "field side: is new and has no default (version 1 of the subject)"),
        ("schema_registered", None),
    ]


async def test_subjects_that_exist_keep_their_level(registry: SchemaRegistry) -> None:
    settings = RegistrySettings(registry.url, compatibility="FULL")
    await register_schemas(settings, {"kept-value": with_fields(PRICE)})
    other = attrs.evolve(settings, compatibility="NONE")
    await register_schemas(other, {"kept-value": with_fields(PRICE, SIZE), "none-value": with_fields(PRICE)})
    with registry.client() as client:
        levels = [client.get_compatibility(subject) for subject in ("kept-value", "none-value")]
    assert levels == ["FULL", "NONE"]


@pytest.mark.parametrize(
    ("strategy", "subject"),
    [
        ("topic", "a/b.trade-value"),
        ("record", "pipeline.events.Trade"),
        ("topic_record", "a/b.trade-pipeline.events.Trade"),
    ],
)
async def test_subjects_are_named_by_topic_or_by_record(
    strategy: Literal["topic", "record", "topic_record"], subject: str, registry: SchemaRegistry
) -> None:
    registry_settings = RegistrySettings(registry.url, subjects=strategy)
    settings = KafkaSettings(topic_template="a/b.{kind}", schema_registry=registry_settings)
    assert subjects_of(settings, SCHEMAS)["trade"] == subject
    ids = await register_schemas(registry_settings, {subject: SCHEMAS["trade"].text})
    with registry.client() as client:
        assert client.get_schema(ids[subject]).schema_str == SCHEMAS["trade"].text


async def test_a_registry_that_leaves_after_the_start_is_not_missed(
    own_registry: SchemaRegistry, settings: KafkaSettings
) -> None:
    settings = attrs.evolve(settings, schema_registry=RegistrySettings(own_registry.url))
    tape = Tape()
    async with open_sink(settings) as sink:
        await trio.to_thread.run_sync(own_registry.kill)
        tape.publish(sink, 100)
        await direct(sink)
    assert sink.stats().acknowledged == 100


async def test_an_answer_that_is_none_names_the_setting() -> None:
    async def page(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi")

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, page, [listener])
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        with pytest.raises(SinkFailed, match=r"text/html instead of JSON; see kafka\.schema_registry\.url"):
            await register_schemas(RegistrySettings(url), {"s": "{}"})
        nursery.cancel_scope.cancel()


async def test_a_wrong_path_is_no_new_subject(registry: SchemaRegistry) -> None:
    with pytest.raises(SinkFailed, match=r"looking up subject s: HTTP 404"):
        await register_schemas(RegistrySettings(f"{registry.url}/nowhere"), {"s": with_fields(PRICE)})


@asynccontextmanager
async def door(credentials: str = "", tls: ssl.SSLContext | None = None) -> AsyncIterator[RegistrySettings]:
    """A registry that lets in whoever sends this Authorization header."""

    async def answer(plain: trio.SocketStream) -> None:
        stream = plain if tls is None else trio.SSLStream(plain, tls, server_side=True, https_compatible=True)
        try:
            await talk(stream)
        except trio.BrokenResourceError:  # a handshake that one of the two refused
            return

    async def talk(stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER)
        async with stream:
            request: Mapping[bytes, bytes] = {}
            while type(event := connection.next_event()) is not h11.EndOfMessage:
                if event is h11.NEED_DATA:
                    connection.receive_data(bytes(await stream.receive_some()))
                elif isinstance(event, h11.Request):
                    request = dict(event.headers)
                elif isinstance(event, h11.ConnectionClosed):
                    return
            allowed = request.get(b"authorization", b"").decode() == credentials
            body = b'{"id": 7}' if allowed else b'{"error_code": 401, "message": "no entry"}'
            head = [("Content-Length", str(len(body))), ("Connection", "close")]
            response = h11.Response(status_code=200 if allowed else 401, headers=head)
            parts = (response, h11.Data(data=body), h11.EndOfMessage())
            await stream.send_all(b"".join(connection.send(part) or b"" for part in parts))

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        scheme = "http" if tls is None else "https"
        yield RegistrySettings(f"{scheme}://127.0.0.1:{listener.socket.getsockname()[1]}/")
        nursery.cancel_scope.cancel()


async def test_basic_and_bearer_credentials_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_SECRET", "s3cret")
    secret = Secret(env="REGISTRY_SECRET")
    async with door("Basic " + base64.b64encode(b"me:s3cret").decode()) as settings:
        assert await register_schemas(attrs.evolve(settings, username="me", password=secret), {"s": "{}"}) == {"s": 7}
        with pytest.raises(
            SinkFailed, match=r"looking up subject s: HTTP 401 .*: no entry; see kafka\.schema_registry\.username"
        ):
            await register_schemas(settings, {"s": "{}"})
    async with door("Bearer s3cret") as settings:
        assert await register_schemas(attrs.evolve(settings, bearer_token=secret), {"s": "{}"}) == {"s": 7}


@pytest.mark.parametrize("name", ["password", "bearer_token"])
async def test_a_secret_that_is_missing_is_told_with_its_key(name: str, tmp_path: Path) -> None:
    secret: dict[str, Any] = {name: Secret(file=str(tmp_path / "none"))}
    settings = RegistrySettings("https://127.0.0.1:1", **secret)
    with pytest.raises(Refused, match=rf"^kafka\.schema_registry\.{name}: secret file .*none: No such file"):
        await register_schemas(settings, {"s": "{}"})


async def test_a_ca_file_that_is_none_is_named(tmp_path: Path) -> None:
    settings = RegistrySettings("https://127.0.0.1:1", ca_file=str(tmp_path / "ca.pem"))
    with pytest.raises(SinkFailed, match=r"CA file .*ca\.pem"):
        await register_schemas(settings, {"s": "{}"})


# Where a connection breaks, httpx leaves its half-read request to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
async def test_tls_with_a_ca_and_a_client_certificate_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.sink.registry._PAUSE_S", 0.01)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    ours = authority.issue_cert("client.test", common_name="client")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    ours.private_key_pem.write_to_path(tmp_path / "client.key")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(server)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    async with door(tls=server) as settings:
        complete = attrs.evolve(
            settings,
            ca_file=str(tmp_path / "ca.pem"),
            certificate_file=str(tmp_path / "client.pem"),
            key_file=str(tmp_path / "client.key"),
        )
        assert await register_schemas(complete, {"s": "{}"}) == {"s": 7}
        with pytest.raises(SinkFailed, match=r"CERTIFICATE_VERIFY_FAILED.*; see kafka\.schema_registry\.ca_file"):
            await register_schemas(settings, {"s": "{}"})
        with pytest.raises(SinkFailed, match=r"cannot be reached: .*see kafka\.schema_registry\.certificate_file$"):
            await register_schemas(attrs.evolve(complete, certificate_file=None, key_file=None), {"s": "{}"})
        with pytest.raises(SinkFailed, match=r"certificate file .*client\.pem, key file none: "):
            await register_schemas(attrs.evolve(complete, key_file=None), {"s": "{}"})
