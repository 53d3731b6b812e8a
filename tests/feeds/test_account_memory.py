from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from pipeline.feeds.account_events import closing
from pipeline.feeds.account_memory import AccountMemory, Scope
from pipeline.feeds.settings import ReconcileSettings
from pipeline.model.account import AccountGreeks, AccountRaw, Balance, Order, Position
from pipeline.model.decimals import DecimalText
from pipeline.model.events import Event
from tests.feeds.account_model import SETTINGS, balance, fill, micros, order, origin, position, positions_end

EVERYTHING = 10**9
"""A mark that nothing comes after."""
NEW = "a#2"
ORDERS, POSITIONS, BALANCES = (Scope(channel, None) for channel in ("order", "position", "wallet"))


@pytest.fixture
def memory() -> AccountMemory:
    return AccountMemory(SETTINGS)


def admit(memory: AccountMemory, *events: Event) -> list[Event]:
    return [each for event in events for each in memory.admit(event)]


def complete(memory: AccountMemory, scope: Scope, *events: Event, mark: int = EVERYTHING) -> list[Event]:
    kind = {"order": "order", "position": "position", "wallet": "balance", "greeks": "account_greeks"}[scope.channel]
    return memory.complete(scope, kind, list(events), mark, micros(100), NEW)[0]


def vanished(memory: AccountMemory, *events: Event, mark: int = EVERYTHING) -> list[str]:
    orders = memory.complete(ORDERS, "order", list(events), mark, micros(100), NEW)[1]
    return [each.order_id for each in orders]


def answered(memory: AccountMemory, *events: Event, second: int = 100, mark: int = EVERYTHING) -> list[Event]:
    return memory.answered(order("1"), list(events), mark, micros(second), NEW)


def greeks(**values: Any) -> AccountGreeks:
    return AccountGreeks(origin(None), micros(1), micros(1), None, "greeks", False, "BTC", **values)


# The stream


def test_a_fill_is_published_once_whoever_brings_it(memory: AccountMemory) -> None:
    assert len(admit(memory, fill("1"), fill("1"), fill("2"))) == 2
    assert memory.repeated_fills == 1
    assert memory.fills("execution", [fill("2", read=True), fill("3", read=True)], micros(9)) == [fill("3", read=True)]
    assert admit(memory, fill("3")) == []
    assert answered(memory, fill("3", read=True), fill("4", read=True)) == [fill("4", read=True)]


def test_a_fast_fill_is_another_one(memory: AccountMemory) -> None:
    fast = replace(fill("1"), is_fast=True)
    assert admit(memory, fast, fill("1"), fast) == [fast, fill("1")]


def test_events_without_state_pass(memory: AccountMemory) -> None:
    raw = AccountRaw(origin(), None, micros(1), None, "grid", False, "{}", "")
    warning = replace(position(5, 1), is_liquidation_warning=True, channel="liquidation-warning")
    assert admit(memory, raw, raw, warning, warning) == [raw, raw, warning, warning]
    warnings = Scope("liquidation-warning", None)
    assert memory.complete(warnings, "liquidation_warning", [raw], EVERYTHING, micros(9), NEW) == ([raw], [])


def test_what_the_stream_tells_again_passes(memory: AccountMemory) -> None:
    events = [order("1"), order("1"), order("1", "filled", 2), order("1", "new", 1), position(1), position(1)]
    assert admit(memory, *events) == events


def test_a_snapshot_of_the_stream_closes_what_it_does_not_name(memory: AccountMemory) -> None:
    admit(memory, position(1, instrument="X"), position(-2, instrument="Y"))
    named = [position(3, 5, read=True, instrument="X"), position(4, 5, read=True, instrument="Z")]
    assert admit(memory, *named) == named
    [closed] = admit(memory, positions_end(5))
    assert isinstance(closed, Position)
    assert (closed.origin.instrument, closed.side, closed.size, closed.is_snapshot) == ("Y", "flat", "0", True)
    assert (closed.exchange_time, closed.receive_time) == (micros(5), micros(5))
    assert admit(memory, positions_end(6)) != [], "of the empty snapshot"
    assert admit(memory, positions_end(7)) == [], "closed already"


def test_a_snapshot_that_was_cut_off_does_not_count(memory: AccountMemory) -> None:
    admit(memory, position(1, read=True, instrument="X"), position(2, read=True, instrument="Y"))
    again = position(1, 5, read=True, instrument="X", connection=NEW)
    closed = admit(memory, again, positions_end(5, connection=NEW))[1:]
    assert [each.origin.instrument for each in closed] == ["Y"]
    assert [each.origin.connection for each in closed] == [NEW]


def test_an_empty_snapshot_is_none_of_the_connection_that_began_one(memory: AccountMemory) -> None:
    admit(memory, position(1, read=True, instrument="X"))
    assert len(admit(memory, positions_end(5, connection=NEW))) == 1


def test_a_change_during_a_snapshot_names_its_key(memory: AccountMemory) -> None:
    admit(memory, position(1, read=True, instrument="X"), position(2, 3, instrument="Y"))
    assert admit(memory, positions_end(5)) == []


def test_a_snapshot_is_of_its_channel_market_and_kind(memory: AccountMemory) -> None:
    other = position(1, channel="balance_and_position")
    cash = replace(balance("5"), channel="position")
    admit(memory, position(1), other, cash, replace(order("1"), channel="position"))
    assert admit(memory, positions_end(5, market="spot")) == []
    assert [each.KIND for each in admit(memory, positions_end(5, market="linear"))] == ["position"]


def test_the_stream_reopens_what_its_snapshot_closed(memory: AccountMemory) -> None:
    admit(memory, position(1, 1), positions_end(5))
    assert admit(memory, position(1, 4)) == [position(1, 4)]


# Queries of a whole state


def test_a_query_publishes_what_it_found(memory: AccountMemory) -> None:
    admit(memory, order("1"), position(1), balance("5"))
    assert complete(memory, ORDERS, order("1", read=True)) == [order("1", read=True)]
    assert complete(memory, POSITIONS, position(2, 4, read=True)) == [position(2, 4, read=True)]
    assert complete(memory, BALANCES, balance("7", 4, read=True)) == [balance("7", 4, read=True)]


def test_what_the_stream_told_during_a_query_stands(memory: AccountMemory) -> None:
    admit(memory, position(1, instrument="Y"))
    mark = memory.mark()
    admit(memory, order("1", second=5), position(1, 5, instrument="X"), balance("5", 5))
    assert complete(memory, ORDERS, order("1", "partially_filled", 6, read=True), mark=mark) == []
    assert [each.origin.instrument for each in complete(memory, POSITIONS, mark=mark)] == ["Y"]
    assert complete(memory, BALANCES, mark=mark) == []
    assert vanished(memory, mark=mark) == []
    assert vanished(memory, mark=memory.mark()) == ["1"]


def test_a_late_answer_is_not_published(memory: AccountMemory) -> None:
    admit(memory, order("1", "filled", 5, 1), position(1, 5, sequence=7), balance("5", 5))
    assert complete(memory, ORDERS, order("1", second=4, read=True), order("1", second=5, read=True)) == []
    assert complete(memory, POSITIONS, position(2, 4, read=True), position(3, 5, read=True, sequence=6)) == []
    assert complete(memory, BALANCES, balance("4", 4, read=True)) == []
    same = position(1, 5, read=True, sequence=7)
    assert complete(memory, POSITIONS, same) == [same]


def test_what_a_query_does_not_find_is_closed(memory: AccountMemory) -> None:
    admit(memory, replace(position(1, 3, position_id="p"), position_side="long", margin_mode="cross"))
    [closed] = complete(memory, POSITIONS)
    assert isinstance(closed, Position)
    assert (closed.side, closed.size, closed.is_snapshot, closed.exchange_time) == ("flat", "0", True, micros(3))
    assert (closed.position_id, closed.position_side, closed.margin_mode) == ("p", "long", "cross")
    assert (closed.receive_time, closed.origin.connection, closed.origin.market) == (micros(100), NEW, "linear")
    assert complete(memory, POSITIONS) == []


def test_balances_close_at_zero(memory: AccountMemory) -> None:
    admit(memory, replace(balance("5", 1), account_type="UNIFIED"))
    [closed] = complete(memory, BALANCES)
    assert isinstance(closed, Balance)
    assert (closed.currency, closed.account_type) == ("USDT", "UNIFIED")
    assert (closed.total, closed.available, closed.equity) == ("0", "0", "0")


@pytest.mark.parametrize(("total", "held"), [("0", False), ("-0.00", False), ("0E-8", False), ("-1E-8", True)])
def test_a_balance_of_zero_is_none(memory: AccountMemory, total: str, held: bool) -> None:
    admit(memory, balance(total, 1))
    assert bool(complete(memory, BALANCES)) is held


def test_equity_without_cash_is_a_balance(memory: AccountMemory) -> None:
    admit(memory, replace(balance("0", 1), equity=DecimalText("0.1")))
    assert len(complete(memory, BALANCES)) == 1


def test_greeks_close_at_zero_where_they_were_set(memory: AccountMemory) -> None:
    admit(memory, greeks(delta=1.0, coin_vega=-2.0))
    [closed] = complete(memory, Scope("greeks", None))
    assert isinstance(closed, AccountGreeks)
    assert (closed.delta, closed.coin_vega, closed.gamma, closed.currency) == (0.0, 0.0, None, "BTC")


def test_a_query_is_of_its_channel_and_market(memory: AccountMemory) -> None:
    admit(memory, position(1, channel="other"), position(1), balance("5"))
    assert complete(memory, Scope("position", "inverse")) == []
    assert [each.KIND for each in complete(memory, Scope("position", "linear"))] == ["position"]


def test_the_stream_does_not_go_back_behind_a_query(memory: AccountMemory) -> None:
    complete(memory, ORDERS, order("1", "filled", 5, 1, read=True))
    complete(memory, POSITIONS, position(2, 5, read=True, sequence=9))
    late = [order("1", second=4), order("1", second=5), position(1, 4), position(1, 5, sequence=8)]
    assert admit(memory, *late) == []
    assert memory.superseded == 4
    later = [order("1", "filled", 5, 1), position(2, 5, sequence=9), position(3, 6, sequence=10)]
    assert admit(memory, *later) == later


def test_the_stream_goes_back_behind_balances(memory: AccountMemory) -> None:
    """Some venues date an answer about balances by its sending, which is later than what is in it."""
    complete(memory, BALANCES, balance("5", 5, read=True))
    assert admit(memory, balance("4", 4)) == [balance("4", 4)]


def test_what_is_superseded_is_named_all_the_same(memory: AccountMemory) -> None:
    complete(memory, POSITIONS, position(2, 5, read=True))
    mark = memory.mark()
    assert admit(memory, position(1, 4, read=True), positions_end(4)) == []
    assert complete(memory, POSITIONS, mark=mark) == []


def test_what_a_query_closed_stays_closed_for_what_was_before(memory: AccountMemory) -> None:
    admit(memory, position(1, 3))
    complete(memory, POSITIONS)
    assert complete(memory, POSITIONS, position(1, 2, read=True)) == []
    assert admit(memory, position(1, 2)) == []
    assert admit(memory, position(1, 4)) == [position(1, 4)]
    assert len(complete(memory, POSITIONS)) == 1


def test_what_comes_without_a_time_does_not_make_the_past_the_present(memory: AccountMemory) -> None:
    admit(memory, position(1, 5, sequence=7), replace(position(2), exchange_time=None))
    assert complete(memory, POSITIONS, position(3, 4, read=True), position(3, 5, read=True, sequence=6)) == []


def test_what_is_no_longer_there_cannot_be_closed_as_something_else() -> None:
    with pytest.raises(TypeError, match="order"):
        closing(order("1"), origin(), None, micros(1))


# Orders that are open no longer


def test_an_order_that_vanished_is_told_by_its_answer(memory: AccountMemory) -> None:
    admit(memory, order("1"), order("2"), order("3", "cancelled"))
    assert vanished(memory, order("2", read=True)) == ["1"]
    end = order("1", "filled", 5, 1, read=True)
    assert answered(memory, end) == [end]
    assert vanished(memory, order("2", read=True)) == []


def test_an_order_that_was_there_after_all_stays(memory: AccountMemory) -> None:
    admit(memory, order("1"))
    assert answered(memory) == []
    assert memory.in_doubt
    assert answered(memory, order("1", read=True)) == [order("1", read=True)]
    assert not memory.in_doubt
    assert answered(memory, second=200) == [], "the first time again"
    assert vanished(memory) == ["1"]


def test_an_order_that_the_venue_forgot_is_given_up(memory: AccountMemory) -> None:
    placed = replace(order("1", "partially_filled", 3, 2), extras={"a": "b"})
    admit(memory, placed)
    assert answered(memory, second=100) == []
    assert answered(memory, second=159) == []
    [end] = answered(memory, second=160)
    assert isinstance(end, Order)
    assert (end.status, end.venue_status, end.filled_size, end.is_snapshot) == ("cancelled", "", "2", True)
    assert (end.exchange_time, end.receive_time, end.origin.connection) == (micros(3), micros(160), NEW)
    assert set(end.extras) == {"a", "inferred"}
    assert vanished(memory) == []
    assert not memory.in_doubt
    assert answered(memory, second=300) == []


def test_the_stream_ends_the_doubt(memory: AccountMemory) -> None:
    admit(memory, order("1"))
    answered(memory, second=100)
    admit(memory, order("1", second=150))
    assert not memory.in_doubt
    assert answered(memory, second=200) == []
    mark = memory.mark()
    admit(memory, order("1", second=260))
    assert answered(memory, second=300, mark=mark) == []
    assert not memory.in_doubt


def test_a_query_does_not_end_the_doubt_by_what_it_knew_before(memory: AccountMemory) -> None:
    admit(memory, order("1", second=5))
    answered(memory, second=100)
    assert complete(memory, ORDERS, order("1", second=5, read=True)) != []
    assert memory.in_doubt


def test_an_algo_order_that_did_its_work_is_asked_for_once(memory: AccountMemory) -> None:
    triggered = order("1", "triggered", 5)
    admit(memory, triggered)
    assert vanished(memory) == ["1"]
    assert answered(memory, replace(triggered, is_snapshot=True)) != []
    assert vanished(memory) == []
    admit(memory, order("1", "triggered", 6))
    assert answered(memory) == []
    assert vanished(memory) == []


# Fills


def test_fills_are_read_from_the_last_reading_on(memory: AccountMemory) -> None:
    assert memory.fills_since("execution", micros(0)) == micros(0) - 86_400_000_000
    admit(memory, fill("9", second=500))
    assert memory.fills_since("execution", micros(0)) == micros(0) - 86_400_000_000, "the stream tells no past"
    memory.fills("execution", [fill("10", second=510, read=True)], micros(505))
    assert memory.fills_since("execution", micros(9_000)) == micros(445)
    assert memory.fills_since("other", micros(0)) == micros(0) - 86_400_000_000


def test_forgotten_fills_are_not_published_again() -> None:
    memory = AccountMemory(ReconcileSettings(remembered_fills=2))
    admit(memory, *(fill(str(number), second=number) for number in range(1, 5)))
    again = [fill(str(number), second=number, read=True) for number in range(1, 5)]
    assert memory.fills("execution", again[:1], micros(9)) == []
    assert memory.fills("execution", again[2:], micros(9)) == []
    missed = [fill("5", second=2, read=True), fill("6", second=0, market="spot", read=True)]
    assert memory.fills("execution", missed, micros(9)) == missed
    assert admit(memory, fill("1", second=1)) == [fill("1", second=1)], "its identity is not kept"


def test_what_is_remembered_is_bounded() -> None:
    memory = AccountMemory(ReconcileSettings(remembered_fills=2))
    admit(memory, *(order(str(number)) for number in range(5)))
    assert vanished(memory) == ["3", "4"]
    admit(memory, *(order(str(number), "filled", 5) for number in range(3)))
    assert complete(memory, ORDERS, order("0", read=True), order("1", read=True)) == [order("0", read=True)]


# Positions that an earlier run has told


def traded(memory: AccountMemory, *names: str, market: str = "linear", topic: str = "execution") -> None:
    memory.fills(topic, [fill(name, second=7, read=True, instrument=name, market=market) for name in names], micros(9))


def flats(memory: AccountMemory) -> list[str | None]:
    found = memory.flats(micros(100), NEW)
    assert all(isinstance(each, Position) and each.side == "flat" and each.is_snapshot for each in found)
    assert all(each.exchange_time == micros(7) and each.origin.connection == NEW for each in found)
    return [each.origin.instrument for each in found]


def test_what_was_traded_before_and_is_not_held_is_flat_once(memory: AccountMemory) -> None:
    traded(memory, "X", "Y", "Z")
    assert flats(memory) == [], "before the positions are known"
    admit(memory, position(0, 8, instrument="Z"))
    complete(memory, POSITIONS, position(1, 8, read=True, instrument="Y"))
    assert flats(memory) == ["X"]
    complete(memory, POSITIONS)
    assert flats(memory) == []
    assert admit(memory, position(1, 6, instrument="X")) == [], "of before the fill"
    assert admit(memory, position(1, 7, instrument="X")) != []


def test_a_snapshot_of_the_stream_makes_known_what_is_flat_as_well(memory: AccountMemory) -> None:
    traded(memory, "X")
    admit(memory, positions_end(5))
    assert flats(memory) == ["X"]


def test_what_is_flat_is_of_the_markets_that_are_known_and_have_positions(memory: AccountMemory) -> None:
    traded(memory, "X", market="spot")
    traded(memory, "Y", market="inverse", topic="execution.inverse")
    complete(memory, Scope("position", "linear"))
    assert flats(memory) == []
    complete(memory, Scope("position", "inverse"))
    assert flats(memory) == ["Y"]
    complete(memory, POSITIONS)
    assert flats(memory) == []


def test_what_was_traded_since_is_told_by_the_positions_themselves(memory: AccountMemory) -> None:
    traded(memory)
    complete(memory, POSITIONS)
    traded(memory, "X")
    assert flats(memory) == []


def test_what_an_earlier_process_told_flat_after_the_fills_is_not_told_from_before(memory: AccountMemory) -> None:
    admit(memory, position(1, 0, instrument="X"))
    assert [each.exchange_time for each in admit(memory, positions_end(9))] == [micros(9)]
    after = AccountMemory(SETTINGS)
    after.recall(memory.image())
    traded(after, "X")
    complete(after, POSITIONS)
    assert flats(after) == []
