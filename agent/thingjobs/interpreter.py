"""How another Python is started that finds the same thingjobs as this one; used by the agent and by what it starts.

Installed by pip, an isolated interpreter finds it by itself. A system package keeps it in a tree of its own, so that
its libraries are in nobody's way: there the module `thingjobs_tree` was imported by the launcher, and says where.
"""

from __future__ import annotations

import os
import sys

#: Stands beside the package `thingjobs` in such a tree; importing it completes `sys.path`.
TREE = "thingjobs_tree"


def isolated(code: str) -> tuple[str, ...]:
    """Return the argv that runs `code` in an interpreter which neither the environment nor the folder can mislead."""
    return (sys.executable, "-I", "-c", f"{_entrance()}{code}")


def _entrance() -> str:
    file = getattr(sys.modules.get(TREE), "__file__", None)
    if file is None:
        return ""
    tree = os.path.dirname(file)  # noqa: PTH120 - each verb pays for what is imported here, see thingjobs.child
    return f"import sys; sys.path.insert(0, {tree!r}); import {TREE}; "
