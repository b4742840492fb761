"""``galaxy-trio agent``: a device whose tools are given on the command line."""

from __future__ import annotations

import importlib
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, cast

import click

from galaxy_trio.agent import FunctionTool, McpServer, Tool, ToolSource, open_agent, open_mcp_tools
from galaxy_trio.agent.tools import make_tools
from galaxy_trio.cli_terminal import one_line
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import trio

    from galaxy_trio.cli_destination import Destination


def load_tools(names: Sequence[str]) -> list[Tool]:
    """Import tools: ``module:function``, or ``module`` for all that it has made with `galaxy_trio.agent.tool`.

    Raises:
        ConfigError: One cannot be imported, or is no tool; says which and why.
    """
    # As with ``python -m``: what lies here can be imported.
    if "" not in sys.path:
        sys.path.insert(0, "")
    found: list[object] = []
    for name in names:
        module_name, _, path = name.partition(":")
        try:
            loaded: object = importlib.import_module(module_name)
            for attribute in filter(None, path.split(".")):
                loaded = cast("object", getattr(loaded, attribute))
        except Exception as error:  # whatever a module raises when it is imported
            raise ConfigError(f"the tool {name!r} cannot be imported: {type(error).__name__}: {error}") from error
        if path:
            found.append(loaded)
            continue
        members: list[object] = list(vars(loaded).values())
        decorated: list[object] = [member for member in members if isinstance(member, FunctionTool)]
        if not decorated:
            raise ConfigError(
                f"the module {name!r} has no functions that @tool was put on: name one, as in {name}:FUNCTION"
            )
        found.extend(decorated)
    return list(make_tools(cast("list[Tool | Callable[..., object]]", found)).values())


async def be_device(
    destination: Destination, tools: Sequence[Tool], mcp: Sequence[str], max_retries: int | None, stop: trio.Event
) -> None:
    """Be a device until it is to stop."""
    async with AsyncExitStack() as stack:
        sources: list[ToolSource] = []
        if mcp:
            sources.append(
                await stack.enter_async_context(open_mcp_tools([McpServer.parse(command) for command in mcp]))
            )
        names = [tool.name for tool in (*tools, *(tool for source in sources for tool in source.tools()))]
        click.echo(f"connecting to {destination.url}", err=True)
        agent = await stack.enter_async_context(
            open_agent(
                destination.url,
                destination.device_id,
                tools,
                tool_sources=sources,
                token=destination.token,
                ssl_context=destination.ssl_context,
                connect_timeout=destination.connect_timeout,
                register_timeout=destination.connect_timeout,
                max_retries=max_retries,
            )
        )
        click.echo(one_line(f"registered as {agent.device_id} with {len(names)} tools: {', '.join(names[:50])}"))
        await stop.wait()
