"""Starts real MCP servers of other authors, and calls tools of each over a server, an agent and a client of this package.

A program that ``nox -s mcp_servers`` runs. It needs the package registries: the servers on PyPI must be installed, those on npm are
downloaded by npx into an empty cache, as at a user's first start. It prints what it called as a table in Markdown, and fails if a
call does.
"""

from __future__ import annotations

import datetime as dt
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import trio

from galaxy_trio import open_connection
from galaxy_trio._cli.server_session import run_as_command
from galaxy_trio.agent import McpServer, open_agent, open_mcp_tools
from galaxy_trio.server import open_server

if TYPE_CHECKING:
    from collections.abc import Generator

    from galaxy_trio import Connection
    from galaxy_trio.agent import McpTools

DEVICE: Final = "mcp"
_START: Final = 300.0
_END: Final = 900.0
_SCOPE: Final = "@modelcontextprotocol/server-"
_NPM: Final = ("filesystem", "everything", "memory", "sequential-thinking")
_PYPI: Final = ("time", "git", "fetch")


@attrs.frozen
class Call:
    """A call of a tool, and a part of its result."""

    tool: str
    parameters: dict[str, object]
    expected: str


def calls(folder: Path, page: str) -> dict[str, list[Call]]:
    """The calls for each server."""
    note = str(folder / "note.txt")
    entity = {"name": "trio", "entityType": "library", "observations": ["structured"]}
    return {
        "time": [
            Call("get_current_time", {"timezone": "UTC"}, '"timezone": "UTC"'),
            Call(
                "convert_time",
                {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"},
                "21:00",
            ),
        ],
        "git": [
            Call("git_status", {"repo_path": str(folder)}, "note.txt"),
            Call("git_add", {"repo_path": str(folder), "files": ["note.txt"]}, "staged"),
        ],
        "fetch": [Call("fetch", {"url": page, "raw": True}, "a page to fetch")],
        "filesystem": [
            Call("write_file", {"path": note, "content": "written"}, "Successfully wrote"),
            Call("read_text_file", {"path": note}, "written"),
        ],
        "everything": [
            Call("echo", {"message": "hello"}, "hello"),
            Call("get-structured-content", {"location": "New York"}, "temperature"),
            Call("get-annotated-message", {"messageType": "success", "includeImage": True}, '"type": "image"'),
            Call("trigger-long-running-operation", {"duration": 2, "steps": 4}, "completed"),
        ],
        "memory": [
            Call("create_entities", {"entities": [entity]}, "structured"),
            Call("read_graph", {}, "trio"),
        ],
        "sequential-thinking": [
            Call(
                "sequentialthinking",
                {"thought": "one", "nextThoughtNeeded": False, "thoughtNumber": 1, "totalThoughts": 1},
                "thoughtHistoryLength",
            )
        ],
        "everything-http": [
            Call("get-sum", {"a": 2, "b": 3}, "5"),
            Call("trigger-long-running-operation", {"duration": 2, "steps": 4}, "completed"),
        ],
    }


@contextmanager
def serving_a_page(folder: Path) -> Generator[str]:
    """Serve a page to fetch, at a loopback address."""
    (folder / "page.html").write_text("<p>a page to fetch</p>")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/page.html"
        server.shutdown()


def servers(folder: Path, cache: str, versions: dict[str, str], http_url: str) -> list[McpServer]:
    scripts = Path(sys.executable).parent
    env = {"npm_config_cache": cache, "MEMORY_FILE_PATH": str(folder / "memory.json")}
    arguments = {
        "filesystem": [str(folder)],
        "git": ["--repository", str(folder)],
        "fetch": ["--ignore-robots-txt", "--allow-private-ips"],
    }
    from_pypi = [
        McpServer(name, [str(scripts / f"mcp-server-{name}"), *arguments.get(name, ())], start_timeout=_START)
        for name in _PYPI
    ]
    from_npm = [
        McpServer(
            name,
            ["npx", "-y", f"{_SCOPE}{name}@{versions[name]}", *arguments.get(name, ())],
            env,
            folder,
            start_timeout=_START,
        )
        for name in _NPM
    ]
    return [*from_pypi, *from_npm, McpServer("everything-http", url=http_url, start_timeout=_START)]


def newest(name: str) -> str:
    return subprocess.run(  # noqa: S603
        [str(shutil.which("npm")), "view", f"{_SCOPE}{name}", "version"], check=True, capture_output=True, text=True
    ).stdout.strip()


async def call_all(connection: Connection, name: str, tools: McpTools, to_call: list[Call]) -> str:
    """Call the tools of a server. Returns its cells of the table."""
    names = [tool.name for tool in tools.tools() if tool.namespace == name]
    for call in to_call:
        # The full name, because servers may have tools of the same name.
        request = f"{json.dumps(f'{name}.{call.tool}')} {json.dumps(call.parameters)}"
        result = (await connection.run_task(request, timeout=60)).unwrap()
        shown = result if isinstance(result, str) else json.dumps(result)
        assert call.expected in shown, f"{name}.{call.tool} returned {shown[:1000]}"
    called = dict.fromkeys(f"`{call.tool}`" for call in to_call)
    return f"{len(names)} | {', '.join(called)}"


async def wait_listed(tools: McpTools, wanted: set[str]) -> None:
    """Wait until each server has listed its tools: that over HTTP is downloaded first."""
    with trio.fail_after(_START):
        while missing := wanted - {str(tool.namespace) for tool in tools.tools()}:
            print("waiting for", ", ".join(sorted(missing)), file=sys.stderr)
            await trio.sleep(5)


async def main() -> None:
    """Start the servers, call their tools, print the table."""
    versions = {name: newest(name) for name in _NPM}
    with (
        tempfile.TemporaryDirectory() as text,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache,
        serving_a_page(Path(text)) as page,
        trio.fail_after(_END),
    ):
        folder = Path(text)
        (folder / "note.txt").write_text("new")
        await trio.run_process(["git", "init", "--quiet", str(folder)])
        async with trio.open_nursery() as nursery:
            port = await free_port()
            over_http = ["npx", "-y", f"{_SCOPE}everything@{versions['everything']}", "streamableHttp"]
            environment = {**os.environ, "PORT": str(port), "npm_config_cache": f"{cache}/http"}
            started = partial(
                trio.run_process,
                over_http,
                env=environment,
                cwd=folder,
                check=False,
                capture_stdout=True,
                capture_stderr=True,
                start_new_session=True,
                deliver_cancel=end_group,
            )
            nursery.start_soon(started)
            mcp = servers(folder, cache, versions, f"http://127.0.0.1:{port}/mcp")
            async with (
                open_mcp_tools(mcp) as tools,
                open_server(session=run_as_command) as server,
                open_agent(server.url, DEVICE, tool_sources=[tools]),
                open_connection(server.url, DEVICE) as connection,
            ):
                await wait_listed(tools, {each.name for each in mcp})
                print(f"On {dt.datetime.now(dt.UTC):%Y-%m-%d}, with MCP SDK {version('mcp')}:\n")
                print("| server | version | tools | called |\n| --- | --- | ---: | --- |")
                versions["everything-http"] = versions["everything"]
                for name, to_call in calls(folder, page).items():
                    used = versions.get(name) or version(f"mcp-server-{name}")
                    print(f"| {name} | {used} | {await call_all(connection, name, tools, to_call)} |", flush=True)
            nursery.cancel_scope.cancel()


async def end_group(process: trio.Process) -> None:
    """End a process with those that it has started: npx does not pass signals on."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await trio.lowlevel.checkpoint()


async def free_port() -> int:
    """A port that was free a moment ago."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        return int(listener.socket.getsockname()[1])


if __name__ == "__main__":
    trio.run(main)
