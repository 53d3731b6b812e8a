"""From a file to a `Config`, or to the list of everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.config.checks import rules
from pipeline.config.document import parse
from pipeline.config.reader import read
from pipeline.config.settings import Config
from pipeline.exchanges import VENUES
from pipeline.exchanges.venue import Venue
from pipeline.model.errors import ConfigError


def load(path: str | Path, venues: Mapping[str, Venue] = VENUES) -> Config:
    """Read a configuration file.

    Raises `ConfigError` with every problem of the file, one line each: `path: what`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"byte {error.start}: not UTF-8"]) from None
    return configure(text, venues)


def configure(text: str, venues: Mapping[str, Venue] = VENUES) -> Config:
    """The same from text."""
    return read(parse(text), Config, rules(venues))
