"""An MCP server over streamable HTTP: each message is a POST, whose reply is a message or a stream of events with messages.

The SDK's own transport reads replies without a limit, and leaves unfinished generators behind on trio.
"""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import httpx2
import trio
from anyio.abc import ObjectSendStream
from mcp.client.streamable_http import MCP_SESSION_ID
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.shared.jsonrpc_dispatcher import cancelled_request_id_from_params
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp_types import (
    METHOD_NOT_FOUND,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from galaxy_trio._concurrency.background import first_leaf, open_background
from galaxy_trio._concurrency.thread_limit import ThreadLimit
from galaxy_trio._transport.proxy import Proxy, proxy_in_environment
from galaxy_trio._transport.url import Target, check_headers
from galaxy_trio.agent.command_runner import one_line
from galaxy_trio.agent.mcp_events import open_events, read_body
from galaxy_trio.agent.mcp_messages import parse_messages
from galaxy_trio.errors import ConfigError, ToolError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from galaxy_trio._concurrency.memory_budget import MemoryShare
    from galaxy_trio.agent.mcp_log import ServerLog
    from galaxy_trio.agent.mcp_server import Limits, McpServer
    from galaxy_trio.agent.mcp_streams import SessionEvents

_reading = ThreadLimit("reading the tokens of MCP servers", 4)

_FAILED: Final = -32000
_TIMEOUT: Final = 30.0
"""Seconds to connect, to send a request, and to read a token."""
_CLOSE_TIMEOUT: Final = 2.0
_REDIRECTS: Final = 5
_FIRST_DELAY: Final = 1.0
_MAX_DELAY: Final = 60.0
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _NOT_ALLOWED = 401, 403, 404, 405
_HINTS: Final = {
    _UNAUTHORIZED: "is the token right?",
    _FORBIDDEN: "is the token right?",
    _NOT_FOUND: "is this the URL of its MCP endpoint?",
    _NOT_ALLOWED: "is this the URL of its MCP endpoint, and does it support streamable HTTP?",
}


class HttpTransport(ObjectSendStream[SessionMessage]):
    """Sends messages to a server, and delivers its messages to a stream.

    Args:
        server: The server, with a URL.
        where: The server's address, and that of the proxy, for errors.
        client: Sends the requests, with the server's headers.
        nursery: Runs a task for each request.
        received: Gets the server's messages.
        limits: The limits of messages.
        share: Counts what was received of unfinished messages.
        log: Gets the problems with what the server sends.
        ended: Called when the session with the server has ended.
    """

    def __init__(
        self,
        server: McpServer,
        where: str,
        client: httpx2.AsyncClient,
        nursery: trio.Nursery,
        received: MemoryObjectSendStream[SessionMessage],
        limits: Limits,
        share: MemoryShare,
        log: ServerLog,
        ended: Callable[[], None],
    ) -> None:
        self._url = server.url or ""
        self._where = where
        self._client = client
        self._nursery = nursery
        self._received = received
        self._limit = limits.max_message_size
        self._share = share
        self._log = log
        self._ended = ended
        self._session_id: str | None = None
        self._version: str | None = None
        self._lost = False
        self._requests: dict[RequestId, trio.CancelScope] = {}

    async def send(self, item: SessionMessage) -> None:
        """Send a message. The reply to a request is delivered when it comes; any other message has none."""
        message, metadata = item.message, item.metadata
        given = (metadata.headers if isinstance(metadata, ClientMessageMetadata) else None) or {}
        self._version = given.get(MCP_PROTOCOL_VERSION_HEADER, self._version)
        headers = self._headers() | dict(given)
        if isinstance(message, JSONRPCRequest):
            scope = self._requests[message.id] = trio.CancelScope()
            self._nursery.start_soon(self._request, message, headers, scope)
            await trio.lowlevel.checkpoint()
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            cancelled = cancelled_request_id_from_params(message.params)
            # In newer versions, the end of the connection says so.
            if self._version not in MODERN_PROTOCOL_VERSIONS:
                await self._notify(message, headers)
            if cancelled is not None and (running := self._requests.get(cancelled)) is not None:
                running.cancel()
        else:
            await self._notify(message, headers)
            if isinstance(message, JSONRPCNotification) and message.method == "notifications/initialized":
                self._nursery.start_soon(self._listen)

    async def aclose(self) -> None:
        """Do nothing: the requests end with the block of `open_http`."""
        await trio.lowlevel.checkpoint()

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
        if self._session_id is not None:
            headers[MCP_SESSION_ID] = self._session_id
        if self._version is not None:
            headers[MCP_PROTOCOL_VERSION_HEADER] = self._version
        return headers

    async def _notify(self, message: JSONRPCMessage, headers: dict[str, str]) -> None:
        try:
            with trio.move_on_after(_TIMEOUT):
                async with self._open("POST", headers, _text(message)):
                    pass
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            # A request will show whether the session has ended.
            self._log.problem_with_output(f"a notification to it failed: {type(error).__name__}")

    async def _request(self, message: JSONRPCRequest, headers: dict[str, str], scope: trio.CancelScope) -> None:
        problem: ErrorData | None = None
        with scope:
            try:
                problem = await self._exchange(message, headers)
            except (httpx2.ConnectError, httpx2.ProxyError, httpx2.TimeoutException) as error:
                self._lost = True
                problem = ErrorData(code=_FAILED, message=f"cannot connect to {self._where}: {_reason(error)}")
            except (httpx2.HTTPError, httpx2.StreamError) as error:
                problem = ErrorData(
                    code=_FAILED, message=f"the connection to {self._where} failed: {type(error).__name__}"
                )
            except ToolError as error:
                problem = ErrorData(code=_FAILED, message=str(error))
        del self._requests[message.id]
        if problem is not None:
            await self._deliver(JSONRPCError(jsonrpc="2.0", id=message.id, error=problem))
        if self._lost:
            # After the delivery, so that the caller gets the reason.
            self._ended()

    async def _exchange(self, message: JSONRPCRequest, headers: dict[str, str]) -> ErrorData | None:
        """Send a request and deliver its reply. Returns the problem if there is none."""
        async with self._open("POST", headers, _text(message)) as response:
            if message.method == "initialize":
                self._session_id = response.headers.get(MCP_SESSION_ID)
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if response.is_success and kind == "text/event-stream":
                if await self._deliver_events(response, message.id):
                    return None
                return ErrorData(code=_FAILED, message="the connection ended before it replied")
            if kind == "application/json":
                text = await read_body(response, self._limit, self._share)
                for parsed in await parse_messages(text):
                    if isinstance(parsed, JSONRPCResponse | JSONRPCError) and parsed.id in (message.id, None):
                        parsed.id = message.id
                        await self._deliver(parsed)
                        return None
            if not response.is_success:
                return self._refused(response, message.method)
            problem = (
                "its reply is not a message of the protocol"
                if kind == "application/json"
                else (
                    f"its reply has the content type {kind[:100]!r}, not that of a message"
                    if kind
                    else "its reply is empty"
                )
            )
            return ErrorData(code=_FAILED, message=problem)

    async def _deliver_events(self, response: httpx2.Response, request_id: RequestId | None = None) -> bool:
        """Deliver the messages of a stream of events. Returns whether the reply to the request was one of them."""
        async with open_events(response, self._limit, self._share) as next_event:
            while (text := await next_event()) is not None:
                for parsed in await parse_messages(text):
                    if isinstance(parsed, str):
                        self._log.problem_with_output(f"ignored an event: {parsed}")
                        continue
                    await self._deliver(parsed)
                    if isinstance(parsed, JSONRPCResponse | JSONRPCError) and parsed.id == request_id:
                        return True
        return False

    def _refused(self, response: httpx2.Response, method: str) -> ErrorData:
        status = response.status_code
        if (location := _location(response)) is not None:
            return ErrorData(
                code=_FAILED, message=f"{self._where} redirects to {location}: use that URL if it is the server's"
            )
        if status == _NOT_FOUND and self._session_id is not None:
            self._lost = True
            return ErrorData(code=_FAILED, message="its session has ended, as after a restart of the server")
        if status == _UNAUTHORIZED:
            # The token is read again for the next session.
            self._lost = True
        shown = f"{self._where} replied with HTTP status {status} {httpx2.codes.get_reason_phrase(status)}".rstrip()
        hint = _HINTS.get(status)
        unknown = method == "initialize" and status in (_NOT_FOUND, _NOT_ALLOWED)
        code = METHOD_NOT_FOUND if unknown else _FAILED
        return ErrorData(code=code, message=shown if hint is None else f"{shown}: {hint}")

    async def _listen(self) -> None:
        """Deliver the messages that belong to no request, if the server has a stream of them."""
        delay = _FIRST_DELAY
        listened = False
        while True:
            began = trio.current_time()
            try:
                async with self._open("GET", self._headers() | {"Accept": "text/event-stream"}) as response:
                    if not response.is_success:
                        if listened:
                            self._ended()
                        return
                    listened = True
                    await self._deliver_events(response)
            except httpx2.ConnectError:
                self._ended()
                return
            except (httpx2.HTTPError, httpx2.StreamError, ToolError) as error:
                self._log.problem_with_output(one_line(f"its stream of notifications failed: {error}"))
            delay = _FIRST_DELAY if trio.current_time() - began > _MAX_DELAY else min(2 * delay, _MAX_DELAY)
            await trio.sleep(delay)

    async def _deliver(self, message: JSONRPCMessage) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._received.send(SessionMessage(message))

    @asynccontextmanager
    async def _open(
        self, method: str, headers: dict[str, str], text: str | None = None
    ) -> AsyncGenerator[httpx2.Response]:
        """Send a request, and follow redirects to the same server."""
        request = self._client.build_request(method, self._url, headers=headers, content=text)
        response = await self._client.send(request, stream=True)
        for _ in range(_REDIRECTS):
            following = response.next_request
            if following is None or following.method != method or not _is_same_server(request.url, following.url):
                break
            await response.aclose()
            response = await self._client.send(following, stream=True)
        try:
            yield response
        finally:
            with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                await response.aclose()

    async def end_session(self) -> None:
        """Tell the server that the session has ended, within 2 s."""
        if self._session_id is not None:
            with trio.move_on_after(_CLOSE_TIMEOUT, shield=True), suppress(httpx2.HTTPError, httpx2.StreamError):
                async with self._open("DELETE", self._headers()):
                    pass


def _text(message: JSONRPCMessage) -> str:
    return message.model_dump_json(by_alias=True, exclude_unset=True)


def _is_same_server(url: httpx2.URL, other: httpx2.URL) -> bool:
    """Whether a redirect may get the headers, which may contain a token."""
    return (url.scheme, url.host, url.port, url.userinfo) == (other.scheme, other.host, other.port, other.userinfo)


def _location(response: httpx2.Response) -> str | None:
    """Where a redirect leads, without what may be a key."""
    if response.next_request is None:
        return None
    return str(response.next_request.url.copy_with(userinfo=b"", query=None, fragment=None))[:200]


def _reason(error: httpx2.HTTPError) -> str:
    if isinstance(error, httpx2.TimeoutException):
        return f"no answer within {_TIMEOUT:g} s"
    if isinstance(error, httpx2.ProxyError):
        return f"the proxy answered {str(error)[:100]}"
    reason = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        leaf = first_leaf(cause)
        if isinstance(leaf, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {leaf.verify_message}"
        if isinstance(leaf, socket.gaierror):
            return "its name cannot be resolved"
        if isinstance(leaf, OSError) and leaf.errno:
            # The last one is the system's.
            reason = os.strerror(leaf.errno).lower()
        cause = leaf.__cause__ or leaf.__context__
    return reason


async def _headers_of(server: McpServer) -> list[tuple[str, str]]:
    token, headers = server.token, server.headers
    with trio.move_on_after(_TIMEOUT) as limit:
        if callable(token):
            token = await trio.to_thread.run_sync(token, abandon_on_cancel=True, limiter=_reading.get())
        if callable(headers):
            headers = await trio.to_thread.run_sync(headers, abandon_on_cancel=True, limiter=_reading.get())
    shown = f"MCP server {server.name!r}"
    if limit.cancelled_caught or callable(token) or callable(headers):
        raise ConfigError(f"{shown}: its token or headers could not be read within {_TIMEOUT:g} s")
    given = [] if token is None else [("Authorization", f"Bearer {token}")]
    try:
        return [(name.decode(), value.decode("latin-1")) for name, value in check_headers([*given, *headers])]
    except ConfigError as error:
        raise ConfigError(f"{shown}: {error}") from error


def _proxy_for(server: McpServer) -> Proxy | None:
    """Return the proxy that the environment names for a server. httpx would also use it for this machine, and need a library for SOCKS."""
    url = httpx2.URL(server.url or "")
    secure = url.scheme == "https"
    target = Target(url.host, url.port or (443 if secure else 80), secure, resource=url.path, shown=server.where)
    try:
        return proxy_in_environment(os.environ, target)
    except ConfigError as error:
        raise ConfigError(f"MCP server {server.name!r}: {error}") from error


def _transport(proxy: Proxy | None) -> httpx2.AsyncHTTPTransport:
    limits = httpx2.Limits(max_connections=None)
    if proxy is None:
        return httpx2.AsyncHTTPTransport(limits=limits)
    headers = {} if proxy.authorization is None else {"Proxy-Authorization": proxy.authorization.decode()}
    return httpx2.AsyncHTTPTransport(limits=limits, proxy=httpx2.Proxy(proxy.shown, headers=headers))


@asynccontextmanager
async def open_http(
    server: McpServer, limits: Limits, log: ServerLog, events: SessionEvents
) -> AsyncGenerator[tuple[MemoryObjectReceiveStream[SessionMessage], HttpTransport]]:
    """Open the connection to a server, and end its session with the block.

    Raises:
        ConfigError: The token or a header cannot be read or sent, or the proxy cannot be used.
    """
    headers, proxy = await _headers_of(server), _proxy_for(server)
    where = server.where if proxy is None else f"{server.where} through the proxy {proxy.shown}"
    received, reading = anyio.create_memory_object_stream[SessionMessage](0)
    share = limits.memory.open_share()
    share.on_shortage = partial(events.end, limits.shortage)
    # No limit for reading: a call has its own. Compressed replies could have any size.
    client = httpx2.AsyncClient(
        headers=[*headers, ("Accept-Encoding", "identity")],
        timeout=httpx2.Timeout(_TIMEOUT, read=None),
        transport=_transport(proxy),
    )
    try:
        async with client, open_background() as nursery:
            transport = HttpTransport(server, where, client, nursery, received, limits, share, log, events.end)
            try:
                yield reading, transport
            finally:
                await transport.end_session()
    finally:
        share.close()
        received.close()
        reading.close()
