"""One TCP port for everything: WebSocket upgrades, the venue's REST interface, and control of the simulation."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from http import HTTPStatus

import attrs
import h11
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection
from wsproto.utilities import RemoteProtocolError

from pipeline.sim.http import Request, Response

HEAD_WITHIN_S = 30.0
MAX_BODY_BYTES = 1024**2
_PHRASES = {int(status): status.phrase for status in HTTPStatus}

Upgrade = Callable[[Request], "Response | None"]
"""Whether a WebSocket upgrade is welcome: None, or the refusal."""


@attrs.frozen
class Handover:
    """A WebSocket connection after its handshake: the stream, and the protocol state, which may hold early frames."""

    request: Request
    stream: trio.abc.Stream
    websocket: WSConnection


async def serve_stream(
    stream: trio.abc.Stream,
    tls: ssl.SSLContext | None,
    answer: Callable[[Request], Response],
    welcome: Upgrade,
) -> Handover | None:
    """Answer HTTP requests until the client leaves (None) or upgrades; the stream is closed unless it was upgraded."""
    secured = stream if tls is None else trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
    handed_over = False
    try:
        http = h11.Connection(h11.SERVER)
        while True:
            request = await _read_request(secured, http)
            if request is None:
                return None
            if request.headers.get("upgrade", "").lower() == "websocket":
                refusal = welcome(request)
                if refusal is None:
                    handover = await _upgrade(secured, http, request)
                    handed_over = handover is not None
                    return handover
                await _respond(secured, http, refusal)
                return None
            await _respond(secured, http, answer(request))
            if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                return None
            http.start_next_cycle()
    except (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
        return None  # the client broke off, or does not speak HTTP
    finally:
        if not handed_over:
            with trio.move_on_after(1.0, shield=True):
                await secured.aclose()


async def _read_request(stream: trio.abc.Stream, http: h11.Connection) -> Request | None:
    """The next request with its body; None at the end of the stream or of the client's time."""
    head: h11.Request | None = None
    body = b""
    with trio.move_on_after(HEAD_WITHIN_S):
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some(65_536)))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY_BYTES:
                    return None
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
                return Request(head.method.decode("latin-1"), head.target.decode("latin-1"), headers, body)
            else:
                return None
    return None


async def _respond(stream: trio.abc.Stream, http: h11.Connection, response: Response) -> None:
    headers = [("content-type", "application/json"), ("content-length", str(len(response.body)))]
    headers += response.headers.items()
    reason = _PHRASES.get(response.status, "Unknown")
    head = http.send(h11.Response(status_code=response.status, headers=headers, reason=reason))
    await stream.send_all(head + http.send(h11.Data(data=response.body)) + http.send(h11.EndOfMessage()))


async def _upgrade(stream: trio.abc.Stream, http: h11.Connection, request: Request) -> Handover | None:
    """Finish the WebSocket handshake; None if it was a faulty one, which is answered with 400."""
    websocket = WSConnection(ConnectionType.SERVER)
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()]
    try:
        websocket.initiate_upgrade_connection(headers, request.target)
    except RemoteProtocolError as error:
        await _respond(stream, http, Response.json({"error": str(error)}, 400))
        return None
    await stream.send_all(websocket.send(AcceptConnection()))
    early, _ = http.trailing_data
    if early:
        websocket.receive_data(early)
    return Handover(request, stream, websocket)
