"""The test kit for handlers: runs one through any verbs, with what can go wrong on the way, and no cloud.

    from thingjobs.testing import crash

    def test_a_power_cut_during_apply_is_rolled_back(thingjobs):
        job = thingjobs.run(Slots, {"image": "b"}, faults=[crash("apply", event=2)])

        assert job.verbs == ["prepare", "apply", "rollback"]
        assert job.code == "interrupted"

The fixture `thingjobs` is a `Kit`. It comes with the package: pytest finds it by itself. When a test fails, its report
shows the timeline of every job.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from thingjobs.machine.effects import Run
from thingjobs.machine.state import NO_PLAN
from thingjobs.model import Identity, Phase, Record, Verb
from thingjobs.testing.kit.cloud import JOB
from thingjobs.testing.kit.device import Device, Scene
from thingjobs.testing.kit.running import Running, job_of
from thingjobs.testing.kit.subject import subject_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from thingjobs.runner.events import Said
    from thingjobs.testing.kit.access import CloudAccess
    from thingjobs.testing.kit.faults import AnyFault, VerbName
    from thingjobs.testing.kit.outcome import Call, JobRun, Json
    from thingjobs.testing.kit.subject import HandlerUnderTest


class Kit:
    """Runs handlers; the fixture `thingjobs` is one.

    A handler is a class, which runs in the process of the test within milliseconds; `"MODULE:CLASS"` of an installed
    package, which runs in a child as on a device; a program; or a folder with manifest.json.

    Args:
        folder: where jobs have their folders.

    Attributes:
        dir: the folder of the job that `call` works on, as `ctx.dir`; kept from call to call.
        environment: what handlers find in their environment, as [handlers.environment] of the configuration gives it.
        runs: the jobs run so far.
        calls: the single calls made so far.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.dir = folder / "call" / "work"
        self.environment: dict[str, str] = {}
        self.runs: list[JobRun] = []
        self.calls: list[Call] = []

    def run(
        self,
        handler: HandlerUnderTest,
        params: Json | None = None,
        *,
        faults: Sequence[AnyFault] = (),
        gates: Iterable[str] = (),
        refreshed: Json | None = None,
        mode: Literal["run", "check"] = "run",
        cloud: CloudAccess | None = None,
    ) -> JobRun:
        """Take a job through its handler, from the offer to the last update, and return what became of it.

        The decisions are the agent's own. Time is not: what waits an hour takes no time at all. A job that is put off
        again and again stays QUEUED after ten looks, unless its handler declares `max_defer`.

        Args:
            handler: what is tested.
            params: of the job document.
            faults: what goes wrong on the way: see `crash`, `restart`, `cancel`, `timeout`, `stall`, `offline`,
                `lost_reply`, `refused`.
            gates: what the gates of the device say, one answer each time they are asked (before the claim, before
                `apply`, before a reboot): "" is open, else the reason why they are closed; open when none are left.
            refreshed: the params once the handler asked for them anew, as with fresh presigned URLs.
            mode: "check": the document only asks what would happen, `job.would` says it.
            cloud: what a handler that needs the cloud reaches; None: it is told that there is none.

        Raises:
            ValueError: that is no handler; the message says why.
            ControlPlaneError: no job document can hold those params.
            NeverHappenedError: a fault was asked for at a moment that did not come, so nothing was tested.
        """
        __tracebackhide__ = True
        subject = subject_of(handler, self.environment)
        answers = (gates,) if isinstance(gates, str) else gates
        scene = Scene(dict(params or {}), tuple(faults), answers, refreshed, mode == "check", cloud)
        device = Device(subject, scene, self._folder / f"job-{len(self.runs) + 1}")
        try:
            device.run()
        finally:
            self.runs.append(device.outcome())
        return self.runs[-1]

    def call(
        self,
        handler: HandlerUnderTest,
        verb: VerbName,
        params: Json | None = None,
        *,
        attempt: int = 1,
        rebooted: bool = False,
        dry_run: bool = False,
        cloud: CloudAccess | None = None,
    ) -> Call:
        """Call one verb once, without a job around it; `dir` is kept, so that `apply` finds what `prepare` left.

        Args:
            handler: what is tested.
            verb: what is asked of it.
            params: of the job.
            attempt: which run of the verb it is; from the second on, `resumed` is true.
            rebooted: the machine rebooted since the run before.
            dry_run: as `thingjobs dry-run` asks: only find out.
            cloud: what a handler that needs the cloud reaches; None: it is told that there is none.

        Raises:
            ValueError: that is no handler, or not one of that verb.
        """
        __tracebackhide__ = True
        subject = subject_of(handler, self.environment)
        if verb not in subject.manifest.verbs:
            raise ValueError(f"{subject.name} declares no {verb}; the agent would never call it")
        record = _record(dict(params or {}), subject.manifest.needs)
        run = Run(record, Verb(verb), attempt, attempt > 1, rebooted, dry_run)
        deadline = time.time() + subject.manifest.limits.of(run.verb)
        running = Running(run, self.dir.parent, job_of(run, deadline, cloud), Alone(cloud))
        call = running.call(subject.run(running))
        self.calls.append(call)
        return call


class Alone:
    """Around a single call nothing happens, but for the cloud: that is for whoever asks."""

    def __init__(self, cloud: CloudAccess | None) -> None:
        self._cloud = cloud

    def heard(self, running: Running, event: Json, said: Said) -> None:  # noqa: ARG002 - as a device's
        """Answer what can be answered."""
        if said.cloud is not None:
            running.give_cloud(self._cloud)

    def hangs(self, running: Running) -> None:
        """Take no notice."""


def _record(params: Json, needs: frozenset[str]) -> Record:
    plan = replace(NO_PLAN, params=params, needs=needs)
    return Record(Identity(JOB, 1, 0), Phase.APPLYING, "", 1, plan, {})
