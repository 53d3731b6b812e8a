"""Order entry beside a bare loop: both send everything, and what is told follows from the moments they noted."""

from __future__ import annotations

import json

import pytest

from pipeline.bench import orders
from pipeline.bench.arena import BenchFailed
from pipeline.bench.order_contestants import Found, OrderTask, listings
from pipeline.bench.orders import OrderRun, costs, p99_difference_us, run_of, verdict
from pipeline.cli import main
from pipeline.orders.commands import read_command
from pipeline.sink.reader import Decoder
from pipeline.sink.settings import KafkaSettings


def run(number: int, contestant: str, p99_us: float) -> OrderRun:
    disk = (1.0, p99_us / 2) if contestant == "ours" else None
    return OrderRun(number, contestant, 400, (p99_us / 10, p99_us), (p99_us, 2 * p99_us), disk)


def test_order_entry_is_measured_beside_the_bare_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(orders, "SECONDS", 0.4)
    assert main(["bench", "--orders", "--rounds", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [each["contestant"] for each in result["orders"]] == ["ours", "bare"]
    assert [each["orders"] for each in result["runs"]] == [16, 16]
    for each in result["runs"]:
        assert 0 < each["to_wire_us"][0] <= each["to_wire_us"][1] < each["whole_us"][1]
    ours, bare = result["runs"]
    assert 0 < ours["sync_us"][0] <= ours["sync_us"][1]
    assert bare["sync_us"] is None
    assert result["p99_difference_us"] == ours["to_wire_us"][1] - bare["to_wire_us"][1]
    assert result["targets"]["orders"][0]["figure"] == result["p99_difference_us"]
    assert result["failures"] == []


def test_a_run_that_fails_is_told_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(orders, "SECONDS", 0.1)
    monkeypatch.setattr(orders, "CONTESTANTS", {"bare": "bare loop"})
    monkeypatch.setattr(orders, "wire_order", lambda *order: b'{"id": "1", "op": "order", "args": [{}]}')
    assert main(["bench", "--orders", "--rounds", "1"]) == 1
    told = capsys.readouterr()
    assert "bare loop failed" in told.err
    assert "an order was refused" in told.err
    assert "not measured" in told.out
    assert "1 runs failed" in told.out


def test_the_moments_of_a_run_become_latencies() -> None:
    issued = [1_000 * number for number in range(100)]
    sent = [(number, at + 300, at + 300 + (5_000 if number < 20 else number)) for number, at in enumerate(issued)]
    found = run_of(2, "ours", issued, Found(sent, [9_000.0, 100.0, 200.0, 300.0, 400.0]))
    assert (found.round, found.contestant, found.orders) == (2, "ours", 80)
    assert found.to_wire_us == (60, 99)
    assert found.whole_us == (360, 399)
    assert found.sync_us == (300.0, 400.0)


@pytest.mark.parametrize("sent", [[(0, 1, 2)], [(0, 1, 2), (0, 1, 2)], [(0, 1, 2), (1, 1, 2), (1, 2, 3)]])
def test_a_run_that_did_not_send_each_order_once_is_none(sent: list[tuple[int, int, int]]) -> None:
    with pytest.raises(BenchFailed, match=f"{len(sent)} orders sent instead of 2"):
        run_of(1, "bare", [0, 0], Found(sent))


def test_what_was_found_survives_the_way_to_another_process() -> None:
    assert Found.read('{"sent": [[0, 1, 2]], "sync_us": [3.5]}') == Found([(0, 1, 2)], [3.5])


def test_differences_are_taken_within_each_round() -> None:
    runs = [run(1, "ours", 2_000), run(1, "bare", 1_000), run(2, "ours", 9_000), run(2, "bare", 8_500)]
    runs += [run(3, "ours", 5_000), run(3, "bare", 1_000), run(4, "ours", 70_000)]
    assert p99_difference_us(runs) == 1_000
    ours, bare = costs(runs)
    assert (ours.contestant, ours.to_wire_us, ours.sync_us) == ("ours", (700, 7_000), (1, 3_500))
    assert (bare.contestant, bare.to_wire_us, bare.sync_us) == ("bare", (100, 1_000), None)


@pytest.mark.parametrize(("p99_us", "met"), [(3_000, True), (3_001, False)])
def test_the_target_is_two_milliseconds(p99_us: float, met: bool) -> None:
    found = verdict([run(1, "ours", p99_us), run(1, "bare", 1_000)])
    assert (found.met, found.figure) == (met, p99_us - 1_000)


def test_a_target_without_both_contestants_is_not_judged() -> None:
    assert verdict([run(1, "ours", 1_000)]).met is None


def test_both_are_given_the_same_order() -> None:
    for number, listing in enumerate(listings()):
        wire = json.loads(orders.wire_order("run", number, listing, 1_000_000))
        command = read_command(
            Decoder(KafkaSettings(), is_plain=True).decode(orders.command("run", number, listing, 1_000_000))
        )
        [item], [sent] = command.items, wire["args"]
        assert (item.price, item.size, item.side) == (sent["px"], sent["sz"], sent["side"])
        assert int(wire["expTime"]) * 1_000 == command.not_after
        assert abs(float(sent["px"]) / float(listing.price) - 1) < 0.03


def test_all_a_process_is_told_survives_the_way_there() -> None:
    task = OrderTask(role="bare", folder="f", kafka="localhost:1", prefix="run", count=3)
    assert OrderTask(**json.loads(orders._text(task))) == task
    assert task.topic == "run.order.order_command.okx.main"
