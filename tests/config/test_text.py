"""Text files are read as editors on any system save them, and what is not UTF-8 is refused without showing it."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import pytest

from galaxy_trio import ConfigError
from galaxy_trio._config.files import read_configuration_file
from galaxy_trio._config.text import MAX_TEXT, read_text
from galaxy_trio.constellation.config import read_config
from galaxy_trio.daemon.settings import read_settings
from galaxy_trio.server import read_device_config

if TYPE_CHECKING:
    from pathlib import Path

MARK = b"\xef\xbb\xbf"
SECRET = "s3cr3t-t0k3n"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (MARK + b"a\r\nb\rc\n", "a\nb\nc\n"),
        (MARK + MARK + "\u00e4".encode(), "\u00e4"),
        (b"a" + MARK, "a\ufeff"),
    ],
)
def test_marks_at_the_beginning_are_left_out_and_lines_end_alike(data: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(data)
    assert read_text(tmp_path / "t", "failure") == text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (SECRET.encode("utf-16"), "it is UTF-16 text: save it as UTF-8"),
        (b"\xfe\xff" + SECRET.encode("utf-16-be"), "it is UTF-16 text: save it as UTF-8"),
        (SECRET.encode("utf-32"), "it is UTF-32 text: save it as UTF-8"),
        (b"\0\0\xfe\xff" + SECRET.encode("utf-32-be"), "it is UTF-32 text: save it as UTF-8"),
        (SECRET.encode("utf-16-le"), "it contains null characters, as UTF-16 text does: save it as UTF-8"),
        (SECRET.encode() + b"\xff", "it is not UTF-8 text: save it as UTF-8"),
        (SECRET.encode() * (MAX_TEXT // 10), "it is larger than 16 MiB"),
    ],
    ids=["UTF-16", "UTF-16-BE", "UTF-32", "UTF-32-BE", "UTF-16 without a mark", "Latin", "large"],
)
def test_what_is_not_utf_8_is_refused_with_the_reason(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read_text(tmp_path / "t", "it cannot be read")
    assert str(caught.value) == f"it cannot be read: {reason}"
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", '{"devices": [{"device_id": "d", "server_url": "ws://h"}]}'),
        ("c.toml", '[[devices]]\ndevice_id = "d"\nserver_url = "ws://h"\n'),
        ("c.yaml", "devices:\n- device_id: d\n  server_url: ws://h\n"),
    ],
)
def test_every_configuration_file_may_begin_with_a_mark(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(MARK + text.replace("\n", "\r\n").encode())
    assert [device.device_id for device in read_config(path).devices] == ["d"]
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(ConfigError, match=r"cannot be read: it is UTF-16 text: save it as UTF-8$"):
        read_config(path)


def test_the_daemons_and_the_servers_files_may_begin_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / "galaxy.toml").write_bytes(MARK + b'listen = "127.0.0.1:1"\n')
    assert read_settings(tmp_path / "galaxy.toml").listen == "127.0.0.1:1"
    (tmp_path / "devices.json").write_bytes(MARK + b'{"devices": {"d": {}}}')
    assert read_device_config(tmp_path / "devices.json") == {"d": {}}


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^the configuration .*none.json cannot be read: No such file"):
        read_configuration_file(tmp_path / "none.json", "the configuration")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("d.toml", r'devices = "C:\Users\d.toml"'),
        ("d.toml", r'devices = "C:\me\d.toml"'),
        ("d.json", r'{"devices": "C:\Users\d.json"}'),
        ("d.json", r'{"devices": "C:\me\d.json"}'),
        ("d.yaml", r'devices: "C:\Users\d.yaml"'),
        ("d.yaml", r'devices: "C:\me\d.yaml"'),
    ],
)
def test_path_of_windows_that_is_not_escaped_gets_a_hint(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=r"; write / or two backslashes$"):
        read_config(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[[devices]]\ndevice_id = 1\n",
            "expected <document start>, but found <scalar> (at line 2, column 1)",
        ),
        (
            "a: 1\n---\nb: 1",
            "expected a single document in the stream but found another document (at line 2, column 1)",
        ),
        ("a: !secret-tag 1", "could not determine a constructor for the tag what stands there (at line 1, column 4)"),
    ],
)
def test_file_that_is_not_yaml_is_refused_without_its_content(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path / "d.yaml")
    assert str(caught.value).endswith(f"is not YAML: {problem}")


@pytest.mark.parametrize("value", ["no", "007", "1.5", "2026-01-01", "2026-01-01 12:00:00"])
def test_text_that_yaml_reads_as_another_value_is_to_be_quoted(value: str, tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text(f"devices: [{{device_id: {value}, server_url: ws://h}}]")
    with pytest.raises(ConfigError, match=r"devices\[0\]\.device_id: expected a string, got .*; put it in quotes$"):
        read_config(tmp_path / "d.yaml")


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text("# devices\n")
    with pytest.raises(ConfigError, match=r"the file: expected an object, got nothing$"):
        read_config(tmp_path / "d.yaml")
