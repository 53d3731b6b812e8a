"""The page is made of what the status says, and of nothing that a venue could slip in."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import attrs

from pipeline.feeds.standing import BookStanding
from pipeline.model.latency import DELIVERY_BOUNDS_S, EXCHANGE_BOUNDS_S, PRODUCE_BOUNDS_S, Latency
from pipeline.observe import wording
from pipeline.observe.markup import Html, element, joined
from pipeline.observe.page import SECTION_IDS, StatusPage, View
from tests.observe.statuses import FENCED, SECOND, START, connection, healthy, sink, status, venue, worker

BOOK = "bybit.linear.book.0"
VOID = {"meta", "link", "br"}


def text(view: View, section: str) -> str:
    return re.sub(r"<[^>]+>", "|", view.sections[section])


def cells(view: View, section: str, row: str) -> list[str]:
    """The cells of the table row that begins with this text."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", view.sections[section])
    found = [[re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", each)] for each in rows]
    return next(each for each in found if each[0] == row)


class Balance(HTMLParser):
    """Complains about elements that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def full(now: int = START, messages: int = 0) -> dict[str, Any]:
    """A status in which everything there is happens."""
    busy = connection(
        BOOK, messages=messages, events=2 * messages, bytes=100 * messages, exchange_lag=12_000, gaps=2, resyncs=2,
        checksum_failures=1, dead_letters=3, stale=1, reconnects={"HeartbeatLost": 2}, refused={"t": "unknown topic"},
        last_receive=now - 2 * SECOND, unknown_fields={"ticker.newField": None}, last_error="no pong for 10 s",
    )  # fmt: skip
    private = connection("okx.main.private.0", account="main", reconciled=now - 60 * SECOND, unread=("fills: denied",))
    down = connection("okx.swap.trade.0", state="retrying", last_error="refused", last_receive=0)
    delivered, produced, arrived = (
        Latency(bounds) for bounds in (DELIVERY_BOUNDS_S, PRODUCE_BOUNDS_S, EXCHANGE_BOUNDS_S)
    )
    delivered.counts[3], delivered.counts[9] = messages, messages // 20
    produced.counts[1], produced.counts[5] = messages, messages // 20
    arrived.counts[0], arrived.counts[6] = messages, messages // 20
    notes = [
        {"time": now, "first": now, "count": 3, "level": "error", "event": "spool_full", "text": "reason: disk"},
        {"time": now, "first": now, "count": 1, "level": "info", "event": "kafka_up", "text": ""},
    ]
    its = sink(
        published=5 * messages, is_spooling=True, spooled=70, spool_bytes=3 * 1024**2, journal=FENCED,
        latency=delivered, until_produced=produced, reading_stopped_at=now, oldest_age=7.0,
    )  # fmt: skip
    workers = [worker(0), worker(1, state="waiting", answers=False, restarts=3, last_end="signal 9", pid=None)]
    found = status(
        venue("bybit", busy, arrivals={"trade": arrived}),
        venue("okx", private, down),
        sink=its,
        now=now,
        recent=notes,
        workers=workers,
    )
    books = BookStanding(12, ("BTCUSDT",), 1, START - 5 * SECOND, "DOGEUSDT", 9, ("ETHUSDT",), "1.25", "SOLUSDT")
    found["venues"]["bybit"]["connections"][BOOK]["books"] = attrs.asdict(books)
    return found


def test_every_section_is_well_formed() -> None:
    for one in (healthy(), full(), status(sink=None), status(venue("okx", state="refused"), sink=sink())):
        view = StatusPage().view(one)
        assert tuple(view.sections) == SECTION_IDS
        for html in view.sections.values():
            balance = Balance()
            balance.feed(html)
            assert balance.open == []


def test_rates_come_from_the_looks_before() -> None:
    page = StatusPage()
    first = page.view(full())
    assert cells(first, "connections", BOOK)[3:5] == ["–", "–"]
    then = page.view(full(START + 4 * SECOND, messages=1_000))
    assert cells(then, "connections", BOOK)[3:5] == ["250", "500"]
    assert cells(then, "venues", "bybit")[2:5] == ["1 / 1", "250", "500"]
    assert "5,000 (1,250/s)" in text(then, "kafka")
    assert cells(then, "venues", "bybit")[6] == "p50 below 0 / p99 ≤ 50 ms"
    assert "Received to produced||p50 ≤ 100 µs / p99 ≤ 2.5 ms|" in text(then, "kafka")
    assert "Produced to acknowledged||p50 ≤ 10 ms / p99 ≤ 1.0 s|" in text(then, "kafka")


def test_a_connection_tells_all_of_itself() -> None:
    row = cells(StatusPage().view(full()), "connections", BOOK)
    assert row[1:3] == ["live since 02:40:00 UTC".replace("02:40:00", wording.moment(START)), "3 / 3, 1 refused"]
    assert row[5:] == [
        "2.0 s", "12 ms", "HeartbeatLost 2", "2 gaps, 1 wrong checksum, 3 dead letters, 1 time stale",
        "no pong for 10 s",
    ]  # fmt: skip


def test_a_venue_is_as_well_as_its_connections() -> None:
    def state(*states: str) -> str:
        every = [connection(f"okx.swap.book.{number}", state=each) for number, each in enumerate(states)]
        return cells(StatusPage().view(status(venue("okx", *every), sink=sink())), "venues", "okx")[1]

    assert state("live", "lagging") == "running"
    assert state("live", "retrying") == "not all live"
    assert state("connecting", "retrying") == "none live"


def test_what_is_down_comes_first() -> None:
    html = StatusPage().view(full()).sections["connections"]
    assert html.index("okx.swap.trade.0") < html.index(BOOK)


def test_sections_tell_their_part() -> None:
    view = StatusPage().view(full())
    assert "unknown topic" in text(view, "subscriptions")
    assert "ticker.newField" in text(view, "subscriptions")
    assert cells(view, "books", BOOK)[1:] == [
        "12", "1: BTCUSDT", "5.0 s (DOGEUSDT)", "1.25 bp (SOLUSDT)", "1: ETHUSDT", "2", "1", "2",
    ]  # fmt: skip
    assert "3.0 MiB of 10.0 GiB" in text(view, "spool")
    assert "refuse_new" in text(view, "spool")
    assert cells(view, "accounts", "main")[2:5] == ["yes", "60 s ago", "fills: denied"]
    assert "spool full (3 times)" in text(view, "events")
    assert "100 MiB" in text(view, "process")
    assert "60 min, since" in text(view, "process")
    assert cells(view, "workers", "worker 1")[2:5] == ["no", "3", "signal 9"]
    healthy_view = StatusPage().view(healthy())
    for empty in ("subscriptions", "accounts", "books"):
        assert healthy_view.sections[empty] == ""


def test_the_verdict_comes_with_its_beginning_and_what_to_do() -> None:
    page = StatusPage()
    down = status(venue("okx", connection("okx.swap.book.0")), sink=sink(broker_up=False))
    page.view(down)
    view = page.view({**down, "now": START + 30 * SECOND})
    assert view.title == "● Kafka is down"
    assert f"since {wording.moment(START)} UTC" in text(view, "verdict")
    assert "Look at the brokers" in text(view, "verdict")
    assert 'href="#kafka"' in view.sections["verdict"]
    assert StatusPage().view(healthy()).title.startswith("✓")


def test_hostile_texts_stay_text() -> None:
    evil = '<script>alert("x")</script>\'"><img src=x onerror=y>&amp;'
    lost = connection(BOOK, state="retrying", last_error=evil, refused={evil: evil}, reconnects={evil: 1})
    noted = [{"time": START, "first": START, "count": 1, "level": "error", "event": evil, "text": evil}]
    view = StatusPage().view(status(venue("bybit", lost, last_error=evil), sink=sink(), recent=noted))
    for html in (view.title, *view.sections.values()):
        if html is not view.title:
            assert "<script" not in html
            assert "<img" not in html
    assert "&lt;script&gt;" in view.sections["verdict"]
    assert element("a", href='"><b>') == '<a href="&quot;&gt;&lt;b&gt;"></a>'
    assert joined("<", Html("<b>"), None) == "&lt;<b>"


def test_very_many_connections_do_not_make_a_page_without_end() -> None:
    many = [connection(f"bybit.linear.trade.{number}") for number in range(1_000)]
    html = StatusPage().view(status(venue("bybit", *many), sink=sink())).sections["connections"]
    assert html.count("<tr") == 201
    assert "and 800 more" in html


def test_tables_can_be_read_aloud() -> None:
    html = StatusPage().view(full()).sections["connections"]
    assert html.count('scope="col"') == 10
    assert html.count('scope="row"') == 3
    assert html.count("<caption") == 1
    assert StatusPage().view(healthy()).sections["verdict"].count('aria-live="polite"') == 1


def test_numbers_are_told_in_words() -> None:
    for told, wanted in (
        (wording.duration(0.0004), "400 µs"), (wording.duration(0.0025), "2.5 ms"), (wording.duration(0.005), "5 ms"),
        (wording.duration(0.0994), "99 ms"), (wording.duration(0.0996), "0.1 s"),
        (wording.duration(9.94), "9.9 s"), (wording.duration(9.96), "10 s"), (wording.duration(119), "119 s"),
        (wording.duration(120), "2 min"), (wording.duration(7_200), "2.0 h"), (wording.duration(200_000), "2.3 d"),
        (wording.age(0, 5), "–"), (wording.age(10, 5), "0 ms"), (wording.rate(None), "–"), (wording.rate(0), "0"),
        (wording.rate(0.25), "0.2"), (wording.rate(9.96), "10"), (wording.rate(12_345.6), "12,346"),
        (wording.size(1_023), "1023 B"), (wording.size(1_536), "1.5 KiB"), (wording.size(3 * 1024**4), "3072.0 GiB"),
        (wording.since(START, START + 86_400 * SECOND), "2025-11-22 08:26 UTC"), (wording.several(1, "gap"), "1 gap"),
        (wording.several(2_000, "entry", "entries"), "2,000 entries"),
    ):  # fmt: skip
        assert told == wanted
