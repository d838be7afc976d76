"""Freight over HTTPS, the parent's side: a `Depot` behind an aiohttp server.

    GET /v1/blobs/{digest}          the bytes; `Range: bytes=N-` goes on at byte N
    GET /v1/blobs/{digest}/blocks   SHA-256 of each 64 KiB block, 32 bytes each
    GET /v1/trust/{name}            a file of the fleet's signed metadata; public to every peer
    PUT /v1/contributions           u32 manifest length (little-endian), manifest, then for each
                                    block its SHA-256 and its bytes; `Upload-Offset: N` says
                                    which byte of the body comes first, `Upload-Held: M` that the
                                    first M bytes of that block with its hash are left out
    POST /v1/heads                  a signed head of the peer's ledger; the answer is the
                                    countersignature, 503 while the cloud is away
    POST /v1/windows                what the peer's own model is unsure of (a `Doubtful`); the answer
                                    is the `Opinions` of the model here, or 422 with the reason

Who asks is what the client's certificate says, looked up on every request. An upload is answered
200 with the receipt, 409 with the `Upload-Offset` to go on from and, after a cut, the bytes of that
block that are here already (`Upload-Held`), 422 when it is refused for good, 429, 503 or 507 when it may
come again. The answer may come before the body was sent.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import msgspec
from aiohttp import web

from reuna.adapters import thin_lines
from reuna.adapters.commits import Commits
from reuna.adapters.files import opened
from reuna.adapters.https_body import (
    BUFFER,
    LEAST_BPS,
    LOOK_S,
    Frame,
    LineCutError,
    SlowError,
    Source,
    WrongOffsetError,
    read_blocks,
    read_manifest,
    read_message,
)
from reuna.adapters.tls import identity_of
from reuna.core.errors import (
    BadMessage,
    BlobNotFound,
    Corrupted,
    DiskFull,
    PermissionDenied,
    PortInUse,
    Refused,
    ReunaError,
    StorageError,
)
from reuna.core.pace import Pace
from reuna.core.ports import Adviser, Blob, Depot, Receiver, Witness
from reuna.core.records import Contribution, Identity, Receipt, ShownHead
from reuna.core.second import Doubtful
from reuna.core.tally import Tally
from reuna.wire import BLOCK, encode, hashes_of

log = logging.getLogger(__name__)
Admit = Callable[[Mapping[str, Any]], Identity]  #: see `reuna.exchange.admission.Admission.admit`

STALL_S = 30.0  #: a peer that neither sends nor takes a byte for so long is dropped
IDLE_S = 300.0  #: a connection without a request is closed after so long
STOP_S = 2.0  #: what runs may finish for so long when the server stops
UPLOADS_PER_PEER = 4
TAILS = 64  #: uploads of which the bytes behind the last whole block are kept after a cut
CONNECTIONS_PER_PEER = 32  #: more of one peer are dropped, so that it cannot take all there are
REQUESTS_PER_S = 200.0  #: of one peer; who asks oftener is answered later
REQUESTS_AHEAD = 1000  #: that may come at once, beside those
QUICK = 1_000_000  #: integers in a block that are judged in milliseconds; more may be packed into it

_STATUS: dict[type[ReunaError], int] = {
    PermissionDenied: 403,
    BlobNotFound: 404,
    Refused: 422,
    BadMessage: 422,
    DiskFull: 507,
    Corrupted: 503,
}


class _Tail(NamedTuple):
    """Bytes of a frame that came before its upload was cut, and of which block of the body it is."""

    offset: int
    data: bytes


NO_TAIL = _Tail(0, b"")


class _Upload:
    """An upload being taken; a newer one of the same contribution takes over."""

    def __init__(self, transport: asyncio.Transport | None) -> None:
        self.transport = transport
        self.ended = asyncio.Event()


class DepotServer:
    """A running server. Made by `serve_depot`."""

    def __init__(
        self,
        depot: Depot,
        stall_s: float = STALL_S,
        admit: Admit = identity_of,
        witness: Witness | None = None,
        adviser: Adviser | None = None,
    ) -> None:
        self.port = 0
        self._witness = witness
        self._adviser = adviser
        self._admit = admit
        self._depot = depot
        self._stall_s = stall_s
        self._uploads: dict[tuple[str, int, int, str], _Upload] = {}
        self._uploading: Counter[str] = Counter()
        self._pace = Pace(REQUESTS_PER_S, REQUESTS_AHEAD)
        self._tails: dict[tuple[str, ...], _Tail] = {}
        self._sending: dict[tuple[str, str], asyncio.Transport] = {}
        self._known: WeakSet[asyncio.Transport] = WeakSet()
        self._since: WeakKeyDictionary[asyncio.Transport, float] = WeakKeyDictionary()
        self._names: WeakKeyDictionary[asyncio.Transport, str] = WeakKeyDictionary()
        self._tally = Tally()
        self._commits = Commits(depot)
        self._http = web.Server(
            self._handle,
            access_log=None,
            keepalive_timeout=IDLE_S,
            lingering_time=1.0,
            read_bufsize=BUFFER,
            auto_decompress=False,
        )

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> None:
        """Listen. Raises `PortInUse`."""
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(
                self._http,
                host,
                port,
                ssl=context,
                ssl_handshake_timeout=10.0,
                ssl_shutdown_timeout=1.0,
                backlog=1024,
            )
        except OSError as error:
            raise PortInUse(f"cannot listen on {host}:{port}: {error.strerror}") from error
        self.port = self._listener.sockets[0].getsockname()[1]
        for sock in self._listener.sockets:
            thin_lines.watch(sock, thin_lines.OF_A_SERVER_S)
        self._reaper = asyncio.create_task(self._reap())

    async def stop(self) -> None:
        """Stop listening; what runs may finish for `STOP_S` seconds, commits always."""
        self._listener.close()
        self._reaper.cancel()
        transports = [connection.transport for connection in self._http.connections]
        self._http.pre_shutdown()
        await self._http.shutdown(STOP_S)
        for transport in transports:
            if transport is not None:
                transport.abort()  # a peer that does not answer the TLS goodbye would hold it
        await asyncio.gather(self._reaper, return_exceptions=True)
        await self._commits.ended()

    def recheck(self) -> None:
        """Cut the connections of peers that are not admitted any more."""
        for connection in self._http.connections:
            transport = connection.transport
            certificate = transport.get_extra_info("peercert") if transport is not None else None
            try:
                self._admit(certificate or {})
            except (PermissionDenied, ConnectionResetError):
                if transport is not None:
                    transport.abort()

    async def _reap(self) -> None:
        """Drop connections that ended their handshake and then said nothing, and those too many."""
        while True:
            await asyncio.sleep(min(LOOK_S, self._stall_s))
            self._drop_silent(asyncio.get_running_loop().time())
            self._drop_crowds()

    def _transports(self) -> list[asyncio.Transport]:
        """Of every connection, the oldest first."""
        found = (connection.transport for connection in self._http.connections)
        return [transport for transport in found if transport is not None]

    def _drop_silent(self, now: float) -> None:
        for transport in self._transports():
            if transport in self._known:
                continue
            if now - self._since.setdefault(transport, now) >= self._stall_s:
                self._drop(transport, "slow", f"it has asked for nothing in {self._stall_s:g} s")

    def _drop_crowds(self) -> None:
        crowd: Counter[str] = Counter()
        for transport in self._transports():
            peer = self._peer(transport)
            crowd[peer] += 1
            if crowd[peer] > CONNECTIONS_PER_PEER:
                self._drop(transport, "flood", f"it has more than {CONNECTIONS_PER_PEER} of them")

    def _peer(self, transport: asyncio.Transport) -> str:
        """Whose connection that is; the certificate's words are read once."""
        if transport not in self._names:
            self._names[transport] = _name(transport)
        return self._names[transport]

    def _drop(self, transport: asyncio.Transport, reason: str, why: str) -> None:
        peer = _name(transport)
        self._depot.count_refusal(peer, Refused(reason, why))
        if times := self._tally.count(peer, why):
            log.warning("dropped a connection of %s: %s; %d times", peer, why, times)
        transport.abort()

    # --- requests ----------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.transport is not None and request.transport not in self._known:
            self._known.add(request.transport)
            self._end_older(request.transport)
        try:
            return await self._route(request)
        except (LineCutError, ConnectionResetError):
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=408)
        except WrongOffsetError as wrong:
            held = {"Upload-Held": str(wrong.held)} if wrong.held else {}
            return web.Response(status=409, headers={"Upload-Offset": str(wrong.offset), **held})
        except ReunaError as error:
            self._note(request, error)
            return _problem(error)

    def _end_older(self, newest: asyncio.Transport) -> None:
        """Who comes from another address has left its older connections: what waits in them is not sent."""
        name, address = self._peer(newest), _address(newest)
        for transport in self._transports():
            if self._peer(transport) == name and _address(transport) != address:
                thin_lines.forget_unsent(_socket(transport))
                transport.abort()

    def _slow(self, request: web.BaseRequest, what: str) -> None:
        """A peer's transfer is given up because it hardly moves."""
        peer = _name(request.transport)
        refusal = Refused("slow", f"a transfer of {peer} is given up: it {what}")
        self._depot.count_refusal(peer, refusal)
        self._note(request, refusal)

    def _note(self, request: web.BaseRequest, error: ReunaError) -> None:
        """A line for the operator about who was refused what and why."""
        peer = _name(request.transport)
        why = error.reason if isinstance(error, Refused) else error.code
        if times := self._tally.count(peer, why):
            log.warning("refused %s: %s: %s; %d times", peer, why, error.message, times)

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        peer = self._admit(_certificate(request)).name
        await self._keep_pace(request, peer)
        match request.method, request.path.split("/"):
            case "GET", ["", "v1", "blobs", digest]:
                return await self._send_blob(request, await self._depot.blob(peer, digest))
            case "GET", ["", "v1", "blobs", digest, "blocks"]:
                blob = await self._depot.blob(peer, digest)
                return web.Response(body=blob.hashes or await asyncio.to_thread(hashes_of, blob))
            case "GET", ["", "v1", "trust", name]:
                data = await asyncio.to_thread(self._depot.metadata, name)
                return web.Response(status=404) if data is None else web.Response(body=data)
            case "PUT", ["", "v1", "contributions"]:
                return await self._take(request, peer)
            case "POST", ["", "v1", "heads"] if self._witness is not None:
                shown = await read_message(ShownHead, request, self._stall_s)
                return web.Response(body=await self._witness.countersign(peer, shown))
            case "POST", ["", "v1", "windows"] if self._adviser is not None:
                asked = await read_message(Doubtful, request, self._stall_s)
                return web.Response(body=encode(await self._adviser.advise(peer, asked)))
        raise BlobNotFound(f"nothing is at {request.path!r:.120}")

    async def _keep_pace(self, request: web.BaseRequest, peer: str) -> None:
        """Who asks too often waits, on each of its connections; nobody else does."""
        wait = self._pace.wait_s(peer, asyncio.get_running_loop().time())
        if wait > 0:
            refusal = Refused("flood", f"{peer} asks more than {REQUESTS_PER_S:g} times a second, and waits")
            self._depot.count_refusal(peer, refusal)
            self._note(request, refusal)
            await asyncio.sleep(wait)

    # --- down --------------------------------------------------------------------------------

    async def _send_blob(self, request: web.BaseRequest, blob: Blob) -> web.StreamResponse:
        start = _range_start(request.headers.get("Range"), blob.size)
        if start is None:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{blob.size}"})
        headers = {"Content-Range": f"bytes {start}-{blob.size - 1}/{blob.size}"} if start else {}
        status = 206 if start else 200
        if blob.size - start <= BLOCK:
            body = blob.read(start, blob.size - start)
            return web.Response(status=status, headers=headers, body=body)
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = blob.size - start
        try:
            with self._only_sending(request, blob.digest):
                await response.prepare(request)
                await self._stream(request, response, blob, start)
        except (ConnectionError, TimeoutError, StorageError) as error:
            raise LineCutError from error
        return response

    @contextmanager
    def _only_sending(self, request: web.BaseRequest, digest: str) -> Iterator[None]:
        """One transfer of a blob to a peer at a time: the newest, since an older one is on a dead line."""
        transport, key = request.transport, (_name(request.transport), digest)
        if transport is None:
            raise ConnectionResetError("the line was cut")
        older = self._sending.pop(key, None)
        if older is not None:
            thin_lines.forget_unsent(_socket(older))
            older.abort()
        self._sending[key] = transport
        try:
            yield
        finally:
            if self._sending.get(key) is transport:
                del self._sending[key]

    async def _stream(
        self, request: web.BaseRequest, response: web.StreamResponse, blob: Blob, start: int
    ) -> None:
        """Write the rest of a blob, however long it takes, as long as the peer takes bytes.

        Raises `TimeoutError` when it takes none, or hardly any.
        """
        clock, peer = asyncio.get_running_loop().time, _name(request.transport)
        base = before = _acknowledged(request.transport)
        task, since = asyncio.create_task(_write(request, response, blob, start)), clock()
        try:
            while not (await asyncio.wait((task,), timeout=min(LOOK_S, self._stall_s)))[0]:
                now = _acknowledged(request.transport)
                there = max(start, min(start + now - base, blob.size))
                self._depot.moves(peer, blob.digest, there, blob.size)
                if now - before >= LEAST_BPS * self._stall_s:
                    since, before = clock(), now
                elif clock() - since >= self._stall_s:
                    self._slow(request, f"took {now - before} bytes in {self._stall_s:g} s")
                    raise TimeoutError
            await task
        finally:
            task.cancel()

    # --- up ----------------------------------------------------------------------------------

    async def _take(self, request: web.BaseRequest, peer: str) -> web.StreamResponse:
        if self._uploading[peer] >= UPLOADS_PER_PEER:
            return web.Response(status=429)
        self._uploading[peer] += 1
        source = Source(request, self._stall_s)
        try:
            with self._counting(peer):
                manifest, place = await read_manifest(source), (_offset(request), _held(request))
            async with self._only_upload(manifest, peer, request):
                receipt = await self._receive(source, manifest, peer, place)
        except SlowError as slow:
            self._slow(request, slow.what)
            raise
        finally:
            source.end()
            self._uploading[peer] -= 1
            self._uploading += Counter()  # forget peers at zero
        return web.Response(body=encode(receipt))

    @contextmanager
    def _counting(self, peer: str) -> Iterator[None]:
        """Around what the depot itself does not see."""
        try:
            yield
        except Refused as refusal:
            self._depot.count_refusal(peer, refusal)
            raise

    @asynccontextmanager
    async def _only_upload(
        self, manifest: Contribution, peer: str, request: web.BaseRequest
    ) -> AsyncIterator[None]:
        """One upload of a contribution at a time: the newest, since an older one hangs."""
        key = (*manifest.key[:3], peer)
        while (older := self._uploads.get(key)) is not None:
            if older.transport is not None:
                older.transport.abort()
            await older.ended.wait()
        mine = self._uploads[key] = _Upload(request.transport)
        try:
            yield
        finally:
            del self._uploads[key]
            mine.ended.set()

    async def _receive(
        self, source: Source, manifest: Contribution, peer: str, place: tuple[int, int]
    ) -> Receipt:
        receiver = self._depot.receive(peer, manifest)
        if isinstance(receiver, Receipt):
            return receiver
        await self._take_body(source, receiver, manifest, peer, place)
        quick = manifest.size <= BLOCK and manifest.params <= QUICK
        return await self._commits(receiver, quick)

    async def _take_body(
        self, source: Source, receiver: Receiver, manifest: Contribution, peer: str, place: tuple[int, int]
    ) -> None:
        """All blocks that lack. Raises `LineCutError`, `WrongOffsetError`, `Refused`, `DiskFull`."""
        key = (*map(str, manifest.key), manifest.digest, str(manifest.size))
        tail = self._tails.pop(key, NO_TAIL)
        came = tail.data if tail.offset == receiver.offset else b""
        try:
            if place not in ((receiver.offset, len(came)), (receiver.offset, 0)):
                self._keep_tail(key, receiver.offset, came)
                raise WrongOffsetError(receiver.offset, len(came))
            frame = Frame(manifest.size - receiver.offset, came if place[1] else b"")
            with self._counting(peer):
                source.expect(manifest.size - receiver.offset, frame.size)
                source.told = partial(self._depot.moves, peer, manifest.digest)
                await read_blocks(source, receiver, manifest.size, frame)
        except LineCutError:
            self._keep_tail(key, receiver.offset, frame.came)
            receiver.suspend()
            raise
        except (WrongOffsetError, ReunaError):
            receiver.suspend()
            raise

    def _keep_tail(self, key: tuple[str, ...], offset: int, data: bytes) -> None:
        """What came behind the last whole block; of few uploads, so that nobody fills the memory."""
        if data:
            self._tails[key] = _Tail(offset, data)
            while len(self._tails) > TAILS:
                del self._tails[next(iter(self._tails))]


async def serve_depot(
    depot: Depot,
    host: str,
    port: int,
    ssl_context: ssl.SSLContext,
    stall_s: float = STALL_S,
    admit: Admit = identity_of,
    witness: Witness | None = None,
    adviser: Adviser | None = None,
) -> DepotServer:
    """Serve a depot; ``port`` 0 takes a free one. Raises `PortInUse`.

    ``ssl_context`` must ask for a client certificate (`reuna.adapters.tls.server_context`);
    ``admit`` is asked about the certificate on each request, ``witness`` about heads of ledgers,
    ``adviser`` about windows.
    """
    server = DepotServer(depot, stall_s, admit, witness, adviser)
    await server.start(host, port, ssl_context)
    return server


def _certificate(request: web.BaseRequest) -> Mapping[str, Any]:
    """What the client's certificate says. Raises `PermissionDenied`."""
    transport = request.transport
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    if not certificate:
        raise PermissionDenied("the connection has no client certificate")
    found: Mapping[str, Any] = certificate
    return found


def _name(transport: asyncio.BaseTransport | None) -> str:
    """Whose connection that is, for a line in the log."""
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    try:
        return identity_of(certificate).name
    except PermissionDenied:
        return "a peer without a name"


def _problem(error: ReunaError) -> web.Response:
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 503)
    reason = error.reason if isinstance(error, Refused) else "malformed"
    body = msgspec.msgpack.encode({"reason": reason, "message": error.message})
    return web.Response(status=status, body=body)


def _range_start(header: str | None, size: int) -> int | None:
    """First byte asked for; None when the blob has no such byte. Other forms mean all of it."""
    if header is None or not header.startswith("bytes=") or not header.endswith("-"):
        return 0
    digits = header.removeprefix("bytes=").removesuffix("-")
    if not _is_number(digits):
        return 0
    return int(digits) if int(digits) < size else None


def _offset(request: web.BaseRequest) -> int:
    text = request.headers.get("Upload-Offset", "0")
    if not _is_number(text):
        raise Refused("malformed", "Upload-Offset is not a number")
    return int(text)


def _held(request: web.BaseRequest) -> int:
    text = request.headers.get("Upload-Held", "0")
    if not _is_number(text):
        raise Refused("malformed", "Upload-Held is not a number")
    return int(text)


def _socket(transport: asyncio.BaseTransport | None) -> thin_lines.Socket | None:
    return None if transport is None else transport.get_extra_info("socket")


def _address(transport: asyncio.BaseTransport) -> str:
    """From where the peer speaks."""
    found = transport.get_extra_info("peername")
    return str(found[0]) if found else ""


def _acknowledged(transport: asyncio.Transport | None) -> int:
    """Bytes that the peer has taken so far, or what grows as they do."""
    if transport is None:
        return 0
    found = thin_lines.acknowledged(_socket(transport))
    return -transport.get_write_buffer_size() if found is None else found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 15


async def _write(request: web.BaseRequest, response: web.StreamResponse, blob: Blob, start: int) -> None:
    """The rest of a blob, no faster than the peer takes it.

    It is read on the event loop: what is offered was written moments ago and is in memory.
    """
    clock, at = asyncio.get_running_loop().time, start
    pieces = thin_lines.Pieces(_socket(request.transport), BLOCK, clock())
    with opened(blob) as read:
        while at < blob.size:
            data = read(at, min(pieces.next(clock()), blob.size - at))
            await response.write(data)
            pieces.sent(len(data))
            at += len(data)
    await response.write_eof()
