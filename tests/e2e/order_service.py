"""The service as a process that ends, as if killed from outside, when an order command reaches a step."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial

from pipeline import app, cli


def main(config: str, fatal: str) -> int:
    """Run until told to end, or to the step; an empty one is never reached."""

    def seam(step: str) -> None:
        if step == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    app.Service = partial(app.Service, order_seam=seam)  # type: ignore[misc, assignment]
    return cli.main(["--config", config])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
