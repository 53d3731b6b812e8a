"""Sinks against the real broker, and what came out of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.sink.settings import KafkaSettings
from tests.services import KafkaBroker
from tests.sink.traffic import kafka_settings


@pytest.fixture
def settings(broker: KafkaBroker, tmp_path: Path) -> KafkaSettings:
    """Topics and a spool of this test's own, on the shared broker."""
    return kafka_settings(broker.bootstrap, tmp_path)
