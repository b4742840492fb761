"""Functions as tools: which functions are accepted, and where they run."""

from __future__ import annotations

import math
import threading
from contextvars import ContextVar
from enum import Enum, StrEnum
from functools import partial, wraps
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, Optional, Union, cast

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from galaxy_trio import ConfigError
from galaxy_trio.agent import FunctionTool, Tool, tool
from galaxy_trio.agent.tools import make_tools
from galaxy_trio.errors import ToolError
from galaxy_trio.messages import JSON, ToolType

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from decimal import Decimal  # noqa: TC004  # a type that there is not at run time


class Mode(StrEnum):
    FAST = "fast"
    SLOW = "slow"


class Level(Enum):
    LOW = 1
    HIGH = 2
    OFF = None


class Odd(Enum):
    PAIR = (1, 2)


@attrs.frozen
class Point:
    x: int
    y: float = 0.0


@attrs.frozen
class Region:
    corner: Point
    extra: str | None = None
    marks: list[Point] = attrs.field(factory=list[Point])
    area: float = attrs.field(init=False, default=0.0)


@attrs.frozen
class Tree:
    children: list[Tree]


@attrs.frozen
class Picky:
    text: str = attrs.field()

    @text.validator  # pyright: ignore[reportAttributeAccessIssue, reportUntypedFunctionDecorator, reportUnknownMemberType]
    def _check(self, _: object, text: str) -> None:
        if text == "key":
            raise KeyError(text)
        if text:
            raise ValueError("it must\nbe empty")


@attrs.frozen
class Unreadable:
    field: Decimal


def _taking(annotation: object) -> FunctionTool[..., object]:
    """Make a tool with one parameter of this type that returns it."""

    async def give_back(value: object) -> object:
        await trio.lowlevel.checkpoint()
        return value

    give_back.__annotations__["value"] = annotation
    return tool(give_back)


async def _refusal(refused: Tool, **parameters: JSON) -> str:
    with pytest.raises(ToolError) as caught:
        await refused.call(parameters)
    beginning = f"wrong parameters for tool {refused.name!r}: "
    assert str(caught.value).startswith(beginning)
    return str(caught.value).removeprefix(beginning)


def test_function_is_a_tool_with_its_own_name() -> None:
    @tool
    def take_screenshot(monitor: int = 0) -> str:
        return f"monitor {monitor}"

    made: Tool = take_screenshot
    assert (made.name, made.namespace) == ("take_screenshot", None)
    assert (made.tool_type, made.timeout) == (ToolType.ACTION, 60)
    # It can still be called like the function.
    assert take_screenshot(2) == "monitor 2"
    assert take_screenshot(monitor=3) == "monitor 3"


def test_name_type_and_timeout_can_be_given() -> None:
    @tool(name="look", tool_type=ToolType.DATA_COLLECTION, timeout=math.inf)
    async def look_around() -> None:
        pass

    assert (look_around.name, look_around.tool_type) == ("look", ToolType.DATA_COLLECTION)
    assert look_around.timeout == math.inf


@pytest.mark.parametrize("timeout", [0, -1, math.nan])
def test_invalid_timeout_raises_config_error(timeout: float) -> None:
    with pytest.raises(ConfigError, match="timeout must be above 0"):
        tool(lambda: None, name="f", timeout=timeout)


@pytest.mark.parametrize("name", ["", "x" * 1001, "\ud800"])
def test_invalid_name_raises_config_error(name: str) -> None:
    with pytest.raises(ConfigError, match="a tool's name"):
        tool(lambda: None, name=name)


def test_functions_tools_and_objects_with_their_members_are_accepted() -> None:
    class Own:
        name, namespace, tool_type, timeout = "own", "mine", ToolType.ACTION, 5.0

        async def call(self, parameters: dict[str, JSON]) -> object:
            return parameters

    def plain() -> None:
        pass

    own, made = Own(), tool(plain, name="made")
    tools = make_tools([plain, made, own])
    assert list(tools) == ["plain", "made", "own"]
    assert tools["made"] is made
    assert tools["own"] is own


def test_duplicate_name_raises_config_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match="two tools have the name 'press': rename one of them"):
        make_tools([tool(lambda: None, name="press"), tool(lambda: None, name="press")])


def test_class_is_called_like_a_function_even_if_its_instances_are_tools() -> None:
    class Arm:
        name, namespace, tool_type, timeout = "arm", None, ToolType.ACTION, 1.0

        async def call(self, parameters: dict[str, JSON]) -> object:
            return parameters

    assert {name: type(made) for name, made in make_tools([Arm, Arm()]).items()} == {"Arm": FunctionTool, "arm": Arm}


@pytest.mark.parametrize("missing", ["namespace", "tool_type", "timeout"])
def test_object_that_lacks_a_member_of_tool_is_refused(missing: str) -> None:
    members = {"name": "arm", "namespace": None, "tool_type": ToolType.ACTION, "timeout": 1.0, "call": print}
    del members[missing]
    with pytest.raises(ConfigError, match="or an object with the members of Tool"):
        make_tools([cast("Tool", SimpleNamespace(**members))])


def test_tool_without_a_name_raises_config_error() -> None:
    class Nameless:
        name, namespace, tool_type, timeout = "", None, ToolType.ACTION, 5.0

        async def call(self, parameters: dict[str, JSON]) -> object:
            return parameters

    with pytest.raises(ConfigError, match="a tool's name has 1 to 1000 characters"):
        make_tools([Nameless()])


def test_object_that_is_not_callable_raises_config_error() -> None:
    with pytest.raises(ConfigError, match="5 is not a tool"):
        make_tools([cast("Tool", 5)])


def test_callable_without_a_name_needs_one() -> None:
    with pytest.raises(ConfigError, match="has no name"):
        tool(partial(print, "x"))


def test_generator_function_raises_config_error() -> None:
    async def stream() -> AsyncGenerator[int]:
        yield 1

    def count() -> Generator[int]:
        yield 1

    class Counting:
        def __call__(self) -> Generator[int]:
            yield 1

    for yielding in (stream, count):
        with pytest.raises(ConfigError, match=f"tool '{yielding.__name__}' is a generator: return the result instead"):
            tool(yielding)
    with pytest.raises(ConfigError, match="tool 'counting' yields"):
        tool(Counting(), name="counting")


class Robot:
    def __init__(self) -> None:
        self.heights: list[float] = []

    def raise_arm(self, height: float) -> list[float]:
        self.heights.append(height)
        return self.heights

    async def __call__(self, mode: Mode) -> Mode:
        await trio.lowlevel.checkpoint()
        return mode


async def test_methods_partials_and_objects_can_be_tools() -> None:
    robot = Robot()

    def add(first: int, second: int) -> int:
        return first + second

    assert await tool(robot.raise_arm).call({"height": 2}) == [2.0]
    assert await tool(robot, name="robot").call({"mode": "slow"}) is Mode.SLOW
    assert await tool(partial(add, second=5), name="add_5").call({"first": 1}) == 6


async def test_wrapped_function_has_the_parameters_of_the_one_that_it_wraps() -> None:
    def shouting(function: Callable[..., str]) -> Callable[..., str]:
        @wraps(function)
        def shout(*args: Any, **kwargs: Any) -> str:
            return function(*args, **kwargs).upper()

        return shout

    @tool
    @shouting
    def greet(mode: Mode) -> str:
        return f"hello, {mode}"

    assert await greet.call({"mode": "fast"}) == "HELLO, FAST"
    assert await _refusal(greet, mode="x") == "mode: expected one of 'fast', 'slow', got the string 'x'"


def test_positional_only_parameter_raises_config_error_that_names_it() -> None:
    def first(one: int, /) -> None:
        pass

    def many(*rest: int) -> None:
        pass

    with pytest.raises(ConfigError, match="parameter 'one' of tool 'first' cannot be given by name"):
        tool(first)
    with pytest.raises(ConfigError, match="parameter 'rest' of tool 'many' cannot be given by name"):
        tool(many)


def test_function_whose_parameters_cannot_be_read_raises_config_error() -> None:
    with pytest.raises(ConfigError, match="the parameters of tool 'max' cannot be read"):
        tool(max)


def test_undefined_annotation_raises_config_error_that_names_the_parameter() -> None:
    def paint(size: int, colour: Decimal) -> None:
        pass

    with pytest.raises(
        ConfigError, match="the annotation of parameter 'colour' of tool 'paint' cannot be used: NameError"
    ):
        tool(paint)


async def test_annotation_of_the_result_may_be_undefined() -> None:
    @tool
    async def paint(size: int) -> Decimal | int:
        return size

    assert await paint.call({"size": 3}) == 3


@pytest.mark.parametrize(
    "annotation",
    [
        set[int],
        tuple[int, ...],
        dict[int, str],
        bytes,
        list[bytes],
        bytes | None,
        Odd,
        Literal[b"x"],
        Tree,
        Unreadable,
        list["Nowhere"],  # type: ignore[name-defined]  # noqa: F821  # there is none
        5,
    ],
    ids=str,
)
def test_annotation_without_a_json_form_raises_config_error(annotation: object) -> None:
    with pytest.raises(ConfigError, match="the annotation of parameter 'value' of tool 'give_back' cannot be used: "):
        _taking(annotation)


def test_recursive_class_raises_config_error() -> None:
    with pytest.raises(ConfigError, match="Tree holds itself"):
        _taking(Tree)
    # The second try must not mistake it for a class that is being read.
    with pytest.raises(ConfigError, match="Tree holds itself"):
        _taking(Tree)


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
    came = await _taking(annotation).call({"value": value})
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
    refusal = await _refusal(_taking(annotation), value=value)
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
    assert await _refusal(draw, at={"x": 1}, a="1") == "'a': expected an integer, got the string '1'"


async def test_missing_parameter_is_named_with_what_is_expected() -> None:
    @tool
    async def press(key: str, count: "int") -> None:  # noqa: UP037
        raise AssertionError("not reached")

    assert await _refusal(draw) == "at is missing: expected Point"
    assert await _refusal(press, key="a") == "count is missing: expected 'int'"


async def test_parameter_without_an_annotation_takes_any_value() -> None:
    untyped = _taking(None)
    del untyped.function.__annotations__["value"]
    untyped = tool(untyped.function)
    assert await untyped.call({"value": [1, None]}) == [1, None]
    assert await _refusal(untyped) == "value is missing: expected any value"


async def test_unknown_parameter_is_named_with_the_known_ones() -> None:
    @tool
    async def press(key: str, count: int = 1) -> None:
        raise AssertionError("not reached")

    @tool
    async def stop() -> None:
        raise AssertionError("not reached")

    assert await _refusal(press, kye="a") == "'kye' is not known: expected no more than key, count"
    assert await _refusal(stop, key="a") == "'key' is not known: expected no more than nothing"


@pytest.mark.parametrize("taken", [_taking(dict[str, int]), tool(lambda: None, name="f"), draw])
async def test_refused_value_is_shortened_in_the_error(taken: Tool) -> None:
    large = "y" * 10_000
    given: dict[str, JSON] = {large: large, "at": {"x": 1}, "value": {large: large}}
    refusal = await _refusal(taken, **given)
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
    parameters = _taking(annotation)._parameters
    if _fits(value, annotation):
        assert parameters.check({"value": value}) == {"value": value}
    else:
        with pytest.raises(ToolError):
            parameters.check({"value": value})


async def test_async_function_runs_in_the_event_loop_and_a_sync_one_in_a_thread() -> None:
    @tool
    async def here() -> threading.Thread:
        await trio.lowlevel.checkpoint()
        return threading.current_thread()

    @tool
    def there() -> threading.Thread:
        return threading.current_thread()

    assert await here.call({}) is threading.current_thread()
    assert await there.call({}) is not threading.current_thread()


async def test_thread_has_the_context_of_its_caller() -> None:
    seen: ContextVar[int] = ContextVar("seen")
    seen.set(5)

    @tool
    def look() -> int:
        return seen.get()

    assert await look.call({}) == 5


async def test_exception_of_a_function_comes_out_as_the_same_object() -> None:
    error = ValueError("mine")

    @tool
    def fail() -> None:
        raise error

    with pytest.raises(ValueError, match="mine") as caught:
        await fail.call({})
    assert caught.value is error
