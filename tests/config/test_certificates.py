"""Certificates in PEM files are read with and without a byte order mark, and the reason of a failure is given."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trustme

from galaxy_trio import ConfigError
from galaxy_trio._config.certificates import encoding_problem, trusting_context

if TYPE_CHECKING:
    from pathlib import Path

MARK = b"\xef\xbb\xbf"


@pytest.fixture(scope="module")
def pem() -> bytes:
    """The certificate of an authority."""
    return trustme.CA().cert_pem.bytes()


def failure(folder: Path) -> str:
    return f"the certificates cannot be read from {folder / 'ca.pem'}"


@pytest.mark.parametrize("mark", [b"", MARK, MARK + "Zertifikat für uns\n".encode()])
def test_the_first_certificate_is_trusted_also_after_a_mark(mark: bytes, pem: bytes, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(mark + pem + trustme.CA().cert_pem.bytes())
    context = trusting_context(tmp_path / "ca.pem")
    assert len(context.get_ca_certs()) == 2
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize(
    ("encoding", "problem"),
    [
        ("utf-16", ": it is UTF-16 text: save it as UTF-8"),
        ("utf-16-le", ": it contains null characters, as UTF-16 text does: save it as UTF-8"),
    ],
)
def test_certificates_in_another_encoding_are_refused_with_the_reason(
    encoding: str, problem: str, pem: bytes, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_bytes(pem.decode().encode(encoding))
    with pytest.raises(ConfigError) as caught:
        trusting_context(tmp_path / "ca.pem")
    assert str(caught.value) == f"{failure(tmp_path)}: it contains no certificates in PEM format{problem}"


@pytest.mark.parametrize("data", [b"", MARK, b"text", MARK + b"text"])
def test_a_file_without_certificates_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        trusting_context(tmp_path / "ca.pem")
    assert str(caught.value) == f"{failure(tmp_path)}: it contains no certificates in PEM format"


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        trusting_context(tmp_path / "ca.pem")
    assert str(caught.value) == f"{failure(tmp_path)}: No such file or directory"


def test_the_encoding_of_a_file_that_openssl_reads_is_explained(pem: bytes, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(MARK + pem)
    assert encoding_problem(tmp_path / "key.pem") == "it begins with a byte order mark: save it without one"
    (tmp_path / "key.pem").write_bytes(pem.decode().encode("utf-16"))
    assert encoding_problem(tmp_path / "key.pem") == "it is UTF-16 text: save it as UTF-8"
    (tmp_path / "key.pem").write_bytes(pem)
    assert encoding_problem(tmp_path / "key.pem") is None
