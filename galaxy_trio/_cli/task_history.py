"""A task's history in sentences, for ``galaxy-trio task logs`` and ``galaxy-trio task show``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from galaxy_trio._cli.times import duration, local_time, seconds_between, seconds_until

if TYPE_CHECKING:
    from galaxy_trio.messages import JSON


def history_rows(task: dict[str, JSON], device: dict[str, JSON] | None = None) -> list[tuple[str, str]]:
    """Return a row for each entry of a task's history: its time, and what happened. The last row is about now if the task has not ended.

    Args:
        task: The task, as ``GET /tasks/ID`` returns it.
        device: The device that it waits for, as ``GET /devices/ID`` returns it.
    """
    history = task.get("history")
    entries = [entry for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []
    rows: list[tuple[str, str]] = []
    queued: JSON = None
    sent: JSON = None
    for entry in entries:
        time, event, where = entry.get("time"), str(entry.get("event")), entry.get("device")
        if event == "accepted":
            again = f", to repeat task {task['retry_of']}" if task.get("retry_of") else ""
            sentence, queued = f"accepted{again}", time
        elif event == "sent":
            sentence, sent = f"sent to {where}, after {_between(queued, time)} in the queue", time
        elif event == "returned":
            sentence, queued, sent = f"back in the queue: {where} had left before the task ran", time, None
        else:
            sentence = _end(task, event, _between(sent or queued, time), began=sent is not None)
        rows.append((local_time(time), sentence))
    if task.get("state") == "running":
        rows.append(("now", f"running on {task.get('device')}, for {_since(sent)}"))
    elif task.get("state") == "queued":
        rows.append(("now", f"waiting for {_since(queued)}, for {_awaited(task, device)}"))
    return rows


def _between(start: JSON, end: JSON) -> str:
    return duration(seconds_between(start, end) or 0)


def _since(start: JSON) -> str:
    return duration(-(seconds_until(start) or 0))


def _end(task: dict[str, JSON], event: str, took: str, *, began: bool) -> str:
    when = f"{event} after {took}{'' if began else ' in the queue'}"
    return f"{when}: {task['error']}" if task.get("error") else when


def _awaited(task: dict[str, JSON], device: dict[str, JSON] | None) -> str:
    wants = task.get("wants")
    wanted = wants if isinstance(wants, dict) else {}
    if wanted.get("device"):
        return f"{wanted['device']}{_why(device)}"
    capabilities = wanted.get("capabilities")
    needed = [str(wanted["os"])] if wanted.get("os") else []
    needed += map(str, capabilities) if isinstance(capabilities, list) else []
    return f"any device with {', '.join(needed)}" if needed else "any device"


def _why(device: dict[str, JSON] | None) -> str:
    """Say why a device does not take the task."""
    if device is None:
        return ""
    problem = f": {device['problem']}" if device.get("problem") else ""
    return f", which is {device.get('status')}{problem}"
