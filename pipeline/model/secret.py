"""Secrets by reference: where to read one, never the value itself."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from pipeline.model.errors import Refused


@attrs.frozen
class Secret:
    """A reference to an environment variable or a file; exactly one of them is set.

    It is read anew at each use, so that a rotated file takes effect without a restart.
    """

    env: str | None = None
    file: str | None = None

    def __attrs_post_init__(self) -> None:
        if (self.env is None) == (self.file is None):
            raise ValueError("a secret names either an environment variable (env) or a file (file)")

    def reveal(self, key: str = "") -> str:
        """The value, stripped of surrounding white space.

        Raises `Refused` naming what is missing, never the value, behind the `key` that the secret is configured by.
        """
        where = f"{key}: " if key else ""
        if self.env is not None:
            value = os.environ.get(self.env)
            if not value:
                raise Refused(f"{where}environment variable {self.env} is not set")
            return value.strip()
        try:
            value = Path(str(self.file)).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise Refused(f"{where}secret file {self.file}: {error.strerror}") from None
        if not value:
            raise Refused(f"{where}secret file {self.file} is empty")
        return value
