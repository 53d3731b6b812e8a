"""Print trades as they arrive. Needs `pip install confluent-kafka fastavro` and a schema file, nothing else of ours."""

from __future__ import annotations

import json
import sys
from io import BytesIO

from confluent_kafka import Consumer
from fastavro import parse_schema, schemaless_reader
from fastavro.schema import fingerprint, to_parsing_canonical_form

servers, schema_file = sys.argv[1:] if len(sys.argv) > 1 else ("localhost:9092", "schemas/trade.avsc")
with open(schema_file, encoding="utf-8") as file:
    schema = json.load(file)
parsed = parse_schema(schema)
# Avro's single-object encoding: two bytes of marker, eight that name the schema, then the fields.
header = b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))

consumer = Consumer({"bootstrap.servers": servers, "group.id": "my-other-trades", "auto.offset.reset": "earliest"})
consumer.subscribe(["market.trade"])
try:
    while True:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error() is not None:
            print(message.error(), file=sys.stderr)
            continue
        value = message.value() or b""
        if not value.startswith(header):
            print(f"another version of the schema: {value[:10].hex()}", file=sys.stderr)
            continue
        trade = schemaless_reader(BytesIO(value[len(header) :]), parsed, None)
        order = f"{trade['aggressor']} {trade['size']} {trade['size_unit']} @ {trade['price']}"
        print(trade["exchange_time"], trade["venue"], trade["symbol"], order)
except KeyboardInterrupt:
    pass
finally:
    consumer.close()
