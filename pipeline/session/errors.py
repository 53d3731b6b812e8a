"""Ends of connections that carry more than a text: the caller's policy decides by code or status."""

from __future__ import annotations

from pipeline.model.errors import ConnectionLost, ProtocolViolation, Refused, Retryable

_EXCERPT = 300


def excerpt(body: bytes) -> str:
    """The start of an HTTP body, fit for one log line."""
    return " ".join(body[:_EXCERPT].decode("utf-8", "replace").split())


class ConnectionClosed(ConnectionLost):
    """The peer ended the WebSocket.

    `code` is the close frame's (1005 if it had none), or 1006 when the socket ended without a close frame;
    `reason` is the peer's own text.
    """

    def __init__(self, peer: str, code: int, reason: str) -> None:
        super().__init__(f"{peer} closed: {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class MessageRefused(ProtocolViolation):
    """A WebSocket message that is not accepted; `close_code` is what to tell the peer."""

    def __init__(self, close_code: int, why: str) -> None:
        super().__init__(why)
        self.close_code = close_code


class HandshakeRejected(Retryable):
    """The peer answered the WebSocket upgrade with an HTTP error: `status`, and `body` as far as it came."""

    def __init__(self, peer: str, status: int, body: bytes) -> None:
        super().__init__(f"{peer} answered the upgrade with HTTP {status}: {excerpt(body)}".rstrip(": "))
        self.status = status
        self.body = body


class RequestFailed(Retryable):
    """An HTTP request went unanswered or got a passing error; `status` is None without an answer."""

    def __init__(self, what: str, why: str, status: int | None = None, body: bytes = b"") -> None:
        super().__init__(f"{what}: {why}")
        self.status = status
        self.body = body


class RequestRefused(Refused):
    """An HTTP request was answered with a lasting error: `status` and the start of `body`."""

    def __init__(self, what: str, status: int, body: bytes) -> None:
        super().__init__(f"{what}: HTTP {status}: {excerpt(body)}".rstrip(": "))
        self.status = status
        self.body = body
