"""`simulate`: run a simulated exchange from the command line."""

from __future__ import annotations

import argparse
import signal
import ssl
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from math import inf
from pathlib import Path
from typing import TextIO

import attrs
import trio

from pipeline.sim import faults
from pipeline.sim.faults import Fault
from pipeline.sim.listing import Listing, many, named
from pipeline.sim.replay import Replay
from pipeline.sim.settings import Account, Limits, MarketSettings, ReplaySettings
from pipeline.sim.venue import VENUES, SimulatedVenue, default_limits, open_venue

_EPILOG = """\
While it runs, the same port answers below /sim/:
  curl URL/sim/state                                          connections, subscriptions, messages sent, instruments
  curl 'URL/sim/book?market=linear&symbol=BTCUSDT'            the true order book
  curl -d '{"kind":"gap","topic":"orderbook.50.*"}' URL/sim/fault
  curl -d '{"symbol":"NEWUSDT","market":"linear"}' URL/sim/list
  curl -d '{"symbol":"NEWUSDT","market":"linear"}' URL/sim/delist

Accounts (--account) trade on demand, connected or not; prices, sizes and amounts are texts:
  curl -d '{"coin":"USDT","amount":"100000"}' URL/sim/deposit
  curl -d '{"market":"linear","symbol":"BTCUSDT","side":"buy","price":"60000","size":"0.1"}' URL/sim/order
  curl -d '{"order_id":"ID","size":"0.04"}' URL/sim/fill      and amend cancel reject expire
  curl -d '{"market":"linear","symbol":"BTCUSDT","rate":"0.0001"}' URL/sim/funding
  curl -d '{"expired":false,"drop":false}' URL/sim/revoke     the key is refused from now on
  curl 'URL/sim/account?name=KEY'                             orders, fills, positions, balances
Orders that clients enter (Bybit /v5/trade, OKX /ws/v5/private) meet the generated market: they take from its book, and
fill when it trades through their price. Each is counted:
  curl 'URL/sim/orders?name=KEY'                              per client order id: create, amend, cancel received, taken
With several accounts each body has "account". Data that nothing generates is sent as it is given:
  curl -d '{"topic":"system.status","data":[]}' URL/sim/public        OKX: "arg" instead of "topic"
  curl -d '{"topic":"strategy","data":[]}' URL/sim/private            likewise

Faults: drop silence garbage oversize malformed_json binary fragmented close notice gap stall refuse_topic refuse_login
slow_ack http_refuse clear. Fields: connection endpoint topic seconds count code error reason status size.

Faults of order entry, for the next `count` requests (1), or only those of an `action` (create, amend, cancel):
  drop_before_take    the connection is cut, the orders are not taken
  drop_before_ack     the orders are taken, the connection is cut instead of an answer
  ambiguous_code      a code that leaves the outcome open: `error`; `taken` (true) says what it was
  rate_limited        the venue's code for too many requests; nothing is taken
  refuse_order        one order is refused with the code `error` and the text `reason`
  fill_before_ack     a new order is filled before its acknowledgement
  fill_before_cancel  an order is filled just before its cancellation arrives
  hold_acks           orders are taken, answers wait; release_acks sends them
  ends_soon           order-entry connections end in `seconds` (60): Bybit answers 10019, OKX gives notice
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `simulate`."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--venue", choices=VENUES, required=True)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback only)")
    parser.add_argument("--port", type=_whole(0, 65_535), default=0, help="0 picks a free one (default)")
    parser.add_argument("--seed", type=int, default=1, help="of the generated market (default 1)")
    parser.add_argument(
        "--rate",
        type=_positive,
        default=10.0,
        metavar="MSGS_PER_S",
        help='per instrument and book, or "max" (default 10)',
    )
    parser.add_argument(
        "--instruments",
        metavar="N|LIST",
        help="so many perpetuals, or symbols separated by commas (default: a mixed set)",
    )
    parser.add_argument("--replay", nargs="+", metavar="FILE", help="send recorded wire messages (JSON lines) instead")
    parser.add_argument(
        "--speed", type=_positive, default=1.0, metavar="X|max", help="of a replay, as a multiple of the recorded pace"
    )
    parser.add_argument("--replay-rate", type=_positive, metavar="MSGS_PER_S", help="replay at a fixed rate instead")
    parser.add_argument("--loop", action="store_true", help="replay again and again")
    parser.add_argument(
        "--wait-for", type=_whole(1, 1_000_000), default=1, metavar="N", help="subscriptions before a replay starts"
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="serve TLS with this certificate chain (PEM)")
    parser.add_argument("--tls-key", metavar="FILE", help="and this key (default: in the certificate file)")
    parser.add_argument(
        "--burst",
        type=_whole(1, 10_000),
        metavar="N",
        help="most messages per write and TLS record (default: 1 with TLS, else 64)",
    )
    parser.add_argument(
        "--account", type=_account, action="append", default=[], metavar="KEY:SECRET[:PASSPHRASE]",
        help="made-up credentials that may log in; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--order-factor",
        type=_whole(1, 1000),
        default=1,
        metavar="N",
        help="accounts may send so many times the orders that the venue's lowest tier may",
    )
    parser.add_argument(
        "--fault", type=_fault, action="append", default=[], metavar="KIND[:FIELD=VALUE,...]@SECONDS",
        help="break something at a time; repeatable",
    )  # fmt: skip
    parser.add_argument("--journal", metavar="FILE", help="write a JSON line per data message sent")


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f'"{text}" is not a whole number from {least} to {most}')
        return int(text)

    return read


def _positive(text: str) -> float:
    if text == "max":
        return inf
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < inf:
        raise argparse.ArgumentTypeError(f'"{text}" is neither a number above zero nor "max"')
    return value


def _account(text: str) -> Account:
    key, _, rest = text.partition(":")
    secret, _, passphrase = rest.partition(":")
    if not key or not secret:
        raise argparse.ArgumentTypeError("an account is KEY:SECRET or KEY:SECRET:PASSPHRASE")
    return Account(key, secret, passphrase)


def _fault(text: str) -> tuple[float, Fault]:
    try:
        return faults.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


async def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; 0 after that, 2 for arguments that cannot work."""
    # A signal is caught before the addresses are printed: who reads them may send one at once.
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with AsyncExitStack() as stack:
            try:
                journal = stack.enter_context(_journal(args.journal)) if args.journal else None
                venue = await stack.enter_async_context(_prepare(args, journal))
            except (OSError, ValueError) as error:
                sys.stderr.write(f"simulate: {error}\n")
                return 2
            _announce(venue)
            nursery = await stack.enter_async_context(trio.open_nursery())
            for seconds, fault in args.fault:
                nursery.start_soon(_fault_later, venue, seconds, fault)
            if venue.replay is not None:
                nursery.start_soon(_tell_end, venue.replay)
            async for _ in signals:
                break
            nursery.cancel_scope.cancel()
    return 0


def _journal(path: str) -> TextIO:
    return Path(path).open("w", encoding="utf-8")


def _prepare(args: argparse.Namespace, journal: TextIO | None) -> AbstractAsyncContextManager[SimulatedVenue]:
    if args.venue == "bybit" and any(fault.kind == "notice" for _, fault in args.fault):
        raise ValueError("--fault notice: bybit announces nothing before it closes")
    replay = None
    if args.replay:
        replay = ReplaySettings(tuple(args.replay), args.speed, args.replay_rate, args.loop, args.wait_for)
    limits: Limits = attrs.evolve(
        default_limits(args.venue), frames_per_send=args.burst, order_factor=args.order_factor
    )
    return open_venue(
        args.venue,
        host=args.host,
        port=args.port,
        tls=_tls(args),
        market=MarketSettings(args.seed, args.rate, _listings(args)),
        replay=replay,
        limits=limits,
        accounts=args.account,
        keep=False,
        journal=journal,
    )


def _listings(args: argparse.Namespace) -> tuple[Listing, ...] | None:
    if args.instruments is None:
        return None
    if args.instruments.isdecimal():
        return many(args.venue, int(args.instruments))
    return named(args.venue, args.instruments.split(","))


def _tls(args: argparse.Namespace) -> ssl.SSLContext | None:
    if args.tls_cert is None:
        if args.tls_key is not None:
            raise ValueError("--tls-key needs --tls-cert")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(args.tls_cert, args.tls_key)
    return context


def _announce(venue: SimulatedVenue) -> None:
    """The addresses, and the lines of a configuration that lead the connector here."""
    sys.stdout.write(
        f"simulated {venue.name} at {venue.websocket_url} and {venue.rest_url}\n"
        f"in the configuration, below venues: {venue.name}: urls:\n"
        f"      websocket: {venue.websocket_url}\n"
        f"      rest: {venue.rest_url}\n"
    )
    sys.stdout.flush()


async def _fault_later(venue: SimulatedVenue, seconds: float, fault: Fault) -> None:
    await trio.sleep(seconds)
    hit = venue.apply(fault)
    sys.stderr.write(f"simulate: {fault.kind} (hit {hit})\n")


async def _tell_end(replay: Replay) -> None:
    await replay.finished.wait()
    sys.stderr.write(f"simulate: replay ended after {replay.published} messages\n")
