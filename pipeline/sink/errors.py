"""What ends the sink, or keeps it from starting."""

from __future__ import annotations

from pipeline.model.errors import PipelineError


class SinkFailed(PipelineError):
    """Kafka or the schema registry cannot be used as configured; the text says which part, where, and why."""


class RegistryAbsent(SinkFailed):
    """The schema registry does not answer, or says that the trouble is its own: it may do so later."""
