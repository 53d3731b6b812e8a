"""A process that publishes a numbered stream through a sink until it is killed, and says how far it is.

Run as `python -m tests.sink.publisher RUN RATE SETTINGS`, the last a JSON object of what differs from the defaults.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import structlog
import trio

from pipeline.session.failures import leaves
from pipeline.sink.errors import SinkFailed
from pipeline.sink.opening import open_sink
from pipeline.sink.settings import KafkaSettings, SpoolSettings
from tests.sink.traffic import origin, trade

RUN = 1_000_000_000
"""The first number of run n is n times this."""
KEYS = 5
_TURN_S = 0.005


def settings_from(fields: Mapping[str, Any]) -> KafkaSettings:
    """Settings out of JSON."""
    spool = SpoolSettings(**fields["spool"])
    rest = {name: value for name, value in fields.items() if name not in ("spool", "bootstrap_servers")}
    return KafkaSettings(bootstrap_servers=tuple(fields["bootstrap_servers"]), spool=spool, **rest)


def say(word: str, number: int = 0) -> None:
    """To the parent, at once."""
    os.write(1, f"{word} {number}\n".encode())


async def publish(run: int, rate: int, settings: KafkaSettings) -> None:
    """Publish round robin over the keys; says `published N` after each turn, N counting from 0 in each run."""
    origins = [origin(f"COIN{number}USDT") for number in range(KEYS)]
    async with open_sink(settings) as sink:
        say("open")
        start, count = trio.current_time(), 0
        while True:
            due = int((trio.current_time() - start) * rate)
            for number in range(count, due):
                sink.publish(trade(run * RUN + number, origins[number % KEYS]))
            if due > count:
                count = due
                say("published", count)
            await trio.sleep(_TURN_S)


def main(run: str, rate: str, fields: str) -> int:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    code = 0
    try:
        trio.run(publish, int(run), int(rate), settings_from(json.loads(fields)))
    except* SinkFailed as group:
        print(*leaves(group), file=sys.stderr, flush=True)
        code = 1
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
