"""The demo as a newcomer starts it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

VENUES = {"bybit", "okx"}
ROOT = Path(__file__).parents[1]


def test_the_demo_shows_events_of_both_venues_and_ends_cleanly() -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "demo", "--rate", "20"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert demo.stdout is not None
        seen = ""
        for line in demo.stdout:
            seen += line
            if {venue for venue, _ in re.findall(r"^(bybit|okx) .*(trade|book_update) ", seen, re.MULTILINE)} == VENUES:
                break
        demo.send_signal(signal.SIGINT)
        rest, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()
    assert demo.returncode == 0, seen + rest
    assert re.match(r"Kafka 127\.0\.0\.1:\d+", seen)
    totals = re.findall(r"([\d,]+) records in \d+ s", seen + rest)
    assert int(totals[-1].replace(",", "")) > 50
    assert "dead_letter" not in seen + rest
