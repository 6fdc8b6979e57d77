"""The test kit on handler classes: each fault does what it says, and what a test must notice is noticed.

A handler class runs in this process; the folder of its job is all that is written.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.handler import REBOOT, Context, Failed, Outcome, Reject, Retry
from thingjobs.testing import (
    CloudAccess,
    ControlPlaneError,
    NeverHappenedError,
    cancel,
    crash,
    lost_reply,
    offline,
    refused,
    restart,
    stall,
    timeout,
)

if TYPE_CHECKING:
    from thingjobs.testing import Kit

Params = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    name: str
    times: int = 1


class Greet:
    """Two verbs, typed parameters."""

    version = "1.0"

    def check(self, ctx: Context, params: Wanted) -> Outcome | None:
        return Outcome.ALREADY if params.name == "nobody" else None

    def apply(self, ctx: Context, params: Wanted) -> None:
        ctx.progress(50, "warming up")
        ctx.log("hello")
        ctx.details(greeted=params.name)


class Slots:
    """All verbs; keeps in its folder which of them were called."""

    def check(self, ctx: Context, params: Params) -> Outcome | None:
        self.mark(ctx)
        return None

    def prepare(self, ctx: Context, params: Params) -> None:
        self.mark(ctx)
        ctx.progress(10, "unpacking")

    def apply(self, ctx: Context, params: Params) -> Outcome | None:
        self.mark(ctx)
        ctx.progress(40, "writing slot b")
        (ctx.dir / "slot").write_text("b")
        ctx.details(slot="b")
        return None

    def verify(self, ctx: Context, params: Params) -> None:
        self.mark(ctx)

    def commit(self, ctx: Context, params: Params) -> None:
        self.mark(ctx)

    def rollback(self, ctx: Context, params: Params) -> None:
        self.mark(ctx)
        (ctx.dir / "slot").unlink(missing_ok=True)

    @staticmethod
    def mark(ctx: Context) -> None:
        with (ctx.dir / "called").open("a") as file:
            file.write(f"{ctx.verb}\n")


class Stoppable(Slots):
    """Stops when it is told to, in the midst of `apply`."""

    cancel_apply = True
    stall = 60

    def apply(self, ctx: Context, params: Params) -> None:
        for percent in range(0, 100, 10):
            ctx.progress(percent)
            if ctx.cancelled:
                raise Failed(f"stopped at {percent}")
        (ctx.dir / "slot").write_text("b")


class Deaf:
    """Never looks whether it was told to stop."""

    def apply(self, ctx: Context, params: Params) -> None:
        for percent in range(0, 100, 10):
            ctx.progress(percent)


# --- how a job goes -----------------------------------------------------------------------------------------------


def test_a_job_goes_through_the_verbs_and_tells_the_service(thingjobs: Kit) -> None:
    job = thingjobs.run(Greet, {"name": "pump-7"})

    assert job.succeeded
    assert job.statuses == ["IN_PROGRESS", "SUCCEEDED"]
    assert job.verbs == ["check", "apply"]
    assert job.details == {"greeted": "pump-7"}
    assert job.events == [{"progress": 50, "message": "warming up"}, {"details": {"greeted": "pump-7"}}]
    assert job.log == "hello\n"
    assert (job.code, job.reason, job.late, job.reboots) == ("", "", "", 0)


def test_all_verbs_share_a_folder_which_is_there_afterwards(thingjobs: Kit) -> None:
    job = thingjobs.run(Slots)

    assert (job.dir / "called").read_text().split() == ["check", "prepare", "apply", "verify", "commit"]
    assert (job.dir / "slot").read_text() == "b"


def test_two_jobs_have_two_folders(thingjobs: Kit) -> None:
    first, second = thingjobs.run(Slots), thingjobs.run(Slots)

    assert first.dir != second.dir


def test_what_is_as_wanted_already_succeeds_without_apply(thingjobs: Kit) -> None:
    job = thingjobs.run(Greet, {"name": "nobody"})

    assert (job.status, job.verbs) == ("SUCCEEDED", ["check"])


@pytest.mark.parametrize(("name", "would"), [("nobody", "nothing"), ("pump-7", "run")])
def test_mode_check_only_asks(thingjobs: Kit, name: str, would: str) -> None:
    job = thingjobs.run(Greet, {"name": name}, mode="check")

    assert (job.would, job.verbs, job.succeeded) == (would, ["check"], True)


def test_mode_check_says_why_it_would_wait(thingjobs: Kit) -> None:
    class Busy(Greet):
        def check(self, ctx: Context, params: Wanted) -> Outcome | None:
            raise Retry("the pump is running")

    job = thingjobs.run(Busy, {"name": "pump-7"}, mode="check")

    assert (job.would, job.reason, job.succeeded) == ("wait", "the pump is running", True)


def test_params_that_do_not_fit_the_type_are_rejected_before_any_verb(thingjobs: Kit) -> None:
    job = thingjobs.run(Greet, {"name": 7})

    assert job.rejected
    assert (job.code, job.verbs, job.statuses) == ("params.invalid", [], ["REJECTED"])


@pytest.mark.parametrize(
    ("error", "status", "code", "reason"),
    [
        (Failed("no room"), "FAILED", "handler.failed", "no room"),
        (Failed("bad image", code="fetch.digest"), "FAILED", "fetch.digest", "bad image"),
        (Reject("wrong board"), "REJECTED", "handler.rejected", "wrong board"),
        (KeyError("slot"), "FAILED", "handler.failed", "KeyError: 'slot'"),
    ],
)
def test_what_a_method_raises_is_the_result(
    thingjobs: Kit, error: Exception, status: str, code: str, reason: str
) -> None:
    class Raising:
        def apply(self, ctx: Context, params: Params) -> None:
            raise error

    job = thingjobs.run(Raising)

    assert (job.status, job.code, job.reason) == (status, code, reason)


def test_the_log_of_a_bug_shows_where_it_is(thingjobs: Kit) -> None:
    class Buggy:
        def apply(self, ctx: Context, params: Params) -> None:
            params["slot"]

    job = thingjobs.run(Buggy)

    assert 'params["slot"]' in job.log


def test_a_failed_verify_rolls_back(thingjobs: Kit) -> None:
    class Bad(Slots):
        def verify(self, ctx: Context, params: Params) -> None:
            raise Failed("slot b does not boot", code="verify.failed")

    job = thingjobs.run(Bad)

    assert job.verbs == ["check", "prepare", "apply", "verify", "rollback"]
    assert (job.code, job.reason) == ("verify.failed", "slot b does not boot; rolled back")
    assert not (job.dir / "slot").exists()


def test_a_reboot_comes_between_apply_and_verify(thingjobs: Kit) -> None:
    class Rebooting(Slots):
        def apply(self, ctx: Context, params: Params) -> Outcome:
            return REBOOT

    job = thingjobs.run(Rebooting)

    assert (job.reboots, job.verbs) == (1, ["check", "prepare", "apply", "verify", "commit"])
    assert [call.ending for call in job.calls][2] == "done and reboot"


def test_a_verb_that_wants_a_reboot_first_is_called_again_after_it(thingjobs: Kit) -> None:
    seen: list[tuple[int, bool, bool]] = []

    class Twice:
        def apply(self, ctx: Context, params: Params) -> Outcome | None:
            seen.append((ctx.attempt, ctx.resumed, ctx.rebooted))
            return None if ctx.rebooted else Outcome.REBOOT_AND_AGAIN

    job = thingjobs.run(Twice)

    assert (job.succeeded, job.reboots) == (True, 1)
    assert seen == [(1, False, False), (2, True, True)]


def test_a_verb_that_wants_a_restart_of_the_agent_is_called_again_after_it(thingjobs: Kit) -> None:
    class Twice:
        def apply(self, ctx: Context, params: Params) -> Outcome | None:
            return None if ctx.resumed else Outcome.AGAIN_AFTER_RESTART

    job = thingjobs.run(Twice)

    assert (job.status, job.verbs) == ("SUCCEEDED", ["apply", "apply"])


def test_retry_takes_no_time(thingjobs: Kit) -> None:
    class Later:
        def apply(self, ctx: Context, params: Params) -> None:
            if ctx.attempt < 3:
                raise Retry("the modem warms up", after=86400)

    job = thingjobs.run(Later)

    assert (job.succeeded, job.verbs) == (True, ["apply"] * 3)
    assert job.calls[0].after == 86400
    assert "waits: the modem warms up" in job.notes


def test_a_job_that_is_always_put_off_stays_queued(thingjobs: Kit) -> None:
    class Never:
        def check(self, ctx: Context, params: Params) -> None:
            raise Retry("somebody uses the pump")

        def apply(self, ctx: Context, params: Params) -> None: ...

    job = thingjobs.run(Never)

    assert (job.status, job.statuses, set(job.verbs)) == ("QUEUED", [], {"check"})
    assert "waits: somebody uses the pump" in job.notes


def test_what_declares_how_long_it_may_be_put_off_fails_then(thingjobs: Kit) -> None:
    class Impatient:
        max_defer = 86400

        def apply(self, ctx: Context, params: Params) -> None: ...

    job = thingjobs.run(Impatient, gates=itertools.repeat("the battery is low"))

    assert (job.status, job.code, job.verbs) == ("FAILED", "gate.expired", [])


# --- gates and fresh parameters -----------------------------------------------------------------------------------


def test_a_closed_gate_puts_the_job_off_until_it_opens(thingjobs: Kit) -> None:
    job = thingjobs.run(Greet, {"name": "pump-7"}, gates=["the battery is low", "the battery is low"])

    assert job.succeeded
    assert "waits: the battery is low" in job.notes


def test_a_handler_gets_fresh_parameters(thingjobs: Kit) -> None:
    class Fetch:
        def apply(self, ctx: Context, params: Params) -> None:
            ctx.details(first=params["url"], then=ctx.refresh()["url"])

    job = thingjobs.run(Fetch, {"url": "old"}, refreshed={"url": "new"})

    assert job.details == {"first": "old", "then": "new"}


def test_fresh_parameters_have_the_type_of_the_first(thingjobs: Kit) -> None:
    class Fetch:
        def apply(self, ctx: Context, params: Wanted) -> None:
            ctx.details(then=ctx.refresh().name)

    job = thingjobs.run(Fetch, {"name": "old"}, refreshed={"name": "new"})

    assert job.details == {"then": "new"}


# --- crash --------------------------------------------------------------------------------------------------------


def test_a_crash_loses_the_answer_of_a_verb(thingjobs: Kit) -> None:
    job = thingjobs.run(Slots, faults=[crash("apply")])

    assert job.verbs == ["check", "prepare", "apply", "check", "rollback"]
    assert (job.status, job.code) == ("FAILED", "interrupted")
    assert job.calls[2].interrupted
    assert job.calls[2].ending == "interrupted"


def test_a_crash_at_an_event_leaves_the_rest_undone(thingjobs: Kit) -> None:
    class Once(Slots):
        apply_rerun = True

        def apply(self, ctx: Context, params: Params) -> None:
            ctx.details(found=str((ctx.dir / "slot").exists()))
            super().apply(ctx, params)

    first = thingjobs.run(Once, faults=[crash("apply", event=1)])
    second = thingjobs.run(Once, faults=[crash("apply", event=3)])

    assert (first.details["found"], second.details["found"]) == ("False", "True")


def test_a_crash_before_a_verb_runs_it_once(thingjobs: Kit) -> None:
    job = thingjobs.run(Slots, faults=[crash(before="apply")])

    assert (job.succeeded, job.verbs.count("apply")) == (True, 1)


def test_a_crash_after_a_verb_runs_it_once_because_its_exit_status_was_kept(thingjobs: Kit) -> None:
    job = thingjobs.run(Slots, faults=[crash(after="apply")])

    assert (job.succeeded, job.verbs.count("apply")) == (True, 1)


def test_a_check_after_a_crash_may_find_that_all_is_done(thingjobs: Kit) -> None:
    class Found(Slots):
        def check(self, ctx: Context, params: Params) -> Outcome | None:
            return Outcome.ALREADY if (ctx.dir / "slot").exists() else None

    job = thingjobs.run(Found, faults=[crash("apply")])

    assert (job.status, job.verbs) == ("SUCCEEDED", ["check", "prepare", "apply", "check", "verify", "commit"])


def test_a_verb_that_survives_no_crash_is_given_up(thingjobs: Kit) -> None:
    class Rerun(Slots):
        apply_rerun = True

        def check(self, ctx: Context, params: Params) -> None: ...

    job = thingjobs.run(Rerun, faults=[crash("apply", attempt=run) for run in (1, 2, 3)])

    assert (job.verbs.count("apply"), job.code) == (3, "interrupted")


def test_a_handler_that_catches_everything_does_not_survive_a_crash(thingjobs: Kit) -> None:
    class Stubborn:
        apply_rerun = True

        def apply(self, ctx: Context, params: Params) -> None:
            for _ in range(3):
                with contextlib.suppress(BaseException):
                    ctx.progress(1)

    job = thingjobs.run(Stubborn, faults=[crash("apply", event=1)])

    assert [(call.interrupted, len(call.events)) for call in job.calls] == [(True, 1), (False, 3)]


def test_a_crash_in_every_moment_leaves_a_job_with_an_end(thingjobs: Kit) -> None:
    verbs = ("check", "prepare", "apply", "verify", "commit")
    for verb in verbs:
        for fault in (crash(verb), crash(before=verb), crash(after=verb)):  # type: ignore[arg-type]
            job = thingjobs.run(Slots, faults=[fault])
            assert job.status in ("SUCCEEDED", "FAILED"), fault
            assert job.verbs.count("apply") == 1, fault


# --- a restart of the agent ---------------------------------------------------------------------------------------


def test_a_handler_goes_on_while_the_agent_restarts(thingjobs: Kit) -> None:
    job = thingjobs.run(Slots, faults=[restart("apply", event=1)])

    assert (job.succeeded, job.verbs.count("apply")) == (True, 1)
    assert job.details == {"slot": "b"}


@pytest.mark.parametrize("fault", [restart(before="apply"), restart("apply"), restart(after="apply")], ids=str)
def test_an_agent_that_restarts_runs_no_verb_twice(thingjobs: Kit, fault: Any) -> None:
    job = thingjobs.run(Slots, faults=[fault])

    assert job.succeeded
    assert job.verbs == ["check", "prepare", "apply", "verify", "commit"]


def test_an_agent_that_restarted_still_hears_of_a_cancel(thingjobs: Kit) -> None:
    job = thingjobs.run(Stoppable, faults=[restart("apply", event=1), cancel("apply", event=3)])

    assert job.calls[2].reason == "stopped at 20"


def test_a_check_that_is_in_no_journal_ends_with_the_agent_and_is_asked_again(thingjobs: Kit) -> None:
    class Asked(Slots):
        def check(self, ctx: Context, params: Params) -> Outcome | None:
            ctx.progress(1)
            ctx.progress(2)
            return None

    job = thingjobs.run(Asked, faults=[restart("check", event=1)])

    assert [(call.verb, call.interrupted) for call in job.calls][:3] == [
        ("check", True),
        ("check", False),
        ("prepare", False),
    ]


# --- told to stop -------------------------------------------------------------------------------------------------


def test_a_cancel_before_apply_changes_nothing(thingjobs: Kit) -> None:
    job = thingjobs.run(Slots, faults=[cancel("prepare", event=1)])

    assert (job.status, job.statuses) == ("CANCELED", ["IN_PROGRESS", "CANCELED"])
    assert "apply" not in job.verbs
    assert "nothing was changed" in job.late


def test_a_cancel_during_apply_waits_for_its_end_and_rolls_back(thingjobs: Kit) -> None:
    job = thingjobs.run(Slots, faults=[cancel("apply", event=1)])

    assert job.verbs == ["check", "prepare", "apply", "rollback"]
    assert job.calls[2].succeeded
    assert job.status == "CANCELED"


def test_a_cancel_after_apply_rolls_back_before_anything_else(thingjobs: Kit) -> None:
    job = thingjobs.run(Slots, faults=[cancel(after="apply")])

    assert job.verbs == ["check", "prepare", "apply", "rollback"]
    assert "verify" not in str(job)


def test_an_apply_that_allows_it_is_told_of_a_cancel(thingjobs: Kit) -> None:
    job = thingjobs.run(Stoppable, faults=[cancel("apply", event=4)])

    assert job.calls[2].reason == "stopped at 30"
    assert job.verbs[-1] == "rollback"


def test_a_verb_that_takes_too_long_is_told_to_stop(thingjobs: Kit) -> None:
    job = thingjobs.run(Stoppable, faults=[timeout("apply", event=2)])

    assert (job.status, job.code) == ("FAILED", "handler.timeout")
    assert job.calls[2].reason == "stopped at 10"


def test_a_verb_that_shows_no_sign_of_life_is_told_to_stop(thingjobs: Kit) -> None:
    job = thingjobs.run(Stoppable, faults=[stall("apply", event=2)])

    assert job.code == "handler.stalled"


def test_a_verb_that_does_not_look_whether_it_shall_stop_is_killed(thingjobs: Kit) -> None:
    job = thingjobs.run(Deaf, faults=[timeout("apply", event=3)])

    assert (job.code, job.calls[0].signal) == ("handler.timeout", "SIGKILL")
    assert job.calls[0].events[-1] == {"progress": 30}


def test_a_check_that_takes_too_long_fails_the_job(thingjobs: Kit) -> None:
    job = thingjobs.run(Slots, faults=[timeout("check")])

    assert (job.status, job.code, job.verbs) == ("FAILED", "handler.timeout", ["check"])


# --- the link -----------------------------------------------------------------------------------------------------


def test_without_the_service_there_is_no_commit_but_a_rollback(thingjobs: Kit) -> None:
    job = thingjobs.run(Slots, faults=[offline("apply", event=1, seconds=7200)])

    assert (job.status, job.code) == ("FAILED", "reach.failed")
    assert job.verbs == ["check", "prepare", "apply", "verify", "rollback"]


def test_a_short_outage_does_no_harm(thingjobs: Kit) -> None:
    job = thingjobs.run(Slots, faults=[offline(after="apply", seconds=60)])

    assert job.succeeded


@pytest.mark.parametrize("fault", [lost_reply("IN_PROGRESS"), lost_reply("SUCCEEDED")], ids=str)
def test_a_lost_reply_runs_nothing_twice(thingjobs: Kit, fault: Any) -> None:
    job = thingjobs.run(Slots, faults=[fault])

    assert (job.succeeded, job.verbs.count("apply")) == (True, 1)
    assert "no answer" in [update.answer for update in job.updates]


def test_a_refused_update_is_sent_again(thingjobs: Kit) -> None:
    job = thingjobs.run(Slots, faults=[refused("SUCCEEDED")])

    assert [str(update.answer) for update in job.updates][-2:] == ["RequestThrottled", "accepted"]


# --- the kit can fail ---------------------------------------------------------------------------------------------


def test_a_handler_that_runs_apply_twice_is_noticed(thingjobs: Kit) -> None:
    class Twice(Slots):
        apply_rerun = True

    job = thingjobs.run(Twice, faults=[crash("apply")])

    assert job.verbs.count("apply") == 2


@pytest.mark.parametrize(
    "fault", [crash("rollback"), crash("apply", event=9), cancel("apply", attempt=2), refused("FAILED")], ids=str
)
def test_a_fault_that_never_came_fails_the_test(thingjobs: Kit, fault: Any) -> None:
    with pytest.raises(NeverHappenedError, match="never got there"):
        thingjobs.run(Slots, faults=[fault])


def test_a_stall_of_a_handler_that_declares_none_fails_the_test(thingjobs: Kit) -> None:
    with pytest.raises(NeverHappenedError, match="declares no stall"):
        thingjobs.run(Slots, faults=[stall("apply")])


@pytest.mark.parametrize(
    "wrong", [crash, lambda: crash("apply", before="apply"), lambda: crash(before="check", event=1)]
)
def test_a_fault_without_a_moment_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="crash"):
        wrong()


def test_a_class_that_is_no_handler_is_refused_with_the_reason(thingjobs: Kit) -> None:
    class Useless:
        def check(self, ctx: Context, params: Params) -> None: ...

    with pytest.raises(ValueError, match="must hold apply"):
        thingjobs.run(Useless)


def test_params_that_no_document_can_hold_are_refused(thingjobs: Kit) -> None:
    with pytest.raises(ControlPlaneError, match="not JSON serializable"):
        thingjobs.run(Greet, {"name": object()})


# --- single calls -------------------------------------------------------------------------------------------------


def test_a_single_call_needs_no_job(thingjobs: Kit) -> None:
    call = thingjobs.call(Greet, "apply", {"name": "pump-7"})

    assert call.succeeded
    assert (call.exit, call.details, call.log) == (0, {"greeted": "pump-7"}, "hello\n")
    assert call.events[0] == {"progress": 50, "message": "warming up"}


def test_single_calls_share_a_folder(thingjobs: Kit) -> None:
    thingjobs.call(Slots, "prepare")
    thingjobs.call(Slots, "apply")

    assert (thingjobs.dir / "called").read_text().split() == ["prepare", "apply"]


def test_a_single_call_can_be_a_later_run_or_a_dry_one(thingjobs: Kit) -> None:
    class Tell:
        def apply(self, ctx: Context, params: Params) -> None:
            ctx.details(seen=f"{ctx.attempt} {ctx.resumed} {ctx.rebooted} {ctx.dry_run}")

    call = thingjobs.call(Tell, "apply", attempt=2, rebooted=True, dry_run=True)

    assert call.details == {"seen": "2 True True True"}


def test_a_single_call_that_fails_says_why(thingjobs: Kit) -> None:
    class No:
        def apply(self, ctx: Context, params: Params) -> None:
            raise Reject("wrong board")

    call = thingjobs.call(No, "apply")

    assert (call.succeeded, call.exit, call.reject, call.code) == (False, 1, True, "handler.rejected")
    assert repr(call) == "<apply: exit 1 (handler.rejected) wrong board>"


def test_a_verb_that_is_not_there_cannot_be_called(thingjobs: Kit) -> None:
    with pytest.raises(ValueError, match="declares no rollback"):
        thingjobs.call(Greet, "rollback")


def test_a_handler_that_needs_what_this_release_has_not_got_is_refused_as_on_a_device(thingjobs: Kit) -> None:
    class Clouded(Greet):
        needs = ("the-moon",)

    job = thingjobs.run(Clouded, {"name": "pump-7"})

    assert (job.status, job.code, job.verbs) == ("REJECTED", "handler.broken", [])
    assert "needs the-moon" in job.reason


# --- the cloud ----------------------------------------------------------------------------------------------------


class Keys:
    """Tells which credentials it has."""

    needs = ("cloud",)

    def check(self, ctx: Context, params: Params) -> None:
        if ctx.dry_run:
            ctx.cloud.batch.describe("job-1")

    def apply(self, ctx: Context, params: Params) -> None:
        first, second = ctx.cloud.credentials(), ctx.cloud.credentials()
        ctx.details(key=first.access_key_id, same=str(first == second), where=ctx.cloud.region)
        ctx.details(s3=str(ctx.cloud.may_touch_s3("a")), batch=str(ctx.cloud.may_touch_batch("a")))
        ctx.details(revision=str(ctx.refresh().get("revision")))


def test_a_handler_that_needs_the_cloud_gets_what_the_test_gives(thingjobs: Kit) -> None:
    access = CloudAccess("http://127.0.0.1:9", access_key_id="ASIA1", region="eu-west-3", allow_batch_jobs=["b"])

    job = thingjobs.run(Keys, {"revision": 1}, refreshed={"revision": 2}, cloud=access)

    assert job.status == "SUCCEEDED"
    assert job.details == {
        "key": "ASIA1", "same": "True", "where": "eu-west-3", "s3": "True", "batch": "False", "revision": "2"
    }  # fmt: skip


def test_without_a_cloud_of_the_test_there_is_none(thingjobs: Kit) -> None:
    job = thingjobs.run(Keys)

    assert (job.status, job.calls[-1].code) == ("FAILED", "cloud.credentials")
    assert job.reason.startswith("this test gives no cloud: pass cloud=CloudAccess(URL)")


def test_a_single_call_has_a_cloud_too(thingjobs: Kit) -> None:
    call = thingjobs.call(Keys, "apply", cloud=CloudAccess(problem="cannot get credentials: it is dark"))

    assert (call.code, call.reason) == ("cloud.credentials", "cannot get credentials: it is dark")
    assert "Traceback" not in call.log


def test_a_handler_that_lets_a_rehearsed_call_through_is_done_in_a_dry_run(thingjobs: Kit) -> None:
    call = thingjobs.call(Keys, "check", dry_run=True, cloud=CloudAccess("http://127.0.0.1:9"))

    assert call.succeeded
    assert call.log == 'would send: POST http://127.0.0.1:9/v1/describejobs\n    {"jobs": ["job-1"]}\n'


def test_a_handler_without_the_need_is_told_to_declare_it(thingjobs: Kit) -> None:
    class Needless:
        def apply(self, ctx: Context, params: Params) -> None:
            ctx.cloud.credentials()

    job = thingjobs.run(Needless, cloud=CloudAccess())

    assert (job.status, job.calls[-1].code) == ("FAILED", "cloud.config")
    assert 'declare needs = ("cloud",)' in job.reason


# --- the handler's surroundings -----------------------------------------------------------------------------------


def test_a_class_finds_what_a_process_of_its_own_would_find(thingjobs: Kit) -> None:
    class Look:
        def apply(self, ctx: Context, params: Params) -> None:
            params["list"].append("changed")
            ctx.details(
                verb=os.environ["JOB_VERB"], here=str(Path.cwd() == ctx.dir), job=str(Path("job.json").exists()),
                configured=os.environ["PUMP"],
            )  # fmt: skip

    thingjobs.environment["PUMP"] = "7"
    params: Params = {"list": []}
    here, environment = Path.cwd(), dict(os.environ)
    job = thingjobs.run(Look, params)

    assert job.details == {"verb": "apply", "here": "True", "job": "True", "configured": "7"}
    assert (Path.cwd(), dict(os.environ), params) == (here, environment, {"list": []})


def test_a_class_does_not_find_what_only_its_developer_has(thingjobs: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    class Look:
        def apply(self, ctx: Context, params: Params) -> None:
            ctx.details(found=os.environ.get("AWS_PROFILE", "nothing"))

    monkeypatch.setenv("AWS_PROFILE", "mine")

    assert thingjobs.run(Look).details == {"found": "nothing"}
    assert os.environ["AWS_PROFILE"] == "mine"


def test_what_one_verb_does_to_its_params_no_other_sees(thingjobs: Kit) -> None:
    class Careless:
        def prepare(self, ctx: Context, params: Params) -> None:
            params.clear()

        def apply(self, ctx: Context, params: Params) -> None:
            ctx.details(slot=params["slot"])

    assert thingjobs.run(Careless, {"slot": "b"}).details == {"slot": "b"}


# --- what a person sees -------------------------------------------------------------------------------------------


def test_a_job_in_one_line(thingjobs: Kit) -> None:
    job = thingjobs.run(Slots, faults=[crash("apply")])

    assert repr(job) == (
        '<job slots: FAILED interrupted "apply was interrupted, and how far it came is unknown; rolled back"'
        " after check, prepare, apply, check, rollback>"
    )


def test_a_job_as_a_timeline(thingjobs: Kit) -> None:
    job = thingjobs.run(Greet, {"name": "pump-7"}, faults=[crash("apply", event=1)])

    assert str(job).splitlines()[1:] == [
        "      0 s  check",
        "                     done",
        "           update    IN_PROGRESS",
        "           apply",
        "                     50 % warming up",
        "           FAULT     crash during apply at event 1",
        "                     interrupted",
        "           check     run 2, resumed",
        "                     done",
        "           update    FAILED code=interrupted reason='apply was interrupted, and how far it came is unknown'",
    ]
