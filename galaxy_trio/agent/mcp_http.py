"""An MCP server over streamable HTTP: the SDK's transport, on an HTTP client that bounds replies and explains failures."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import httpx2
import trio
from mcp.client.streamable_http import MCP_SESSION_ID, streamable_http_client
from mcp_types import METHOD_NOT_FOUND, ErrorData, JSONRPCError, JSONRPCResponse

from galaxy_trio._concurrency.background import first_leaf
from galaxy_trio._concurrency.thread_limit import ThreadLimit
from galaxy_trio._transport.url import check_headers
from galaxy_trio.agent.mcp_messages import parse_messages
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from httpx2._types import AuthTypes
    from mcp.client._transport import TransportStreams

    from galaxy_trio.agent.mcp_server import Limits, McpServer

_reading = ThreadLimit("reading the tokens of MCP servers", 4)

SERVER_FAILED: Final = -32000
_CONNECT_TIMEOUT: Final = 30.0
_CLOSE_TIMEOUT: Final = 2.0
_SUCCESS: Final = range(200, 400)
_UNAUTHORIZED, _NOT_FOUND, _NOT_ALLOWED = 401, 404, 405
_HINTS: Final = {
    _UNAUTHORIZED: "is the token right?",
    403: "is the token right?",
    _NOT_FOUND: "is this the URL of its MCP endpoint?",
    _NOT_ALLOWED: "is this the URL of its MCP endpoint, and does it support streamable HTTP?",
}


class Client(httpx2.AsyncClient):
    """An HTTP client for the SDK. Whatever fails, it returns a reply that says so.

    Args:
        where: The server's URL as it may be shown.
        headers: Sent with each request.
        max_message_size: Bytes that a reply may have.
        ended: Called when the session with the server has ended.
    """

    def __init__(
        self, where: str, headers: list[tuple[str, str]], max_message_size: int, ended: Callable[[], None]
    ) -> None:
        # No limit for reading: a call has its own.
        super().__init__(
            # Compressed replies could have any size.
            headers=[*headers, ("Accept-Encoding", "identity")],
            timeout=httpx2.Timeout(_CONNECT_TIMEOUT, read=None),
        )
        self._where = where
        self._max_message_size = max_message_size
        self._ended = ended
        self._session_id: str | None = None

    async def send(
        self,
        request: httpx2.Request,
        *,
        stream: bool = False,  # noqa: ARG002  # whatever it is, replies are read here
        auth: AuthTypes | httpx2._client.UseClientDefault | None = httpx2.USE_CLIENT_DEFAULT,
        follow_redirects: bool | httpx2._client.UseClientDefault = httpx2.USE_CLIENT_DEFAULT,
    ) -> httpx2.Response:
        """Send a request. A reply that is no stream of events is read within the limit, and replaced if it is no valid message."""
        try:
            response = await super().send(request, stream=True, auth=auth, follow_redirects=follow_redirects)
            self._session_id = response.headers.get(MCP_SESSION_ID, self._session_id)
            if _is_stream(response) or response.is_redirect:
                return response
            try:
                return await self._read(request, response)
            finally:
                with trio.CancelScope(shield=True):
                    await response.aclose()
        except httpx2.ConnectError as error:
            self._ended()
            return _failure(request, f"cannot connect to {self._where}: {_reason(error)}")
        except httpx2.TimeoutException:
            self._ended()
            return _failure(request, f"cannot connect to {self._where} within {_CONNECT_TIMEOUT:g} s")
        except httpx2.HTTPError as error:
            return _failure(request, f"the connection to {self._where} failed: {type(error).__name__}")

    async def _read(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        body = bytearray()
        async for part in response.aiter_raw():
            body += part
            if len(body) > self._max_message_size:
                return _failure(request, f"its reply has more than {self._max_message_size} bytes")
        is_json = response.headers.get("content-type", "").lower().startswith("application/json")
        messages = await parse_messages(body.decode(errors="replace")) if is_json else []
        for message in messages:
            if isinstance(message, JSONRPCResponse | JSONRPCError):
                text = message.model_dump_json(by_alias=True, exclude_unset=True)
                return _reply(request, response.status_code, text)
        status = response.status_code
        if status not in _SUCCESS:
            return self._refused(request, status)
        if is_json and body.strip():
            return _failure(request, "its reply is not a message of the protocol")
        return httpx2.Response(status, headers=_kept(response), content=bytes(body), request=request)

    def _refused(self, request: httpx2.Request, status: int) -> httpx2.Response:
        reason = httpx2.codes.get_reason_phrase(status)
        shown = f"{self._where} replied with HTTP status {status} {reason}".rstrip()
        if status == _NOT_FOUND and self._session_id is not None:
            self._session_id = None
            self._ended()
            return _failure(request, "its session has ended, as after a restart of the server", status)
        if status == _UNAUTHORIZED:
            self._ended()
        code = METHOD_NOT_FOUND if status in (_NOT_FOUND, _NOT_ALLOWED) else SERVER_FAILED
        hint = _HINTS.get(status)
        return _failure(request, shown if hint is None else f"{shown}: {hint}", status, code)

    async def end_session(self, url: str) -> None:
        """Tell the server that the session has ended, within 2 s."""
        if self._session_id is not None:
            with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                await self.delete(url, headers={MCP_SESSION_ID: self._session_id})


def _is_stream(response: httpx2.Response) -> bool:
    kind = response.headers.get("content-type", "").lower()
    return response.is_success and kind.startswith("text/event-stream")


def _kept(response: httpx2.Response) -> dict[str, str]:
    return {name: response.headers[name] for name in ("content-type", MCP_SESSION_ID) if name in response.headers}


def _failure(request: httpx2.Request, why: str, status: int = 502, code: int = SERVER_FAILED) -> httpx2.Response:
    # The SDK replaces the id by the request's.
    error = JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=code, message=why))
    return _reply(request, status, error.model_dump_json(by_alias=True, exclude_unset=True))


def _reply(request: httpx2.Request, status: int, text: str) -> httpx2.Response:
    return httpx2.Response(status, headers={"content-type": "application/json"}, content=text, request=request)


def _reason(error: httpx2.ConnectError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        leaf = first_leaf(cause)
        if isinstance(leaf, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {leaf.verify_message}"
        if isinstance(leaf, OSError) and leaf.strerror:
            return leaf.strerror.lower()
        cause = leaf.__cause__ or leaf.__context__
    return type(error).__name__


async def _headers_of(server: McpServer) -> list[tuple[str, str]]:
    token, headers = server.token, server.headers
    with trio.move_on_after(_CONNECT_TIMEOUT):
        if callable(token):
            token = await trio.to_thread.run_sync(token, abandon_on_cancel=True, limiter=_reading.get())
        if callable(headers):
            headers = await trio.to_thread.run_sync(headers, abandon_on_cancel=True, limiter=_reading.get())
        given = [] if token is None else [("Authorization", f"Bearer {token}")]
        given += headers
        shown = f"MCP server {server.name!r}"
        try:
            return [(name.decode("ascii"), value.decode("latin-1")) for name, value in check_headers(given)]
        except ConfigError as error:
            problem = f"{shown}: {error}"
        # Not chained: it may show a token.
        raise ConfigError(problem)
    raise ConfigError(
        f"the token or headers of MCP server {server.name!r} could not be read within {_CONNECT_TIMEOUT:g} s"
    )


@asynccontextmanager
async def open_http(server: McpServer, limits: Limits, ended: Callable[[], None]) -> AsyncGenerator[TransportStreams]:
    """Open the connection to a server, and end its session with the block.

    Raises:
        ConfigError: The token or a header cannot be read or sent.
    """
    url = server.url or ""
    headers = await _headers_of(server)
    async with Client(server.where, headers, limits.max_message_size, ended) as client:
        try:
            async with streamable_http_client(
                url, http_client=client, terminate_on_close=False, max_sse_event_size=limits.max_message_size
            ) as streams:
                yield streams
        finally:
            await client.end_session(url)
