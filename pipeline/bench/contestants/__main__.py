"""One contestant in this process."""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module

from pipeline.bench.contestants import CONTESTANTS
from pipeline.bench.measure import Task, report


def main() -> None:
    """Run what the task names, and report."""
    task = Task(**json.loads(sys.argv[1]))
    if task.core is not None:
        os.sched_setaffinity(0, {task.core})
    contestant = import_module(f"pipeline.bench.contestants.{CONTESTANTS[task.name].module}")
    report(contestant.run(task))


main()
