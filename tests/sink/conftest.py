"""Sinks against the real broker, and what came out of it."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from pipeline.sink.settings import KafkaSettings, SpoolSettings
from tests.services import KafkaBroker


@pytest.fixture
def settings(broker: KafkaBroker, tmp_path: Path) -> KafkaSettings:
    """Topics and spool of this test's own on the shared broker."""
    return kafka_settings(broker.bootstrap, tmp_path)


def kafka_settings(bootstrap: str, folder: Path, **changes: Any) -> KafkaSettings:
    """Quick to give up, with topics nobody else has."""
    defaults = {
        "bootstrap_servers": (bootstrap,),
        "topic_template": f"t{uuid.uuid4().hex[:8]}.{{group}}.{{kind}}",
        "connect_within": 20.0,
        "drain_within": 20.0,
        "statistics_interval": 0.2,
        "spool": SpoolSettings(directory=str(folder / "spool"), flush_interval=0.01),
    }
    return KafkaSettings(**{**defaults, **changes})
