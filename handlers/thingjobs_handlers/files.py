"""Files that a handler writes: durably, and with a sentence where the disk will not have them."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from thingjobs.handler import Failed
from thingjobs.model import Code

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def told() -> Iterator[None]:
    """Turn what the disk says into a sentence.

    Raises:
        Failed: the disk said it.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = f"{error.filename or 'cannot write'}: {error.strerror}"
        raise Failed(reason, code=Code.FETCH_SPACE if full else "") from error


def write_durably(path: Path, text: str) -> None:
    """Replace a file: when this returns, no power cut can take it back.

    Raises:
        OSError: it cannot be written.
    """
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
