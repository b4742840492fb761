"""The memory that a JSON value takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from galaxy_trio._json_size import json_size
from tests.support.memory import traced_memory

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

LIMIT = 2**30


@pytest.mark.parametrize(
    "value",
    [
        "x" * 1_000_000,
        "😀" * 100_000,
        [f"{number:10}" for number in range(10_000)],
        [[] for _ in range(10_000)],
        {f"{number:10}": [number + 1_000.5] for number in range(10_000)},
        [10**300 + number for number in range(3_000)],
    ],
    ids=["text", "wide text", "texts", "lists", "object", "integers"],
)
def test_size_is_that_of_a_decoded_value_in_memory(value: JSON) -> None:
    text = json.dumps(value)
    with traced_memory() as memory:
        before = memory.now
        decoded = json.loads(text)
        taken = memory.now - before
    assert taken * 0.9 < json_size(decoded, LIMIT) < taken * 1.3


def test_counting_ends_at_the_limit() -> None:
    # It contains itself, so it is endless.
    endless: list[object] = [{}]
    endless[0] = {"again": endless}
    assert 10_000 < json_size(endless, 10_000) < 11_000
    assert json_size([0] * 1_000_000, 10_000) > 10_000


def test_value_within_the_limit_is_counted_whole() -> None:
    assert json_size([], 0) == json_size([], LIMIT)
    assert json_size({"a": ["b"]}, LIMIT) > json_size({"a": []}, LIMIT) > json_size({}, LIMIT)
