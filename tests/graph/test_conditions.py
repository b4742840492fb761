"""Conditions of edges on results."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from galaxy_trio.errors import GraphError
from galaxy_trio.graph import Condition

if TYPE_CHECKING:
    from galaxy_trio.graph.conditions import Comparison
    from galaxy_trio.messages import JSON

RESULT: JSON = {
    "code": 3,
    "ok": True,
    "text": "done",
    "empty": "",
    "null": None,
    "a/b": {"m~n": 1},
    "": "unnamed",
    "list": [10, {"x": [1, 2]}],
    "dict": {"x": 1, "y": [True]},
}


@pytest.mark.parametrize(
    ("at", "test", "value", "expected"),
    [
        ("", "exists", None, True),
        ("/", "eq", "unnamed", True),
        ("/code", "exists", None, True),
        ("/null", "exists", None, True),
        ("/missing", "exists", None, False),
        ("/a~1b/m~0n", "eq", 1, True),
        ("/list/0", "eq", 10, True),
        ("/list/1/x/1", "eq", 2, True),
        ("/list/2", "exists", None, False),
        ("/list/00", "exists", None, False),
        ("/list/-", "exists", None, False),
        ("/list/x", "exists", None, False),
        ("/code/x", "exists", None, False),
        ("/missing/x", "exists", None, False),
        ("/text/0", "exists", None, False),
        ("/code", "truthy", None, True),
        ("/null", "truthy", None, False),
        ("/empty", "truthy", None, False),
        ("/missing", "truthy", None, False),
        ("/code", "eq", 3.0, True),
        ("/code", "eq", "3", False),
        ("/code", "ne", 4, True),
        ("/code", "ne", 3, False),
        ("/missing", "ne", 3, False),
        ("/ok", "eq", True, True),
        ("/ok", "eq", 1, False),
        ("/ok", "eq", "true", False),
        ("/a~1b/m~0n", "eq", True, False),
        ("/list", "eq", [10, {"x": [1, 2.0]}], True),
        ("/list", "eq", [10], False),
        ("/list", "eq", 10, False),
        ("/list", "eq", {"x": 1}, False),
        ("/code", "eq", [3], False),
        ("/list", "eq", [10, {"x": [1, True]}], False),
        ("/dict", "eq", {"y": [True], "x": 1}, True),
        ("/dict", "eq", {"y": [1], "x": 1}, False),
        ("/dict", "eq", {"x": 1}, False),
        ("/dict", "eq", [1], False),
        ("/code", "in", [1, 2, 3], True),
        ("/code", "in", [1, "3"], False),
        ("/code", "in", [], False),
        ("/code", "lt", 3, False),
        ("/code", "lt", 3.5, True),
        ("/code", "le", 3, True),
        ("/code", "le", 2, False),
        ("/code", "gt", 2, True),
        ("/code", "gt", 3, False),
        ("/code", "ge", 3, True),
        ("/code", "ge", 4, False),
        ("/text", "gt", "ant", True),
        ("/text", "lt", "ant", False),
        ("/text", "gt", 1, False),
        ("/code", "lt", "9", False),
        ("/ok", "ge", 0, False),
        ("/null", "le", None, False),
        ("/missing", "lt", 1, False),
    ],
)
def test_condition_compares_one_place_of_the_result(at: str, test: Comparison, value: JSON, expected: bool) -> None:
    assert Condition(at, test, value).is_met(RESULT) is expected


@pytest.mark.parametrize("pointer", ["code", "/a~2b", "/a~", "#/code"])
def test_place_that_is_no_json_pointer_is_refused(pointer: str) -> None:
    with pytest.raises(GraphError, match="JSON pointer such as '/exit_code', not"):
        Condition(pointer, "exists")


def test_unknown_comparison_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(GraphError, match="one of eq, ne, lt, le, gt, ge, in, exists, truthy, not 'like'"):
        Condition("/code", cast("Comparison", "like"), "x")


@pytest.mark.parametrize("value", [None, 3, "abc", {"a": 1}])
def test_search_needs_a_list(value: JSON) -> None:
    with pytest.raises(GraphError, match="'in' has a list of values"):
        Condition("/code", "in", value)
