"""The table of a constellation's devices."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Final

from rich.text import Text

from galaxy_trio._cli.table import Column, cell, lay_out, note
from galaxy_trio._cli.times import duration, seconds_until
from galaxy_trio.events import CONNECTED, DeviceStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from galaxy_trio.constellation.device_statistics import DeviceStatistics

REASON_LENGTH: Final = 200
"""The longest reason in characters."""
_NAME_LENGTH: Final = 200
_COLUMNS: Final = (
    Column("device"),
    Column("status", widest=12),
    Column("os", widest=12, optional=True),
    Column("tasks", right=True, widest=9, optional=True),
    Column("heard", right=True, widest=10, optional=True),
    Column("reconnects", right=True, widest=10, optional=True),
    Column("capabilities", widest=40, optional=True),
)
_STYLES: Final = {
    DeviceStatus.IDLE: "green",
    DeviceStatus.BUSY: "cyan",
    DeviceStatus.FAILED: "red",
    DeviceStatus.DISCONNECTED: "yellow",
}


def devices_table(devices: Sequence[DeviceStatistics], *, width: int, rows: int | None = None) -> Text:
    """Return a table of the devices. The reason why a device is away is below it; one that several have in a row is shown once.

    Args:
        devices: The devices.
        width: The terminal's width.
        rows: The largest number of lines. If there are more, devices that are away come first, in the order of their reasons, and the last
            line counts those that are not shown.
    """
    lines, hidden = _lines(devices, width, rows)
    if hidden:
        away_first = sorted(devices, key=_by_problem)
        lines, hidden = _lines(away_first, width, None if rows is None else rows - 1)
        counts = Counter(device.status.value for device in hidden)
        counted = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        lines.append(cell(f"… {len(hidden)} more: {counted}", "dim"))
        lines[-1].truncate(width, overflow="ellipsis")
    return Text("\n").join(lines)


def _lines(
    devices: Sequence[DeviceStatistics], width: int, rows: int | None
) -> tuple[list[Text], Sequence[DeviceStatistics]]:
    """Return the lines, and the devices that have no room. The first device is always there."""
    header, rest = lay_out(_COLUMNS, [_cells(device) for device in devices], width)
    lines, shown = [header], 0
    for problem, group in groupby(devices, _problem):
        together = list(group)
        reason = [] if problem is None else note(_reason(problem, together), width)
        room = None if rows is None else rows - len(lines) - len(reason)
        fitting = together if room is None else _fitting(together, rest[shown:], room, first=not shown)
        lines += [line for row in rest[shown : shown + len(fitting)] for line in row]
        if fitting:
            lines += reason if problem is None else note(_reason(problem, fitting), width)
        shown += len(fitting)
        if len(fitting) < len(together):
            break
    return lines, devices[shown:]


def _fitting(
    devices: list[DeviceStatistics], rows: Sequence[Sequence[Text]], room: int, *, first: bool
) -> list[DeviceStatistics]:
    count, needed = 0, 0
    while count < len(devices) and needed + len(rows[count]) <= room:
        needed += len(rows[count])
        count += 1
    return devices[: max(count, 1 if first else 0)]


def _cells(device: DeviceStatistics) -> list[Text]:
    heard = seconds_until(device.last_heard)
    tasks = f"{device.running}+{device.queued}" if device.queued else f"{device.running}"
    return [
        cell(device.device_id if len(device.device_id) <= _NAME_LENGTH else f"{device.device_id[:_NAME_LENGTH]}…"),
        cell(device.status.value, _STYLES.get(device.status, "")),
        cell(device.os or "-"),
        cell(tasks),
        cell("-" if heard is None else f"{duration(-heard)} ago"),
        cell(str(max(device.connects - 1, 0))),
        cell(", ".join(device.capabilities) or "-"),
    ]


def _problem(device: DeviceStatistics) -> str | None:
    if device.status in CONNECTED or device.problem is None:
        return None
    # Its row has its name: without it, devices that are away for the same reason have the same text.
    return device.problem.replace(f" {device.device_id!r}", "")


def _by_problem(device: DeviceStatistics) -> tuple[bool, bool, str]:
    """Sort devices that are away for a known reason first, those with the same reason together, and connected ones last."""
    problem = _problem(device)
    return device.status in CONNECTED, problem is None, problem or ""


def _reason(problem: str, devices: Iterable[DeviceStatistics]) -> str:
    """Return why devices are away, and when they are tried again."""
    devices = list(devices)
    tries = [left for device in devices if (left := seconds_until(device.next_try)) is not None]
    when = dict.fromkeys((duration(min(tries)), duration(max(tries)))) if tries else {}
    reason = problem if len(problem) <= REASON_LENGTH else f"{problem[:REASON_LENGTH]}…"
    which = f"{len(devices)} devices: " if len(devices) > 1 else ""
    return f"{which}{reason}" + (f" (retry in {' to '.join(when)})" if when else "")
