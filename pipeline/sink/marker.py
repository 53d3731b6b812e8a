"""A mark beside the spool that says until when everything was safe: the next start finds it after an unclean end."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from pipeline.model.events import Micros
from pipeline.sink.folders import sync_folder

_NAME = "unclean"
_DIGITS = 20


@attrs.define(eq=False)
class Marker:
    """The mark of this process; `open_marker` makes one. Its methods block for a moment and raise `OSError`."""

    found: bool
    """Whether an earlier process left its mark."""
    safe_until: Micros | None
    """What that mark said, microseconds; None if it cannot be read."""
    _path: Path
    _file: int = -1

    def write(self, safe_until: Micros) -> None:
        """Note that everything received before was acknowledged or is on disk."""
        if self._file < 0:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            os.pwrite(self._file, _text(safe_until), 0)
            os.fdatasync(self._file)
            sync_folder(self._path.parent)  # an end right after this has to be noticed too
        else:
            os.pwrite(self._file, _text(safe_until), 0)

    def remove(self) -> None:
        """All is well: the end was clean."""
        self.abandon()
        self._path.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Leave the mark as it is."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def open_marker(folder: Path) -> Marker:
    """See whether the last end was unclean; raises `OSError`."""
    path = folder / _NAME
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Marker(found=False, safe_until=None, path=path)
    digits = text.strip()
    known = digits.isdigit() and len(digits) == _DIGITS
    return Marker(found=True, safe_until=Micros(int(digits)) if known else None, path=path)


def _text(moment: Micros) -> bytes:
    return b"%020d" % moment
