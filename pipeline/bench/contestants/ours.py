"""The service as it is: supervision, metrics and accounting on; or the same on stock trio-websocket."""

from __future__ import annotations

import cProfile
import ssl
from pathlib import Path

import trio
import trio_websocket

from pipeline.app import Service, keep_what_is_loaded
from pipeline.bench.exchange import MARKETS
from pipeline.bench.latency import Timed
from pipeline.bench.measure import POLL_S, Figures, Meter, Task
from pipeline.config import Config
from pipeline.feeds.link import OpenWebSocket
from pipeline.feeds.settings import ChannelSettings, UrlSettings, VenueSettings
from pipeline.model.errors import ConnectionLost
from pipeline.observe.logs import configure
from pipeline.observe.settings import HttpSettings, LogSettings
from pipeline.session.limits import Limits
from pipeline.session.transport import Transport
from pipeline.session.websocket import connect
from pipeline.sink.settings import KafkaSettings, SpoolSettings

_DEPTHS = {"bybit": 50, "okx": None}


def configuration(task: Task) -> Config:
    """Defaults, but for addresses."""
    channels = ChannelSettings(MARKETS[task.venue], tuple(task.channels), depth=_DEPTHS[task.venue], connections="all")
    return Config(
        venues={
            task.venue: VenueSettings(
                channels=(channels,),
                urls=UrlSettings(
                    task.websocket, task.rest, ca_file=task.ca_file if task.websocket.startswith("wss") else None
                ),
                max_topics_per_connection=task.topics_per_connection,
            )
        },
        kafka=KafkaSettings(
            bootstrap_servers=(task.kafka,),
            create_topics=task.create_topics,
            verify_topics=task.create_topics,
            decimals="decimal" if task.decimals == "decimal" else "text",
            spool=SpoolSettings(directory=str(Path(task.folder) / "spool")),
        ),
        log=LogSettings(level="warning"),
        http=HttpSettings(port=0),
        workers=task.workers,
    )


def run(task: Task) -> Figures:
    """Run the service until the whole stream is in Kafka."""
    config = configuration(task)
    configure(config.log)
    return trio.run(measured, task, config, connect_stock if task.name == "stock" else connect)


async def measured(task: Task, config: Config, open_websocket: OpenWebSocket) -> Figures:
    """Run the service over these sockets until the whole stream is in Kafka.

    Raises `RuntimeError` unless everything was delivered, and without a gap.
    """
    timed = Timed(open_websocket, task) if task.moments else None
    keep_what_is_loaded()
    service = Service(config, config.share(task.worker), open_websocket=timed or open_websocket)
    profile = cProfile.Profile()
    profiling = False
    meter = Meter(task)
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        assert service.sink is not None
        while not meter.look(received := _received(service)):
            if task.profile and received >= task.warm and not profiling:
                profiling = True
                profile.enable()
            await trio.sleep(POLL_S)
        if task.profile:
            profile.disable()
            profile.dump_stats(task.profile)
        await service.sink.delivered()
        stats = service.sink.stats()
        figures = meter.finish(received, stats.published, timed.quantiles() if timed else ())
        if stats.acknowledged < stats.published or stats.announced_lost or stats.dead_letters:
            raise RuntimeError(f"not all was delivered: {stats}")
        if gaps := sum(link.gaps for intake in service.intakes.values() for link in intake.stats.connections.values()):
            raise RuntimeError(f"{gaps} gaps in a stream that has none")
        service.stop()
    return figures


def _received(service: Service) -> int:
    return sum(link.messages for intake in service.intakes.values() for link in intake.stats.connections.values())


async def connect_stock(
    nursery: trio.Nursery,
    url: str,
    *,
    limits: Limits,
    tls: ssl.SSLContext | None = None,
    compression: bool = False,
) -> Transport:
    """trio-websocket as its documentation uses it."""
    connection = await trio_websocket.connect_websocket_url(
        nursery, url, ssl_context=tls, max_message_size=limits.max_message_bytes
    )
    return _StockTransport(connection)


class _StockTransport:
    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self._connection = connection

    async def receive(self) -> list[bytes]:
        try:
            message = await self._connection.get_message()
        except trio_websocket.ConnectionClosed as closed:
            raise ConnectionLost(str(closed)) from closed
        return [message.encode() if isinstance(message, str) else message]

    async def send(self, text: str) -> None:
        await self._connection.send_message(text)

    async def aclose(self) -> None:
        await self._connection.aclose()
