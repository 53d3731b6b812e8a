"""The seam through which wall time comes in; durations and deadlines use `trio.current_time()` instead."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], int]
"""Gives the wall-clock time: integer microseconds since 1970, UTC. It may step; never subtract it for durations."""


def system_clock() -> int:
    """The operating system's time: microseconds since 1970, UTC."""
    return time.time_ns() // 1_000
