"""The output of a demonstration, step by step: checked claims and measured figures."""

from __future__ import annotations

import textwrap
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from galaxy_trio._cli.terminal import one_line, print_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from rich.console import Console

_INDENT: Final = 3
_TENTH: Final = 0.1


class Report:
    """Steps with their figures, and the results of their checks.

    Args:
        console: Where to print.

    Attributes:
        console: Where to print.
        checks: The number of claims checked.
        failures: The number of claims that did not hold, and of other errors.
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
        """Begin a step: print its title and what it shows."""
        self._steps += 1
        self.console.print()
        self.console.print(Text(f"{self._steps}  {title}", style="bold"))
        self.say(sentences, indent=_INDENT)
        self.console.print()

    def show(self, *rows: tuple[str, str]) -> None:
        """Print figures with their labels."""
        print_rows(self.console, rows, indent=2 * _INDENT)

    def check(self, claim: str, *, holds: bool) -> None:
        """Count a claim, and report it if it does not hold."""
        self.checks += 1
        if not holds:
            self.fail(f"check failed: {claim}.")

    def fail(self, sentence: str) -> None:
        """Report a failure."""
        self.failures += 1
        self.say(f"UNEXPECTED: {sentence}", indent=_INDENT, style="bold red")

    def conclude(self, seconds: float) -> int:
        """Print the verdict and return the exit status."""
        self.console.print()
        if self.failures:
            self.say(f"UNEXPECTED results: {self.failures}, see above.", style="bold red")
            return 1
        self.say(f"All checks passed: {self.checks} in {seconds:.1f} s.", style="green")
        return 0


@contextmanager
def progress_bar(console: Console, label: str, total: int) -> Generator[Callable[[], None]]:
    """Show a progress bar if the console is a terminal. Yields a function that the block calls after each item."""
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
    """Measures laps on trio's clock."""

    def __init__(self) -> None:
        self._since = trio.current_time()

    def lap(self) -> float:
        """Return the seconds since the last lap."""
        now = trio.current_time()
        took, self._since = now - self._since, now
        return took


class SchedulerPasses(trio.abc.Instrument):
    """Counts the passes of trio's scheduler."""

    def __init__(self) -> None:
        self.count: int = 0

    def before_io_wait(self, timeout: float) -> None:
        """Count a pass: trio calls this once in each."""
        del timeout
        self.count += 1


def show_time(seconds: float) -> str:
    """Return a time as text, in s or ms."""
    return f"{seconds:.2f} s" if seconds >= _TENTH else f"{seconds * 1000:.1f} ms"
