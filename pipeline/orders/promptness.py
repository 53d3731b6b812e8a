"""What the interpreter is told while orders are taken."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

SWITCH_INTERVAL = 0.0005
"""Seconds for which a thread that computes may keep the event loop from running. Python has 5 ms."""


@contextmanager
def promptness() -> Iterator[None]:
    """Threads of this process take turns at least so often, until left."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(min(interval, SWITCH_INTERVAL))
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
