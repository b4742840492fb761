"""What a demonstration shows, step by step: claims that are checked, figures that were measured."""

from __future__ import annotations

import textwrap
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from galaxy_trio.cli_terminal import one_line, print_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from rich.console import Console

_INDENT: Final = 3
_TENTH: Final = 0.1


class Report:
    """Steps with their figures, and whether all turned out as it should.

    Args:
        console: Where they are shown.

    Attributes:
        checks: How many claims were checked.
        failures: How many of them did not hold, and what else went wrong.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.checks: int = 0
        self.failures: int = 0
        self._steps = 0

    def say(self, sentences: str, *, indent: int = 0, style: str = "") -> None:
        """Print sentences, wrapped."""
        margin = " " * indent
        text = textwrap.fill(one_line(sentences), self.console.width, initial_indent=margin, subsequent_indent=margin)
        self.console.print(Text(text, style=style), soft_wrap=True)

    def begin(self, title: str, sentences: str) -> None:
        """Begin a step: say what it is going to show."""
        self._steps += 1
        self.console.print()
        self.console.print(Text(f"{self._steps}  {title}", style="bold"))
        self.say(sentences, indent=_INDENT)
        self.console.print()

    def show(self, *rows: tuple[str, str]) -> None:
        """Show figures, with their labels."""
        print_rows(self.console, rows, indent=2 * _INDENT)

    def check(self, claim: str, *, holds: bool) -> None:
        """Count a claim, and say so if it does not hold."""
        self.checks += 1
        if not holds:
            self.fail(f"this does not hold: {claim}.")

    def fail(self, sentence: str) -> None:
        """Say what went wrong."""
        self.failures += 1
        self.say(f"NOT AS IT SHOULD BE: {sentence}", indent=_INDENT, style="bold red")

    def conclude(self, seconds: float) -> int:
        """Say how it went in all, and return the exit status."""
        self.console.print()
        if self.failures:
            self.say(f"Not all is as it should be: see above, {self.failures} times.", style="bold red")
            return 1
        self.say(f"All is as it should be: {self.checks} checks held, in {seconds:.1f} s.", style="green")
        return 0


@contextmanager
def progress_bar(console: Console, label: str, total: int) -> Generator[Callable[[], None]]:
    """Show, if the console is a terminal, how many are done; call what the block is given for each."""
    if not console.is_interactive:
        yield lambda: None
        return
    columns = (
        TextColumn(" " * 2 * _INDENT + "{task.description}", markup=False),
        BarColumn(40, style="dim", complete_style="cyan", finished_style="green"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield partial(progress.advance, progress.add_task(label, total=total))


class Stopwatch:
    """Measures one lap after the other, on trio's clock."""

    def __init__(self) -> None:
        self._since = trio.current_time()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = trio.current_time()
        took, self._since = now - self._since, now
        return took


class SchedulerPasses(trio.abc.Instrument):
    """Counts how often trio's scheduler has gone round."""

    def __init__(self) -> None:
        self.count: int = 0

    def before_io_wait(self, timeout: float) -> None:
        """It does this once each time."""
        del timeout
        self.count += 1


def show_time(seconds: float) -> str:
    """A time as people read it."""
    return f"{seconds:.2f} s" if seconds >= _TENTH else f"{seconds * 1000:.1f} ms"
