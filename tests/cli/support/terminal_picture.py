"""Creates the documentation's picture of a terminal: ``python -m tests.cli.support.terminal_picture docs/images/terminal.svg``."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

EXAMPLES: Final = Path(__file__).parents[3] / "docs" / "examples"
URL: Final = "ws://127.0.0.1:5000/ws"
WIDTH: Final = 100
COMMANDS: Final = (
    "galaxy-trio devices devices.toml --once",
    f'galaxy-trio run {URL} laptop \'greet {{"name": "Ada"}}\'',
    f'galaxy-trio run {URL} laptop \'open_window {{"title": "Paint"}}\'',
    f'galaxy-trio run {URL} laptop \'open_window {{"title": "Mail", "seconds": 60}}\' --timeout 1',
    f'galaxy-trio run {URL} toaster \'greet {{"name": "Ada"}}\'',
)


def start(stack: ExitStack, *arguments: str) -> None:
    """Run a command for the lifetime of the stack, and wait for its first line."""
    command = [sys.executable, "-m", "galaxy_trio", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=EXAMPLES)  # noqa: S603
    stack.enter_context(process)
    stack.callback(process.terminate)
    assert process.stdout is not None
    assert process.stdout.readline()


def main(picture: Path) -> None:
    """Run the commands and write their output as a picture."""
    environment = {**os.environ, "COLUMNS": str(WIDTH), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    console = Console(record=True, width=WIDTH, force_terminal=True, file=io.StringIO())
    with ExitStack() as stack:
        start(stack, "server")
        for device in ("laptop", "phone"):
            start(stack, "agent", URL, device, "--tools", "my_tools")
        for command in COMMANDS:
            # A table has colours on a terminal; a spinner disappears when its task has ended.
            colours = {"FORCE_COLOR": "1"} if " devices " in command else {}
            done = subprocess.run(  # noqa: S602  # a shell's line, as shown
                command,
                shell=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=EXAMPLES,
                env={**environment, **colours},
                check=False,
            )
            console.print(Text(f"$ {command}", style="bold"))
            console.print(Text.from_ansi(done.stdout.rstrip()))
    text = console.export_svg(title="galaxy-trio", theme=DIMMED_MONOKAI)
    # No fonts from other hosts.
    text = re.sub(r"@font-face \{.*?\}\s*", "", text, flags=re.DOTALL)
    picture.write_text(text.replace("Fira Code", "ui-monospace, DejaVu Sans Mono"), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
