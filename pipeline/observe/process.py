"""What a process adds to the service's status: how it is itself, and what its log told of lately."""

from __future__ import annotations

import os
from typing import Any

from pipeline.observe.loop import LoopWatch
from pipeline.observe.metrics import resident_bytes
from pipeline.observe.recent import RECENT


def with_process(told: dict[str, Any], loop: LoopWatch) -> dict[str, Any]:
    """The status with `process` and, in the order of their times, all notes in `recent`."""
    process = {"pid": os.getpid(), "resident_bytes": resident_bytes(), "loop_late_s": loop.late_s}
    recent = sorted([*RECENT.notes(), *told.get("recent", ())], key=lambda note: int(note["time"]))
    return {"process": process, **told, "recent": recent}
