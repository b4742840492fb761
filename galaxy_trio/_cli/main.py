"""The command line: its commands, their output, and the exit status of each error."""

from __future__ import annotations

import re
import signal
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from galaxy_trio import __version__
from galaxy_trio._cli.agent import load_tools, run_agent
from galaxy_trio._cli.check import check_command
from galaxy_trio._cli.cluster import cluster_command
from galaxy_trio._cli.daemon import daemon_command
from galaxy_trio._cli.demo.demo import demo
from galaxy_trio._cli.destination import (
    TOKEN_VARIABLE,
    Destination,
    destination_options,
    read_tokens,
)
from galaxy_trio._cli.devices import devices_command
from galaxy_trio._cli.doctor.command import doctor_command
from galaxy_trio._cli.events import events_command
from galaxy_trio._cli.graph.command import graph_command
from galaxy_trio._cli.mcp import mcp_options
from galaxy_trio._cli.options import host_name, json_option, log_options, seconds, valid_text, verbose, whole_number
from galaxy_trio._cli.server import read_server_certificate, serve
from galaxy_trio._cli.signals import Interrupted, run_service, run_trio
from galaxy_trio._cli.task import task_command
from galaxy_trio._cli.terminal import (
    READABLE_WIDTH,
    device_rows,
    echo,
    echo_json,
    echo_result,
    logging_to_stderr,
    open_console,
    prepare_streams,
    print_error,
    print_rows,
    reason_of,
    silence,
    spinner,
)
from galaxy_trio._cli.tools import tools_command
from galaxy_trio.errors import (
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    GalaxyError,
    GraphFailed,
    HandshakeRejected,
    InvalidMessage,
    RegistrationRejected,
    RequestRejected,
    RequestTimeout,
    TaskFailed,
)
from galaxy_trio.messages import DeviceInfo, TaskResult, TaskStatus
from galaxy_trio.server import read_device_config

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from galaxy_trio.agent import McpServer

PROGRAM: Final = "galaxy-trio"

_OUTPUT_FAILED: Final = 1
_USAGE: Final = 2
# As shells report signals: 128 and the signal's number. 13 is SIGPIPE, which not every system defines.
_SIGNAL: Final = 128
_PIPE_CLOSED: Final = _SIGNAL + 13
# click shows them, and one may be a token.
_EXTRA_ARGUMENTS: Final = re.compile(r"(Got unexpected extra arguments?) \(.*\)", re.DOTALL)
# The first match counts: subclasses come before their base classes.
_STATUSES: Mapping[type[Exception], int] = {
    TaskFailed: 1,
    GraphFailed: 1,
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


async def info(destination: Destination, timeout: float) -> DeviceInfo:
    """Request the information that the server has about a device."""
    async with destination.connect() as connection:
        return await connection.device_info(timeout=timeout)


async def run(destination: Destination, request: str, timeout: float) -> TaskResult:
    """Run a task on its own connection. A timeout or cancellation closes the connection, which ends the task on the server as well."""
    async with destination.connect() as connection:
        return await connection.run_task(request, timeout=timeout)


class _CommandLine(click.Group):
    """Ends without an error message when stdout is closed."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """Parse the options, of which some print and exit."""
        with _closed_pipe():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _closed_pipe():
            return super().invoke(ctx)


@contextmanager
def _closed_pipe() -> Generator[None]:
    try:
        yield
    except BrokenPipeError:
        silence(sys.stdout)
        raise click.exceptions.Exit(_PIPE_CLOSED) from None


@click.group(
    PROGRAM,
    cls=_CommandLine,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"""\b
    To see a demonstration on this machine, without any setup:
        galaxy-trio demo

    \b
    The server's token is read from the variable {TOKEN_VARIABLE}
    or from a file with --token-file, never from an argument.

    \b
    For completion in bash, add this line to ~/.bashrc:
        eval "$(_GALAXY_TRIO_COMPLETE=bash_source galaxy-trio)"
    In zsh and fish, use zsh_source and fish_source.

    \b
    Exit status: 0 success, 1 the task or the graph failed, 2 invalid usage,
    3 the connection failed or was lost, 4 timeout,
    5 refused by the server, 130 Ctrl-C.""",
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
@verbose
@click.pass_context
def command_line(context: click.Context) -> None:
    """Run tasks on devices over AIP, the Agent Interaction Protocol."""
    context.with_resource(logging_to_stderr())
    if context.invoked_subcommand is None:
        echo(context.get_help())


@command_line.command("demo", epilog="\b\nExample:\n    galaxy-trio demo")
@verbose
def demo_command() -> int:
    """Run a demonstration on this machine.

    Runs a server, a device and a client in one process over loopback sockets, in normal operation and with failures. It takes a few seconds
    and exits with 1 if a check fails.
    """
    return run_trio(partial(demo, open_console(max_width=READABLE_WIDTH)))


@command_line.command("info", epilog="\b\nExample:\n    galaxy-trio info ws://127.0.0.1:5000/ws linux_agent_1")
@destination_options
@click.option(
    "--timeout", type=seconds, default=10, show_default=True, metavar="SECONDS", help="Time limit for the reply."
)
@json_option
@verbose
def info_command(destination: Destination, *, timeout: float, as_json: bool) -> int:
    """Show the information that the server at URL has about DEVICE."""
    found = run_trio(partial(info, destination, timeout))
    if as_json:
        _print_object(found)
    else:
        print_rows(open_console(), device_rows(found))
    return 0


@command_line.command(
    "run", epilog='\b\nExample:\n    galaxy-trio run ws://127.0.0.1:5000/ws linux_agent_1 "List /tmp"'
)
@destination_options
@click.argument("request", type=valid_text)
@click.option(
    "--timeout", type=seconds, default=1000, show_default=True, metavar="SECONDS", help="Time limit of the task."
)
@json_option
@verbose
def run_command(destination: Destination, *, request: str, timeout: float, as_json: bool) -> int:
    """Run the task REQUEST on DEVICE and print its result.

    A text is printed as it is, any other result as JSON. Ctrl-C and the timeout end the task on the server as well.
    """
    with spinner(f"running on {destination.device_id}"):
        result = run_trio(partial(run, destination, request, timeout))
    if as_json:
        _print_object(result)
    elif result.status is TaskStatus.COMPLETED or result.result not in (None, "", [], {}):
        # The result of a failed task may say why it failed.
        echo_result(result.result)
    result.unwrap()
    return 0


_path = click.Path(path_type=Path)


@command_line.command("server", epilog="\b\nExample:\n    galaxy-trio server --port 5000")
@click.option(
    "--host",
    type=host_name,
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on.",
)
@click.option(
    "--port",
    type=whole_number(0, 65535),
    metavar="PORT",
    default=5000,
    show_default=True,
    help="The port; 0 for any free one.",
)
@click.option(
    "--token-file", type=_path, metavar="FILE",
    help=f"Accept the tokens in this file, one per line, instead of the one in the variable {TOKEN_VARIABLE}.",
)  # fmt: skip
@click.option("--device-config", type=_path, metavar="FILE", help="Information about devices, as YAML, JSON or TOML.")
@click.option("--certificate", type=_path, metavar="FILE", help="Use TLS with this certificate, in PEM format.")
@click.option("--key", type=_path, metavar="FILE", help="The private key, if it is not in the certificate's file.")
@click.option(
    "--allow-host",
    type=host_name,
    multiple=True,
    metavar="NAME",
    help="Accept clients that use this host name. A loopback address accepts the loopback names as well; any other address accepts "
    "every name if none is given. Repeatable.",
)
@click.option(
    "--allow-origin",
    type=valid_text,
    multiple=True,
    metavar="ORIGIN",
    help="Accept web pages of this origin. Repeatable.",
)
@click.option(
    "--max-connections",
    type=whole_number(1),
    metavar="NUMBER",
    default=500,
    show_default=True,
    help="The largest number of connections.",
)
@log_options
def server_command(
    *,
    host: str,
    port: int,
    token_file: Path | None,
    device_config: Path | None,
    certificate: Path | None,
    key: Path | None,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    max_connections: int,
) -> int:
    """Run a server until Ctrl-C.

    It prints its URL to stdout when it listens, and logs to stderr. The task 'TOOL {"name": value}' runs that tool with these parameters on
    the device and returns its result; "echo TEXT" returns the text. A tool's name with spaces is put in quotes: '"TOOL" {"name": value}'.
    device:echo is a tool of that name on the device.
    """
    tokens, context = read_tokens(token_file), read_server_certificate(certificate, key)
    config = None if device_config is None else read_device_config(device_config)
    return run_service(partial(serve, host, port, tokens, context, config, allow_host, allow_origin, max_connections))


@command_line.command(
    "agent",
    epilog="\b\nExample:\n    galaxy-trio agent ws://127.0.0.1:5000/ws laptop --tools my_tools",
)
@destination_options
@click.option(
    "--tools", type=valid_text, multiple=True, metavar="MODULE[:FUNCTION]",
    help="A function to offer, or a module with functions decorated with @tool. Repeatable.",
)  # fmt: skip
@mcp_options
@click.option(
    "--max-retries", type=whole_number(0), metavar="NUMBER", help="Give up after this many consecutive failures."
)
@log_options
def agent_command(
    destination: Destination,
    *,
    tools: tuple[str, ...],
    servers: Sequence[McpServer],
    max_retries: int | None,
) -> int:
    """Run a device agent until Ctrl-C.

    It registers as DEVICE with the server at URL. When the connection is lost, it reconnects and registers again.
    """
    return run_service(partial(run_agent, destination, load_tools(tools), servers, max_retries))


command_line.add_command(tools_command)
command_line.add_command(devices_command)
command_line.add_command(check_command)
command_line.add_command(doctor_command)
command_line.add_command(graph_command)
command_line.add_command(daemon_command)
command_line.add_command(task_command)
command_line.add_command(events_command)
command_line.add_command(cluster_command)


def _print_object(outcome: DeviceInfo | TaskResult) -> None:
    echo_json(attrs.asdict(outcome, recurse=False))


def exit_status(error: GalaxyError) -> int:
    """Return the exit status for an error."""
    return next(status for kind, status in _STATUSES.items() if isinstance(error, kind))


def run_command_line(arguments: Sequence[str]) -> int:
    """Run a command. An error is printed to stderr in one sentence.

    Args:
        arguments: The words after the program's name.

    Returns:
        The exit status.
    """
    prepare_streams()
    try:
        status = command_line.main(list(arguments), PROGRAM, standalone_mode=False)
    except GalaxyError as error:
        print_error(str(error))
        return exit_status(error)
    except Interrupted as interrupted:
        print_error("interrupted: the connection was closed, which ends its tasks on the server")
        return _SIGNAL + interrupted.signal_number
    except click.Abort:
        return _SIGNAL + signal.SIGINT
    except click.UsageError as error:
        hint = "" if error.ctx is None else f" See '{error.ctx.command_path} --help'."
        message = _EXTRA_ARGUMENTS.sub(r"\1", error.format_message())
        print_error(f"{message}{hint}")
        return _USAGE
    except OSError as error:
        print_error(reason_of(error))
        silence(sys.stdout)
        return _OUTPUT_FAILED
    return status if isinstance(status, int) else 0
