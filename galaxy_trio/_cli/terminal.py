"""Everything that the command line prints goes through here: text, JSON, tables, errors, the log; and closed pipes."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NoReturn, TextIO

import click
import trio
from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.text import Text

from galaxy_trio._console_log import ConsoleFormatter, handling_others
from galaxy_trio._printable import one_line, printable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from types import TracebackType

    from rich.console import ConsoleOptions, RenderableType

    from galaxy_trio.messages import JSON, DeviceInfo

READABLE_WIDTH: Final = 80
_SENTENCE: Final = 2_000
"""The largest number of characters of an error that is shown: a server's reason may be long."""
_NARROWEST: Final = 20
"""Columns of a value below which it gets lines of its own."""


def echo(text: str, *, err: bool = False) -> None:
    """Print a text, made printable, and a line end."""
    click.echo(printable(text), err=err)


async def echo_in_thread(text: str) -> None:
    """Print like `echo`, in a thread: a pipe that its reader does not empty keeps no other task waiting.

    Cancelling returns immediately. The rest of the text may not be printed.
    """
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        # It is in memory, or closed: `sys.stdout` may be None.
        echo(text)
        await trio.lowlevel.checkpoint()
        return
    data = f"{printable(text)}\n".encode(sys.stdout.encoding, "backslashreplace")
    # Its own: a thread that was abandoned keeps its place for ever, and the callers print one line after the other.
    limiter = trio.CapacityLimiter(1)
    await trio.to_thread.run_sync(_write_all, descriptor, data, abandon_on_cancel=True, limiter=limiter)


def _write_all(descriptor: int, data: bytes) -> None:
    # Not through Python's buffer, whose lock an abandoned thread would hold.
    while data:
        data = data[os.write(descriptor, data) :]


def echo_json(value: object) -> None:
    """Print a value as JSON on one line."""
    # The characters that `printable` escapes stand in strings, where JSON allows it.
    echo(json.dumps(value))


def echo_result(result: JSON) -> None:
    """Print a task's result: a text as it is, any other as indented JSON."""
    echo(result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, indent=2))


def reason_of(error: OSError) -> str:
    """Return the operating system's reason in lower case, for use in a sentence."""
    return (error.strerror or str(error)).lower()


def sentence_of(text: str) -> str:
    """Return a text on one line, made printable, and cut to the length that is shown of an error."""
    shown = one_line(text)
    return shown if len(shown) <= _SENTENCE else f"{shown[:_SENTENCE]}…"


def print_error(sentence: str) -> None:
    """Print an error on stderr: on a terminal wrapped at words, elsewhere on one line."""
    with _ignoring_failures():
        print_rows(open_console(stderr=True), [("error:", sentence_of(sentence))], gap=1, style="red")


def _write_to_stderr(text: str) -> None:
    with _ignoring_failures():
        click.echo(text, err=True)


@contextmanager
def _ignoring_failures() -> Generator[None]:
    """Ignore that stderr is closed or full, because the exit status still reports an error."""
    try:
        yield
    except BrokenPipeError:
        silence(sys.stderr)
    except OSError:
        pass


def print_traceback(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """Print the traceback of an exception that nothing has caught, as `sys.excepthook` does, but printable."""
    _write_to_stderr(printable("".join(traceback.format_exception(kind, error, where)).rstrip()))


class PipeConsole(Console):
    """A console that prints only printable text.

    It raises `BrokenPipeError` when its pipe is closed, where rich's own exits the program.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render to printable text. Colours and cursor movements of rich itself are kept apart from the text, and stay."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)

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


def print_rows(
    console: Console,
    rows: Sequence[tuple[str, str]],
    *,
    indent: int = 0,
    gap: int = 2,
    widest: int = 0,
    style: str = "dim",
) -> None:
    """Print labels and values in two columns; on a terminal, long values are wrapped within theirs.

    Args:
        console: Where to print.
        rows: The labels and values.
        indent: Spaces before the labels.
        gap: Spaces between the columns.
        widest: The least width of the labels' column.
        style: The labels' style.
    """
    widest = max([widest, *(cell_len(label) for label, _ in rows)])
    start = indent + widest + gap
    in_two_columns = console.soft_wrap or console.width - start >= _NARROWEST
    if not in_two_columns:
        start = indent + 2
    for label, value in rows:
        shown = Text(one_line(value))
        lines = [shown] if console.soft_wrap else shown.wrap(console, max(console.width - start, 1))
        margin = Text.assemble(" " * indent, (label, style))
        if in_two_columns:
            margin.append(" " * (start - margin.cell_len))
        else:
            if label:
                console.print(margin, soft_wrap=True)
            margin = Text(" " * start)
        for line in lines:
            line.rstrip()
            console.print(Text.assemble(margin, line), soft_wrap=True)
            margin = Text(" " * start)


def print_entry(console: Console, time: str, sentence: str) -> None:
    """Print a time and a sentence, which is wrapped at words on a terminal and stays one line in a pipe."""
    print_rows(console, [(time, sentence)], gap=1)


def print_hint(sentence: str) -> None:
    """Tell a person on stderr what the program waits for. Nothing is printed if stderr is not a terminal."""
    console = open_console(stderr=True)
    if console.is_terminal:
        console.print(Text(one_line(sentence), "dim"))


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
        progress.add_task(one_line(sentence), total=None)
        yield


class _Format(ConsoleFormatter):
    """Formats `info` records as time and message, and all others with level and logger."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        """Return the text of a record."""
        is_info = record.levelno == logging.INFO
        return f"{record.asctime} {record.message}" if is_info else super().formatMessage(record)


class _StderrHandler(logging.Handler):
    """Writes to the current `sys.stderr`, which a progress bar may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        _write_to_stderr(self.format(record))


def _stderr_handler() -> logging.Handler:
    handler = _StderrHandler()
    handler.setFormatter(_Format())
    return handler


@contextmanager
def logging_to_stderr() -> Generator[None]:
    """Show the package's log on stderr during the block: warnings and errors, or more with `log_level`.

    Warnings and errors of other libraries are shown too.
    """
    handler = _stderr_handler()
    logger = logging.getLogger("galaxy_trio")
    logger.addHandler(handler)
    try:
        with handling_others(_stderr_handler()):
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
