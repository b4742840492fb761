"""How the command line writes: others' text made harmless, rows of figures, log lines, and readers that leave early."""

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
"""Characters of an error that are shown: the words of a server may be long."""
_NARROWEST: Final = 20

# Control characters but for tabs and ends of lines; what turns the direction of text or ends lines in other ways; lone surrogates.
_HARMFUL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)"
)


def printable(text: str) -> str:
    """Text that does nothing to a terminal: what would is escaped as in JSON. Ends of lines and tabs stay."""
    return _HARMFUL.sub(lambda harmful: f"\\u{ord(harmful[0]):04x}", text)


def one_line(text: str) -> str:
    """The same, on one line, each run of white space one space."""
    return printable(" ".join(text.split()))


def complain(sentence: str) -> None:
    """Say on stderr what went wrong."""
    shown = one_line(sentence)
    if len(shown) > _SENTENCE:
        shown = f"{shown[:_SENTENCE]}…"
    _say_on_stderr(f"{click.style('error:', fg='red')} {shown}")


def _say_on_stderr(text: str) -> None:
    """Without a reader there is nobody to tell; the exit status still does."""
    try:
        click.echo(text, err=True)
    except BrokenPipeError:
        silence(sys.stderr)
    except OSError:
        pass


class PipeConsole(Console):
    """A console that raises `BrokenPipeError` when its reader has gone, where rich's own ends the program."""

    def on_broken_pipe(self) -> NoReturn:
        """Let the command line decide."""
        self.quiet = True
        raise BrokenPipeError


def open_console(*, stderr: bool = False, max_width: int | None = None) -> Console:
    """A console that shows text as it is: no markup, no highlighting.

    Args:
        stderr: Write there.
        max_width: Lines are at most as long, in a pipe too; if not given, those in a pipe are as long as they are.
    """
    console = PipeConsole(stderr=stderr, markup=False, highlight=False, emoji=False)
    if max_width is None:
        console.soft_wrap = not console.is_terminal
    elif console.width > max_width:
        console.width = max_width
    return console


def print_rows(console: Console, rows: Sequence[tuple[str, str]], *, indent: int = 0) -> None:
    """Print labels and values in two columns; a value that is too long goes on below itself."""
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
    """What is known of a device, as rows to print."""
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
    """Show on stderr, if that is a terminal, that something is waited for, and for how long."""
    console = open_console(stderr=True)
    if not console.is_interactive:
        yield
        return
    columns = (SpinnerColumn("line"), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(sentence, total=None)
        yield


class _Format(logging.Formatter):
    """What just happens is a line with its time; other records say where they come from, and how bad it is."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        """One line, whatever is in it: nobody else's text looks like a record of its own."""
        return one_line(
            f"{record.asctime} {record.message}" if record.levelno == logging.INFO else super().formatMessage(record)
        )


class _StderrHandler(logging.Handler):
    """Writes to what is stderr at that moment: a progress bar may stand in for it."""

    def emit(self, record: logging.LogRecord) -> None:
        _say_on_stderr(printable(self.format(record)))


@contextmanager
def logging_to_stderr() -> Generator[None]:
    """Show the package's log on stderr for the length of the block: warnings and above, unless `log_level` says more."""
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
    """Log from this level on, for the length of the block."""
    logger = logging.getLogger("galaxy_trio")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def prepare_streams() -> None:
    """Let no character fail that stdout or stderr cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence(stream: TextIO) -> None:
    """This stream cannot be written to: let Python's own flush at its exit go nowhere instead of failing."""
    with suppress(OSError, ValueError, AttributeError):
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
