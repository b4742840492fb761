"""The demonstration: a server, a device and a client in one process, in normal operation and with failures."""

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING, Final

import trio

from galaxy_trio import __version__
from galaxy_trio._cli.demo.fleet import Fleet
from galaxy_trio._cli.demo.graph import show_graph
from galaxy_trio._cli.demo.report import Report, SchedulerPasses, Stopwatch, progress_bar, show_time
from galaxy_trio._cli.demo.work import Work, seconds_of_work
from galaxy_trio._cli.terminal import device_rows
from galaxy_trio._concurrency.background import open_background
from galaxy_trio._connection.connection import open_connection
from galaxy_trio.agent import collect_system_info, open_device_connection
from galaxy_trio.errors import ConnectionLost, GalaxyError, HandshakeRejected, RegistrationRejected, RequestTimeout
from galaxy_trio.events import LateReplyReceived
from galaxy_trio.server import open_server

if TYPE_CHECKING:
    from rich.console import Console

    from galaxy_trio._connection.connection import Connection
    from galaxy_trio.agent import DeviceConnection
    from galaxy_trio.messages import DeviceInfo
    from galaxy_trio.server import Server

TIME_LIMIT: Final = 60.0
"""Seconds after which the demonstration gives up: several times what it takes, for machines that are slow or busy."""
DEVICE: Final = "demo-device"
TASKS: Final = 20
WAITING: Final = 12
ENDLESS: Final = "3600"
_PATIENCE: Final = 0.5
TOO_LONG: Final = "0.8"
_PAUSE: Final = 0.4
"""Seconds before each step on a terminal, for the eye to follow."""
_FORBIDDEN: Final = 403


async def demo(console: Console, *, pace: float = 1.0, time_limit: float = TIME_LIMIT) -> int:
    """Show what the package does. Every figure is measured and every claim checked; cancelling stops it immediately.

    No check depends on how fast the machine is: time passes for show, and each step waits for what it needs.

    Args:
        console: Where to print.
        pace: How long a second of work lasts, in seconds.
        time_limit: Seconds after which the demonstration gives up.

    Returns:
        The exit status: 0, or 1 if a check failed.
    """
    report = Report(console)
    report.say(
        f"galaxy_trio {__version__}: a server, a device and a client in this one process, over loopback sockets. "
        "All figures are measured now."
    )
    stopwatch = Stopwatch()
    with trio.move_on_after(time_limit) as limit:
        try:
            await Demonstration(report, pace).run()
        except BrokenPipeError:
            # The output was closed.
            raise
        except (GalaxyError, OSError) as error:
            report.fail(f"{type(error).__name__}: {error}.")
    if limit.cancelled_caught:
        report.fail(f"it did not end within {time_limit:g} s.")
    return report.conclude(stopwatch.lap())


class Demonstration:
    """The steps, in their order.

    Args:
        report: Prints the figures, and checks the claims.
        pace: How long a second of work lasts, in seconds.
    """

    def __init__(self, report: Report, pace: float) -> None:
        self.report = report
        self.pace = pace
        self.work: Work = Work(pace)
        self.token: str = secrets.token_urlsafe()
        self.server_scope: trio.CancelScope = trio.CancelScope()

    async def run(self) -> None:
        """Run all steps."""
        system_info = await collect_system_info(DEVICE)
        async with open_background() as nursery:
            server: Server = await nursery.start(self._serve)
            stopwatch = Stopwatch()
            async with open_device_connection(server.url, DEVICE, system_info=system_info, token=self.token) as device:
                device_took = stopwatch.lap()
                async with open_connection(server.url, DEVICE, token=self.token) as connection:
                    await self._show_registration(server, connection, device_took, stopwatch.lap())
                    await self._show_device_info(connection, system_info)
                    await self._show_tasks(server, connection)
                    await self._show_timeout(connection)
                    await self._show_cancelling(server)
                    await self._show_refusals(server)
                    await self._show_constellation(server)
                    await self._show_loss(connection, device)

    async def _serve(self, *, task_status: trio.TaskStatus[Server]) -> None:
        with self.server_scope:
            async with open_server(session=self.work.session, token=self.token) as server:
                task_status.started(server)
                await trio.sleep_forever()

    async def _begin(self, title: str, sentences: str) -> None:
        if self.report.console.is_interactive:
            await trio.sleep(_PAUSE * self.pace)
        self.report.begin(title, sentences)

    async def _show_registration(
        self, server: Server, connection: Connection, device_took: float, client_took: float
    ) -> None:
        await self._begin("Registration", "A device registers with the server, then a client does, for that device.")
        self.report.show(
            ("server", f"{server.url}, with a token"),
            ("device", f"{DEVICE}, connected and registered in {show_time(device_took)}"),
            ("client", f"{connection.client_id}, in {show_time(client_took)}"),
        )
        self.report.check("the server knows the device", holds=server.devices == [DEVICE])
        self.report.check("the server knows the client", holds=server.constellations == [connection.client_id])

    async def _show_device_info(self, connection: Connection, system_info: DeviceInfo) -> None:
        await self._begin(
            "Device information",
            "The client requests the server's information about the device, which is this machine.",
        )
        stopwatch = Stopwatch()
        info = await connection.device_info()
        took = stopwatch.lap()
        self.report.show(*device_rows(info), ("answered in", show_time(took)))
        self.report.check("the client receives what the device reported", holds=info == system_info)

    async def _show_tasks(self, server: Server, connection: Connection) -> None:
        await self._begin(
            f"{TASKS} concurrent tasks",
            f"All {TASKS} share one connection. None starts its work before all of them run. Then each takes a different "
            "time and gets its own result.",
        )
        work = {number: seconds_of_work(number) for number in range(1, TASKS + 1)}
        self.work.expect(TASKS)
        before, stopwatch = connection.statistics(), Stopwatch()
        outcomes = await self._run_tasks(connection, work)
        after, took = connection.statistics(), stopwatch.lap()
        good = sum(outcomes[number] == f"worked for {seconds} s" for number, seconds in work.items())
        first, *_, last = outcomes
        sent = after.messages_sent - before.messages_sent
        received = after.messages_received - before.messages_received
        self.report.show(
            ("completed", f"{good} of {TASKS}, each with its own result"),
            ("concurrent", f"up to {self.work.most_at_once} sessions on the server"),
            ("first to end", f"task {first}, with {work[first] * self.pace:.2f} s of work"),
            ("last to end", f"task {last}, with {work[last] * self.pace:.2f} s"),
            ("total work", f"{sum(work.values()) * self.pace:.2f} s"),
            ("time taken", show_time(took)),
            ("messages", f"{sent} sent, {received} received"),
        )
        self.report.check("all tasks completed, each with its own result", holds=good == TASKS)
        self.report.check("all tasks ran concurrently", holds=self.work.most_at_once == TASKS)
        self.report.check("no request is pending afterwards", holds=after.pending == after.unanswered == 0)
        self.report.check("no session is left on the server", holds=server.statistics().sessions == 0)

    async def _run_tasks(self, connection: Connection, work: dict[int, float]) -> dict[int, object]:
        """Run the tasks, and return their results or errors by number, in the order in which they arrived."""
        outcomes: dict[int, object] = {}
        with progress_bar(self.report.console, "tasks", len(work)) as advance:

            async def run(number: int, seconds: float) -> None:
                try:
                    outcomes[number] = (await connection.run_task(str(seconds))).unwrap()
                except GalaxyError as error:
                    outcomes[number] = error
                advance()

            async with trio.open_nursery() as nursery:
                for number, seconds in work.items():
                    nursery.start_soon(run, number, seconds)
        return outcomes

    async def _show_timeout(self, connection: Connection) -> None:
        await self._begin(
            "A timeout",
            f"A task takes {float(TOO_LONG) * self.pace:g} s or more and has a timeout of {_PATIENCE * self.pace:g} s. Its "
            "caller gets a RequestTimeout. The reply arrives later and is counted and dropped. The connection stays open.",
        )
        raised: str | None = None
        # However late the timeout is noticed, the reply is later.
        self.work.hold()
        with connection.subscribe() as events:
            stopwatch = Stopwatch()
            try:
                await connection.run_task(TOO_LONG, timeout=_PATIENCE * self.pace)
            except RequestTimeout as error:
                raised = type(error).__name__
            timed_out, pending = stopwatch.lap(), connection.statistics().pending
            self.work.release()
            if raised is not None:
                async for event in events:
                    if isinstance(event, LateReplyReceived):
                        break
            late, late_replies = stopwatch.lap(), connection.statistics().late_replies
        await connection.device_info()
        self.report.show(
            ("caller", f"{raised} after {show_time(timed_out)}; pending requests: {pending}"),
            ("late reply", f"{show_time(late)} after that; late replies counted: {late_replies}"),
            ("connection", f"still open: its next request was answered in {show_time(stopwatch.lap())}"),
        )
        self.report.check("the task timed out", holds=raised is not None)
        self.report.check("no request is pending afterwards", holds=pending == 0)
        self.report.check("its late reply was counted", holds=late_replies == 1)

    async def _show_cancelling(self, server: Server) -> None:
        await self._begin(
            "A cancelled task",
            "AIP has no message that stops a task: a server stops a task when its client disconnects. So this task has "
            "its own connection, which closes when the task is cancelled.",
        )
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                async with open_connection(server.url, DEVICE, token=self.token) as connection:
                    await connection.run_task(ENDLESS, timeout=math.inf)

        self.work.expect(1)
        async with open_background() as nursery:
            nursery.start_soon(run)
            await self.work.all_begun.wait()
            before, stopwatch = server.statistics(), Stopwatch()
            scope.cancel()
            await self.work.cancelled.wait()
            stopped, after = stopwatch.lap(), server.statistics()
        self.report.show(
            ("before", f"on the server: {before.constellations} clients, {before.sessions} running session"),
            ("cancelled", f"{show_time(stopped)} later trio.Cancelled has reached that session"),
            ("after", f"on the server: {after.constellations} client, {after.sessions} running sessions"),
        )
        self.report.check("the server's session has ended", holds=(before.sessions, after.sessions) == (1, 0))
        self.report.check("its client has disconnected", holds=(before.constellations, after.constellations) == (2, 1))

    async def _show_refusals(self, server: Server) -> None:
        await self._begin("Refusals", "The server refuses an unknown device and a wrong token, with the reason.")
        reason = status_code = None
        stopwatch = Stopwatch()
        try:
            async with open_connection(server.url, "no-such-device", token=self.token):
                pass
        except RegistrationRejected as error:
            reason = error.words
        unknown_took = stopwatch.lap()
        try:
            async with open_connection(server.url, DEVICE, token=secrets.token_urlsafe()):
                pass
        except HandshakeRejected as error:
            status_code = error.status_code
        wrong_took = stopwatch.lap()
        self.report.show(
            ("unknown device", f"RegistrationRejected after {show_time(unknown_took)}:"),
            ("", f"{reason}"),
            ("wrong token", f"HandshakeRejected after {show_time(wrong_took)}:"),
            ("", f"HTTP status {status_code}"),
        )
        self.report.check("an unknown device is refused, with a reason", holds=bool(reason))
        self.report.check("a wrong token is refused", holds=status_code == _FORBIDDEN)

    async def _show_constellation(self, server: Server) -> None:
        await self._begin(
            "Three devices",
            "A constellation keeps devices of three systems connected. Each gets two tasks by its system: one runs, one "
            "is queued. Then one device is killed and reconnects.",
        )
        async with Fleet(self.report, server, self.token, self.work, self.pace).show() as constellation:
            await self._begin(
                "A task graph",
                "Eight tasks, some of which wait for others. One fails and is retried; the tasks for its failure are skipped. "
                "A ninth one is added while the first three run.",
            )
            await show_graph(self.report, constellation, self.work, self.pace)

    async def _show_loss(self, connection: Connection, device: DeviceConnection) -> None:
        await self._begin(
            "A lost connection",
            f"{WAITING} tasks run when the server stops without a closing message. Every pending call is notified in the "
            "same scheduler pass in which the client learns that the connection has ended.",
        )
        passes = SchedulerPasses()
        endings: list[tuple[GalaxyError | None, int]] = []

        async def run() -> None:
            ending: GalaxyError | None = None
            try:
                await connection.run_task(ENDLESS, timeout=math.inf)
            except GalaxyError as error:
                ending = error
            endings.append((ending, passes.count))

        self.work.expect(WAITING)
        stopwatch = Stopwatch()
        trio.lowlevel.add_instrument(passes)
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(WAITING):
                    nursery.start_soon(run)
                await self.work.all_begun.wait()
                before = connection.statistics()
                stopwatch.lap()
                self.server_scope.cancel()
            notified = stopwatch.lap()
        finally:
            trio.lowlevel.remove_instrument(passes)
        lost = {id(ending) for ending, _ in endings if isinstance(ending, ConnectionLost)}
        steps = len({count for _, count in endings})
        raised = "nothing"
        try:
            await connection.device_info()
        except ConnectionLost as error:
            raised = type(error).__name__
        await device.wait_closed()
        self.report.show(
            ("before", f"{before.pending} pending requests"),
            ("notified", f"{len(lost)} got a ConnectionLost each, {show_time(notified)} after the stop"),
            ("steps", f"{steps} pass of trio's scheduler for all of them"),
            ("after", f"{connection.statistics().pending} pending requests; a new one raises {raised} immediately"),
        )
        self.report.check("each pending call got its own ConnectionLost", holds=len(lost) == WAITING)
        self.report.check("all were notified in one step", holds=steps == 1)
        self.report.check("no request is pending afterwards", holds=connection.statistics().pending == 0)
        self.report.check("a new request raises immediately", holds=raised == ConnectionLost.__name__)
