"""The checks of the project. `nox` alone runs those that must pass before a change lands."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"
nox.options.sessions = ["tests", "pythons", "simulation", "conformance", "docs", "page", "dist", "lint", "types"]
nox.options.error_on_missing_interpreters = True

_PROJECT = nox.project.load_toml("pyproject.toml")
# The command line and the daemon talk to people: what is left of them untested is small, and counted apart.
_FRONT_ENDS = "galaxy_trio/_cli/*,galaxy_trio/__main__.py,galaxy_trio/daemon/*"

_EXTRAS = "cli,daemon,mcp,postgres"
_FAST = "not slow and not simulation and not daemon and not programs and not page"
# Each process takes whole files, as far as there are any, so that what a file's tests share is made once.
_PARALLEL = ("-n", "auto", "--dist", "worksteal")
# Where the sessions run that test something: to make an environment takes longer than most of them.
_ENVIRONMENT = Path(".nox/environment/bin").resolve()


# As the classifiers name them.
_OLDEST, *_NEWER = nox.project.python_versions(_PROJECT)


def _is_found(version: str) -> bool:
    """Whether a Python of this version runs: what a version manager puts on the path may run nothing."""
    program = shutil.which(f"python{version}")
    return (
        program is not None and not subprocess.run([program, "--version"], capture_output=True, check=False).returncode
    )


def _install(session: nox.Session, *groups: str) -> None:
    session.install("--editable", f".[{_EXTRAS}]", *nox.project.dependency_groups(_PROJECT, *groups))


def _run(session: nox.Session, program: str, *arguments: str, env: dict[str, str] | None = None) -> None:
    path = f"{_ENVIRONMENT}{os.pathsep}{os.environ['PATH']}"
    # Compiled modules are kept in the clone, whatever is usual here: each process would compile the package and its tests again.
    variables: dict[str, str | None] = {**(env or {}), "PATH": path, "PYTHONDONTWRITEBYTECODE": None}
    session.run(str(_ENVIRONMENT / program), *arguments, env=variables, external=True)


@nox.session(reuse_venv=True)
def environment(session: nox.Session) -> None:
    """Make or update the environment of the sessions that run tests."""
    _install(session, "tests", "conformance", "docs", "page")


_tests_something = nox.session(venv_backend="none", requires=["environment"])


@_tests_something
def tests(session: nox.Session) -> None:
    """All tests but the simulation, with branch coverage: 100 % of the package, 90 % of its front ends."""
    _run(session, "coverage", "erase")
    if session.posargs:
        _run(session, "coverage", "run", "-m", "pytest", *session.posargs)
        _run(session, "coverage", "combine", "--quiet")
        return
    others = "not simulation and not page"
    # Tracing doubles the time of the slow tests and of those with many examples, and they reach no line that the others do not. They come
    # first, for the tests' modules are compiled in this run, which takes long as well when it is traced.
    _run(session, "pytest", "-m", f"(slow or hypothesis) and {others}", *_PARALLEL)
    selected = f"not slow and not hypothesis and {others}"
    _run(session, "coverage", "run", "-m", "pytest", "-m", selected, *_PARALLEL)
    _run(session, "coverage", "combine", "--quiet")
    _run(session, "coverage", "report", f"--omit={_FRONT_ENDS}", "--fail-under=100")
    _run(session, "coverage", "report", f"--include={_FRONT_ENDS}", "--fail-under=90")


@nox.session(python=[_OLDEST, *filter(_is_found, _NEWER)], reuse_venv=True)
def pythons(session: nox.Session) -> None:
    """All tests but the simulation, without coverage, with each Python that is found; 3.11 must be there."""
    _install(session, "tests")
    session.run("pytest", "-m", "not simulation and not page", *_PARALLEL, *session.posargs)


@_tests_something
def fast(session: nox.Session) -> None:
    """The tests that take less than a minute together, with a fifth of the examples: for the time between two commits."""
    _run(session, "pytest", "-m", _FAST, "--hypothesis-profile", "short", *_PARALLEL, *session.posargs)


@_tests_something
def slow(session: nox.Session) -> None:
    """The tests that take longer: whole fleets at every step, large messages, many connections."""
    _run(session, "pytest", "-m", "slow", *_PARALLEL, *session.posargs)


@_tests_something
def daemon(session: nox.Session) -> None:
    """The tests of the daemon, of MCP servers and of the documentation, for the time between two commits of them."""
    _run(session, "pytest", "-m", "(daemon or programs) and not simulation", *_PARALLEL, *session.posargs)


@_tests_something
def conformance(session: nox.Session) -> None:
    """Send the daemon generated requests, and check its answers against its OpenAPI document (schemathesis)."""
    _run(
        session,
        "python",
        "-m",
        "tests.daemon.support.conformance",
        *(session.posargs or ["--max-time", "15", "--no-color"]),
    )


@_tests_something
def page(session: nox.Session) -> None:
    """The daemon's page in Debian's Chromium, before a real daemon, server and devices: ``apt-get install chromium`` comes first.

    ``GALAXY_TRIO_SCREENSHOTS=docs/images`` updates the documentation's pictures.
    """
    _run(session, "pytest", "-m", "page", *_PARALLEL, *(session.posargs or ["tests/daemon"]))


@_tests_something
def simulation(session: nox.Session) -> None:
    """200 simulated runs and 100 of graphs, deliberate breakages that must be found, kills of servers and daemons; without coverage."""
    _run(session, "pytest", *(session.posargs or ["-m", "simulation", *_PARALLEL]))


@_tests_something
def simulate(session: nox.Session) -> None:
    """Simulated runs under faults: ``-- --seeds 1000 --first-seed 0``, and ``--graphs`` for task graphs; see docs/reliability.md."""
    _run(session, "python", "-m", "tests.simulation.simulate", *session.posargs)


@_tests_something
def soak(session: nox.Session) -> None:
    """Run tasks on 50 devices under network faults for 20 minutes, or ``-- --minutes N``; ``-- --breakages``; see docs/reliability.md."""
    _run(session, "python", "-m", "tests.soak.soak", *session.posargs)


@nox.session
def mcp_servers(session: nox.Session) -> None:
    """Start seven real MCP servers from PyPI and npm, and call tools of each over the agent. Needs the registries, and ``npx``."""
    _install(session)
    session.install("mcp-server-time", "mcp-server-git", "mcp-server-fetch")
    session.run("python", "-m", "tests.mcp_servers.mcp_servers")


@_tests_something
def fuzz(session: nox.Session) -> None:
    """Feed the codec and all three roles damaged recordings, for ten minutes, or ``-- --minutes N``.

    Examples that fail are kept in ``.hypothesis``, and come first the next time.
    """
    parser = argparse.ArgumentParser(prog="nox -s fuzz --")
    parser.add_argument("--minutes", type=float, default=10.0)
    arguments, rest = parser.parse_known_args(session.posargs)
    env = {"GALAXY_TRIO_FUZZ_MINUTES": str(arguments.minutes)}
    modules = (
        "tests/codec/test_fuzz_codec.py",
        "tests/server/test_fuzz_server.py",
        "tests/connection/test_fuzz_client.py",
        "tests/agent/test_fuzz_agent.py",
    )
    _run(session, "pytest", "--capture=no", "-k", "whatever or any_text", *modules, *rest, env=env)


@_tests_something
def docs(session: nox.Session) -> None:
    """Build the documentation into ``docs/_build``. Warnings and broken internal links are errors."""
    shutil.rmtree("docs/_build", ignore_errors=True)
    _run(session, "sphinx-build", "-q", "-E", "-W", "--keep-going", "-b", "html", "docs", "docs/_build")
    _run(session, "python", "tests/docs/support/built_site.py", "docs/_build")


@nox.session
def dist(session: nox.Session) -> None:
    """Build the wheel and the sdist into ``dist``, and test each in an empty environment."""
    session.install("build", "hatchling", "twine")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build", "--no-isolation", "--outdir", "dist", silent=True)
    built = sorted(Path("dist").iterdir())
    session.run("twine", "check", "--strict", *map(str, built))
    for package in built:
        # Away from the checkout, so that what is imported is what was installed.
        folder = Path(session.create_tmp()).resolve() / package.suffix.strip(".")
        shutil.rmtree(folder, ignore_errors=True)
        session.run("python", "-m", "venv", str(folder), silent=True)
        python = str(folder / "bin" / "python")
        session.run(python, "-m", "pip", "install", "--quiet", f"{package}[cli,daemon]", "pytest", external=True)
        test = str(shutil.copy("tests/docs/support/installed.py", folder))
        options = ("-q", "-c", os.devnull, "--rootdir", str(folder), "--noconftest", "-p", "no:cacheprovider")
        session.run(python, "-P", "-m", "pytest", *options, test, external=True)


@nox.session(python=False)
def dev(session: nox.Session) -> None:
    """Install everything that development needs into the environment that nox runs in."""
    groups = nox.project.dependency_groups(_PROJECT, "dev")
    command = ("-m", "pip", "install", "--quiet", "--editable", f".[{_EXTRAS}]")
    session.run(sys.executable, *command, *groups, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """The linter, the format, the rules of imports (see pyproject.toml), the words of the prose."""
    session.install(*nox.project.dependency_groups(_PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")
    session.run("python", "tests/docs/support/plain_english.py")


@nox.session
def types(session: nox.Session) -> None:
    """Both type checkers in strict mode over the package and its tests, and the types of all public names."""
    _install(session, "types")
    session.run("mypy", "galaxy_trio", "tests")
    session.run("pyright", "galaxy_trio", "tests")
    session.run("pyright", "--verifytypes", "galaxy_trio", "--ignoreexternal")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure side by side with other clients; see docs/performance.md. Asserts nothing."""
    _install(session, "bench")
    session.run("python", "-m", "tests.benchmarks.bench", *session.posargs)
