"""The settings of the daemon: every valid setting, and every problem of an invalid file."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from galaxy_trio import ConfigError
from galaxy_trio.daemon.settings import TOKEN_VARIABLE, Settings, read_settings
from galaxy_trio.daemon.store.location import PostgresqlLocation

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.daemon


def _read(directory: Path, text: str) -> Settings:
    (directory / "galaxy.toml").write_text(text)
    return read_settings(directory / "galaxy.toml")


def test_empty_file_means_loopback_and_files_in_the_same_folder(tmp_path: Path) -> None:
    settings = _read(tmp_path, "")
    assert settings == Settings(
        tmp_path / "galaxy.toml", tmp_path / "devices.toml", "127.0.0.1:8765", tmp_path / "galaxy.db"
    )
    assert (settings.name, settings.url) == (socket.gethostname(), None)
    assert settings.read_tokens() == ()


def test_every_setting_can_be_given(tmp_path: Path) -> None:
    settings = _read(
        tmp_path,
        """
        devices = "fleet.yaml"
        listen = "unix:/run/galaxy/socket"
        database = "/var/lib/galaxy/tasks.db"
        name = "desk 1"
        url = "https://desk-1.example.org/galaxy"
        token_file = "tokens"
        allowed_hosts = ["galaxy.example.org"]
        keep_days = 7
        keep_tasks = 1000
        max_queued = 50
        drain = 2.5
        log = "json"
        """,
    )
    assert str(settings.database) == "/var/lib/galaxy/tasks.db"
    assert (settings.name, settings.url) == ("desk 1", "https://desk-1.example.org/galaxy")
    assert settings.token_file == tmp_path / "tokens"
    assert settings.allowed_hosts == ("galaxy.example.org",)
    assert (settings.keep_days, settings.keep_tasks, settings.max_queued) == (7.0, 1000, 50)
    assert (settings.drain, settings.log) == (2.5, "json")


def test_one_error_names_every_problem_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _read(
            tmp_path,
            'listen = 5\nallowed_hosts = "x"\nkeep_days = 0\nkeep_tasks = 1.5\nmax_queued = true\ndrain = inf\nlog = "xml"\ndatabse = "x"\n'
            'devices = ""\nzzz = 1\n',
        )
    for part in (
        "devices: expected the name of a file",
        "listen: expected 'unix:PATH' or 'HOST:PORT', got 5",
        "allowed_hosts: expected a list of host names, got a string",
        "keep_days: expected a number of days above 0, got 0",
        "keep_tasks: expected a whole number from 1 to 1,000,000, got 1.5",
        "max_queued: expected a whole number from 1 to 1,000,000, got true",
        "drain: expected a number of seconds above 0, got inf",
        "log: expected 'console' or 'json'",
        "databse: unknown key; did you mean 'database'?",
        "zzz: unknown key; known are token_file, listen, ",
    ):
        assert part in str(caught.value)
    assert len(caught.value.problems) == 10


@pytest.mark.parametrize(
    ("content", "sentence"), [(b"= 5", "is not TOML"), (b"\xff", "it is not UTF-8 text"), (None, "No such file")]
)
def test_unreadable_file_is_reported_with_its_path(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "galaxy.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=sentence) as caught:
        read_settings(path)
    assert str(path) in str(caught.value)


def test_tokens_come_from_the_file_and_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokens").write_text("one\n\n  two  \n")
    settings = _read(tmp_path, 'token_file = "tokens"')
    assert settings.read_tokens() == ("one", "two")
    monkeypatch.setenv(TOKEN_VARIABLE, "three")
    assert settings.read_tokens() == ("one", "two", "three")
    assert _read(tmp_path, "").read_tokens() == ("three",)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read"),
        (b"", "there is no token in"),
        (b"secr\xff", "it is not UTF-8 text"),
        ("secret\u00e9".encode(), "no header can carry"),
        (b"secret one", "no header can carry"),
    ],
)
def test_invalid_tokens_are_refused_and_not_shown(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / "tokens").write_bytes(content)
    settings = _read(tmp_path, 'token_file = "tokens"')
    with pytest.raises(ConfigError, match=sentence) as caught:
        settings.read_tokens()
    assert "secr" not in str(caught.value)
    assert caught.value.__context__ is None or "secr" not in str(caught.value.__context__)


def test_token_variable_that_no_header_can_carry_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "secret one")
    with pytest.raises(ConfigError, match=TOKEN_VARIABLE) as caught:
        _read(tmp_path, "").read_tokens()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["devices", "database", "token_file"])
def test_name_that_no_file_can_have_is_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "galaxy.toml").write_text(f'{key} = "a\\u0000b"\n', "utf-8")
    with pytest.raises(ConfigError, match=f"{key}: expected the name of a file"):
        read_settings(tmp_path / "galaxy.toml")


def test_socket_without_a_folder_is_in_the_folder_of_the_file(tmp_path: Path) -> None:
    assert _read(tmp_path, 'listen = "unix:daemon.sock"').listen == f"unix:{tmp_path / 'daemon.sock'}"
    assert _read(tmp_path, 'listen = "unix:/run/daemon.sock"').listen == "unix:/run/daemon.sock"


def test_keys_that_begin_with_an_underscore_or_x_may_have_any_value(tmp_path: Path) -> None:
    plain = _read(tmp_path, "")
    assert _read(tmp_path, '_note = "n"\nx-owner = { name = "us" }\n[_more]\na = 1\n') == plain


def test_url_of_a_database_is_read_with_its_cluster_and_not_shown(tmp_path: Path) -> None:
    url = "postgresql+psycopg://u:secret@h:5432/d"
    settings = _read(tmp_path, f'database = "{url}"')
    assert settings.database == PostgresqlLocation(url, "galaxy")
    assert "secret" not in repr(settings)
    assert _read(tmp_path, f'database = "{url}"\ncluster = "north-1"').database == PostgresqlLocation(url, "north-1")


@pytest.mark.parametrize("name", ["", "North", "1st", "pg_north", "nörth", "a" * 41, "a.b"])
def test_cluster_has_a_name_that_needs_no_care_anywhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cluster: expected at most 40 small letters, digits, - and _"):
        _read(tmp_path, f'database = "postgresql+psycopg://h/d"\ncluster = "{name}"')


@pytest.mark.parametrize("lease", [3, 3.5, 3_600])
def test_lease_of_the_daemons_is_read_with_their_database(tmp_path: Path, lease: float) -> None:
    url = "postgresql+psycopg://h/d"
    assert _read(tmp_path, f'database = "{url}"').database == PostgresqlLocation(url, lease=30)
    found = _read(tmp_path, f'database = "{url}"\nlease = {lease}').database
    assert found == PostgresqlLocation(url, lease=lease)


@pytest.mark.parametrize("lease", [2.9, 3_601, 0, "nan", "inf", '"30"', "true"])
def test_lease_that_is_too_short_or_too_long_is_refused(tmp_path: Path, lease: object) -> None:
    with pytest.raises(ConfigError, match="lease: expected a number of seconds from 3 to 3600"):
        _read(tmp_path, f'database = "postgresql+psycopg://h/d"\nlease = {lease}')


@pytest.mark.parametrize("setting", ['cluster = "north"', "lease = 30"])
def test_setting_of_postgresql_is_refused_with_a_file(tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match="only a PostgreSQL database has it: remove it, or set database to a URL"):
        _read(tmp_path, setting)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg", "mysql", "sqlite"])
def test_url_of_another_database_or_driver_is_refused_and_not_shown(tmp_path: Path, scheme: str) -> None:
    with pytest.raises(ConfigError, match=r"a URL that begins with postgresql\+psycopg://") as caught:
        _read(tmp_path, f'database = "{scheme}://u:secret@h/d"')
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a" * 101, "a\\nb", "\\u001b[2J"])
def test_name_of_a_daemon_is_short_and_printable(tmp_path: Path, name: str) -> None:
    assert _read(tmp_path, f'name = "{"a" * 100}"').name == "a" * 100
    with pytest.raises(ConfigError, match="name: expected a name of 1 to 100 characters"):
        _read(tmp_path, f'name = "{name}"')


@pytest.mark.parametrize("url", ["", "desk-1:8765", "ftp://desk-1", "https://u:secret@desk-1", "http://desk-1/\\u202e"])
def test_url_of_a_daemon_is_refused_and_not_shown_unless_everyone_may_see_it(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"url: expected an address that begins with http:// or https://") as caught:
        _read(tmp_path, f'url = "{url}"')
    assert "secret" not in str(caught.value)
