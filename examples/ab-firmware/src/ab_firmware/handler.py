"""The handler ab-firmware: updates a device that has two slots for its firmware, and always a way back.

    {"handler": "ab-firmware", "params": {
        "version": "2.0", "board": "pump-2", "sha256": "…",
        "url": "${aws:iot:s3-presigned-url:https://s3.amazonaws.com/fleet-firmware/pump-2-2.0.img}"}}

The new firmware goes into the slot that does not run, which the bootloader then tries: it boots that slot as often as
it was told to, and after that the old one again, unless `commit` said that the new one is to stay. So whatever breaks,
and whenever the power goes, the device comes up with firmware that works.

To make it yours: `Slots` (slots.py) are the commands of your bootloader, `Machine` (machine.py) is what your device
knows of itself, and image.py is how your images look. What is in this file may stay as it is.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

from thingjobs.handler import REBOOT, Context, Failed, Outcome, Reject, Retry

from ab_firmware import image
from ab_firmware.files import write_durably
from ab_firmware.machine import Machine
from ab_firmware.slots import Slots

if TYPE_CHECKING:
    from pathlib import Path

#: An update takes this much of the battery, in the worst case twice: there, and back again.
ENOUGH_PERCENT = 30
VERSION = {"pattern": "^[0-9A-Za-z][0-9A-Za-z._+-]{0,63}$"}


@dataclass(frozen=True)
class Params:
    """What a job says. The schema that is made of this refuses the rest before anything starts."""

    version: Annotated[str, "of the firmware that is wanted", VERSION]
    board: Annotated[str, "which the image is for", {"minLength": 1}]
    url: Annotated[str, "where the image is, presigned", {"minLength": 8}]
    sha256: Annotated[str, "of the image", {"pattern": "^[0-9a-f]{64}$"}]
    trial_boots: Annotated[int, "boots after which the bootloader gives up", {"minimum": 1, "maximum": 10}] = 1


@dataclass(frozen=True)
class Plan:
    """What `apply` is about to do, kept in the job's folder: later verbs, and later boots, go by it.

    Attributes:
        before: the slot that ran, and that runs again if the new firmware will not do.
        target: the slot that the new firmware goes into.
    """

    before: str
    target: str


class AbFirmware:
    """Writes the slot that does not run, has it tried, and keeps it or goes back."""

    version = "1.0"
    description = "updates the firmware of a device with two slots"
    timeouts = {"prepare": 7200, "apply": 1800, "verify": 300}
    #: The slot that does not run may be written as often as one likes.
    apply_rerun = True
    #: The new firmware brings a handler of its own, and that one goes on where the old one stopped.
    resumes_across_versions = True

    def check(self, ctx: Context, params: Params) -> Outcome:
        """Say whether the update is wanted, and whether now is a good time. Changes nothing."""
        slots, machine = Slots(), Machine()
        if params.board != machine.board:
            raise Reject(f"the image is for the board {params.board}, and this is a {machine.board}")
        if slots.booted != slots.active:
            plan = _planned(ctx)
            if plan is not None and plan.target == slots.booted:
                return Outcome.ALREADY  # A power cut took the end of our `apply`: `verify` says what it is worth.
            raise Retry(f"slot {slots.booted} is on trial; what runs must be confirmed first", after=60)
        if slots.version(slots.booted) == params.version:
            return Outcome.ALREADY
        if machine.battery_percent < ENOUGH_PERCENT:
            raise Retry(f"the battery has {machine.battery_percent} %, it takes {ENOUGH_PERCENT} to update", after=600)
        return Outcome.DONE

    def prepare(self, ctx: Context, params: Params) -> None:
        """Download the image; no slot is touched."""
        ctx.progress(0, "downloading the image")
        path = ctx.download(params.url, "image", digest=f"sha256:{params.sha256}", max_bytes=Slots().size_bytes)
        try:
            found = image.look_at(path)
        except ValueError as error:
            raise Reject(f"the file at params.url is no firmware: {error}") from None
        if (found.board, found.version) != (params.board, params.version):
            said = f"the job says {params.version} for {params.board}"
            raise Reject(f"the image is {found.version} for the board {found.board}, but {said}")

    def apply(self, ctx: Context, params: Params) -> Outcome:
        """Write the slot that does not run, and have it tried at the next boot. May be called again at any time."""
        slots = Slots()
        plan = Plan(before=slots.active, target=slots.other(slots.active))
        if slots.booted != plan.before:
            raise Failed(f"slot {slots.booted} is on trial; only what is confirmed may be relied upon for the way back")
        if slots.trial:  # Nothing half written must ever be tried.
            slots.keep(plan.before)
        write_durably(_plan_file(ctx), json.dumps(asdict(plan)).encode())
        ctx.details(slot=plan.target)
        ctx.progress(0, f"writing slot {plan.target}")
        slots.write(plan.target, ctx.dir / "image", lambda percent: ctx.progress(0.9 * percent))
        if slots.sha256(plan.target, (ctx.dir / "image").stat().st_size) != params.sha256:
            raise Failed(f"slot {plan.target} does not hold what was written into it: the flash may be failing")
        ctx.progress(95, f"slot {plan.target} is to be tried")
        slots.try_next(plan.target, params.trial_boots)
        return REBOOT

    def verify(self, ctx: Context, params: Params) -> None:
        """Say whether the new firmware is what runs, and whether it works. May be called in several boots."""
        slots, plan = Slots(), _planned(ctx)
        running = slots.version(slots.booted)
        if plan is None or slots.booted != plan.target or running != params.version:
            reason = f"firmware {params.version} did not come up: slot {slots.booted} runs, with {running}"
            raise Failed(reason, code="verify.failed")
        ctx.progress(50, f"{running} runs in slot {slots.booted}; looking at its health")
        if trouble := Machine().trouble(slots.booted):
            raise Failed(f"firmware {running} came up, but {trouble}", code="verify.failed")
        ctx.details(firmware=running)

    def commit(self, ctx: Context, params: Params) -> None:
        """Keep the new firmware: from now on it is what the bootloader boots."""
        plan = _planned(ctx)
        if plan is None:
            raise Failed("there is no plan in the folder of the job, so it is not known which slot to keep")
        slots = Slots()
        if slots.booted != plan.target:
            raise Failed(f"slot {slots.booted} runs; only a slot that runs may be kept, not {plan.target}")
        slots.keep(plan.target)

    def rollback(self, ctx: Context, params: Params) -> Outcome | None:
        """Go back to the firmware that ran before. May be called twice, and after an `apply` that hardly began."""
        slots, plan = Slots(), _planned(ctx)
        if plan is None:
            return None
        if slots.active != plan.before or slots.trial:
            slots.keep(plan.before)
        if slots.booted != plan.before:
            ctx.progress(50, f"going back to slot {plan.before}")
            return Outcome.REBOOT_AND_AGAIN
        ctx.details(slot=plan.before, firmware=slots.version(plan.before))
        return None


def _plan_file(ctx: Context) -> Path:
    return ctx.dir / "plan.json"


def _planned(ctx: Context) -> Plan | None:
    """Return what `apply` of this job is about, None if it did not begin."""
    try:
        return Plan(**json.loads(_plan_file(ctx).read_bytes()))
    except FileNotFoundError:
        return None
