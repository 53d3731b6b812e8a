"""Who may see what: a bearer token, which browsers show as the password they ask for."""

from __future__ import annotations

import base64
import binascii
import hmac

import attrs

from pipeline.model.secret import Secret
from pipeline.observe.settings import HttpSettings

PROBES = frozenset({"/healthz", "/readyz", "/startupz"})
CHALLENGE = 'Basic realm="pipeline", charset="UTF-8", Bearer realm="pipeline"'


@attrs.frozen
class Access:
    """Compares what a request shows with the configured token."""

    token: Secret | None
    unprotected: frozenset[str]

    @classmethod
    def configured(cls, settings: HttpSettings) -> Access:
        """The rules of these settings. Raises `Refused` if their token cannot be read."""
        if settings.token is not None:
            settings.token.reveal("http.token")
        return cls(settings.token, PROBES if settings.protect_metrics else PROBES | {"/metrics"})

    def allows(self, path: str, authorization: bytes) -> bool:
        """Whether a request with this header may have this path.

        The token is read anew, so that a rotated one holds at once. Raises `Refused` if it cannot be read.
        """
        if self.token is None or path in self.unprotected:
            return True
        # Both sides are compared whole, in a time that does not tell how much of them agrees.
        return hmac.compare_digest(_shown(authorization), self.token.reveal().encode())


def _shown(authorization: bytes) -> bytes:
    """The token inside an `Authorization` header; empty if there is none."""
    scheme, _, value = authorization.partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""
