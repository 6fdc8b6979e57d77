"""A journal cut at every byte, and with every byte flipped: what was written is found, or it is known to be lost.

Every phase in which an execution can stand on the disk, with and without the generation before it. What is found is
then given to the core: `apply` does not run a second time unless its handler gave leave.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import records
from thingjobs.beginning import Beginning
from thingjobs.generations import Found, Loaded
from thingjobs.journal import Journal
from thingjobs.machine import Now, State, step
from thingjobs.machine.effects import AskGates, Effect, Run, Send
from thingjobs.machine.events import Ending, Event, Evidence, Finished, Gated, Resumed, Spawned
from thingjobs.model import Code, Identity, JobId, Phase, Plan, Process, Record, Result, Status, Verb
from thingjobs.policy import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = Now(clock=1000.0, boot="this-boot", wall=1_790_000_000.0)
SHIM = Process(4711, 99, NOW.boot)
FAILED = Result(Status.FAILED, Code.VERIFY_FAILED, "verify exited with status 1")

CLAIMING = Record(
    Identity(JobId("fw-1"), 1, 1_790_000_000),
    Phase.CLAIMING,
    "c0ffee",
    1,
    Plan("firmware", ("/h/firmware",), verbs=frozenset(Verb), params={"slot": "b"}),
    {"handler": "firmware", "params": {"slot": "b"}},
)
KEY = CLAIMING.identity.key


def running(before: Record, phase: Phase, verb: Verb) -> Record:
    """Return the record that is written when the process of a verb exists."""
    attempts = {**before.attempts, verb: 1}
    applied = before.applied or verb is Verb.APPLY
    return replace(before, phase=phase, verb=verb, process=SHIM, attempts=attempts, applied=applied)


PREPARING = running(CLAIMING, Phase.PREPARING, Verb.PREPARE)
APPLYING = running(PREPARING, Phase.APPLYING, Verb.APPLY)
CANCELLED = replace(APPLYING, cancelled=True)
REBOOTING = replace(
    APPLYING, phase=Phase.REBOOTING, verb=None, process=None, again=Verb.VERIFY, boot="earlier-boot", reboots=1
)
VERIFYING = running(REBOOTING, Phase.VERIFYING, Verb.VERIFY)
COMMITTING = running(replace(VERIFYING, boot=NOW.boot), Phase.COMMITTING, Verb.COMMIT)
ROLLING_BACK = running(replace(VERIFYING, result=FAILED), Phase.ROLLING_BACK, Verb.ROLLBACK)
REPORTING = replace(
    COMMITTING, phase=Phase.REPORTING, verb=None, process=None, result=Result(Status.SUCCEEDED), owed=True
)
UNANSWERED = replace(REPORTING, unanswered=True)
DONE = replace(REPORTING, phase=Phase.DONE, document={}, owed=False, finished_at=5.0)
#: Each generation with the one before it.
GENERATIONS = {
    "claiming": (None, CLAIMING),
    "preparing": (CLAIMING, PREPARING),
    "applying": (PREPARING, APPLYING),
    "applying at once": (CLAIMING, running(CLAIMING, Phase.APPLYING, Verb.APPLY)),
    "cancelled": (APPLYING, CANCELLED),
    "rebooting": (APPLYING, REBOOTING),
    "verifying": (REBOOTING, VERIFYING),
    "committing": (VERIFYING, COMMITTING),
    "rolling back": (VERIFYING, ROLLING_BACK),
    "reporting": (COMMITTING, REPORTING),
    "reporting again": (REPORTING, UNANSWERED),
    "done": (None, DONE),
}
WITH_ONE_BEFORE = pytest.mark.parametrize("name", [name for name, (before, _) in GENERATIONS.items() if before])
#: The lowest bit makes another letter or digit of each, where most others make something that is no text; in a long
#: run each bit is flipped alone, and all together.
ALL = os.environ.get("THINGJOBS_KILLS") == "all"
MASKS = (*(1 << bit for bit in range(8)), 0xFF) if ALL else (1,)
USUAL = ("claiming", "applying", "rebooting", "verifying", "reporting", "done")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "state")
    opened.open()
    yield opened
    opened.close()


def damages(whole: bytes) -> Iterator[bytes]:
    """Cut it at every length, and flip every byte."""
    yield from (whole[:size] for size in range(len(whole)))
    for at, mask in itertools.product(range(len(whole)), MASKS):
        yield whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :]


def found_in(journal: Journal, files: dict[str, bytes]) -> tuple[dict[str, Loaded], Found]:
    """Write the files, and return what is found then: by its key, and all."""
    for name, data in files.items():
        path = journal.folder / "journal" / name
        path.unlink(missing_ok=True)  # A file that is written over is flushed by some file systems: that takes long.
        path.write_bytes(data)
    found = journal.load()
    return {one.record.identity.key: one for one in found.loaded}, found


@pytest.mark.timeout(1800 if ALL else 120)
@pytest.mark.parametrize("name", GENERATIONS if ALL else USUAL)
def test_a_damaged_generation_is_never_mistaken_for_another(journal: Journal, name: str) -> None:
    # One execution has a generation before the damaged one, and the other has not.
    previous, current = GENERATIONS[name]
    alone = replace(current, identity=replace(current.identity, job_id=JobId("alone")))
    if previous is not None:
        found_in(journal, {f"{KEY}.prev": records.dump(previous)})

    for one, other in zip(damages(records.dump(current)), damages(records.dump(alone)), strict=False):
        mine, found = found_in(
            journal, {f"{alone.identity.key}.json": other} | ({f"{KEY}.json": one} if previous is not None else {})
        )

        # The one is the generation before, and marked so.
        assert mine == ({} if previous is None else {KEY: Loaded(previous, previous=True)}), one
        # The other is put aside and named; an end that was not synced and was cut is no news to the service: removed.
        assert (*found.quarantined, *found.unsynced) == (alone.identity.key,), other
        assert found.newer == ()


@WITH_ONE_BEFORE
def test_a_damaged_generation_before_costs_nothing_while_the_current_one_is_whole(journal: Journal, name: str) -> None:
    previous, current = GENERATIONS[name]
    assert previous is not None
    whole = records.dump(previous)

    for before in itertools.islice(damages(whole), 0, None, 97):
        mine, found = found_in(journal, {f"{KEY}.json": records.dump(current), f"{KEY}.prev": before})

        assert (mine, found.quarantined) == ({KEY: Loaded(current)}, ())


@WITH_ONE_BEFORE
def test_when_both_are_damaged_that_execution_alone_is_put_aside(journal: Journal, name: str) -> None:
    previous, current = GENERATIONS[name]
    assert previous is not None
    other = replace(current, identity=replace(current.identity, job_id=JobId("other")))
    whole = {f"{other.identity.key}.json": records.dump(other)}
    some = [list(itertools.islice(damages(records.dump(one)), 1, None, 211)) for one in (current, previous)]

    for damaged, before in itertools.product(*some):
        mine, found = found_in(journal, {**whole, f"{KEY}.json": damaged, f"{KEY}.prev": before})

        assert (mine, found.quarantined, found.unsynced) == ({other.identity.key: Loaded(other)}, (KEY,), ())
        assert {path.name for path in (journal.folder / "quarantine").iterdir()} == {f"{KEY}.json", f"{KEY}.prev"}


# --- what the core does with it -----------------------------------------------------------------------------------


class Runner:
    """Knows of the verb in flight what it is told; nothing runs."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence

    def sweep(self, keep: set[str]) -> None:
        pass

    def end(self, identity: Identity) -> None:
        pass

    def adopt(self, record: Record) -> Evidence:
        return self._evidence if record.verb is not None else Evidence.NOT_STARTED


class Handlers:
    def prune(self, keep: set[str]) -> None:
        pass


@dataclass
class Core:
    """The core, without a connection; gates are open and verbs end at once, with what `codes` says.

    Attributes:
        ran: the verbs that were run.
        sent: how many requests were sent.
    """

    codes: dict[Verb, int]
    state: State = field(default_factory=lambda: State(settings=Settings(agent="thingjobs/test"), nonce="nonce"))
    ran: list[Verb] = field(default_factory=list)
    sent: int = 0

    def take(self, event: Event) -> None:
        self.state, effects = step(self.state, event, NOW)
        for effect in effects:
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case AskGates(record):
                self.take(Gated(record.identity))
            case Run(record, verb, attempt):
                self.ran.append(verb)
                self.take(Spawned(record.identity, verb, SHIM))
                self.take(Finished(record.identity, verb, attempt, Ending(self.codes.get(verb, 0))))
            case Send():
                self.sent += 1


def begun(journal: Journal, evidence: Evidence, codes: dict[Verb, int]) -> Core:
    """Return a core that went on with what the journal holds, as far as it can without a connection."""
    core = Core(codes)
    resumed: list[Resumed] = []
    beginning: Any = Beginning(journal, Runner(evidence), Handlers())  # type: ignore[arg-type]
    beginning.take_up(lambda *_: None, resumed.append)
    for event in resumed:
        if event.record.identity.key == KEY:
            core.take(event)
    return core


NEEDED, AS_WANTED = 0, 10
LEAVE = pytest.mark.parametrize("leave", [False, True], ids=["no leave", "leave"])
CHECKS = pytest.mark.parametrize("check", [None, NEEDED, AS_WANTED])


def damaged(journal: Journal, name: str, *, check: int | None, leave: bool) -> Record | None:
    """Save an execution whose current generation is then cut; return the one before it."""
    before, current = GENERATIONS[name]
    verbs = frozenset(Verb) - ({Verb.CHECK} if check is None else set())
    plan = replace(current.plan, verbs=verbs, apply_rerun=leave)
    assert before is not None
    for record in (before, current):
        journal.save(replace(record, plan=plan))
    path = journal.folder / "journal" / f"{KEY}.json"
    path.write_bytes(path.read_bytes()[:-7])
    return before


@WITH_ONE_BEFORE
@LEAVE
@CHECKS
@pytest.mark.parametrize("evidence", Evidence)
def test_what_is_gone_on_with_from_the_generation_before_runs_no_apply_without_leave(
    journal: Journal, name: str, leave: bool, check: int | None, evidence: Evidence
) -> None:
    before = damaged(journal, name, check=check, leave=leave)

    core = begun(journal, evidence, {} if check is None else {Verb.CHECK: check})

    if before is not None and before.owed:
        assert core.ran == []  # It holds the result: nothing is run, the report is owed.
    elif check == AS_WANTED:
        assert core.ran[:2] == [Verb.CHECK, Verb.VERIFY]
    else:
        asked = [] if check is None else [Verb.CHECK]
        assert core.ran[: len(asked) + 1] == [*asked, Verb.APPLY if leave else Verb.ROLLBACK]
    assert core.ran.count(Verb.APPLY) == (
        leave and check != AS_WANTED and Verb.ROLLBACK not in core.ran and bool(core.ran)
    )


@WITH_ONE_BEFORE
@pytest.mark.parametrize("evidence", Evidence)
def test_what_is_gone_on_with_from_the_generation_before_ends_with_one_result_that_is_true(
    journal: Journal, name: str, evidence: Evidence
) -> None:
    before = damaged(journal, name, check=None, leave=False)
    assert before is not None

    core = begun(journal, evidence, {})

    (job,) = core.state.jobs.values()
    result = job.record.result
    assert job.phase is Phase.REPORTING
    assert result is not None
    if before.owed:
        assert result == before.result
    else:
        assert (result.status, result.code) == (Status.FAILED, Code.INTERRUPTED)
        assert result.reason.endswith("; rolled back")
