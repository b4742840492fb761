"""pytest plugin with a fixture for pytest-trio; see docs/howto/testing.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from galaxy_trio.testing.memory_fleet import MemoryFleet


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker ``devices``."""
    config.addinivalue_line(
        "markers", "devices(*names): the devices of the fixture memory_fleet; by default one, device_001."
    )


async def _memory_fleet(request: pytest.FixtureRequest) -> AsyncGenerator[MemoryFleet]:
    """A server in memory with the devices of the marker ``devices``, by default one. See `MemoryFleet`."""
    # Imported on use, because pytest loads this module even if no test needs it.
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
        # pytest-trio has no type annotations.
        from pytest_trio import trio_fixture  # type: ignore[import-untyped]  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
    except ImportError:
        return pytest.fixture(_needs_pytest_trio)
    return cast("Callable[[object], object]", trio_fixture)(_memory_fleet)


memory_fleet: object = _make_fixture()
