"""Tools that commands call by name."""

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
    TypeGuard,
    TypeVar,
    cast,
    overload,
    runtime_checkable,
)

import attrs

from galaxy_trio._arguments import check_name, check_positive
from galaxy_trio.agent.signature import Signature
from galaxy_trio.agent.thread_limiter import ThreadLimiter, current_thread_limiter
from galaxy_trio.agent.tool_description import ToolDescription
from galaxy_trio.errors import ConfigError
from galaxy_trio.messages import JSON, ToolType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

TIMEOUT: Final = 60.0
"""Default timeout of a function in seconds."""
MAX_THREADS: Final = 8
"""Default number of threads for functions that are not async."""
DEFAULT_NAMESPACE: Final = "default"
"""The namespace of tools that have none."""
_MAX_NAME: Final = 1_000

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


@runtime_checkable
class Tool(Protocol):
    """An object that commands can call."""

    @property
    def name(self) -> str:
        """The name that commands use; unique in its namespace."""
        ...

    @property
    def namespace(self) -> str | None:
        """The tool's origin, repeated in each result, such as an MCP server's name. Tools without one are listed in ``default``.

        Tools of different namespaces may share a name: the first one has it, the others are called as ``namespace.name``.
        """
        ...

    @property
    def tool_type(self) -> ToolType:
        """Whether the tool changes something on the device or only reads."""
        ...

    @property
    def timeout(self) -> float:
        """Seconds for one call; `math.inf` for no limit."""
        ...

    async def call(self, parameters: dict[str, JSON]) -> object:
        """Run the tool.

        Cancelled when it times out, when the command's task ends, and when the connection is lost.

        Args:
            parameters: The command's parameters, not yet checked.

        Returns:
            The command's result: any JSON.

        Raises:
            ToolError: Fails the command; its text is sent as the reason.
            Exception: Fails the command too, and is logged with its traceback.
        """
        ...


@runtime_checkable
class DescribedTool(Tool, Protocol):
    """A `Tool` that describes itself to those who list the device's tools. Others are listed by their names alone."""

    @property
    def description(self) -> ToolDescription:
        """The tool's description. Read whenever tools are listed, so it must not block."""
        ...


class ToolSource(Protocol):
    """A changing list of tools, read for each command."""

    def tools(self) -> Sequence[Tool]:
        """Return the current tools. Must not block."""
        ...


@attrs.frozen(eq=False)
class FunctionTool(Generic[P, R_co]):
    """A function as a `Tool`. Made by `tool`; it can still be called like the function.

    A function that is not async runs in a thread, which cannot be stopped: after a timeout or the end of its task it runs to its end and
    its result is dropped. Until then it counts against the agent's `max_threads`.
    """

    function: Callable[P, R_co]
    name: str
    tool_type: ToolType
    timeout: float
    namespace: str | None
    description: ToolDescription = attrs.field(repr=False)
    _signature: Signature = attrs.field(repr=False)
    _is_async: bool = attrs.field(repr=False)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function directly, without checks or timeout."""
        return self.function(*args, **kwargs)

    async def call(self, parameters: dict[str, JSON]) -> object:
        """Check the parameters and call the function; see `Tool.call`."""
        call = partial(cast("Callable[..., object]", self.function), **self._signature.check(parameters))
        if self._is_async:
            return await cast("Awaitable[object]", call())
        try:
            threads = current_thread_limiter.get()
        except LookupError:
            # Called without an agent, as in a test.
            threads = ThreadLimiter(1)
        return await threads.run(call)


@overload
def tool(
    function: Callable[P, R_co],
    *,
    name: str | None = None,
    tool_type: ToolType = ...,
    timeout: float = ...,
    namespace: str | None = ...,
) -> FunctionTool[P, R_co]: ...


@overload
def tool(
    function: None = None,
    *,
    name: str | None = None,
    tool_type: ToolType = ...,
    timeout: float = ...,
    namespace: str | None = ...,
) -> Callable[[Callable[P, R_co]], FunctionTool[P, R_co]]: ...


def tool(
    function: Callable[P, R_co] | None = None,
    *,
    name: str | None = None,
    tool_type: ToolType = ToolType.ACTION,
    timeout: float = TIMEOUT,
    namespace: str | None = None,
) -> FunctionTool[P, R_co] | Callable[[Callable[P, R_co]], FunctionTool[P, R_co]]:
    """Make a tool from a function; usable as a decorator, with or without arguments.

    Commands give parameters by name. They are checked against the annotations: `str`, `int`, `float`, `bool`, None, lists, dicts with
    strings as keys, unions, `Literal`, enums (by value), attrs classes (as objects), and `JSON` or no annotation for any value. A command
    with other parameters fails with the reason.

    An async function is cancelled when it times out. Any other runs in a thread that cannot be stopped: see `FunctionTool`.

    Args:
        function: A sync or async function. It returns any JSON; it may raise `ToolError` with a reason for the server.
        name: The name that commands use; the function's own if not given.
        tool_type: Whether the tool changes something on the device or only reads.
        timeout: Seconds for one call; `math.inf` for no limit.
        namespace: The tool's origin, repeated in each result; tools without one are listed in ``default``.

    Raises:
        ConfigError: The function cannot be a tool; the text names the parameter that prevents it.
    """
    if function is None:
        return partial(_function_tool, name=name, tool_type=tool_type, timeout=timeout, namespace=namespace)
    return _function_tool(function, name=name, tool_type=tool_type, timeout=timeout, namespace=namespace)


def _function_tool(
    function: Callable[P, R_co], *, name: str | None, tool_type: ToolType, timeout: float, namespace: str | None
) -> FunctionTool[P, R_co]:
    if not callable(function):
        raise ConfigError(f"{function!r} is not a tool: give a function, or an object with the members of Tool")
    if name is None:
        name = cast("str | None", getattr(function, "__name__", None))
    if name is None:
        raise ConfigError(f"{function!r} has no name: give it one with tool(…, name=…)")
    check_name("tool's name", name, _MAX_NAME)
    if namespace is not None:
        check_name("tool's namespace", namespace, _MAX_NAME)
    check_positive(timeout=timeout)
    # For a callable object, its class decides.
    objects: list[object] = [function, type(function).__call__]
    if any(inspect.isasyncgenfunction(each) or inspect.isgeneratorfunction(each) for each in objects):
        raise ConfigError(f"tool {name!r} is a generator: return the result instead")
    is_async = any(map(inspect.iscoroutinefunction, objects))
    signature = Signature(function, name)
    return FunctionTool(function, name, tool_type, timeout, namespace, signature.describe(), signature, is_async)


def make_tools(
    tools: Iterable[Tool | Callable[..., Any]],
) -> list[Tool]:
    """Make tools from plain functions.

    Raises:
        ConfigError: An object cannot be a tool, has no name, or has the name of another one in its namespace.
    """
    made: dict[tuple[str, str], Tool] = {}
    for given in tools:
        one = given if _is_tool(given) else tool(cast("Callable[..., object]", given))
        check_name("tool's name", one.name, _MAX_NAME)
        key = (namespace_of(one), one.name)
        if key in made:
            raise ConfigError(f"two tools have the name {one.name!r}: rename one of them")
        made[key] = one
    return list(made.values())


def namespace_of(tool: Tool) -> str:
    """A tool's namespace, or the default one."""
    return tool.namespace or DEFAULT_NAMESPACE


def _is_tool(given: object) -> TypeGuard[Tool]:
    # A class has the same members as its instances, but is not a tool itself.
    return isinstance(given, Tool) and not isinstance(given, type) and isinstance(cast("object", given.name), str)
