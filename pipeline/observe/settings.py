"""What can be configured about logs and the HTTP server."""

from __future__ import annotations

from typing import Literal

import attrs

from pipeline.model.secret import Secret


@attrs.frozen
class LogSettings:
    """Logs go to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines that are written."""
    format: Literal["auto", "console", "json"] = "auto"
    """auto: console on a terminal, else JSON lines."""
    repeats: int = 5
    """Warnings and errors of one event and connection that are written per minute; the others are counted."""


@attrs.frozen
class HttpSettings:
    """Metrics, probes and the status page over HTTP."""

    enabled: bool = True
    """Whether there is a server at all."""
    host: str = "127.0.0.1"
    """The address to listen on: by default, this machine alone."""
    port: int = 9464
    """0 picks a free port, printed at start."""
    token: Secret | None = None
    """What a caller must show for everything but the probes: as a bearer token, or as the password of any user."""
    protect_metrics: bool = True
    """Whether the token is wanted for `/metrics` too."""
    listeners: int = 16
    """Browsers that may watch at once."""
    send_within: float = 5.0
    """Seconds until a connection that does not take what it asked for is cut."""
    loop_late: float = 5.0
    """Seconds by which the event loop may be late before the process tells that it is not alive."""
