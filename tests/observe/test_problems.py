"""The verdict: one sentence for every state of things, the worst first."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from pipeline.feeds.standing import BookStanding
from pipeline.model.stats import ArchiveStats, VenueStats
from pipeline.observe.history import Rises
from pipeline.observe.problems import Problem, counters, find_problems, headline
from pipeline.sink.stats import SinkStats
from tests.observe.statuses import (
    FENCED,
    SECOND,
    START,
    connection,
    healthy,
    healthy_venues,
    orders,
    sink,
    status,
    venue,
    worker,
)

BOOK = "bybit.linear.book.0"


def problems(now: dict[str, Any], before: dict[str, Any] | None = None) -> list[Problem]:
    rises = Rises(300)
    for one in (before or now, now):
        rises.note(one["now"], counters(one))
    return list(find_problems(now, rises))


def only(now: dict[str, Any], before: dict[str, Any] | None = None) -> Problem:
    (problem,) = problems(now, before)
    return problem


def with_connection(**fields: Any) -> dict[str, Any]:
    return status(venue("bybit", connection(BOOK, **fields)), sink=sink(), now=fields.pop("now", START))


def with_sink(**fields: Any) -> dict[str, Any]:
    return status(*healthy_venues(), sink=sink(**fields))


def with_venue(**fields: Any) -> dict[str, Any]:
    return status(venue("okx", connection("okx.swap.book.0"), **fields), sink=sink())


@pytest.mark.parametrize(
    ("fields", "title", "detail"),
    [
        ({"is_killed": True, "open_orders": 1}, "okx.desk: the kill switch is on", "1 order still open"),
        ({"state": "retrying", "last_error": "no such topic"}, "okx.desk takes no orders", "no such topic"),
        (
            {"connection": "connecting", "last_error": "answered with HTTP 503"},
            "okx.desk: the connection for orders is down",
            "answered with HTTP 503",
        ),
        (
            {"connection": "refused", "last_error": "60009: wrong key"},
            "okx.desk: the connection for orders is down",
            "60009: wrong key",
        ),
        ({"held_up": "the registry is away"}, "okx.desk: commands wait", "the registry is away"),
        (
            {"unknown": 2, "oldest_unknown": START - 31 * SECOND},
            "okx.desk: outcomes are unknown",
            "2 orders sent",
        ),
    ],
)
def test_orders_that_cannot_be_sent_or_followed(fields: dict[str, Any], title: str, detail: str) -> None:
    problem = only(healthy(orders=orders(**fields)))
    assert (problem.severity, problem.title, problem.section) == ("bad", title, "orders")
    assert detail in problem.detail


@pytest.mark.parametrize("fields", [{}, {"state": "joining"}, {"unknown": 1, "oldest_unknown": START - 29 * SECOND}])
def test_orders_that_wait_for_a_moment_are_no_problem(fields: dict[str, Any]) -> None:
    assert problems(healthy(orders=orders(**fields))) == []


@pytest.mark.parametrize(
    ("what", "severity", "title"),
    [
        ("arm_failures", "bad", "okx.desk: open orders are not protected"),
        ("result_failures", "bad", "okx.desk: Kafka does not take results"),
        ("price_failures", "warn", "okx.desk: reference prices cannot be read"),
        ("look_up_failures", "warn", "okx.desk: the venue does not answer questions about orders"),
        ("losses", "warn", "okx.desk: the commands were given up lately"),
    ],
)
def test_what_fails_beside_orders_is_told_while_it_goes_on(what: str, severity: str, title: str) -> None:
    before, now = (healthy(START + number, orders=orders(**{what: number})) for number in (1, 3))
    problem = only(now, before)
    assert (problem.severity, problem.title, problem.detail) == (severity, title, "2 times")
    assert problems(now) == [], "what was before the first look is not told as new"


def test_nothing_is_well_while_the_service_is_not_ready() -> None:
    reasons = ["orders of okx.desk: topic order.order_command.okx.desk is not there yet"]
    now = healthy(ready=False, not_ready=reasons, orders=orders())
    problem = only(now)
    assert (problem.severity, problem.title, problem.detail) == ("warn", "Not ready", reasons[0])
    assert headline(now, [problem]) == "Not ready"
    assert only(now | {"orders": orders(is_killed=True)}).title == "okx.desk: the kill switch is on", "a better reason"
    assert problems(healthy(ready=False, not_ready=["stopping"])) == []


def test_who_takes_orders_is_in_the_headline() -> None:
    assert "; orders are taken for 1 account; " in headline(healthy(orders=orders()), [])
    assert "orders" not in headline(healthy(), [])
    assert "orders" not in headline(healthy(orders=orders(state="joining")), [])


def test_all_is_well() -> None:
    assert problems(healthy()) == []
    assert headline(healthy(), []) == "All 3 connections are live; Kafka is up; nothing waiting"
    emptying = with_sink(is_spooling=True, spooled=7)
    assert headline(emptying, []) == "All 3 connections are live; Kafka is up; the spool is being emptied"


def test_a_start_is_no_problem() -> None:
    starting = status(
        venue("bybit", connection(BOOK, state="connecting"), connection("bybit.linear.trade.0")), sink=sink()
    )
    assert problems(starting) == []
    assert headline(starting, []) == "Starting: 1 of 2 connections live"
    assert headline(healthy(not_ready=["stopping"]), []).startswith("Stopping")


def test_a_sentence_names_the_worst_and_counts_the_rest() -> None:
    now = status(
        venue("bybit", connection(BOOK, state="retrying", last_error="no pong for 10 s", gaps=3)),
        venue("okx", connection("okx.swap.book.0"), unmatched=("NO-*",)),
        sink=sink(broker_up=False, spooled=12_000),
    )
    found = problems(now)
    assert [problem.severity for problem in found] == ["bad", "bad", "warn"]
    assert headline(now, found) == "Kafka is down; 2 more problems"


SINK_PROBLEMS = [
    pytest.param({"broker_up": False, "spooled": 1_990}, "Kafka is down", "2,000 records wait, safe", id="down"),
    pytest.param({"is_full": True, "announced_lost": 5}, "Records are being lost", "5 records are lost", id="full"),
    pytest.param({"spool_failure": "No space left"}, "The spool cannot be written", "No space left", id="broken"),
    pytest.param({"reading_stopped_at": START}, "Nothing is read from the venues", "nearly full", id="stopped"),
    pytest.param({"journal": FENCED}, "Another instance has taken over this shard", "kafka.shard", id="fenced"),
    pytest.param(
        {"refusing": {"market.bbo": "denied; grant Write"}},
        "Kafka takes no records for 1 topic", "market.bbo: denied; grant Write", id="refusing",
    ),
    pytest.param({"spool_bytes": 9 * 1024**3}, "The spool is nearly full", "90% of 10.0 GiB", id="filling"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "title", "detail"), SINK_PROBLEMS)
def test_what_is_wrong_on_the_way_to_kafka(fields: dict[str, Any], title: str, detail: str) -> None:
    problem = only(with_sink(**fields))
    assert problem.title == title
    assert detail in problem.detail
    assert problem.severity == "bad"


def test_kafka_was_never_reached() -> None:
    problem = only(status(sink=None))
    assert problem.title == "Kafka has not been reached yet"
    assert problem.since == START - 3_600 * SECOND


def test_kafka_tells_since_when_it_is_down_and_why() -> None:
    fields = {"broker_up": False, "down_since": START - SECOND, "trouble": "kafka:9092: no route to host"}
    problem = only(with_sink(**fields))
    assert problem.detail.endswith("; kafka:9092: no route to host")
    assert problem.since == START - SECOND


@pytest.mark.parametrize("trouble", [{"spool_failure": "no space left"}, {"is_full": True}], ids=["broken", "full"])
def test_what_waits_is_called_safe_only_while_the_spool_takes_it(trouble: dict[str, Any]) -> None:
    down = {"broker_up": False, "in_flight": 7}
    told = {problem.title: problem.detail for problem in problems(with_sink(**down, **trouble))}
    assert told["Kafka is down"] == "7 records wait"
    assert only(with_sink(**down)).detail == "7 records wait, safe"


def test_what_the_start_waits_for_is_told_with_its_trouble() -> None:
    waiting = {"waits_for": "registry", "trouble": "no answer"}
    problem = only(status(sink=None, opening=waiting))
    assert (problem.title, problem.detail) == ("The schema registry has not answered yet", "no answer")
    problem = only(status(sink=None, opening={**waiting, "waits_for": "kafka"}))
    assert (problem.title, problem.detail) == ("Kafka has not been reached yet", "no answer")


@pytest.mark.parametrize(
    ("waits_for", "title"),
    [
        ("registry", "worker 1: the schema registry has not answered yet"),
        ("kafka", "worker 1: Kafka has not been reached yet"),
    ],
)
def test_a_worker_that_cannot_start_is_told_while_the_others_run(waits_for: str, title: str) -> None:
    worker = {"worker": 1, "state": "running", "since": START, "answers": True, "restarts": 1, "last_end": "x"}
    opening = {"waits_for": waits_for, "trouble": "no answer"}
    problem = only(with_sink() | {"workers": [{**worker, "opening": opening}]})
    assert (problem.severity, problem.title, problem.detail) == ("bad", title, "no answer")
    assert problems(with_sink() | {"workers": [{**worker, "opening": None}]}) == []


def test_records_that_became_dead_letters_are_told_for_a_while() -> None:
    now = with_sink(own_letters=3, last_letter="market.trade: too large")
    now["now"] = START + SECOND
    problem = only(now, with_sink(own_letters=1))
    assert (problem.title, problem.detail) == ("2 records became dead letters", "market.trade: too large")


def test_a_refused_change_of_the_configuration_is_told_until_it_is_taken() -> None:
    refused = {"time": START - SECOND, "problems": ["kafka.acks: no such key"]}
    problem = only(healthy(config={"refused": refused, "needs_restart": []}))
    assert problem.title == "The changed configuration is refused"
    assert (problem.detail, problem.since, problem.severity) == ("kafka.acks: no such key", START - SECOND, "bad")
    assert problems(healthy(config={"refused": None, "needs_restart": []})) == []
    assert only(healthy(config={"refused": None, "needs_restart": ["http.port"]})).detail == "http.port"


@pytest.mark.parametrize(
    ("lags", "said"),
    [
        ([(3_100_000, 0), (3_050_000, 0)], "by 3.0 s: ours is ahead"),
        ([(-2_900_000, 0), (0, 0)], "by 2.9 s: ours is behind"),
        ([(3_100_000, 3_000_000), (3_050_000, 0)], None),
        ([(0, 0)], None),
    ],
    ids=["ahead", "behind", "one lags", "nothing comes"],
)
def test_messages_tell_that_the_clocks_differ(lags: list[tuple[int, int]], said: str | None) -> None:
    every = [connection(f"okx.swap.book.{n}", exchange_lag=seen, lag=lag) for n, (seen, lag) in enumerate(lags)]
    found = problems(status(venue("okx", *every), sink=sink()))
    assert [problem.detail for problem in found] == ([] if said is None else [said])


VENUE_PROBLEMS = [
    pytest.param({"state": "refused", "last_error": "HTTP 403"}, "okx refuses us", "HTTP 403", "bad", id="refused"),
    pytest.param(
        {"state": "starting", "catalogue_failures": 2, "last_error": "maintenance"},
        "okx's catalogue cannot be read", "maintenance", "bad", id="no catalogue",
    ),
    pytest.param(
        {"clock_offset": -2_500_000}, "Our clock and okx's differ", "by 2.5 s: ours is ahead", "warn", id="clock"
    ),
    pytest.param(
        {"unmatched": ("A-*", "B-*")},
        "okx: 2 configured patterns without any instrument", "A-*; B-*", "warn", id="pattern"
    ),
    pytest.param(
        {"archive": ArchiveStats(failure="disk full")},
        "okx: the archive is incomplete", "disk full", "warn", id="archive"
    ),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "title", "detail", "severity"), VENUE_PROBLEMS)
def test_what_is_wrong_with_a_venue(fields: dict[str, Any], title: str, detail: str, severity: str) -> None:
    problem = only(with_venue(**fields))
    assert (problem.title, problem.detail, problem.severity) == (title, detail, severity)


def test_connections_that_are_down_are_told_by_venue() -> None:
    def down(number: int, why: str) -> Any:
        return connection(f"okx.swap.trade.{number}", state="retrying", last_error=why, since=START - number * SECOND)

    first = only(status(venue("okx", down(1, "lost"), connection("okx.swap.book.0")), sink=sink()))
    assert (first.title, first.detail, first.since) == ("okx.swap.trade.1 is down", "lost", START - SECOND)
    some = only(status(venue("okx", down(1, "lost"), down(2, "lost"), connection("okx.swap.book.0")), sink=sink()))
    assert (some.title, some.detail) == ("okx: 2 of 3 connections are down", "lost")
    assert some.since == START - 2 * SECOND
    every = only(
        status(venue("okx", down(1, "a"), down(2, "b"), down(3, "c"), down(4, "d"), down(5, "e")), sink=sink())
    )
    assert every.title == "okx: all 5 connections are down"
    assert every.detail == "a; b; c; and 2 more reasons"


def test_a_connection_that_never_failed_is_starting_not_down() -> None:
    assert problems(with_connection(state="connecting")) == []
    assert problems(with_connection(state="connecting", last_error="lost"))


CONNECTION_PROBLEMS = [
    pytest.param({"state": "refused", "last_error": "bad key"}, f"{BOOK} is refused", "bad key", "bad", id="refused"),
    pytest.param({"refused": {"x": "no such"}}, "bybit refuses 1 subscription", "x: no such", "warn", id="topic"),
    pytest.param({"state": "lagging", "lag": 7_000_000}, f"{BOOK} lags behind", "7.0 s behind", "bad", id="lag"),
    pytest.param(
        {"state": "lagging", "conflated": {"bbo": 4_000, "ticker": 1}},
        f"{BOOK} lags behind", "of 4,001 states only later ones", "bad", id="conflating",
    ),
    pytest.param({"last_receive": START - 90 * SECOND}, f"{BOOK} is silent", "nothing for 90 s", "warn", id="silent"),
    pytest.param(
        {"account": "main", "unread": ("fills: no permission",)},
        f"{BOOK}: the account's state was read in part", "fills: no permission", "warn", id="unread",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "title", "detail", "severity"), CONNECTION_PROBLEMS)
def test_what_is_wrong_with_a_connection(fields: dict[str, Any], title: str, detail: str, severity: str) -> None:
    problem = only(with_connection(**fields))
    assert (problem.title, problem.severity) == (title, severity)
    assert detail in problem.detail


@pytest.mark.parametrize(
    ("field", "title"),
    [
        ("gaps", "bybit: gaps in order books"),
        ("checksum_failures", "bybit: books did not match their checksum"),
        ("dead_letters", "bybit: messages cannot be read"),
        ("query_failures", "bybit: REST requests fail"),
    ],
)
def test_what_happened_lately_is_told_with_its_beginning(field: str, title: str) -> None:
    before, now = with_connection(**{field: 4}), with_connection(**{field: 6})
    now["now"] = START + SECOND
    problem = only(now, before)
    assert (problem.title, problem.detail, problem.since) == (title, f"{BOOK}: 2", START + SECOND)
    assert problems(now) == [], "what was there at the first look is old"


def test_reconnects_are_told_while_the_connection_is_up() -> None:
    before = with_connection(reconnects={"HeartbeatLost": 1})
    now = with_connection(reconnects={"HeartbeatLost": 2, "ConnectionLost": 1}, last_error="no pong for 10 s")
    now["now"] = START + SECOND
    problem = only(now, before)
    assert (problem.title, problem.detail) == ("bybit: connections were lost lately", f"{BOOK}: 2 (no pong for 10 s)")
    down = with_connection(state="retrying", last_error="lost", reconnects={"HeartbeatLost": 2})
    down["now"] = START + SECOND
    assert only(down, before).title == f"{BOOK} is down"


def test_lost_records_stay_told_for_a_while() -> None:
    now = with_sink(announced_lost=9)
    now["now"] = START + SECOND
    problem = only(now, with_sink(announced_lost=2))
    assert (problem.title, problem.since) == ("Records are being lost", START + SECOND)


def test_a_late_loop_is_told() -> None:
    problem = only(healthy(process={"pid": 1, "resident_bytes": 1, "loop_late_s": 2.0}))
    assert (problem.title, problem.detail) == ("The event loop is late", "2.0 s")


def test_a_worker_that_was_started_again_is_told_for_a_while() -> None:
    before = healthy(workers=[worker(0)])
    problem = only(healthy(START + SECOND, workers=[worker(0, restarts=1, last_end="signal 9")]), before)
    assert (problem.title, problem.detail) == ("worker 0 was started again", "ended with signal 9")


@pytest.mark.parametrize(
    ("standing", "title", "detail"),
    [
        (BookStanding(5, ("BTCUSDT", "ETHUSDT"), 2), f"{BOOK}: 2 books out of sync", "BTCUSDT; ETHUSDT"),
        (BookStanding(5, kept=5, crossed=("BTCUSDT",)), f"{BOOK}: crossed books", "BTCUSDT"),
    ],
    ids=["out of sync", "crossed"],
)
def test_what_is_wrong_with_books(standing: BookStanding, title: str, detail: str) -> None:
    now = with_connection()
    now["venues"]["bybit"]["connections"][BOOK]["books"] = attrs.asdict(standing)
    problem = only(now)
    assert (problem.title, problem.detail, problem.section) == (title, detail, "books")


def test_a_worker_that_does_not_answer_is_told() -> None:
    problem = only(
        healthy(workers=[worker(0), worker(1, state="waiting", answers=False, not_ready=["worker 1 ended"])])
    )
    assert (problem.title, problem.detail, problem.since) == ("worker 1 does not answer", "worker 1 ended", START)


def test_every_problem_leads_to_a_section() -> None:
    from pipeline.observe.page import SECTION_IDS

    stats = [parameters.values[0] for parameters in [*SINK_PROBLEMS, *VENUE_PROBLEMS, *CONNECTION_PROBLEMS]]
    sinks = {field.name for field in attrs.fields(SinkStats)}
    venues = {field.name for field in attrs.fields(VenueStats)} - {"state", "last_error"}
    for fields in stats:
        assert isinstance(fields, dict)
        make = with_sink if fields.keys() <= sinks else with_venue if fields.keys() & venues else with_connection
        for problem in problems(make(**fields)):
            assert problem.section in SECTION_IDS
            assert problem.look.endswith(".") or problem.look.endswith("?") or "`" in problem.look


@pytest.mark.parametrize(
    ("state", "look"), [("running", "nothing replaces it"), ("waiting", "started again by itself")]
)
def test_who_replaces_a_worker_that_does_not_answer(state: str, look: str) -> None:
    worker = {"worker": 1, "state": state, "since": START, "answers": False, "restarts": 0, "not_ready": ["x"]}
    assert look in only(with_sink() | {"workers": [worker]}).look
