"""The HTTP half of a simulated exchange: requests and responses as values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import attrs
import msgspec


@attrs.frozen
class Request:
    """One HTTP request, its head and body read."""

    method: str
    target: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = b""

    @property
    def path(self) -> str:
        """Without the query string."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """Decoded; empty values are kept."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))


@attrs.frozen
class Response:
    """One HTTP response with a JSON body."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = attrs.Factory(dict)
    """Beside those of the body."""

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """Compact JSON."""
        return cls(msgspec.json.encode(value), status, headers or {})
