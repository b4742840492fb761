"""A command's parameters are checked against the function's annotations."""

from __future__ import annotations

from typing import Any, Literal, Optional, Union, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio.agent import Tool, tool
from galaxy_trio.errors import ToolError
from galaxy_trio.messages import JSON
from tests.agent.support.annotations import Level, Mode, Picky, Point, Region, make_echo, refusal_of


@pytest.mark.parametrize(
    ("annotation", "value", "made"),
    [
        (str, "x", "x"),
        (int, 5, 5),
        (int, 10**30, 10**30),
        (float, 2.5, 2.5),
        (float, 5, 5.0),
        (bool, True, True),
        (None, None, None),
        (str | None, None, None),
        (str | None, "x", "x"),
        (Optional[int], 5, 5),  # noqa: UP045
        (Union[int, str], "5", "5"),  # noqa: UP007
        (int | float, 5, 5),
        (float | int, 5, 5),
        (float | str, 5, 5.0),
        (bool | float, 5, 5.0),
        (bool | float, True, True),
        (bool | int | None, None, None),
        (Mode, "slow", Mode.SLOW),
        (Mode | str, "slow", Mode.SLOW),
        (Mode | str, "medium", "medium"),
        (str | Mode | int, "slow", Mode.SLOW),
        (Mode | None, None, None),
        (Level, 2, Level.HIGH),
        (Level, None, Level.OFF),
        (Literal["a", 5, True] | None, "a", "a"),
        (Literal["a", 5, True], 5, 5),
        (Literal["a", 5, True], True, True),
        (Literal["a", 5, True, None], None, None),  # noqa: PYI061
        (Literal[1, True], True, True),
        (Literal[1, True], 1, 1),
        (list, [1, "x"], [1, "x"]),
        (list[int], [1, 2], [1, 2]),
        (list[float], [1, 2.5], [1.0, 2.5]),
        (list[list[str]], [["a"], []], [["a"], []]),
        (list[int] | list[str], ["a"], ["a"]),
        (dict, {"a": 1}, {"a": 1}),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (dict[str, Point], {"a": {"x": 1}}, {"a": Point(1)}),
        (dict[str, JSON], {"a": [1]}, {"a": [1]}),
        (dict[str, Any], {"a": [1]}, {"a": [1]}),
        (Point, {"x": 1, "y": 2}, Point(1, 2.0)),
        (Region, {"corner": {"x": 1}, "marks": [{"x": 2}]}, Region(Point(1), None, [Point(2)])),
        (Region, {"corner": {"x": 1}, "extra": "e"}, Region(Point(1), "e")),
        (Point | Region, {"corner": {"x": 1}}, Region(Point(1))),
        (Point | str, "here", "here"),
        (object, [1, None], [1, None]),
        (Any, {"a": None}, {"a": None}),
        (JSON, {"a": [None, 1.5, {"b": "c"}]}, {"a": [None, 1.5, {"b": "c"}]}),
        (list[JSON], [1, [None]], [1, [None]]),
        (Picky, {"text": ""}, Picky("")),
    ],
    ids=str,
)
async def test_values_that_fit_their_annotation_are_passed_on(annotation: object, value: JSON, made: object) -> None:
    came = await make_echo(annotation).call({"value": value})
    assert came == made
    assert type(came) is type(made)


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        (str, 5, "value: expected a string, got the integer 5"),
        (int, True, "value: expected an integer, got the boolean True"),
        (int, "5", "value: expected an integer, got the string '5'"),
        (int, 5.0, "value: expected an integer, got the number 5.0"),
        (float, "1", "value: expected a number, got the string '1'"),
        (float, True, "value: expected a number, got the boolean True"),
        (float, 10**400, "value: expected a number, got the integer 1000"),
        (bool, 1, "value: expected a boolean, got the integer 1"),
        (None, 0, "value: expected null, got the integer 0"),
        (str, None, "value: expected a string, got null"),
        (str | None, 5, "value: expected a string or null, got the integer 5"),
        (int | str | None, [], "value: expected an integer or a string or null, got the list []"),
        (bool | float, "x", "value: expected a boolean or a number, got the string 'x'"),
        (Mode, "medium", "value: expected one of 'fast', 'slow', got the string 'medium'"),
        (Level, True, "value: expected one of 1, 2, null, got the boolean True"),
        (Literal[1, "a"], True, "value: expected one of 1, 'a', got the boolean True"),
        (Literal[1, "a"], [1], "value: expected one of 1, 'a', got the list [1]"),
        (list, {"a": 1}, "value: expected a list, got the object {'a': 1}"),
        (list[int], [1, "x"], "value[1]: expected an integer, got the string 'x'"),
        (list[int] | str, [1, "x"], "value[1]: expected an integer, got the string 'x'"),
        (list[int] | list[bool], ["x"], "value: expected an integer or a boolean, got the list ['x']"),
        (bool | int | float | str | list[str] | dict[str, int], [1], "value[0]: expected a string, got the integer 1"),
        (dict, [], "value: expected an object, got the list []"),
        (dict[str, int], [], "value: expected an object, got the list []"),
        (dict[str, int], {"a": "x"}, "value.'a': expected an integer, got the string 'x'"),
        (Point, {"y": 1}, "value.x is missing"),
        (Point, {"x": "1"}, "value.x: expected an integer, got the string '1'"),
        (Point, {"x": 1, "z": 2}, "value.'z' is not known: expected no more than x, y"),
        (Point, [1], "value: expected an object, got the list [1]"),
        (Region, {"corner": {"x": 1}, "area": 5}, "value.'area' is not known: expected no more than corner, extra, marks"),
        (Region, {"corner": {"x": 1}, "marks": [{"y": 1}]}, "value.marks[0].x is missing"),
        (Picky, {"text": "x"}, "value: ValueError: it must\nbe empty"),
        (Picky, {"text": "key"}, "value: KeyError: 'key'"),
    ],
    ids=str,
)  # fmt: skip
async def test_values_that_do_not_fit_are_refused_by_name(annotation: object, value: JSON, said: str) -> None:
    refusal = await refusal_of(make_echo(annotation), value=value)
    if value == 10**400:
        refusal = refusal[: len(said)]
    assert refusal == said


@tool
async def draw(at: Point, colour: str = "red", *, width: float = 1.5, **labels: int) -> object:
    await trio.lowlevel.checkpoint()
    return at, colour, width, labels


async def test_defaults_keywords_and_further_names_work_as_in_python() -> None:
    assert await draw.call({"at": {"x": 1}}) == (Point(1), "red", 1.5, {})
    given: dict[str, JSON] = {"width": 2, "at": {"x": 1}, "colour": "blue", "a": 1, "b": 2}
    assert await draw.call(given) == (Point(1), "blue", 2.0, {"a": 1, "b": 2})


async def test_further_names_are_checked_against_their_annotation() -> None:
    assert await refusal_of(draw, at={"x": 1}, a="1") == "'a': expected an integer, got the string '1'"


async def test_missing_parameter_is_named_with_what_is_expected() -> None:
    @tool
    async def press(key: str, count: "int") -> None:  # noqa: UP037
        raise AssertionError("not reached")

    assert await refusal_of(draw) == "at is missing: expected Point"
    assert await refusal_of(press, key="a") == "count is missing: expected 'int'"


async def test_parameter_without_an_annotation_takes_any_value() -> None:
    untyped = make_echo(None)
    del untyped.function.__annotations__["value"]
    untyped = tool(untyped.function)
    assert await untyped.call({"value": [1, None]}) == [1, None]
    assert await refusal_of(untyped) == "value is missing: expected any value"


async def test_unknown_parameter_is_named_with_the_known_ones() -> None:
    @tool
    async def press(key: str, count: int = 1) -> None:
        raise AssertionError("not reached")

    @tool
    async def stop() -> None:
        raise AssertionError("not reached")

    assert await refusal_of(press, kye="a") == "'kye' is not known: expected no more than key, count"
    assert await refusal_of(stop, key="a") == "'key' is not known: expected no more than nothing"


@pytest.mark.parametrize("taken", [make_echo(dict[str, int]), tool(lambda: None, name="f"), draw])
async def test_refused_value_is_shortened_in_the_error(taken: Tool) -> None:
    large = "y" * 10_000
    given: dict[str, JSON] = {large: large, "at": {"x": 1}, "value": {large: large}}
    refusal = await refusal_of(taken, **given)
    assert len(refusal) < 200


_SIMPLE: list[object] = [str, int, float, bool, None]


def _union(members: list[object]) -> object:
    return Union[tuple(members)]  # noqa: UP007


_ANNOTATIONS = st.recursive(
    st.sampled_from(_SIMPLE),
    lambda inner: st.one_of(
        inner.map(lambda each: list[each]),  # type: ignore[valid-type]
        inner.map(lambda each: dict[str, each]),  # type: ignore[valid-type]
        st.lists(inner, min_size=1, max_size=3).map(_union),
    ),
    max_leaves=5,
)

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0]) | st.sampled_from(["", "1", "true"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)


def _fits(value: object, annotation: object) -> bool:
    """An independent check whether a value fits a type."""
    if annotation in (None, type(None)):
        return value is None
    if annotation is float:
        return type(value) in (int, float)
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return type(value) is annotation
    arguments = cast("tuple[object, ...]", annotation.__args__)  # type: ignore[attr-defined]
    origin: object = getattr(annotation, "__origin__", Union)
    if origin is list:
        return isinstance(value, list) and all(_fits(each, arguments[0]) for each in cast("list[object]", value))
    if origin is dict:
        members = cast("dict[str, object]", value)
        return isinstance(value, dict) and all(_fits(each, arguments[1]) for each in members.values())
    return any(_fits(value, argument) for argument in arguments)


@given(_ANNOTATIONS, _VALUES)
def test_any_value_is_passed_on_unchanged_if_and_only_if_it_fits(annotation: object, value: JSON) -> None:
    signature = make_echo(annotation)._signature
    if _fits(value, annotation):
        assert signature.check({"value": value}) == {"value": value}
    else:
        with pytest.raises(ToolError):
            signature.check({"value": value})
