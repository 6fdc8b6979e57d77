"""A modelled device and the handlers that change it. Values and pure functions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from thingjobs.model import Plan, Verb


@dataclass(frozen=True)
class Device:
    """What handlers write to: a set of files, and two slots with the bootloader that chooses between them.

    Attributes:
        parts: what was written of the payloads of plain jobs.
        slots: what the two slots hold: the job whose image it is, "" when it is torn.
        booted: the slot that runs.
        good: the slot that the bootloader falls back to; `commit` moves it.
        trial: the other slot, while the bootloader is to try it.
        tries: how often it still will.
    """

    parts: frozenset[str] = frozenset()
    slots: tuple[str, str] = ("old", "old")
    booted: int = 0
    good: int = 0
    trial: bool = False
    tries: int = 0

    def start(self) -> Device:
        """Boot: the slot on trial as long as it has tries and is whole, else the good one."""
        other = 1 - self.good
        if self.trial and self.tries and self.slots[other]:
            return replace(self, booted=other, tries=self.tries - 1)
        return replace(self, booted=self.good, trial=False, tries=0)

    def flash(self, image: str) -> Device:
        """Write to the slot that does not run."""
        slots = (self.slots[0], image) if self.booted == 0 else (image, self.slots[1])
        return replace(self, slots=slots)


@dataclass(frozen=True)
class Kind:
    """A handler: what it declares, and how it behaves.

    Attributes:
        declares: more of its plan.
        firmware: it writes an image to the other slot; else it writes two files.
        tries: how often the bootloader tries the other slot.
        again: the exit status with which `apply` asks for its second run; 0: it needs one only.
        ends: verbs that always end with this exit status.
    """

    verbs: frozenset[Verb] = frozenset({Verb.APPLY})
    declares: tuple[tuple[str, Any], ...] = ()
    firmware: bool = False
    tries: int = 1
    again: int = 0
    ends: tuple[tuple[Verb, int], ...] = ()

    @property
    def plan(self) -> Plan:
        """What the document is judged to be."""
        return Plan(handler="h", argv=("h",), verbs=self.verbs, **dict(self.declares))

    @property
    def may_rerun(self) -> bool:
        """Whether an interrupted `apply` may run again."""
        return ("apply_rerun", True) in self.declares

    def writes(self, verb: Verb, device: Device) -> tuple[str, ...]:
        """Return what `verb` is going to write, one word a write."""
        if self.firmware:
            return {Verb.APPLY: ("torn", "image", "trial"), Verb.COMMIT: ("good",), Verb.ROLLBACK: ("back",)}.get(
                verb, ()
            )
        if verb is Verb.APPLY and self.again:
            return ("second",) if device.parts else ("first",)
        return {Verb.APPLY: ("first", "second"), Verb.ROLLBACK: ("no second", "no first")}.get(verb, ())

    def write(self, device: Device, job: str, word: str) -> Device:
        """Return the device after one write."""
        if word in ("torn", "image"):
            return device.flash(job if word == "image" else "")
        if word == "trial":
            return replace(device, trial=True, tries=self.tries)
        if word in ("good", "back"):
            good = device.booted if word == "good" else device.slots.index("old")
            return replace(device, good=good, trial=False, tries=0)
        parts = device.parts - {f"{job} {word[3:]}"} if word.startswith("no ") else device.parts | {f"{job} {word}"}
        return replace(device, parts=parts)

    def exit_of(self, verb: Verb, device: Device, job: str) -> int:
        """Return the exit status of a verb that wrote all it has to."""
        if (always := dict(self.ends).get(verb)) is not None:
            return always
        if self.firmware:
            on_trial = device.booted != device.good
            firm = {Verb.CHECK: 10 if self.whole(device, job) else 0, Verb.APPLY: 195, Verb.ROLLBACK: 195 * on_trial}
            return firm.get(verb, 1 if verb is Verb.VERIFY and device.slots[device.booted] != job else 0)
        whole = self.whole(device, job)
        plain = {Verb.CHECK: 10 * whole, Verb.APPLY: 0 if whole else self.again, Verb.VERIFY: 1 - whole}
        return plain.get(verb, 0)

    def whole(self, device: Device, job: str) -> bool:
        """Whether what the job wants is on the device, for good."""
        if self.firmware:
            return device.booted == device.good and device.slots[device.good] == job
        return {f"{job} first", f"{job} second"} <= device.parts

    def untouched(self, device: Device, job: str) -> bool:
        """Whether the device is as it was before the job."""
        if self.firmware:
            return device.booted == device.good and device.slots[device.good] == "old"
        return not {f"{job} first", f"{job} second"} & device.parts
