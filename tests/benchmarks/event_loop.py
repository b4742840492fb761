"""For how long one message holds the event loop: the longest step of any task, for messages of every shape, size and role."""

from __future__ import annotations

import gc
import math
import time
from contextlib import suppress
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import trio

from galaxy_trio import ConnectionLost, DeviceInfo, InvalidMessage, open_connection
from galaxy_trio.agent import open_agent
from galaxy_trio.messages import Command, ToolType
from galaxy_trio.server import open_server

from .deliveries import Delivery, Ending, Receiver, Results
from .processes import measure, running_server
from .report import at_most, print_table
from .shapes import Shape, Size, is_refused, sizes_of
from .wire import DEVICE_ID, LIMIT, MARGIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from galaxy_trio.server import ServerTask

    from .effort import Effort
    from .report import Target

_MANY: Final = (1_000, 10_000, 99_000)
"""Numbers of commands and results of a message."""


class Step(NamedTuple):
    """The longest step while something was done, in milliseconds."""

    what: str
    wall: float
    cpu: float
    """What it would be on an idle machine."""


class LongestStep(trio.abc.Instrument):
    """The longest time for which a task has kept all others waiting."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self._start = self._cpu_start = math.inf

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        self._start, self._cpu_start = time.perf_counter(), time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        self.wall = max(self.wall, time.perf_counter() - self._start)
        self.cpu = max(self.cpu, time.thread_time() - self._cpu_start)

    def take(self, what: str) -> Step:
        """Return the longest step so far, and begin again."""
        step = Step(what, 1000 * self.wall, 1000 * self.cpu)
        self.wall = self.cpu = 0.0
        return step


async def watch_steps() -> LongestStep:
    """Measure the steps of all tasks from now on."""
    longest = LongestStep()
    trio.lowlevel.add_instrument(longest)
    # The step in which it was added is not seen.
    await trio.lowlevel.checkpoint()
    longest.take("")
    return longest


async def _fail(task: ServerTask) -> object:
    """A session that runs one command."""
    return len(await task.execute([Command("x", ToolType.ACTION)]))


def _deliveries(receiver: Receiver, shape: Shape) -> Iterator[Delivery]:
    for size in sizes_of(shape):
        for ending in Ending:
            if ending in (Ending.VALID, Ending.BROKEN) or shape in (Shape.TEXT, Shape.EMOJI):
                yield Delivery(receiver, shape, size, ending)


async def _receive(url: str, receiver: Receiver, shape: Shape) -> list[Step]:
    """Receive a message of each size, valid and broken."""
    steps: list[Step] = []
    async with open_server(session=_fail) as server:
        longest = await watch_steps()
        for delivery in _deliveries(receiver, shape):
            gc.collect()
            async with open_connection(url, DEVICE_ID) as connection:
                longest.take("")
                with suppress(InvalidMessage, ConnectionLost):
                    await connection.run_task(delivery._replace(url=server.url).request())
                steps.append(longest.take(f"{delivery.size}, {delivery.ending}"))
    return steps


async def _receive_results(url: str) -> list[Step]:
    """Receive a message with many results, as a server."""
    steps: list[Step] = []
    async with open_server(session=_fail) as server:
        longest = await watch_steps()
        for count in _MANY:
            gc.collect()
            async with open_connection(url, DEVICE_ID) as connection, trio.open_nursery() as nursery:
                nursery.start_soon(connection.run_task, Results(server.url, count).request())
                while DEVICE_ID not in server.devices:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                longest.take("")
                async with open_connection(server.url, DEVICE_ID) as caller:
                    await caller.run_task("x")
            steps.append(longest.take(f"{count:,}"))
    return steps


async def _receive_commands(url: str) -> list[Step]:
    """Receive a message with many commands, as an agent, and answer it."""
    steps: list[Step] = []
    longest = await watch_steps()
    for count in _MANY:
        gc.collect()
        async with open_agent(url, str(count), system_info=DeviceInfo(str(count), "linux")) as agent:
            longest.take("")
            # The peer closes the connection when it has the results.
            while agent.registered:  # noqa: ASYNC110
                await trio.sleep(0.01)
        steps.append(longest.take(f"{count:,}"))
    return steps


async def _send(url: str) -> list[Step]:
    """Send a request at the limit."""
    async with open_connection(url, DEVICE_ID) as connection:
        longest = await watch_steps()
        with trio.move_on_after(5):
            await connection.run_task("x" * (LIMIT - MARGIN))
        return [longest.take("100 MiB")]


def _touch_memory() -> None:
    """Use as much memory as a message may take, and free it.

    On a virtual machine that has just started, the first use of memory takes up to five times as long as later ones: its host has to
    provide it.
    """
    touched = b"x" * 2**30
    del touched


def measure_hold(url: str, what: str, shape: str) -> list[Step]:
    """Measure the longest steps of a role, in this process."""
    _touch_memory()
    match what:
        case "results":
            return trio.run(_receive_results, url)
        case "commands":
            return trio.run(_receive_commands, url)
        case "send":
            return trio.run(_send, url)
        case _:
            return trio.run(_receive, url, Receiver(what), Shape(shape))


def _measured(url: str, what: str, shape: str, rounds: int) -> dict[str, Step]:
    """Measure in processes of their own, and return the medians by message."""
    found: dict[str, list[Step]] = {}
    for _ in range(rounds):
        for measured in cast("list[tuple[str, float, float]]", measure("hold", url, what, shape)):
            step = Step(*measured)
            found.setdefault(step.what, []).append(step)
    return {
        name: Step(name, median(step.wall for step in steps), median(step.cpu for step in steps))
        for name, steps in found.items()
    }


def _shown(steps: Sequence[Step]) -> str:
    """The longest of some steps: on this machine, and in brackets its CPU time."""
    if not steps:
        return ""
    return f"{max(step.wall for step in steps):.0f} ({max(step.cpu for step in steps):.0f})"


def bench_event_loop(effort: Effort) -> list[Target]:
    """The time for which one message holds the event loop."""
    print("\n## The longest step of the event loop while one message is received, in ms, and its CPU time in ms")
    found: dict[tuple[Receiver, Shape], dict[str, Step]] = {}
    small: list[float] = []
    every: list[float] = []
    with running_server("event_loop_peer") as peer:

        def rows() -> Iterator[list[str]]:
            for shape in Shape:
                for receiver in Receiver:
                    steps = found[receiver, shape] = _measured(peer.url, receiver, shape, effort.holds)
                    yield [
                        f"{shape}, {receiver}",
                        *(
                            _shown([step for name, step in steps.items() if name.startswith(f"{size},")])
                            + ("*" if is_refused(shape, size) else "")
                            for size in Size
                        ),
                    ]
                    small.extend(step.cpu for name, step in steps.items() if name.startswith(f"{Size.SMALL},"))
                    every.extend(step.cpu for step in steps.values())

        print_table(("what, receiver", *Size), rows())
        print("The longest of the valid and the broken message. `*`: refused, for it has too many values.")
        print("\n## The longest step with many parts in one message, in ms, and its CPU time in ms")

        def many_rows() -> Iterator[list[str]]:
            for what in ("commands", "results"):
                steps = _measured(peer.url, what, "", effort.holds)
                yield [what, *(_shown([step]) for step in steps.values())]
                every.extend(step.cpu for step in steps.values())

        print_table(("what", *(f"{count:,}" for count in _MANY)), many_rows())
        sent = _measured(peer.url, "send", "", effort.holds)
        print(f"Sending a request of 100 MiB (encode, frame, mask): {_shown(list(sent.values()))}")
    return [
        at_most("CPU time of the longest step, messages of up to 1 MiB, ms", 30, max(small)),
        at_most("CPU time of the longest step, any received message, ms", 400, max(every)),
    ]
