"""Logs: structlog's and the standard library's through one handler, as JSON lines or coloured text."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from pipeline.observe.recent import RECENT, RecentHandler
from pipeline.observe.repeats import QuietHandler, Repeats
from pipeline.observe.settings import LogSettings

REDACTED = "***"

_SECRET = re.compile(
    r"passw(or)?d|passphrase|secret|token|credential|authorization|signature|api_?key|jaas|oauthbearer\.config"
    r"|private[._]key|key\.pem|(^|[._-])sign$",
    re.IGNORECASE,
)
# What merely describes a secret: where it is, what it is called, how it is used.
_DESCRIPTION = re.compile(
    r"[._-](url|location|file|path|id|name|method|algorithm|scope|endpoint|seconds|ms)$", re.IGNORECASE
)
_USERINFO = re.compile(r"(?<=://)[^/\s@]+@")

# They log each request or frame below warning, which is noise here and could carry signed URLs.
_CHATTY = ("httpx", "httpcore", "trio-websocket", "asyncio", "hypercorn.access")


def looks_secret(name: str) -> bool:
    """Whether a key of this name is likely to hold a secret, so that its value must not be shown."""
    return _SECRET.search(name) is not None and _DESCRIPTION.search(name) is None


def redact(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """A structlog processor: values under secret-looking names, and credentials inside URLs, become asterisks."""
    for name, value in event.items():
        event[name] = _redacted(name, value)
    return event


def _redacted(name: str, value: object) -> object:
    if value is not None and looks_secret(name):
        return REDACTED
    if isinstance(value, str):
        return _USERINFO.sub(f"{REDACTED}@", value) if "://" in value else value
    if isinstance(value, Mapping):
        return {key: _redacted(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(name, item) for item in value]
    return value


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Send every log line of this process to `stream` (standard error); later calls replace earlier ones."""
    stream = sys.stderr if stream is None else stream
    console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    handler = QuietHandler(stream, Repeats(settings.repeats))
    handler.setLevel(settings.level.upper())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderer(console=console, colours=stream.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler, RecentHandler(RECENT, redact)]
    # What the status page tells does not depend on how much is written.
    root.setLevel(min(handler.level, logging.INFO))
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def reconfigure(settings: LogSettings) -> None:
    """The same for other settings, wherever the lines are written to at present."""
    configure(settings, next((writer.stream for writer in _writers()), None))


@contextmanager
def written_to(stream: TextIO) -> Iterator[None]:
    """Send the log's lines there for as long as the block runs."""
    former = [handler.setStream(stream) for handler in _writers()]
    try:
        yield
    finally:
        for handler in _writers():  # `configure` may have replaced them
            if handler.stream is stream and former and former[0] is not None:
                handler.setStream(former[0])


def _writers() -> list[QuietHandler]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, QuietHandler)]


def _renderer(*, console: bool, colours: bool) -> list[Processor]:
    if console:
        # Locals in a traceback could hold what a key's name would have given away.
        plain = structlog.dev.plain_traceback
        return [redact, structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain)]
    return [
        structlog.processors.format_exc_info,
        redact,
        structlog.processors.JSONRenderer(default=repr, ensure_ascii=False),
    ]
