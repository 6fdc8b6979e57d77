"""Starting, stopping and restarting services with the service manager that the device has."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from thingjobs_handlers.processes import CannotStartError, Program

if TYPE_CHECKING:
    from collections.abc import Sequence

_MANAGERS = ("systemctl", "rc-service", "service")


def programs(verb: str, names: Sequence[str], user: str | None) -> tuple[Program, ...]:
    """Return what starts, stops or restarts services, in order.

    Args:
        verb: `start`, `stop` or `restart`.
        names: the services, each already known to be only a name.
        user: the account to run it as; None: our own.

    Raises:
        CannotStartError: no service manager is on PATH.
    """
    for manager in _MANAGERS:
        path = shutil.which(manager)
        if path is not None:
            return tuple(Program(argv, user) for argv in _argvs(manager, path, verb, names))
    raise CannotStartError(f"there is no service manager on this device: none of {', '.join(_MANAGERS)} is on PATH")


def _argvs(manager: str, path: str, verb: str, names: Sequence[str]) -> list[tuple[str, ...]]:
    match manager:
        case "systemctl":
            return [(path, verb, "--", *names)]
        case "rc-service":
            return [(path, "--", name, verb) for name in names]
        case _:
            # The script `service` would take -- for the name of a service.
            return [(path, name, verb) for name in names]
