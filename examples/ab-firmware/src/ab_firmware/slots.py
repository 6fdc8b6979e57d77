"""Two slots and a bootloader. THIS IS A FAKE, a folder of files: replace the class by one for your own bootloader.

What it must be able to do is little, and every bootloader for two slots can do it; README.md has the commands of some.

    a.img, b.img   the slots; yours are partitions
    env            what the bootloader goes by: {"active": "a", "trial": "b", "boots": 1}
    booted         which slot runs; yours is in /proc/cmdline
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ab_firmware import image, ledger
from ab_firmware.files import write_durably
from ab_firmware.machine import home

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK_BYTES = 64 * 1024


class Slots:
    """The slots of this device, and the commands of its bootloader."""

    def __init__(self) -> None:
        self._home = home()
        ledger.entry("begins")

    # --- what there is --------------------------------------------------------------------------------------------

    @property
    def size_bytes(self) -> int:
        """What fits into a slot."""
        return 64 * 1024 * 1024

    @property
    def booted(self) -> str:
        """The slot that runs."""
        return (self._home / "booted").read_text().strip()

    @property
    def active(self) -> str:
        """The slot that is confirmed: the bootloader boots it whenever there is none to be tried."""
        return str(self._env()["active"])

    @property
    def trial(self) -> str:
        """The slot that the bootloader is to try, "" if there is none."""
        return str(self._env()["trial"])

    @staticmethod
    def other(slot: str) -> str:
        """Return the slot beside `slot`."""
        return "b" if slot == "a" else "a"

    def version(self, slot: str) -> str:
        """Return the version of the firmware in a slot, "" if there is none."""
        try:
            return image.look_at(self._file(slot)).version
        except (OSError, ValueError):
            return ""

    def sha256(self, slot: str, size: int) -> str:
        """Return the digest of the first `size` bytes in a slot."""
        digest = hashlib.sha256()
        with self._file(slot).open("rb") as file:
            while size and (chunk := file.read(min(size, _CHUNK_BYTES))):
                digest.update(chunk)
                size -= len(chunk)
        return digest.hexdigest()

    # --- the commands ---------------------------------------------------------------------------------------------

    def write(self, slot: str, source: Path, progress: Callable[[float], None]) -> None:
        """Write an image into a slot; when this returns, it is on the flash.

        Args:
            slot: one that does not run, and that the bootloader is not told to try.
            source: the image.
            progress: is told the percentage that is written.
        """
        size, done = source.stat().st_size, 0
        with source.open("rb") as image_file, self._file(slot).open("wb") as file:
            while chunk := image_file.read(max(_CHUNK_BYTES, size // 4)):
                file.write(chunk)
                file.flush()
                done += len(chunk)
                progress(100 * done / size)
                ledger.entry(f"{slot}.img written as far as {done} of {size}")
            os.fsync(file.fileno())
        ledger.entry(f"{slot}.img synced")

    def try_next(self, slot: str, boots: int) -> None:
        """Have the bootloader try `slot` at the next boot, and at most `boots` times; the active slot stays active."""
        self._set({**self._env(), "trial": slot, "boots": boots})

    def keep(self, slot: str) -> None:
        """Confirm `slot`: it boots from now on, and no other one is tried."""
        self._set({"active": slot, "trial": "", "boots": 0})

    # --- as a folder ----------------------------------------------------------------------------------------------

    def _file(self, slot: str) -> Path:
        return self._home / f"{slot}.img"

    def _env(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._home / "env").read_bytes())
        return found

    def _set(self, env: dict[str, Any]) -> None:
        write_durably(self._home / "env", json.dumps(env).encode())
