"""Ports that stay ours across a restart of the service that listens there."""

from __future__ import annotations

import fcntl
import random
import socket
from typing import IO

from tests.services.artifacts import cache_folder

# Below the ephemeral ranges of Linux and macOS: while a killed service is down, no outgoing connection takes its port.
_FIRST, _LAST = 20_000, 30_000
_TRIES = 200

_held: list[IO[bytes]] = []  # the locks of this process' ports, released by the system when it ends


def reserve_port() -> int:
    """A loopback TCP port that nobody listens on and no other test run reserves while this process lives."""
    folder = cache_folder() / "ports"
    folder.mkdir(parents=True, exist_ok=True)
    for port in random.sample(range(_FIRST, _LAST), _TRIES):
        claim = (folder / str(port)).open("wb")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
        else:
            _held.append(claim)
            return port
    raise OSError(f"no free port among {_TRIES} tried in {_FIRST}-{_LAST}")
