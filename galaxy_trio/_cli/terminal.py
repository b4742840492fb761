"""Terminal output: escaped text, tables, log lines, and closed pipes."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NoReturn, TextIO

import click
from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from galaxy_trio.messages import DeviceInfo

READABLE_WIDTH: Final = 80
_SENTENCE: Final = 2_000
"""The largest number of characters of an error that is shown: a server's reason may be long."""
_NARROWEST: Final = 20

# Control characters except tabs and line ends; direction overrides and other line separators; lone surrogates.
_HARMFUL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)"
)


def printable(text: str) -> str:
    """Escape, as in JSON, the characters of a text that control a terminal. Line ends and tabs stay."""
    return _HARMFUL.sub(lambda harmful: f"\\u{ord(harmful[0]):04x}", text)


def one_line(text: str) -> str:
    """Like `printable`, on one line, with each run of white space replaced by one space."""
    return printable(" ".join(text.split()))


def reason_of(error: OSError) -> str:
    """Return the operating system's reason in lower case, for use in a sentence."""
    return (error.strerror or str(error)).lower()


def print_error(sentence: str) -> None:
    """Print an error on stderr."""
    shown = one_line(sentence)
    if len(shown) > _SENTENCE:
        shown = f"{shown[:_SENTENCE]}…"
    _write_to_stderr(f"{click.style('error:', fg='red')} {shown}")


def _write_to_stderr(text: str) -> None:
    """Write a line; a closed or full stderr is ignored, because the exit status still reports the error."""
    try:
        click.echo(text, err=True)
    except BrokenPipeError:
        silence(sys.stderr)
    except OSError:
        pass


class PipeConsole(Console):
    """A console that raises `BrokenPipeError` when its pipe is closed, where rich's own exits the program."""

    def on_broken_pipe(self) -> NoReturn:
        """Raise, so that the command line sets the exit status."""
        self.quiet = True
        raise BrokenPipeError


def open_console(*, stderr: bool = False, max_width: int | None = None) -> Console:
    """Return a console without markup and highlighting.

    Args:
        stderr: Whether to write to stderr instead of stdout.
        max_width: The longest line, also in a pipe; if None, lines in a pipe are not wrapped.
    """
    console = PipeConsole(stderr=stderr, markup=False, highlight=False, emoji=False)
    if max_width is None:
        console.soft_wrap = not console.is_terminal
    elif console.width > max_width:
        console.width = max_width
    return console


def print_rows(console: Console, rows: Sequence[tuple[str, str]], *, indent: int = 0) -> None:
    """Print labels and values in two columns; long values are wrapped within theirs."""
    widest = max((cell_len(label) for label, _ in rows), default=0)
    start = indent + widest + 2
    for label, value in rows:
        shown = Text(one_line(value))
        lines = [shown] if console.soft_wrap else shown.wrap(console, max(console.width - start, _NARROWEST))
        margin = Text.assemble(" " * indent, (label, "dim"), " " * (start - indent - cell_len(label)))
        for line in lines:
            line.rstrip()
            console.print(Text.assemble(margin, line), soft_wrap=True)
            margin = Text(" " * start)


def device_rows(info: DeviceInfo) -> list[tuple[str, str]]:
    """Return the information about a device as rows to print."""
    kind = f" ({info.platform_type})" if info.platform_type is not None else ""
    rows: list[tuple[str, object]] = [
        ("device", info.device_id),
        ("platform", f"{info.platform}{kind}"),
        ("system", info.os_version),
        ("processors", info.cpu_count),
        ("memory", None if info.memory_total_gb is None else f"{info.memory_total_gb:g} GiB"),
        ("host", info.hostname),
        ("address", info.ip_address),
        ("features", ", ".join(info.supported_features)),
        ("tags", ", ".join(info.tags)),
        ("schema", info.schema_version),
        ("metadata", json.dumps(info.custom_metadata, ensure_ascii=False) if info.custom_metadata else None),
        ("other", json.dumps(info.extra, ensure_ascii=False) if info.extra else None),
    ]
    return [(label, str(value)) for label, value in rows if value not in (None, "")]


@contextmanager
def spinner(sentence: str) -> Generator[None]:
    """Show a spinner with the elapsed time on stderr, if that is a terminal."""
    console = open_console(stderr=True)
    if not console.is_interactive:
        yield
        return
    columns = (SpinnerColumn("line"), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(sentence, total=None)
        yield


class _Format(logging.Formatter):
    """Formats `info` records as time and message, and all others with level and logger."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        """Return one line, so that text from a peer cannot look like another record."""
        return one_line(
            f"{record.asctime} {record.message}" if record.levelno == logging.INFO else super().formatMessage(record)
        )


class _StderrHandler(logging.Handler):
    """Writes to the current `sys.stderr`, which a progress bar may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        _write_to_stderr(printable(self.format(record)))


@contextmanager
def logging_to_stderr() -> Generator[None]:
    """Show the package's log on stderr during the block: warnings and errors, or more with `log_level`."""
    handler = _StderrHandler()
    handler.setFormatter(_Format())
    logger = logging.getLogger("galaxy_trio")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def log_level(level: int) -> Generator[None]:
    """Set the level of the package's log during the block."""
    logger = logging.getLogger("galaxy_trio")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def prepare_streams() -> None:
    """Escape characters that the encoding of stdout or stderr lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence(stream: TextIO) -> None:
    """Redirect a broken stream to the null device, so that the flush at Python's exit does not fail."""
    with suppress(OSError, ValueError, AttributeError):
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
