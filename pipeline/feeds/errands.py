"""REST requests of a connection that its stream does not wait for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from pipeline.exchanges.accounts import Steps


@attrs.frozen
class Errand:
    """Something to be read over signed REST, and what becomes of the answer."""

    what: str
    """For logs: "order snapshot", "fills since …"."""
    steps: Callable[[], Steps[Any]]
    """Made anew per attempt."""
    done: Callable[[Any], None]
    """Takes the result of the steps, without waiting; not called if they fail."""
