"""How long each step of a connection may take, and how much it may bring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio

from pipeline.model.errors import DeadlineMissed


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds of one connection; times in seconds."""

    connect: float = 10.0
    """Name look-up and TCP connect."""
    handshake: float = 10.0
    """TLS handshake, and again the WebSocket upgrade."""
    ready: float = 30.0
    """From the open WebSocket until logins and subscriptions are answered."""
    send: float = 10.0
    """One message, pongs included, until the kernel has taken it: longer means that the peer reads no more."""
    close: float = 5.0
    """Good-bye to the peer; afterwards the socket is closed whatever it says."""
    max_message_bytes: int = 16 * 1024 * 1024
    """Longest message accepted; enforced as soon as a frame's header is seen."""
    batch: int = 256
    """Most messages handed over per `receive`, so that busy sockets leave turns to the others."""


@contextmanager
def within(seconds: float, what: str) -> Iterator[trio.CancelScope]:
    """Raise `DeadlineMissed` if the block takes longer; the yielded scope's deadline may be moved."""
    with trio.move_on_after(seconds) as scope:
        yield scope
    if scope.cancelled_caught:
        raise DeadlineMissed(f"{what}: not within {seconds:g} s")
