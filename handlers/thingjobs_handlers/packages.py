"""Installing and removing packages with the package manager that the device has."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from thingjobs_handlers.processes import CannotStartError, Program

if TYPE_CHECKING:
    from collections.abc import Sequence

_MANAGERS = ("apt-get", "dnf", "yum", "apk")


def programs(verb: str, names: Sequence[str], user: str | None) -> tuple[Program, ...]:
    """Return what installs or removes packages.

    Args:
        verb: `install` or `remove`.
        names: the packages, each already known to be only a name.
        user: the account to run it as; None: our own.

    Raises:
        CannotStartError: no package manager is on PATH.
    """
    for manager in _MANAGERS:
        path = shutil.which(manager)
        if path is not None:
            return (Program((*_before(manager, path, verb), "--", *names), user),)
    raise CannotStartError(f"there is no package manager on this device: none of {', '.join(_MANAGERS)} is on PATH")


def _before(manager: str, path: str, verb: str) -> tuple[str, ...]:
    match manager:
        case "apt-get":
            # Through env, because sudo would not pass the variable on.
            return ("env", "DEBIAN_FRONTEND=noninteractive", path, "-y", verb)
        case "apk":
            return (path, "add" if verb == "install" else "del")
        case _:
            return (path, "-y", verb)
