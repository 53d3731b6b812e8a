"""The status page: the service's status as sections of HTML, complete without a script. Pure; time is in the status."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from pipeline.observe import wording
from pipeline.observe.history import Onsets, Rises, Samples
from pipeline.observe.latencies import ACKNOWLEDGED, PRODUCED, Latencies
from pipeline.observe.markup import Html, element, joined
from pipeline.observe.problems import CONNECTED, Problem, Status, connections, counters, find_problems, headline

_MAX_ROWS = 200
_MAX_NOTES = 30
_REST_S = 300.0
"""Seconds without another that a gap, a reconnect or the like stays on top of the page."""


@attrs.frozen
class View:
    """What the page shows at one moment."""

    title: str
    sections: Mapping[str, Html]
    """By their id, in the page's order."""


@attrs.define(eq=False)
class StatusPage:
    """Turns one status after the other into views; the ones before give rates and beginnings."""

    rates: Samples = attrs.field(factory=lambda: Samples(5.0), init=False)
    latencies: Latencies = attrs.field(factory=Latencies, init=False)
    rises: Rises = attrs.field(factory=lambda: Rises(_REST_S), init=False)
    _onsets: Onsets = attrs.field(factory=Onsets, init=False)

    def note(self, status: Status) -> tuple[list[Problem], Mapping[Any, int]]:
        """Remember what later views need; gives what is wrong now, and since when by the problem's key."""
        now, counted = status["now"], counters(status)
        self.rates.note(now, counted)
        self.rises.note(now, counted)
        self.latencies.note(status)
        problems = list(find_problems(status, self.rises))
        return problems, self._onsets.note(now, {problem.key: problem.since for problem in problems})

    def view(self, status: Status) -> View:
        """The page at this moment."""
        problems, since = self.note(status)
        said = headline(status, problems)
        sections = {"verdict": _verdict(status, said, problems, since)}
        for name, title, section in _SECTIONS:
            body = section(status, self)
            sections[name] = Html("") if body is None else joined(element("h2", title), body)
        mark = "●" if any(problem.severity == "bad" for problem in problems) else "○" if problems else "✓"
        return View(f"{mark} {said}", sections)


def _verdict(status: Status, said: str, problems: Sequence[Problem], since: Mapping[Any, int]) -> Html:
    now = status["now"]
    worst = "bad" if any(p.severity == "bad" for p in problems) else "warn" if problems else "good"
    items = [
        element(
            "li",
            element("strong", problem.title),
            element("span", f" since {wording.since(since[problem.key], now)}", class_="since"),
            element("p", problem.detail, class_="detail") if problem.detail else None,
            element("p", problem.look, " ", element("a", "Details", href=f"#{problem.section}"), class_="look"),
            class_=problem.severity,
        )
        for problem in problems[:_MAX_NOTES]
    ]
    readiness = "ready" if status["ready"] else "not ready"
    return element(
        "div",
        element("h1", said, aria_live="polite"),
        element("p", f"At {wording.moment(now)} UTC · {readiness} · version {status['version']}", class_="at"),
        element("ol", *items, class_="problems") if items else None,
        class_=f"verdict {worst}",
    )


def _venues(status: Status, page: StatusPage) -> Html | None:
    rows = []
    for name, venue in status["venues"].items():
        every = venue["connections"].values()
        live = sum(c["state"] in CONNECTED for c in every)
        rows.append(
            (
                "" if venue["state"] == "running" and live == len(every) else "warn" if live else "bad",
                [
                    element("strong", name),
                    _venue_state(venue, live),
                    f"{live} / {len(every)}",
                    wording.rate(_sum(page.rates.per_second((c["id"], "messages")) for c in every)),
                    wording.rate(_sum(page.rates.per_second((c["id"], "events")) for c in every)),
                    wording.count(venue["instruments"]),
                    _percentiles(page.latencies, ("venue", name)),
                    f"{venue['clock_offset'] / 1e3:+.0f} ms" if venue["clock_offset"] else wording.UNKNOWN,
                    wording.count(venue["connect_waiting"]),
                ],
            )
        )
    columns = (
        "Venue", "State", "#Live", "#Messages/s", "#Events/s", "#Instruments",
        "#From exchange to us", "#Clock offset", "#Waiting to connect",
    )  # fmt: skip
    return _table("Venues", columns, rows)


def _venue_state(venue: Status, live: int) -> Html:
    if venue["state"] != "running":
        return _state(venue["state"], venue["last_error"])
    # To run is little if nothing comes.
    wanted = len(venue["connections"])
    return _state("running" if live == wanted else "not all live" if live else "none live", "")


def _connections(status: Status, page: StatusPage) -> Html | None:
    now = status["now"]
    # What is not live comes first: it is what one looks for.
    every = sorted(connections(status), key=lambda c: (c["state"] in CONNECTED, c["venue"], c["id"]))
    rows = []
    for c in every[:_MAX_ROWS]:
        is_live = c["state"] in CONNECTED
        reconnects = ", ".join(f"{cause} {number}" for cause, number in c["reconnects"].items())
        troubles = [
            wording.several(c[what], one, many)
            for what, one, many in (
                ("gaps", "gap", None),
                ("checksum_failures", "wrong checksum", None),
                ("dead_letters", "dead letter", None),
                ("lags", "lag", None),
                ("stale", "time stale", "times stale"),
            )
            if c[what]
        ]
        if conflated := sum(c["conflated"].values()):
            troubles.append(f"{wording.count(conflated)} conflated")
        since = f"since {wording.since(c['since'], now)}" if c["since"] else ""
        granted = f"{c['subscribed']} / {c['subscriptions']}"
        rows.append(
            (
                "" if is_live else "bad" if c["last_error"] else "warn",
                [
                    c["id"],
                    _state(c["state"], since),
                    granted + (f", {len(c['refused'])} refused" if c["refused"] else ""),
                    wording.rate(page.rates.per_second((c["id"], "messages"))),
                    wording.rate(page.rates.per_second((c["id"], "events"))),
                    wording.age(c["last_receive"], now),
                    wording.duration(c["exchange_lag"] / 1e6) if c["exchange_lag"] > 0 else wording.UNKNOWN,
                    reconnects or "0",
                    ", ".join(troubles) or "0",
                    c["last_error"] or wording.UNKNOWN,
                ],
            )
        )
    columns = (
        "Connection", "State", "#Subscriptions", "#Messages/s", "#Events/s", "#Last message", "#From exchange",
        "Reconnects", "Troubles", "Last error",
    )  # fmt: skip
    return joined(_table("Connections", columns, rows), _more(len(every)))


def _subscriptions(status: Status, page: StatusPage) -> Html | None:
    refused = [(c["id"], topic, why) for c in connections(status) for topic, why in c["refused"].items()]
    unknown = [(c["id"], field) for c in connections(status) for field in c["unknown_fields"]]
    rows = [("warn", [*each]) for each in refused[:_MAX_ROWS]]
    pieces: list[Html | None] = []
    if rows:
        pieces += [_table("Refused subscriptions", ("Connection", "Topic", "Reason"), rows), _more(len(refused))]
    if unknown:
        listed = [element("li", f"{field} on {connection}") for connection, field in unknown[:_MAX_ROWS]]
        summary = element("summary", f"{wording.several(len(unknown), 'field')} that no reference knows")
        pieces.append(element("details", summary, element("ul", *listed)))
    return joined(*pieces) if pieces else None


def _books(status: Status, page: StatusPage) -> Html | None:
    now, rows = status["now"], []
    for c in connections(status):
        books = c.get("books", {})
        if not books.get("count") and not (c["gaps"] or c["resyncs"] or c["checksum_failures"] or c["seeds"]):
            continue
        crossed = books.get("crossed", ())
        oldest = f"{wording.age(books['oldest'], now)} ({books['oldest_name']})" if books.get("oldest") else None
        widest = f"{books['widest_bp']} bp ({books['widest_name']})" if books.get("widest_bp") else None
        rows.append(
            (
                "warn" if books.get("waiting") or crossed else "",
                [
                    c["id"],
                    wording.count(books.get("count", 0)),
                    _named(books.get("waiting", 0), books.get("out_of_sync", ())),
                    oldest or wording.UNKNOWN,
                    widest or wording.UNKNOWN,
                    _named(len(crossed), crossed) if books.get("kept") else wording.UNKNOWN,
                    wording.count(c["gaps"]),
                    wording.count(c["checksum_failures"]),
                    wording.count(c["resyncs"]),
                ],
            )
        )
    columns = (
        "Connection", "#Books", "Out of sync", "Longest unchanged", "Widest spread", "Crossed", "#Gaps",
        "#Wrong checksums", "#Started anew",
    )  # fmt: skip
    return _table("Order books", columns, rows) if rows else None


def _named(number: int, names: Sequence[str]) -> str:
    return f"{number:,}: {', '.join(names[:5])}{'…' if number > 5 else ''}" if names else str(number)


def _kafka(status: Status, page: StatusPage) -> Html | None:
    sink = status["sink"]
    if sink is None:
        opening = status.get("opening", {})
        return element("p", ": ".join(filter(None, ("Not reached yet", opening.get("trouble")))))
    kafka, journal = sink["kafka"], sink["journal"]

    def flow(what: str) -> str:
        return f"{wording.count(sink[what])} ({wording.rate(page.rates.per_second(('sink', what)))}/s)"

    is_told = kafka["brokers_up"] or not sink["broker_up"]  # all zero before the first statistics
    round_trip = [wording.duration(kafka[f"round_trip_{name}_us"] / 1e6) for name in ("p50", "p99")]
    facts = [
        ("State", _kafka_state(sink, status["now"])),
        ("Published", flow("published")),
        ("Acknowledged", flow("acknowledged")),
        ("Outstanding", wording.count(sink["in_flight"])),
        ("Queue", f"{wording.count(kafka['queue_messages'])} records, {wording.size(kafka['queue_bytes'])}"),
        ("Brokers connected", wording.count(kafka["brokers_up"]) if is_told else wording.UNKNOWN),
        ("Round trip p50 / p99", " / ".join(round_trip) if is_told else wording.UNKNOWN),
        ("Received to produced", _percentiles(page.latencies, PRODUCED)),
        ("Produced to acknowledged", _percentiles(page.latencies, ACKNOWLEDGED)),
        ("Throttled", wording.duration(kafka["throttled_ms"] / 1e3) if kafka["throttled_ms"] else "no"),
        ("Sent again", wording.count(sink["returned"])),
        ("Lost, announced", wording.count(sink["announced_lost"])),
        ("Dead letters", wording.count(sink["dead_letters"])),
    ]
    if journal is not None:
        facts.append(("Behind the journal", f"{wording.count(journal['waiting'])}, {wording.duration(journal['lag'])}"))
    return _facts(facts)


def _kafka_state(sink: Status, now: int) -> Html:
    if sink["broker_up"]:
        return _state("up", "; ".join(f"takes nothing for {topic}: {why}" for topic, why in sink["refusing"].items()))
    since = f"since {wording.since(sink['down_since'], now)}" if sink["down_since"] else ""
    return _state("down", ": ".join(filter(None, (since, sink["trouble"]))))


def _spool(status: Status, page: StatusPage) -> Html | None:
    sink, spool = status["sink"], status.get("spool", {})
    if sink is None:
        return None
    if sink["spool_failure"] is not None:
        state = _state("broken", sink["spool_failure"])
    elif sink["is_full"]:
        state = _state("full", "")
    else:
        state = _state("in use" if sink["is_spooling"] else "idle", "")
    share = f" of {wording.size(spool['max_bytes'])}" if spool else ""
    behind = max(0, status["now"] - sink["safe_until"]) / 1e6 if sink["safe_until"] else None
    facts = [
        ("State", state),
        ("Size", f"{wording.size(sink['spool_bytes'])}{share}"),
        ("Records", wording.count(sink["spooled"])),
        ("When full", str(spool.get("when_full", wording.UNKNOWN))),
        ("Oldest record that is not in Kafka", wording.duration(sink["oldest_age"]) if sink["oldest_age"] else "none"),
        ("Oldest record that is not safe", wording.duration(behind) if behind is not None else wording.UNKNOWN),
        ("Given up for newer ones", wording.count(sink["dropped"])),
    ]
    if (stopped := sink["reading_stopped_at"]) is not None:
        facts.append(("Reading stopped", f"since {wording.since(stopped, status['now'])}"))
    return _facts(facts)


def _accounts(status: Status, page: StatusPage) -> Html | None:
    rows = [
        (
            "" if c["state"] in CONNECTED and not c["unread"] else "warn",
            [
                c["account"],
                c["id"],
                "yes" if c["state"] in CONNECTED else f"no: {c['last_error'] or c['state']}",
                f"{wording.age(c['reconciled'], status['now'])} ago" if c["reconciled"] else "never",
                "; ".join(c["unread"]) or "nothing",
                wording.count(c["query_failures"]),
                wording.count(c["repeated_fills"]),
            ],
        )
        for c in connections(status)
        if c["account"] is not None
    ]
    columns = ("Account", "Connection", "Logged in", "Reconciled", "Not readable", "#Failed queries", "#Repeated fills")
    return _table("Accounts", columns, rows) if rows else None


def _orders(status: Status, page: StatusPage) -> Html | None:
    now, rows = status["now"], []
    for name, each in status.get("orders", {}).items():
        is_able = each["state"] == "owner" and each["connection"] == "live" and not each["held_up"]
        killed = each["is_killed"]
        unknown = wording.count(each["unknown"])
        if each["oldest_unknown"]:
            unknown += f", for {wording.age(each['oldest_unknown'], now)}"
        rows.append(
            (
                "bad" if killed or not is_able else "warn" if each["unknown"] else "",
                [
                    name,
                    _state("killed", "") if killed else _state("live" if is_able else each["state"], ""),
                    _state(each["connection"], ""),
                    wording.count(sum(each["commands"].values())),
                    _listed(
                        (each["waiting"], "waiting"),
                        (each["pending"], "unanswered"),
                        (each["unsettled"], "not settled in Kafka"),
                    ),
                    unknown,
                    _listed(
                        *((each["results"].get(state, 0), state) for state in ("acknowledged", "rejected", "expired"))
                    ),
                    ", ".join(f"{rule} {count}" for rule, count in sorted(each["refusals"].items())) or "0",
                    wording.count(each["open_orders"]),
                    _percentiles(page.latencies, ("orders", name)),
                    each["held_up"] or each["last_error"] or wording.UNKNOWN,
                ],
            )
        )
    columns = (
        "Account", "State", "Connection", "#Commands", "Under way", "Outcome unknown", "Results",
        "Refused by rule", "#Open orders", "#Until sent", "Last error",
    )  # fmt: skip
    return _table("Orders", columns, rows) if rows else None


def _listed(*found: tuple[int, str]) -> str:
    """Numbers of what there is any of."""
    return ", ".join(f"{wording.count(number)} {what}" for number, what in found if number) or "0"


def _process(status: Status, page: StatusPage) -> Html | None:
    process = status.get("process", {})
    facts = [
        (
            "Up",
            f"{wording.age(status['started'], status['now'])}, since {wording.since(status['started'], status['now'])}",
        ),
        ("Version", status["version"]),
        ("Memory", wording.size(process["resident_bytes"]) if "resident_bytes" in process else wording.UNKNOWN),
        ("Event loop late", wording.duration(process["loop_late_s"]) if "loop_late_s" in process else wording.UNKNOWN),
        ("Process", str(process.get("pid", wording.UNKNOWN))),
    ]
    return _facts(facts)


def _workers(status: Status, page: StatusPage) -> Html | None:
    rows = [
        (
            "" if worker["answers"] and not worker["not_ready"] else "bad",
            [
                f"worker {worker['worker']}",
                _state(worker["state"], f"since {wording.since(worker['since'], status['now'])}"),
                "yes" if worker["answers"] else "no",
                wording.count(worker["restarts"]),
                str(worker["last_end"] or wording.UNKNOWN),
                str(worker["pid"] or wording.UNKNOWN),
                worker["address"] or wording.UNKNOWN,
            ],
        )
        for worker in status.get("workers", ())
    ]
    columns = ("Worker", "State", "Answers", "#Restarts", "Last end", "#Process", "Its own page")
    return _table("Workers", columns, rows) if rows else None


def _events(status: Status, page: StatusPage) -> Html | None:
    notes = list(reversed(status.get("recent", ())))[:_MAX_NOTES]
    if not notes:
        return element("p", "Nothing yet.")
    rows = [
        (
            {"info": "", "warning": "warn"}.get(note["level"], "bad"),
            [
                element("time", wording.since(note["time"], status["now"])),
                note["event"].replace("_", " ") + (f" ({note['count']} times)" if note["count"] > 1 else ""),
                note["text"],
            ],
        )
        for note in notes
    ]
    return _table("Recent events", ("Time", "Event", "What"), rows)


_SECTIONS = (
    ("orders", "Orders", _orders),  # where there are any, they matter most
    ("venues", "Venues", _venues),
    ("connections", "Connections", _connections),
    ("subscriptions", "Subscriptions", _subscriptions),
    ("books", "Order books", _books),
    ("kafka", "Kafka", _kafka),
    ("spool", "Spool", _spool),
    ("accounts", "Accounts", _accounts),
    ("process", "Process", _process),
    ("workers", "Workers", _workers),
    ("events", "Recent events", _events),
)
SECTION_IDS = ("verdict", *(name for name, _, _ in _SECTIONS))


def _percentiles(latencies: Latencies, about: Hashable) -> str:
    """Upper bounds of the last minute's p50 and p99."""
    found = latencies.percentiles(about)
    return wording.UNKNOWN if found is None else f"p50 {found[0]} / p99 {found[1]}"


def _sum(rates: Iterable[float | None]) -> float | None:
    known = [each for each in rates if each is not None]
    return sum(known) if known else None


def _state(state: str, why: str) -> Html:
    kind = "good" if state in _GOOD else "bad" if state in _BAD else "warn"
    return joined(element("span", state, class_=f"state {kind}"), element("small", f" {why}") if why else None)


_GOOD = frozenset({"live", "running", "up", "idle"})
_BAD = frozenset({"refused", "retrying", "down", "full", "broken", "lagging", "none live", "killed"})


def _facts(facts: Iterable[tuple[str, str]]) -> Html:
    return element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in facts))


def _table(caption: str, columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> Html:
    """Columns of numbers have names that begin with #. On a phone each row is a card, so roles are given explicitly."""
    names = [name.removeprefix("#") for name in columns]
    numeric = ["number" if name.startswith("#") else None for name in columns]
    head = (
        element("th", name, scope="col", role="columnheader", class_=kind)
        for name, kind in zip(names, numeric, strict=True)
    )
    return element(
        "table",
        element("caption", caption, class_="unseen"),
        element("thead", element("tr", *head, role="row"), role="rowgroup"),
        element("tbody", *(_row(kind, cells, names, numeric) for kind, cells in rows), role="rowgroup"),
        role="table",
    )


def _row(kind: str, cells: Sequence[str], names: Sequence[str], numeric: Sequence[str | None]) -> Html:
    def made() -> Iterator[Html]:
        for position, (cell, name, is_number) in enumerate(zip(cells, names, numeric, strict=True)):
            if position == 0:
                yield element("th", cell, scope="row", role="rowheader", data_label=name)
            else:
                yield element("td", cell, role="cell", data_label=name, class_=is_number)

    return element("tr", *made(), role="row", class_=kind or None)


def _more(total: int) -> Html | None:
    rest = total - _MAX_ROWS
    return element("p", f"and {rest:,} more: see ", element("a", "/status", href="status")) if rest > 0 else None
