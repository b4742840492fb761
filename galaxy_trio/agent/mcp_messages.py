"""JSON text to the SDK's messages. A broken message is lost alone, and a broken reply fails its call.

The SDK's own parser drops a broken reply, so that its call would wait for its timeout.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from mcp_types import (
    INTERNAL_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)

from galaxy_trio._arguments import MAX_VALUES
from galaxy_trio._codec.sliced_json import Refused, SlicedDecoder
from galaxy_trio._concurrency.slices import finish

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

_DENSE: Final = 20_000
"""Values and keys that are decoded in one step, within about 10 ms."""


def _null(constant: str) -> None:
    """NaN and infinity as null, as JavaScript writes them."""


_sliced: Final = SlicedDecoder(int, float, _null)

Parsed: TypeAlias = "JSONRPCMessage | str"
"""A message, or the problem with it."""


async def parse_messages(text: str) -> list[Parsed]:
    """Parse a text with a message, or a list of messages.

    Nothing of the text is in a problem.
    """
    try:
        value = await _decode(text)
    except (Refused, RecursionError):
        return ["it has too many values, or they are nested too deep"]
    except ValueError:
        return ["it is not JSON"]
    if not isinstance(value, list):
        return [_parsed(value)]
    return [_parsed(each) for each in value] or ["it is an empty list"]


async def _decode(text: str) -> JSON:
    # At most as many as there are separators; those within strings count too.
    if text.count(",") + text.count(":") <= _DENSE:
        return cast("JSON", json.loads(text, parse_constant=_null))
    return cast("JSON", await finish(_sliced.decode(text, MAX_VALUES, len)))


def _parsed(value: JSON) -> Parsed:
    if not isinstance(value, dict):
        return "it is not a message"
    number = value.get("id")
    has_id = isinstance(number, str | int) and not isinstance(number, bool)
    method, params = value.get("method"), value.get("params")
    if isinstance(method, str):
        members = {"params": params} if isinstance(params, dict) else {}
        if has_id:
            return JSONRPCRequest(jsonrpc="2.0", id=cast("int | str", number), method=method, **members)
        return JSONRPCNotification(jsonrpc="2.0", method=method, **members)
    error, result = value.get("error"), value.get("result")
    if not has_id and error is not None:
        # Over HTTP, the request that it answers is known nevertheless.
        return JSONRPCError(jsonrpc="2.0", id=None, error=_error_data(error))
    if not has_id:
        return "it is neither a request nor a reply"
    if error is None and isinstance(result, dict):
        return JSONRPCResponse(jsonrpc="2.0", id=cast("int | str", number), result=result)
    return JSONRPCError(jsonrpc="2.0", id=cast("int | str", number), error=_error_data(error))


def _error_data(error: JSON) -> ErrorData:
    if error is None:
        return ErrorData(code=INTERNAL_ERROR, message="its reply has neither a result nor an error")
    if not isinstance(error, dict):
        return ErrorData(code=INTERNAL_ERROR, message=_text(error))
    code, message = error.get("code"), error.get("message")
    return ErrorData(
        code=code if isinstance(code, int) else INTERNAL_ERROR,
        message=_text(error if message is None else message),
        data=error.get("data"),
    )


def _text(value: JSON) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
