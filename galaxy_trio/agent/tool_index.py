"""The names that a device's tools are called by."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from galaxy_trio._codec.strict_types import shorten
from galaxy_trio.agent.tools import namespace_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from galaxy_trio.agent.tools import Tool, ToolSource

logger: Final = logging.getLogger(__name__)

_MAX_WARNINGS: Final = 1_000
"""Number of different warnings, so that a source of ever new names fills neither the log nor the memory."""


class ToolIndex:
    """A device's own tools and those of its sources, by the names that commands use.

    The first tool of a name has it. A later one of another namespace is called ``namespace.name``, and the first one can be called so too.

    Args:
        own: The device's own tools.
        sources: Read for each command; their tools come after the device's own.
    """

    def __init__(self, own: Iterable[Tool], sources: Iterable[ToolSource] = ()) -> None:
        self._sources = tuple(sources)
        self._warned: set[str] = set()
        self._own: dict[str, Tool] = {}
        self._add(self._own, own)

    def current(self) -> Mapping[str, Tool]:
        """Return the current tools by the names that commands use, in the order of the sources."""
        named = dict(self._own)
        for source in self._sources:
            try:
                self._add(named, source.tools())
            except Exception:
                # A broken source must not hide the others' tools.
                logger.exception("tool source %r failed to list its tools", source)
        return named

    def find(self, name: str) -> Tool | None:
        """Find the tool that has this name now."""
        own = self._own.get(name)
        if own is not None:
            return own
        named = self.current()
        return named.get(name) or next((tool for tool in named.values() if _full_name(tool) == name), None)

    def warn(self, problem: str) -> None:
        """Log a problem with a tool, once."""
        if problem not in self._warned and len(self._warned) < _MAX_WARNINGS:
            self._warned.add(problem)
            logger.warning("%s", problem)

    def _add(self, named: dict[str, Tool], tools: Iterable[Tool]) -> None:
        for tool in tools:
            first = named.setdefault(tool.name, tool)
            if first is tool:
                continue
            name = _full_name(tool)
            if named.setdefault(name, tool) is tool:
                problem = (
                    f"is called {shorten(name)}, because {shorten(namespace_of(first))} has a tool of the same name"
                )
            else:
                problem = "cannot be called, because there is another one of the same name: rename one of them"
            self.warn(f"tool {shorten(tool.name)} of {shorten(namespace_of(tool))} {problem}")


def _full_name(tool: Tool) -> str:
    return f"{namespace_of(tool)}.{tool.name}"
