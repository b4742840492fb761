"""What a device can be asked to do: plain functions, and whatever else can be called by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeGuard,
    TypeVar,
    cast,
    overload,
    runtime_checkable,
)

import attrs

from galaxy_trio._arguments import check_name, check_positive
from galaxy_trio.agent.signature import Parameters
from galaxy_trio.agent.thread_limiter import ToolThreads, current_threads
from galaxy_trio.errors import ConfigError
from galaxy_trio.messages import JSON, ToolType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

TIMEOUT: Final = 60.0
"""Seconds that a function may take, unless told otherwise."""
MAX_THREADS: Final = 8
"""Threads for functions that are not async, unless told otherwise."""
_MAX_NAME: Final = 1_000

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


@runtime_checkable
class Tool(Protocol):
    """Something that a command can call."""

    @property
    def name(self) -> str:
        """What commands call it by; unique on a device."""
        ...

    @property
    def namespace(self) -> str | None:
        """Where it comes from, for the result; None for plain functions."""
        ...

    @property
    def tool_type(self) -> ToolType:
        """Whether it changes something on the device or only looks."""
        ...

    @property
    def timeout(self) -> float:
        """Seconds that a call may take; `math.inf` for no limit."""
        ...

    async def call(self, parameters: dict[str, JSON]) -> object:
        """Do it.

        Cancelled when its time is up, when the task that the command belongs to ends, and when the connection goes.

        Args:
            parameters: What the command gives, not yet checked.

        Returns:
            The command's result: any JSON.

        Raises:
            ToolError: Its text is for the peer's eyes as it is.
            Exception: Anything else fails the command too, and is logged with its traceback.
        """
        ...


class ToolSource(Protocol):
    """Where tools come from; asked anew for each command."""

    def tools(self) -> Sequence[Tool]:
        """Those that there are now. Must not block."""
        ...


@attrs.frozen(eq=False)
class FunctionTool(Generic[P, R_co]):
    """A function as a `Tool`. Made by `tool`; it can still be called like the function.

    A function that is not async runs in a thread. Its thread cannot be stopped: when its time is up, or its task ends, it is left to its
    end, and what it returns is dropped. Until then it keeps one of the agent's `max_threads` places.
    """

    function: Callable[P, R_co]
    name: str
    tool_type: ToolType
    timeout: float
    namespace: str | None
    _parameters: Parameters = attrs.field(repr=False)
    _is_async: bool = attrs.field(repr=False)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function as it is, unchecked and without a limit of time."""
        return self.function(*args, **kwargs)

    async def call(self, parameters: dict[str, JSON]) -> object:
        """Check the parameters, and call the function; see `Tool.call`."""
        call = partial(cast("Callable[..., object]", self.function), **self._parameters.check(parameters))
        if self._is_async:
            return await cast("Awaitable[object]", call())
        try:
            threads = current_threads.get()
        except LookupError:
            # Called outside of an agent, as in a test.
            threads = ToolThreads(1)
        return await threads.run(call)


# What a plain function is as a tool; its parameters and result are its own.
AnyFunctionTool: TypeAlias = "FunctionTool[..., object]"


@overload
def tool(
    function: Callable[P, R_co], *, name: str | None = None, tool_type: ToolType = ..., timeout: float = ...
) -> FunctionTool[P, R_co]: ...


@overload
def tool(
    function: None = None, *, name: str | None = None, tool_type: ToolType = ..., timeout: float = ...
) -> Callable[[Callable[P, R_co]], FunctionTool[P, R_co]]: ...


def tool(
    function: Callable[P, R_co] | None = None,
    *,
    name: str | None = None,
    tool_type: ToolType = ToolType.ACTION,
    timeout: float = TIMEOUT,
) -> FunctionTool[P, R_co] | Callable[[Callable[P, R_co]], FunctionTool[P, R_co]]:
    """Make a tool of a function; a decorator, with arguments or without.

    Its parameters are given by name, and checked against its annotations: `str`, `int`, `float`, `bool`, None, lists, dicts with strings
    as keys, unions, `Literal`, enums (by value), attrs classes (as objects), and `JSON` or no annotation for any value. A command with
    other parameters fails, and says why.

    An async function is cancelled when its time is up. One that is not async runs in a thread that cannot be stopped: see `FunctionTool`.

    Args:
        function: Sync or async. Its result is any JSON; it may raise `ToolError` with what the peer is to know.
        name: What commands call it by; its own name if not given.
        tool_type: Whether it changes something on the device or only looks.
        timeout: Seconds that a call may take; `math.inf` for no limit.

    Raises:
        ConfigError: The function cannot be a tool: says which parameter stands in the way.
    """
    if function is None:
        return partial(_function_tool, name=name, tool_type=tool_type, timeout=timeout)
    return _function_tool(function, name=name, tool_type=tool_type, timeout=timeout)


def _function_tool(
    function: Callable[P, R_co], *, name: str | None, tool_type: ToolType, timeout: float
) -> FunctionTool[P, R_co]:
    if not callable(function):
        raise ConfigError(f"a tool is a function, or an object with the members of Tool, and {function!r} is neither")
    if name is None:
        name = cast("str | None", getattr(function, "__name__", None))
    if name is None:
        raise ConfigError(f"{function!r} has no name of its own: give it one with tool(…, name=…)")
    check_name("tool's name", name, _MAX_NAME)
    check_positive(timeout=timeout)
    # An object that can be called is what its class says.
    objects: list[object] = [function, type(function).__call__]
    if any(inspect.isasyncgenfunction(each) or inspect.isgeneratorfunction(each) for each in objects):
        raise ConfigError(f"tool {name!r} yields: a tool returns its result")
    is_async = any(map(inspect.iscoroutinefunction, objects))
    return FunctionTool(function, name, tool_type, timeout, None, Parameters(function, name), is_async)


def make_tools(tools: Iterable[Tool | Callable[..., Any]]) -> dict[str, Tool]:  # Any: whatever a plain function returns
    """Tools by name; plain functions become tools.

    Raises:
        ConfigError: One cannot be a tool, has no name, or has another's.
    """
    by_name: dict[str, Tool] = {}
    for given in tools:
        made = given if _is_tool(given) else tool(cast("Callable[..., object]", given))
        check_name("tool's name", made.name, _MAX_NAME)
        if made.name in by_name:
            raise ConfigError(f"two tools have the name {made.name!r}: give one of them another")
        by_name[made.name] = made
    return by_name


def _is_tool(given: object) -> TypeGuard[Tool]:
    # A class has the members of its objects, but is none of them.
    return isinstance(given, Tool) and not isinstance(given, type) and isinstance(cast("object", given.name), str)
