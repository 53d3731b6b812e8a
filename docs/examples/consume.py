"""Print trades as they arrive, decoded by this project's own decoder. Run it in the checkout, with its Python."""

from __future__ import annotations

import sys

from confluent_kafka import Consumer

from pipeline.sink.reader import Decoder
from pipeline.sink.settings import KafkaSettings

servers = sys.argv[1] if len(sys.argv) > 1 else "localhost:9092"
consumer = Consumer(
    {
        "bootstrap.servers": servers,
        "group.id": "my-trades",  # Kafka remembers per group how far it has read
        "auto.offset.reset": "earliest",  # where a new group begins
        "isolation.level": "read_committed",  # matters with kafka.delivery: exactly_once
    }
)
consumer.subscribe(["market.trade"])
# With a schema registry: KafkaSettings(schema_registry=RegistrySettings("http://localhost:8081")).
decoder = Decoder(KafkaSettings())
try:
    while True:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error() is not None:
            print(message.error(), file=sys.stderr)
            continue
        trade = decoder.decode(message.value() or b"")
        order = f"{trade['aggressor']} {trade['size']} {trade['size_unit']} @ {trade['price']}"
        print(trade["exchange_time"], trade["venue"], trade["symbol"], order)
except KeyboardInterrupt:
    pass
finally:
    consumer.close()
