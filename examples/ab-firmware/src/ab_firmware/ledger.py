"""Where a test may cut the power: each step that changes something is written down here. Delete it with the fakes.

Where the operator names a folder in AB_LEDGER, each entry is a line of `ledger` in it; and if `cut-at` holds its
number, the handler stops right there, until somebody opens the pipe `hold`. Without AB_LEDGER it does nothing.
"""

from __future__ import annotations

import os
from pathlib import Path


def entry(what: str) -> None:
    """Write down that a step was done, and wait if the test wants that."""
    folder = os.environ.get("AB_LEDGER")
    if not folder:
        return
    path = Path(folder)
    with (path / "ledger").open("a") as file:
        file.write(f"{os.environ['JOB_VERB']}: {what}\n")
    number = len((path / "ledger").read_text().splitlines())
    if (path / "cut-at").exists() and (path / "cut-at").read_text() == str(number):
        (path / "hold").open().close()
