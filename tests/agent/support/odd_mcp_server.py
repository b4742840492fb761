"""MCP servers over stdio with behaviour that the SDK does not have, for tests: ``python odd_mcp_server.py KIND``.

Each start adds the process's id, as a line, to the file named by ``STARTS``, if there is one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
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


BAD_TOOLS: list[object] = [
    5,
    {"name": 7, "inputSchema": {"type": "object"}},
    {"name": "no schema"},
    {"name": "a schema of text", "inputSchema": "{}"},
    {"name": "\ud800", "inputSchema": {"type": "object"}},
    {
        "name": "odd",
        "description": 5,
        "annotations": [],
        "inputSchema": {"type": 5, "properties": 7},
        "outputSchema": True,
    },
]


def send(message: Message) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0"} | message) + "\n")
    sys.stdout.flush()


def tool(name: str) -> Message:
    return {"name": name, "inputSchema": {"type": "object"}}


def initialized() -> Message:
    if kind == "greets badly":
        return {"result": {"protocolVersion": "2025-06-18", "capabilities": "all", "serverInfo": 5, "instructions": []}}
    if kind == "names no version":
        return {"result": {"capabilities": {}}}
    if kind == "is from the future":
        return {"result": {"protocolVersion": "3000-01-01"}}
    if kind == "refuses" or kind.startswith("is modern"):
        code = -32601 if kind.startswith("is modern") else -32603
        return {"error": {"code": code, "message": f"it {kind}"}}
    server = {"name": kind, "version": "1"}
    return {"result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": server}}


def discovered() -> Message:
    if kind == "is modern and vague":
        return {"result": {"supportedVersions": "all"}}
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
    if kind == "repeats its cursor":
        requested.append("tools")
        number = len(requested)
        return {"result": {"tools": [tool("answer"), tool(f"tool {number}")], "nextCursor": "again"}}
    if kind == "has endless empty pages":
        requested.append("tools")
        return {"result": {"tools": [tool("answer")] if not cursor else [], "nextCursor": str(len(requested))}}
    if kind == "breaks its second page" and cursor:
        return {"error": {"code": -32603, "message": "the rest is gone"}}
    if kind == "breaks its second page":
        return {"result": {"tools": [tool("answer")], "nextCursor": "more"}}
    if kind == "has only prompts":
        return {"error": {"code": -32601, "message": "Method not found"}}
    if kind == "lists badly":
        return {"result": {"tools": [*BAD_TOOLS, tool("answer")], "nextCursor": 5}}
    listed: Message = {"tools": [tool("answer")]}
    if kind == "forgets its tools":
        listed = {"tools": [tool("answer")] if not requested else []}
        requested.append("tools")
    if kind == "is modern and lists badly":
        header: Message = {"properties": {"a": {"type": "string", "x-mcp-header": "not a header"}}}
        bad = [tool("headers") | {"inputSchema": {"type": "object"} | header}, *BAD_TOOLS]
        listed = {"tools": [*bad, tool("answer")]} if cursor is None else {}
    if kind.startswith("is modern"):
        listed |= {"ttlMs": 0, "cacheScope": "private", "resultType": "complete"}
    return {"result": listed}


def called(answer: object) -> Message:
    match answer:
        case "no result":
            return {"result": {"content": "this is no list"}}
        case "a list":
            return {"result": cast("Message", [1])}
        case "an error that is text":
            return {"error": cast("Message", "no such luck")}
        case "an error with data":
            return {"error": {"code": -32602, "message": "no file", "data": {"name": "a.txt"}}}
        case "neither":
            return {}
        case "input":
            return {"result": {"resultType": "input_required"}}
        case "an error without words":
            return {"result": {"content": [], "isError": True}}
        case "nothing":
            return {"result": {"content": []}}
        case _:
            return {"result": {"content": [{"type": "text", "text": str(answer)}]}}


def act(wanted: str, params: dict[str, object]) -> None:
    """Do what a call wants before its reply."""
    if wanted == "an endless line":
        while True:
            sys.stdout.write("x" * 65_536)
    while wanted == "endless requests":
        send({"id": 1, "method": "ping"})
        send({"method": "notifications/cancelled", "params": {"requestId": "of no request"}})
    if wanted == "many requests":
        for number in range(500):
            send({"id": number, "method": "ping"})
            if number % 2:
                send({"method": "notifications/cancelled", "params": {"requestId": number}})
            else:
                sys.stdin.readline()
    if wanted == "progress":
        for step in range(50):
            time.sleep(0.1)
            token = cast("dict[str, object]", params["_meta"])["progressToken"]
            send({"method": "notifications/progress", "params": {"progressToken": token, "progress": step}})
    if wanted == "nonsense requests":
        send({"id": 1, "method": "\ud800"})
        send({"id": 2, "method": "roots/list", "params": 5})
        sys.stdout.write('[{"jsonrpc": "2.0", "id": 3, "method": "ping"}]\n\n')


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
            act(str(arguments.get("answer")), params)
            sys.stdout.buffer.write(GARBAGE.get(str(arguments.get("answer")), b"") * 2_000)
            send({"id": message["id"]} | called(arguments.get("answer")))
        case _:
            pass


if starts := os.environ.get("STARTS"):
    with Path(starts).open("a") as file:
        file.write(f"{os.getpid()}\n")
if kind == "cannot start":
    sys.exit("a module is missing\nthe second line")
if kind == "leaves a child":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    sys.exit(5)
if kind == "does not stop":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if kind == "closes its input":
    first = sys.stdin.readline()
    os.close(0)
    answer(json.loads(first))
    time.sleep(1_000)
if kind == "begins with a byte order mark":
    sys.stdout.buffer.write(b"\xef\xbb\xbf")
for line in sys.stdin:
    if kind == "never lists" and "tools/list" in line:
        continue
    if kind != "is silent":
        answer(json.loads(line))
while kind == "does not stop":
    time.sleep(1)
