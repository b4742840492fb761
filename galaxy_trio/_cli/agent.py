"""``galaxy-trio agent``: a device agent with the tools that the command line names."""

from __future__ import annotations

import importlib
import logging
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, cast

from galaxy_trio._cli.terminal import echo
from galaxy_trio._counted import counted
from galaxy_trio._nearest import did_you_mean
from galaxy_trio._printable import one_line
from galaxy_trio._transport.url import parse_url
from galaxy_trio.agent import FunctionTool, McpServer, Tool, ToolSource, open_agent, open_mcp_tools
from galaxy_trio.agent.tools import make_tools
from galaxy_trio.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import trio

    from galaxy_trio._cli.destination import Destination

logger: Final = logging.getLogger(__name__)

_NAMES_SHOWN: Final = 50


def load_tools(names: Sequence[str]) -> list[Tool]:
    """Import tools.

    Args:
        names: ``module:function``, or ``module`` for all its functions that are decorated with `galaxy_trio.agent.tool`. Duplicates are
            removed.

    Raises:
        ConfigError: A name cannot be imported or is not a tool.
    """
    # Like ``python -m``: the current directory is importable.
    if "" not in sys.path:
        sys.path.insert(0, "")
    found = {id(loaded): loaded for name in names for loaded in _load(name)}
    return make_tools(cast("list[Tool | Callable[..., object]]", list(found.values())))


def _load(name: str) -> list[object]:
    module_name, _, path = name.partition(":")
    try:
        loaded: object = importlib.import_module(module_name)
        for attribute in filter(None, path.split(".")):
            loaded = cast("object", getattr(loaded, attribute))
    except (Exception, SystemExit) as error:  # an import can raise anything
        logger.debug("importing %r", name, exc_info=error)
        why = ": ".join(filter(None, (type(error).__name__, str(error))))
        if isinstance(error, AttributeError) and isinstance(error.name, str):
            why += did_you_mean(error.name, [each for each in dir(error.obj) if not each.startswith("_")])
        if isinstance(error, ModuleNotFoundError) and module_name.endswith(".py"):
            why = "give the name of the module, without .py"
        raise ConfigError(f"the tool {name!r} cannot be imported: {why}") from error
    if path:
        return [loaded]
    members: list[object] = list(vars(loaded).values())
    decorated: list[object] = [member for member in members if isinstance(member, FunctionTool)]
    if not decorated:
        raise ConfigError(
            f"the module {name!r} has no functions decorated with @tool: name a function, as in {name}:FUNCTION"
        )
    return decorated


async def run_agent(
    destination: Destination,
    tools: Sequence[Tool],
    servers: Sequence[McpServer],
    max_retries: int | None,
    stop: trio.Event,
) -> None:
    """Run a device agent until `stop` is set."""
    # An invalid URL is reported before any MCP server is started.
    url = parse_url(destination.url, destination.token).shown
    async with AsyncExitStack() as stack:
        sources: list[ToolSource] = []
        if servers:
            sources.append(await stack.enter_async_context(open_mcp_tools(servers)))
        logger.info("connecting to %s", url)
        agent = await stack.enter_async_context(
            open_agent(
                destination.url,
                destination.device_id,
                tools,
                tool_sources=sources,
                token=destination.read_token,
                ssl_context=destination.ssl_context,
                options=destination.options,
                max_retries=max_retries,
            )
        )
        _, *names = agent.tool_names
        echo(one_line(f"registered as {agent.device_id} with {_listed(names)}"))
        await stop.wait()


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "no tools"
    shown = ", ".join(names[:_NAMES_SHOWN])
    return f"{counted(len(names), 'tool')}: {shown}{', …' if len(names) > _NAMES_SHOWN else ''}"
