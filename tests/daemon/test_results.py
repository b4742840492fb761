"""The encoding of results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

from galaxy_trio._codec.sliced_json import MAX_DEPTH
from galaxy_trio.daemon.results import encode

if TYPE_CHECKING:
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
async def test_deepest_result_that_a_message_can_have_is_encoded(size: int) -> None:
    result: JSON = "x" * size
    for _ in range(MAX_DEPTH):
        result = [result]
    assert json.loads(await encode(result)) == result
