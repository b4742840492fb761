"""MCP servers over stdio with behaviour that the SDK does not have, for tests: ``python odd_mcp_server.py KIND``.

Each start adds the process's id, as a line, to the file named by ``STARTS``, if there is one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import cast

Message = dict[str, object]
kind = sys.argv[1]
requested: list[str] = []
GARBAGE = {
    "what is not JSON": b"\x1b]0;title\x07 this is a log line with a key, sk-1234\n",
    "what is no message": b"[]\n",
    "half a message": b'{"jsonrpc": "2.0",\n',
    "wrong notifications": b'{"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": "sk-1234"}}\n',
    "unknown replies": b'{"jsonrpc": "2.0", "id": 1000, "result": {"sk-1234": 1}}\n',
}


def send(message: Message) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0"} | message) + "\n")
    sys.stdout.flush()


def tool(name: str) -> Message:
    return {"name": name, "inputSchema": {"type": "object"}}


def initialized() -> Message:
    if kind in {"refuses", "is modern"}:
        code = -32601 if kind == "is modern" else -32603
        return {"error": {"code": code, "message": f"it {kind}"}}
    server = {"name": kind, "version": "1"}
    return {"result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": server}}


def discovered() -> Message:
    return {
        "result": {
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}},
            "ttlMs": 0,
            "cacheScope": "private",
            "resultType": "complete",
        }
    }


def page(cursor: object) -> Message:
    if kind == "has too many tools":
        # Endless pages, each of which repeats some names of the previous one.
        start = int(cast("str", cursor or 0))
        names = [*(f"tool {number}" for number in range(start, start + 110)), "", "x" * 1_001]
        return {"result": {"tools": [tool(name) for name in names], "nextCursor": str(start + 100)}}
    listed: Message = {"tools": [tool("answer")]}
    if kind == "forgets its tools":
        listed = {"tools": [tool("answer")] if not requested else []}
        requested.append("tools")
    if kind == "is modern":
        listed |= {"ttlMs": 0, "cacheScope": "private", "resultType": "complete"}
    return {"result": listed}


def called(answer: object) -> Message:
    match answer:
        case "no result":
            return {"result": {"content": "this is no list"}}
        case "an error without words":
            return {"result": {"content": [], "isError": True}}
        case "nothing":
            return {"result": {"content": []}}
        case _:
            return {"result": {"content": [{"type": "text", "text": str(answer)}]}}


def answer(message: Message) -> None:
    params = cast("dict[str, object]", message.get("params") or {})
    match message.get("method"):
        case "initialize":
            send({"id": message["id"]} | initialized())
        case "server/discover":
            send({"id": message["id"]} | discovered())
        case "tools/list":
            send({"id": message["id"]} | page(params.get("cursor")))
        case "tools/call":
            arguments = cast("dict[str, object]", params.get("arguments") or {})
            if arguments.get("answer") == "bytes that are no text":
                sys.stdout.buffer.write(b"\xff\xfe{not JSON\n")
            if kind == "forgets its tools":
                send({"method": "notifications/tools/list_changed"})
            sys.stdout.buffer.write(GARBAGE.get(str(arguments.get("answer")), b"") * 2_000)
            send({"id": message["id"]} | called(arguments.get("answer")))
        case _:
            pass


if starts := os.environ.get("STARTS"):
    with Path(starts).open("a") as file:
        file.write(f"{os.getpid()}\n")
if kind == "does not stop":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
for line in sys.stdin:
    if kind != "is silent":
        answer(json.loads(line))
while kind == "does not stop":
    time.sleep(1)
