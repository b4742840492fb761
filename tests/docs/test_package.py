"""The names that ``import galaxy_trio`` provides."""

from __future__ import annotations

import subprocess
import sys

import pytest

import galaxy_trio


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
