"""The encoding of results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

import galaxy_trio.daemon.attempts
from galaxy_trio.daemon.results import TooDeep, encode
from tests.daemon.support.daemon import open_daemon

if TYPE_CHECKING:
    from pathlib import Path

    from galaxy_trio.messages import JSON

pytestmark = pytest.mark.daemon


@pytest.mark.parametrize(
    ("result", "small"),
    [
        (None, True),
        (["a", {"b": 1.5}], True),
        ("x" * 4_000, True),
        ("x" * 5_000, False),
        ([0] * 5_000, False),
        ({str(number): None for number in range(2_000)}, False),
        ([["x" * 100] * 10] * 10, False),
    ],
)
async def test_only_large_results_are_encoded_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, result: JSON, small: bool
) -> None:
    threads: list[object] = []
    run_sync = trio.to_thread.run_sync

    async def counting(*arguments: object, **keywords: object) -> object:
        threads.append(arguments[0])
        return await run_sync(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(trio.to_thread, "run_sync", counting)
    assert json.loads(await encode(result)) == result
    assert len(threads) == (0 if small else 1)


@pytest.mark.parametrize("size", [0, 10_000])
async def test_result_that_is_nested_too_deep_cannot_be_encoded(size: int) -> None:
    result: JSON = "x" * size
    for _ in range(200_000 if size else 40):
        result = [result]
    if not size:
        assert json.loads(await encode(result)) == result
        return
    with pytest.raises(TooDeep, match="the result is nested too deep to be stored"):
        await encode(result)


async def test_task_whose_result_is_nested_too_deep_fails_and_the_daemon_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def encode_deep(result: JSON) -> str:
        assert isinstance(result, dict)
        deep: JSON = []
        for _ in range(200_000):
            deep = [deep]
        return await encode(deep if result["echo"] == "deep" else result)

    monkeypatch.setattr(galaxy_trio.daemon.attempts, "encode", encode_deep)
    async with open_daemon(tmp_path, "d1") as daemon:
        task = await daemon.ended_task(await daemon.submit("echo deep"))
        assert (task["state"], task["result_size"]) == ("failed", None)
        assert task["error"] == "the task ended as completed, but the result is nested too deep to be stored"
        assert (await daemon.ended_task(await daemon.submit("echo x")))["state"] == "completed"
