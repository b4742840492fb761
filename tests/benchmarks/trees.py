"""Which code is measured: the working tree, and a commit that it is compared with."""

from __future__ import annotations

import compileall
import io
import os
import subprocess
import tarfile
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Generator


class Tree(NamedTuple):
    """A directory with the package in it."""

    name: str
    path: Path

    def environment(self) -> dict[str, str]:
        """Environment variables with which Python imports this tree's package, not the installed one; run it in `path`."""
        return {**os.environ, "PYTHONPATH": str(self.path)}

    def compile(self) -> None:
        """Compile the package as pip does when it installs it. Otherwise each process might compile it again."""
        compileall.compile_dir(self.path / "galaxy_trio", quiet=1)


WORKING_TREE: Final = Tree("working tree", Path(__file__).resolve().parents[2])


@contextmanager
def extracted(revision: str) -> Generator[Tree]:
    """The package as of a commit, in a temporary directory."""
    command = ["git", "archive", "--format=tar", revision, "galaxy_trio"]
    archived = subprocess.run(command, cwd=WORKING_TREE.path, check=True, stdout=subprocess.PIPE)
    with tempfile.TemporaryDirectory() as name:
        with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as archive:
            archive.extractall(name, filter="data")
        yield Tree(revision, Path(name))
