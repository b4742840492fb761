"""Checks of this machine: Python, the package, what it needs, and its extras."""

from __future__ import annotations

import platform
import re
import sys
from importlib import metadata
from itertools import zip_longest
from typing import Final

from galaxy_trio import __version__
from galaxy_trio._cli.doctor.findings import Section

_PACKAGE: Final = "galaxy_trio"
_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*([^;]*)(?:;.*extra\s*==\s*['\"]([\w-]+)['\"])?")
_LIMIT: Final = re.compile(r"(>=|<)\s*([0-9.]+)")
_PURPOSES: Final = {
    "cli": "the command line, files in YAML, and a device's memory and processors",
    "daemon": "galaxy-trio daemon, task and events",
    "mcp": "galaxy-trio agent --mcp",
}


def check_machine() -> Section:
    """Check Python, the package and its extras."""
    section = Section("This machine")
    system = f"{platform.system() or sys.platform} {platform.machine()}".rstrip()
    section.ok(f"Python {platform.python_version()} on {system}")
    try:
        requirements = metadata.requires(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        section.warn(
            f"{_PACKAGE} {__version__} is not installed as a package, so its extras are not known",
            f'pip install "{_PACKAGE}[cli]"',
        )
        return section
    check_requirements(section, requirements)
    return section


def check_requirements(section: Section, requirements: list[str]) -> None:
    """Check what the package needs, and what each extra adds.

    Args:
        section: Gets the findings.
        requirements: As in the package's metadata: ``trio>=0.31``, ``mcp<3,>=2; extra == 'mcp'``.
    """
    extras: dict[str, list[str]] = {}
    versions: list[str] = []
    for requirement in requirements:
        found = _REQUIREMENT.match(requirement)
        if found is None or found[1].replace("-", "_") == _PACKAGE:
            continue
        name, limits, extra = found[1], found[2], found[3]
        version, problem = _check(name, limits)
        if extra is None:
            versions.append(f"{name} {version}")
        problems = extras.setdefault(extra or "", [])
        if problem:
            problems.append(problem)
    for problem in extras.pop("", []):
        section.problem(problem, f"pip install --upgrade {_PACKAGE}")
    section.ok(f"{_PACKAGE} {__version__}, with {', '.join(versions) or 'nothing else'}")
    for extra, problems in sorted(extras.items()):
        purpose = _PURPOSES.get(extra, extra)
        if problems:
            section.warn(
                f"the extra {extra}, for {purpose}: {', '.join(problems)}", f'pip install "{_PACKAGE}[{extra}]"'
            )
        else:
            section.ok(f"the extra {extra}, for {purpose}")


def _check(name: str, limits: str) -> tuple[str, str | None]:
    """Return the version of a package, and what is wrong with it."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return "-", f"{name} is not installed"
    for sign, limit in _LIMIT.findall(limits):
        if _older(version, limit) == (sign == ">="):
            return version, f"{name} is {version}, and must be {sign}{limit}"
    return version, None


def _older(version: str, limit: str) -> bool:
    """Whether a version is below a limit. Only the numbers at its beginning count."""
    one, other = ([int(digits) for digits in re.findall(r"\d+", text.split("+")[0])] for text in (version, limit))
    return next((a < b for a, b in zip_longest(one, other, fillvalue=0) if a != b), False)
