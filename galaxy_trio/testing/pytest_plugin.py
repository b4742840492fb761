"""Fixtures for pytest-trio, there wherever this package is installed; see docs/howto/testing.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from galaxy_trio.testing.memory_fleet import MemoryFleet


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest of the marker."""
    config.addinivalue_line(
        "markers", "devices(*names): the devices of the fixture memory_fleet; one, named device_001, without it."
    )


async def _memory_fleet(request: pytest.FixtureRequest) -> AsyncGenerator[MemoryFleet]:
    """A server in memory with devices: those of the marker ``devices``, or one. See `MemoryFleet`."""
    # Imported when it is wanted: pytest loads this module also where no test needs it.
    from galaxy_trio.testing.memory_fleet import open_memory_fleet  # noqa: PLC0415

    marker = request.node.get_closest_marker("devices")
    names = ("device_001",) if marker is None else marker.args
    async with open_memory_fleet(*names) as fleet:
        yield fleet


def _needs_pytest_trio() -> None:
    """A server in memory with devices; it needs pytest-trio."""
    pytest.fail("the fixture memory_fleet needs pytest-trio: pip install pytest-trio", pytrace=False)


def _make_fixture() -> object:
    try:
        # It has no types.
        from pytest_trio import trio_fixture  # type: ignore[import-untyped]  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
    except ImportError:
        return pytest.fixture(_needs_pytest_trio)
    return cast("Callable[[object], object]", trio_fixture)(_memory_fleet)


memory_fleet: object = _make_fixture()
