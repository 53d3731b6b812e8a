"""Towards Kafka: topics, producer, delivery accounting, spool, dead letters, and reading back."""
