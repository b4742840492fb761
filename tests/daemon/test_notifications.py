"""PostgreSQL's notifications: nothing that was committed is missed, whatever happens to the connection, and none is left behind."""

from __future__ import annotations

import logging
import math
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing
from psycopg import pq

from galaxy_trio.daemon.store import notifications
from galaxy_trio.daemon.store.location import POSTGRESQL, PostgresqlLocation
from galaxy_trio.daemon.store.notifications import follow_commits
from galaxy_trio.daemon.store.postgresql import Postgresql
from tests.daemon.support.postgresql import PostgresqlServer, unique_name
from tests.support.waiting import SECONDS, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from trio.testing import MockClock

pytestmark = pytest.mark.daemon


@attrs.define
class _Follower:
    """Counts the calls of a follower."""

    server: PostgresqlServer
    name: str
    calls: int = 0

    def called(self) -> None:
        self.calls += 1

    async def wait_calls(self, minimum: int) -> None:
        await until(lambda: self.calls >= minimum)

    async def notify(self) -> None:
        """Commit a notification."""
        await trio.to_thread.run_sync(self.server.execute, f'NOTIFY "{self.name}"')

    def sessions(self) -> list[int]:
        """The processes of the follower's sessions at the server."""
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
        return [pid for [pid] in self.server.execute(query, self.name)]

    def terminate(self) -> None:
        """Close the follower's session."""
        [pid] = self.sessions()
        assert self.server.execute("SELECT pg_terminate_backend(%s, 10000)", pid) == [(True,)]


@pytest.fixture
def never_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only notifications and new connections call the function."""
    monkeypatch.setattr(notifications, "_POLL_INTERVAL", math.inf)


def _follower(server: PostgresqlServer) -> tuple[_Follower, Postgresql]:
    name = unique_name()
    return _Follower(server, name), Postgresql(PostgresqlLocation(server.url(application_name=name), name))


@asynccontextmanager
async def _following(server: PostgresqlServer) -> AsyncGenerator[_Follower]:
    """Follow a cluster inside the block, from the moment when it listens."""
    follower, database = _follower(server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow_commits, database, follower.called)
        await follower.wait_calls(1)
        yield follower
        nursery.cancel_scope.cancel()
    await until(lambda: not follower.sessions())


@pytest.mark.usefixtures("never_polls")
async def test_each_notification_is_followed_by_a_call(postgresql: PostgresqlServer) -> None:
    async with _following(postgresql) as follower:
        for _ in range(20):
            calls = follower.calls
            await follower.notify()
            await follower.wait_calls(calls + 1)
        assert follower.calls == 21


@pytest.mark.usefixtures("never_polls")
async def test_notifications_that_arrive_together_share_a_call(postgresql: PostgresqlServer) -> None:
    async with _following(postgresql) as follower:
        # The event loop does not run while they are sent.
        for _ in range(50):
            postgresql.execute(f'NOTIFY "{follower.name}"')
        await follower.wait_calls(2)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert follower.calls <= 3


@pytest.mark.usefixtures("never_polls")
async def test_notification_that_arrives_with_the_answer_to_listen_is_not_missed(
    postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server sends a transaction's own notification before it is ready for the next statement.
    monkeypatch.setattr(notifications, "session_settings", _notify)
    async with _following(postgresql) as follower:
        await follower.wait_calls(2)


@pytest.mark.usefixtures("never_polls")
async def test_notifications_of_other_clusters_call_nothing(postgresql: PostgresqlServer) -> None:
    async with _following(postgresql) as follower, _following(postgresql) as other:
        await other.notify()
        await other.wait_calls(2)
        assert follower.calls == 1


@pytest.mark.usefixtures("never_polls")
async def test_terminated_connection_is_replaced_and_what_was_committed_in_between_is_read(
    postgresql: PostgresqlServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with _following(postgresql) as follower:
        await trio.to_thread.run_sync(follower.terminate)
        await follower.wait_calls(2)
        await follower.notify()
        await follower.wait_calls(3)
        assert len(follower.sessions()) == 1
    lost, found = [record.getMessage() for record in caplog.records]
    assert "sends no notifications, and is read every inf s: " in lost
    assert ": check that the server runs, and that this machine can reach it" in lost
    assert found.endswith("sends notifications again")


async def test_server_that_is_away_is_polled_reported_once_and_listened_to_when_it_is_back(
    postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notifications, "_POLL_INTERVAL", 0.02)
    monkeypatch.setattr(notifications, "_MAX_DELAY", 0.2)
    async with _following(postgresql) as follower:
        postgresql.stop()
        try:
            await follower.wait_calls(follower.calls + 50)
        finally:
            postgresql.start()
        await until(lambda: len(follower.sessions()) == 1)
    assert [record.levelname for record in caplog.records if record.name == notifications.__name__] == ["WARNING"]


@pytest.mark.usefixtures("never_polls")
async def test_refused_statement_is_reported_and_the_connection_closed(
    postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notifications, "session_settings", _fail)
    follower, database = _follower(postgresql)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow_commits, database, follower.called)
        await until(lambda: "division by zero" in caplog.text)
        nursery.cancel_scope.cancel()
    assert follower.calls == 0
    await until(lambda: not follower.sessions())


@pytest.mark.usefixtures("never_polls")
async def test_cancellation_at_any_step_ends_immediately_and_leaves_no_connection(
    postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower, database = _follower(postgresql)
    connections: list[pq.abc.PGconn] = []

    class Recorded:
        @staticmethod
        def connect_start(parameters: bytes) -> pq.abc.PGconn:
            # It is in use until it is closed, and not until it is garbage.
            connections.append(connect_start(parameters))
            return connections[-1]

    connect_start = pq.PGconn.connect_start
    monkeypatch.setattr(pq, "PGconn", Recorded)
    waits = 0

    def counting(wait: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def count_and_wait(*arguments: Any, **more: Any) -> Any:
            nonlocal waits
            waits += 1
            if waits == steps:
                nursery.cancel_scope.cancel()
            return await wait(*arguments, **more)

        return count_and_wait

    for place, name in (
        (notifications, "wait_readable"),
        (notifications, "wait_writable"),
        (trio.to_thread, "run_sync"),
    ):
        monkeypatch.setattr(place, name, counting(getattr(place, name)))
    steps = 0
    while not follower.calls:
        steps, waits = steps + 1, 0
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow_commits, database, follower.called)
            await until(lambda: not follower.sessions())
    # The first of them waits for the thread that begins to connect.
    assert len(connections) == steps - 1 > 3


@asynccontextmanager
async def _silent_server(directory: Path) -> AsyncGenerator[tuple[Postgresql, list[trio.SocketStream]]]:
    """A server that accepts connections and never answers."""
    accepted: list[trio.SocketStream] = []
    listening = trio.socket.socket(socket.AF_UNIX)
    await listening.bind(str(directory / ".s.PGSQL.5432"))
    listening.listen()

    async def accept(stream: trio.SocketStream) -> None:
        accepted.append(stream)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, accept, [trio.SocketListener(listening)])
        yield Postgresql(PostgresqlLocation(f"{POSTGRESQL}u@/d?host={directory}")), accepted
        nursery.cancel_scope.cancel()


async def test_cancellation_does_not_wait_for_a_server_that_does_not_answer(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with _silent_server(tmp_path) as (database, accepted):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow_commits, database, _ignore)
            while not accepted:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        # The clock stands still: no timeout closed it.
        while await accepted[0].receive_some():
            pass


async def test_server_that_does_not_answer_is_reported_and_asked_again_with_backoff(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    # Threads and sockets need real time.
    autojump_clock.autojump_threshold = 0.005
    calls: list[float] = []
    async with _silent_server(tmp_path) as (database, accepted), trio.open_nursery() as nursery:
        nursery.start_soon(follow_commits, database, lambda: calls.append(trio.current_time()))
        await trio.sleep(601)
        nursery.cancel_scope.cancel()
    assert calls == pytest.approx([2.0 * number for number in range(1, 301)])
    # Each attempt takes 5 s, and the delays reach 15 to 30 s.
    assert 1 < len(accepted) <= 37
    assert "it does not answer" in caplog.text


def _notify(cluster: str, _lease: float) -> bytes:
    return f'NOTIFY "{cluster}"'.encode()


def _fail(_cluster: str, _lease: float) -> bytes:
    return b"SELECT 1/0"


def _ignore() -> None:
    """Do nothing after a commit."""
