"""``galaxy-trio task``: submits tasks to the daemon, and shows them."""

from __future__ import annotations

import functools
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import quote

import attrs
import click

from galaxy_trio._arguments import MAX_PRIORITY
from galaxy_trio._cli.daemon import ADDRESS_VARIABLE
from galaxy_trio._cli.extras import missing_extra
from galaxy_trio._cli.options import (
    backoff_seconds,
    finite_seconds,
    json_option,
    limit_option,
    seconds,
    valid_text,
    verbose,
    whole_number,
)
from galaxy_trio._cli.table import Column, cell, lay_out
from galaxy_trio._cli.task_end import LONGEST_WAIT, path_of, print_end, wait_for_end
from galaxy_trio._cli.task_history import history_rows
from galaxy_trio._cli.terminal import echo, echo_json, open_console, print_rows
from galaxy_trio._config.text import BYTE_ORDER_MARK
from galaxy_trio._config.tokens import read_token_file, read_token_variable
from galaxy_trio._printable import one_line
from galaxy_trio.daemon.settings import TOKEN_VARIABLE, check_tokens
from galaxy_trio.daemon.store.records import TaskState
from galaxy_trio.errors import RequestRejected
from galaxy_trio.graph.backoff import MAX_BACKOFF
from galaxy_trio.graph.model import BACKOFF, MAX_RETRIES

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from rich.text import Text

    from galaxy_trio._cli.daemon_client import DaemonClient
    from galaxy_trio.messages import JSON

_DEFAULT_ADDRESS: Final = "http://127.0.0.1:8765"
_COLUMNS: Final = (
    Column("task"),
    Column("state", widest=9),
    Column("device", widest=16, optional=True),
    Column("request", optional=True, fill=True),
)
_PRIORITY: Final = Column("priority", right=True, optional=True)
_MAX_REQUEST: Final = 500
"""Characters of a request of which a table shows as many as there is room for."""


@attrs.frozen
class Daemon:
    """The daemon's address and token.

    Attributes:
        address: ``http://HOST:PORT``, or ``unix:PATH``.
    """

    address: str
    token: str | None = attrs.field(default=None, repr=False)

    def client(self) -> AbstractContextManager[DaemonClient]:
        """Open a client for the duration of a block.

        Raises:
            ConfigError: The extra ``daemon`` is not installed.
        """
        try:
            from galaxy_trio._cli.daemon_client import open_client  # noqa: PLC0415  # the extra "daemon" may not be installed
        except ModuleNotFoundError as error:
            raise missing_extra(error) from None
        return open_client(self.address, self.token, LONGEST_WAIT)


def daemon_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options for the daemon's address and token, and pass them to the command as a `Daemon`."""

    @functools.wraps(command)
    def with_daemon(*arguments: object, url: str | None, token_file: Path | None, **others: object) -> int:
        address = url or os.environ.get(ADDRESS_VARIABLE, "").strip(f"{BYTE_ORDER_MARK} ") or _DEFAULT_ADDRESS
        return command(*arguments, daemon=Daemon(address, _read_token(token_file)), **others)

    decorated: Callable[..., int] = with_daemon
    for decorate in (
        click.option(
            "--token-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help=f"Read the daemon's token from this file instead of the variable {TOKEN_VARIABLE}.",
        ),
        click.option(
            "--url",
            type=valid_text,
            metavar="URL",
            help=(
                "The daemon's address: http://HOST:PORT, unix:PATH, or https://HOST of a reverse proxy. "
                f"By default the variable {ADDRESS_VARIABLE}, or else {_DEFAULT_ADDRESS}."
            ),
        ),
        verbose,
    ):
        decorated = decorate(decorated)
    return decorated


def _read_token(token_file: Path | None) -> str | None:
    """Read the daemon's token: the first one, if the daemon's own file or variable contains several."""
    tokens = read_token_variable(TOKEN_VARIABLE) if token_file is None else read_token_file(token_file)
    check_tokens(tokens, f"the variable {TOKEN_VARIABLE}" if token_file is None else str(token_file))
    return tokens[0] if tokens else None


_id = click.argument("task_id", metavar="ID", type=valid_text)


@click.group("task")
def task_command() -> None:
    """Submit, list, show, cancel and retry the daemon's tasks."""


@task_command.command(
    "submit", epilog='\b\nExample:\n    galaxy-trio task submit "Open Notepad" --device laptop --wait'
)
@click.argument("request", type=valid_text)
@click.option(
    "--device", type=valid_text, metavar="DEVICE", help="The device to run the task; by default any suitable one."
)
@click.option(
    "--os",
    "os_name",
    type=valid_text,
    metavar="OS",
    help="The operating system that the device must have, such as linux.",
)
@click.option(
    "--capability",
    "capabilities",
    type=valid_text,
    multiple=True,
    metavar="NAME",
    help="A capability that the device must have. Repeatable.",
)
@click.option(
    "--timeout",
    type=finite_seconds,
    default=1000,
    show_default=True,
    metavar="SECONDS",
    help="Time limit of the task, from when it starts.",
)
@click.option(
    "--priority",
    type=whole_number(-MAX_PRIORITY, MAX_PRIORITY),
    default=0,
    show_default=True,
    metavar="NUMBER",
    help=f"Tasks of a higher priority begin first: from -{MAX_PRIORITY} to {MAX_PRIORITY}.",
)
@click.option(
    "--retries",
    type=whole_number(0, MAX_RETRIES),
    default=0,
    show_default=True,
    metavar="NUMBER",
    help="Further attempts, at most, after the task has failed. Each is a task of its own.",
)
@click.option(
    "--backoff",
    type=backoff_seconds,
    metavar="SECONDS",
    help=(
        f"The longest wait before the first of them; it doubles with each, to {MAX_BACKOFF:g} at most. "
        f"By default {BACKOFF:g}."
    ),
)
@click.option(
    "--retry-lost",
    is_flag=True,
    help="Retry the task also if it is lost. It may have run, and then runs twice.",
)
@click.option(
    "--idempotency-key",
    type=valid_text,
    metavar="KEY",
    help="Submit at most one task with this KEY: submitting it again prints the same id.",
)
@click.option("--wait", is_flag=True, help="Wait until the task and its retries have ended, and print the result.")
@json_option
@daemon_options
def submit_command(
    daemon: Daemon,
    request: str,
    *,
    device: str | None,
    os_name: str | None,
    capabilities: tuple[str, ...],
    timeout: float,
    priority: int,
    retries: int,
    backoff: float | None,
    retry_lost: bool,
    idempotency_key: str | None,
    wait: bool,
    as_json: bool,
) -> int:
    """Submit REQUEST as a task and print its id. An accepted task is stored on disk and survives a restart of the daemon."""
    given: dict[str, JSON] = {
        "request": request,
        "timeout": timeout,
        "device": device,
        "os": os_name,
        "capabilities": list(capabilities),
        "priority": priority,
        "retries": retries,
        "backoff": backoff,
        "retry_lost": retry_lost,
        "idempotency_key": idempotency_key,
    }
    body: JSON = {name: value for name, value in given.items() if value not in (None, [])}
    with daemon.client() as client:
        task = client.request("POST", "/tasks", json=body)
        if wait:
            return print_end(wait_for_end(client, str(task["id"])), as_json=as_json)
    if as_json:
        echo_json(task)
    else:
        echo(str(task["id"]))
    return 0


@task_command.command("list")
@click.option(
    "--state", type=click.Choice([state.value for state in TaskState]), metavar="STATE",
    help=f"Only tasks in this state: {', '.join(TaskState)}.",
)  # fmt: skip
@click.option("--device", type=valid_text, metavar="DEVICE", help="Only tasks of this device.")
@limit_option("tasks")
@json_option
@daemon_options
def list_command(daemon: Daemon, *, state: str | None, device: str | None, limit: int, as_json: bool) -> int:
    """List tasks, newest first."""
    wanted = {"state": state, "device": device, "limit": limit}
    parameters = {name: value for name, value in wanted.items() if value is not None}
    with daemon.client() as client:
        tasks = cast("list[dict[str, JSON]]", client.request("GET", "/tasks", params=parameters)["tasks"])
    if as_json:
        echo_json(tasks)
        return 0
    if not tasks:
        echo("no tasks")
        return 0
    console = open_console()
    columns, table = list(_COLUMNS), [_cells(task) for task in tasks]
    if any(task.get("priority") for task in tasks):
        columns.insert(2, _PRIORITY)
        for task, cells in zip(tasks, table, strict=True):
            cells.insert(2, cell(str(task.get("priority"))))
    header, rows = lay_out(columns, table, console.width)
    for line in [header, *(line for lines in rows for line in lines)]:
        console.print(line, soft_wrap=True)
    return 0


def _cells(task: dict[str, JSON]) -> list[Text]:
    device, request = one_line(str(task.get("device") or "-")), str(task.get("request"))[:_MAX_REQUEST]
    return [cell(str(task.get("id"))), cell(str(task.get("state"))), cell(device), cell(request)]


@task_command.command("show")
@_id
@json_option
@daemon_options
def show_command(daemon: Daemon, task_id: str, *, as_json: bool) -> int:
    """Show a task, its result and its history."""
    with daemon.client() as client:
        task = client.request("GET", path_of(task_id))
        history = [] if as_json else history_rows(task, _awaited_device(client, task))
    if as_json:
        echo_json(task)
    else:
        _print_task(task, history)
    return 0


@task_command.command("logs", epilog="\b\nExample:\n    galaxy-trio task logs 0123456789abcdef0123456789abcdef")
@_id
@json_option
@daemon_options
def logs_command(daemon: Daemon, task_id: str, *, as_json: bool) -> int:
    """Show a task's history.

    That is when it was accepted, what it waited for, where it was sent, and how it ended.
    """
    with daemon.client() as client:
        task = client.request("GET", path_of(task_id))
        rows = [] if as_json else history_rows(task, _awaited_device(client, task))
    if as_json:
        echo_json(task.get("history", []))
    else:
        print_rows(open_console(), rows)
    return 0


@task_command.command("wait")
@_id
@click.option("--timeout", type=seconds, metavar="SECONDS", help="Time limit of the wait; by default none.")
@json_option
@daemon_options
def wait_command(daemon: Daemon, task_id: str, *, timeout: float | None, as_json: bool) -> int:
    """Wait for the end of a task and its retries, and print the result. Ctrl-C ends the wait; the task goes on."""
    with daemon.client() as client:
        return print_end(wait_for_end(client, task_id, timeout), as_json=as_json)


@task_command.command("cancel")
@_id
@daemon_options
def cancel_command(daemon: Daemon, task_id: str) -> int:
    """Cancel a task. A queued task does not start; a running task is stopped on its device."""
    with daemon.client() as client:
        echo(str(client.request("DELETE", path_of(task_id))["state"]))
    return 0


@task_command.command("retry")
@_id
@daemon_options
def retry_command(daemon: Daemon, task_id: str) -> int:
    """Rerun a finished task as a new task, and print the new id."""
    with daemon.client() as client:
        echo(str(client.request("POST", f"{path_of(task_id)}/retry")["id"]))
    return 0


def _awaited_device(client: DaemonClient, task: dict[str, JSON]) -> dict[str, JSON] | None:
    """Return the device that a queued task waits for; None if it waits for any, or the device is not there any more."""
    wants = task.get("wants")
    if task.get("state") != "queued" or not isinstance(wants, dict) or not wants.get("device"):
        return None
    with suppress(RequestRejected):
        return client.request("GET", f"/devices/{quote(str(wants['device']), safe='')}")
    return None


def _print_task(task: dict[str, JSON], history: list[tuple[str, str]]) -> None:
    rows = [
        (name, str(task[name]))
        for name in ("id", "state", "request", "device", "priority", "error", "retry_of", "graph", "node")
        if task.get(name)
    ]
    if "result" in task:
        rows.append(("result", json.dumps(task["result"], ensure_ascii=False)))
    elif task.get("result_url"):
        rows.append(("result", f"{task.get('result_size')} bytes: galaxy-trio task wait {task['id']}"))
    rows += [("" if number else "history", f"{time} {sentence}") for number, (time, sentence) in enumerate(history)]
    print_rows(open_console(), rows)
