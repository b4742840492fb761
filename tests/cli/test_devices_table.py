"""The table of ``galaxy-trio devices``: readable at any width, with one device or with hundreds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len

from galaxy_trio import DeviceStatistics, DeviceStatus
from galaxy_trio._cli.devices_table import devices_table
from galaxy_trio._cli.times import duration

HOSTILE = "evil\x1b]0;title\x07\nname"
REFUSED = "cannot connect to ws://10.0.0.1:5000/ws: connection refused; is the server running, and at this port?"


def statistics(device_id: str, status: DeviceStatus = DeviceStatus.IDLE, **values: object) -> DeviceStatistics:
    fields: dict[str, object] = {
        "os": "linux", "capabilities": ("cli", "gui"), "running": 0, "queued": 0, "idle_connections": 0, "connects": 1, "failures": 0,
        "problem": None, "next_try": None, "connected_since": None, "last_heard": None, "connection": None, **values,
    }  # fmt: skip
    return DeviceStatistics(device_id, status, **fields)  # type: ignore[arg-type]


def away(device_id: str, problem: str = REFUSED, **values: object) -> DeviceStatistics:
    return statistics(device_id, DeviceStatus.DISCONNECTED, problem=problem, **values)


def shown(*devices: DeviceStatistics, width: int = 80, rows: int | None = None) -> list[str]:
    lines = devices_table(list(devices), width=width, rows=rows).plain.splitlines()
    assert max(map(cell_len, lines)) <= width
    return lines


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_each_device_has_a_line_and_its_reason_lines_of_its_own() -> None:
    header, laptop, tower, refused, question, old, bad = shown(
        statistics("laptop", DeviceStatus.BUSY, running=1, queued=3, connects=5, last_heard=in_seconds(-3)),
        away("tower", next_try=in_seconds(7.2), connects=0),
        statistics("old", DeviceStatus.FAILED, problem="bad certificate", os=None),
    )
    assert header.split() == ["device", "status", "os", "tasks", "heard", "reconnects", "capabilities"]
    assert laptop.split() == ["laptop", "busy", "linux", "1+3", "3", "s", "ago", "4", "cli,", "gui"]
    assert tower.split() == ["tower", "disconnected", "linux", "0", "-", "0", "cli,", "gui"]
    assert refused == "  cannot connect to ws://10.0.0.1:5000/ws: connection refused; is the server"
    assert question == "  running, and at this port? (retry in 7 s)"
    assert old.split()[:3] == ["old", "failed", "-"]
    assert bad == "  bad certificate"


def test_columns_are_aligned_and_numbers_to_the_right() -> None:
    header, one, two = shown(statistics("a", running=1), statistics("long-name", running=100, queued=20), width=60)
    end = header.index("tasks") + len("tasks")
    assert [line[:end][-7:] for line in (header, one, two)] == ["  tasks", "      1", " 100+20"]
    assert header.index("status") == one.index("idle") == two.index("idle")


def test_reason_that_several_devices_have_in_a_row_is_shown_once() -> None:
    devices = [away(f"d{number}", next_try=in_seconds(number + 1.2)) for number in range(300)]
    lines = shown(*devices)
    assert [line.split()[0] for line in lines[1:301]] == [f"d{number}" for number in range(300)]
    assert " ".join(map(str.strip, lines[301:])) == f"300 devices: {REFUSED} (retry in 1 s to 5 min)"
    lines = shown(*devices[:2], away("other", "HTTP 403"), devices[2])
    assert [line.split()[0] for line in lines[1:] if not line.startswith(" ")] == ["d0", "d1", "other", "d2"]
    assert lines[3].startswith("  2 devices: cannot connect")


def test_reason_that_names_its_device_is_shown_once_for_several() -> None:
    refused = (
        "the server refused the registration for device {0!r}: Target device {0!r} is not connected; is it running?"
    )
    lines = shown(*(away(f"d{number}", refused.format(f"d{number}")) for number in range(300)))
    assert " ".join(map(str.strip, lines[301:])) == (
        "300 devices: the server refused the registration for device: Target device is not connected; is it running?"
    )


def test_small_screen_shows_devices_with_the_same_reason_together() -> None:
    devices = [away(f"d{number}", "HTTP 403" if number % 2 else REFUSED) for number in range(10)]
    connecting = statistics("new", DeviceStatus.CONNECTING)
    lines = shown(connecting, statistics("ok"), *devices, rows=11)
    names = [line.split()[0] for line in lines[1:-1] if not line.startswith(" ")]
    assert names == ["d1", "d3", "d5", "d7", "d9", "d0"]
    assert lines[6] == "  5 devices: HTTP 403"
    assert lines[-1] == "… 6 more: 1 connecting, 4 disconnected, 1 idle"


@pytest.mark.parametrize("width", [200, 110, 80, 60, 40, 30, 24])
def test_long_names_are_whole_at_any_width(width: int) -> None:
    names = ["warehouse-berlin-robot-0001", "x" * 90, "機器人" * 20]
    lines = shown(*(away(name, last_heard=in_seconds(-5_000)) for name in names), width=width)
    joined = "".join(line.split("  ")[0] for line in lines)
    assert all(name in joined for name in names)
    assert "disconnected" in lines[1]


def test_very_long_name_and_reason_are_cut() -> None:
    lines = shown(away("n" * 900, "r" * 2_000), width=80)
    assert sum(line.count("n") for line in lines[2:]) < 250
    assert sum(line.count("r") for line in lines) < 250


def test_narrow_terminal_has_fewer_columns() -> None:
    titles = {width: shown(away("a-name-of-a-device"), width=width)[0].split() for width in (80, 60, 45, 36)}
    assert titles[80] == ["device", "status", "os", "tasks", "heard", "reconnects", "capabilities"]
    assert titles[60] == ["device", "status", "os", "tasks", "heard"]
    assert titles[45] == ["device", "status", "os"]
    assert titles[36] == ["device", "status"]


def test_screen_that_is_too_small_shows_devices_that_are_away_and_counts_the_others() -> None:
    devices = [statistics(f"d{number}", list(DeviceStatus)[number % 6], problem="gone") for number in range(300)]
    for rows in range(3, 40):
        lines = shown(*devices, rows=rows)
        # The first device and its reason always have room.
        assert len(lines) <= max(rows, 4)
        assert lines[1].split()[:2] == ["d0", "disconnected"]
    lines = shown(*devices, rows=20)
    assert lines[-1].startswith("… ")
    assert "50 busy" in lines[-1]
    assert all(line.split()[1] not in ("idle", "busy") for line in lines[1:-1] if line.startswith("d"))
    assert shown(*devices[:10], rows=13)[-1].split()[0] == "d9"


def test_device_without_capabilities_and_system_has_dashes() -> None:
    _, line = shown(statistics("a", os=None, capabilities=()))
    assert line.split() == ["a", "idle", "-", "0", "-", "0", "-"]


def test_names_and_reasons_are_escaped_in_the_table() -> None:
    lines = shown(away(HOSTILE, HOSTILE, os=HOSTILE, capabilities=(HOSTILE,)), width=150)
    assert not [line for line in lines if "\x1b" in line or "\x07" in line]
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (7.2, "7 s"), (119, "119 s"), (120, "2 min"), (7_199, "120 min"), (7_200, "2 h"), (200_000, "2 d")],
)
def test_duration_has_its_largest_useful_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
