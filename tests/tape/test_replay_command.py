"""`python -m pipeline replay` on small archives."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from pipeline import replay_command
from pipeline.exchanges import VENUES
from pipeline.feeds.settings import ArchiveFileSettings
from pipeline.model.errors import ConfigError
from pipeline.model.events import Micros
from pipeline.sink.settings import KafkaSettings
from pipeline.tape import normalize
from pipeline.tape.entries import Entry
from pipeline.tape.files import FileWriter
from pipeline.tape.recorder import Recorder

DATA = Path(__file__).parent.parent / "data" / "tape"
NOW = 1_700_000_000_000_000
TRADES = (DATA / "bybit.linear.trades.jsonl").read_bytes().splitlines()
BOOK = (DATA / "bybit.linear.book.jsonl").read_bytes().splitlines()


@attrs.define
class Kept:
    entries: list[Entry] = attrs.field(factory=list)

    def take(self, entry: Entry, endpoint: str, account: str | None) -> None:
        self.entries.append(entry)


@attrs.define
class Result:
    code: int
    events: list[dict[str, Any]]
    problems: list[str]


def archive(directory: Path, venue: str = "bybit", start: int = NOW) -> Path:
    """Trades on one connection and a book on another, a second between messages."""
    kept, times = Kept(), iter(range(start, start + 10**9, 1_000_000))
    recorder = Recorder(venue, "1.0", Micros(start), lambda: start)
    recorder.keepers.append(kept)
    recorder.begin()
    if venue == "bybit":
        trade = recorder.opened("bybit.linear.trade.0#1", "linear", None, {}, is_held=False)
        book = recorder.opened("bybit.linear.book.0#1", "linear", None, {}, is_held=False)
        for tap, messages in ((trade, TRADES), (book, BOOK)):
            for message in messages:
                tap.message(message, Micros(next(times)), is_data=True)
    else:
        for body in (DATA / "okx.rest.instruments.jsonl").read_bytes().splitlines():
            for listing in VENUES["okx"].read_instruments(body, 1):
                recorder.known(listing.origin.market, [listing])
        tap = recorder.opened("okx.swap.trade.0#1", "public", None, {}, is_held=False)
        for message in (DATA / "okx.trades.jsonl").read_bytes().splitlines():
            tap.message(message, Micros(next(times)), is_data=True)
    before = set(directory.iterdir())
    writer = FileWriter(ArchiveFileSettings(str(directory)), venue)
    for entry in kept.entries:  # a block each
        writer.write([entry])
    writer.close()
    (file,) = set(directory.iterdir()) - before
    return file


async def run(*arguments: str, settings: KafkaSettings | None = None) -> Result:
    parser = argparse.ArgumentParser(exit_on_error=False)
    replay_command.add_arguments(parser)
    out, err = io.BytesIO(), io.StringIO()
    code = await replay_command.run(parser.parse_args(arguments), settings, stdout=out, stderr=err)
    return Result(code, [json.loads(line) for line in out.getvalue().splitlines()], err.getvalue().splitlines())


def normalized(*arguments: str) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser()
    normalize.add_arguments(parser)
    out = io.BytesIO()
    given = parser.parse_args([*arguments, "--receive-time", "0"])
    normalize.run(given, stdin=io.BytesIO(), stdout=out, stderr=io.StringIO(), clock=lambda: 0)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def stripped(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what the receive time is in."""
    return [{**event, "receive_time": 0, "connection": "", "epoch": 0} for event in events]


async def test_events_are_printed_as_normalize_does(tmp_path: Path) -> None:
    result = await run(str(archive(tmp_path)))
    assert (result.code, result.problems) == (0, [])
    files = (str(DATA / "bybit.linear.trades.jsonl"), str(DATA / "bybit.linear.book.jsonl"))
    wanted = normalized("--venue", "bybit", "--stream", "linear", *files)
    assert stripped(result.events) == stripped(wanted)
    assert [list(event) for event in result.events] == [list(event) for event in wanted]
    assert result.events[0]["receive_time"] == NOW
    assert {event["connection"] for event in result.events} == {"bybit.linear.trade.0#1", "bybit.linear.book.0#1"}


async def test_the_catalogue_comes_from_the_archive(tmp_path: Path) -> None:
    result = await run(str(archive(tmp_path, "okx")))
    assert result.code == 0
    symbols = {event["symbol"] for event in result.events if event["event"] == "trade"}
    assert None not in symbols


async def test_venues_are_merged_by_time(tmp_path: Path) -> None:
    archive(tmp_path, "okx", NOW + 500_000)
    archive(tmp_path)
    result = await run(str(tmp_path))
    times = [event["receive_time"] for event in result.events]
    assert times == sorted(times)
    assert {event["venue"] for event in result.events[:3]} == {"bybit", "okx"}


async def test_only_a_time_is_published_but_all_is_followed(tmp_path: Path) -> None:
    file = str(archive(tmp_path))
    everything = (await run(file)).events
    since = NOW + len(TRADES) * 1_000_000 + 1  # after the snapshot of the book
    until = since + 2_000_000
    wanted = [event for event in everything if since <= event["receive_time"] < until]
    assert wanted
    assert not any(event.get("is_snapshot") for event in wanted)
    assert (await run(file, "--from", str(since), "--until", str(until))).events == wanted
    iso = "2023-11-14T22:13:21Z"  # a second after the start
    assert (await run(file, "--from", iso)).events == [e for e in everything if e["receive_time"] >= NOW + 1_000_000]


@pytest.mark.parametrize("pattern", ["bybit.linear.trade.0", "*.trade.*", "*.trade.0#1"])
async def test_only_some_connections(pattern: str, tmp_path: Path) -> None:
    result = await run(str(archive(tmp_path)), "--connection", pattern)
    assert {event["event"] for event in result.events} == {"trade"}
    assert result.problems == []


@pytest.mark.parametrize(("speed", "factor"), [("1", 1.0), ("4", 4.0), ("0.5", 0.5)])
async def test_the_original_pace_or_a_multiple(
    autojump_clock: object, speed: str, factor: float, tmp_path: Path
) -> None:
    file = str(archive(tmp_path))
    messages = len(TRADES) + len(BOOK)
    started = trio.current_time()
    await run(file, "--speed", speed)
    assert trio.current_time() - started == pytest.approx((messages - 1) / factor)
    started = trio.current_time()
    await run(file)
    assert trio.current_time() == started


async def test_damage_is_told_with_file_and_extent_and_the_rest_is_replayed(tmp_path: Path) -> None:
    file = archive(tmp_path)
    whole = (await run(str(file))).events
    data = bytearray(await trio.Path(file).read_bytes())
    data[-10] ^= 1
    await trio.Path(file).write_bytes(data)
    result = await run(str(file))
    assert result.code == 1
    assert result.events == whole[: len(result.events)]
    assert len(result.events) == len(whole) - 1
    (problem,) = result.problems
    assert problem.startswith(f"{file}: bytes ")
    assert problem.endswith(f" to {len(data)} are damaged, and skipped")


async def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    stranger, empty = tmp_path / "notes.txt", tmp_path / "empty"
    await trio.Path(stranger).write_text("hello")
    await trio.Path(empty).mkdir()
    result = await run(str(stranger), str(tmp_path / "missing"), str(empty), str(archive(tmp_path)))
    assert result.code == 1
    assert [problem.split(": ", 1)[0] for problem in result.problems] == [
        str(stranger),
        str(tmp_path / "missing"),
        str(empty),
    ]
    assert result.events


async def test_a_hole_in_the_numbers_is_told(tmp_path: Path) -> None:
    kept = Kept()
    recorder = Recorder("bybit", "1.0", Micros(NOW), lambda: NOW)
    recorder.keepers.append(kept)
    recorder.begin()
    tap = recorder.opened("bybit.a#1", "linear", None, {}, is_held=False)
    for message in TRADES[:1] * 4:
        tap.message(message, Micros(NOW), is_data=True)
    writer = FileWriter(ArchiveFileSettings(str(tmp_path)), "bybit")
    writer.write(kept.entries[:3] + kept.entries[3:4] * 2 + kept.entries[5:])
    writer.close()
    result = await run(str(tmp_path))
    assert result.code == 1
    (problem,) = result.problems
    assert problem.endswith("block at byte 0: bybit.a#1: entries 4 to 4 are missing")
    first, *_ = result.events
    assert [event["trade_id"] for event in result.events].count(first["trade_id"]) == 3, "what came twice counts once"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "give either files or --topic"),
        (("--topic", "x"), "give either files or --topic"),
        (("--topic",), "--topic: needs --config"),
        (("x", "--to", "kafka"), "--to kafka: needs --config"),
        (("x", "--topics", "{wrong}"), "--topics: expected a text with {kind}"),
        (("x", "--from", "5", "--until", "5"), "--until: must be after --from"),
    ],
)
async def test_contradictions_are_refused(arguments: tuple[str, ...], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        await run(*arguments)


@pytest.mark.parametrize("option", [("--speed", "0"), ("--speed", "fast"), ("--from", "yesterday")])
async def test_wrong_values_are_refused(option: tuple[str, str]) -> None:
    with pytest.raises(argparse.ArgumentError, match="expected"):
        await run("x", *option)
