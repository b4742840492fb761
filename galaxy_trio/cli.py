"""The command line: its commands, what they print, and the exit status of every outcome."""

from __future__ import annotations

import json
import logging
import signal
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
import click
import trio
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from galaxy_trio import __version__
from galaxy_trio.cli_destination import TOKEN_VARIABLE, Destination, reason_of, seconds, takes_destination, words
from galaxy_trio.cli_terminal import (
    READABLE_WIDTH,
    complain,
    device_rows,
    log_level,
    logging_to_stderr,
    open_console,
    prepare_streams,
    print_rows,
    printable,
    silence_stdout,
)
from galaxy_trio.demo import demo
from galaxy_trio.errors import (
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    GalaxyError,
    HandshakeRejected,
    InvalidMessage,
    RegistrationRejected,
    RequestRejected,
    RequestTimeout,
    TaskFailed,
)
from galaxy_trio.messages import JSON, DeviceInfo, TaskResult, TaskStatus
from galaxy_trio.outcomes import open_background, split_cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence

PROGRAM: Final = "galaxy-trio"

_UNWRITTEN: Final = 1
_USAGE: Final = 2
# A shell's way to tell of signals; 13 is SIGPIPE, which not every system has.
_SIGNALLED: Final = 128
_PIPE_CLOSED: Final = _SIGNALLED + 13
# The first that fits: kinds stand before what they are kinds of.
_STATUSES: Mapping[type[Exception], int] = {
    TaskFailed: 1,
    ConnectTimeout: 4,
    RequestTimeout: 4,
    HandshakeRejected: 5,
    RegistrationRejected: 5,
    RequestRejected: 5,
    ConnectFailed: 3,
    ConnectionLost: 3,
    InvalidMessage: 3,
    GalaxyError: _USAGE,
}

T = TypeVar("T")


# ---- what the commands do


async def info(destination: Destination, timeout: float) -> DeviceInfo:
    """Ask what the server knows of a device."""
    async with destination.connect() as connection:
        return await connection.device_info(timeout=timeout)


async def run(destination: Destination, request: str, timeout: float) -> TaskResult:
    """Run a task on a connection of its own: a timeout and cancelling close it, which ends the task on the server too."""
    async with destination.connect() as connection:
        return await connection.run_task(request, timeout=timeout)


class Interrupted(Exception):
    """A signal has ended the work.

    Attributes:
        signal_number: Which signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


async def until_signalled(work: Callable[[], Awaitable[T]]) -> T:
    """Do the work. Ctrl-C and SIGTERM cancel it.

    Raises:
        Interrupted: It was cancelled, and has ended.
    """
    signalled: list[int] = []
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            async with open_background() as nursery:
                with trio.CancelScope() as scope:

                    async def watch() -> None:
                        async for number in signals:
                            signalled.append(number)
                            scope.cancel()

                    nursery.start_soon(watch)
                    return await work()
        except Exception:
            # What goes wrong while it is being stopped interests nobody.
            if not signalled:
                raise
    raise Interrupted(signalled[0])


def run_trio(work: Callable[[], Awaitable[T]]) -> T:
    """Do the work in trio. A known error comes out bare, out of groups too in which it is the only one."""
    try:
        return trio.run(until_signalled, work)
    except BaseExceptionGroup as group:
        _, error = split_cancelled(group)
        if not isinstance(error, GalaxyError | OSError):
            raise
    raise error


@contextmanager
def spinner(sentence: str) -> Generator[None]:
    """Show on stderr, if that is a terminal, that something is waited for, and for how long."""
    console = open_console(stderr=True)
    if not console.is_interactive:
        yield
        return
    columns = (SpinnerColumn("line"), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(sentence, total=None)
        yield


# ---- the commands


class _CommandLine(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. A reader of stdout that has gone ends it without a word."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            silence_stdout()
        raise click.exceptions.Exit(_PIPE_CLOSED)


def _set_log_level(context: click.Context, parameter: click.Parameter, value: int) -> None:
    del parameter
    if value:
        context.with_resource(log_level(logging.INFO if value == 1 else logging.DEBUG))


_verbose = click.option(
    "-v", "--verbose", count=True, expose_value=False, callback=_set_log_level,
    help="Show the log on stderr; -vv shows more of it.",
)  # fmt: skip
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else, on stdout.")


@click.group(
    PROGRAM,
    cls=_CommandLine,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"""\b
    See it at work, on this machine and without any set-up:
        galaxy-trio demo

    \b
    The token comes from the environment variable {TOKEN_VARIABLE}
    or from a file with --token-file, and never from an argument.

    \b
    Exit status: 0 done, 1 the task failed, 2 wrong usage,
    3 no connection or a broken one, 4 timed out,
    5 refused by the server, 130 Ctrl-C.""",
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
@_verbose
@click.pass_context
def command_line(context: click.Context) -> None:
    """Talk to devices over AIP, the Agent Interaction Protocol."""
    context.with_resource(logging_to_stderr())
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@command_line.command("demo", epilog="\b\nExample:\n    galaxy-trio demo")
@_verbose
def demo_command() -> int:
    """Show what the package does, on this machine alone.

    Runs a server, a device and a client in one process, over loopback sockets, and lets things go well and badly.
    It takes a few seconds, and exits with 1 if anything does not turn out as it should.
    """
    return run_trio(partial(demo, open_console(max_width=READABLE_WIDTH)))


@command_line.command("info", epilog="\b\nExample:\n    galaxy-trio info ws://127.0.0.1:5000/ws linux_agent_1")
@takes_destination
@click.option(
    "--timeout", type=seconds, default=10, show_default=True, metavar="SECONDS", help="How long the answer may take."
)
@_json
@_verbose
def info_command(destination: Destination, *, timeout: float, as_json: bool) -> int:
    """Show what the server at URL knows of DEVICE."""
    found = run_trio(partial(info, destination, timeout))
    if as_json:
        _print_object(found)
    else:
        print_rows(open_console(), device_rows(found))
    return 0


@command_line.command(
    "run", epilog='\b\nExample:\n    galaxy-trio run ws://127.0.0.1:5000/ws linux_agent_1 "List /tmp"'
)
@takes_destination
@click.argument("request", type=words)
@click.option(
    "--timeout", type=seconds, default=1000, show_default=True, metavar="SECONDS", help="How long the task may take."
)
@_json
@_verbose
def run_command(destination: Destination, *, request: str, timeout: float, as_json: bool) -> int:
    """Let DEVICE do what REQUEST says, and print the result.

    A result that is text is printed as it is, any other as JSON. Ctrl-C and the timeout end the task on the server too.
    """
    with spinner(printable(f"running on {destination.device_id}")):
        result = run_trio(partial(run, destination, request, timeout))
    if as_json:
        _print_object(result)
    elif result.status is TaskStatus.COMPLETED or result.result not in (None, "", [], {}):
        # A failed task's result may be all that tells why it failed.
        _print_result(result.result)
    result.unwrap()
    return 0


def _print_object(outcome: DeviceInfo | TaskResult) -> None:
    click.echo(json.dumps(attrs.asdict(outcome, recurse=False)))


def _print_result(result: JSON) -> None:
    click.echo(printable(result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, indent=2)))


# ---- how they end


def exit_status(error: GalaxyError) -> int:
    """The exit status that stands for an error."""
    return next(status for kind, status in _STATUSES.items() if isinstance(error, kind))


def run_command_line(arguments: Sequence[str]) -> int:
    """Run a command; what goes wrong is said on stderr, in one sentence.

    Args:
        arguments: The words after the program's name.

    Returns:
        The exit status.
    """
    prepare_streams()
    try:
        status = command_line.main(list(arguments), PROGRAM, standalone_mode=False)
    except GalaxyError as error:
        complain(str(error))
        return exit_status(error)
    except Interrupted as interrupted:
        complain("interrupted: the connection is closed, and what ran for it on the server ends")
        return _SIGNALLED + interrupted.signal_number
    except click.Abort:
        return _SIGNALLED + signal.SIGINT
    except click.UsageError as error:
        hint = "" if error.ctx is None else f" See '{error.ctx.command_path} --help'."
        complain(f"{error.format_message()}{hint}")
        return _USAGE
    except OSError as error:
        complain(reason_of(error))
        silence_stdout()
        return _UNWRITTEN
    return status if isinstance(status, int) else 0
