"""Who takes part in the comparison of order entry, and the exchange: each is one process.

`python -m pipeline.bench.order_contestants JSON` runs one; see `OrderTask`.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio
import trio_websocket
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from pipeline.app import Service, keep_what_is_loaded
from pipeline.bench.measure import POLL_S
from pipeline.config import Config
from pipeline.exchanges.accounts import Credentials, Login
from pipeline.exchanges.okx.signing import login_request
from pipeline.feeds.settings import AccountChannelSettings, AccountSettings, UrlSettings, VenueSettings
from pipeline.model.decimals import DecimalText
from pipeline.model.orders import FINAL
from pipeline.model.secret import Secret
from pipeline.observe.logs import configure
from pipeline.observe.settings import HttpSettings, LogSettings
from pipeline.orders.settings import AccountOrderSettings, OrderSettings
from pipeline.session.clock import system_clock
from pipeline.sim.listing import Listing, many
from pipeline.sim.settings import Account, MarketSettings
from pipeline.sim.venue import open_venue
from pipeline.sink.reader import read_records
from pipeline.sink.settings import KafkaSettings, SpoolSettings
from pipeline.sink.topics import command_topic

VENUE, ACCOUNT = "okx", "main"
"""OKX counts orders by instrument: over a few of them, its real limits allow a steady rate worth measuring."""
INSTRUMENTS = 4
READY = "ready"
_KEYS = Credentials("a-key", "a-secret", "a-phrase")
_PATH = "/ws/v5/private"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WAIT_S = 0.1
_BATCH = 500
_STEPS_PER_S = 1.0
"""Of the market, which is not what is measured."""
_ANSWER_WITHIN_S = 30.0
_FETCHING = {"fetch.wait.max.ms": 100, "fetch.error.backoff.ms": 50}
"""As the service has it: a mock cluster answers when this time is over, not when a record comes."""


@attrs.frozen(kw_only=True)
class OrderTask:
    """What a process is told."""

    role: str
    """exchange, ours or bare."""
    folder: str
    """For files of its own."""
    certificate: str | None = None
    """The exchange's, a PEM file with key and chain; None: no TLS."""
    websocket: str = ""
    """Base URL, without the venue's path."""
    rest: str = ""
    ca_file: str | None = None
    kafka: str = ""
    """Bootstrap address."""
    create_topics: bool = False
    """False for a mock cluster, which makes topics when it is asked for them."""
    prefix: str = ""
    """Of all topics of this run."""
    count: int = 0
    """Orders that will come."""
    core: int | None = None
    """The one core to run on; None: any."""

    @property
    def kafka_settings(self) -> KafkaSettings:
        """Defaults, but for addresses."""
        return KafkaSettings(
            bootstrap_servers=(self.kafka,),
            topic_template=f"{self.prefix}.{{group}}.{{kind}}",
            create_topics=self.create_topics,
            verify_topics=self.create_topics,
            spool=SpoolSettings(directory=str(Path(self.folder) / "spool")),
        )

    @property
    def topic(self) -> str:
        """Where the orders come from."""
        return command_topic(self.kafka_settings, VENUE, ACCOUNT)


@attrs.frozen
class Found:
    """What a contestant has to tell. Times are microseconds."""

    sent: list[tuple[int, int, int]]
    """Of each order its number, when the consumer handed it over, and when the socket had taken it."""
    sync_us: list[float] = attrs.field(factory=list)
    """Waits for the ledger's disk."""

    @classmethod
    def read(cls, text: str) -> Found:
        """What a contestant's last line says."""
        fields = json.loads(text)
        return cls([(number, consumed, sent) for number, consumed, sent in fields["sent"]], fields["sync_us"])


def listings() -> tuple[Listing, ...]:
    """What is ordered, in turns."""
    return many(VENUE, INSTRUMENTS)


def command_id(prefix: str, number: int) -> str:
    """Of the order with this number."""
    return f"{prefix}-{number}"


# The exchange.


async def serve(task: OrderTask) -> None:
    """Be the exchange until terminated; prints its port."""
    tls = None
    if task.certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(task.certificate)
    account = Account(_KEYS.api_key, _KEYS.api_secret, _KEYS.passphrase, name=ACCOUNT)
    market = MarketSettings(rate=_STEPS_PER_S, instruments=listings())
    async with open_venue(VENUE, host="localhost", tls=tls, market=market, accounts=[account], keep=False) as venue:
        _say(str(venue.port))
        await trio.sleep_forever()


# This service.


def configuration(task: OrderTask) -> Config:
    """Defaults, but for addresses and what would end the run: the number of open orders."""
    folder = Path(task.folder)
    account = AccountSettings(
        _secret(folder / "key", _KEYS.api_key),
        _secret(folder / "secret", _KEYS.api_secret),
        _secret(folder / "phrase", _KEYS.passphrase),
        channels=(AccountChannelSettings(("order",)),),
    )
    orders = AccountOrderSettings(
        instruments={"swap": ("*",)}, max_order_value=DecimalText("1000000"), max_open_orders=task.count + 1
    )
    return Config(
        venues={
            VENUE: VenueSettings(
                accounts={ACCOUNT: account}, urls=UrlSettings(task.websocket, task.rest, ca_file=task.ca_file)
            )
        },
        kafka=task.kafka_settings,
        orders=OrderSettings({VENUE: {ACCOUNT: orders}}, directory=str(folder / "orders")),
        log=LogSettings(level="warning"),
        http=HttpSettings(port=0),
    )


def _secret(path: Path, text: str) -> Secret:
    path.write_text(text, encoding="utf-8")
    return Secret(file=str(path))


@attrs.define
class _Syncs:
    """An order seam that times the ledger's disk."""

    waits_us: list[float] = attrs.field(factory=list)
    _began_ns: int = 0

    def __call__(self, step: str) -> None:
        if step == "intended":
            self._began_ns = time.perf_counter_ns()
        elif step == "synced":
            self.waits_us.append((time.perf_counter_ns() - self._began_ns) / 1000)


async def run_ours(task: OrderTask) -> Found:
    """Take orders until all are settled. Raises `RuntimeError` unless every one was acknowledged."""
    config = configuration(task)
    configure(config.log)
    keep_what_is_loaded()
    syncs = _Syncs()
    service = Service(config, order_seam=syncs)
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        while service.orders is None or service.not_ready():
            await trio.sleep(POLL_S)
        _say(READY)
        while True:
            [stats] = service.orders.stats()
            if sum(stats.results.get(state, 0) for state in FINAL) >= task.count and not stats.unsettled:
                break
            await trio.sleep(POLL_S)
        if stats.results.get("acknowledged") != task.count:
            raise RuntimeError(f"not all orders were acknowledged: {stats.results}, {stats.refusals}")
        sent = await trio.to_thread.run_sync(_told, task)
        service.stop()
    return Found(sent, syncs.waits_us)


def _told(task: OrderTask) -> list[tuple[int, int, int]]:
    """What the service's own results say."""
    sent = []
    for record in read_records(task.kafka_settings, ["order_result"], from_beginning=True):
        fields = record.fields
        if fields["is_final"]:
            number = int(fields["command_id"].rpartition("-")[2])
            sent.append((number, _micros(fields["consumed_time"]), _micros(fields["sent_time"])))
            if len(sent) == task.count:
                break
    return sent


def _micros(value: datetime) -> int:
    return (value - _EPOCH) // timedelta(microseconds=1)


# The bare loop.


async def run_bare(task: OrderTask) -> Found:
    """Send what comes as it is: no check, no record, no result. Raises `RuntimeError` if an order was refused."""
    consumer = await trio.to_thread.run_sync(_open_consumer, task)
    tls = ssl.create_default_context(cafile=task.ca_file) if task.ca_file else None
    async with trio_websocket.open_websocket_url(task.websocket + _PATH, ssl_context=tls) as socket:
        await socket.send_message(login_request(Login(_KEYS, time.time() - trio.current_time()), trio.current_time()))
        answer = json.loads(await socket.get_message())
        if answer.get("event") != "login":
            raise RuntimeError(f"not logged in: {answer}")
        _say(READY)
        sent: list[tuple[int, int, int]] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read_answers, socket, task.count)
            while len(sent) < task.count:
                messages, consumed = await trio.to_thread.run_sync(_take, consumer)
                for message in messages:
                    await socket.send_message((message.value() or b"").decode())
                    sent.append((int(message.key() or b""), consumed, system_clock()))
    consumer.close()
    return Found(sent)


def _open_consumer(task: OrderTask) -> Consumer:
    consumer = Consumer(
        {"bootstrap.servers": task.kafka, "group.id": task.prefix, "enable.auto.commit": False} | _FETCHING
    )
    partitions = consumer.list_topics(task.topic, timeout=_ANSWER_WITHIN_S).topics[task.topic].partitions
    consumer.assign([TopicPartition(task.topic, number, OFFSET_BEGINNING) for number in partitions])
    return consumer


def _take(consumer: Consumer) -> tuple[list[Message], int]:
    """All that is there and the moment at which it was handed over, as the service takes and notes it."""
    first = consumer.poll(_WAIT_S)
    consumed = system_clock()
    messages = [] if first is None else [first, *consumer.consume(_BATCH, 0)]
    for message in messages:
        if (error := message.error()) is not None:
            raise KafkaException(error)
    return messages, consumed


async def _read_answers(socket: trio_websocket.WebSocketConnection, count: int) -> None:
    answered = 0
    while answered < count:
        answer = json.loads(await socket.get_message())
        if answer.get("op") != "order":
            continue
        if answer["code"] != "0":
            raise RuntimeError(f"an order was refused: {answer}")
        answered += 1


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


ROLES: Mapping[str, Callable[[OrderTask], Any]] = {"exchange": serve, "ours": run_ours, "bare": run_bare}


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def main(text: str) -> None:
    """Play the role that `text`, the task in JSON, names; a contestant prints what it has found.

    Ends with standard input, so that nothing is left of a benchmark that was interrupted.
    """
    task = OrderTask(**json.loads(text))
    if task.core is not None:
        os.sched_setaffinity(0, {task.core})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    found = trio.run(partial(ROLES[task.role], task))
    if found is not None:
        _say(json.dumps(attrs.asdict(found)))


if __name__ == "__main__":
    main(sys.argv[1])
