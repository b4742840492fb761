"""The SDK's dispatcher, made to pass on a server's results as they are.

The SDK's session refuses a whole result because of one broken part, in the words of its validation library. It needs little of a
result itself, so it gets only that.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast

from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp_types import PROTOCOL_VERSION_META_KEY
from mcp_types.methods import validate_server_result

from galaxy_trio.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from mcp.shared.dispatcher import CallOptions
    from mcp_types import RequestId

    from galaxy_trio.messages import JSON

_COMPLETE: Final[dict[str, JSON]] = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
"""What the newest version of the protocol requires in results."""


class RawResults:
    """The results of the requests that were sent in a block of `collecting_results`, in order."""

    def __init__(self) -> None:
        self.received: list[dict[str, JSON]] = []


_current: ContextVar[RawResults | None] = ContextVar("mcp_raw_results", default=None)


@contextmanager
def collecting_results() -> Generator[RawResults]:
    """Collect the results of the requests that the block sends."""
    results = RawResults()
    before = _current.set(results)
    try:
        yield results
    finally:
        _current.reset(before)


class RawDispatcher(JSONRPCDispatcher):
    """Keeps each result for `collecting_results`, and returns to the SDK what it needs of it."""

    async def send_raw_request(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        opts: CallOptions | None = None,
        *,
        _related_request_id: RequestId | None = None,
    ) -> dict[str, Any]:
        """Send a request and wait for its result.

        Raises:
            MCPError: The server refused, or the connection ended.
            ToolError: The result of a handshake lacks what the SDK needs.
        """
        result = cast(
            "dict[str, JSON]",
            await super().send_raw_request(method, params, opts, _related_request_id=_related_request_id),
        )
        if (results := _current.get()) is not None:
            results.received.append(result)
        if method == "initialize":
            return _initialized(result)
        if method == "server/discover":
            return _discovered(result)
        # Of lists and calls, which are all that remains.
        return {"content": [], "tools": _listed(result, params), **_COMPLETE}


def _initialized(result: dict[str, JSON]) -> dict[str, Any]:
    version = result.get("protocolVersion")
    if not isinstance(version, str):
        raise ToolError("its handshake names no version of the protocol")
    return {"protocolVersion": version, "capabilities": {}, "serverInfo": {"name": "", "version": ""}}


def _discovered(result: dict[str, JSON]) -> dict[str, Any]:
    versions = result.get("supportedVersions")
    if not isinstance(versions, list):
        raise ToolError("its description names no versions of the protocol")
    supported = [version for version in versions if isinstance(version, str)]
    return {"supportedVersions": supported, "capabilities": {}, **_COMPLETE}


def _listed(result: dict[str, JSON], params: Mapping[str, Any] | None) -> list[JSON]:
    """The tools from which the SDK learns which arguments it must send as HTTP headers, in versions that have such."""
    meta = cast("dict[str, str]", (params or {}).get("_meta") or {})
    version = meta.get(PROTOCOL_VERSION_META_KEY)
    listed = result.get("tools")
    if version is None or not isinstance(listed, list):
        return []
    return [tool for tool in listed if _is_valid(tool, version)]


def _is_valid(tool: JSON, version: str) -> bool:
    if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
        return False
    try:
        validate_server_result("tools/list", version, {"tools": [tool], **_COMPLETE})
    except ValueError:
        return False
    return True
