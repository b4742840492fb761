"""Each example of the documentation runs and prints the output in ``docs/examples/output``."""

from __future__ import annotations

import re
import shutil
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.cli.support.command_line import Outcome, Process, call_process, open_process
from tests.support.paths import DOCS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

pytestmark = pytest.mark.programs

EXAMPLES = DOCS / "examples"
URL = "ws://127.0.0.1:5000/ws"
WRITTEN = {f"graphs/{name}.json" for name in ("converted", "done", "plan")}
"""What the examples write into their folder."""
_CHANGING = re.compile(r"[0-9a-f-]{36}|\d+")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the examples, as the current directory."""
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _go_to(url: str, folder: Path) -> None:
    for file in folder.iterdir():
        if file.suffix in (".py", ".toml"):
            file.write_text(file.read_text("utf-8").replace(URL, url), "utf-8")


@asynccontextmanager
async def open_world(folder: Path, *devices: str) -> AsyncGenerator[dict[str, Process]]:
    """Run the documentation's server and devices as processes."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_process("server", "--port", "0", token=None))
        url = (await server.wait_for_output("\n")).strip()
        _go_to(url, folder)
        world = {"server": server}
        for device in devices:
            agent = open_process("agent", url, device, "--tools", "my_tools", token=None)
            world[device] = await stack.enter_async_context(agent)
            await world[device].wait_for_output("registered as")
        yield world


async def run(name: str) -> Outcome:
    """Run an example to its end."""
    return await call_process(python=(f"{name}.py",), token="")


def as_documented(name: str, outcome: Outcome) -> bool:
    """Return whether an example printed the documented lines, except for numbers and ids."""
    documented = (EXAMPLES / "output" / f"{name}.txt").read_text("utf-8")
    assert (outcome.status, outcome.err) == (0, "")
    assert _unchanging(outcome.out) == _unchanging(documented)
    return True


def _unchanging(text: str) -> list[str]:
    # Concurrent tasks can end in any order.
    return sorted(_CHANGING.sub("N", text).splitlines())


@pytest.mark.slow
async def test_examples_of_the_tutorial_print_the_documented_output(folder: Path) -> None:
    # More time, so that on a busy machine as well a task is on its device when it is cancelled.
    for name, limit in (("timeout", "timeout=1"), ("cancellation", "move_on_after(1")):
        source = (folder / f"{name}.py").read_text("utf-8")
        assert limit in source
        (folder / f"{name}.py").write_text(source.replace(limit, f"{limit[:-1]}5"), "utf-8")
    async with open_world(folder, "laptop") as world:
        for name in ("first_connection", "first_task", "many_at_once", "timeout", "cancellation"):
            assert as_documented(name, await run(name))
        assert await world["laptop"].wait_for_output("cancelled: Mail\n") == (
            "registered as laptop with 2 tools: greet, open_window\ncancelled: Browser\ncancelled: Mail\n"
        )


async def test_examples_with_several_devices_print_the_documented_output(folder: Path) -> None:
    async with open_world(folder, "laptop", "phone"):
        for name in ("embed", "several_devices", "reservation", "watch_events"):
            assert as_documented(name, await run(name))


async def test_connection_loss_example_reports_the_loss(folder: Path) -> None:
    async with open_world(folder, "laptop") as world:
        async with open_process(python=("connection_loss.py",)) as example:
            await example.wait_for_output("connected to laptop")
            world["server"].send_signal(signal.SIGKILL)
            assert (await example.end()).out.startswith("connected to laptop\nconnection lost: ")
        assert (await run("connection_loss")).out.startswith("cannot connect: ")


async def test_tokens_and_tls_example_connects(folder: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path("authority.pem")
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path("server.pem")
    (folder / "galaxy.token").write_text("s3cret\n", "utf-8")
    serve = (
        "server",
        "--port",
        "0",
        "--host",
        "localhost",
        "--certificate",
        "server.pem",
        "--token-file",
        "galaxy.token",
    )
    async with open_process(*serve, token=None) as server:
        url = (await server.wait_for_output("\n")).strip()
        port = url.rpartition(":")[2].partition("/")[0]
        for name in ("tokens_and_tls.py", "secure_devices.toml"):
            path = folder / name
            path.write_text(path.read_text("utf-8").replace("localhost:5000", f"localhost:{port}"), "utf-8")
        be_laptop = ("agent", f"wss://localhost:{port}/ws", "laptop", "--ca-file", "authority.pem")
        async with open_process(*be_laptop, "--token-file", "galaxy.token", token=None) as agent:
            await agent.wait_for_output("registered as")
            assert as_documented("tokens_and_tls", await run("tokens_and_tls"))
            devices = await call_process("devices", "secure_devices.toml", "--once", token="")
            assert (devices.status, devices.out.count("idle")) == (0, 1)


@pytest.mark.parametrize(
    ("example", "request_", "answer"),
    [
        ("own_agent", 'write_note {"text": "hello"}', "6\n"),
        ("agent_with_mcp", 'count_words {"text": "one two three"}', "3"),
    ],
)
async def test_agents_of_the_examples_run_their_tools(folder: Path, example: str, request_: str, answer: str) -> None:
    async with open_world(folder) as world:
        url = (await world["server"].wait_for_output("\n")).strip()
        async with open_process(python=(f"{example}.py",)) as agent:
            assert await agent.wait_for_output("registered\n") == "notebook is registered\n"
            done = await call_process("run", url, "notebook", request_, token="")
            assert (done.status, done.err) == (0, "")
            assert answer in done.out


async def test_tool_error_of_the_example_reaches_the_caller(folder: Path) -> None:
    async with open_world(folder) as world:
        url = (await world["server"].wait_for_output("\n")).strip()
        async with open_process(python=("own_agent.py",)) as agent:
            await agent.wait_for_output("registered")
            refused = await call_process("run", url, "notebook", "read_notes", token="")
            assert (refused.status, refused.out) == (1, "")
            assert "there are no notes yet: add one with write_note" in refused.err
            await call_process("run", url, "notebook", 'write_note {"text": "hello"}', token="")
            assert "hello" in (await call_process("run", url, "notebook", "read_notes", token="")).out


async def test_own_server_example_runs_its_session(folder: Path) -> None:
    source = folder / "own_server.py"
    source.write_text(source.read_text("utf-8").replace("5000", "0"), "utf-8")
    async with open_process(python=("own_server.py",)) as server:
        url = (await server.wait_for_output("\n")).strip()
        async with open_process("agent", url, "laptop", "--tools", "my_tools", token=None) as agent:
            await agent.wait_for_output("registered as")
            assert (await call_process("run", url, "laptop", "Ada", token="")).out == "Hello, Ada!\n"


def _example_files() -> list[str]:
    paths = [path for path in EXAMPLES.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return [name for name in (path.relative_to(EXAMPLES).as_posix() for path in paths) if name not in WRITTEN]


def test_each_example_is_shown_on_a_page() -> None:
    index = DOCS / "examples.md"
    pages = "".join(path.read_text("utf-8") for path in DOCS.rglob("*.md") if path != index)
    for name in _example_files():
        assert f"examples/{name}" in pages or name.startswith("readme_"), name


def test_index_of_examples_lists_each_program_and_file() -> None:
    index = (DOCS / "examples.md").read_text("utf-8")
    listed: list[str] = re.findall(r"^\| \[(\S+)\]\(examples/\1\)", index, re.MULTILINE)
    assert sorted(listed) == sorted(name for name in _example_files() if not name.startswith("output/"))
