"""How far a job with steps came, in files of its folder."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from thingjobs.handler import Failed
from thingjobs.model import Code

if TYPE_CHECKING:
    from pathlib import Path


class Marks:
    """Two marks: where to go on after a reboot, which counts, and the last step done, for people only."""

    def __init__(self, folder: Path) -> None:
        self._reboot = folder / "after-reboot"
        self._done = folder / "last-step-done"

    def after_reboot(self) -> int | None:
        """Return the index of the step that follows the reboot asked for; None: none was.

        Raises:
            Failed: the mark cannot be read.
        """
        try:
            return int(self._reboot.read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        except ValueError:
            raise Failed(
                f"cannot tell which step follows the reboot: {self._reboot} is damaged", code=Code.INTERRUPTED
            ) from None

    def store_reboot(self, following: int) -> None:
        """Note which step follows the reboot, so that it survives a power cut at once.

        Raises:
            Failed: it cannot be written; without it there must be no reboot.
        """
        try:
            replace_file(self._reboot, str(following), durable=True)
        except OSError as error:
            raise Failed(
                f"not rebooting: cannot write {self._reboot}, which tells where to go on: {error.strerror}",
                code=Code.REBOOT_FAILED,
            ) from error

    def forget_reboot(self) -> None:
        """Drop the mark: its reboot happened, and the steps after it are about to begin."""
        self._reboot.unlink(missing_ok=True)

    def store_done(self, index: int) -> None:
        """Note the last step that ended well or was ignored; not worth a wait for the disk."""
        with suppress(OSError):
            replace_file(self._done, str(index + 1), durable=False)


def replace_file(path: Path, text: str, *, durable: bool) -> None:
    """Put a text of ASCII into a file, all of it or nothing; `durable`: a power cut leaves it there.

    Raises:
        OSError: it cannot be written.
    """
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("w", encoding="ascii") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    fresh.replace(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
