"""The installed package is complete. ``nox -s dist`` runs this outside of a checkout, with only pytest."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from importlib import import_module
from importlib.metadata import distribution, entry_points
from importlib.resources import files
from pathlib import Path

import galaxy_trio

# They import the MCP SDK or its HTTP client, or PostgreSQL's driver: extras that are not installed here.
_OPTIONAL = {
    *(
        f"galaxy_trio.agent.mcp_{name}"
        for name in ("dispatcher", "events", "http", "messages", "session", "stdio", "streams")
    ),
    "galaxy_trio.daemon.store.postgresql",
    "galaxy_trio.daemon.store.postgresql_sessions",
    "galaxy_trio.daemon.store.notifications",
}


def test_installed_package_is_imported() -> None:
    assert Path(sys.prefix) in Path(galaxy_trio.__file__).parents


def test_every_module_can_be_imported() -> None:
    names = {module.name for module in pkgutil.walk_packages(galaxy_trio.__path__, "galaxy_trio.")}
    assert {
        "galaxy_trio._connection.pending_replies",
        "galaxy_trio.daemon.run",
        "galaxy_trio.daemon.store.migrations.version_2",
        "galaxy_trio.testing.pytest_plugin",
    } <= names
    for name in sorted(names - _OPTIONAL - {"galaxy_trio.__main__"}):
        import_module(name)


def test_type_marker_is_installed() -> None:
    assert files("galaxy_trio").joinpath("py.typed").is_file()


def test_daemons_page_is_installed() -> None:
    static = files("galaxy_trio.daemon.web").joinpath("static")
    assert {"index.html", "page.css", "main.js", "icon.svg"} <= {entry.name for entry in static.iterdir()}


def test_only_the_package_is_installed() -> None:
    there = {path.parts[0] for path in distribution("galaxy_trio").files or ()}
    assert {name for name in there if not name.endswith(".dist-info") and name != ".."} == {"galaxy_trio"}


def test_metadata_has_version_and_license() -> None:
    metadata = distribution("galaxy_trio").metadata
    assert metadata["Version"] == galaxy_trio.__version__
    assert metadata["License-Expression"] == "MIT"
    assert any(path.name == "LICENSE" for path in distribution("galaxy_trio").files or ())


def test_pytest_plugin_is_registered() -> None:
    [plugin] = entry_points(group="pytest11", name="galaxy_trio")
    assert plugin.load().__name__ == "galaxy_trio.testing.pytest_plugin"


def test_command_runs_the_demonstration() -> None:
    program = Path(sys.executable).with_name("galaxy-trio")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)  # noqa: S603  # ours
    assert version.stdout == f"galaxy-trio {galaxy_trio.__version__}\n"
    demo = subprocess.run([program, "demo"], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603  # ours
    assert (demo.returncode, demo.stderr) == (0, "")


def test_command_reads_the_originals_files(tmp_path: Path) -> None:
    (tmp_path / "devices.yaml").write_text("devices:\n  - device_id: a\n    server_url: ws://h/ws\n")
    program = Path(sys.executable).with_name("galaxy-trio")
    check = subprocess.run([program, "check", tmp_path / "devices.yaml"], capture_output=True, text=True, check=False)  # noqa: S603  # ours
    assert (check.returncode, check.stderr) == (0, "")
