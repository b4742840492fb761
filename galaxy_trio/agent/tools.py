"""What the device agent can be asked to do: tools, and where they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from galaxy_trio.messages import JSON, ToolType


class Tool(Protocol):
    """One thing that a device can be asked to do."""

    @property
    def name(self) -> str:
        """What a command calls it."""
        ...

    @property
    def namespace(self) -> str | None:
        """Where it comes from, as told with its results."""
        ...

    @property
    def tool_type(self) -> ToolType:
        """Whether it changes something or only looks."""
        ...

    @property
    def timeout(self) -> float:
        """Seconds that a call may take, `math.inf` for no limit. The agent sees to it."""
        ...

    async def call(self, parameters: dict[str, JSON]) -> object:
        """Do it. May raise anything; the text of a `ToolError` is for the peer's eyes as it is."""
        ...


class ToolSource(Protocol):
    """Something that has tools; which ones may change while it lives."""

    def tools(self) -> Sequence[Tool]:
        """The tools that it has now."""
        ...
