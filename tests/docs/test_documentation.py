"""The reference is complete, and names only what exists."""

from __future__ import annotations

import inspect
import re
import shlex
from importlib import import_module

import click
import pytest

import galaxy_trio
from galaxy_trio import GalaxyError, errors, events
from galaxy_trio._cli.main import command_line
from galaxy_trio.daemon.settings import Settings
from tests.support.paths import DOCS

pytestmark = pytest.mark.programs

ROOT = DOCS.parent
NAMED_COMMAND = re.compile(r"`galaxy-trio ([a-z]+(?: [a-z]+)?)[^`]*`")


def _page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text("utf-8")


def _documented(page: str) -> set[str]:
    return set(re.findall(r"^\.\. auto(?:class|function|exception|data):: (\w+)", page, re.MULTILINE))


def _classes(module: object, base: type[object]) -> set[str]:
    return {name for name, value in vars(module).items() if inspect.isclass(value) and issubclass(value, base)}


def test_every_error_is_documented_with_cause_and_remedy() -> None:
    page = _page("reference/errors")
    assert _documented(page) == _classes(errors, GalaxyError)
    for section in page.split("\n## ")[1:]:
        name = section.partition("\n")[0]
        if name in _classes(errors, GalaxyError) - {"GalaxyError"}:
            assert "**Cause.** " in section
            assert "**Remedy.** " in section


def test_every_event_is_documented() -> None:
    there = _classes(events, events.Event) | {"EventsLost"}
    assert there <= _documented(_page("reference/events"))


@pytest.mark.parametrize(
    "module", ["galaxy_trio", "galaxy_trio.graph", "galaxy_trio.server", "galaxy_trio.agent", "galaxy_trio.testing"]
)
def test_every_public_name_is_documented(module: str) -> None:
    pages = "".join(path.read_text("utf-8") for path in (DOCS / "reference").rglob("*.md"))
    constants = {"PEER_URL"}
    assert set(import_module(module).__all__) - constants <= _documented(pages)


def test_api_pages_name_no_private_module() -> None:
    pages = "".join(path.read_text("utf-8") for path in (DOCS / "reference").rglob("*.md"))
    packages = (
        "",
        ".agent",
        ".graph",
        ".server",
        ".testing",
        ".testing.pytest_plugin",
        ".errors",
        ".events",
        ".messages",
    )
    public = {f"galaxy_trio{name}" for name in packages}
    assert set(re.findall(r"currentmodule:: (\S+)", pages)) <= public


def test_exactly_the_existing_metrics_are_documented() -> None:
    source = (ROOT / "galaxy_trio" / "daemon" / "web" / "metrics.py").read_text("utf-8")
    kinds = re.findall(r"(CounterMetricFamily|GaugeMetricFamily|Histogram)\(\s*\"(galaxy_\w+)\"", source)
    there = {f"{name}_total" if kind == "CounterMetricFamily" else name for kind, name in kinds}
    assert set(re.findall(r"^\| `(galaxy_\w+)`", _page("reference/metrics"), re.MULTILINE)) == there


def test_every_setting_of_the_daemon_is_documented() -> None:
    section = _page("howto/daemon").partition("## galaxy.toml")[2].partition("\n## ")[0]
    for name in inspect.signature(Settings).parameters:
        if name not in ("path", "folder"):
            assert f"`{name}`" in section, name


def test_every_command_in_the_documentation_exists() -> None:
    context = click.Context(command_line)
    texts = [path.read_text("utf-8") for path in (*DOCS.rglob("*.md"), *ROOT.glob("*.md"))]
    named = {words for text in texts for words in NAMED_COMMAND.findall(text)}
    assert {"demo", "check devices"} & named
    for words in named:
        first, *rest = words.split()
        command = command_line.get_command(context, first)
        assert command is not None, words
        if isinstance(command, click.Group) and rest:
            assert command.get_command(context, rest[0]) is not None, words


def _command_lines() -> list[list[str]]:
    """Return each line of a code block that runs the program."""
    blocks = [
        block
        for path in (*DOCS.rglob("*.md"), *ROOT.glob("*.md"))
        for block in re.findall(r"```(?:sh|console|bash)\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    ]
    lines = [line for block in blocks for line in block.splitlines() if re.match(r"(\$ )?(\S*/)?galaxy-trio ", line)]
    return [shlex.split(line.removeprefix("$ "))[1:] for line in lines]


@pytest.mark.parametrize("arguments", _command_lines(), ids=" ".join)
def test_every_command_line_in_the_documentation_can_be_parsed(arguments: list[str]) -> None:
    command: click.Command = command_line
    # With the group's settings and as the parent, because a command remembers the names of its help option.
    context = click.Context(command_line, **command_line.context_settings)
    while isinstance(command, click.Group) and arguments:
        found = command.get_command(context, arguments[0])
        assert found is not None, arguments
        command, arguments = found, arguments[1:]
    # This parses the arguments without running the command.
    with command.make_context("galaxy-trio", arguments, parent=context):
        pass


def test_version_is_defined_in_one_place() -> None:
    for path in (*ROOT.glob("*.toml"), *ROOT.glob("*.md"), DOCS / "conf.py"):
        assert f'"{galaxy_trio.__version__}"' not in path.read_text("utf-8"), path
