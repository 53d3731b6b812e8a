"""Errors, each class answering one question: does trying again help?"""

from __future__ import annotations


class PipelineError(Exception):
    """Base of every error this project raises on purpose."""


class SessionError(PipelineError):
    """A connection to a venue ended; its class says whether another attempt can help."""


class Retryable(SessionError):
    """Passing trouble: reconnect after a back-off."""


class ConnectionLost(Retryable):
    """The peer closed, the socket broke, or it could not be opened."""


class HeartbeatLost(Retryable):
    """A ping went unanswered."""


class DeadlineMissed(Retryable):
    """An awaited step (connect, handshake, acknowledgement, data) did not come in time."""


class ProtocolViolation(Retryable):
    """The peer broke the WebSocket protocol, or sent more than we accept."""


class LoginFailed(Retryable):
    """A login was not granted, and the answer does not tell whether the key, the clock or the venue is at fault."""


class Refused(SessionError):
    """The venue said no, and asking again gives the same answer (bad key, banned address)."""


class BadMessage(PipelineError):
    """One wire message cannot be read; the text says which field and why.

    The connection lives on and the message goes to the dead-letter topic.
    """


class Unencodable(PipelineError):
    """An event does not fit its Avro schema; the text names the field and the value."""


class ConfigError(PipelineError):
    """The configuration is refused: `problems` holds one line per fault, each with its path."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
