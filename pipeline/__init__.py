"""Crypto exchange WebSocket streams, normalized and delivered to Kafka as Avro."""

__version__ = "0.1.0"
