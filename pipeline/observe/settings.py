"""What can be configured about logs and the HTTP server."""

from __future__ import annotations

from typing import Literal

import attrs


@attrs.frozen
class LogSettings:
    """Logs go to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"
    """auto: console on a terminal, else JSON lines."""


@attrs.frozen
class HttpSettings:
    """Metrics, probes and status over HTTP."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = 9464
    """0 picks a free port, printed at start."""
