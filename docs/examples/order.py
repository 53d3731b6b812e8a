"""Give one order and print what becomes of it. Needs `pip install confluent-kafka fastavro` and two schema files."""

from __future__ import annotations

import json
import sys
import time
import uuid
from io import BytesIO
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form

servers, venue, account, market, instrument, side, size, price = sys.argv[1:9]
schemas = Path(sys.argv[9] if len(sys.argv) > 9 else "schemas")


def read(kind):
    """The schema of a kind of record, and what its records begin with."""
    schema = json.loads((schemas / f"{kind}.avsc").read_text("utf-8"))
    # Avro's single-object encoding: two bytes of marker, eight that name the schema, then the fields.
    header = b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
    return parse_schema(schema), header


result_schema, result_header = read("order_result")
consumer = Consumer({"bootstrap.servers": servers, "group.id": "unused", "enable.auto.commit": False})
results = consumer.list_topics("order.order_result", timeout=10).topics["order.order_result"]
starts = [TopicPartition("order.order_result", number) for number in results.partitions]
for start in starts:  # where the topic ends now, before the command is given: so no result is missed
    start.offset = consumer.get_watermark_offsets(start, timeout=10)[1]
consumer.assign(starts)

command_schema, command_header = read("order_command")
now = time.time_ns() // 1000
command = {
    "command_id": uuid.uuid4().hex,  # keep it: the same one given again is never obeyed twice
    "venue": venue,
    "account": account,
    "action": "create",
    "issued_at": now,
    "not_after": now + 5_000_000,  # microseconds: what is older than 5 s is not sent
    "items": [
        {
            "market": market,
            "instrument": instrument,
            "side": side,
            "order_type": "limit",
            "size": size,  # texts, exactly as they are to reach the exchange
            "price": price,
        }
    ],
}
stream = BytesIO()
schemaless_writer(stream, command_schema, command)
producer = Producer({"bootstrap.servers": servers, "enable.idempotence": True})
producer.produce(f"order.order_command.{venue}.{account}", command_header + stream.getvalue(), f"{venue}.{account}")
producer.flush()

while True:
    message = consumer.poll(1.0)
    if message is None or message.error() is not None:
        continue
    value = message.value()
    if not value.startswith(result_header):
        sys.exit(f"another version of the schema, or a registry's: {value[:10].hex()}")
    result = schemaless_reader(BytesIO(value[len(result_header) :]), result_schema, None)
    if result["command_id"] != command["command_id"]:
        continue
    print(result["state"], result["client_order_id"], result["rule"] or "", result["message"] or "", flush=True)
    if result["is_final"]:
        break
consumer.close()
