from __future__ import annotations

from collections import deque
from typing import Any, TypeVar

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import asdict, replace

from pipeline.exchanges.accounts import Steps
from pipeline.exchanges.venue import Subscription
from pipeline.feeds.account_events import FINAL
from pipeline.feeds.account_memory import AccountMemory
from pipeline.feeds.errands import Errand
from pipeline.feeds.reconcile import Reconciler, Round
from pipeline.model.account import Order
from pipeline.model.errors import Retryable
from pipeline.model.events import Event
from tests.feeds.account_model import (
    BALANCES,
    FILLS,
    ORDERS,
    POSITIONS,
    SETTINGS,
    Consumer,
    ModelExchange,
    ModelReader,
    micros,
    order,
    position,
    positions_end,
)

E = TypeVar("E", bound=Event)

MAX_LAG = 4
"""Changes that a query can be late by; with the time they take it stays within the overlap."""
INSTRUMENTS = st.sampled_from(["X", "Y"])


class CutStreams(RuleBasedStateMachine):
    """Whatever a stream loses and however queries lag, what is published folds to what is true."""

    streams_positions = False

    def __init__(self) -> None:
        super().__init__()
        self.exchange = ModelExchange()
        self.exchange.listener = self.hear
        self.memory = AccountMemory(SETTINGS)
        self.consumer = Consumer()
        self.stream: deque[Event] | None = None
        self.generation = 0
        self.errands: deque[Errand] = deque()
        self.steps: Steps[Any] | None = None
        self.lag = 0
        self.max_lag = 0
        self.forgets = False
        self.reconciler: Reconciler | None = None
        self.rounds: list[Round] = []

    @initialize(max_lag=st.sampled_from([0, MAX_LAG]), forgets=st.booleans())
    def begin(self, max_lag: int, forgets: bool) -> None:
        self.max_lag, self.forgets = max_lag, forgets

    def hear(self, event: Event) -> None:
        if self.stream is not None:
            self.stream.append(self.sent(event))

    def sent(self, event: E) -> E:
        return replace(event, origin=attrs.evolve(event.origin, connection=self.connection))

    @property
    def connection(self) -> str:
        return f"a#{self.generation}"

    # what the exchange does

    @rule(seconds=st.integers(0, 3))
    def pass_time(self, seconds: int) -> None:
        self.exchange.pass_time(seconds)

    @rule(instrument=INSTRUMENTS)
    def place(self, instrument: str) -> None:
        self.exchange.place(instrument)

    @precondition(lambda self: self.exchange.now.open_orders())
    @rule(data=st.data(), last=st.booleans(), reverse=st.booleans())
    def trade(self, data: st.DataObject, last: bool, reverse: bool) -> None:
        self.exchange.trade(self.drawn_order(data), last=last, reverse=reverse)

    @precondition(lambda self: self.exchange.now.open_orders())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.exchange.cancel(self.drawn_order(data))

    @rule(currency=st.sampled_from(["USDT", "BTC"]), total=st.integers(0, 3))
    def transfer(self, currency: str, total: int) -> None:
        self.exchange.transfer(currency, total)

    def drawn_order(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from([each.order_id for each in self.exchange.now.open_orders()]))

    # what the stream does

    @precondition(lambda self: self.stream is None)
    @rule()
    def connect(self) -> None:
        self.generation += 1
        self.stream = deque()
        self.rounds.clear()
        if self.streams_positions:
            self.push_positions()
        self.reconciler = Reconciler(
            connection=self.connection,
            reader=ModelReader(
                self.exchange, self.connection, lambda: self.lag, self.streams_positions, forgets=self.forgets
            ),
            memory=self.memory,
            subscriptions=(ORDERS, FILLS, POSITIONS, BALANCES),
            settings=SETTINGS,
            publish=self.consumer.publish,
            clock=lambda: micros(self.exchange.now.second),
            add=self.errands.append,
            over=self.rounds.append,
        )
        self.errands.extend(self.reconciler.begin())

    @precondition(lambda self: self.stream is not None)
    @rule()
    def cut(self) -> None:
        """Nobody gets what was under way, in either direction."""
        self.stream = None
        self.errands.clear()
        self.steps = None

    @precondition(lambda self: self.stream is not None and self.streams_positions)
    @rule()
    def push_positions(self) -> None:
        assert self.stream is not None
        for each in self.exchange.now.held():
            self.stream.append(replace(self.sent(each), is_snapshot=True))
        self.stream.append(positions_end(self.exchange.now.second, connection=self.connection))

    @precondition(lambda self: self.stream)
    @rule(count=st.integers(1, 5))
    def deliver(self, count: int) -> None:
        assert self.stream is not None
        for _ in range(min(count, len(self.stream))):
            for event in self.memory.admit(self.stream.popleft()):
                self.consumer.publish(event)

    # what the queries do

    @precondition(lambda self: self.steps is not None or self.errands)
    @rule(lag=st.integers(0, MAX_LAG))
    def ask(self, lag: int) -> None:
        """One request of the first errand, or its answer."""
        self.lag = min(lag, self.max_lag)
        if self.steps is None:
            self.steps = self.errands[0].steps()
            next(self.steps)
            return
        try:
            self.steps.send(b"")
        except StopIteration as end:
            self.steps = None
            self.errands.popleft().done(end.value)

    @precondition(lambda self: self.steps is not None)
    @rule()
    def fail(self) -> None:
        assert self.steps is not None
        with pytest.raises(Retryable):
            self.steps.throw(Retryable("busy"))
        self.steps = None
        self.errands.rotate(-1)

    @precondition(lambda self: self.stream is not None and not self.errands)
    @rule()
    def read_again(self) -> None:
        assert self.reconciler is not None
        self.errands.extend(self.reconciler.begin())

    # what must hold

    @invariant()
    def fills_of_the_stream_are_in_order(self) -> None:
        by_order: dict[str | None, list[int]] = {}
        for each in self.consumer.fills:
            if not each.is_snapshot:
                by_order.setdefault(each.order_id, []).append(int(each.fill_id.partition("-")[2]))
        assert all(numbers == sorted(numbers) for numbers in by_order.values())

    @invariant()
    def one_round_is_enough_where_queries_are_in_time(self) -> None:
        if not (self.max_lag or self.stream or self.stream is None or self.memory.in_doubt) and self.rounds:
            self.compare()

    def teardown(self) -> None:
        if self.stream is None:
            self.connect()
        assert self.reconciler is not None
        while self.errands:
            self.ask(0)
        # A stream is not as late as a query is waited for.
        while self.stream:
            self.deliver(1)
        pauses = 0
        while not pauses or self.reconciler.pause != SETTINGS.every:
            pauses += 1
            assert pauses <= 3, "the doubts do not end"
            self.exchange.pass_time(round(SETTINGS.overlap))
            self.read_again()
            while self.errands:
                self.ask(0)
        self.compare()

    def compare(self) -> None:
        facts, consumer = self.exchange.now, self.consumer
        opened = {each.order_id: each for each in consumer.orders.values() if each.status not in FINAL}
        assert {name: (each.status, each.filled_size) for name, each in opened.items()} == {
            each.order_id: (each.status, each.filled_size) for each in facts.open_orders()
        }
        ended = {each.order_id: each.status for each in facts.orders}
        assert all(each.status == ended[name] for name, each in consumer.orders.items())
        held = {name: (each.side, each.size) for name, each in consumer.positions.items() if each.side != "flat"}
        assert held == {str(each.origin.instrument): (each.side, each.size) for each in facts.held()}
        assert {name: each.total for name, each in consumer.balances.items() if each.total != "0"} == {
            str(each.currency): each.total for each in facts.balances if each.total != "0"
        }
        assert sorted(each.fill_id for each in consumer.fills) == sorted(each.fill_id for each in facts.fills)


class CutStreamsWithPositions(CutStreams):
    """As a venue whose stream tells the positions as a whole, at first and again and again."""

    streams_positions = True


@pytest.mark.parametrize("machine", [CutStreams, CutStreamsWithPositions])
def test_what_is_published_folds_to_what_is_true(machine: type[CutStreams]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=60))


class Desk:
    """A reconciler with everything around it; its errands are done by hand."""

    def __init__(self, *subscriptions: Subscription, taken: bool = True, **reader: Any) -> None:
        self.exchange = ModelExchange()
        self.memory = AccountMemory(SETTINGS)
        self.published: list[Event] = []
        self.added: list[Errand] = []
        self.rounds: list[Round] = []
        self.taken = taken
        self.reconciler = Reconciler(
            connection="a#2",
            reader=attrs.evolve(ModelReader(self.exchange, "a#2", lambda: 0), **reader),
            memory=self.memory,
            subscriptions=subscriptions or (ORDERS, FILLS, POSITIONS, BALANCES),
            settings=SETTINGS,
            publish=self.publish,
            clock=lambda: micros(self.exchange.now.second),
            add=self.added.append,
            over=self.rounds.append,
        )

    def publish(self, event: Event) -> bool:
        self.published.append(event)
        return self.taken

    def kinds(self) -> list[str]:
        return [event.KIND for event in self.published]


def walk(errand: Errand) -> None:
    steps = errand.steps()
    next(steps)
    try:
        while True:
            steps.send(b"")
    except StopIteration as end:
        errand.done(end.value)


def round_of(desk: Desk) -> Round:
    for errand in desk.reconciler.begin():
        walk(errand)
    while desk.added:
        walk(desk.added.pop(0))
    return desk.rounds[-1]


def test_fills_are_read_before_the_states_that_hold_them() -> None:
    desk = Desk()
    desk.exchange.place("X")
    desk.exchange.trade("0", last=False, reverse=False)
    desk.exchange.transfer("USDT", 5)
    errands = desk.reconciler.begin()
    assert [errand.what for errand in errands] == [
        "execution: fills since 2023-11-13 22:13:20+00:00",
        "order: present state",
        "position: present state",
        "wallet: present state",
    ]
    for errand in errands:
        walk(errand)
    assert desk.kinds() == ["fill", "order", "position", "balance"]
    assert desk.rounds[0].published == {"fill": 1, "order": 1, "position": 1, "balance": 1}


def test_a_query_begins_with_its_first_step() -> None:
    desk = Desk(ORDERS)
    desk.memory.admit(order("0", second=1))
    [errand] = desk.reconciler.begin()
    desk.exchange.place("Y")
    desk.memory.admit(order("0", second=2))
    steps = errand.steps()
    desk.memory.admit(order("0", second=3))
    next(steps)
    steps.close()
    walk(errand)
    assert [errand.what for errand in desk.added] == ["order: order 0"], "queued since before, asked for since then"


def test_what_is_told_while_a_query_is_under_way_stands() -> None:
    desk = Desk(ORDERS)
    [errand] = desk.reconciler.begin()
    steps = errand.steps()
    next(steps)
    desk.memory.admit(order("0", second=3))
    steps.send(b"")
    with pytest.raises(StopIteration) as end:
        steps.send(b"")
    errand.done(end.value.value)
    assert desk.added == []


def test_fills_are_read_again_from_where_a_reading_began() -> None:
    desk = Desk(FILLS)
    desk.exchange.pass_time(1_000)
    [errand] = desk.reconciler.begin()
    desk.exchange.pass_time(10)
    steps = errand.steps()
    next(steps)
    desk.exchange.pass_time(1_000)
    steps.send(b"")
    with pytest.raises(StopIteration) as end:
        steps.send(b"")
    errand.done(end.value.value)
    assert desk.memory.fills_since(FILLS.topic, micros(9_999)) == micros(1_010 - 60)


def test_an_order_that_vanished_is_asked_for_within_the_round() -> None:
    desk = Desk(ORDERS)
    desk.exchange.place("X")
    desk.memory.admit(order("0"))
    desk.exchange.cancel("0")
    [errand] = desk.reconciler.begin()
    walk(errand)
    assert desk.rounds == []
    assert desk.reconciler.begin() == [], "the round is under way"
    [question] = desk.added
    walk(question)
    assert [asdict(event)["status"] for event in desk.published] == ["cancelled"]
    assert desk.rounds[0].published == {"order": 1}


def test_an_order_that_cannot_be_asked_for_is_in_doubt_until_the_next_round() -> None:
    desk = Desk(ORDERS)
    desk.reconciler.reader = NoQuestions(desk.exchange, "a#2", lambda: 0)
    desk.memory.admit(order("0"))
    round_of(desk)
    assert desk.published == []
    round_of(desk)
    assert desk.reconciler.pause == SETTINGS.overlap, "in doubt"
    desk.exchange.pass_time(60)
    assert round_of(desk).published == {"order": 1}
    assert desk.reconciler.pause == SETTINGS.every


class NoQuestions(ModelReader):
    def order(self, lost: Order) -> None:
        return None


def test_the_first_round_is_repeated_soon() -> None:
    desk = Desk()
    round_of(desk)
    assert desk.reconciler.pause == SETTINGS.overlap
    round_of(desk)
    assert desk.reconciler.pause == SETTINGS.every


def test_a_refused_query_does_not_keep_a_round_open() -> None:
    desk = Desk(ORDERS, BALANCES)
    orders, balances = desk.reconciler.begin()
    walk(balances)
    orders.refused("no permission")
    [round_] = desk.rounds
    assert round_.refused == ["order: present state: no permission"]
    assert desk.reconciler.begin() != []


def test_a_round_without_queries_is_over_at_once() -> None:
    desk = Desk(POSITIONS, streams_positions=True)
    assert desk.reconciler.begin() == []
    assert len(desk.rounds) == 1
    assert desk.reconciler.begin() == []
    assert len(desk.rounds) == 2


def test_what_cannot_be_published_is_not_counted() -> None:
    desk = Desk(BALANCES, taken=False)
    desk.exchange.transfer("USDT", 5)
    assert round_of(desk).published == {}
    assert desk.kinds() == ["balance"]


def test_positions_of_an_earlier_run_are_flat_at_the_end_of_the_first_round() -> None:
    desk = Desk()
    desk.exchange.place("X")
    desk.exchange.place("X")
    desk.exchange.trade("0", last=True, reverse=False)
    desk.exchange.trade("1", last=True, reverse=False)
    assert round_of(desk).published == {"fill": 2, "position": 1}
    assert desk.kinds() == ["fill", "fill", "position"]
    assert round_of(desk).published == {}


def test_a_subscription_to_one_market_tells_nothing_of_the_others() -> None:
    inverse = attrs.evolve(POSITIONS, market="inverse")
    desk = Desk(inverse)
    desk.memory.admit(position(1))
    assert round_of(desk).published == {}
    everything = Desk(POSITIONS)
    everything.memory.admit(position(1))
    assert round_of(everything).published == {"position": 1}
