"""librdkafka's mock cluster in a process of its own: `python -m pipeline.bench.mock_kafka` prints its address."""

from __future__ import annotations

import sys

from confluent_kafka import Producer


def main() -> None:
    """Serve until standard input ends."""
    producer = Producer({"test.mock.num.brokers": 1, "log_level": 2})
    [broker] = producer.list_topics(timeout=10).brokers.values()
    sys.stdout.write(f"{broker.host}:{broker.port}\n")
    sys.stdout.flush()
    sys.stdin.read()


main()
