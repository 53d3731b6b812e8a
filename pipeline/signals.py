"""The signals that a process obeys: to end, and to read its configuration anew."""

from __future__ import annotations

import os
import signal


def obeyed_signals() -> list[signal.Signals]:
    """SIGTERM, SIGINT, and SIGHUP unless whoever started us wanted it ignored, as `nohup` does."""
    ignores_hangup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([] if ignores_hangup else [signal.SIGHUP])]


def has_terminal() -> bool:
    """Whether the process has a terminal: SIGHUP also tells that this is gone, and then the process should end."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
