"""What is wrong, in the order of its importance, told from the service's status. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, Literal

import attrs

from pipeline.observe import wording
from pipeline.observe.history import Rises

Status = Mapping[str, Any]

CONNECTED = frozenset({"live", "lagging"})
_SILENT_S, _LATE_S, _CLOCK_S = 60.0, 0.5, 1.0
_FILLING = 0.8
_NAMED = 3
_UNKNOWN_US = 30_000_000


@attrs.frozen
class Problem:
    """One thing that is wrong, for people."""

    key: tuple[str, ...]
    """The same for as long as it is the same problem."""
    severity: Literal["bad", "warn"]
    """bad: data is missing or lost, or will be; warn: look at it by day."""
    title: str
    """Does not change while the problem lasts unless it becomes another one."""
    detail: str
    look: str
    """Where to look and what to do."""
    section: str
    """The section of the page that has more."""
    since: int | None = None
    """When it began, in microseconds, where that is known."""


def connections(status: Status) -> list[Status]:
    """All connections of all venues."""
    return [c for venue in status["venues"].values() for c in venue["connections"].values()]


def counters(status: Status) -> dict[Hashable, float]:
    """Everything that only rises, by who and what."""
    found: dict[Hashable, float] = {}
    for c in connections(status):
        for name in _RISING:
            found[c["id"], name] = c[name]
        found[c["id"], "reconnects"] = sum(c["reconnects"].values())
    for name, venue in status["venues"].items():
        for what in ("catalogue_failures", "clock_failures", "state_failures"):
            found[name, what] = venue[what]
        if venue["archive"] is not None:
            found[name, "archive_lost"] = venue["archive"]["lost"]
    for name, account in status.get("orders", {}).items():
        for what, *_ in _WARNED_ORDERS:
            found["orders", name, what] = account[what]
    for worker in status.get("workers", ()):
        found["worker", worker["worker"]] = worker["restarts"]
    if (sink := status["sink"]) is not None:
        for what in ("published", "acknowledged", "announced_lost", "returned", "renewals", "own_letters"):
            found["sink", what] = sink[what]
    return found


_RISING = (
    "messages", "events", "bytes", "gaps", "checksum_failures", "resyncs", "stale", "lags", "dead_letters",
    "query_failures",
)  # fmt: skip


def find_problems(status: Status, rises: Rises) -> Iterator[Problem]:
    """The worst first."""
    found = [
        *_of_sink(status, rises),
        *_of_config(status),
        *_of_orders(status, rises),
        *_of_venues(status),
        *_of_connections(status, rises),
        *_of_process(status, rises),
    ]
    yield from sorted(found or _of_readiness(status), key=lambda problem: problem.severity != "bad")


def _of_sink(status: Status, rises: Rises) -> Iterator[Problem]:
    sink = status["sink"]
    if sink is None:
        yield _of_opening(status.get("opening", {}), status["started"])
        return
    for worker in status.get("workers", ()):
        if (opening := worker.get("opening")) is not None:  # the others are open
            yield _of_opening(opening, worker["since"], f"worker {worker['worker']}")
    lost = rises.of(("sink", "announced_lost"))
    if sink["is_full"] or lost is not None:
        why = "the spool is full" if sink["is_full"] else "lately"
        extent = f"{wording.count(sink['announced_lost'])} records are lost and announced as gaps, {why}"
        look = "Bring Kafka back, or make room: spool.max_bytes and the disk. Consumers see the gaps in feed_status."
        began = None if lost is None else lost.since
        yield Problem(("sink", "lost"), "bad", "Records are being lost", extent, look, "spool", began)
    if sink["spool_failure"] is not None:
        look = "Look at the disk of spool.directory: space, rights, errors. Records wait in memory, within a bound."
        yield Problem(("spool", "broken"), "bad", "The spool cannot be written", sink["spool_failure"], look, "spool")
    if (stopped := sink["reading_stopped_at"]) is not None:
        look = "Bring Kafka back: reading resumes by itself when the spool has room."
        text = "spool.when_full is stop_reading, and the spool is nearly full"
        yield Problem(("spool", "stopped"), "bad", "Nothing is read from the venues", text, look, "spool", stopped)
    if (journal := sink["journal"]) is not None and journal["fenced"]:
        look = "Stop one of the two, or give each a kafka.shard of its own."
        text = "another process with the same kafka.shard delivers in its place"
        yield Problem(("sink", "fenced"), "bad", "Another instance has taken over this shard", text, look, "kafka")
    if not sink["broker_up"]:
        is_safe = sink["spool_failure"] is None and not sink["is_full"]
        text = f"{wording.count(sink['in_flight'] + sink['spooled'])} records wait{', safe' if is_safe else ''}"
        text += f"; {sink['trouble']}" if sink["trouble"] else ""
        look = "Look at the brokers and the way to them. Nothing is lost while the spool has room."
        yield Problem(("kafka", "down"), "bad", "Kafka is down", text, look, "kafka", sink["down_since"])
    if refusing := sink["refusing"]:
        title = f"Kafka takes no records for {wording.several(len(refusing), 'topic')}"
        text = _listed(f"{topic}: {reason}" for topic, reason in refusing.items())
        look = (
            "All records wait behind them; after a minute those of the topic become dead letters, until it is mended."
        )
        yield Problem(("kafka", "refusing"), "bad", title, text, look, "kafka")
    if (letters := rises.of(("sink", "own_letters"))) is not None:
        title = f"{wording.several(round(letters.count), 'record')} became dead letters"
        look = "They are in the topic of dead letters, with the reason and the topic that they were for."
        yield Problem(("sink", "letters"), "warn", title, sink["last_letter"], look, "kafka", letters.since)
    most = status.get("spool", {}).get("max_bytes", 0)
    if most and sink["spool_bytes"] > _FILLING * most and not sink["is_full"]:
        share = f"{sink['spool_bytes'] / most:.0%} of {wording.size(most)}"
        look = f"When it is full: {status['spool']['when_full']}. Bring Kafka back or enlarge spool.max_bytes."
        yield Problem(("spool", "filling"), "bad", "The spool is nearly full", share, look, "spool")
    for what, title in (("returned", "Kafka gives records back"), ("renewals", "The Kafka producer was replaced")):
        if sink["broker_up"] and (rise := rises.of(("sink", what))) is not None:
            text = sink["trouble"] or f"{rise.count:.0f} times"
            look = "They are sent again. Look at the brokers' logs if it goes on."
            yield Problem(("sink", what), "warn", title, text, look, "kafka", rise.since)


def _of_opening(opening: Status, since: int, worker: str = "") -> Problem:
    trouble, key, who = opening.get("trouble"), (worker,) if worker else (), f"{worker}: " if worker else ""
    if opening.get("waits_for") == "registry":
        look = "Nothing can be encoded without it. Is it up, and is kafka.schema_registry.url right?"
        text = trouble or "it is being asked for the schemas"
        title = (
            f"{who}the schema registry has not answered yet" if worker else "The schema registry has not answered yet"
        )
        return Problem(("registry", "absent", *key), "bad", title, text, look, "kafka", since)
    text = trouble or "the service waits for it before it connects to any venue"
    look = "Is the broker up, and is kafka.bootstrap_servers right? `check --connect` tries it."
    title = f"{who}Kafka has not been reached yet"
    return Problem(("kafka", "absent", *key), "bad", title, text, look, "kafka", since)


def _of_config(status: Status) -> Iterator[Problem]:
    config = status.get("config", {})
    if (refused := config.get("refused")) is not None:
        look = "The one before stays in force. Correct the file: it is read again by itself, or with SIGHUP."
        title, text = "The changed configuration is refused", _listed(refused["problems"])
        yield Problem(("config", "refused"), "bad", title, text, look, "process", refused["time"])
    if keys := config.get("needs_restart"):
        look = "These keys are read at the start alone: restart when it suits."
        title = "A part of the configuration waits for a restart"
        yield Problem(("config", "restart"), "warn", title, _listed(keys), look, "process")


def _of_orders(status: Status, rises: Rises) -> Iterator[Problem]:
    for name, each in status.get("orders", {}).items():
        key, why = ("orders", name), each["last_error"]
        if each["is_killed"]:
            look = "Orders are taken again after `resume`: a command, /control/resume, or removing the kill file."
            text = f"new orders are refused, {wording.several(each['open_orders'], 'order')} still open"
            yield Problem((*key, "killed"), "bad", f"{name}: the kill switch is on", text, look, "orders")
        if each["state"] in ("retrying", "refused"):
            look = "Nothing is sent until that is mended; commands wait in their topic, and expire there."
            yield Problem((*key, "unable"), "bad", f"{name} takes no orders", why, look, "orders")
        elif each["state"] == "owner" and each["connection"] != "live" and why:  # without, it is only starting
            look = "Commands wait for it until they expire. Read the reason; keys need the right to trade."
            title = f"{name}: the connection for orders is down"
            yield Problem((*key, "connection"), "bad", title, why, look, "orders")
        if each["held_up"]:
            look = "They wait in their order, a kill too: use /control/kill or the kill file. See the schema registry."
            yield Problem((*key, "held_up"), "bad", f"{name}: commands wait", each["held_up"], look, "orders")
        since = each["oldest_unknown"]
        if since and status["now"] - since > _UNKNOWN_US:
            look = "Look at the venue itself. They are asked for until it tells; why it did not is in the log."
            text = f"{wording.several(each['unknown'], 'order')} sent, and the venue has not said what became of them"
            yield Problem((*key, "unknown"), "bad", f"{name}: outcomes are unknown", text, look, "orders", since)
        for what, severity, said, look in _WARNED_ORDERS:
            if (rise := rises.of(("orders", name, what))) is not None:
                text = f"{wording.several(round(rise.count), 'time')}; {why}".rstrip("; ")
                yield Problem((*key, what), severity, f"{name}: {said}", text, look, "orders", rise.since)


_WARNED_ORDERS: tuple[tuple[str, Literal["bad", "warn"], str, str], ...] = (
    (
        "arm_failures",
        "bad",
        "open orders are not protected",
        "The venue cannot be told to cancel them when we are gone; the log has why (cancel_on_disconnect_not_armed).",
    ),
    (
        "result_failures",
        "bad",
        "Kafka does not take results",
        "They are written again until it does; nothing is done twice. May this user write the topic of results?",
    ),
    (
        "price_failures",
        "warn",
        "reference prices cannot be read",
        "Limit orders are refused by price_band meanwhile; the log has why (reference_price_unread).",
    ),
    (
        "look_up_failures",
        "warn",
        "the venue does not answer questions about orders",
        "What is unknown stays so until it does; the log has why (order_not_looked_up).",
    ),
    (
        "losses",
        "warn",
        "the commands were given up lately",
        "Another instance took over, Kafka was away, or this process stood still: the log has which.",
    ),
)


def _of_venues(status: Status) -> Iterator[Problem]:
    for name, venue in status["venues"].items():
        key, error = ("venue", name), venue["last_error"]
        if venue["state"] == "refused":
            look = "A refusal does not pass by itself: read the reason. It is asked again at refresh_instruments."
            yield Problem((*key, "refused"), "bad", f"{name} refuses us", error, look, "venues")
        elif venue["state"] == "starting" and venue["catalogue_failures"]:
            look = "Can the venue's REST host be reached, and is it in maintenance? Nothing is subscribed before that."
            yield Problem((*key, "starting"), "bad", f"{name}'s catalogue cannot be read", error, look, "venues")
        elif venue["state"] == "stopped":
            yield Problem((*key, "stopped"), "warn", f"{name} is stopped", error, "The service is ending.", "venues")


def _of_connections(status: Status, rises: Rises) -> Iterator[Problem]:
    for name, venue in status["venues"].items():
        all_of_it = list(venue["connections"].values())
        refused = [c for c in all_of_it if c["state"] == "refused"]
        down = [c for c in all_of_it if c["state"] not in CONNECTED and c["state"] != "refused"]
        if refused:
            look = "Wrong key, missing permission, banned address? Correct it and restart: it is not tried again."
            yield _of_several(name, "refused", "refused", refused, len(all_of_it), look)
        # What has never failed is only starting.
        if failing := [c for c in down if c["last_error"]]:
            look = (
                "If all of the venue's are down: the network or the venue; if one is: its last error and subscriptions."
            )
            yield _of_several(name, "down", "down", failing, len(all_of_it), look)
    for name, venue in status["venues"].items():
        yield from _of_subscriptions(name, venue, status["now"])
        yield from _of_rises(name, venue, rises)
        yield from _of_accounts(venue)


def _of_several(venue: str, key: str, what: str, which: list[Status], total: int, look: str) -> Problem:
    if len(which) == 1:
        said = f"{which[0]['id']} is {what}"
    else:
        extent = f"all {total}" if len(which) == total else f"{len(which)} of {total}"
        said = f"{venue}: {extent} connections are {what}"
    reasons = list(dict.fromkeys(c["last_error"] for c in which))
    text = "; ".join(reasons[:_NAMED]) + (
        f"; and {len(reasons) - _NAMED} more reasons" if len(reasons) > _NAMED else ""
    )
    since = min((c["since"] for c in which if c["since"]), default=None)
    return Problem(("connection", venue, key), "bad", said, text, look, "connections", since)


def _of_subscriptions(name: str, venue: Status, now: int) -> Iterator[Problem]:
    live = [c for c in venue["connections"].values() if c["state"] in CONNECTED]
    refused = {topic: reason for c in live for topic, reason in c["refused"].items()}
    if refused:
        text = _listed(f"{topic}: {reason}" for topic, reason in refused.items())
        title = f"{name} refuses {wording.several(len(refused), 'subscription')}"
        look = "Listed below under subscriptions. A delisted instrument or a wrong channel: correct the configuration."
        yield Problem(("refused", name), "warn", title, text, look, "subscriptions")
    for c in live:
        age = (now - c["last_receive"]) / 1e6 if c["last_receive"] else 0.0
        if c["state"] == "lagging":
            look = (
                "Is the event loop late, below? Then this process has too much to do. If not: the network, the venue."
            )
            text = f"{wording.duration(c['lag'] / 1e6)} behind the venue"
            if conflated := sum(c["conflated"].values()):
                text += f"; of {wording.count(conflated)} states only later ones were published"
            yield Problem(("lag", c["id"]), "bad", f"{c['id']} lags behind", text, look, "connections", c["since"])
        if (books := c.get("books", {})).get("waiting"):
            text = _listed(books["out_of_sync"])
            title = f"{c['id']}: {wording.several(books['waiting'], 'book')} out of sync"
            look = "They wait for a new snapshot, which is asked for again and again; nothing of them is published."
            yield Problem(("books", c["id"]), "bad", title, text, look, "books")
        if books.get("crossed"):
            title, text = f"{c['id']}: crossed books", _listed(books["crossed"])
            look = "For moments this is the market's own doing; for long, updates are missing: force a new snapshot."
            yield Problem(("crossed", c["id"]), "warn", title, text, look, "books")
        if age > _SILENT_S:
            text = f"nothing for {wording.duration(age)}"
            look = "Quiet instruments are silent at night; several at once are not: compare with the venue's own page."
            yield Problem(
                ("silent", c["id"]), "warn", f"{c['id']} is silent", text, look, "connections", c["last_receive"]
            )


def _of_rises(name: str, venue: Status, rises: Rises) -> Iterator[Problem]:
    for what, title, look, section in _WARNED:
        live = [c["id"] for c in venue["connections"].values() if c["state"] in CONNECTED]  # the others are told of
        found = {connection: rise for connection in live if (rise := rises.of((connection, what))) is not None}
        if found:
            text = _listed(
                f"{connection}: {rise.count:.0f}{_last_loss(venue['connections'][connection], what)}"
                for connection, rise in found.items()
            )
            since = min(rise.since for rise in found.values())
            yield Problem((what, name), "warn", f"{name}: {title}", text, look, section, since)
    for what, title, look in _WARNED_VENUE:
        if (rise := rises.of((name, what))) is not None:
            text = venue["last_error"] if what == "catalogue_failures" else f"{rise.count:.0f} times"
            yield Problem((what, name), "warn", f"{name}: {title}", text, look, "venues", rise.since)
    if (archive := venue["archive"]) is not None and (archive["failure"] or rises.of((name, "archive_lost"))):
        text = archive["failure"] or f"{wording.count(archive['lost'])} entries are missing in its files"
        look = "Look at the disk of the archive. What goes to Kafka is not touched by it."
        yield Problem(("archive", name), "warn", f"{name}: the archive is incomplete", text, look, "venues")


def _last_loss(connection: Status, what: str) -> str:
    return f" ({connection['last_error']})" if what == "reconnects" and connection["last_error"] else ""


_WARNED = (
    (
        "dead_letters",
        "messages cannot be read",
        "They are in the topic of dead letters, with the reason.",
        "connections",
    ),
    ("checksum_failures", "books did not match their checksum", "They start anew by themselves.", "books"),
    ("gaps", "gaps in order books", "Books start anew by themselves; consumers see each gap in feed_status.", "books"),
    ("lags", "connections lagged lately", "Look at how late the event loop is, and at the machine.", "connections"),
    ("reconnects", "connections were lost lately", "By cause in the table; if it goes on, the network.", "connections"),
    ("query_failures", "REST requests fail", "The log tells which; they are tried again.", "accounts"),
)
_WARNED_VENUE = (
    ("catalogue_failures", "the catalogue cannot be read again", "New listings are not seen; the rest goes on."),
    ("state_failures", "the memory of accounts cannot be written", "Look at the disk of spool.directory."),
)


def _of_accounts(venue: Status) -> Iterator[Problem]:
    for c in venue["connections"].values():
        if c["account"] is None or c["state"] not in CONNECTED:
            continue
        if c["unread"]:
            look = "Does the key have permission to read it? The rest of the account's events goes on."
            title = f"{c['id']}: the account's state was read in part"
            yield Problem(
                ("unread", c["id"]), "warn", title, _listed(c["unread"]), look, "accounts", c["reconciled"] or None
            )


def _of_process(status: Status, rises: Rises) -> Iterator[Problem]:
    for worker in status.get("workers", ()):
        if not worker["answers"]:
            name, text = f"worker {worker['worker']}", "; ".join(worker["not_ready"])
            look = (
                "It is started again by itself; the log has its last words. What it had received is announced as a gap."
            )
            if worker["state"] == "running":
                look = "It hangs, and nothing replaces it: restart the whole service, which lets the others drain."
            since = worker["since"] if worker["state"] != "running" else None
            yield Problem(("worker", name), "bad", f"{name} does not answer", text, look, "workers", since)
        elif (rise := rises.of(("worker", worker["worker"]))) is not None:
            name, look = (
                f"worker {worker['worker']}",
                "The log has its last words; consumers see the gap in feed_status.",
            )
            text = f"ended with {worker['last_end']}"
            yield Problem(("restarted", name), "warn", f"{name} was started again", text, look, "workers", rise.since)
    late = status.get("process", {}).get("loop_late_s", 0.0)
    if late > _LATE_S:
        look = "Too much for one core, or the machine is starved: split over workers or shards, look at its CPU."
        yield Problem(("process", "late"), "warn", "The event loop is late", wording.duration(late), look, "process")
    for name, venue in status["venues"].items():
        if abs(ahead := _clock_ahead(venue)) > _CLOCK_S:
            text = f"by {wording.duration(abs(ahead))}: ours is {'ahead' if ahead > 0 else 'behind'}"
            title = f"Our clock and {name}'s differ"
            look = "Is the time of this machine synchronized? If only one venue differs, what it sends is that old."
            yield Problem(("clock", name), "warn", title, text, look, "venues")
        if venue["unmatched"]:
            title = f"{name}: {wording.several(len(venue['unmatched']), 'configured pattern')} without any instrument"
            look = "A spelling mistake, or all that matched was delisted."
            yield Problem(("unmatched", name), "warn", title, _listed(venue["unmatched"]), look, "venues")


def _of_readiness(status: Status) -> Iterator[Problem]:
    """What is only starting is none; but no page may say that all is well while the service is not ready."""
    every, reasons = connections(status), status["not_ready"]
    if reasons and "stopping" not in reasons and every and all(c["state"] in CONNECTED for c in every):
        look = "It should pass by itself within a minute; if not, the log has more."
        section = "orders" if status.get("orders") else "venues"
        yield Problem(("readiness",), "warn", "Not ready", _listed(reasons), look, section)


def _clock_ahead(venue: Status) -> float:
    """Our clock minus the venue's in seconds: as measured for logins, else as the youngest messages look.

    What a message needs to come is in the latter; what piles up on the way is not.
    """
    if venue["clock_offset"]:
        return float(-venue["clock_offset"]) / 1e6
    seen = [c for c in venue["connections"].values() if c["state"] in CONNECTED and c["exchange_lag"]]
    return min((float(c["exchange_lag"] - c["lag"]) for c in seen), key=abs, default=0.0) / 1e6


def _listed(texts: Iterator[str] | tuple[str, ...] | list[str]) -> str:
    every = list(texts)
    return "; ".join(every[:_NAMED]) + (f"; and {len(every) - _NAMED} more" if len(every) > _NAMED else "")


def headline(status: Status, problems: list[Problem]) -> str:
    """All of it in one sentence."""
    if problems:
        more = len(problems) - 1
        return problems[0].title + (f"; {wording.several(more, 'more problem')}" if more else "")
    if "stopping" in status["not_ready"]:
        return "Stopping: what is queued goes to Kafka"
    everything = connections(status)
    live = sum(c["state"] in CONNECTED for c in everything)
    if not everything or live < len(everything):
        return f"Starting: {live} of {wording.several(len(everything), 'connection')} live"
    sink = status["sink"]
    tail = "the spool is being emptied" if sink is not None and sink["is_spooling"] else "nothing waiting"
    every = "Its connection is" if live == 1 else f"All {live} connections are"
    trading = (
        f"orders are taken for {wording.several(accounts, 'account')}; " if (accounts := len(_trading(status))) else ""
    )
    return f"{every} live; {trading}Kafka is up; {tail}"


def _trading(status: Status) -> list[str]:
    """Accounts whose orders would be sent now."""
    return [
        name
        for name, each in status.get("orders", {}).items()
        if each["state"] == "owner" and each["connection"] == "live" and not each["is_killed"]
    ]
