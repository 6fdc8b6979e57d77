"""A look at the device for its shadow: certificate, clock, disk, handlers. It takes its time: no loop waits for it."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

from thingjobs import clock
from thingjobs.certificate import dates_of
from thingjobs.seeing.shadow import Device

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from thingjobs.registry import Listed


def look(folder: Path, certificate: Path | None, handlers: Callable[[], tuple[Listed, ...]]) -> Device:
    """Return what there is to see; what cannot be seen is left out, others say why.

    Args:
        folder: the state folder.
        certificate: the device certificate, None if it shows none.
        handlers: lists all handlers; may ask children.
    """
    free = total = None
    with contextlib.suppress(OSError):
        disk = shutil.disk_usage(folder)
        free, total = disk.free, disk.total
    listed = handlers()
    return Device(
        handlers=[(one.name, one.handler.version) for one in listed if one.handler and not one.reason],
        broken=[one.name for one in listed if one.reason],
        expires=expiry(certificate),
        synchronised=clock.synchronised(),
        free=free / total if free is not None and total else None,
        free_bytes=free,
    )


def expiry(certificate: Path | None) -> float | None:
    """Return the end of a certificate, seconds since the epoch; None if there is none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        if certificate is not None:
            return dates_of(certificate.read_bytes())[1].timestamp()
    return None
