from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from confluent_kafka import KafkaError
from trio.testing import MockClock

from pipeline.sink.delivery import Delivery
from pipeline.sink.errors import SinkFailed
from pipeline.sink.outlet import Failure, Outlet
from pipeline.sink.records import Record
from pipeline.sink.verdicts import Verdict, known_codes, ruling_on
from tests.sink.fake_producer import FakeBroker, FakeProducer, Reported
from tests.sink.traffic import kafka_settings

PATIENCE_S = 2.0
LETTERS = "control.dead_letter"
WITHIN_S = 600

EXPECTED = {
    Verdict.RETRY: """NOT_ENOUGH_REPLICAS NOT_ENOUGH_REPLICAS_AFTER_APPEND NOT_LEADER_FOR_PARTITION
        LEADER_NOT_AVAILABLE KAFKA_STORAGE_ERROR REQUEST_TIMED_OUT NETWORK_EXCEPTION THROTTLING_QUOTA_EXCEEDED
        _MSG_TIMED_OUT _TIMED_OUT _TRANSPORT _PURGE_QUEUE _PURGE_INFLIGHT CONCURRENT_TRANSACTIONS
        COORDINATOR_NOT_AVAILABLE COORDINATOR_LOAD_IN_PROGRESS NOT_COORDINATOR TRANSACTION_ABORTABLE _AUTHENTICATION
        _SSL SASL_AUTHENTICATION_FAILED""",
    Verdict.PATIENCE: """UNKNOWN_TOPIC_OR_PART _UNKNOWN_TOPIC _UNKNOWN_PARTITION TOPIC_AUTHORIZATION_FAILED
        POLICY_VIOLATION TOPIC_EXCEPTION UNSUPPORTED_FOR_MESSAGE_FORMAT UNSUPPORTED_COMPRESSION_TYPE
        INVALID_REQUIRED_ACKS""",
    Verdict.ISOLATE: """MSG_SIZE_TOO_LARGE RECORD_LIST_TOO_LARGE INVALID_RECORD INVALID_MSG INVALID_MSG_SIZE
        INVALID_TIMESTAMP""",
    Verdict.RECREATE: """OUT_OF_ORDER_SEQUENCE_NUMBER UNKNOWN_PRODUCER_ID INVALID_PRODUCER_ID_MAPPING
        INVALID_PRODUCER_EPOCH DUPLICATE_SEQUENCE_NUMBER INVALID_TXN_STATE _GAPLESS_GUARANTEE _INCONSISTENT _STATE
        _FATAL""",
    Verdict.STOP: """_FENCED PRODUCER_FENCED CLUSTER_AUTHORIZATION_FAILED TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        INVALID_TRANSACTION_TIMEOUT UNSUPPORTED_VERSION _UNSUPPORTED_FEATURE SECURITY_DISABLED
        UNSUPPORTED_SASL_MECHANISM""",
}
ROWS = [(name, verdict) for verdict, names in EXPECTED.items() for name in names.split()]


def codes(verdict: Verdict) -> list[str]:
    return EXPECTED[verdict].split()


def code_of(name: str) -> int:
    code: int = getattr(KafkaError, name)
    return code


def record(number: int, key: bytes = b"bybit.linear.BTCUSDT") -> Record:
    return Record("market.trade", key, 1_700_000_000_000, b"%d" % number)


def letter_for(failure: Failure, payload: bytes) -> Record:
    return Record(LETTERS, failure.record.key, 0, b"letter:" + payload)


def records_of(failures: Iterable[Failure]) -> list[Record]:
    return [failure.record for failure in failures]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sink.delivery._PATIENCE_S", PATIENCE_S)


@asynccontextmanager
async def delivering(broker: FakeBroker, folder: Path) -> AsyncIterator[Delivery]:
    """A delivery whose outlet runs."""
    outlet = Outlet(kafka_settings("localhost:1", folder), lambda: None, broker.make)
    delivery = Delivery(outlet, letter_for, LETTERS, records_of, {}, lambda *_, **__: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outlet.run)
        with trio.fail_after(WITHIN_S):
            yield delivery
        nursery.cancel_scope.cancel()


def values(broker: FakeBroker) -> list[bytes]:
    return [reported.value() for reported in broker.delivered]


def test_every_row_of_the_table_is_expected_here() -> None:
    assert {code_of(name) for name, _ in ROWS} == known_codes()


@pytest.mark.parametrize(("name", "verdict"), ROWS)
def test_rulings(name: str, verdict: Verdict) -> None:
    ruling = ruling_on(code_of(name))
    assert ruling.verdict is verdict
    assert bool(ruling.remedy) >= (verdict is Verdict.STOP)
    fatal = ruling_on(code_of(name), fatal=True)
    assert fatal.verdict is (Verdict.STOP if verdict is Verdict.STOP else Verdict.RECREATE)


def test_an_unknown_error_gets_patience() -> None:
    assert ruling_on(KafkaError.UNKNOWN).verdict is Verdict.PATIENCE


@pytest.mark.parametrize("name", codes(Verdict.RETRY) + codes(Verdict.PATIENCE))
async def test_what_may_pass_is_sent_again(name: str, tmp_path: Path, autojump_clock: MockClock) -> None:
    broker = FakeBroker()
    broker.refusals.extend([(code_of(name), False)] * 3)
    async with delivering(broker, tmp_path) as delivery:
        delivery.pending.extend([record(0), record(1)])
        await delivery.deliver()
    assert sorted(values(broker)) == [b"0", b"1"]
    assert len(broker.producers) == 1


@pytest.mark.parametrize("name", codes(Verdict.RETRY))
async def test_a_passing_error_is_waited_out(name: str, tmp_path: Path, autojump_clock: MockClock) -> None:
    broker = FakeBroker()
    code = code_of(name)
    broker.refuses = lambda _: code if trio.current_time() < 10 * PATIENCE_S else None
    async with delivering(broker, tmp_path) as delivery:
        delivery.pending.append(record(0))
        await delivery.deliver()
    assert values(broker) == [b"0"]


@pytest.mark.parametrize("name", codes(Verdict.PATIENCE))
async def test_a_topic_that_keeps_refusing_costs_dead_letters(
    name: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    code = code_of(name)
    broker.refuses = lambda reported: code if reported.topic() == "market.trade" else None
    async with delivering(broker, tmp_path) as delivery:
        delivery.pending.extend([record(0), record(1)])
        await delivery.deliver()
        assert PATIENCE_S < trio.current_time() < 60
    assert values(broker) == [b"letter:0", b"letter:1"]


@pytest.mark.parametrize("name", codes(Verdict.ISOLATE))
async def test_one_record_at_fault_is_found_among_its_neighbours(
    name: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    broker, code = FakeBroker(), code_of(name)
    batch = [record(number) for number in range(20)]

    def refuse(reported: Reported) -> int | None:
        """The batch up to the bad one."""
        waiting = [reported, *(each for each, _ in broker.producers[0].queue)]
        bad = any(each.value() == b"7" and (each.sent_ms or name != "INVALID_TIMESTAMP") for each in waiting)
        return code if bad and reported.topic() == "market.trade" else None

    broker.refuses = refuse
    async with delivering(broker, tmp_path) as delivery:
        delivery.pending.extend(batch)
        await delivery.deliver()
    too_large = name in ("MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_MSG_SIZE")
    instead = b"7" if name == "INVALID_TIMESTAMP" else b"letter:" if too_large else b"letter:7"
    assert sorted(values(broker)) == sorted([*(b"%d" % n for n in range(20) if n != 7), instead])


@pytest.mark.parametrize("fatal", [False, True])
@pytest.mark.parametrize("name", codes(Verdict.RECREATE))
async def test_a_confused_producer_is_replaced_and_order_is_kept(
    name: str, fatal: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    async with delivering(broker, tmp_path) as delivery:
        delivery.pending.extend(record(number) for number in range(5))
        await delivery.deliver()
        broker.refusals.append((code_of(name), fatal))
        delivery.pending.extend(record(number) for number in range(5, 15))
        await delivery.deliver()
        assert delivery.outlet.renewals == 1
        assert delivery.outlet.outstanding == 0
    assert len(broker.producers) == 2
    assert set(values(broker)) == {b"%d" % number for number in range(15)}
    if fatal:
        assert values(broker) == [b"%d" % number for number in range(15)]


async def test_what_a_broken_producer_held_goes_in_front(tmp_path: Path, autojump_clock: MockClock) -> None:
    broker = FakeBroker()
    async with delivering(broker, tmp_path) as delivery:
        for number in range(3):
            delivery.outlet.send(record(number))
        delivery.outlet.break_off("as told")
        delivery.pending.extend([record(3), record(4)])
        await delivery.deliver()
    assert values(broker) == [b"%d" % number for number in range(5)]


async def test_what_a_broken_producer_keeps_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr("pipeline.sink.outlet._PURGE_WITHIN_S", 0.01)
    monkeypatch.setattr(FakeProducer, "poll", lambda *_: 0)
    broker = FakeBroker()
    async with delivering(broker, tmp_path) as delivery:
        delivery.outlet.send(record(0))
        delivery.outlet.break_off("as told")
        await delivery.deliver()
        assert delivery.outlet.stuck == 1
        assert delivery.outlet.outstanding == 0


async def test_a_producer_that_keeps_breaking_is_given_up(tmp_path: Path, autojump_clock: MockClock) -> None:
    broker = FakeBroker()
    broker.refuses = lambda _: KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER
    async with delivering(broker, tmp_path) as delivery:
        delivery.pending.append(record(0))
        with pytest.raises(SinkFailed, match="5 new producers have not helped"):
            await delivery.deliver()


@pytest.mark.parametrize("name", codes(Verdict.STOP))
async def test_what_only_a_person_can_mend_stops_with_one_line(
    name: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    broker = FakeBroker()
    broker.refusals.append((code_of(name), False))
    async with delivering(broker, tmp_path) as delivery:
        delivery.pending.extend([record(0), record(1)])
        with pytest.raises(SinkFailed, match="as told; ") as caught:
            await delivery.deliver()
        assert ruling_on(code_of(name)).remedy in str(caught.value)
        assert [each.value for each in delivery.pending] == [b"0"]  # kept for the spool; the other one is in Kafka


@pytest.mark.parametrize("name", codes(Verdict.STOP))
async def test_so_does_a_fatal_error(name: str, tmp_path: Path, autojump_clock: MockClock) -> None:
    broker = FakeBroker()
    broker.refusals.append((code_of(name), True))
    with pytest.RaisesGroup(
        pytest.RaisesExc(SinkFailed, match=f"{name.lstrip('_')}.*as told; "), flatten_subgroups=True
    ):
        async with delivering(broker, tmp_path) as delivery:
            delivery.outlet.send(record(0))
            await trio.sleep_forever()


async def test_what_a_broken_producer_gave_back_is_kept_when_its_replacement_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlet = Outlet(kafka_settings("localhost:1", tmp_path), lambda: None, FakeBroker().make)
    outlet.send(record(0))
    outlet.break_off("as told")
    give_up = Outlet.give_up
    given_back: list[Failure] = []
    with trio.CancelScope() as scope:

        def cancelled_meanwhile(outlet: Outlet) -> list[Failure]:
            trio.from_thread.run_sync(scope.cancel)
            return give_up(outlet)

        monkeypatch.setattr(Outlet, "give_up", cancelled_meanwhile)
        given_back = await outlet.renew()
    assert [failure.record.value for failure in given_back] == [b"0"]
