"""The archive of a live run, replayed into other topics: each record's bytes are those of the live run."""

from __future__ import annotations

import argparse
import io
import math
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from pipeline import replay_command
from pipeline.config import Config
from pipeline.observe import progress
from pipeline.sim.listing import many
from pipeline.sim.settings import MarketSettings
from pipeline.sim.venue import open_venue
from pipeline.sim.wire import TEXT, frame
from pipeline.sink.reader import read_records
from tests.e2e.connector import QUICK, configuration, parsed, running, until, urls
from tests.e2e.consumer import Topics

DEADLINE_S = 120
MARKET = {"bybit": "linear", "okx": "swap"}
BOOKS = {"bybit": "orderbook.50.{}", "okx": "books:{}"}
TRADES = {"bybit": "publicTrade.*", "okx": "trades:*"}
UNREADABLE = {
    "bybit": b'{"topic":"publicTrade.BTCUSDT","data":[{"i":1}]}',
    "okx": b'{"arg":{"channel":"trades"},"data":3}',
}

Records = dict[tuple[str, bytes], list[bytes]]
"""Values by kind of event and key, in order."""


def channels(name: str) -> list[dict[str, Any]]:
    book = {"derive_bbo": True, "snapshot_interval": "500ms", "top_levels": 5, "top_interval": "200ms"}
    return [
        {"market": MARKET[name], "channel": "book", "book": book},
        {"market": MARKET[name], "channel": ["trade", "ticker"]},
    ]


async def live(name: str, given: dict[str, Any], venue: Any, symbol: str) -> None:
    """A gap, a reconnect, an unreadable message and a relisting."""
    book = f"{name}.{MARKET[name]}.book.0"
    broken, new = BOOKS[name].format(symbol), many(name, 3)[2]
    async with running(given) as connector:
        await connector.live(book)
        await venue.wait_sent(30, broken)
        venue.fault("gap", topic=broken, count=2)
        await until(lambda: connector.connections()[book].resyncs == 1)
        await venue.wait_sent(venue.sent.count(broken) + 30, broken)
        venue.fault("drop")
        await until(lambda: {stats.generation for stats in connector.connections().values()} == {2})
        await venue.wait_subscribed(TRADES[name])
        target = next(c for c in venue.connections if any("rade" in topic for topic in c.topics))
        target.raw(frame(UNREADABLE[name], TEXT))
        venue.list_instrument(new)
        await venue.wait_sent(10, BOOKS[name].format(new.symbol))
        venue.delist(new.market, new.symbol)
        await until(lambda: venue.subscriptions(f"*{new.symbol}") == 0)
        venue.list_instrument(new)
        await venue.wait_sent(venue.sent.count(BOOKS[name].format(new.symbol)) + 10, BOOKS[name].format(new.symbol))
        await until(lambda: sum(stats.dead_letters for stats in connector.connections().values()) == 1)
        await connector.stop()


def read(config: Config, **changes: Any) -> Records:
    """All records that events were made into, but those of the pipeline about itself."""
    found: Records = {}
    settings, kinds = attrs.evolve(config.kafka, **changes), config.written_kinds - {"wire_message"}
    for record in read_records(settings, kinds, from_beginning=True, until_end=True):
        assert record.error is None, record.error
        if record.fields["venue"] != "pipeline":
            found.setdefault((record.kind, record.key), []).append(record.value)
    return found


@pytest.fixture(autouse=True)
def no_lines_about_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine is nothing to complain about."""
    monkeypatch.setattr(progress, "LINES_S", math.inf)


async def replay(config: Config, *arguments: str) -> tuple[Records, str]:
    parser = argparse.ArgumentParser()
    replay_command.add_arguments(parser)
    given = parser.parse_args(arguments)
    complaints = io.StringIO()
    code = await replay_command.run(given, config.kafka, stdout=io.BytesIO(), stderr=complaints)
    assert (code, complaints.getvalue()) == (0, "")
    return await trio.to_thread.run_sync(partial(read, config, topic_template=given.topics)), given.topics


@pytest.mark.parametrize("name", ["bybit", "okx"])
async def test_a_replay_gives_the_bytes_of_the_live_run(topics: Topics, name: str, tmp_path: Path) -> None:
    first, second = many(name, 2)
    market = MarketSettings(rate=40, instruments=(first, second), levels=50)
    with trio.fail_after(DEADLINE_S):
        async with open_venue(name, market=market) as venue:
            settings = {
                "urls": urls(venue),
                "channels": channels(name),
                "reconnect": QUICK,
                "refresh_instruments": "500ms",
                "archive": {"topic": True, "files": {"directory": str(tmp_path / "archive"), "rotate_bytes": "100KiB"}},
            }
            given = configuration(topics, tmp_path, {name: settings})
            await live(name, given, venue, first.symbol)
        config = parsed(given)
        wanted = await trio.to_thread.run_sync(read, config)
        counts = Counter({kind: 0 for kind, _ in wanted})
        for (kind, _), values in wanted.items():
            counts[kind] += len(values)
        assert min(counts[kind] for kind in ("trade", "ticker", "bbo", "book_top", "book_update")) > 5
        assert counts["dead_letter"] == 1
        assert counts["instrument"] >= 5
        template = f"{topics.prefix}.{{}}.{{{{group}}}}.{{{{kind}}}}"
        again, _ = await replay(
            config, str(tmp_path / "archive"), "--config", "x", "--to", "kafka", "--topics", template.format("files")
        )
        assert again == wanted
        again, _ = await replay(
            config, "--topic", "--config", "x", "--to", "kafka", "--topics", template.format("topic")
        )
        assert again == wanted
