"""The names that ``import galaxy_trio`` provides."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import galaxy_trio

_ROOT = Path(__file__).parents[2]


def test_all_public_names_exist_and_are_listed() -> None:
    for name in galaxy_trio.__all__:
        assert getattr(galaxy_trio, name) is not None
    assert set(galaxy_trio.__all__) <= set(dir(galaxy_trio))


def test_other_names_raise_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'galaxy_trio' has no attribute 'open_galaxy'"):
        _ = galaxy_trio.open_galaxy


def test_importing_the_package_does_not_import_the_constellation() -> None:
    code = "import sys, galaxy_trio; print('galaxy_trio.constellation.constellation' in sys.modules)"
    first = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603  # ourselves
    assert first.stdout == "False\n"


def test_texts_name_only_extras_that_exist() -> None:
    extras = set(tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
    assert extras == {"cli", "daemon", "mcp", "postgres"}
    named: set[str] = set()
    for path in [
        _ROOT / "noxfile.py",
        *_ROOT.glob("*.md"),
        *_ROOT.glob("docs/**/*.md"),
        *_ROOT.glob("galaxy_trio/**/*.py"),
    ]:
        if path.name == "CHANGELOG.md" or "_build" in path.parts:
            continue
        text = path.read_text("utf-8")
        lists = re.findall(r'(?:galaxy_trio|"\.|\{package\})\[([a-z,]+)\]', text) + re.findall(
            r'^_EXTRAS = "(.*)"', text, re.MULTILINE
        )
        named.update(extra for names in lists for extra in names.split(","))
        named.update(re.findall(r"extras? `+([a-z]+)`", text))
    assert named == extras
