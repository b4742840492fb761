"""What the doctor finds: sections of findings, each with what to do."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

import attrs
from rich.text import Text

from galaxy_trio._cli.terminal import print_rows
from galaxy_trio._printable import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

MAX_TEXT: Final = 500
"""Characters of a finding that are shown: a server's words may be long."""


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


_STYLES: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}


@attrs.frozen
class Finding:
    """One result of a check.

    Attributes:
        level: How bad it is.
        text: What was found.
        advice: What to do; empty if nothing has to be done.
    """

    level: Level
    text: str
    advice: str = ""


@attrs.frozen
class Section:
    """The findings about one subject.

    Attributes:
        subject: What was checked: this machine, a file, a server.
        findings: The findings, in the order of the checks.
    """

    subject: str
    findings: list[Finding] = attrs.field(factory=list[Finding])

    def ok(self, text: str) -> None:
        """Add a check that passed."""
        self.findings.append(Finding(Level.OK, text[:MAX_TEXT]))

    def warn(self, text: str, advice: str) -> None:
        """Add something that is not right and keeps nothing from working."""
        self.findings.append(Finding(Level.WARNING, text[:MAX_TEXT], advice))

    def problem(self, text: str, advice: str) -> None:
        """Add something that keeps a device from being reached, or a secret from being safe."""
        self.findings.append(Finding(Level.PROBLEM, text[:MAX_TEXT], advice))


def count(sections: Iterable[Section], level: Level) -> int:
    """Return how many findings have a level."""
    return sum(finding.level is level for section in sections for finding in section.findings)


def print_section(console: Console, section: Section) -> None:
    """Print the findings about one subject."""
    console.print(Text(one_line(section.subject), "bold"), soft_wrap=True)
    for finding in section.findings:
        rows = [(finding.level.value, finding.text)]
        if finding.advice:
            rows.append(("", f"To do: {finding.advice}"))
        print_rows(console, rows, indent=2, widest=len(Level.WARNING), style=_STYLES[finding.level])


def as_json(sections: Sequence[Section]) -> list[dict[str, object]]:
    """Return all findings as plain data."""
    return [
        {"subject": section.subject, "level": finding.level.value, "text": finding.text, "advice": finding.advice}
        for section in sections
        for finding in section.findings
    ]
