"""The command line: its commands, what they print, and the exit status of every outcome."""

from __future__ import annotations

import json
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from galaxy_trio import __version__
from galaxy_trio._cli.agent import be_device, load_tools
from galaxy_trio._cli.daemon import daemon_command
from galaxy_trio._cli.demo.demo import demo
from galaxy_trio._cli.destination import (
    TOKEN_VARIABLE,
    Destination,
    read_tokens,
    reason_of,
    seconds,
    takes_destination,
    words,
)
from galaxy_trio._cli.devices import check_command, devices_command
from galaxy_trio._cli.options import json_option, tells_what_happens, verbose
from galaxy_trio._cli.server import read_server_certificate, serve
from galaxy_trio._cli.signals import Interrupted, run_service, run_trio
from galaxy_trio._cli.task import events_command, task_command
from galaxy_trio._cli.terminal import (
    READABLE_WIDTH,
    complain,
    device_rows,
    logging_to_stderr,
    open_console,
    prepare_streams,
    print_rows,
    printable,
    silence,
    spinner,
)
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
from galaxy_trio.server import read_device_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


# ---- what the commands do


async def info(destination: Destination, timeout: float) -> DeviceInfo:
    """Ask what the server knows of a device."""
    async with destination.connect() as connection:
        return await connection.device_info(timeout=timeout)


async def run(destination: Destination, request: str, timeout: float) -> TaskResult:
    """Run a task on a connection of its own: a timeout and cancelling close it, which ends the task on the server too."""
    async with destination.connect() as connection:
        return await connection.run_task(request, timeout=timeout)


# ---- the commands


class _CommandLine(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. A reader of stdout that has gone ends it without a word."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            silence(sys.stdout)
        raise click.exceptions.Exit(_PIPE_CLOSED)


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
@verbose
@click.pass_context
def command_line(context: click.Context) -> None:
    """Talk to devices over AIP, the Agent Interaction Protocol."""
    context.with_resource(logging_to_stderr())
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@command_line.command("demo", epilog="\b\nExample:\n    galaxy-trio demo")
@verbose
def demo_command() -> int:
    """Show what the package does, on this machine alone.

    Runs a server, a device and a client in one process, over loopback sockets, and lets things go well and badly.
    It takes a few seconds, and exits with 1 if a check fails.
    """
    return run_trio(partial(demo, open_console(max_width=READABLE_WIDTH)))


@command_line.command("info", epilog="\b\nExample:\n    galaxy-trio info ws://127.0.0.1:5000/ws linux_agent_1")
@takes_destination
@click.option(
    "--timeout", type=seconds, default=10, show_default=True, metavar="SECONDS", help="How long the answer may take."
)
@json_option
@verbose
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
@json_option
@verbose
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


_path = click.Path(path_type=Path)


@command_line.command("server", epilog="\b\nExample:\n    galaxy-trio server --port 5000")
@click.option("--host", type=words, default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=5000, show_default=True, help="The port; 0 for any.")
@click.option(
    "--token-file", type=_path, metavar="FILE",
    help=f"Clients need a token of this file, one a line, instead of the one in {TOKEN_VARIABLE}.",
)  # fmt: skip
@click.option("--device-config", type=_path, metavar="FILE", help="What is known of devices: YAML, JSON or TOML.")
@click.option("--certificate", type=_path, metavar="FILE", help="Speak TLS with this certificate, as PEM.")
@click.option("--key", type=_path, metavar="FILE", help="The certificate's key, if it is not in the same file.")
@click.option(
    "--allow-host", type=words, multiple=True, metavar="NAME", help="A name to be called by, besides loopback's."
)
@click.option("--allow-origin", type=words, multiple=True, metavar="ORIGIN", help="A web page that may connect.")
@click.option("--max-connections", type=click.IntRange(1), default=500, show_default=True)
@tells_what_happens
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
    """Run a server, until Ctrl-C.

    Its URL is printed when it listens. A task "echo TEXT" gives TEXT back; 'TOOL {"name": value}' runs that tool on the device, and gives
    its result.
    """
    tokens, context = read_tokens(token_file), read_server_certificate(certificate, key)
    config = None if device_config is None else read_device_config(device_config)
    return run_service(partial(serve, host, port, tokens, context, config, allow_host, allow_origin, max_connections))


@command_line.command(
    "agent",
    epilog="\b\nExample:\n    galaxy-trio agent ws://127.0.0.1:5000/ws laptop --tools galaxy_trio.agent.example_tools",
)
@takes_destination
@click.option(
    "--tools", type=words, multiple=True, metavar="MODULE[:FUNCTION]",
    help="A function to offer, or all of a module that @tool was put on. May be given several times.",
)  # fmt: skip
@click.option(
    "--mcp", type=words, multiple=True, metavar="[NAME=]COMMAND",
    help="An MCP server to start over stdio, whose tools to offer. May be given several times.",
)  # fmt: skip
@click.option(
    "--max-retries", type=click.IntRange(0), metavar="NUMBER", help="Give up after so many failures in a row."
)
@tells_what_happens
def agent_command(
    destination: Destination, *, tools: tuple[str, ...], mcp: tuple[str, ...], max_retries: int | None
) -> int:
    """Be DEVICE of the server at URL, until Ctrl-C.

    It stays registered: when the server goes it is looked for until it is back.
    """
    return run_service(partial(be_device, destination, load_tools(tools), mcp, max_retries))


command_line.add_command(devices_command)
command_line.add_command(check_command)
command_line.add_command(daemon_command)
command_line.add_command(task_command)
command_line.add_command(events_command)


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
        silence(sys.stdout)
        return _UNWRITTEN
    return status if isinstance(status, int) else 0
