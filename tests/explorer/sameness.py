"""When two worlds are the same: what follows from one then follows from the other."""

from __future__ import annotations

import hashlib
import re
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from tests.explorer.promises import AWAKE_FOR

from thingjobs.machine import effects as do
from thingjobs.machine.events import NotSaved, Resumed, Spawned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.explorer.device import Device
    from tests.explorer.promises import Seen
    from tests.explorer.world import World

    from thingjobs.machine.state import Job
    from thingjobs.model import Record

_TOKEN = re.compile(r"n\d+-\d+")
_OF_RECORD = attrgetter(
    *("phase", "claim", "version", "verb", "deaths", "reboots", "reboot_asked", "again", "applied", "cancelled"),
    *("ended", "result", "owed", "unanswered", "late", "note"),
)
_OF_JOB = attrgetter(
    *("tries", "minimal", "running", "stop_why", "gap", "probe", "gate", "gate_tries", "rebooted", "save_tries"),
)
_OF_SEEN = attrgetter(
    *("runs", "leaves", "cuts", "proved", "asked", "reboots", "over", "canceled", "timers", "fired", "known"),
)
#: What was written down before, by its id; kept with it, so that the id is given to nothing else.
_WRITTEN: dict[int, tuple[Any, str]] = {}
_MOST_WRITTEN = 50_000


def sameness(world: World) -> bytes:
    """Return what two worlds have in common that have the same future: all but tokens, pids and the hour."""
    text = repr(tuple(Sameness(world).parts()))
    names: dict[str, str] = {}
    text = _TOKEN.sub(lambda found: names.setdefault(found[0], str(len(names))), text)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def written(value: Any, of: Callable[[Any], Any] = lambda value: value) -> str:
    """Return `of(value)` as text: that of the same frozen value is worked out once."""
    known = _WRITTEN.get(id(value))
    if known is None:
        if len(_WRITTEN) >= _MOST_WRITTEN:
            _WRITTEN.clear()
        known = _WRITTEN[id(value)] = value, repr(of(value))
    return known[1]


def _record(record: Record) -> Any:
    return _OF_RECORD(record), sorted(record.attempts.items())


class Sameness:
    """Writes down a world with times and boots relative to the present ones."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = world.clock()

    def parts(self) -> Iterator[Any]:
        """Yield all that matters."""
        world, state = self.world, self.world.state
        yield [self.job(job) for job in state.jobs.values()]
        yield written(state.offer), state.look, state.silent, self.ago(state.connected_at)
        yield None if state.connected_at is not None else self.ago(state.lost_at)
        yield len(state.remembered), len(state.foreign), len(state.waiting_in_line)
        yield [self.record(record) for record in state.unsaved], self.timers(state.timers)
        yield [(known.tries, self.ago(known.since)) for known in state.deferrals.values()]
        yield [self.effect(effect) for effect in world.todo if not isinstance(effect, do.Note)]
        yield [[self.event(event) for event in events] for events in (world.soon, world.inbox, world.echo)]
        yield [
            (key, self.record(record)) for key, record in sorted(world.disk.items(), key=lambda held: held[0].job_id)
        ]
        yield [(key, self.record(record)) for key, record in world.unsynced.items()]
        yield [(key, self.record(record)) for key, record in world.waiting.items()]
        yield [(run.verb, run.attempt, run.going, run.killed, run.writes) for run in world.runs.values()]
        yield (
            sorted((str(run[0]), run[1], run[2], code) for run, code in world.exits.items()),
            self.device(world.device),
            self.device(world.synced),
        )
        yield [(key.job_id, self.seen(seen)) for key, seen in world.seen.items()]
        yield (
            self.ago(world.until),
            min(round(self.now - world.awake_since, 1), AWAKE_FOR),
            world.full,
            world.just_saved,
            world.reboot_for,
            world.connected,
        )
        for view in world.executions():
            yield view.key, view.status, view.version, sorted(view.details.items())
            yield self.ago(view.deadline), self.ago(view.step_deadline)

    def ago(self, at: float | None) -> float | None:
        """Return a time seen from now."""
        return None if at is None else round(at - self.now, 2)

    def since(self, boot: str) -> int | None:
        """Return how many boots ago that was."""
        return self.world.boot - int(boot[5:]) if boot else None

    def timers(self, timers: Any) -> list[tuple[str, float | None]]:
        """Return timers, the next one first."""
        return sorted((timer.value, self.ago(at)) for timer, at in timers.items())

    def device(self, device: Device) -> Any:
        """Return what is on the device."""
        return sorted(device.parts), device.slots, device.booted, device.good, device.trial, device.tries

    def seen(self, seen: Seen) -> Any:
        """Return what the judge remembers."""
        boot = self.world.boot
        return written(seen, _OF_SEEN), seen.first_boot and boot > seen.first_boot, seen.verified == boot

    def record(self, record: Record) -> Any:
        """Return what matters of a record."""
        made = self.since(record.process.boot) if record.process else None
        until = record.until and (self.ago(record.until.at), self.since(record.until.boot))
        return written(record, _record), made, until, self.since(record.boot)

    def job(self, job: Job) -> Any:
        """Return what matters of a job."""
        times = [self.ago(at) for at in (job.step_until, job.deadline, job.proof_after)]
        asked = job.open and (job.open.token, job.open.kind, job.open.minutes, self.ago(job.open.sent))
        withheld = [self.effect(effect) for effect in job.withheld]
        held = job.execution is None, asked, withheld, times, self.timers(job.timers)
        return job.identity, self.record(job.record), _OF_JOB(job), held

    def effect(self, effect: do.Effect) -> Any:
        """Return what matters of an effect."""
        match effect:
            case do.Save(record):
                return "save", self.record(record)
            case do.Run(record, verb, attempt):
                return "run", record.identity, verb, attempt
            case do.AskGates(record, before):
                return "gates", record.identity, before
            case _:
                return written(effect)

    def event(self, event: Any) -> Any:
        """Return what matters of an event."""
        match event:
            case Resumed(record, evidence):
                return self.record(record), evidence
            case NotSaved(record, _, withheld):
                return self.record(record), [self.effect(effect) for effect in withheld]
            case Spawned(identity, verb):
                return identity, verb
            case _:
                return written(event)
