"""Getting into a broker that asks who is there, and being told in one line why not."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from structlog.testing import capture_logs

from pipeline.config import loads
from pipeline.model.errors import ConfigError, PipelineError, Refused
from pipeline.model.events import DeadLetter, Micros
from pipeline.model.secret import Secret
from pipeline.sink.credentials import keep_fresh, read_token
from pipeline.sink.errors import SinkFailed
from pipeline.sink.opening import open_sink, prepare_more
from pipeline.sink.refusals import refusal
from pipeline.sink.settings import KafkaSettings, TopicSettings
from pipeline.sink.topics import topic_name
from tests.services import SecuredBroker
from tests.services.secured import REAUTHENTICATE_S
from tests.sink.traffic import Tape, arrived, direct, kafka_settings, numbers, origin, until

EVERYTHING = (
    ("WRITE", "TOPIC", "t"),
    ("READ", "TOPIC", "t"),
    ("CREATE", "TOPIC", "t"),
    ("DESCRIBE_CONFIGS", "TOPIC", "t"),
)

Ways = Callable[..., KafkaSettings]


def jwt(subject: str, expires: float) -> str:
    """An unsigned token, which the test broker takes."""
    parts = ({"alg": "none"}, {"sub": subject, "iat": int(time.time()) - 10, "exp": int(expires)})
    texts = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return ".".join((*texts, ""))


@pytest.fixture
def way(secured_broker: SecuredBroker, tmp_path: Path) -> Ways:
    """Settings for one of the broker's listeners."""
    files = secured_broker.certificates
    shared = {"ssl.ca.location": str(files.authority), "reconnect.backoff.max.ms": 300}
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "tls": (secured_broker.tls, {"security.protocol": "SSL"}),
        "mtls": (
            secured_broker.tls,
            {
                "security.protocol": "SSL",
                "ssl.certificate.location": str(files.client),
                "ssl.key.location": str(files.client_key),
            },
        ),
        "sasl": (secured_broker.sasl, {"security.protocol": "SASL_SSL"}),
    }

    def make(name: str, *, bootstrap: str | None = None, secret: str | None = None, **properties: Any) -> KafkaSettings:
        address, own = ways[name]
        if secret is not None:
            (tmp_path / "secret").write_text(secret)
            properties["sasl.password"] = Secret(file=str(tmp_path / "secret"))
        return kafka_settings(
            bootstrap or address,
            tmp_path,
            topic_defaults=TopicSettings(partitions=1),
            properties={**shared, **own, **properties},
        )

    return make


def scram(user: str) -> dict[str, Any]:
    return {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": user}


async def delivers(settings: KafkaSettings) -> None:
    tape = Tape()
    async with open_sink(settings) as sink:
        tape.publish(sink, 50)
        await direct(sink)
        assert sink.stats().acknowledged == 50


async def problem(settings: KafkaSettings) -> str:
    """Why the sink does not open."""
    with trio.fail_after(60), pytest.raises(PipelineError) as caught:
        async with open_sink(settings):
            pytest.fail("it must not open")
    assert isinstance(caught.value, Refused | SinkFailed)
    return str(caught.value)


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group of groups."""
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return [leaf for each in inner for leaf in leaves(each)] or [error]


async def test_a_client_certificate_lets_in(secured_broker: SecuredBroker, way: Ways) -> None:
    secured_broker.allow("client", *EVERYTHING)
    await delivers(way("mtls"))


async def test_a_password_lets_in(secured_broker: SecuredBroker, way: Ways) -> None:
    secured_broker.allow("plain", *EVERYTHING)
    await delivers(way("sasl", secret="plain-secret", **{"sasl.mechanism": "PLAIN", "sasl.username": "plain"}))


async def test_a_token_from_a_file_lets_in(secured_broker: SecuredBroker, way: Ways, tmp_path: Path) -> None:
    secured_broker.allow("workload", *EVERYTHING)
    (tmp_path / "token").write_text(jwt("workload", time.time() + 600))
    settings = attrs.evolve(way("sasl"), oauth_token=Secret(file=str(tmp_path / "token")))
    await delivers(settings)
    (tmp_path / "token").write_text("no token at all")
    assert re.search(r"the login by OAUTHBEARER failed: .*; see kafka\.oauth_token$", await problem(settings))
    (tmp_path / "token").write_text(jwt("workload", time.time() - 1))
    assert re.search(r"^kafka\.oauth_token: the token in .*token has expired$", await problem(settings))


@asynccontextmanager
async def token_endpoint(requests: list[bytes]) -> AsyncIterator[str]:
    """An identity provider that gives everyone a token."""

    async def answer(stream: trio.SocketStream) -> None:
        requests.append(bytes(await stream.receive_some()))
        body = json.dumps({"access_token": jwt("workload", time.time() + 600), "token_type": "Bearer"}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        await stream.send_all(head.encode() + body)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/token"
        nursery.cancel_scope.cancel()


async def test_a_token_of_an_identity_provider_lets_in(
    secured_broker: SecuredBroker, way: Ways, monkeypatch: pytest.MonkeyPatch
) -> None:
    secured_broker.allow("workload", *EVERYTHING)
    monkeypatch.setenv("CLIENT_SECRET", "hush")
    oidc = {
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": "pipeline",
        "sasl.oauthbearer.client.secret": Secret(env="CLIENT_SECRET"),
    }
    requests: list[bytes] = []
    async with token_endpoint(requests) as url:
        await delivers(way("sasl", **oidc, **{"sasl.oauthbearer.token.endpoint.url": url}))
    credentials = base64.b64encode(b"pipeline:hush")
    assert all(b"Authorization: Basic " + credentials in request for request in requests)
    nobody = way("sasl", **oidc, **{"sasl.oauthbearer.token.endpoint.url": "http://127.0.0.1:1/token"})
    expected = r"the login by OAUTHBEARER failed: Failed to acquire .*; see kafka\.properties\.sasl\.oauthbearer\.\*$"
    assert re.search(expected, await problem(nobody))


async def test_a_password_that_changes_is_used_without_a_restart(
    secured_broker: SecuredBroker, way: Ways, tmp_path: Path
) -> None:
    secured_broker.set_password("rotated", "first")
    secured_broker.allow("rotated", *EVERYTHING)
    settings = attrs.evolve(way("sasl", secret="first", **scram("rotated")), secrets_refresh=0.2)
    tape = Tape()
    async with open_sink(settings) as sink:
        tape.publish(sink, 50)
        await direct(sink)
        await trio.to_thread.run_sync(secured_broker.set_password, "rotated", "second")
        deadline = trio.current_time() + 3 * REAUTHENTICATE_S
        while sink.outlet._refusal is None:  # until the broker asks again
            assert trio.current_time() < deadline + 20
            tape.publish(sink, 7)
            await trio.sleep(0.05)
        before = sink.stats().acknowledged
        (tmp_path / "secret").write_text("second")
        await until(lambda: sink.stats().acknowledged > before)
        await direct(sink)
        assert sink.stats().balanced
    assert numbers(arrived(settings)) == tape.expected()


async def test_keeping_fresh_hands_over_changes_only(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    path, handed = tmp_path / "password", list[tuple[str, str]]()
    path.write_text("one\n")
    secret = Secret(file=str(path))
    settings = KafkaSettings(properties={"sasl.username": "me", "sasl.password": secret}, secrets_refresh=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_fresh, settings, lambda user, password: handed.append((user, password)))
        await trio.sleep(25)
        path.unlink()  # between two versions of a mounted secret
        await trio.sleep(10)
        path.write_text("two")
        await trio.sleep(10)
        assert handed == [("me", "two")]
        await trio.sleep(100)
        assert len(handed) == 1
        nursery.cancel_scope.cancel()
    await keep_fresh(
        attrs.evolve(settings, properties={"sasl.username": "me"}), lambda *_: pytest.fail("nothing to do")
    )


def test_a_token_is_used_for_five_minutes_or_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    for token, until_s in ((jwt("me", 1_060), 1_060), (jwt("me", 9_000), 1_300), ("opaque", 1_300), ("a.b.c", 1_300)):
        monkeypatch.setenv("TOKEN", token)
        assert read_token(Secret(env="TOKEN"), lambda: 1_000.0) == (token, until_s)


async def test_refusals_at_start_say_who_refused_what_and_where_to_look(
    secured_broker: SecuredBroker, way: Ways
) -> None:
    tls, sasl = re.escape(secured_broker.tls), re.escape(secured_broker.sasl)
    files = secured_broker.certificates
    cases = [
        (way("tls"), rf"{tls}: asks for a client certificate; see kafka\.properties\.ssl\.certificate\.location and"),
        (
            way("mtls", **{"ssl.ca.location": str(files.stranger)}),
            rf"{tls}: its certificate is not accepted: unable to get .*; see kafka\.properties\.ssl\.ca\.location$",
        ),
        (
            way("mtls", bootstrap=secured_broker.expired),
            rf"{re.escape(secured_broker.expired)}: its certificate is not accepted: certificate has expired; it must",
        ),
        (
            way("mtls", bootstrap=secured_broker.tls.replace("127.0.0.1", "localhost")),
            r"localhost:\d+: its certificate is for another name: .*; see kafka\.bootstrap_servers$",
        ),
        (
            way("mtls", **{"security.protocol": "plaintext"}),
            rf"{tls}: speaks TLS; set kafka\.properties\.security\.protocol, which is PLAINTEXT, to SSL or SASL_SSL$",
        ),
        (
            way("mtls", bootstrap=secured_broker.bootstrap),
            r": does not speak TLS; see kafka\.properties\.security\.protocol, which is SSL$",
        ),
        (
            way("sasl", secret="hunter2", **scram("nobody")),
            rf"{sasl}: the login of nobody by SCRAM-SHA-512 failed: .*see kafka\.properties\.sasl\.username and ",
        ),
        (
            way("sasl", secret="any", **scram("nobody") | {"sasl.mechanism": "SCRAM-SHA-256"}),
            r"the login of nobody by SCRAM-SHA-256 failed: .*see kafka\.properties\.sasl\.mechanism$",
        ),
    ]
    for settings, expected in cases:
        told = await problem(settings)
        assert re.search(f"^Kafka at .* refused us: .*{expected}", told), told
        assert "\n" not in told
        assert "hunter2" not in told


async def test_rights_that_are_missing_are_told_at_start(secured_broker: SecuredBroker, way: Ways) -> None:
    secured_broker.set_password("reader", "r")
    settings = way("sasl", secret="r", **scram("reader"))
    with trio.fail_after(60), pytest.RaisesGroup(SinkFailed, allow_unwrapped=True, flatten_subgroups=True) as caught:
        async with open_sink(settings):
            await trio.sleep_forever()
    assert re.search(
        r"grant us Create on|Write on the topics, or IdempotentWrite", "".join(map(str, leaves(caught.value)))
    )
    secured_broker.allow("reader", ("WRITE", "TOPIC", "elsewhere"))
    lines = (await problem(settings)).splitlines()
    expected = r"^topic t\w+\.market\.trade: cannot be created: .*uthorization failed.*; grant us Create on the cluster"
    assert re.search(expected, lines[0])
    prefix = settings.topic_template.partition(".")[0]
    admin = AdminClient({"bootstrap.servers": secured_broker.bootstrap})
    config = {"max.message.bytes": "2000000"}
    topics = [NewTopic(line.split(":")[0].removeprefix("topic "), 1, 1, config=config) for line in lines]
    for future in admin.create_topics(topics).values():
        future.result()
    secured_broker.allow("reader", ("DESCRIBE", "TOPIC", prefix))
    lines = (await problem(attrs.evolve(settings, create_topics=False))).splitlines()
    assert lines[0].endswith(".market.trade: we may not write it: grant us Write on the topic")
    secured_broker.allow("reader", ("WRITE", "TOPIC", prefix))
    await delivers(attrs.evolve(settings, create_topics=False))
    with pytest.raises(SinkFailed, match=r"market\.trade: we may not read it: grant us Read on the topic$"):
        list(arrived(settings))
    with pytest.raises(SinkFailed, match=r"the login of reader by SCRAM-SHA-512 failed: "):
        list(arrived(way("sasl", secret="wrong", **scram("reader"))))


async def test_rights_are_needed_for_what_can_be_published_and_no_more(
    secured_broker: SecuredBroker, way: Ways
) -> None:
    """An installation with accounts alone, held to the rights that docs/operations.md grants it."""
    secured_broker.set_password("desk", "d")
    own = loads("venues: {bybit: {accounts: {desk: {api_key: {env: K}, api_secret: {env: S}, channels: [order]}}}}")
    settings = way("sasl", secret="d", **scram("desk"))
    prefix = settings.topic_template.partition(".")[0]
    config = {"max.message.bytes": "2000000"}
    admin = AdminClient({"bootstrap.servers": secured_broker.bootstrap})
    topics = [NewTopic(topic_name(settings, kind), 1, 1, config=config) for kind in own.written_kinds]
    for future in admin.create_topics(topics).values():
        future.result()
    groups = [f"{prefix}.{group}" for group in ("account.", "control.", "market.instrument")]
    secured_broker.allow("desk", *(("WRITE", "TOPIC", group) for group in groups))
    assert "market.trade" in await problem(settings), "all kinds, and this one is not ours"
    async with open_sink(attrs.evolve(settings, create_topics=False), kinds=own.written_kinds) as sink:
        sink.publish(DeadLetter(origin(), None, Micros(1), None, "parse", "one", b"", 0, ""))
        await direct(sink)
        with capture_logs() as logs:
            await prepare_more(sink, ["trade"])
        [line] = [line for line in logs if line["event"] == "topics_unfit"]
        assert line["reason"].startswith(f"topic {prefix}.market.trade: ")
        admin.create_topics([NewTopic(topic_name(settings, "trade"), 1, 1, config=config)])[
            topic_name(settings, "trade")
        ].result()
        secured_broker.allow("desk", ("WRITE", "TOPIC", f"{prefix}.market.trade"))
        with capture_logs() as logs:
            await prepare_more(sink, ["trade"])
        assert not [line for line in logs if line["log_level"] == "error"]


async def test_transactions_need_a_right_of_their_own(secured_broker: SecuredBroker, way: Ways) -> None:
    secured_broker.set_password("once", "o")
    secured_broker.allow("once", *EVERYTHING)
    settings = attrs.evolve(way("sasl", secret="o", **scram("once")), delivery="exactly_once", shard="shard-1")
    with trio.fail_after(60), pytest.RaisesGroup(SinkFailed, flatten_subgroups=True) as caught:
        async with open_sink(settings):
            await trio.sleep_forever()
    told = "".join(map(str, leaves(caught.value)))
    assert re.search(r"(?i)transactional.id authorization failed", told), told
    assert "kafka.shard" in told
    secured_broker.allow("once", ("WRITE", "TRANSACTIONAL_ID", "shard-"), ("DESCRIBE", "TRANSACTIONAL_ID", "shard-"))
    await delivers(settings)


async def test_a_property_that_no_client_takes_is_named(way: Ways) -> None:
    with pytest.raises(ConfigError, match=r"^kafka\.properties\.ssl\.nonsense: "):
        async with open_sink(way("mtls", **{"ssl.nonsense": "x"})):
            pytest.fail("it must not open")


def test_passing_trouble_is_no_refusal() -> None:
    settings = KafkaSettings()
    for code, text in (
        (
            KafkaError._TRANSPORT,
            "b:9092/1: Connect to ipv4#1.2.3.4:9092 failed: Connection refused (after 0ms in state CONNECT)",
        ),
        (KafkaError._TRANSPORT, "b:9092/1: Disconnected (after 5ms in state UP)"),
        (KafkaError._RESOLVE, "b:9092/bootstrap: Failed to resolve 'b:9092': Name or service not known"),
    ):
        assert refusal(settings, KafkaError(code, text)) is None
    assert refusal(settings, None) is None
