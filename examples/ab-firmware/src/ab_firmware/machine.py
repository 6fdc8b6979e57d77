"""What the device knows of itself. THIS IS A FAKE, a folder of files: replace it by what your device has to say."""

from __future__ import annotations

import os
from pathlib import Path

from ab_firmware import image


def home() -> Path:
    """Return the folder that stands for the device; the operator says where ([handlers.environment]), never a job."""
    return Path(os.environ.get("AB_DEVICE", "/var/lib/ab-firmware"))


class Machine:
    """The device around the slots."""

    def __init__(self) -> None:
        self._home = home()

    @property
    def board(self) -> str:
        """The kind of board, which an image is made for."""
        return (self._home / "board").read_text().strip()

    @property
    def battery_percent(self) -> int:
        """What is left of the battery."""
        return int((self._home / "battery").read_text())

    def trouble(self, slot: str) -> str:
        """Return what does not work with the firmware in `slot`, which runs; "" if all is well.

        Yours asks what your customers would miss first: do the services run, does the pump answer? That the device
        reaches AWS IoT is not among it: the agent sees to that, between `verify` and `commit`.
        """
        return "" if image.look_at(self._home / f"{slot}.img").healthy else "the pump controller does not answer"
