"""`python -m pipeline order`: what is written, what is asked, what is told, and with which exit code."""

from __future__ import annotations

import argparse
import io
import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, TextIO

import attrs
import pytest
import trio
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from pipeline import cli, order_command
from pipeline.avro.codec import Schemas
from pipeline.avro.decoder import record_to_json
from pipeline.config import Config, loads
from pipeline.model.account import Fill, Order
from pipeline.model.decimals import DecimalText
from pipeline.model.errors import ConfigError
from pipeline.model.events import Event, Micros, Origin
from pipeline.model.orders import OrderCommand, OrderItem, OrderResult, State
from pipeline.order_watch import Watch, line
from pipeline.orders.commands import read_command
from pipeline.orders.identity import client_order_id
from pipeline.sink.errors import SinkFailed
from pipeline.sink.reader import Decoder, Received
from pipeline.sink.settings import KafkaSettings
from pipeline.sink.topics import prepare_topics, topic_name
from tests.services import KafkaBroker

NOW = Micros(1_763_800_000_000_000)
ORIGIN = Origin("bybit", "linear", "BTCUSDT", "BTC-USDT-PERP", "main", "bybit.main.trade.0")
WHICH = ("--account", "bybit.main", "--market", "linear", "--instrument", "BTCUSDT")
CREATE = ("create", *WHICH, "--side", "buy", "--size", "0.010", "--price", "60000.50")
DEADLINE_S = 60
SECRET = "hunter2-of-the-order-command"


def configuration(environment: str = "testnet", **kafka: Any) -> dict[str, Any]:
    keys = {"api_key": {"env": "ORDER_TEST_KEY"}, "api_secret": {"env": "ORDER_TEST_SECRET"}}
    return {
        "kafka": kafka,
        "log": {"level": "error"},
        "venues": {
            "bybit": {
                "environment": environment,
                "channels": [{"market": "linear", "channel": "trade", "instruments": ["BTCUSDT"]}],
                "accounts": {"main": {**keys, "channels": ["order"]}},
            }
        },
        "orders": {
            "accounts": {"bybit": {"main": {"instruments": {"linear": ["BTCUSDT"]}, "max_order_value": "10000"}}}
        },
    }


def config(environment: str = "testnet", **kafka: Any) -> Config:
    return loads(json.dumps(configuration(environment, **kafka)))


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    order_command.add_arguments(parser, lambda each: None)
    return parser.parse_args([*arguments])


def made(*arguments: str) -> OrderCommand:
    return order_command.make_command(parsed(*arguments), order_command.find_target(config(), "bybit.main"), NOW)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# What is written.


def test_a_new_order_has_all_that_was_said_and_an_identifier_that_can_be_worked_out_again() -> None:
    more = (
        "--time-in-force gtc --size-unit base --post-only --reduce-only --position-side long --reason why --valid-for 2"
    )
    command = made(*CREATE, *more.split(), "--extra", "smpType=CancelMaker", "--extra", "slTriggerBy=a=b")
    assert command == OrderCommand(
        command_id=command.command_id,
        venue="bybit",
        account="main",
        action="create",
        issued_at=NOW,
        not_after=Micros(NOW + 2_000_000),
        items=(
            OrderItem(
                market="linear",
                instrument="BTCUSDT",
                client_order_id=client_order_id(command.command_id, 0),
                side="buy",
                order_type="limit",
                time_in_force="gtc",
                price=DecimalText("60000.50"),
                size=DecimalText("0.010"),
                size_unit="base",
                is_post_only=True,
                is_reduce_only=True,
                position_side="long",
                extras={"smpType": "CancelMaker", "slTriggerBy": "a=b"},
            ),
        ),
        reason="why",
    )
    assert len(command.command_id) == 32
    assert made(*CREATE).command_id != made(*CREATE).command_id


def test_a_market_order_has_to_be_asked_for() -> None:
    [item] = made(*CREATE[:-2], "--type", "market").items
    assert (item.order_type, item.price) == ("market", None)


@pytest.mark.parametrize(
    ("arguments", "action", "market", "instrument"),
    [
        ("cancel-all", "cancel_all", None, None),
        ("cancel-all --market linear --instrument BTCUSDT", "cancel_all", "linear", "BTCUSDT"),
        ("mass-cancel --market option --instrument BTC-USD", "mass_cancel", "option", "BTC-USD"),
        ("kill", "kill", None, None),
        ("resume", "resume", None, None),
    ],
)
def test_what_concerns_the_account_has_no_items(
    arguments: str, action: str, market: str | None, instrument: str | None
) -> None:
    command = made(*arguments.split(), "--account", "bybit.main")
    assert (command.action, command.market, command.instrument, command.items) == (action, market, instrument, ())


def test_amend_and_cancel_name_an_order() -> None:
    which = (*WHICH, "--client-order-id", "mine")
    [amended] = made("amend", *which, "--size", "2").items
    [cancelled] = made("cancel", *WHICH, "--order-id", "theirs").items
    assert (amended.client_order_id, amended.size, amended.order_type) == ("mine", "2", None)
    assert (cancelled.client_order_id, cancelled.order_id, cancelled.size) == (None, "theirs", None)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([*CREATE, "--price", "-1"], "price: -1 is not above 0"),
        (CREATE[:-2], "price: is missing, a limit order needs it"),
        ([*CREATE, "--price", "1e5"], "price: '1e5' is no decimal number"),
        ([*CREATE, "--size", "one"], "size: 'one' is no decimal number"),
        ([*CREATE, "--command-id", "x" * 65], "command_id: 65 characters are too many, at most 64"),
        ([*CREATE, "--extra", "smpType"], '--extra: "smpType" is not NAME=VALUE'),
        ([*CREATE, "--valid-for", "0"], "--valid-for: must be above 0"),
        ([*CREATE, "--valid-for", "nan"], "--valid-for: must be above 0"),
        (
            ["cancel", *WHICH],
            "client_order_id: is missing, and order_id too: cancel needs one of them",
        ),
        (["cancel-all", *WHICH[:2], "--instrument", "BTCUSDT"], "market: is missing beside instrument"),
    ],
)
def test_what_is_no_command_is_refused_with_the_name(arguments: Sequence[str], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(*arguments)
    assert caught.value.problems == [problem]


def test_an_account_must_take_orders() -> None:
    with pytest.raises(ConfigError) as caught:
        order_command.find_target(config(), "bybit.mian")
    assert caught.value.problems == ['--account: no order entry for "bybit.mian"; did you mean "bybit.main"?']
    without = attrs.evolve(config(), orders=Config().orders)
    with pytest.raises(ConfigError, match=r"none has any under orders\.accounts"):
        order_command.find_target(without, "bybit.main")


def test_a_dry_run_prints_the_record_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORDER_TEST_KEY", SECRET)
    monkeypatch.setenv("ORDER_TEST_SECRET", SECRET)
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(configuration("mainnet", bootstrap_servers=["127.0.0.1:9"])))
    assert cli.main(["order", *CREATE, "--config", str(path), "--dry-run", "--command-id", "twelve"]) == 0
    out, err = capsys.readouterr()
    command = read_command(json.loads(out))
    assert (command.command_id, command.items[0].client_order_id) == ("twelve", client_order_id("twelve", 0))
    assert SECRET not in out + err


def test_usage_is_reported_as_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(configuration()))
    assert cli.main(["order", "create", "--config", str(path)]) == 2
    assert cli.main(["order", *CREATE, "--size", "0", "--config", str(path)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "size: 0 is not above 0"


# What is asked.


@pytest.mark.parametrize(
    ("venue", "environment", "is_production"),
    [
        ("bybit", "mainnet", True),
        ("bybit", "turkey", True),
        ("bybit", "testnet", False),
        ("bybit", None, True),
        ("okx", "production", True),
        ("okx", "eea", True),
        ("okx", "demo", False),
        ("okx", "us-demo", False),
    ],
)
def test_what_is_not_known_for_practice_is_production(
    venue: str, environment: str | None, *, is_production: bool
) -> None:
    target = order_command.find_target(config(), "bybit.main")
    settings = attrs.evolve(target.venue_settings, environment=environment)
    assert attrs.evolve(target, venue=venue, venue_settings=settings).is_production == is_production


def run(arguments: Sequence[str], config: Config, typed: TextIO | None = None) -> tuple[int, str, str]:
    stdin, stdout, stderr = typed or io.StringIO(), io.StringIO(), io.StringIO()
    code = order_command.run(parsed(*arguments), config, stdin=stdin, stdout=stdout, stderr=stderr)
    return code, stdout.getvalue(), stderr.getvalue()


def asked(arguments: Sequence[str], typed: str, kafka: Mapping[str, Any]) -> tuple[int, str]:
    code, _, stderr = run(arguments, config("mainnet", **kafka), Terminal(typed))
    return code, stderr


NOWHERE = {"bootstrap_servers": ["127.0.0.1:9"]}


def test_production_is_refused_without_a_terminal() -> None:
    problem = r"bybit at wss://stream\.bybit\.com is production and there is no terminal to ask at: say --yes"
    with pytest.raises(ConfigError, match=problem):
        run(CREATE, config("mainnet", **NOWHERE), io.StringIO("BTCUSDT\n"))


@pytest.mark.parametrize("typed", ["", "\n", "yes\n", "btcusdt\n"])
def test_nothing_is_sent_unless_the_instrument_is_typed(typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_command, "_value", told_value)
    code, text = asked(CREATE, typed, NOWHERE)
    assert code == 1
    assert text.splitlines() == [
        "bybit at wss://stream.bybit.com, account main: PRODUCTION",
        "  buy 0.010 linear BTCUSDT at 60000.50",
        "  value: 600 USDT",
        'Type "BTCUSDT" to send it: nothing was sent',
    ]


async def told_value(item: OrderItem, target: order_command.Target) -> str:
    return "value: 600 USDT"


@pytest.mark.parametrize(
    ("arguments", "words", "name"),
    [
        ([*CREATE[:-2], "--type", "market"], "  buy 0.010 linear BTCUSDT AT ANY PRICE (market order)", "BTCUSDT"),
        (
            [*CREATE, "--reduce-only", "--time-in-force", "ioc"],
            "  buy 0.010 linear BTCUSDT at 60000.50, is_reduce_only, time_in_force ioc",
            "BTCUSDT",
        ),
        (["cancel", *WHICH, "--order-id", "7"], "  cancel order 7 of linear BTCUSDT", "BTCUSDT"),
        (
            ["amend", *WHICH, "--order-id", "7", "--price", "5", "--size", "2"],
            "  amend order 7 of linear BTCUSDT: price 5, size 2",
            "BTCUSDT",
        ),
        (["kill", *WHICH[:2]], "  kill: the whole account", "bybit.main"),
        (["cancel-all", *WHICH[:2], "--market", "linear"], "  cancel all: linear", "bybit.main"),
    ],
)
def test_every_command_is_put_into_words(
    arguments: Sequence[str], words: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_command, "_value", told_value)
    text = asked(arguments, "", NOWHERE)[1].splitlines()
    assert text[1] == words
    assert text[-1].startswith(f'Type "{name}" to send it: ')


def test_a_value_that_the_venue_does_not_tell_is_said_to_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = configuration("mainnet")
    del settings["venues"]["bybit"]["environment"]
    settings["venues"]["bybit"]["urls"] = {"websocket": "ws://127.0.0.1:9", "rest": "http://127.0.0.1:9"}
    target = order_command.find_target(loads(json.dumps(settings)), "bybit.main")
    monkeypatch.setattr(order_command, "ASK_WITHIN", 0.1)
    text = trio.run(order_command.in_words, made(*CREATE), target)
    assert text[0] == "bybit at ws://127.0.0.1:9, account main: PRODUCTION"
    assert text[-1].startswith("  value: not known, the venue did not tell (")


# What is told.


@cache
def encoder(kind: str) -> Callable[[Event], bytes]:
    return Schemas.load("text")[kind].encoder(None)


def encode(event: Event) -> bytes:
    return encoder(event.KIND)(event)


def received(event: Event) -> Received:
    value = encode(event)
    return Received("t", 0, 0, b"", 0, event.KIND, Decoder(KafkaSettings()).decode(value), value)


def result(state: State, item: int = 0, command_id: str = "c", **more: Any) -> OrderResult:
    is_final = state in ("acknowledged", "rejected", "expired")
    return OrderResult(ORIGIN, None, NOW, None, command_id, item, "create", state, is_final, **more)


def order(status: str, name: str | None = "mine", order_id: str = "theirs", **more: Any) -> Order:
    return Order(
        more.pop("origin", ORIGIN), NOW, NOW, None, "order", False, order_id, status, status, "buy", "limit",
        "base", "base", client_order_id=name, price=DecimalText("5.0"), size=DecimalText("2"), **more,
    )  # fmt: skip


def fill(name: str | None = "mine", order_id: str | None = "theirs") -> Fill:
    return Fill(
        ORIGIN, NOW, NOW, None, "execution", False, "f1", "buy", DecimalText("5.0"), DecimalText("2"), "base",
        order_id=order_id, client_order_id=name, fee=DecimalText("0.01"), fee_currency="USDT", liquidity="taker",
    )  # fmt: skip


def watch(*names: str, action: str = "create") -> Watch:
    items = tuple(OrderItem("linear", "BTCUSDT", name) for name in names)
    return Watch(OrderCommand("c", "bybit", "main", action, NOW, NOW, items))


def test_what_concerns_the_command_is_told_and_nothing_else() -> None:
    watched = watch("mine")
    assert not watched.take(received(result("sent", command_id="another")))
    assert not watched.take(received(order("new", "another", "other")))
    assert not watched.take(received(order("new", None, "other")))
    assert not watched.take(received(fill(None, None)))
    elsewhere = Origin("bybit", "linear", "BTCUSDT", None, "second", "x")
    assert not watched.take(received(order("new", origin=elsewhere)))
    assert not watched.take(attrs.evolve(received(order("new")), error="unreadable", fields={}))
    assert watched.take(received(result("accepted")))
    assert watched.take(received(order("new")))
    assert watched.take(received(order("new", None)))  # by the venue's identifier, which is known now
    assert watched.take(received(fill()))
    assert not watched.is_final


def test_it_is_over_when_each_item_has_its_final_result() -> None:
    watched = watch("a", "b")
    watched.take(received(result("acknowledged", 0)))
    watched.take(received(result("acknowledged", 0)))
    watched.take(received(result("unknown", 1)))
    assert not watched.is_final
    watched.take(received(result("rejected", 1)))
    assert watched.is_final
    assert not watched.is_acknowledged
    assert not watched.is_closed
    watched.take(received(order("partially_filled", "a", "1")))
    assert not watched.is_closed
    watched.take(received(order("filled", "a", "1")))
    assert watched.is_closed  # of what was rejected nothing is open


def test_an_order_known_by_its_result_alone_is_followed() -> None:
    watched = watch("mine")
    watched.take(received(result("acknowledged", order_id="9")))
    assert watched.take(received(order("cancelled", None, "9")))
    assert watched.is_closed


def test_a_command_without_items_is_over_with_its_one_result() -> None:
    watched = watch(action="kill")
    assert not watched.is_final
    watched.take(received(result("acknowledged", order_id="7")))
    assert watched.is_final
    assert watched.is_acknowledged
    assert watched.is_closed
    assert not watched.take(received(order("cancelled", None, "7")))


def test_lines() -> None:
    refused = result(
        "rejected", 2, client_order_id="mine", rejected_by="venue", code="110007", message="not enough",
        error_class="permanent", consumed_time=NOW, sent_time=Micros(NOW + 1_250),
    )  # fmt: skip
    start, name = "08:26:40.000  ", "client_order_id mine"
    assert text(refused) == (
        f"{start}order_result  rejected      create BTCUSDT [2]  {name}  venue 110007  not enough  (permanent)  "
        "sent after 1.2 ms"
    )
    assert [text(order("new")), text(fill())] == [
        f"{start}order         new           buy 2 BTCUSDT at 5.0  filled -  {name}  order_id theirs",
        f"{start}fill          trade         buy 2 BTCUSDT at 5.0  fee 0.01 USDT  taker  {name}  order_id theirs",
    ]


def text(event: Event) -> str:
    return line(record_to_json(event.KIND, received(event).fields))


# With a broker.


@attrs.define
class Service:
    """Stands for the connector: reads one command and answers with these events."""

    settings: KafkaSettings
    topic: str
    answer: Callable[[OrderCommand], Sequence[Event]]
    taken: list[OrderCommand] = attrs.field(factory=list)
    keys: list[bytes] = attrs.field(factory=list)
    times: list[int] = attrs.field(factory=list)

    def serve(self, stop: threading.Event) -> None:
        servers = {"bootstrap.servers": self.settings.bootstrap_servers[0]}
        consumer, producer = Consumer({**servers, "group.id": uuid.uuid4().hex}), Producer(servers)
        consumer.assign([TopicPartition(self.topic, 0, 0)])
        decoder = Decoder(self.settings, is_plain=True)
        while not stop.is_set():
            message = consumer.poll(0.05)
            if message is None or message.error() is not None:
                continue
            self.keys.append(message.key() or b"")
            self.times.append(message.timestamp()[1])
            self.taken.append(read_command(decoder.decode(message.value() or b"")))
            for event in self.answer(self.taken[-1]):
                producer.produce(topic_name(self.settings, event.KIND), encode(event), event.origin.key)
            producer.flush()
        consumer.close()


@contextmanager
def serving(
    broker: KafkaBroker, answer: Callable[[OrderCommand], Sequence[Event]]
) -> Iterator[tuple[Service, dict[str, Any]]]:
    kafka: dict[str, Any] = {
        "bootstrap_servers": [broker.bootstrap],
        "topic_template": f"order-command-{uuid.uuid4().hex[:8]}.{{group}}.{{kind}}",
    }
    settings = config(**kafka).kafka
    prepare_topics(settings, ["order_result", "order", "fill"])
    topic = f"{topic_name(settings, 'order_command')}.bybit.main"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(topic, 1)])[topic].result(DEADLINE_S)
    service, stop = Service(settings, topic, answer), threading.Event()
    thread = threading.Thread(target=service.serve, args=[stop])
    thread.start()
    try:
        yield service, kafka
    finally:
        stop.set()
        thread.join(DEADLINE_S)


def settled(command: OrderCommand, state: State, then: Sequence[str] = ()) -> list[Event]:
    name = command.items[0].client_order_id if command.items else None
    make = partial(result, command_id=command.command_id, client_order_id=name)
    return [make("accepted"), make("sent"), make(state), *(order(status, name) for status in then)]


def carried_out(
    broker: KafkaBroker, state: State, *more: str, then: Sequence[str] = ()
) -> tuple[int, list[str], Service]:
    with serving(broker, lambda command: settled(command, state, then)) as (service, kafka):
        code, stdout, _ = run([*CREATE, "--timeout", str(DEADLINE_S), *more], config(**kafka))
    return code, stdout.splitlines(), service


def test_a_command_is_written_as_the_service_reads_it_and_followed_to_its_result(broker: KafkaBroker) -> None:
    code, lines, service = carried_out(broker, "acknowledged", "--json")
    [command] = service.taken
    assert code == 0
    assert [json.loads(each)["state"] for each in lines] == ["accepted", "sent", "acknowledged"]
    assert {json.loads(each)["command_id"] for each in lines} == {command.command_id}
    assert command.items[0].price == "60000.50"
    assert service.keys == [b"bybit.main"]
    assert service.times == [command.issued_at // 1000]


def test_a_refusal_is_exit_code_1(broker: KafkaBroker) -> None:
    code, lines, _ = carried_out(broker, "rejected")
    assert code == 1
    assert "rejected" in lines[-1]


def test_an_order_is_followed_until_it_is_closed(broker: KafkaBroker) -> None:
    code, lines, _ = carried_out(
        broker, "acknowledged", "--follow", "--json", then=["new", "partially_filled", "filled"]
    )
    told = [json.loads(each) for each in lines]
    assert code == 0
    # Between topics there is no order; within one there is.
    assert [each["status"] for each in told if each["event"] == "order"] == ["new", "partially_filled", "filled"]


def test_no_result_in_time_is_exit_code_3_and_says_where_to_look(broker: KafkaBroker) -> None:
    with serving(broker, lambda command: settled(command, "unknown")) as (_, kafka):
        code, _, stderr = run([*CREATE, "--timeout", "2", "--command-id", "eleven"], config(**kafka))
    assert code == 3
    assert "look for eleven with `tail --event order_result --from-beginning`" in stderr


def test_production_is_sent_when_the_instrument_was_typed(broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_command, "_value", told_value)
    with serving(broker, lambda command: settled(command, "acknowledged")) as (service, kafka):
        code, _ = asked([*CREATE, "--timeout", str(DEADLINE_S)], "BTCUSDT\n", kafka)
    assert code == 0
    assert len(service.taken) == 1


def test_a_missing_command_topic_is_named(broker: KafkaBroker) -> None:
    with serving(broker, lambda command: []) as (_, kafka):
        settings = configuration(**kafka)
        settings["orders"]["accounts"]["bybit"]["main"]["command_topic"] = "nobody.made.this"
        with pytest.raises(BaseExceptionGroup) as caught:
            run(CREATE, loads(json.dumps(settings)))
    assert caught.group_contains(SinkFailed, match=r"no such topic: nobody\.made\.this", depth=None)
