"""One run of a verb while it is under way: what the handler reads, and what it has said so far."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from thingjobs.runner import exits
from thingjobs.runner.events import Said, fold
from thingjobs.runner.given import CLOUD, anew, answered, cloud, job_json
from thingjobs.testing.kit.access import answer_of, told_of
from thingjobs.testing.kit.outcome import Call

if TYPE_CHECKING:
    from pathlib import Path

    from thingjobs.machine.effects import Run
    from thingjobs.machine.events import Ending
    from thingjobs.testing.kit.access import CloudAccess
    from thingjobs.testing.kit.outcome import Json

THING = "thing"
#: An event with none of these is about the end of the verb, or a wish: nobody counts it.
COUNTED = frozenset({"progress", "message", "details"})


class Ended(BaseException):
    """The process is gone, in the midst of what it did; no handler may catch this."""


class PowerCut(Ended):
    """The machine is off."""


class AgentEnded(Ended):
    """The agent is gone, and the machine stays up."""


class Surroundings(Protocol):
    """Who hears what a verb says, and does it harm."""

    def heard(self, running: Running, event: Json, said: Said) -> None:
        """Take one event; `said` is that event as the agent understands it.

        Raises:
            Ended: the process does not live any longer.
        """

    def hangs(self, running: Running) -> None:
        """Take note that a program shows no event: what was to happen at its end may happen now."""


def job_of(run: Run, deadline: float, access: CloudAccess | None = None) -> Json:
    """Return job.json for a run, as the handler will read it."""
    told: Json = {"downloads": {}, "settings": {}}
    if CLOUD in run.record.plan.needs:
        told[CLOUD] = cloud(told_of(access))
    job = job_json(run, thing=THING, deadline=deadline, told=told)
    read: Json = json.loads(json.dumps(job))
    return read


class Running:
    """One run of a verb.

    Attributes:
        run: what the agent asked for.
        folder: the execution's folder; the handler's own is `work` in it.
        counted: its events so far, those about its end left out.
        told: it was told to stop, SIGTERM.
        looked: it knows that it was told to stop.
        dead: what ended it without a word, the power or the agent; None: it lives, or ended by itself.
    """

    def __init__(self, run: Run, folder: Path, job: Json, surroundings: Surroundings) -> None:
        self.run = run
        self.folder = folder
        self.job = job
        self.counted = 0
        self.told = self.looked = False
        self.dead: Ended | None = None
        self._around = surroundings
        self._said = Said()
        self._events: list[Json] = []
        self._output: list[str] = []
        self._errors: list[str] = []

    @property
    def work(self) -> Path:
        """The handler's folder."""
        return self.folder / "work"

    def put_job(self) -> None:
        """Write job.json as the agent does: another file in its place, never a half."""
        self.work.mkdir(parents=True, exist_ok=True)
        new = self.work / ".job.json.new"
        new.touch(mode=0o600)
        new.write_text(json.dumps(self.job, ensure_ascii=False, indent=1), encoding="utf-8", errors="backslashreplace")
        new.replace(self.work / "job.json")

    def refresh(self, params: Json) -> None:
        """Give the handler parameters that came anew."""
        self.job = anew(self.job, params)
        self.put_job()

    def give_cloud(self, access: CloudAccess | None) -> None:
        """Give the handler credentials, or say that the test has none."""
        if CLOUD in self.job:
            self.job = answered(self.job, answer_of(access))
            self.put_job()

    # --- what it says ---------------------------------------------------------------------------------------------

    def event(self, line: bytes) -> None:
        """Take one line of $JOB_EVENTS.

        Raises:
            Ended: the process does not live any longer.
        """
        if self.dead is not None:
            raise self.dead
        said = fold(Said(), line)
        self._said = fold(self._said, line)
        if said.broken:
            return
        event: Json = json.loads(line)
        self._events.append(event)
        if self.counts(event):
            if self.told and not self.looked:
                raise Ended
            self.counted += 1
        self._around.heard(self, event, said)

    @staticmethod
    def counts(event: Json) -> bool:
        """Return whether an event is one of those that tests count."""
        return not COUNTED.isdisjoint(event)

    def write(self, text: str, *, error: bool = False) -> None:
        """Take output."""
        self._output.append(text)
        if error:
            self._errors.append(text)

    def hangs(self) -> None:
        """Take note that nothing came for a while."""
        self._around.hangs(self)

    # --- its end --------------------------------------------------------------------------------------------------

    def ending(self, status: int) -> Ending:
        """Return its end as the agent tells it; `status` is a shell's: 128 + N for signal N."""
        return exits.ending(status, self._said, self._reason(status))

    def call(self, status: int | None) -> Call:
        """Return what came of it, for tests; `status` is None if it was never kept."""
        said = self._said
        end = exits.ending(status, said, said.reason)
        made = Call(
            verb=self.run.verb.value,
            attempt=self.run.attempt,
            exit=end.code,
            signal=end.signal,
            interrupted=status is None,
            reason=said.reason,
            code=said.code,
            reject=said.reject,
            after=said.after,
            details=dict(said.details),
            events=tuple(self._events),
            log="".join(self._output),
            broken=said.broken,
        )
        return made if made.succeeded or made.interrupted else replace(made, reason=self._reason(status))

    def _reason(self, status: int | None) -> str:
        lines = "".join(self._errors).strip().splitlines()
        return exits.reason(self.run.verb, status, self._said, lines[-1].strip() if lines else "")
