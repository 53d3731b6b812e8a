"""One WebSocket connection of a simulated exchange, down to the bytes, so that it can also misbehave.

Incoming frames are read by wsproto; outgoing ones are written as prepared bytes, because one message goes to many
subscribers and a replay must not be slowed by building frames. Faults reach the socket past all protocol.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Callable

import attrs
import trio
from wsproto import WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Ping
from wsproto.events import Message as WireMessage

TEXT, BINARY, CLOSE, CONTINUATION = 0x1, 0x2, 0x8, 0x0
GRACE_S = 5.0
"""How long a connection that is being closed may take for the rest of its data and the peer's answer."""
LOW_WATER_BYTES = 256 * 1024
"""A sender that waits for room goes on below this."""


def frame(payload: bytes, opcode: int = TEXT, *, final: bool = True) -> bytes:
    """A server's WebSocket frame: unmasked."""
    first = opcode | (0x80 if final else 0)
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65_536:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


def fragmented(payload: bytes) -> bytes:
    """The same text message in three frames, split wherever it falls, with a ping between them."""
    third = len(payload) // 3
    return b"".join(
        (
            frame(payload[:third], TEXT, final=False),
            frame(payload[third : 2 * third], CONTINUATION, final=False),
            frame(b"between", 0x9),
            frame(payload[2 * third :], CONTINUATION),
        )
    )


@attrs.define(eq=False)
class Message:
    """A message ready to be written: built once, sent to every subscriber."""

    topic: str | None
    """Key of the topic; None for acknowledgements and the like."""
    payload: bytes
    frame: bytes
    ends: bool = False
    """Nothing is written after it."""

    @classmethod
    def text(cls, payload: bytes, topic: str | None = None) -> Message:
        """An ordinary text message."""
        return cls(topic, payload, frame(payload))


@attrs.define(eq=False)
class Connection:
    """One client. Everything but `run` is synchronous: what is sent is queued and written by the connection's task."""

    index: int
    """Counted from 0 over the venue's life."""
    endpoint: str
    path: str
    """As requested, with the query string."""
    id: str
    """What the venue calls it in its messages."""
    stream: trio.abc.Stream
    websocket: WSConnection
    idle: float
    """Seconds without traffic after which it is closed."""
    outbox_bytes: int
    frames_per_send: int
    request_bytes: int
    on_sent: Callable[[Connection, Message], None]
    on_overflow: Callable[[Connection], None]
    topics: dict[str, None] = attrs.field(factory=dict, init=False)
    """Keys of its subscriptions, in the order in which they were made."""
    account: str | None = attrs.field(default=None, init=False)
    """API key of the login, if any."""
    silent: bool = attrs.field(default=False, init=False)
    closed: bool = attrs.field(default=False, init=False)
    takes_no_orders: bool = attrs.field(default=False, init=False)
    """Its end was announced: new orders are wanted elsewhere (Bybit)."""
    fragment_next: bool = attrs.field(default=False, init=False)
    sent_messages: int = attrs.field(default=0, init=False)
    last_activity: float = attrs.field(factory=trio.current_time, init=False)
    _ending: bool = attrs.field(default=False, init=False)
    _forced: bool = attrs.field(default=False, init=False)
    _queued: int = attrs.field(default=0, init=False)
    _outbox: deque[Message] = attrs.field(factory=deque, init=False)
    _wake: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _room: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    @property
    def is_behind(self) -> bool:
        """Whether something is queued that the socket has not taken yet."""
        return self._queued > 0

    def post(self, message: Message) -> None:
        """Queue a message; ignored once the connection is silent or ending."""
        if self.silent or self._ending:
            return
        self._outbox.append(message)
        self._queued += len(message.frame)
        self._wake.unpark()
        if message.ends:
            self._end()
        elif self._queued > self.outbox_bytes:
            self._forget_outbox()
            self.on_overflow(self)

    def send(self, payload: bytes) -> None:
        """Queue a text message that belongs to no topic."""
        self.post(Message.text(payload))

    def raw(self, data: bytes) -> None:
        """Queue bytes that go to the socket as they are."""
        self.post(Message(None, b"", data))

    def close(self, code: int, reason: str = "") -> None:
        """Close in order: the close frame goes out after what is queued, then the peer may answer."""
        if not self._ending and self.websocket.state is ConnectionState.OPEN:
            self.post(Message(None, b"", self.websocket.send(CloseConnection(code, reason)), ends=True))

    def drop(self) -> None:
        """Cut the socket at once (a reset, where TCP allows it): no close frame, nothing more of what is queued."""
        transport = self.stream.transport_stream if isinstance(self.stream, trio.SSLStream) else self.stream
        if isinstance(transport, trio.SocketStream):
            transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._forced = True
        self._scope.cancel()

    def fall_silent(self) -> None:
        """Half-open: read and ignore whatever comes, answer and send nothing, keep the socket open."""
        self.silent = True
        self._forget_outbox()

    async def room(self) -> None:
        """Wait while much is queued; returns at once for a connection that takes nothing any more."""
        if self._queued > 4 * LOW_WATER_BYTES and not (self.closed or self.silent):
            await self._room.park()

    async def run(self, receive: Callable[[str], None]) -> None:
        """Serve until either side ends the connection; `receive` gets each text message."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    if not await self._read(receive):
                        nursery.cancel_scope.cancel()
                    self._end()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the peer is gone, which ends a connection like any other way
        finally:
            self.closed = True
            self._room.unpark_all()
            with trio.move_on_after(1.0, shield=True):
                if self._forced:
                    await trio.aclose_forcefully(self.stream)
                else:
                    await self.stream.aclose()

    def _end(self) -> None:
        self._ending = True
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + GRACE_S)
        self._wake.unpark()

    def _forget_outbox(self) -> None:
        self._outbox.clear()
        self._queued = 0
        self._room.unpark_all()

    async def _read(self, receive: Callable[[str], None]) -> bool:
        """Until the closing handshake (True) or the end of the stream (False)."""
        parts: list[str] = []
        if self._take_events(receive, parts):  # frames may have come together with the handshake
            return True
        while data := await self.stream.receive_some(65_536):
            if self.silent:
                continue
            self.last_activity = trio.current_time()
            self.websocket.receive_data(bytes(data))
            if self._take_events(receive, parts):
                return True
        return False

    def _take_events(self, receive: Callable[[str], None], parts: list[str]) -> bool:
        """Act on what has been read; True if it ended the connection. `parts` holds the beginning of a message."""
        for event in self.websocket.events():
            if isinstance(event, CloseConnection):
                if self.websocket.state is ConnectionState.REMOTE_CLOSING:
                    self.post(Message(None, b"", self.websocket.send(event.response()), ends=True))
                elif self.websocket.state is ConnectionState.OPEN:  # no close frame: the client broke the protocol
                    self.close(event.code, event.reason or "")
                return True
            elif isinstance(event, Ping):
                self.raw(self.websocket.send(event.response()))
            elif isinstance(event, WireMessage):
                parts.append(event.data if isinstance(event.data, str) else bytes(event.data).decode("latin-1"))
                if sum(map(len, parts)) > self.request_bytes:
                    self.close(1009, "Request message exceeds the maximum frame length")
                    parts.clear()
                elif event.message_finished:
                    text = "".join(parts)
                    parts.clear()
                    receive(text)
        return False

    async def _write(self) -> None:
        outbox = self._outbox
        while True:
            while outbox:
                batch = [outbox.popleft()]
                while outbox and len(batch) < self.frames_per_send:
                    batch.append(outbox.popleft())
                data = b"".join(map(self._frame, batch)) if len(batch) > 1 else self._frame(batch[0])
                await self.stream.send_all(data)
                self._written(batch)
                if batch[-1].ends:
                    return
            if self._ending:
                return
            await self._wake.park()

    def _frame(self, message: Message) -> bytes:
        if self.fragment_next and message.topic is not None:
            self.fragment_next = False
            return fragmented(message.payload)
        return message.frame

    def _written(self, batch: list[Message]) -> None:
        self.last_activity = trio.current_time()
        for message in batch:
            self._queued = max(0, self._queued - len(message.frame))  # it may have been forgotten meanwhile
            self.sent_messages += 1
            self.on_sent(self, message)
        if self._queued < LOW_WATER_BYTES:
            self._room.unpark_all()
