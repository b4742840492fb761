"""``galaxy-trio events``: a line for each event of the daemon."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

import click

from galaxy_trio._cli.devices_table import REASON_LENGTH
from galaxy_trio._cli.options import json_option
from galaxy_trio._cli.signals import exiting_on_ctrl_c
from galaxy_trio._cli.task import Daemon, daemon_options
from galaxy_trio._cli.terminal import echo_json, open_console, print_entry, print_hint
from galaxy_trio._cli.times import duration, seconds_between, seconds_until
from galaxy_trio._printable import one_line
from galaxy_trio.errors import ConnectFailed

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON

_AWAY: Final = ("disconnected", "failed", "needs attention")


@click.command("events", epilog="\b\nExample:\n    galaxy-trio events --url http://127.0.0.1:8765")
@json_option
@daemon_options
def events_command(daemon: Daemon, *, as_json: bool) -> int:
    """Print the daemon's events, one per line, until Ctrl-C. With --json, each has all that the daemon sends."""
    console = open_console()
    with daemon.client() as client, exiting_on_ctrl_c():
        print_hint("waiting for events; Ctrl-C ends this")
        for event in client.events():
            if as_json:
                echo_json({"event": event.kind, "data": event.data})
            elif (line := _line(event.kind, event.data)) is not None:
                print_entry(console, time.strftime("%H:%M:%S"), line)
    raise ConnectFailed(f"the daemon at {client.shown} closed the connection")


def _line(kind: str, data: JSON) -> str | None:
    """Describe an event. One of an unknown kind is shown as it is. Returns None if another event says the same, and why."""
    if isinstance(data, dict):
        if kind == "task" and data.get("state"):
            return f"task {data.get('id')} {_task(data)}"
        if kind == "status" and data.get("status"):
            return None if data["status"] in _AWAY else f"device {data.get('device_id')} is {data['status']}"
        if kind == "device" and data.get("what"):
            return f"device {data.get('device_id')}: {_device(data)}"
        if kind == "reset":
            return "some events are missing: the daemon no longer had them"
    return f"{kind} {json.dumps(data, ensure_ascii=False)}"


def _task(task: dict[str, JSON]) -> str:
    state = str(task["state"])
    where = f" on {task['device']}" if task.get("device") else ""
    if state == "queued":
        return f"queued: {_short(task.get('request'))}"
    if state == "running":
        return f"running{where}"
    took = seconds_between(task.get("started"), task.get("ended"))
    after = "" if took is None else f" after {duration(took)}"
    return f"{state}{where}{after}" + (f": {_short(task['error'])}" if task.get("error") else "")


def _device(device: dict[str, JSON]) -> str:
    what = str(device["what"])
    if what == "information":
        return "new information about it"
    if what not in _AWAY:
        return what
    left = seconds_until(device.get("next_try"))
    retry = "" if left is None else f" (retry in {duration(left)})"
    return f"{what}: {_short(device.get('problem') or 'no reason was given')}{retry}"


def _short(text: JSON) -> str:
    shown = one_line(str(text))
    return shown if len(shown) <= REASON_LENGTH else f"{shown[:REASON_LENGTH]}…"
