"""``galaxy-trio cluster``: the daemons of a cluster, and the drain of one of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest

from tests.cli.support.command_line import call_process, is_one_sentence
from tests.cli.support.daemon_process import run_daemon_process
from tests.cli.support.hostile import EVIL, Answer, call_on_terminal, harmful_characters, open_fake_daemon

if TYPE_CHECKING:
    from collections.abc import Generator

    from galaxy_trio.messages import JSON

pytestmark = pytest.mark.daemon


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    """The URL of a daemon with a database of its own."""
    yield from run_daemon_process("")


def _at(minute: int, second: int = 0) -> str:
    return f"2026-01-01T12:{minute:02}:{second:02}+00:00"


_COMMON: Final = {"url": None, "answers": False, "started": _at(0), "expires": _at(30, 20), "died": None}
CLUSTER: Final = {
    "now": _at(30),
    "daemons": [
        {**_COMMON, "id": "1", "name": "desk-1", "answers": True, "url": "http://desk-1:8765", "devices": 2, "running": 1},
        {**_COMMON, "id": "2", "name": "desk-2", "expires": _at(29, 50), "devices": 1, "running": 0},
        {**_COMMON, "id": "2", "name": "desk-3", "draining": True, "devices": 0, "running": 1},
        {**_COMMON, "id": "3", "name": "alone", "expires": None, "devices": 0, "running": 0},
        {**_COMMON, "id": "4", "name": "desk-4", "died": _at(20), "devices": 0, "running": 0},
    ],
    "devices": 5,
    "unowned": 2,
}  # fmt: skip


async def test_status_shows_each_daemon_by_the_databases_clock() -> None:
    async with open_fake_daemon({"/cluster": Answer(CLUSTER)}) as fake:
        outcome = await call_process("cluster", "status", "--url", fake.url)
        shown = await call_process("cluster", "status", "--json", "--url", fake.url)
        wide = await call_on_terminal("cluster", "status", "--url", fake.url, columns=120)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        "daemon            state                 devices  running     started",
        "desk-1 (answers)  alive, lease 20 s           2        1  30 min ago",
        "desk-2            lease over for 10 s         1        0  30 min ago",
        "desk-3            draining, lease 20 s        0        1  30 min ago",
        "alone             alive                       0        0  30 min ago",
        "desk-4            gone for 10 min             0        0  30 min ago",
        "5 devices, of which 2 have no owner at the moment",
    ]
    assert "  http://desk-1:8765" in wide
    assert (shown.status, json.loads(shown.out)) == (0, CLUSTER)


async def test_devices_that_all_have_an_owner_are_only_counted() -> None:
    async with open_fake_daemon({"/cluster": Answer({**CLUSTER, "devices": 1, "unowned": 0})}) as fake:
        outcome = await call_process("cluster", "status", "--url", fake.url)
    assert outcome.out.splitlines()[-1] == "1 device"


@pytest.mark.parametrize("answer", [{}, {**CLUSTER, "daemons": 5}, {**CLUSTER, "unowned": "two"}])
async def test_answer_that_is_not_a_cluster_is_one_sentence(answer: JSON) -> None:
    async with open_fake_daemon({"/cluster": Answer(answer)}) as fake:
        outcome = await call_process("cluster", "status", "--url", fake.url)
    assert (outcome.status, outcome.out) == (3, "")
    assert f"the daemon at {fake.url} sent a cluster that cannot be read" in outcome.err
    assert is_one_sentence(outcome)


async def test_drain_asks_for_the_daemon_by_its_name_whatever_that_contains() -> None:
    async with open_fake_daemon({"/cluster/a%2Fb%20c/drain": Answer(CLUSTER, "202 Accepted")}) as fake:
        outcome = await call_process("cluster", "drain", "a/b c", "--url", fake.url)
        shown = await call_process("cluster", "drain", "a/b c", "--json", "--url", fake.url)
        assert [head.split(" HTTP")[0] for head in fake.requests] == ["POST /cluster/a%2Fb%20c/drain"] * 2
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == "daemon a/b c releases its devices; see galaxy-trio cluster status\n"
    assert (shown.status, json.loads(shown.out)) == (0, CLUSTER)


async def test_drain_of_an_unknown_daemon_is_refused_with_the_reason() -> None:
    refusal = Answer({"error": "there is no daemon 'desk-3'; did you mean 'desk-1'?"}, "404 Not Found")
    async with open_fake_daemon({"/cluster/desk-3/drain": refusal}) as fake:
        outcome = await call_process("cluster", "drain", "desk-3", "--url", fake.url)
    assert (outcome.status, outcome.out) == (5, "")
    assert "there is no daemon 'desk-3'; did you mean 'desk-1'?" in outcome.err
    assert is_one_sentence(outcome)


async def test_daemon_with_a_database_of_its_own_has_no_lease_and_cannot_be_drained(address: str) -> None:
    status = await call_process("cluster", "status", "--json", "--url", address)
    [daemon] = json.loads(status.out)["daemons"]
    assert (daemon["answers"], daemon["expires"], daemon["died"], daemon["devices"]) == (True, None, None, 2)
    outcome = await call_process("cluster", "drain", daemon["name"], "--url", address)
    assert (outcome.status, outcome.out) == (5, "")
    assert "stop the daemon instead" in outcome.err
    assert is_one_sentence(outcome)


async def test_names_of_daemons_are_printable_on_a_terminal() -> None:
    evil = {**CLUSTER, "daemons": [{**_COMMON, "name": EVIL, "url": EVIL, "devices": EVIL, "running": EVIL}]}
    async with open_fake_daemon({"/cluster": Answer(evil)}) as fake:
        shown = await call_on_terminal("cluster", "status", "--url", fake.url)
    assert "\\u001b]0;title" in shown
    assert not harmful_characters(shown, coloured=True)
