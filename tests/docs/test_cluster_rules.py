"""The rules of a cluster are found by their numbers: in the explanation, in the code, and in the tests."""

from __future__ import annotations

import re
from typing import Final

import pytest

from tests.support.paths import DOCS, ROOT

pytestmark = pytest.mark.programs

_ROW: Final = re.compile(r"^\| (\d+) \| .* \| (.*) \| (.*) \|$", re.MULTILINE)
_NUMBERS: Final = re.compile(r"^Rules? ([\d and]+) of docs/explanation/cluster\.md\.$", re.MULTILINE)
_DAEMON: Final = ROOT / "galaxy_trio" / "daemon"


def _rules() -> list[tuple[int, set[str], set[str]]]:
    rows = _ROW.findall((DOCS / "explanation" / "cluster.md").read_text("utf-8"))
    return [
        (int(number), set(re.findall(r"`(.*?)`", code)), set(re.findall(r"`(.*?)`", tests)))
        for number, code, tests in rows
    ]


def test_rules_are_numbered() -> None:
    assert [number for number, _, _ in _rules()] == list(range(1, 14))


def test_modules_that_keep_a_rule_name_its_number() -> None:
    documented = {(number, name) for number, code, _ in _rules() for name in code}
    named: set[tuple[int, str]] = set()
    for path in _DAEMON.rglob("*.py"):
        for numbers in _NUMBERS.findall(path.read_text("utf-8")):
            named |= {(int(number), path.relative_to(_DAEMON).as_posix()) for number in numbers.split(" and ")}
    assert named == documented


def test_tests_of_the_rules_are_there() -> None:
    assert all((ROOT / "tests" / "daemon" / name).exists() for _, _, tests in _rules() for name in tests)
