"""Orders, from a command in Kafka to the exchange's books and back, whatever is killed, cut, repeated or nonsense."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path

import attrs
import trio

from pipeline.model.decimals import DecimalText
from pipeline.model.header import Micros
from pipeline.model.orders import AMEND, CANCEL, CANCEL_ALL, CREATE, KILL, MAX_ITEMS, RESUME, OrderItem
from pipeline.orders.commands import encode_command
from pipeline.orders.identity import client_order_id
from pipeline.session.clock import system_clock
from tests.e2e import program
from tests.e2e.consumer import Record, Topics
from tests.e2e.orders import LISTED, MINUTE_US, VENUES, Trader, states, told, total, trading

DEADLINE_S = 120
STEPS = ("intended", "synced", "sent", "answered", "told", "delivered")
"""Of a command's life, in which the process is killed; tests/orders/test_crashes.py goes through them all."""


async def test_orders_of_every_kind_good_and_bad(topics: Topics, tmp_path: Path) -> None:
    """In as few services as can be: to start one costs more than what it is asked here."""
    with trio.fail_after(DEADLINE_S):
        async with trading(topics, tmp_path) as trader:
            async with trader.service():
                await orders_are_placed_changed_filled_and_cancelled(trader)
                refused = await what_is_no_good_command_is_refused_once_and_asks_the_exchange_for_nothing(trader)
                await the_kill_switch_is_used(trader)
            await trader.check()
            async with trader.service():
                await the_kill_switch_has_outlived_the_process(trader)
                await trader.check()
                async with trio.open_nursery() as nursery:
                    for venue in VENUES:
                        nursery.start_soon(by_hand, trader, venue)
        letters = await topics.read("dead_letter")
        assert len(letters) == len(refused["schema"])


async def orders_are_placed_changed_filled_and_cancelled(trader: Trader) -> None:
    placed = {venue: trader.give(venue, CREATE, trader.order(venue)) for venue in VENUES}
    amended, cancelled, crossed = {}, {}, {}
    for venue, command in placed.items():
        name = client_order_id(command, 0)
        # Without waiting: what is about one order reaches the exchange in this order.
        twice = trader.item(venue, client_order_id=name, size=trader.size(venue, 200))
        amended[venue] = trader.give(venue, AMEND, twice)
        cancelled[venue] = trader.give(venue, CANCEL, trader.item(venue, client_order_id=name))
        takers = [
            trader.order(venue, order_type="market", price=None, size=trader.size(venue, 10)),
            trader.order(venue, size=trader.size(venue, 7)),
        ]
        crossed[venue] = trader.give(venue, CREATE, *takers)
    every = [*placed.values(), *amended.values(), *cancelled.values(), *crossed.values()]
    finals = await trader.finals(*every)
    assert set(states(finals)) == {"acknowledged"}, told(finals)
    for result in finals:
        assert result["consumed_time"] <= result["sent_time"] <= result["answered_time"]
        assert result.key == f"{result['venue']}.main.{LISTED[result['venue']][1]}"
    for venue in VENUES:
        name, taker = client_order_id(placed[venue], 0), client_order_id(crossed[venue], 0)
        size = Decimal(trader.size(venue, 10))
        await trader.topics.until("fill", partial(has_filled, name=taker, size=size))
        orders = await trader.topics.until("order", partial(has_ended, name=name))
        assert Decimal(of(orders, name)[-1]["size"]) == Decimal(trader.size(venue, 200))
        assert trader.counted(venue, name, "amend") == (1, 1)
        assert trader.counted(venue, name, "cancel") == (1, 1)
    swept = [trader.give(venue, CANCEL_ALL) for venue in VENUES]
    assert states(await trader.finals(*swept)) == ["acknowledged"] * 2
    assert not any(trader.venues[venue].accounts["main"].open_orders() for venue in VENUES)
    await trader.settled()


def of(records: list[Record], name: str) -> list[Record]:
    """Those of one order."""
    return [each for each in records if each["client_order_id"] == name]


def has_filled(records: list[Record], name: str, size: Decimal) -> bool:
    filled = total(of(records, name), "size")
    assert filled <= size
    return filled == size


def has_ended(records: list[Record], name: str) -> bool:
    return any(each["status"] == "cancelled" for each in of(records, name))


async def the_kill_switch_is_used(trader: Trader) -> None:
    account = trader.venues["bybit"].accounts["main"]
    placed = trader.give("bybit", CREATE, trader.order("bybit"), trader.order("bybit"))
    assert states(await trader.finals(placed)) == ["acknowledged"] * 2
    assert account.open_orders()
    assert states([await trader.final(trader.give("bybit", KILL, reason="a test"))]) == ["acknowledged"]
    while account.open_orders():  # noqa: ASYNC110 - the account tells nobody
        await trio.sleep(0.02)


async def the_kill_switch_has_outlived_the_process(trader: Trader) -> None:
    refused = trader.give("bybit", CREATE, trader.order("bybit"))
    elsewhere = trader.give("okx", CREATE, trader.order("okx"))
    found = await trader.finals(refused, elsewhere)
    assert states(found) == ["rejected kill_switch", "acknowledged"], told(found)
    resumed, again = trader.give("bybit", RESUME), trader.give("bybit", CREATE, trader.order("bybit"))
    assert states(await trader.finals(resumed, again)) == ["acknowledged"] * 2


async def test_a_process_that_is_killed_anywhere_sends_nothing_twice_and_forgets_nothing(
    topics: Topics, tmp_path: Path
) -> None:
    """Both venues have a command under way each time: one is at the step, the other wherever it is then."""
    commands: list[tuple[str, str]] = []
    with trio.fail_after(DEADLINE_S):
        async with trading(topics, tmp_path) as trader:
            for step in STEPS:
                async with trader.service(fatal=step) as process:
                    commands += [(venue, trader.give(venue, CREATE, trader.order(venue))) for venue in VENUES]
                    assert await process.wait() == -signal.SIGKILL
            # The last start reads all of it again from the beginning, with the ledger; then one without it.
            trader.forget_commits()
            async with trader.service():
                finals = await trader.finals(*(command for _, command in commands))
                await trader.settled()
            check_truth(trader, finals)
            await trader.check()
            before = {venue: trader.venues[venue].dialect.tally.of("main") for venue in VENUES}
            shutil.rmtree(tmp_path / "orders")
            trader.forget_commits()
            async with trader.service():
                await trader.settled()
            await trader.check()
            assert {venue: trader.venues[venue].dialect.tally.of("main") for venue in VENUES} == before


def check_truth(trader: Trader, finals: list[Record]) -> None:
    """What the results say of new orders is what the exchanges have done."""
    for result in finals:
        received, taken = trader.counted(result["venue"], result["client_order_id"])
        assert received <= 1
        assert taken == (result["state"] == "acknowledged"), told([result])
        # ownership: killed before it could note that the topic had never had another owner.
        assert states([result])[0] in ("acknowledged", "rejected not_arrived", "rejected ownership"), told([result])


async def test_answers_that_are_cut_off_come_too_late_or_leave_it_open(topics: Topics, tmp_path: Path) -> None:
    with trio.fail_after(DEADLINE_S):
        async with trading(topics, tmp_path, answer_within="1s") as trader, trader.service():
            base = {venue: trader.give(venue, CREATE, trader.order(venue)) for venue in VENUES}
            assert states(await trader.finals(*base.values())) == ["acknowledged"] * 2
            names = {venue: client_order_id(command, 0) for venue, command in base.items()}

            async def all_three(expected: Mapping[str, str], kind: str, **more: object) -> None:
                for action, state in expected.items():
                    commands = []
                    for venue in VENUES:
                        meant = trader.item(venue, client_order_id=names[venue])
                        if action == CREATE:
                            meant = trader.order(venue)
                        elif action == AMEND:
                            meant = attrs.evolve(meant, size=trader.size(venue, 300))
                        trader.fault(venue, kind, action=action, **more)
                        commands.append(trader.give(venue, action, meant))
                    finals = await trader.finals(*commands)
                    assert states(finals) == [state] * 2, (kind, action, told(finals))
                    if action == CREATE:
                        check_truth(trader, finals)

            lost, found = "rejected not_arrived", "acknowledged"
            await all_three({CREATE: lost, AMEND: lost, CANCEL: lost}, "drop_before_take")
            await all_three({CREATE: found, AMEND: found, CANCEL: found}, "drop_before_ack")
            results = trader.results.records
            unknown = {each["command_id"] for each in results if each["state"] == "unknown"}
            assert unknown == {command for _, command in trader.given} - set(base.values())

            for venue in VENUES:
                trader.fault(venue, "hold_acks")
            held = [trader.give(venue, CREATE, trader.order(venue)) for venue in VENUES]
            assert states(await trader.finals(*held)) == ["acknowledged"] * 2
            for venue in VENUES:
                trader.fault(venue, "release_acks")
            for taken in (True, False):
                open_ = []
                for venue in VENUES:
                    code = {"bybit": "10016", "okx": "50004"}[venue]
                    trader.fault(venue, "ambiguous_code", error=code, taken=taken)
                    open_.append(trader.give(venue, CREATE, trader.order(venue)))
                finals = await trader.finals(*open_)
                assert states(finals) == ["acknowledged" if taken else "rejected not_arrived"] * 2
                check_truth(trader, finals)
            await trader.settled()
        await trader.check()


async def what_is_no_good_command_is_refused_once_and_asks_the_exchange_for_nothing(
    trader: Trader,
) -> dict[str, list[str]]:
    """The commands that were refused, by rule."""
    before = set(trader.venues["bybit"].dialect.tally.of("main")["orders"])
    order, now = trader.order("bybit"), system_clock()
    tick, lot = trader.listing("bybit").tick, trader.listing("bybit").lot
    refused = {
        "schema": [
            *(
                trader.give_nonsense("bybit", value)
                for value in (b"", b"{}", b"\x00" * 900_000, b"\xc3\x01" + b"x" * 99)
            ),
            trader.give_nonsense("bybit", encode_command(trader.command("bybit", CREATE, order))[:-3]),
            given(trader, *([order] * (MAX_ITEMS + 1))),
            given(trader, attrs.evolve(order, price=DecimalText("-1"))),
            given(trader, attrs.evolve(order, size=DecimalText("9" * 1_000))),
            given(trader, order, not_after=Micros(now - 1)),
            given(trader),
        ],
        "account": [given(trader, order, account="second")],
        "expired": [
            given(trader, order, issued_at=Micros(now - 60 * MINUTE_US), not_after=Micros(now + MINUTE_US)),
            given(trader, order, issued_at=Micros(now - 2), not_after=Micros(now - 1)),
        ],
        "instrument": [given(trader, attrs.evolve(order, instrument="NOTHING"))],
        "tick_size": [given(trader, attrs.evolve(order, price=DecimalText(f"{trader.price('bybit')}1")))],
        "lot_size": [given(trader, attrs.evolve(order, size=DecimalText(str(lot * 3 / 2))))],
        "price_band": [given(trader, attrs.evolve(order, price=DecimalText(str(tick * 1000))))],
        "max_order_value": [given(trader, attrs.evolve(order, size=trader.size("bybit", 1_000_000)))],
        "venue": [given(trader, attrs.evolve(order, extras={"orderIv": "1"}))],
    }
    good = trader.command("bybit", CREATE, order)
    trader.given.append(("bybit", good.command_id))
    for _ in range(3):  # the same command three times is one
        trader.write("bybit", encode_command(good))
    assert states([await trader.final(good.command_id)]) == ["acknowledged"]
    for rule, commands in refused.items():
        finals = await trader.finals(*commands)
        assert {each["rule"] for each in finals} == {rule}, told(finals)
        assert {each["error_class"] for each in finals} <= {"permanent", "retryable"}
    await trader.settled()
    asked = set(trader.venues["bybit"].dialect.tally.of("main")["orders"])
    assert asked - before == {client_order_id(good.command_id, 0)}
    return refused


def given(trader: Trader, *items: OrderItem, **changes: object) -> str:
    """A command that will be refused as a whole, or with its only item."""
    command = trader.command("bybit", CREATE, *items, **changes)
    return trader.give_nonsense("bybit", encode_command(command), command.command_id)


async def by_hand(trader: Trader, venue: str) -> None:
    """A market order, followed until it is filled; then cancelled too late."""
    market, instrument = LISTED[venue]
    which = ["--config", str(trader.config), "--account", f"{venue}.main", "--yes", "--json", "--timeout", "60"]
    done = await program.command(
        *("order", "create", *which, "--market", market, "--instrument", instrument, "--side", "buy"),
        *("--type", "market", "--size", trader.size(venue, 5), "--follow"),
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert "filled" in {each.get("status") for each in lines}
    assert {each["event"] for each in lines} >= {"order", "order_result"}
    [name] = {each["client_order_id"] for each in lines}
    refused = await program.command(
        *("order", "cancel", *which, "--market", market, "--instrument", instrument, "--client-order-id", name)
    )
    assert refused.returncode == 1, refused.stderr
    assert json.loads(refused.stdout.splitlines()[-1])["rejected_by"] == "venue"
