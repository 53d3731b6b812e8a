"""`python -m pipeline tail`: watch what is in Kafka, one line per event."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, TextIO

import trio
from rich.console import Console
from rich.text import Text

from pipeline.avro.decoder import record_to_json
from pipeline.avro.schemas import HEAD
from pipeline.model.events import KINDS, WireMessage
from pipeline.sink.reader import Received, open_reader
from pipeline.sink.settings import KafkaSettings

_SHOWN: Mapping[str, str] = {
    "trade": "{aggressor:<4} {size} @ {price}",
    "bbo": "{bid_size} @ {bid_price} | {ask_size} @ {ask_price}",
    "ticker": "last {last_price}  bid {bid_price}  ask {ask_price}  24h volume {volume_24h}",
    "mark_price": "{price}",
    "index_price": "{price}",
    "funding_rate": "{funding_rate}",
    "open_interest": "{open_interest} {size_unit}",
    "candle": "{price_type} {interval} open {open} high {high} low {low} close {close}",
    "instrument": "{kind} {state} tick {tick_size} lot {lot_size}",
    "feed_status": "{status} {scope}: {reason}",
    "dead_letter": "{stage}: {reason} ({payload_size} bytes)",
}
_UNTOLD = frozenset({"event", *HEAD, "exchange_time", "receive_time", "sequence"})
_STYLES = {"feed_status": "yellow", "dead_letter": "red", "trade": "cyan"}
_SIDES = {"buy": "green", "sell": "red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument(
        "--event",
        action="append",
        choices=sorted(KINDS),
        help="a kind of event; may be repeated; by default all but wire_message",
    )
    parser.add_argument("--instrument", default="*", metavar="PATTERN", help='the venue\'s symbol, e.g. "BTC*"')
    parser.add_argument("--from-beginning", action="store_true", help="start with the oldest record that Kafka has")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument("--count", type=int, metavar="N", help="end after N events")


async def run(arguments: argparse.Namespace, settings: KafkaSettings, kinds: Collection[str] = KINDS) -> int:
    """Print events until enough were shown or a signal comes; returns the exit code.

    `kinds` are those that there are topics for; the archive's is shown only when it is asked for.

    Raises `ConfigError`, `Refused` or `SinkFailed` when Kafka cannot be read.
    """
    printer = Printer(sys.stdout, as_json=arguments.json)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_signal, nursery.cancel_scope)
            wanted = arguments.event or [kind for kind in KINDS if kind in kinds and kind != WireMessage.KIND]
            async with open_reader(settings, wanted, from_beginning=arguments.from_beginning) as records:
                await _show(records, printer, arguments.instrument, arguments.count)
            nursery.cancel_scope.cancel()
    except* BrokenPipeError:
        sys.stderr.close()  # the reader of our output has left, which is no error: `tail | head`
    return 0


async def _show(
    records: trio.MemoryReceiveChannel[Received], printer: Printer, instrument: str, count: int | None
) -> None:
    shown = 0
    async for record in records:
        if instrument != "*" and not fnmatchcase(str(record.fields.get("instrument") or ""), instrument):
            continue
        printer.show(record)
        shown += 1
        if shown == count:
            return


async def _until_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


class Printer:
    """Lines on a terminal in colour, elsewhere plain."""

    def __init__(self, file: TextIO, *, as_json: bool) -> None:
        self._file = file
        self._as_json = as_json
        self._console = Console(file=file, highlight=False, soft_wrap=True, markup=False)

    def show(self, record: Received) -> None:
        """Print one record."""
        if self._as_json:
            self._file.write(json.dumps(_json(record), ensure_ascii=False) + "\n")
            self._file.flush()
        else:
            self._console.print(line(record))


def _json(record: Received) -> dict[str, Any]:
    if record.error is None:
        return record_to_json(record.kind, record.fields)
    place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    return {"event": record.kind, "error": record.error, **place}


def line(record: Received) -> Text:
    """One event on one line."""
    moment = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
    text = Text(f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}  ", style="dim")
    text.append(f"{record.kind:<14}", style=_STYLES.get(record.kind, "bold"))
    if record.error is not None:
        text.append(f"unreadable at {record.topic}[{record.partition}]@{record.offset}: {record.error}", style="red")
        return text
    fields = record_to_json(record.kind, record.fields)
    whose = " ".join(filter(None, (fields.get("account"), fields["instrument"])))
    text.append(f"{fields['venue']:<7}{fields['market']:<8}{whose:<22}", style="default")
    text.append(_summary(record.kind, fields), style=_SIDES.get(fields.get("aggressor", ""), "default"))
    return text


def _summary(kind: str, fields: Mapping[str, Any]) -> str:
    if "bids" in fields:
        return _book(fields)
    if kind in _SHOWN:
        return _SHOWN[kind].format_map({name: "-" if value is None else value for name, value in fields.items()})
    told = (f"{name} {value}" for name, value in fields.items() if name not in _UNTOLD and value is not None)
    return "  ".join(told)


def _book(fields: Mapping[str, Any]) -> str:
    what = "" if "is_snapshot" not in fields else "snapshot " if fields["is_snapshot"] else "delta    "
    sides = (f"{len(side)} {name}{f' from {_level(side[0])}' if side else ''}" for name, side in _sides(fields))
    return f"{what}{fields['channel']}  " + ", ".join(sides)


def _sides(fields: Mapping[str, Any]) -> tuple[tuple[str, list[Mapping[str, Any]]], ...]:
    return ("bids", fields["bids"]), ("asks", fields["asks"])


def _level(level: Mapping[str, Any]) -> str:
    return f"{level['size']} @ {level['price']}"
