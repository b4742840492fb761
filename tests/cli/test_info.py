"""``galaxy-trio info``: the output, on a terminal and in a pipe."""

from __future__ import annotations

import io
import json
import sys

import attrs
import pytest
from rich.console import Console

from galaxy_trio._cli.main import run_command_line
from galaxy_trio._cli.terminal import READABLE_WIDTH, open_console, print_rows
from tests.cli.support.command_line import (
    DEVICE,
    Call,
    Outcome,
)
from tests.cli.support.world import INFO


def test_info_prints_two_columns_and_escapes_control_characters(call: Call, url: str) -> None:
    assert call("info", url, DEVICE) == Outcome(
        0,
        "device      linux_agent_1\n"
        "platform    linux\n"
        "processors  4\n"
        "features    cli, gui\n"
        "tags        [bold]lab[/bold], \\u001b[31mred\n"
        'metadata    {"room": "Köln\\u009b"}\n'
        'other       {"new": true}\n',
        "",
    )


def test_info_with_json_prints_one_ascii_object(call: Call, url: str) -> None:
    outcome = call("info", url, DEVICE, "--json")
    assert (outcome.status, outcome.err, outcome.out.count("\n")) == (0, "", 1)
    assert outcome.out.rstrip("\n").isascii()
    assert outcome.out.rstrip("\n").isprintable()
    assert json.loads(outcome.out) == attrs.asdict(INFO)


def test_long_values_are_wrapped_within_their_column_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, no_color=True, color_system=None, width=40)
    print_rows(console, [("a", "one two three four five six seven eight"), ("long", "x")], indent=2)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == ("  a     one two three four five six\n        seven eight\n  long  x\n")


@pytest.mark.parametrize(("columns", "width"), [("60", 60), ("80", 80), ("132", 80)])
def test_text_is_as_wide_as_the_terminal_up_to_80_columns(
    monkeypatch: pytest.MonkeyPatch, columns: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert open_console(max_width=READABLE_WIDTH).width == width


def test_characters_that_stdout_cannot_encode_are_escaped(
    call: Call, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    assert run_command_line(["run", url, DEVICE, "ö€"]) == 0
    assert b'"echo": "\xf6\\u20ac"' in written.getvalue()
