"""What is run to check the project. `nox` alone runs what has to pass before a change lands."""

from __future__ import annotations

import argparse

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests", "simulation", "conformance", "page", "lint", "types"]
nox.options.error_on_missing_interpreters = True

_PROJECT = nox.project.load_toml("pyproject.toml")
# The command line and the daemon talk to people: what is left of them untested is small, and counted apart.
_FRONT_ENDS = (
    "galaxy_trio/cli*.py,galaxy_trio/demo*.py,galaxy_trio/__main__.py,galaxy_trio/daemon/*,galaxy_trio/daemon_client.py"
)

_FAST = "not slow and not simulation and not daemon and not page"
_DAEMON = "daemon and not simulation"
_TRANSPORTS = ("trio-websocket", "websockets")


def _over(transport: str) -> dict[str, str]:
    """The package with which the tests' WebSockets are made; for programs that tests start, it is trio-websocket."""
    return {"GALAXY_TRIO_TRANSPORT": transport}


def _install(session: nox.Session, *groups: str, extras: str = "agent,cli,daemon,fast,mcp,yaml") -> None:
    session.install("--editable", f".[{extras}]", *nox.project.dependency_groups(_PROJECT, *groups))


@nox.session
def tests(session: nox.Session) -> None:
    """All tests but the simulation, over either transport, with branch coverage: 100 % of the package, 90 % of its front ends."""
    _install(session, "tests")
    session.run("coverage", "erase")
    if session.posargs:
        session.run("coverage", "run", "-m", "pytest", *session.posargs)
        session.run("coverage", "combine", "--quiet")
    else:
        for transport in _TRANSPORTS:
            for which in (_FAST, "slow"):
                session.run("coverage", "run", "-m", "pytest", "-m", which, "-n", "auto", env=_over(transport))
        # It is all the same to the daemon.
        session.run("coverage", "run", "-m", "pytest", "-m", _DAEMON, "-n", "auto")
        session.run("coverage", "combine", "--quiet")
        session.run("coverage", "report", f"--omit={_FRONT_ENDS}", "--fail-under=100")
        session.run("coverage", "report", f"--include={_FRONT_ENDS}", "--fail-under=90")


@nox.session
def fast(session: nox.Session) -> None:
    """What takes less than a minute: for the time between two commits."""
    _install(session, "tests")
    session.run("pytest", "-m", _FAST, "-n", "auto", *session.posargs)


@nox.session
def daemon(session: nox.Session) -> None:
    """The tests of the daemon, for the time between two commits of it."""
    _install(session, "tests")
    session.run("pytest", "-m", _DAEMON, "-n", "auto", *session.posargs)


@nox.session
def conformance(session: nox.Session) -> None:
    """Ask the daemon whatever schemathesis can think of, and see whether it answers as its OpenAPI document says."""
    _install(session, "tests", "conformance")
    session.run("python", "tests/conformance.py", *(session.posargs or ["--max-time", "25", "--no-color"]))


@nox.session
def page(session: nox.Session) -> None:
    """The daemon's page in Debian's Chromium, before a real daemon, server and devices: ``apt-get install chromium`` comes first.

    ``GALAXY_TRIO_SCREENSHOTS=docs/images`` makes the documentation's pictures anew.
    """
    _install(session, "tests", "page")
    session.run("pytest", "-m", "page", "-n", "auto", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """What takes longer: other programs' processes, and whole fleets at every step."""
    _install(session, "tests")
    session.run("pytest", "-m", "slow", "-n", "auto", *session.posargs)


@nox.session
def simulation(session: nox.Session) -> None:
    """200 runs of the whole, deliberate breakages that must be found, servers and daemons that are killed; without coverage."""
    _install(session, "tests")
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    for transport in _TRANSPORTS:
        session.run("pytest", "-m", "simulation and not daemon", "-n", "auto", env=_over(transport))
    session.run("pytest", "-m", "simulation and daemon", "-n", "auto")


@nox.session
def simulate(session: nox.Session) -> None:
    """Runs of the whole under whatever happens: ``-- --seeds 1000 --first-seed 0``; see docs/reliability.md."""
    _install(session, "tests")
    session.run("python", "tests/simulation/simulate.py", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Feed the codec and all three roles damaged recordings, for ten minutes in all over either transport, or ``-- --minutes N``.

    Examples that fail are kept in ``.hypothesis``, and come first the next time.
    """
    parser = argparse.ArgumentParser(prog="nox -s fuzz --")
    parser.add_argument("--minutes", type=float, default=10.0)
    arguments, rest = parser.parse_known_args(session.posargs)
    _install(session, "tests")
    for transport in _TRANSPORTS:
        minutes = str(arguments.minutes / len(_TRANSPORTS))
        env = {**_over(transport), "GALAXY_TRIO_FUZZ_MINUTES": minutes}
        modules = ("tests/test_fuzz_codec.py", "tests/test_fuzz_server.py", "tests/test_fuzz_client.py")
        session.run("pytest", "--capture=no", "-k", "whatever or any_text", *modules, *rest, env=env)


@nox.session
def lint(session: nox.Session) -> None:
    """The linter, and whether everything is formatted."""
    session.install(*nox.project.dependency_groups(_PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Both type checkers, strictly, over the package and its tests."""
    _install(session, "types")
    session.run("mypy", "galaxy_trio", "tests")
    session.run("pyright", "galaxy_trio", "tests")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure, side by side with other clients; see docs/performance.md. Asserts nothing."""
    _install(session, "bench")
    session.run("python", "-m", "tests.benchmarks.bench", *session.posargs)
