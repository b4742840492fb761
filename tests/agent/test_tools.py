"""Functions as tools."""

from __future__ import annotations

import math
import threading
from contextvars import ContextVar
from functools import partial, wraps
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest
import trio

from galaxy_trio import ConfigError
from galaxy_trio.agent import FunctionTool, Tool, tool
from galaxy_trio.agent.tools import make_tools
from galaxy_trio.messages import JSON, ToolType
from tests.agent.support.annotations import Mode, Odd, Tree, Unreadable, make_echo, refusal_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from decimal import Decimal  # undefined at run time


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
    assert [each.name for each in tools] == ["plain", "made", "own"]
    assert tools[1:] == [made, own]


def test_duplicate_name_raises_config_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match="two tools have the name 'press': rename one of them"):
        make_tools([tool(lambda: None, name="press"), tool(lambda: None, name="press")])


def test_class_is_called_like_a_function_even_if_its_instances_are_tools() -> None:
    class Arm:
        name, namespace, tool_type, timeout = "arm", None, ToolType.ACTION, 1.0

        async def call(self, parameters: dict[str, JSON]) -> object:
            return parameters

    assert [(made.name, type(made)) for made in make_tools([Arm, Arm()])] == [("Arm", FunctionTool), ("arm", Arm)]


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
    with pytest.raises(ConfigError, match="tool 'counting' is a generator"):
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
    assert await refusal_of(greet, mode="x") == "mode: expected one of 'fast', 'slow', got the string 'x'"


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
        make_echo(annotation)


def test_recursive_class_raises_config_error() -> None:
    with pytest.raises(ConfigError, match="Tree holds itself"):
        make_echo(Tree)
    # The second try must not mistake it for a class that is being read.
    with pytest.raises(ConfigError, match="Tree holds itself"):
        make_echo(Tree)


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
