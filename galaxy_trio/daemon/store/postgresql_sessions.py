"""Sessions with PostgreSQL: how they are opened, what limits them, and what their errors mean.

Rule 8 of docs/explanation/cluster.md.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from galaxy_trio.daemon.store.database import StoreError
from galaxy_trio.daemon.store.location import DEFAULT_LEASE, POSTGRESQL

if TYPE_CHECKING:
    from galaxy_trio.daemon.store.location import PostgresqlLocation

_SESSION: Final = {
    "statement_timeout": "30s",
    # A plan for any values would use no index for a column that may be NULL.
    "plan_cache_mode": "force_custom_plan",
}
_DURABLE: Final = (
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)
"""What is committed must survive a crash of the server, whatever its configuration; one that waits for a standby stays."""
_SHOWN: Final = ("host", "port", "dbname", "user", "service")
_NOT_A_URL: Final = (
    "the URL of the database is invalid (it is not shown, for it may contain a password): write "
    f"{POSTGRESQL}USER@HOST:PORT/DATABASE, and in a password %40 for @, %2F for /, %3A for :, %3F for ?, %25 for %"
)
REASONS: Final = {
    "25006": "it is read-only: connect to the primary server, not to a standby",
    "25P03": "the daemon paused in a transaction for a sixth of its lease: check whether its machine is overloaded",
    "42P01": "one of its tables was removed: restore a backup, or restart the daemon if the whole schema was removed",
    "53100": "the server's disk is full: free some space",
    "55P03": "another program has locked a table for a sixth of the daemon's lease: stop that program",
    "57014": "a statement took 30 s, and was stopped: check whether the server is overloaded",
}
"""Reasons by SQLSTATE."""
_ADVICE: Final = (
    (r"^role .* does not exist", "create it with createuser, or configure another user"),
    (r"^database .* does not exist", "create it with createdb, or configure another one"),
    (r"^password authentication failed", "correct the password, which comes from the URL, PGPASSWORD or a passfile"),
    (r"no password supplied", "give a password in a passfile (~/.pgpass, or the one that PGPASSFILE names) or in PGPASSWORD"),
    (r"SSL|certificate", "correct sslmode and sslrootcert in the URL, or the server's certificate"),
    (r"no pg_hba.conf entry", "let the user connect in the server's pg_hba.conf"),
    (r"too many clients|connection slots", "raise max_connections of the server"),
    (r"^invalid|^definition of service", "correct the URL of the database"),
)  # fmt: skip
"""What to do, by the beginning of the message: the driver tells no SQLSTATE of a refused connection."""
_CHECK_SERVER: Final = "check that the server runs, and that this machine can reach it"


class PostgresqlSessions:
    """Where sessions are opened, and for which cluster."""

    def __init__(self, location: PostgresqlLocation) -> None:
        self.cluster: Final = location.cluster
        self.lease: Final = location.lease
        self.parameters: Final = _client_options(location.lease) | _parse(location.url)
        """The driver's parameters, of which one may be a password."""

    def __str__(self) -> str:
        shown = {key: self.parameters[key] for key in _SHOWN if key in self.parameters}
        return f"the database {make_conninfo(**shown)}".rstrip()

    def connection_string(self) -> bytes:
        """The driver's parameters as one text, which may contain a password."""
        return make_conninfo(**self.parameters).encode()


def session_settings(cluster: str, lease: float) -> bytes:
    """The statements with which each session begins."""
    values = _SESSION | _session_limits(lease)
    settings = [sql.SQL("SET {} = {}").format(sql.Identifier(key), sql.Literal(value)) for key, value in values.items()]
    path = sql.SQL("SET search_path = {}").format(sql.Identifier(cluster))
    return sql.SQL("; ").join([path, *settings, sql.SQL(_DURABLE)]).as_bytes(None)


def _client_options(lease: float) -> dict[str, Any]:
    """Options of the connection, of any types, which the URL may give as well.

    A server that does not answer is noticed within a third of the lease, and within 10 s.
    """
    limit = _limit(lease)
    return {
        # Fewer seconds are not accepted.
        "connect_timeout": max(round(limit), 2),
        "keepalives_idle": max(round(limit), 1),
        "keepalives_interval": max(round(limit / 2.5), 1),
        "keepalives_count": 3,
        "tcp_user_timeout": round(2_000 * limit),
        "client_encoding": "utf8",
        "fallback_application_name": "galaxy_trio",
    }


def _session_limits(lease: float) -> dict[str, str]:
    """The settings of a session by which it cannot block others for long."""
    limit = _limit(lease)
    return {
        # A daemon that is stopped inside a transaction would block the others.
        "idle_in_transaction_session_timeout": f"{round(1_000 * limit)}ms",
        "lock_timeout": f"{round(1_000 * limit)}ms",
        # The server notices a daemon whose machine does not answer, and releases its locks.
        "tcp_keepalives_idle": f"{max(round(limit), 1)}s",
        "tcp_keepalives_interval": f"{max(round(limit / 2.5), 1)}s",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": f"{round(2_000 * limit)}ms",
    }


def _limit(lease: float) -> float:
    """A sixth of a lease, but of the default one at most, in seconds."""
    return min(lease, DEFAULT_LEASE) / 6


def _parse(url: str) -> dict[str, Any]:
    """The parameters in a URL.

    Raises:
        StoreError: It is invalid. Neither the message nor the chain shows any of it: a password may be where the driver sees a host.
    """
    user, _, _ = url.removeprefix(POSTGRESQL).partition("?")[0].rpartition("@")
    if "@" not in user and "/" not in user and user.count(":") <= 1:
        parameters: dict[str, Any] | None
        try:
            parameters = conninfo_to_dict(url.replace(POSTGRESQL, "postgresql://", 1))
        except psycopg.Error:
            parameters = None
        if parameters is not None and re.fullmatch(r"[0-9,]*", str(parameters.get("port", ""))):
            return parameters
    raise StoreError(_NOT_A_URL)


def reason_of(cause: BaseException) -> str:
    """An error of the driver, as a reason and what to do."""
    state: str | None = getattr(cause, "sqlstate", None)
    if state in REASONS:
        return REASONS[state]
    # Further lines repeat it, or give the driver's own advice.
    message = str(cause).strip().partition("\n")[0]
    message = re.sub(r"^connection (failed|is bad): (connection to server .*? failed: )?(FATAL: *)?", "", message)
    if state == "42501":
        return f"{message}: grant the permission to the user"
    if state is None:
        for pattern, advice in _ADVICE:
            if re.search(pattern, message):
                return f"{message}: {advice}"
    return f"{message}: {_CHECK_SERVER}" if is_of_connection(cause) else message


def is_of_connection(cause: BaseException | None) -> bool:
    """Whether the connection was lost, or cannot be made."""
    return isinstance(cause, psycopg.OperationalError) and (cause.sqlstate or "08").startswith(("08", "57P"))
