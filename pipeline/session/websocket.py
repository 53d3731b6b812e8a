"""A WebSocket client on Trio: whole text messages taken straight from the socket, all else left to the library.

trio-websocket passes every message through its own task and a memory channel, which costs more than everything we
do with a message. Here the task that calls `receive` reads the socket itself and cuts out the whole text frames; the
rest goes, in its place, to the library, which believes that it reads the socket:

    socket ──► (TLS) ──► receive ──► FrameSplitter ──► whole text messages ─────────────► caller
      ▲                                   └─► other frames ──► _Inlet ──► library ──► message ──┘
      ├────────────────── pongs, close ◄─────────────────────────────────────┘
      └────────────────── our messages ◄───────────────────────────────────────────────────── send

So handshake, pings, fragments, closing and all violations of the protocol stay with the library, by its public
interface only. Our messages leave without it, before other tasks have their turn. Compression is ours: the offer and
the answer to it pass the library by, and it sees compressed frames as the plain ones they stand for.
"""

from __future__ import annotations

import functools
import os
import re
import ssl
from collections.abc import Iterable
from contextlib import suppress
from typing import cast
from urllib.parse import urlsplit

import attrs
import trio
import trio_websocket
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection

from pipeline.model.errors import ConnectionLost, ProtocolViolation, SessionError
from pipeline.session.deflate import OFFER, Inflater, agreed
from pipeline.session.errors import ConnectionClosed, HandshakeRejected, MessageRefused
from pipeline.session.failures import leaves, root
from pipeline.session.frames import Frame, FrameSplitter, text_frame
from pipeline.session.limits import Limits, within
from pipeline.session.promptly import acquire_promptly, send_promptly
from pipeline.session.tls import BatchTLSStream

_READ_BYTES = 64 * 1024
_MAX_UPGRADE_BYTES = 64 * 1024
_MAX_BACKLOG_BYTES = 64 * 1024
_HEAD_END = re.compile(rb"\n\r?\n")
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[^\n]*\n")
_EXTENSIONS = re.compile(rb"(?i)\nsec-websocket-extensions:((?:[^\n]|\n[ \t])*)(?=\n)")
_SWITCHING_PROTOCOLS = 101
_ABNORMAL_CLOSURE = 1006
_NORMAL_CLOSURE = 1000


async def connect(
    nursery: trio.Nursery,
    url: str,
    *,
    limits: Limits,
    tls: ssl.SSLContext | None = None,
    headers: Iterable[tuple[str, str]] = (),
    compression: bool = False,
) -> WebSocketTransport:
    """Open a WebSocket to `url` (`ws://` or `wss://`); `tls` replaces the default context of the latter.

    With `compression` the server may compress its messages (permessage-deflate); ours are sent as they are.

    A background task lives in `nursery`, also when that is cancelled, until `aclose` is called on the result.

    Raises `HandshakeRejected` with the HTTP status, `ConnectionLost` naming host and cause (name look-up, refused,
    certificate, early end), `DeadlineMissed`, `ProtocolViolation`; `ValueError` for a URL that is none.
    """
    address = _Address.parse(url)
    raw = await _open_stream(address, limits, (tls or _default_tls()) if address.secure else None)
    return await _upgrade(nursery, raw, address, limits, headers, compression)


async def upgrade(
    nursery: trio.Nursery,
    stream: trio.abc.Stream,
    url: str,
    *,
    limits: Limits,
    headers: Iterable[tuple[str, str]] = (),
    compression: bool = False,
) -> WebSocketTransport:
    """As `connect`, over an open stream, which belongs to the result and is closed if the upgrade fails."""
    return await _upgrade(nursery, stream, _Address.parse(url), limits, headers, compression)


async def _upgrade(
    nursery: trio.Nursery,
    raw: trio.abc.Stream,
    address: _Address,
    limits: Limits,
    headers: Iterable[tuple[str, str]],
    compression: bool,
) -> WebSocketTransport:
    fields = [(name.encode(), value.encode()) for name, value in headers]
    if compression:
        fields.append((b"Sec-WebSocket-Extensions", OFFER.encode()))
    try:
        transport = WebSocketTransport(raw, limits, str(address), compression=compression)
        with within(limits.handshake, f"{address}: WebSocket upgrade"):
            await nursery.start(transport._run_library, address, fields, name=f"websocket {address}")
    except BaseException:
        await trio.aclose_forcefully(raw)
        raise
    return transport


@functools.cache
def _default_tls() -> ssl.SSLContext:
    return ssl.create_default_context()


async def _open_stream(address: _Address, limits: Limits, tls: ssl.SSLContext | None) -> trio.abc.Stream:
    try:
        with within(limits.connect, f"{address}: connect"):
            raw = await trio.open_tcp_stream(address.host, address.port)  # sets TCP_NODELAY
    except OSError as error:
        causes = leaves(error.__cause__) if error.__cause__ is not None else [error]
        raise ConnectionLost(f"{address}: {'; '.join(dict.fromkeys(map(str, causes)))}") from error
    if tls is None:
        return raw
    stream = BatchTLSStream(raw, tls, server_hostname=address.host)
    try:
        with within(limits.handshake, f"{address}: TLS handshake"):
            await stream.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise ConnectionLost(f"{address}: {root(error)}") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


@attrs.frozen
class _Address:
    secure: bool
    host: str
    port: int
    resource: str

    @classmethod
    def parse(cls, url: str) -> _Address:
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError(f"not a WebSocket URL: {url!r}")
        secure = parts.scheme == "wss"
        resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(secure, parts.hostname, parts.port or (443 if secure else 80), resource)

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return self.host_header


class WebSocketTransport:
    """An open WebSocket, made by `connect`. One task receives; any number may send."""

    def __init__(self, raw: trio.abc.Stream, limits: Limits, peer: str, *, compression: bool) -> None:
        self._raw = raw
        self._limits = limits
        self._peer = peer
        self._inlet = _Inlet(raw, limits, peer, compression=compression)
        self._splitter: FrameSplitter
        self._library: trio_websocket.WebSocketConnection
        self._library_scope = trio.CancelScope()
        self._closing_scope: trio.CancelScope | None = None
        self._close_code = _NORMAL_CLOSURE  # what to tell the peer
        self._ended: SessionError | None = None

    async def receive(self) -> list[bytes]:
        """All complete messages that one read of the socket brought, at least one, at most `limits.batch`.

        Cancelled, it may lose messages that it had taken from the socket already: cancel it to close.

        Raises `ConnectionClosed` with the close code, `ConnectionLost`, `ProtocolViolation`; each time again.
        """
        splitter, batch = self._splitter, self._limits.batch
        checked = False
        while True:
            if self._ended is not None:
                await trio.lowlevel.checkpoint()
                raise self._ended
            try:
                messages, frame = splitter.take(batch)
            except MessageRefused as refused:
                self._close_code = refused.close_code
                self._ended = MessageRefused(refused.close_code, f"{self._peer}: {refused}")
                continue
            if frame is not None:
                await self._pass_on(frame, messages)
            elif not messages:
                checked = True
                await self._read()
                continue
            if messages:
                if not checked:
                    await trio.lowlevel.checkpoint()
                return messages

    async def send(self, text: str) -> None:
        """Send one text message; without a checkpoint if the socket takes it at once.

        Cancelled half-way, it leaves a connection that can only be closed. Raises `ConnectionLost`, which takes
        `limits.send` seconds if the peer has stopped reading.
        """
        if self._library.closed is not None or self._closing_scope is not None:
            raise self._ended or self._inlet.broken or self._judge(self._library.closed)
        try:
            # Not through the library, which lets other tasks run before the bytes leave.
            await self._inlet.send_all(text_frame(text, os.urandom(4)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._ended or self._inlet.broken or self._judge(self._library.closed) from None

    async def aclose(self) -> None:
        """Close the WebSocket, then the socket, within `limits.close`, even if cancelled or the peer is silent."""
        self._ended = self._ended or ConnectionLost(f"{self._peer}: closed on this side")
        try:
            with trio.move_on_after(self._limits.close, shield=True) as self._closing_scope:
                await self._inlet.digested()  # after its good-bye the library can no longer answer pings
                if self._inlet.usable:
                    await self._say_good_bye()
                await self._raw.aclose()
        finally:
            self._library_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._raw)

    async def _read(self) -> None:
        try:
            data = await self._raw.receive_some(_READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(self._inlet.broken or ConnectionLost(f"{self._peer}: connection lost: {root(error)}"))
            return
        if data:
            self._splitter.feed(bytes(data))
        else:
            self._end(ConnectionClosed(self._peer, _ABNORMAL_CLOSURE, "the stream ended without a close frame"))

    async def _say_good_bye(self) -> None:
        if self._library.closed is None:
            self._inlet.open_through(self._splitter)
            await self._library.aclose(self._close_code)
        elif self._close_code != _NORMAL_CLOSURE:
            # The library takes a connection on which it found a violation for closed, and tells the peer nothing.
            good_bye = Connection(ConnectionType.CLIENT).send(CloseConnection(self._close_code))
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._inlet.send_all(good_bye)
                while await self._raw.receive_some(_READ_BYTES):
                    pass  # closed with bytes unread, the socket would take the good-bye back

    async def _pass_on(self, frame: Frame, messages: list[bytes]) -> None:
        """Let the library handle `frame`; a message that it completes is appended to `messages`."""
        await self._inlet.feed(frame.raw)
        if frame.is_heartbeat:
            return  # sending the pong may take its time
        await self._inlet.digested()
        if frame.ends_message:
            with suppress(trio_websocket.ConnectionClosed):
                message = await self._library.get_message()
                messages.append(message.encode() if isinstance(message, str) else message)
                return
        if frame.is_close:
            self._end(self._close_reason(frame))
        elif self._library.closed is not None:
            self._end(self._judge(self._library.closed))

    def _close_reason(self, frame: Frame) -> SessionError:
        # Read here since the library forgets the peer's code when its own answer cannot be sent.
        try:
            return ConnectionClosed(self._peer, *frame.close_code())
        except ProtocolViolation as violation:
            self._judge(self._library.closed)
            return ProtocolViolation(f"{self._peer}: {violation}")

    def _judge(self, reason: trio_websocket.CloseReason | None) -> SessionError:
        """Why the library takes the connection for closed, without a close frame having come."""
        if reason is None or reason.code == _ABNORMAL_CLOSURE:
            return ConnectionLost(f"{self._peer}: connection lost")
        self._close_code = reason.code
        return ProtocolViolation(f"{self._peer}: {reason.code} {reason.reason or reason.name}")

    def _end(self, error: SessionError) -> None:
        if self._ended is None:
            self._ended = error

    async def _run_library(
        self,
        address: _Address,
        headers: list[tuple[bytes, bytes]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Be the parent of the library's reader task, whose failures never reach anyone else."""
        try:
            with self._library_scope:
                async with trio.open_nursery() as nursery:
                    self._library = await trio_websocket.wrap_client_stream(
                        nursery,
                        cast("trio.SocketStream", self._inlet),  # any Stream will do, says its documentation
                        address.host_header,
                        address.resource,
                        extra_headers=headers,
                        max_message_size=self._limits.max_message_bytes,
                        receive_buffer_size=_READ_BYTES,
                    )
                    self._splitter = FrameSplitter(self._limits.max_message_bytes, self._inlet.inflater)
                    self._splitter.feed(self._inlet.take_excess())
                    # Only `aclose` ends it from here on: a cancelled connection still answers to its good-bye.
                    self._library_scope.shield = True
                    task_status.started()
        except BaseExceptionGroup as group:
            errors = [leaf for leaf in leaves(group) if isinstance(leaf, Exception)]
            if not errors:
                raise
            failure = self._explain(errors[0])
            if not self._library_scope.shield:
                raise failure from errors[0]
            self._end(failure)
            await trio.aclose_forcefully(self._raw)
        finally:
            self._inlet.close()
            if self._closing_scope is not None:
                self._closing_scope.cancel()

    def _explain(self, error: Exception) -> SessionError:
        if isinstance(error, SessionError):
            return error
        if isinstance(error, trio_websocket.ConnectionRejected):
            return HandshakeRejected(self._peer, error.status_code, error.body or b"")
        return ProtocolViolation(f"{self._peer}: {root(error)}")


class _Inlet(trio.abc.Stream):
    """What the library takes for the socket.

    It reads the socket through this until the upgrade is answered, then gets the frames that it is fed, and when we
    close looks for a close frame in the socket itself. Sending always goes to the socket.
    """

    def __init__(self, raw: trio.abc.Stream, limits: Limits, peer: str, *, compression: bool) -> None:
        self._raw = raw
        self._limits = limits
        self._peer = peer
        self._compression = compression
        self._answer = bytearray()
        self._passed_on = 0  # of the answer, in bytes
        self._upgraded = False
        self._through: FrameSplitter | None = None
        self._closed = False
        self._fed = bytearray()
        self._idle = False
        self._changed = trio.lowlevel.ParkingLot()
        self._torn = False
        self._sending = trio.StrictFIFOLock()
        self.inflater: Inflater | None = None
        """For the server's messages, if it compresses them."""
        self.broken: ConnectionLost | None = None
        """Why sending failed, if it did."""

    @property
    def usable(self) -> bool:
        """Whether a close frame can still be sent and would be understood."""
        return not self._torn and self.broken is None and not self._closed

    def take_excess(self) -> bytes:
        """What came glued to the answer: the first frames."""
        excess = bytes(self._answer)
        self._answer.clear()
        return excess

    async def feed(self, data: bytes) -> None:
        """Have the library read `data` next; waits while it is far behind."""
        self._fed += data
        self._idle = False
        self._changed.unpark_all()
        while len(self._fed) > _MAX_BACKLOG_BYTES and not self._closed and self.broken is None:
            await self._changed.park()

    async def digested(self) -> None:
        """Wait until the library has handled all that it was fed, or never will."""
        while not (self._idle or self._closed or self.broken is not None or self._through is not None):
            await self._changed.park()

    def open_through(self, splitter: FrameSplitter) -> None:
        """Have the library read what it was fed, then the close frame that `splitter` finds in the socket."""
        self._through = splitter
        self._changed.unpark_all()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._upgraded:
            return await self._read_answer()
        while not self._fed:
            if self._closed or self.broken is not None:
                return b""
            if self._through is not None:
                return await self._next_close_frame(self._through)
            self._idle = True
            self._changed.unpark_all()
            await self._changed.park()
        data = bytes(self._fed[:max_bytes])
        del self._fed[: len(data)]
        self._changed.unpark_all()
        return data

    async def _next_close_frame(self, splitter: FrameSplitter) -> bytes:
        """All else is too late to matter; `b""` at the end of the stream."""
        try:
            while True:
                texts, frame = splitter.take(self._limits.batch)
                if frame is not None and frame.is_close:
                    return frame.raw
                if not texts and frame is None:
                    data = await self._raw.receive_some(_READ_BYTES)
                    if not data:
                        return b""
                    splitter.feed(bytes(data))
        except MessageRefused:
            while await self._raw.receive_some(_READ_BYTES):
                pass  # where the next frame begins is not known any more
            return b""

    async def _read_answer(self) -> bytes:
        """A rejection as it comes; anything else once its head is complete, without what concerns compression."""
        while True:
            data = await self._read_raw()
            self._answer += data
            status = _STATUS.match(self._answer)
            head_end = _HEAD_END.search(self._answer)
            too_long = len(self._answer) > _MAX_UPGRADE_BYTES
            if status and int(status[1]) != _SWITCHING_PROTOCOLS:
                # A body without a stated length ends with the stream, which the library does not notice.
                if not data or too_long:
                    body = bytes(self._answer[head_end.end() :]) if head_end else b""
                    raise HandshakeRejected(self._peer, int(status[1]), body)
                break
            if not data:
                raise ConnectionLost(f"{self._peer}: closed during the upgrade")
            if head_end:
                if not status:
                    break
                self._upgraded = True
                head = bytes(self._answer[: head_end.end()])
                del self._answer[: head_end.end()]
                return self._agree(head)
            if too_long:
                raise ProtocolViolation(f"{self._peer}: endless answer to the upgrade")
        passed_on, self._passed_on = self._passed_on, len(self._answer)
        return bytes(self._answer[passed_on:])

    async def _read_raw(self) -> bytes | bytearray:
        # Failures are raised as our errors: the library would take Trio's for a reason to wait in silence.
        try:
            return await self._raw.receive_some(_READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionLost(f"{self._peer}: lost during the upgrade: {root(error)}") from error

    def _agree(self, head: bytes) -> bytes:
        """Settle compression; returns the head without it, since the library refuses what it did not offer."""
        if not self._compression:
            return head
        try:
            self.inflater = agreed(value.decode("latin-1") for value in _EXTENSIONS.findall(head))
        except ProtocolViolation as violation:
            raise ProtocolViolation(f"{self._peer}: {violation}") from None
        return _EXTENSIONS.sub(b"", head)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await acquire_promptly(self._sending)
        try:
            await self._send_all(data)
        finally:
            self._sending.release()

    async def _send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.broken is not None:
            raise trio.BrokenResourceError from self.broken
        if self._torn:
            raise trio.BrokenResourceError("an earlier send was cut off")
        self._torn = True  # until all of it is sent: cancelled half-way, no further frame would be understood
        try:
            with trio.move_on_after(self._limits.send) as sending:
                await send_promptly(self._raw, data)
                self._torn = False
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._break(f"cannot send: {root(error)}")
        if sending.cancelled_caught:
            self._break(f"the peer has not read for {self._limits.send:g} s")
            await trio.aclose_forcefully(self._raw)  # wakes the reader
        if self.broken is not None:
            # Before the upgrade is answered the library would take Trio's error for a reason to wait in silence.
            raise (trio.BrokenResourceError(str(self.broken)) if self._upgraded else self.broken)

    def _break(self, why: str) -> None:
        self.broken = ConnectionLost(f"{self._peer}: {why}")
        self._changed.unpark_all()

    async def wait_send_all_might_not_block(self) -> None:
        await self._raw.wait_send_all_might_not_block()

    def close(self) -> None:
        """The library is done; the socket itself is closed by the transport."""
        self._closed = True
        self._changed.unpark_all()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()
