"""What ``import galaxy_trio`` gives, and what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

import galaxy_trio
from galaxy_trio import DeviceInfo, Platform
from galaxy_trio.agent import open_device_connection
from galaxy_trio.server import ServerTask, open_server
from tests.support.paths import ROOT
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from pathlib import Path

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_all_public_names_are_there_and_listed() -> None:
    for name in galaxy_trio.__all__:
        assert getattr(galaxy_trio, name) is not None
    assert set(galaxy_trio.__all__) <= set(dir(galaxy_trio))


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'galaxy_trio' has no attribute 'open_galaxy'"):
        _ = galaxy_trio.open_galaxy


def test_who_needs_one_connection_imports_no_constellation() -> None:
    code = "import sys, galaxy_trio; print('galaxy_trio.constellation.constellation' in sys.modules)"
    first = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603  # ourselves
    assert first.stdout == "False\n"


def test_the_readmes_examples_are_those_of_the_documentation() -> None:
    files = {path.read_text("utf-8") for path in (ROOT / "docs" / "examples").glob("readme_*.py")}
    assert set(EXAMPLES) == files
    assert len(files) == 2


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.split("await ", 1)[-1][:30] for example in EXAMPLES])
async def test_the_examples_of_the_readme_run(example: str, tmp_path: Path) -> None:
    async def session(task: ServerTask) -> str:
        await trio.lowlevel.checkpoint()
        return f"done: {task.request}"

    async with open_server(session=session) as server:
        async with trio.open_nursery() as nursery:
            for device_id, platform in (("device_001", Platform.WINDOWS), ("linux_agent_1", Platform.LINUX)):
                info = DeviceInfo(device_id, platform, hostname="pc", cpu_count=8, supported_features=["server"])
                await nursery.start(partial(_be_device, server.url, info))
            example = example.replace("ws://127.0.0.1:5000/ws", server.url)
            for name, text in re.findall(r"```(?:toml|yaml) title=\"?([\w.]+)\"?\n(.*?)```", README, re.DOTALL):
                (tmp_path / name).write_text(text.replace("ws://127.0.0.1:5000/ws", server.url), encoding="utf-8")
            with trio.fail_after(SECONDS):
                completed = await trio.run_process(
                    [sys.executable, "-c", example], capture_stdout=True, capture_stderr=True, check=False, cwd=tmp_path
                )
            assert (completed.returncode, completed.stderr) == (0, b"")
            assert b"done: " in completed.stdout
            nursery.cancel_scope.cancel()


async def _be_device(url: str, info: DeviceInfo, *, task_status: trio.TaskStatus[None]) -> None:
    async with open_device_connection(url, info.device_id, system_info=info) as connection:
        task_status.started()
        await connection.wait_closed()
