"""What holds for the simulated service whatever is done to it, and in whatever order."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from thingjobs.testing import ControlPlaneError, JobsService, ManualClock

if TYPE_CHECKING:
    from thingjobs.testing import ExecutionView, Message

THING = "pump-7"
JOBS = st.sampled_from(["a", "b", "c", "d"])
TERMINAL = {"SUCCEEDED", "FAILED", "REJECTED", "TIMED_OUT", "CANCELED", "REMOVED"}


class Anything(RuleBasedStateMachine):
    """A device, an operator and time, each doing as they like."""

    @initialize(counts=st.booleans(), version_first=st.booleans())
    def begin(self, *, counts: bool, version_first: bool) -> None:
        self.clock = ManualClock()
        self.counts = counts
        self.service = JobsService(self.clock, count_service_changes=counts, version_first=version_first)
        self.seen: dict[tuple[str, int], ExecutionView] = {}
        #: What a device would believe that only listens.
        self.believed_head: Any = None
        self.believed_list: set[tuple[str, int]] = set()
        self.service.listen(THING, self.hear)

    def hear(self, message: Message) -> None:
        body = message.body
        if message.suffix == "notify-next":
            head = body.get("execution")
            self.believed_head = (head["jobId"], head["executionNumber"]) if head else None
        else:
            assert [] not in body["jobs"].values()
            self.believed_list = {
                (job["jobId"], job["executionNumber"]) for jobs in body["jobs"].values() for job in jobs
            }

    def ask(self, suffix: str, **members: Any) -> dict[str, Any]:
        answer = self.service.ask(THING, suffix, members)
        assert answer is not None
        return answer.body

    @rule(job=JOBS, timeout=st.sampled_from([None, 1, 5]), retries=st.sampled_from([{}, {"FAILED": 1}, {"ALL": 2}]))
    def create(self, job: str, timeout: int | None, retries: dict[str, int]) -> None:
        with suppress(ControlPlaneError):
            self.service.create_job(job, {}, [THING], in_progress_timeout_minutes=timeout, retries=retries)

    @rule(job=JOBS, force=st.booleans(), verb=st.sampled_from(["cancel_job", "delete_job"]))
    def cancel_or_delete(self, job: str, verb: str, *, force: bool) -> None:
        with suppress(ControlPlaneError):
            getattr(self.service, verb)(job, force=force)
            if verb == "delete_job":
                self.seen = {key: execution for key, execution in self.seen.items() if key[0] != job}

    @rule(hidden=st.booleans())
    def window(self, *, hidden: bool) -> None:
        self.service.hide_queued(THING, hidden)

    @rule()
    def remove(self) -> None:
        self.service.remove_thing(THING)

    @rule(minutes=st.sampled_from([0.1, 1, 3]))
    def wait(self, minutes: float) -> None:
        self.clock.advance(minutes * 60)
        self.service.tick()
        deadline = self.service.next_deadline()
        assert deadline is None or deadline > self.clock()

    @rule(step=st.sampled_from([None, 1, -1]))
    def start_next(self, step: int | None) -> None:
        head = self.ask("$next/get").get("execution")
        started = self.ask("start-next", stepTimeoutInMinutes=step).get("execution")
        assert (head is None) == (started is None)
        if head and head["status"] == "IN_PROGRESS":
            assert started == head
        elif head and started:
            assert (started["status"], started["versionNumber"]) == ("IN_PROGRESS", head["versionNumber"] + 1)

    @rule(
        job=JOBS,
        status=st.sampled_from(["IN_PROGRESS", "IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED", "CANCELED", "DONE"]),
        version=st.sampled_from([None, 1, 2, 3]),
        details=st.sampled_from([None, {"a": "b"}, {"a": "\n"}]),
    )
    def update(self, job: str, status: str, version: int | None, details: dict[str, str] | None) -> None:
        before = self.latest(job)
        body = self.ask(
            f"{job}/update",
            status=status,
            expectedVersion=version,
            statusDetails=details,
            includeJobExecutionState=True,
        )
        if "code" not in body:
            assert before is not None
            assert body["executionState"]["status"] == status
            assert body["executionState"]["versionNumber"] == before.version + 1
        elif before is not None:
            assert self.latest(job) == before
            told = body.get("executionState")
            assert told is None or (told["status"], told["versionNumber"]) == (before.status, before.version)

    @rule()
    def restart(self) -> None:
        kept = self.service.dump()
        self.service.load(kept)
        assert self.service.dump() == kept

    def latest(self, job: str) -> ExecutionView | None:
        try:
            return self.service.execution(THING, job)
        except KeyError:
            return None

    @invariant()
    def versions_rise_by_one_and_terminal_executions_never_change(self) -> None:
        for execution in self.service.executions(THING):
            versions = [change.version for change in execution.history]
            if self.counts:
                assert versions == list(range(1, len(versions) + 1))
            assert all(later - earlier in (0, 1) for earlier, later in pairwise(versions))
            assert not TERMINAL & {change.status for change in execution.history[:-1]}
            last = execution.history[-1]
            assert (last.status, last.version, last.details) == (
                execution.status,
                execution.version,
                execution.details,
            )
            before = self.seen.get(execution.key)
            if before is not None:
                assert execution.history[: len(before.history)] == before.history
                assert execution == before or before.status not in TERMINAL
            self.seen[execution.key] = execution

    @invariant()
    def a_device_that_only_listens_knows_the_head_and_the_list(self) -> None:
        head = self.ask("$next/get").get("execution")
        assert self.believed_head == ((head["jobId"], head["executionNumber"]) if head else None)
        body = self.ask("get")
        assert self.believed_list == {
            (job["jobId"], job["executionNumber"]) for job in body["inProgressJobs"] + body["queuedJobs"]
        }

    @invariant()
    def the_head_is_running_if_anything_is(self) -> None:
        body = self.ask("get")
        head = self.ask("$next/get").get("execution")
        first = (body["inProgressJobs"] + body["queuedJobs"])[:1]
        assert [head["jobId"]] == [job["jobId"] for job in first] if head else first == []
        queue_times = [job["queuedAt"] for job in body["queuedJobs"]]
        assert queue_times == sorted(queue_times)

    @invariant()
    def only_what_is_running_has_timers(self) -> None:
        for execution in self.service.executions(THING):
            assert execution.due is None or execution.status == "IN_PROGRESS"


Anything.TestCase.settings = settings(max_examples=settings().max_examples // 4, stateful_step_count=25, deadline=None)
TestAnything = Anything.TestCase
