"""What ends the sink, or keeps it from starting."""

from __future__ import annotations

from pipeline.model.errors import PipelineError


class SinkFailed(PipelineError):
    """Kafka or the schema registry cannot be used as configured; the text says which part, where, and why."""
