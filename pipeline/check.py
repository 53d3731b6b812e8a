"""`python -m pipeline check`: what the configuration amounts to, and whether the outside world agrees."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from operator import eq
from random import Random
from typing import Any

import attrs
import trio
from rich.console import Console
from rich.markup import escape

from pipeline import check_orders
from pipeline.avro.codec import Schemas
from pipeline.config import Config
from pipeline.exchanges import VENUES
from pipeline.exchanges.venue import Catalogue, Venue
from pipeline.feeds.intake import open_rest, read_catalogue, tls_context
from pipeline.feeds.link import connection_limits
from pipeline.feeds.plan import VenuePlan, catalogue_markets, hosts, make_plan, own_accounts
from pipeline.feeds.settings import VenueSettings
from pipeline.feeds.shares import Share
from pipeline.feeds.specs import channel_specs, session_times
from pipeline.feeds.venue_rest import credentials
from pipeline.model.errors import BadMessage, ConfigError, PipelineError
from pipeline.model.events import BASE, KINDS, Instrument, Micros, Origin
from pipeline.session import websocket
from pipeline.session.clock import system_clock
from pipeline.sink.routes import subjects_of
from pipeline.sink.topics import plan_topics, prepare_command_topic, prepare_topics

_SHOWN = 6


async def run(config: Config, *, as_json: bool, connect: bool, share: int | None = None) -> int:
    """Print the resolved plan; with `connect` also try REST, one handshake per venue, and Kafka.

    The plan is that of all shares, or of one. Returns 0 if all is well and 1 if something that was tried failed.
    Without `connect` nothing is contacted, and patterns of instruments stand for themselves. Raises `ConfigError` if
    there is no such share.
    """
    shares = _shares(config, share)
    own = config if share is None else config.for_share(shares[0])
    report: dict[str, Any] = {
        "venues": {},
        "is_split": config.shares > 1,
        "shares": [],
        "kafka": _kafka(own),
        "orders": check_orders.described(own),
        "limits": _limits(own),
        "checks": [],
    }
    plans: dict[str, list[VenuePlan]] = {}
    for name, settings in own.venues.items():
        venue = VENUES[name]
        catalogue = await _try_rest(venue, settings, report["checks"]) if connect else None
        if connect:
            await _try_accounts(venue, settings, report["checks"])
        entries, matches = (_placeholders(venue, settings), eq) if catalogue is None else (catalogue, fnmatchcase)
        plans[name] = [make_plan(name, venue, settings, entries, matches=matches, share=each) for each in shares]
        report["venues"][name] = _venue(venue, settings, plans[name])
        if connect:
            await _try_handshake(venue, settings, plans[name], report["checks"])
    for position, each in enumerate(shares):
        report["shares"].append(_share(config, each, {name: of[position] for name, of in plans.items()}))
    if connect:
        await _try_kafka(config, report["checks"])
        _try_orders(report["orders"], report["checks"])
    if as_json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        for line in _text(report):
            Console(soft_wrap=True, highlight=False, file=sys.stdout).print(line)
    return 0 if all(check["ok"] for check in report["checks"]) else 1


def _shares(config: Config, chosen: int | None) -> list[Share]:
    if chosen is None:
        return [Share(index, config.shares) for index in range(config.shares)]
    if not 0 <= chosen < config.shares:
        raise ConfigError([f"--share: there is no share {chosen}; the last one is {config.shares - 1}"])
    return [Share(chosen, config.shares)]


def _share(config: Config, share: Share, plans: Mapping[str, VenuePlan]) -> dict[str, Any]:
    """What one process has to do."""
    connections = [connection for plan in plans.values() for connection in plan.connections]
    return {
        "share": share.index,
        "instance": share.index // config.workers,
        "worker": share.index % config.workers,
        "connections": len(connections),
        "subscriptions": sum(len(connection.wants) for connection in connections),
        "load": sum(plan.load for plan in plans.values()),
        "accounts": [
            f"{name}.{account}"
            for name, settings in config.venues.items()
            for account in own_accounts(name, settings, share)
        ],
    }


def _placeholders(venue: Venue, settings: VenueSettings) -> Catalogue:
    """What is configured, taken for instruments: names stand for themselves, and so do patterns."""
    entries: dict[tuple[str, str], Instrument] = {}
    for spec, _ in channel_specs(settings):
        for market in venue.catalogue_markets(spec):
            for name in spec.instruments:
                origin = Origin(venue.name, market, name, None, None, "check")
                base = name.split("-", 1)[0]
                entries[market, name] = Instrument(
                    origin, None, Micros(0), None, "unknown", "", True, base, None, None, BASE, underlying=name
                )
    return entries


def _venue(venue: Venue, settings: VenueSettings, plans: Sequence[VenuePlan]) -> dict[str, Any]:
    base = hosts(venue, settings)
    connections = [connection for plan in plans for connection in plan.connections]
    endpoints = sorted({connection.endpoint for connection in connections})
    return {
        "environment": settings.environment or next(iter(venue.environments)),
        "websocket": base.websocket,
        "rest": base.rest,
        "private_websocket": base.private_websocket if settings.accounts else None,
        "private_rest": base.private_rest if settings.accounts else None,
        "catalogue_markets": catalogue_markets(venue, settings),
        "unmatched": list(plans[0].unmatched),
        "heartbeat": attrs.asdict(session_times(venue.session_times, settings)),
        "new_connections": attrs.asdict(venue.connects),
        "limits": {endpoint: attrs.asdict(venue.limits(endpoint)) for endpoint in endpoints},
        "connections": [
            {
                "id": connection.id,
                "url": connection.url,
                "login": connection.login,
                "archived": connection.is_archived,
                "subscriptions": [
                    {
                        "topic": s.topic,
                        "channel": s.kind,
                        "max_silence": None if s.max_silence == float("inf") else s.max_silence,
                    }
                    for s in connection.subscriptions
                ],
            }
            for connection in connections
        ],
    }


def _kafka(config: Config) -> dict[str, Any]:
    kafka, schemas = config.kafka, Schemas.load(config.kafka.decimals)
    registry, subjects = kafka.schema_registry, subjects_of(kafka, schemas)
    return {
        "bootstrap_servers": list(kafka.bootstrap_servers),
        "decimals": kafka.decimals,
        "delivery": kafka.delivery,
        "journal": kafka.is_journaled,
        "shard": kafka.shard_name if kafka.is_exactly_once else None,
        "encoding": f"Confluent wire format, {registry.url}" if registry else "Avro single-object encoding",
        "topics": [
            {
                "topic": plan.name,
                "event": plan.kind,
                "schema": schemas.schema(plan.kind)["namespace"] + "." + schemas.schema(plan.kind)["name"],
                "subject": subjects.get(plan.kind),
                "partitions": plan.partitions,
                "replication_factor": plan.replication_factor,
                "config": dict(plan.config),
            }
            for plan in plan_topics(kafka, _kinds(config))
        ],
    }


def _kinds(config: Config) -> list[str]:
    """Of events that may be published, in their usual order."""
    return [kind for kind in KINDS if kind in config.written_kinds]


def _limits(config: Config) -> dict[str, Any]:
    kafka = config.kafka
    return {
        "producer_queue_messages": kafka.queue_messages,
        "producer_queue_bytes": kafka.queue_bytes,
        "max_record_bytes": kafka.max_record_bytes,
        "spool_directory": kafka.spool.directory,
        "spool_max_bytes": kafka.spool.max_bytes,
        "spool_when_full": kafka.spool.when_full,
        "drain_within": kafka.drain_within,
    }


async def _try_rest(venue: Venue, settings: VenueSettings, checks: list[dict[str, Any]]) -> Catalogue | None:
    url = hosts(venue, settings).rest
    try:
        async with open_rest(venue, settings, Random().random, system_clock) as rest:
            book = await read_catalogue(venue, settings, rest, system_clock)
    except (PipelineError, OSError) as error:
        _note(checks, f"{venue.name} instruments at {url}", error)
        return None
    _note(checks, f"{venue.name} instruments at {url}", None, f"{len(book.entries)} instruments")
    return book.entries


async def _try_accounts(venue: Venue, settings: VenueSettings, checks: list[dict[str, Any]]) -> None:
    """Whether each account's key is taken, and how far our clock is off."""
    if venue.accounts is None or not settings.accounts:
        return
    url = hosts(venue, settings).private_rest
    async with open_rest(venue, settings, Random().random, system_clock) as rest:
        for name, account in settings.accounts.items():
            what = f"{venue.name} account {name} at {url}"
            try:
                await rest.measure_clock()
                await rest.walk(venue.accounts.verify(), credentials(account))
            except (PipelineError, OSError) as error:
                _note(checks, what, error)
            else:
                _note(
                    checks, what, None, f"key accepted, the venue's clock is {rest.offset_us / 1000:+.0f} ms off ours"
                )


async def _try_handshake(
    venue: Venue, settings: VenueSettings, plans: Sequence[VenuePlan], checks: list[dict[str, Any]]
) -> None:
    for connection in [connection for plan in plans for connection in plan.connections][:1]:
        what = f"{venue.name} WebSocket at {connection.url}"
        try:
            async with trio.open_nursery() as nursery:
                transport = await websocket.connect(
                    nursery, connection.url, limits=connection_limits(settings), tls=tls_context(settings)
                )
                await transport.aclose()
        except* (PipelineError, OSError) as group:
            _note(checks, what, group.exceptions[0])
        else:
            _note(checks, what, None, "open")


def _try_orders(orders: Mapping[str, Any] | None, checks: list[dict[str, Any]]) -> None:
    for what, ok, detail in check_orders.tried(orders) if orders is not None else ():
        checks.append({"what": what, "ok": ok, "detail": detail})


async def _try_kafka(config: Config, checks: list[dict[str, Any]]) -> None:
    kafka = config.kafka
    what = f"Kafka at {', '.join(kafka.bootstrap_servers)}"
    # Looking must not change anything: missing topics are reported, not created.
    looking = attrs.evolve(kafka, create_topics=False)
    try:
        reports = await trio.to_thread.run_sync(partial(prepare_topics, looking, _kinds(config)))
        for account in (check_orders.described(config) or {"accounts": ()})["accounts"]:
            reports += await trio.to_thread.run_sync(prepare_command_topic, looking, account["command_topic"])
    except PipelineError as error:
        _note(checks, what, error)
        return
    _note(checks, what, None, f"{sum(r.outcome != 'missing' for r in reports)} of {len(reports)} topics exist")
    for report in reports:
        if report.outcome == "missing" and kafka.create_topics:
            continue
        problems = [*report.errors, *report.warnings]
        if problems:
            checks.append({"what": f"topic {report.topic}", "ok": not report.errors, "detail": "; ".join(problems)})


def _note(checks: list[dict[str, Any]], what: str, error: BaseException | None, detail: str = "") -> None:
    if isinstance(error, BadMessage):
        detail = f"unreadable answer: {error}"
    elif error is not None:
        detail = str(error)
    checks.append({"what": what, "ok": error is None, "detail": detail})


def _text(report: dict[str, Any]) -> Iterator[str]:
    for name, venue in report["venues"].items():
        yield f"[bold]{name}[/] ({venue['environment']})  {venue['websocket']}  REST {venue['rest']}"
        if venue["private_websocket"] not in (None, venue["websocket"]):
            yield f"  private: {venue['private_websocket']}  REST {venue['private_rest']}"
        beat = venue["heartbeat"]
        yield f"  ping every {beat['ping_every']:g} s, answer within {beat['pong_within']:g} s"
        rate = venue["new_connections"]
        yield f"  new connections: {rate['count']} per {rate['seconds']:g} s"
        for connection in venue["connections"]:
            topics = [subscription["topic"] for subscription in connection["subscriptions"]]
            more = f" … and {len(topics) - _SHOWN} more" if len(topics) > _SHOWN else ""
            notes = f"  logs in as {connection['login']}" if connection["login"] else ""
            notes += "  archived" if connection["archived"] else ""
            yield f"  [cyan]{connection['id']}[/]  {connection['url']}  {len(topics)} subscriptions{notes}"
            yield f"    {escape(', '.join(topics[:_SHOWN]))}{more}"
        for pattern in venue["unmatched"]:
            yield f"  [yellow]matches nothing:[/] {escape(pattern)}"
    if report["is_split"]:
        yield from _text_of_shares(report["shares"])
    kafka = report["kafka"]
    servers = ", ".join(kafka["bootstrap_servers"]) or "in-process mock cluster"
    yield f"[bold]kafka[/]  {servers}  {kafka['encoding']}, decimals as {kafka['decimals']}"
    journal = " out of a journal" if kafka["journal"] else ""
    shard = f", shard {escape(kafka['shard'])}" if kafka["shard"] else ""
    yield f"  delivery: {kafka['delivery']}{journal}{shard}"
    for topic in kafka["topics"]:
        yield f"  [cyan]{topic['topic']}[/]  {topic['schema']}  {topic['partitions']} partitions"
    if report["orders"] is not None:
        yield from check_orders.text(report["orders"])
    yield "[bold]limits[/]"
    for name, value in report["limits"].items():
        yield f"  {name}: {escape(str(value))}"
    for check in report["checks"]:
        verdict = "[green]ok[/]" if check["ok"] else "[red]failed[/]"
        yield f"{verdict}  {escape(check['what'])}: {escape(check['detail'])}"


def _text_of_shares(shares: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "[bold]shares[/]"
    for share in shares:
        accounts = f"  accounts {escape(', '.join(share['accounts']))}" if share["accounts"] else ""
        yield (
            f"  [cyan]{share['share']}[/]  instance {share['instance']}, worker {share['worker']}:"
            f"  {share['connections']} connections  {share['subscriptions']} subscriptions"
            f"  load {share['load']}{accounts}"
        )
