"""The schema registry: every schema registered or looked up once, before anything is published."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import httpx
import trio

from pipeline.sink.errors import SinkFailed
from pipeline.sink.settings import RegistrySettings

_ATTEMPTS = 3
_PAUSE_S = 1.0
_CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"


async def register_schemas(settings: RegistrySettings, subjects: Mapping[str, str]) -> dict[str, int]:
    """The identifier of each subject's schema (JSON text), registered first if the settings say so.

    Raises `SinkFailed` naming the registry and the subject, `Refused` for a secret that is missing.
    """
    # Our own calls: the client that ships with the Kafka library retries with asyncio, and its token
    # authentication insists on headers of one vendor.
    async with httpx.AsyncClient(**_client_options(settings)) as client:
        return {subject: await _identifier(client, settings, subject, text) for subject, text in subjects.items()}


def fetch_schema(settings: RegistrySettings, schema_id: int) -> str:
    """The schema (JSON text) with this identifier, for readers; blocks. Raises `SinkFailed`."""
    url = f"{_base(settings)}/schemas/ids/{schema_id}"
    with httpx.Client(**_client_options(settings)) as client:
        try:
            response = client.get(url)
        except httpx.TransportError as error:
            raise SinkFailed(_unreachable(settings, error)) from None
    if not response.is_success:
        raise SinkFailed(f"schema registry {settings.url}: schema {schema_id}: {_reason(response)}")
    return str(response.json()["schema"])


async def _identifier(client: httpx.AsyncClient, settings: RegistrySettings, subject: str, text: str) -> int:
    url = f"{_base(settings)}/subjects/{subject}" + ("/versions" if settings.register else "")
    response = await _post(client, settings, url, {"schema": text})
    if not response.is_success:
        wish = "registering" if settings.register else "looking up"
        raise SinkFailed(f"schema registry {settings.url}: {wish} subject {subject}: {_reason(response)}")
    try:
        return int(response.json()["id"])
    except (ValueError, KeyError, TypeError):
        raise SinkFailed(f"schema registry {settings.url}: subject {subject}: no id in the answer") from None


async def _post(
    client: httpx.AsyncClient, settings: RegistrySettings, url: str, body: Mapping[str, Any]
) -> httpx.Response:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            response = await client.post(url, json=body, headers={"Content-Type": _CONTENT_TYPE})
        except httpx.TransportError as error:
            if attempt == _ATTEMPTS:
                raise SinkFailed(_unreachable(settings, error)) from None
        else:
            if response.status_code < 500 or attempt == _ATTEMPTS:
                return response
        await trio.sleep(_PAUSE_S * attempt)
    raise AssertionError("the last attempt returns or raises")


def _client_options(settings: RegistrySettings) -> dict[str, Any]:
    headers = {"Accept": f"{_CONTENT_TYPE}, application/json"}
    if settings.bearer_token is not None:
        headers["Authorization"] = f"Bearer {settings.bearer_token.reveal()}"
    password = settings.password.reveal() if settings.password is not None else ""
    return {
        "timeout": settings.timeout,
        "headers": headers,
        "auth": (settings.username, password) if settings.username is not None else None,
        "verify": _tls(settings),
        "follow_redirects": True,
    }


def _tls(settings: RegistrySettings) -> ssl.SSLContext | bool:
    if settings.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SinkFailed(f"schema registry: CA file {settings.ca_file}: {error}") from None


def _base(settings: RegistrySettings) -> str:
    return settings.url.rstrip("/")


def _unreachable(settings: RegistrySettings, error: httpx.TransportError) -> str:
    return f"schema registry {settings.url} cannot be reached: {str(error) or type(error).__name__}"


def _reason(response: httpx.Response) -> str:
    try:
        text = str(response.json().get("message") or response.json())
    except (ValueError, AttributeError):
        text = response.text[:200]
    return f"HTTP {response.status_code} {response.reason_phrase}: {text}".rstrip(": ")
