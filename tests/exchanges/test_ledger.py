"""The ledger against a venue that answers in order, now or later, well or badly."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipeline.exchanges.ledger import SUBSCRIBE, UNSUBSCRIBE, Request, SubscriptionLedger
from pipeline.exchanges.venue import EndpointLimits, Subscription
from pipeline.model.errors import DeadlineMissed
from pipeline.model.rate import Rate

FAST = Rate(100, 1.0)


def subscription(topic: str) -> Subscription:
    return Subscription(topic, "trade", "trades", "spot", topic, "public")


def ledger(*, topics: int = 3, size: int = 1000, rate: Rate = FAST) -> SubscriptionLedger:
    limits = EndpointLimits(1000, 20_000, topics, size, rate, 100)
    return SubscriptionLedger(limits, acknowledge_within=10.0)


def want(one: SubscriptionLedger, *topics: str) -> None:
    one.want([subscription(topic) for topic in topics])


def drop(one: SubscriptionLedger, *topics: str) -> None:
    one.drop([subscription(topic) for topic in topics])


def send(one: SubscriptionLedger, now: float = 0.0) -> Request:
    request = one.next_request(now)
    assert request is not None
    return request


def sent(request: Request) -> tuple[str, list[str]]:
    return request.op, list(request.waiting)


def granted(one: SubscriptionLedger, *topics: str) -> None:
    """Have these granted, and their outcomes read."""
    want(one, *topics)
    while (request := one.next_request(0.0)) is not None:
        one.request_acknowledged(request.id)
    one.outcomes()


def outcomes(one: SubscriptionLedger) -> list[tuple[str, str, str]]:
    return [(each.subscription.topic, each.status, each.reason) for each in one.outcomes()]


def test_requests_are_split_by_count_and_size() -> None:
    one = ledger(topics=2)
    want(one, "a", "b", "c")
    assert [sent(send(one)), sent(send(one)), one.next_request(0.0)] == [
        (SUBSCRIBE, ["a", "b"]),
        (SUBSCRIBE, ["c"]),
        None,
    ]
    small = ledger(size=11)
    want(small, "aaaa", "b", "cccccccccccccc")
    assert [sent(send(small))[1], sent(send(small))[1]] == [["aaaa", "b"], ["cccccccccccccc"]]
    exact = ledger(size=10)
    want(exact, "aaaa", "b")
    assert sent(send(exact))[1] == ["aaaa"]


def test_what_is_known_is_not_asked_for_again() -> None:
    one = ledger()
    want(one, "a", "a")
    want(one, "a")
    assert sent(send(one)) == (SUBSCRIBE, ["a"])
    want(one, "a")
    assert one.next_request(0.0) is None
    assert one.acknowledged(SUBSCRIBE, "a")
    want(one, "a")
    assert one.next_request(0.0) is None
    assert one.settled
    assert outcomes(one) == [("a", "subscribed", "")]
    assert outcomes(one) == []


def test_topics_are_granted_one_by_one() -> None:
    one = ledger()
    want(one, "a", "b", "c")
    send(one)
    assert one.acknowledged(SUBSCRIBE, "b")
    assert not one.acknowledged(SUBSCRIBE, "b")
    assert not one.acknowledged(UNSUBSCRIBE, "a")
    assert one.topic_failed("a", "no such topic")
    assert not one.topic_failed("a", "no such topic")
    assert not one.settled
    assert one.acknowledged(SUBSCRIBE, "c")
    assert one.settled
    assert outcomes(one) == [("b", "subscribed", ""), ("a", "refused", "no such topic"), ("c", "subscribed", "")]
    assert (set(one.active), one.refused) == ({"b", "c"}, {"a": "no such topic"})


def test_a_refused_topic_may_be_wanted_again() -> None:
    one = ledger()
    want(one, "a")
    assert one.request_failed(send(one).id, "not yet")
    want(one, "a")
    assert one.request_acknowledged(send(one).id)
    assert one.refused == {}
    assert [status for _, status, _ in outcomes(one)] == ["refused", "subscribed"]


def test_a_failed_request_is_repeated_topic_by_topic() -> None:
    one = ledger()
    want(one, "a", "b")
    assert one.request_failed(send(one).id, "one of them is bad")
    first, second = send(one), send(one)
    assert [sent(first), sent(second)] == [(SUBSCRIBE, ["a"]), (SUBSCRIBE, ["b"])]
    assert one.request_failed(first.id, "a is bad")
    assert one.request_acknowledged(second.id)
    assert outcomes(one) == [("a", "refused", "a is bad"), ("b", "subscribed", "")]


def test_unknown_answers_are_told_apart() -> None:
    one = ledger()
    assert not one.request_acknowledged("1")
    assert not one.request_failed("1", "why")
    assert not one.acknowledged(SUBSCRIBE, "a")
    assert not one.topic_failed("a", "why")
    assert not one.withdrawn("a", "why")
    assert one.oldest_request() is None


def test_passing_trouble_holds_everything_back_once() -> None:
    one = ledger()
    want(one, "a", "b")
    assert one.request_failed(send(one).id, "busy", passing=True, now=3.0)
    want(one, "c")
    assert one.next_request(12.9) is None
    assert one.next_deadline(3.0) == 13.0
    assert set(sent(send(one, 13.0))[1]) == {"a", "b", "c"}
    assert outcomes(one) == []


def test_a_budget_spreads_requests() -> None:
    one = ledger(topics=1, rate=Rate(2, 1.0))
    want(one, "a", "b", "c")
    send(one, 0.0)
    send(one, 0.25)
    assert one.next_request(0.5) is None
    assert one.next_deadline(0.5) == 1.0
    assert sent(send(one, 1.0))[1] == ["c"]


def test_an_unanswered_request_is_named() -> None:
    one = ledger(topics=5)
    want(one, "a", "b", "c", "d", "e")
    send(one, 1.0)
    assert one.next_deadline(1.0) == 11.0
    one.on_deadline(10.9)
    with pytest.raises(DeadlineMissed, match="subscribe of a, b, c and 2 more: no answer within 10 s"):
        one.on_deadline(11.0)


def test_resync_leaves_and_joins_without_telling() -> None:
    one = ledger()
    granted(one, "a")
    one.resync(subscription("a"))
    one.resync(subscription("a"))
    want(one, "a")
    leave = send(one)
    assert sent(leave) == (UNSUBSCRIBE, ["a"])
    assert one.next_request(0.0) is None
    assert one.request_acknowledged(leave.id)
    join = send(one)
    assert sent(join) == (SUBSCRIBE, ["a"])
    assert one.request_acknowledged(join.id)
    assert outcomes(one) == [("a", "subscribed", "")]
    one.resync(subscription("unknown"))
    assert one.next_request(0.0) is None


def test_resync_survives_a_refused_unsubscribe() -> None:
    one = ledger()
    granted(one, "a")
    one.resync(subscription("a"))
    assert one.request_failed(send(one).id, "not subscribed")
    assert sent(send(one)) == (SUBSCRIBE, ["a"])
    assert outcomes(one) == []


def test_dropping_during_a_resync_unsubscribes_once() -> None:
    one = ledger()
    granted(one, "a")
    one.resync(subscription("a"))
    drop(one, "a")
    drop(one, "a")
    leave = send(one)
    assert one.next_request(0.0) is None
    assert one.request_acknowledged(leave.id)
    assert one.settled
    assert outcomes(one) == [("a", "unsubscribed", "")]


def test_what_was_only_queued_is_forgotten() -> None:
    one = ledger()
    want(one, "a", "b")
    drop(one, "a")
    assert sent(send(one)) == (SUBSCRIBE, ["b"])
    assert one.next_request(0.0) is None


def test_dropped_and_wanted_again_while_on_the_way() -> None:
    one = ledger()
    want(one, "a")
    first = send(one)
    drop(one, "a")
    want(one, "a")
    second, third = send(one), send(one)
    assert [sent(first)[0], sent(second)[0], sent(third)[0]] == [SUBSCRIBE, UNSUBSCRIBE, SUBSCRIBE]


def test_a_withdrawn_topic_is_refused() -> None:
    one = ledger()
    granted(one, "a")
    assert one.withdrawn("a", "delisted")
    assert (dict(one.active), one.refused) == ({}, {"a": "delisted"})
    assert outcomes(one) == [("a", "refused", "delisted")]


def test_an_answer_without_a_name_is_of_the_oldest_request() -> None:
    one = ledger(topics=1)
    want(one, "a", "b")
    first, second = send(one), send(one)
    assert one.oldest_request() is first
    assert one.oldest_request(lambda request: "b" in request.waiting) is second


BAD = "bad"
topics = st.lists(st.sampled_from(["a", "b", "c", "d", BAD]), min_size=1, max_size=4)


class LedgerMachine(RuleBasedStateMachine):
    """However wishes and late answers interleave, the venue ends up sending what is wanted and can be had."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = ledger(topics=3, rate=Rate(1_000_000, 1.0))
        self.wanted: set[str] = set()
        self.venue: set[str] = set()
        self.wire: deque[tuple[Request, list[str]]] = deque()
        self.now = 0.0

    @rule(topics=topics)
    def want(self, topics: list[str]) -> None:
        want(self.ledger, *topics)
        self.wanted.update(topics)

    @rule(topics=topics)
    def drop(self, topics: list[str]) -> None:
        drop(self.ledger, *topics)
        self.wanted.difference_update(topics)

    @rule(topic=st.sampled_from(["a", "b", "c", "d"]))
    def resync(self, topic: str) -> None:
        self.ledger.resync(subscription(topic))

    @rule()
    def send(self) -> None:
        request = self.ledger.next_request(self.now)
        if request is not None:
            self.wire.append((request, list(request.waiting)))

    @rule(passing=st.booleans())
    def answer(self, passing: bool) -> None:
        if not self.wire:
            return
        request, asked = self.wire.popleft()
        if passing:
            assert self.ledger.request_failed(request.id, "busy", passing=True, now=self.now)
            self.now += 10.0
        elif request.op == SUBSCRIBE and BAD in asked:
            assert self.ledger.request_failed(request.id, "bad topic")
        elif request.op == UNSUBSCRIBE and not self.venue.issuperset(asked):
            assert self.ledger.request_failed(request.id, "not subscribed")
        else:
            (self.venue.update if request.op == SUBSCRIBE else self.venue.difference_update)(asked)
            assert self.ledger.request_acknowledged(request.id)

    @rule()
    def settle(self) -> None:
        for _ in range(200):
            if self.ledger.settled:
                break
            self.now += 10.0
            self.send()
            self.answer(passing=False)
        assert self.ledger.settled
        assert self.venue == self.wanted - {BAD}
        assert set(self.ledger.active) == self.venue
        assert set(self.ledger.refused) == self.wanted & {BAD}

    @invariant()
    def nothing_is_both_granted_and_refused(self) -> None:
        assert not self.ledger.active.keys() & self.ledger.refused.keys()

    def teardown(self) -> None:
        self.settle()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
