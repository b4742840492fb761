"""A graph that a test of rules runs: its nodes run on devices in memory, each until the test ends it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest
import trio

from galaxy_trio.graph import Edge, Graph, Node
from tests.support import waiting

from .driver import Change, Driver, Refused, View

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from galaxy_trio.messages import JSON

    from .devices import Devices

_IDLE: Final = 0.01
"""Seconds for which no task has anything to do."""


def plan(nodes: str | list[Node], *edges: str | Edge) -> Graph:
    """Make a graph. Each letter is a node, whose request is its id; two letters are an edge with `When.SUCCESS`."""
    given = [Node(name, name) for name in nodes] if isinstance(nodes, str) else nodes
    return Graph(given, [edge if isinstance(edge, Edge) else Edge(*edge) for edge in edges])


class RunningGraph:
    """A graph. What happens to it, all drivers do in the same way.

    Attributes:
        driver: Runs it.
        devices: The devices that its nodes run on.
    """

    def __init__(self, driver: Driver, devices: Devices) -> None:
        self.driver = driver
        self.devices = devices
        self.tasks = devices.tasks
        self.start = driver.start
        self.cancel, self.retry = driver.cancel, driver.retry
        self.complete, self.fail, self.lose = devices.tasks.complete, devices.tasks.fail, devices.lose

    async def edit(self, **changes: object) -> int:
        """Edit it, and return its version. The arguments are those of `Change`."""
        return await self.driver.edit(Change(**changes))  # type: ignore[arg-type]

    async def bring_to(self, name: str, end: str, result: JSON = None) -> None:
        """Let a node that runs end in some way. One that is skipped ends by itself."""
        match end:
            case "completed":
                await self.complete(name, result=result)
            case "failed":
                await self.fail(name, result=result)
            case "lost":
                await self.lose(name)
            case "cancelled":
                await self.tasks.wait_begun(name)
                await self.cancel(name)
            case _:
                pass

    async def look(self) -> View:
        """Return it as it is now."""
        return await self.driver.look()

    async def reach(self, **states: str) -> View:
        """Wait until its nodes are in these states. Those that are to be ready must stay so."""
        view = await self._until(lambda view: view.states == states, f"nodes in the states {states}")
        if "ready" in states.values():
            await trio.testing.wait_all_tasks_blocked(_IDLE)
            view = await self.driver.look()
            assert view.states == states
        return view

    async def end(self, state: str) -> View:
        """Wait until it is in a state, with all nodes ended."""
        return await self._until(lambda view: view.state == state, state)

    async def _until(self, condition: Callable[[View], bool], expected: str) -> View:
        begin = trio.current_time()
        while True:
            # A daemon answers when it has nothing else to do: that takes fewer requests.
            await trio.testing.wait_all_tasks_blocked(_IDLE)
            view = await self.driver.look()
            if condition(view):
                return view
            assert trio.current_time() < begin + waiting.SECONDS, f"{view.state} {view.states}, and not {expected}"


@contextmanager
def refused(words: str, version: int | None = None) -> Generator[None]:
    """Expect a refusal in these words."""
    with pytest.raises(Refused) as refusal:
        yield
    assert (str(refusal.value), refusal.value.version) == (words, version)
