"""The schema registry: every schema looked up, judged, and registered once, before anything is published."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal
from urllib.parse import quote

import attrs
import httpx
import structlog
import trio

from pipeline.avro.compatibility import differences
from pipeline.avro.schemas import Schema
from pipeline.sink.errors import RegistryAbsent, SinkFailed
from pipeline.sink.settings import RegistrySettings

log = structlog.get_logger()

_ATTEMPTS = 3
_PAUSE_S = 1.0
_CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
_NO_SUBJECT, _NO_SUCH_SCHEMA = 40401, 40403
_HINTS = {
    401: "see kafka.schema_registry.username and password, or bearer_token",
    403: "see kafka.schema_registry.username, or bearer_token: who it is may not do this",
}


@attrs.frozen
class Finding:
    """What a registry has to say about one subject and the schema that it should have."""

    subject: str
    state: Literal["registered", "new subject", "new version", "incompatible"]
    schema_id: int | None = None
    """Of a registered schema."""
    level: str | None = None
    """The subject's compatibility level, where it has a version and ours is none of them."""
    problems: tuple[str, ...] = ()
    """Why it is incompatible; of a new version what would be, if the level did not allow everything."""


async def inspect_schemas(settings: RegistrySettings, subjects: Mapping[str, str]) -> list[Finding]:
    """How each subject stands with its schema (JSON text); changes nothing.

    Raises `SinkFailed` naming the registry and the subject, `Refused` for a secret that is missing.
    """
    async with _open(settings) as registry:
        return [await registry.inspect(subject, text) for subject, text in subjects.items()]


async def register_schemas(settings: RegistrySettings, subjects: Mapping[str, str]) -> dict[str, int]:
    """The identifier of each subject's schema, registered first if the settings say so.

    All are judged before the first is registered. Raises as `inspect_schemas` does, and `SinkFailed` with one line for
    each schema that is incompatible, or missing where the settings say only to look.
    """
    async with _open(settings) as registry:
        findings = [await registry.inspect(subject, text) for subject, text in subjects.items()]
        wrong = [text for finding in findings if (text := obstacle(finding, register=settings.register)) is not None]
        if wrong:
            raise SinkFailed("\n".join(f"schema registry {settings.url}: {text}" for text in wrong))
        return {finding.subject: await registry.identifier(finding, subjects[finding.subject]) for finding in findings}


def obstacle(finding: Finding, *, register: bool) -> str | None:
    """Why nothing can be published under this subject; None if it can, once what may be registered is."""
    if finding.state == "incompatible":
        under = f" under {finding.level}" if finding.level else ""
        return f"subject {finding.subject}: the schema is incompatible{under}: {'; '.join(finding.problems)}"
    if finding.schema_id is None and not register:
        return (
            f"subject {finding.subject}: the schema is not registered, and kafka.schema_registry.register is off; "
            "`schemas register` does it"
        )
    return None


def fetch_schema(settings: RegistrySettings, schema_id: int) -> str:
    """The schema (JSON text) with this identifier, for readers; blocks.

    Raises `ValueError` if the registry has none such, `SinkFailed` if it does not tell: only then it may still come.
    """
    with httpx.Client(**_client_options(settings)) as client:
        try:
            response = client.get(f"/schemas/ids/{schema_id}")
        except httpx.TransportError as error:
            raise SinkFailed(_unreachable(settings, error)) from None
    if response.status_code == 404 and _error_code(response) is not None:  # in its own words: no wrong path
        raise ValueError(f"the registry has no schema {schema_id}")
    return str(_answer(settings, response, f"schema {schema_id}")["schema"])


@asynccontextmanager
async def _open(settings: RegistrySettings) -> AsyncIterator[_Registry]:
    # Our own calls: the client that ships with the Kafka library retries with asyncio, and its token
    # authentication insists on headers of one vendor.
    async with httpx.AsyncClient(**_client_options(settings)) as client:
        yield _Registry(settings, client)


@attrs.frozen(eq=False)
class _Registry:
    settings: RegistrySettings
    client: httpx.AsyncClient

    async def inspect(self, subject: str, text: str) -> Finding:
        what, path, body = f"looking up subject {subject}", f"/subjects/{_quoted(subject)}", {"schema": text}
        response = await self._send("POST", path, body)
        code = _error_code(response)  # 404 alone may also mean that the registry's URL has a wrong path
        if code == _NO_SUBJECT:
            return Finding(subject, "new subject")
        if code == _NO_SUCH_SCHEMA:
            return await self._judge(subject, text)
        return Finding(subject, "registered", schema_id=_identifier(self._answer(response, what), what, self.settings))

    async def _judge(self, subject: str, text: str) -> Finding:
        """Whether the registry would take the schema as a new version of a subject that has some."""
        what, quoted = f"checking subject {subject}", _quoted(subject)
        level = await self._level(subject)
        response = await self._send("POST", f"/compatibility/subjects/{quoted}/versions?verbose=true", {"schema": text})
        verdict = self._answer(response, what)
        older = await self._versions(subject)
        found = _by_version(json.loads(text), older)
        if not verdict.get("is_compatible"):
            # Of the level FORWARD it is readers with the old schema that would fail.
            told = verdict.get("messages") or ()
            problems = found or _by_version(json.loads(text), older, forward=True) or [str(line) for line in told]
            return Finding(subject, "incompatible", level=level, problems=tuple(problems or ["it does not say why"]))
        # A registry takes text for decimals and the other way round: Avro allows it, and readers would get nonsense.
        state: Literal["new version", "incompatible"] = "incompatible" if found and level != "NONE" else "new version"
        return Finding(subject, state, level=level, problems=tuple(found))

    async def identifier(self, finding: Finding, text: str) -> int:
        """Of the finding's schema, registered if it is not."""
        if finding.schema_id is not None:
            return finding.schema_id
        subject = finding.subject
        level = self.settings.compatibility if finding.state == "new subject" else None
        # Some registries keep no level for a subject that does not exist yet.
        if level is not None and await self._level_is_set(subject, level, may_be_missing=True):
            level = None
        if finding.problems:
            log.warning("schema_incompatible", subject=subject, level=finding.level, reason="; ".join(finding.problems))
        what = f"registering subject {subject}"
        response = await self._send("POST", f"/subjects/{_quoted(subject)}/versions", {"schema": text})
        schema_id = _identifier(self._answer(response, what), what, self.settings)
        if level is not None:
            await self._level_is_set(subject, level)
        log.info("schema_registered", subject=subject, schema_id=schema_id)
        return schema_id

    async def _level_is_set(self, subject: str, level: str, *, may_be_missing: bool = False) -> bool:
        response = await self._send("PUT", f"/config/{_quoted(subject)}", {"compatibility": level})
        if may_be_missing and _error_code(response) == _NO_SUBJECT:
            return False
        self._answer(response, f"setting the compatibility of subject {subject} to {level}")
        return True

    async def _level(self, subject: str) -> str:
        path = f"/config/{_quoted(subject)}?defaultToGlobal=true"
        found = self._answer(await self._send("GET", path), f"the compatibility level of subject {subject}")
        return str(found.get("compatibilityLevel") or found.get("compatibility") or "")

    async def _versions(self, subject: str) -> dict[int, Schema]:
        """The subject's schemas by version, latest first."""
        path, found = f"/subjects/{_quoted(subject)}/versions", {}
        listed = await self._send("GET", path)
        numbers = self._answer(listed, f"the versions of subject {subject}")
        for number in sorted(numbers, reverse=True):
            what = f"version {number} of subject {subject}"
            found[number] = json.loads(self._answer(await self._send("GET", f"{path}/{number}"), what)["schema"])
        return found

    def _answer(self, response: httpx.Response, what: str) -> Any:
        return _answer(self.settings, response, what)

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        """Tries again what another attempt may mend. Raises `SinkFailed` if the registry cannot be reached."""
        headers = {"Content-Type": _CONTENT_TYPE} if body is not None else {}
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                response = await self.client.request(method, path, json=body, headers=headers)
            except httpx.TransportError as error:
                if attempt == _ATTEMPTS:
                    raise RegistryAbsent(_unreachable(self.settings, error)) from None
            else:
                if (response.status_code < 500 and response.status_code != 429) or attempt == _ATTEMPTS:
                    return response
            await trio.sleep(_PAUSE_S * attempt)
        raise AssertionError("the last attempt returns or raises")


def _by_version(schema: Schema, older: Mapping[int, Schema], *, forward: bool = False) -> list[str]:
    """What keeps readers from reading, of the latest version with which anything does."""
    for number, other in older.items():
        found = differences(other, schema) if forward else differences(schema, other)
        if found:
            return [f"{text} (version {number} of the subject)" for text in found]
    return []


def _client_options(settings: RegistrySettings) -> dict[str, Any]:
    headers = {"Accept": f"{_CONTENT_TYPE}, application/json"}
    if settings.bearer_token is not None:
        headers["Authorization"] = f"Bearer {settings.bearer_token.reveal('kafka.schema_registry.bearer_token')}"
    password = settings.password.reveal("kafka.schema_registry.password") if settings.password is not None else ""
    return {
        "base_url": settings.url,
        "timeout": settings.timeout,
        "headers": headers,
        "auth": (settings.username, password) if settings.username is not None else None,
        "verify": _tls(settings),
        "follow_redirects": True,
    }


def _tls(settings: RegistrySettings) -> ssl.SSLContext | bool:
    if settings.ca_file is None and settings.certificate_file is None:
        return True
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SinkFailed(f"schema registry: CA file {settings.ca_file}: {error}") from None
    if settings.certificate_file is not None:
        password = (
            settings.key_password.reveal("kafka.schema_registry.key_password")
            if settings.key_password is not None
            else ""
        )
        try:
            context.load_cert_chain(settings.certificate_file, settings.key_file, password)
        except (OSError, ssl.SSLError) as error:
            files = f"certificate file {settings.certificate_file}, key file {settings.key_file or 'none'}"
            raise SinkFailed(f"schema registry: {files}: {error}") from None
    return context


def _quoted(subject: str) -> str:
    return quote(subject, safe="")


def _unreachable(settings: RegistrySettings, error: httpx.TransportError) -> str:
    cause: BaseException = error
    while not str(cause) and (below := cause.__cause__ or cause.__context__) is not None:
        cause = below  # of what TLS says, the wrapping errors have no text
    text = str(cause) or type(error).__name__
    hint = "; see kafka.schema_registry.ca_file" if "CERTIFICATE_VERIFY_FAILED" in text else ""
    if isinstance(error, httpx.ReadError | httpx.RemoteProtocolError) and settings.certificate_file is None:
        hint = "; if it asks for a client certificate, see kafka.schema_registry.certificate_file"
    return f"schema registry {settings.url} cannot be reached: {text}{hint}"


def _answer(settings: RegistrySettings, response: httpx.Response, what: str) -> Any:
    """The body of a success; raises `SinkFailed` saying what was asked for otherwise."""
    where = f"schema registry {settings.url}: {what}"
    if not response.is_success:
        hint = _HINTS.get(response.status_code)
        kind = RegistryAbsent if response.status_code >= 500 else SinkFailed
        raise kind(f"{where}: {_reason(response)}" + (f"; {hint}" if hint else ""))
    try:
        return response.json()
    except ValueError:
        kind = response.headers.get("Content-Type", "something unnamed")
        raise SinkFailed(f"{where}: the answer is {kind} instead of JSON; see kafka.schema_registry.url") from None


def _identifier(answer: Any, what: str, settings: RegistrySettings) -> int:
    try:
        return int(answer["id"])
    except (ValueError, KeyError, TypeError):
        raise SinkFailed(f"schema registry {settings.url}: {what}: no id in the answer") from None


def _error_code(response: httpx.Response) -> int | None:
    try:
        code = response.json().get("error_code")
    except (ValueError, AttributeError):
        return None
    return code if isinstance(code, int) else None


def _reason(response: httpx.Response) -> str:
    try:
        text = str(response.json().get("message") or response.json())
    except (ValueError, AttributeError):
        text = response.text[:200]
    return f"HTTP {response.status_code} {response.reason_phrase}: {text}".rstrip(": ")
