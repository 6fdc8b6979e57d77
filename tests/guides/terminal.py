"""A shell that is told one block of a document after the other, as somebody would paste them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: No command of a document takes as long; only a failure does.
PATIENCE_SECONDS = 240


class Terminal:
    """One shell. What a block sets, defines, or changes to stays for the next."""

    def __init__(self, scratch: Path, folder: Path, environment: Mapping[str, str]) -> None:
        """Start it.

        Args:
            scratch: a folder for its own files.
            folder: where it starts.
            environment: all of it.
        """
        scratch.mkdir()
        self._block = scratch / "block"
        self._told = 0
        self._shell = subprocess.Popen(
            ["/bin/sh"],
            cwd=folder,
            env={**environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, text: str) -> str:
        """Run lines, the first that fails being the last; return what they printed.

        Raises:
            AssertionError: one failed, or they do not end.
        """
        printed, done = self._run(f"set -ex\n{text}\n{{ set +ex; }} 2>/dev/null\n")
        assert done, printed
        return printed

    def ask(self, text: str) -> str:
        """Run a command, which may fail; return what it printed."""
        return self._run(f"{text}\n")[0]

    def start(self, text: str) -> None:
        """Run lines and do not wait for their end."""
        self._block.write_text(f"set -e\n{text}", encoding="utf-8")
        self._type(f". {self._block} </dev/null")

    def end(self) -> None:
        """End it as a closed window does, and what runs in it; which has a while to go in peace."""
        if self._shell.poll() is None:
            os.killpg(self._shell.pid, signal.SIGTERM)
        self._shell.communicate(timeout=PATIENCE_SECONDS)

    def _run(self, text: str) -> tuple[str, bool]:
        """Return what was printed, and whether the shell is still there."""
        self._told += 1
        mark = f"\n~~~ {self._told} ~~~\n"
        self._block.write_text(text, encoding="utf-8")
        self._type(f". {self._block} </dev/null; printf '\\n~~~ %s ~~~\\n' {self._told}")
        printed = self._read(mark)
        return printed.removesuffix(mark), printed.endswith(mark)

    def _type(self, line: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{line}\n".encode())
        self._shell.stdin.flush()

    def _read(self, mark: str) -> str:
        assert self._shell.stdout is not None
        number, data, until = self._shell.stdout.fileno(), b"", time.monotonic() + PATIENCE_SECONDS
        while not data.endswith(mark.encode()):
            left = until - time.monotonic()
            assert left > 0, f"it does not end: {data.decode()}"
            if select.select([number], [], [], left)[0]:
                if not (new := os.read(number, 65536)):
                    break
                data += new
        return data.decode()
