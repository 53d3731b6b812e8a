"""Order entry beside a bare loop: how long an order takes from Kafka's consumer to the wire.

Commands are produced at a steady rate. Both contestants take them from Kafka and send them to a simulated exchange, in
turns, each in a process of its own with an exchange and a topic of its own. The moments are noted alike: when the
consumer has handed the record over, and when the socket has taken the bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from threading import Timer
from typing import Any

import attrs
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from pipeline.bench.arena import Arena, BenchFailed, process, tail
from pipeline.bench.order_contestants import ACCOUNT, READY, VENUE, Found, OrderTask, command_id, listings
from pipeline.bench.targets import Verdict
from pipeline.model.decimals import DecimalText
from pipeline.model.header import Micros
from pipeline.model.orders import CREATE, OrderCommand, OrderItem
from pipeline.orders.commands import encode_command
from pipeline.session.clock import system_clock
from pipeline.sim.listing import Listing
from pipeline.sim.okx_streams import instrument_code
from pipeline.sink.topics import prepare_command_topic

RATE = 50.0
"""Commands per second."""
SECONDS = 10.0
CONTESTANTS = {"ours": "order entry", "bare": "bare loop on trio-websocket"}
TARGET_US = 2_000.0
_WARM_SHARE = 0.2
_LOTS = 100
_VALID_US = 60_000_000
_RUN_WITHIN_S = 120.0
_FLUSH_WITHIN_S = 30.0

Quantiles = tuple[float, float]
"""p50 and p99."""


@attrs.frozen
class OrderRun:
    """One run. Times are microseconds."""

    round: int
    contestant: str
    orders: int
    """Counted, without those of the warm-up."""
    to_wire_us: Quantiles
    """From the hand-over by the consumer until the socket had taken the bytes."""
    whole_us: Quantiles
    """The same from the moment when the command was made."""
    sync_us: Quantiles | None
    """Waits for the ledger's disk, which are in both; None: there is no ledger."""


@attrs.frozen
class OrderCost:
    """A contestant's runs: medians of the rounds."""

    contestant: str
    to_wire_us: Quantiles
    whole_us: Quantiles
    sync_us: Quantiles | None


def run_of(number: int, contestant: str, issued: Sequence[int], found: Found) -> OrderRun:
    """What one run has shown. Raises `BenchFailed` unless each order was sent once."""
    if sorted(order for order, _, _ in found.sent) != list(range(len(issued))):
        raise BenchFailed(f"{CONTESTANTS[contestant]}: {len(found.sent)} orders sent instead of {len(issued)}")
    warm = int(len(issued) * _WARM_SHARE)
    counted = [each for each in found.sent if each[0] >= warm]
    return OrderRun(
        number,
        contestant,
        len(counted),
        _quantiles(sent - consumed for _, consumed, sent in counted),
        _quantiles(sent - issued[order] for order, _, sent in counted),
        _quantiles(found.sync_us[int(len(found.sync_us) * _WARM_SHARE) :]) if found.sync_us else None,
    )


def costs(runs: Sequence[OrderRun]) -> list[OrderCost]:
    """One for each contestant that ran."""
    found = []
    for name in CONTESTANTS:
        if own := [run for run in runs if run.contestant == name]:
            disk = [run.sync_us for run in own if run.sync_us is not None]
            to_wire, whole = _medians([run.to_wire_us for run in own]), _medians([run.whole_us for run in own])
            found.append(OrderCost(name, to_wire, whole, _medians(disk) if disk else None))
    return found


def p99_difference_us(runs: Sequence[OrderRun]) -> float | None:
    """How much later than the bare loop order entry is: the median of the differences within each round."""
    p99 = {(run.round, run.contestant): run.to_wire_us[1] for run in runs}
    found = [
        value - p99[number, "bare"]
        for (number, name), value in p99.items()
        if name == "ours" and (number, "bare") in p99
    ]
    return median(found) if found else None


def verdict(runs: Sequence[OrderRun]) -> Verdict:
    """Whether order entry is quick enough."""
    name, target = "p99 from consumed to the wire above the bare loop's", f"at most {TARGET_US / 1000:g} ms"
    difference = p99_difference_us(runs)
    if difference is None:
        return Verdict(name, target)
    return Verdict(name, target, difference, f"{difference / 1000:.2f} ms", difference <= TARGET_US)


def _quantiles(values: Iterable[float]) -> Quantiles:
    ordered = sorted(values)
    return ordered[int(len(ordered) * 0.5)], ordered[int(len(ordered) * 0.99)]


def _medians(pairs: Sequence[Quantiles]) -> Quantiles:
    return median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)


# Running it.


def measure(
    arena: Arena, rounds: int, *, kafka: str, console: Console, is_json: bool, tell: Callable[[str], None]
) -> int:
    """Run both contestants in turns and print what they have shown; returns 1 if a run has failed."""
    runs: list[OrderRun] = []
    failures: list[str] = []
    for number in range(1, rounds + 1):
        for contestant in CONTESTANTS:
            try:
                runs.append(_run(arena, number, contestant))
            except BenchFailed as error:
                failures.append(f"round {number}: {error}")
                tell(failures[-1])
            else:
                tell(_progress(runs[-1]))
    if is_json:
        console.print_json(json.dumps(as_json(arena, kafka, rounds, runs, failures)))
    else:
        _show(console, arena, kafka, rounds, runs, failures)
    return 1 if failures else 0


def _run(arena: Arena, number: int, contestant: str) -> OrderRun:
    count = round(RATE * SECONDS)
    prefix = f"orders-{uuid.uuid4().hex[:12]}"
    folder = arena.folder / prefix
    folder.mkdir()
    certificate = None if arena.is_plain else str(arena.certificate)
    exchange = OrderTask(role="exchange", folder=str(folder), certificate=certificate)
    with process("pipeline.bench.order_contestants", _text(exchange)) as port:
        secure = "" if arena.is_plain else "s"
        task = OrderTask(
            role=contestant,
            folder=str(folder),
            websocket=f"ws{secure}://localhost:{port}",
            rest=f"http{secure}://localhost:{port}",
            ca_file=None if arena.is_plain else str(arena.authority),
            kafka=arena.kafka,
            create_topics=arena.has_topics,
            prefix=prefix,
            count=count,
            core=arena.core,
        )
        _provide_topic(task)
        issued, found = _measured(task)
    return run_of(number, contestant, issued, found)


def _provide_topic(task: OrderTask) -> None:
    if not task.create_topics:  # a mock cluster makes what is asked for, but not for those who subscribe
        Producer({"bootstrap.servers": task.kafka}).list_topics(task.topic, timeout=_FLUSH_WITHIN_S)
        return
    for report in prepare_command_topic(task.kafka_settings, task.topic):
        if report.errors:
            raise BenchFailed(f"{task.topic}: {', '.join(report.errors)}")


def _measured(task: OrderTask) -> tuple[list[int], Found]:
    """Start a contestant, give it its orders as soon as it is ready, and hear what it has found."""
    command = (sys.executable, "-m", "pipeline.bench.order_contestants", _text(task))
    log = Path(task.folder) / "log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as child,
    ):
        assert child.stdout is not None
        guard = Timer(_RUN_WITHIN_S + task.count / RATE, child.kill)
        guard.start()
        try:
            issued = _give(task) if child.stdout.readline().strip() == READY else []
            told = child.stdout.readline()
            child.wait()  # leaving the block closes its standard input, which would end it by force
        except BaseException:
            child.kill()
            raise
        finally:
            guard.cancel()
    if child.returncode or not told:
        raise BenchFailed(f"{CONTESTANTS[task.role]} failed:\n{tail(log.read_bytes())}")
    return issued, Found.read(told)


def _give(task: OrderTask) -> list[int]:
    """Produce the orders at a steady rate; returns when each was made."""
    producer = Producer({"bootstrap.servers": task.kafka, "linger.ms": 0})
    make = {"ours": command, "bare": wire_order}[task.role]
    listed = listings()
    start = time.monotonic()
    issued = []
    for number in range(task.count):
        time.sleep(max(0.0, start + number / RATE - time.monotonic()))
        issued.append(system_clock())
        record = make(task.prefix, number, listed[number % len(listed)], issued[-1])
        producer.produce(task.topic, record, str(number))
        producer.poll(0)
    if producer.flush(_FLUSH_WITHIN_S):
        raise BenchFailed("Kafka did not take the orders")
    return issued


def command(prefix: str, number: int, listing: Listing, now: int) -> bytes:
    """A limit order that rests, as order entry is given it."""
    price, size = _terms(listing)
    item = OrderItem(listing.market.lower(), listing.symbol, side="buy", order_type="limit", price=price, size=size)
    return encode_command(
        OrderCommand(command_id(prefix, number), VENUE, ACCOUNT, CREATE, Micros(now), Micros(now + _VALID_US), (item,))
    )


def wire_order(prefix: str, number: int, listing: Listing, now: int) -> bytes:
    """The same, as the exchange is sent it."""
    price, size = _terms(listing)
    order = {
        "instIdCode": instrument_code(listing),
        "tdMode": "cross",
        "side": "buy",
        "ordType": "limit",
        "px": price,
        "sz": size,
        "clOrdId": f"{number:030}",
    }
    message = {"id": str(number), "op": "order", "expTime": str((now + _VALID_US) // 1000), "args": [order]}
    return json.dumps(message, separators=(",", ":")).encode()


def _terms(listing: Listing) -> tuple[DecimalText, DecimalText]:
    """Price and size: so far below the market that nothing takes it, and inside the price band."""
    price = listing.price * 98 / 100 // listing.tick * listing.tick
    return DecimalText(str(price)), DecimalText(str(listing.lot * _LOTS))


def _text(task: OrderTask) -> str:
    return json.dumps(attrs.asdict(task))


# Telling it.


def as_json(arena: Arena, kafka: str, rounds: int, runs: Sequence[OrderRun], failures: Sequence[str]) -> dict[str, Any]:
    """Everything, runs included."""
    return {
        "setting": {
            "orders_per_s": RATE,
            "seconds": SECONDS,
            "rounds": rounds,
            "kafka": kafka,
            "transport": "plain" if arena.is_plain else "TLS",
            "is_pinned": arena.core is not None,
        },
        "orders": [attrs.asdict(each) for each in costs(runs)],
        "p99_difference_us": p99_difference_us(runs),
        "targets": {"orders": [attrs.asdict(verdict(runs))]},
        "runs": [attrs.asdict(run) for run in runs],
        "failures": list(failures),
    }


def _show(
    console: Console, arena: Arena, kafka: str, rounds: int, runs: Sequence[OrderRun], failures: Sequence[str]
) -> None:
    console.print(
        f"{RATE:g} orders per second for {SECONDS:g} s, OKX simulated, {'plain' if arena.is_plain else 'TLS'}; "
        f"Kafka: {kafka}; rounds: {rounds}",
        highlight=False,
    )
    table = Table(title="From consumed to the wire, ms", title_justify="left", box=None, header_style="dim")
    table.add_column("contestant", no_wrap=True)
    for column in ("p50", "p99", "from made, p50", "p99", "of it disk, p50", "p99"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in costs(runs):
        pairs = (each.to_wire_us, each.whole_us, each.sync_us)
        table.add_row(CONTESTANTS[each.contestant], *(text for pair in pairs for text in _shown(pair)))
    console.print(table)
    found = verdict(runs)
    outcome = {None: "", True: ": met", False: ": missed"}[found.met]
    console.print(f"{found.name}, {found.target}: {found.shown}{outcome}", highlight=False)
    if failures:
        console.print(f"{len(failures)} runs failed and are missing from this.", highlight=False)


def _shown(pair: Quantiles | None) -> tuple[str, str]:
    return ("", "") if pair is None else (f"{pair[0] / 1000:.2f}", f"{pair[1] / 1000:.2f}")


def _progress(run: OrderRun) -> str:
    p50, p99 = _shown(run.to_wire_us)
    disk = "" if run.sync_us is None else f", of it disk {' and '.join(_shown(run.sync_us))}"
    return f"round {run.round}: {run.contestant:<5} p50 {p50} ms, p99 {p99} ms{disk}"
