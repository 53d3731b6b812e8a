"""TLS that is read in batches: all records one socket read brought come back as one piece."""

from __future__ import annotations

import contextlib
import ssl

import trio

from pipeline.session.promptly import acquire_promptly, send_promptly

_READ_BYTES = 64 * 1024


class BatchTLSStream(trio.abc.Stream):
    """A TLS connection over `transport`.

    `trio.SSLStream.receive_some` returns one record per call and passes a checkpoint for each; exchanges put one
    message into one record. Here a read costs one checkpoint however many records it brought, which is a third
    of the price per message.

    The end of the stream is reported as such whether or not the peer announced it: a caller whose protocol does
    not delimit its messages cannot tell a truncated stream.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        context: ssl.SSLContext,
        *,
        server_hostname: str | None = None,
        server_side: bool = False,
        close_within_s: float = 1.0,
    ) -> None:
        self.transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname, server_side=server_side
        )
        self._close_within_s = close_within_s
        self._sending = trio.StrictFIFOLock()
        self._surplus = b""
        self._open = False
        self._torn = False  # a record may have been sent in part: nothing that follows could be read
        self._ended: Exception | None = None

    async def do_handshake(self) -> None:
        """Shake hands; must come first. Raises `trio.BrokenResourceError` from the cause, e.g. a bad certificate."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                self._feed(await self.transport.receive_some(_READ_BYTES))
            except ssl.SSLError as error:
                await self._answer()  # the alert that tells the peer why
                raise trio.BrokenResourceError(f"TLS handshake: {error}") from error
            else:
                await self._flush()
                self._open = True
                self._surplus = self._drain()  # came glued to the handshake: no read would find it again
                return

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte, or `b""` at the end of the stream.

        Cancellation loses nothing. Raises `trio.BrokenResourceError`, `trio.ClosedResourceError`.
        """
        if self._surplus:
            await trio.lowlevel.checkpoint()
        while not self._surplus:
            if self._ended is not None:
                await trio.lowlevel.checkpoint()
                if isinstance(self._ended, (ssl.SSLZeroReturnError, ssl.SSLEOFError)):
                    return b""
                raise trio.BrokenResourceError(f"TLS: {self._ended}") from self._ended
            self._feed(await self.transport.receive_some(_READ_BYTES))
            self._surplus = self._drain()
            if self._outgoing.pending and not self._sending.locked():
                await self._answer()
        data = self._surplus
        if max_bytes is None or len(data) <= max_bytes:
            self._surplus = b""
            return data
        self._surplus = data[max_bytes:]
        return data[:max_bytes]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything; without a checkpoint if the socket takes it at once.

        Cancelled half-way, the stream can send no more. Raises `trio.BrokenResourceError`, `trio.ClosedResourceError`.
        """
        await acquire_promptly(self._sending)
        try:
            if self._torn:
                raise trio.BrokenResourceError("an earlier send was cut off")
            unwritten = memoryview(data)
            while unwritten:
                try:
                    unwritten = unwritten[self._tls.write(unwritten) :]
                except ssl.SSLError as error:
                    raise trio.BrokenResourceError(f"TLS: {error}") from error
            await self._flush_locked()
        finally:
            self._sending.release()

    async def wait_send_all_might_not_block(self) -> None:
        """As the transport's."""
        async with self._sending:
            await self.transport.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Announce the end if that needs no long wait, then close the transport."""
        try:
            if self._open and not self._torn and not self._sending.locked():
                self._open = False
                with trio.move_on_after(self._close_within_s):
                    await self._announce_end()
        finally:
            await self.transport.aclose()

    async def _announce_end(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # it asks for the peer's own announcement: not worth waiting for
            self._tls.unwrap()
        await self._answer()

    async def _answer(self) -> None:
        """Send what TLS itself wants to say, if it still can be: a peer that is gone shows when reading."""
        try:
            await self._flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._torn = True

    def _feed(self, data: bytes | bytearray) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _drain(self) -> bytes:
        records: list[bytes] = []
        read = self._tls.read
        incoming = self._incoming
        try:
            # Asking for one more record than there is would raise, and an exception costs more than a look.
            while incoming.pending or not records:
                record = read(_READ_BYTES)
                if not record:  # OpenSSL's other way to report the peer's announcement of the end
                    raise ssl.SSLZeroReturnError(ssl.SSL_ERROR_ZERO_RETURN, "closed by the peer")
                records.append(record)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._ended = error
        return records[0] if len(records) == 1 else b"".join(records)

    async def _flush(self) -> None:
        async with self._sending:
            await self._flush_locked()

    async def _flush_locked(self) -> None:
        while data := self._outgoing.read():
            try:
                await send_promptly(self.transport, data)
            except BaseException:
                self._torn = True
                raise
