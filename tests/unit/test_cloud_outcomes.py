"""What a described cloud job amounts to: whatever it says, one outcome, and none better than what the job proves."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingjobs.cloud import batch, s3_jobs
from thingjobs.cloud.errors import CloudError, Fate, Trouble
from thingjobs.cloud.outcomes import (
    BATCH_REASON_CHARACTERS,
    S3_REASON_CHARACTERS,
    Asked,
    Done,
    Failed,
    Outcome,
    Pending,
    Why,
    batch_open,
    is_ours,
    of_batch,
    of_s3,
    reason_of,
    s3_open,
    token_of,
    why,
)
from thingjobs.model import Code

OURS = token_of("pump-7", "job-1", 1)
OTHERS = token_of("pump-7", "job-1", 11)
WHEN = datetime(2026, 1, 2, tzinfo=UTC)
TOMORROW = "Hibernating"

counts = st.none() | st.integers(0, 10**6)
reasons = st.sampled_from(["", "by hand", OURS, f"because {OURS}", f"because {OTHERS}", f"{OURS} and more"])
s3_all = st.builds(
    s3_jobs.Job,
    job_id=st.just("job-1"),
    status=st.sampled_from([*s3_jobs.Status, TOMORROW, "active", ""]),
    confirmation_required=st.sampled_from([None, True, False]),
    update_reason=reasons,
    failures=st.sampled_from([(), (s3_jobs.Failure("ManifestNotFound", "it is not there"),)]),
    progress=st.builds(s3_jobs.Progress, total=counts, succeeded=counts, failed=counts),
)
batch_all = st.builds(
    batch.Job,
    job_id=st.just("job-1"),
    status=st.sampled_from([*batch.Status, TOMORROW, ""]),
    reason=reasons,
    started=st.sampled_from([None, WHEN]),
    cancelled=st.sampled_from([None, True, False]),
    terminated=st.sampled_from([None, True, False]),
    exit_code=st.sampled_from([None, 0, 137]),
    array_size=st.sampled_from([None, 0, 4]),
    children=st.dictionaries(st.sampled_from([*batch.Status, TOMORROW]), st.integers(0, 9)),
)
asked_s3 = st.sampled_from([Asked.CONFIRM, Asked.CANCEL, Asked.WATCH])
asked_batch = st.sampled_from([Asked.CANCEL, Asked.TERMINATE, Asked.WATCH])
tokens = st.sampled_from(["", OURS])


def one(outcome: Outcome) -> Outcome:
    """What holds of each outcome."""
    assert type(outcome) in (Done, Failed, Pending)
    assert outcome.sentence
    assert "\n" not in outcome.sentence
    if isinstance(outcome, Failed):
        assert outcome.code in set(Why)
    if isinstance(outcome, Pending) and outcome.percent is not None:
        assert 0 <= outcome.percent <= 100
    return outcome


# --- S3 Batch Operations ------------------------------------------------------------------------------------------

#: The statuses that prove it; in all others it is not done.
S3_PROVES = {
    Asked.CONFIRM: {"Ready", "Active", "Pausing", "Paused", "Completing", "Complete"},
    Asked.CANCEL: {"Cancelled"},
    Asked.WATCH: {"Complete"},
}


@given(asked_s3, s3_all, tokens)
def test_an_s3_job_is_done_only_where_its_status_proves_it(asked: Asked, job: s3_jobs.Job, token: str) -> None:
    outcome = one(of_s3(asked, job, token))

    if isinstance(outcome, Done):
        assert job.status in S3_PROVES[asked]
    else:
        assert job.status not in S3_PROVES[asked] or (asked is Asked.WATCH and job.progress.failed)


@given(asked_s3, s3_all, tokens)
def test_an_s3_job_fails_only_when_it_is_over(asked: Asked, job: s3_jobs.Job, token: str) -> None:
    over = job.status in s3_jobs.FINAL

    assert over or not isinstance(of_s3(asked, job, token), Failed)
    assert not over or not isinstance(of_s3(asked, job, token), Pending)


@given(asked_s3, s3_all)
def test_whose_request_it_was_changes_only_the_words(asked: Asked, job: s3_jobs.Job) -> None:
    with_token, without = of_s3(asked, job, OURS), of_s3(asked, job)

    assert type(with_token) is type(without)
    assert "this device job" not in without.sentence
    if " by this device job" in with_token.sentence and "but not" not in with_token.sentence:
        assert job.update_reason in (OURS, f"because {OURS}")


@given(asked_s3, s3_all, tokens)
def test_nothing_is_asked_of_an_s3_job_that_has_its_outcome(asked: Asked, job: s3_jobs.Job, token: str) -> None:
    if s3_open(asked, job):
        assert isinstance(of_s3(asked, job, token), Pending)
        assert asked is not Asked.WATCH


@pytest.mark.parametrize(
    ("asked", "job", "outcome"),
    [
        (Asked.CANCEL, s3_jobs.Job("j", "Cancelling"), Pending(None, "the S3 batch job j is Cancelling")),
        (
            Asked.CANCEL,
            s3_jobs.Job("j", "Cancelled", update_reason=OURS, progress=s3_jobs.Progress(10, 4, 1)),
            Done(
                "the S3 batch job j is Cancelled: it was cancelled by this device job, "
                "of 10 tasks 4 succeeded and 1 failed"
            ),
        ),
        (
            Asked.CANCEL,
            s3_jobs.Job("j", "Complete", progress=s3_jobs.Progress(10, 10, 0)),
            Failed(
                Why.LOST_RACE,
                "the S3 batch job j is Complete: nothing is left to cancel; of 10 tasks 10 succeeded and 0 failed",
            ),
        ),
        (
            Asked.CONFIRM,
            s3_jobs.Job("j", "Active", update_reason="by hand"),
            Done("the S3 batch job j is Active; it was confirmed, but not by this device job"),
        ),
        (
            Asked.CONFIRM,
            s3_jobs.Job("j", "Ready", confirmation_required=False),
            Done("the S3 batch job j is Ready; it needs no confirmation"),
        ),
        (
            Asked.CONFIRM,
            s3_jobs.Job("j", "Suspended"),
            Pending(None, "the S3 batch job j is Suspended and waits to be confirmed"),
        ),
        (
            Asked.WATCH,
            s3_jobs.Job("j", "Active", progress=s3_jobs.Progress(10, 4, 1)),
            Pending(50.0, "the S3 batch job j is Active; of 10 tasks 4 succeeded and 1 failed"),
        ),
        (
            Asked.WATCH,
            s3_jobs.Job("j", "Complete", progress=s3_jobs.Progress(3, 2, 1), report=s3_jobs.Report(enabled=True)),
            Failed(
                Why.TASKS_FAILED,
                "the S3 batch job j is Complete; of 3 tasks 2 succeeded and 1 failed; its completion report names them",
            ),
        ),
        (
            Asked.WATCH,
            s3_jobs.Job("j", "Failed", failures=(s3_jobs.Failure("ManifestNotFound", "it is\nnot there"),)),
            Failed(Why.FAILED, "the S3 batch job j is Failed (ManifestNotFound: it is not there)"),
        ),
        (
            Asked.WATCH,
            s3_jobs.Job("j", "Cancelled", update_reason="by hand"),
            Failed(Why.CANCELLED, "the S3 batch job j is Cancelled (by hand)"),
        ),
        (
            Asked.WATCH,
            s3_jobs.Job("j", TOMORROW),
            Pending(None, f"the S3 batch job j is {TOMORROW}, a status that this release does not know"),
        ),
    ],
)
def test_an_s3_job_is_spoken_of_plainly(asked: Asked, job: s3_jobs.Job, outcome: Outcome) -> None:
    assert of_s3(asked, job, OURS) == outcome


# --- AWS Batch ----------------------------------------------------------------------------------------------------


@given(asked_batch, batch_all, tokens)
def test_a_batch_job_is_done_only_where_it_proves_it(asked: Asked, job: batch.Job, token: str) -> None:
    outcome = one(of_batch(asked, job, token))

    if isinstance(outcome, Done) and asked is Asked.WATCH:
        assert job.status == "SUCCEEDED"
    elif isinstance(outcome, Done):
        assert job.status == "FAILED"
        assert job.terminated or job.cancelled or is_ours(job.reason, token)
    elif isinstance(outcome, Failed):
        assert job.status in batch.FINAL or (asked is Asked.CANCEL and job.status in batch.UNDER_WAY)
    else:
        assert job.status not in batch.FINAL


@given(batch_all)
def test_cancelling_what_runs_is_never_taken_for_done(job: batch.Job) -> None:
    if job.status in batch.UNDER_WAY:
        assert of_batch(Asked.CANCEL, job, OURS).__class__ is Failed
        assert not batch_open(Asked.CANCEL, job)


@given(asked_batch, batch_all, tokens)
def test_nothing_is_asked_of_a_batch_job_that_has_its_outcome(asked: Asked, job: batch.Job, token: str) -> None:
    if batch_open(asked, job):
        assert isinstance(of_batch(asked, job, token), Pending)
        assert asked is not Asked.WATCH


@pytest.mark.parametrize("asked", [Asked.CANCEL, Asked.TERMINATE, Asked.WATCH])
def test_a_batch_job_that_is_gone_is_unknown(asked: Asked) -> None:
    outcome = one(of_batch(asked, None))

    assert isinstance(outcome, Failed)
    assert outcome.code == Why.UNKNOWN


@pytest.mark.parametrize(
    ("asked", "job", "outcome"),
    [
        (
            Asked.CANCEL,
            batch.Job("j", "FAILED", reason=f"why {OURS}"),
            Done("the AWS Batch job j is FAILED: it was cancelled by this device job"),
        ),
        (
            Asked.TERMINATE,
            batch.Job("j", "FAILED", reason="by hand", started=WHEN, terminated=True),
            Done("the AWS Batch job j is FAILED: it was terminated, but not by this device job"),
        ),
        (
            Asked.CANCEL,
            batch.Job("j", "FAILED", reason="Essential container exited", started=WHEN, cancelled=True, exit_code=1),
            Failed(
                Why.LOST_RACE,
                "the AWS Batch job j is FAILED: nothing is left to cancel (Essential container exited; exit code 1)",
            ),
        ),
        (
            Asked.CANCEL,
            batch.Job("j", "RUNNING", cancelled=True),
            Failed(
                Why.RUNNING,
                "the AWS Batch job j is RUNNING: it goes on, because CancelJob does nothing to a job that runs; "
                "only terminating would end it",
            ),
        ),
        (
            Asked.CANCEL,
            batch.Job("j", "PENDING", cancelled=True),
            Pending(None, "the AWS Batch job j is PENDING, and cancelling is noted"),
        ),
        (
            Asked.WATCH,
            batch.Job("j", "PENDING", array_size=4, children={"SUCCEEDED": 1, "FAILED": 1, "RUNNING": 2}),
            Pending(50.0, "the AWS Batch job j is PENDING; of 4 in its array 1 FAILED, 2 RUNNING, 1 SUCCEEDED"),
        ),
        (
            Asked.WATCH,
            batch.Job("j", "FAILED", reason="Host EC2 terminated", started=WHEN, exit_code=137),
            Failed(Why.FAILED, "the AWS Batch job j is FAILED (Host EC2 terminated; exit code 137)"),
        ),
        (
            Asked.WATCH,
            batch.Job("j", "FAILED", reason="by hand", started=WHEN, terminated=True),
            Failed(Why.CANCELLED, "the AWS Batch job j is FAILED: it was terminated (by hand)"),
        ),
        (
            Asked.WATCH,
            batch.Job("j", TOMORROW),
            Pending(None, f"the AWS Batch job j is {TOMORROW}, a status that this release does not know"),
        ),
    ],
)
def test_a_batch_job_is_spoken_of_plainly(asked: Asked, job: batch.Job, outcome: Outcome) -> None:
    assert of_batch(asked, job, OURS) == outcome


# --- reasons, tokens, codes ---------------------------------------------------------------------------------------

texts = st.text(max_size=400)
names = st.text("abcXYZ019:_-", min_size=1, max_size=128)


@given(texts, names, names.map(lambda name: name[:64].replace(":", "_")), st.integers(0, 2**63 - 1))
def test_a_reason_fits_and_is_known_again(text: str, thing: str, job_id: str, execution: int) -> None:
    token = token_of(thing, job_id, execution)

    for longest in (S3_REASON_CHARACTERS, BATCH_REASON_CHARACTERS):
        reason = reason_of(text, token, longest)
        assert 1 <= len(reason) <= longest
        assert is_ours(reason, token)


@given(names, names, st.integers(0, 99), st.integers(0, 99))
def test_no_request_is_taken_for_that_of_another_device_or_execution(a: str, b: str, m: int, n: int) -> None:
    reason = reason_of("why", token_of(a, "job", m), S3_REASON_CHARACTERS)

    assert is_ours(reason, token_of(b, "job", n)) == ((a, m) == (b, n))


@pytest.mark.parametrize(
    "other",
    [token_of("pump", "job-1", 1), token_of("pump-77", "job-1", 1), token_of("pump-7", "b-1", 1), OTHERS, ""],
)
def test_a_token_is_not_known_by_a_part_of_it(other: str) -> None:
    assert not is_ours(f"why {other}", OURS)
    assert not is_ours(f"why {OURS}", other)


def test_a_long_text_is_cut_and_the_token_stays() -> None:
    assert reason_of("x" * 300, "(token)", 20) == "xxxxxxxxxxx… (token)"
    assert reason_of(" two\nlines ", "(token)", 99) == "two lines (token)"
    assert reason_of("", "(token)", 99) == "(token)"
    assert reason_of("x" * 1000, "(token)", BATCH_REASON_CHARACTERS) == f"{'x' * 1000} (token)"
    assert reason_of("half \ud83d a character", "(token)", 99) == "half a character (token)"
    assert not is_ours("anything", "")


@pytest.mark.parametrize("trouble", Trouble)
@pytest.mark.parametrize("fate", Fate)
def test_every_failure_of_a_call_has_a_code(trouble: Trouble, fate: Fate) -> None:
    assert why(CloudError("cannot", trouble, fate)) in set(Why)


def test_a_role_alias_that_is_not_there_is_no_unknown_job() -> None:
    assert why(CloudError("no such role alias", Trouble.NOT_FOUND, Fate.NOT_SENT)) is Why.CREDENTIALS
    assert why(CloudError("no such job", Trouble.NOT_FOUND, Fate.REFUSED)) is Why.UNKNOWN


def test_every_code_is_published() -> None:
    assert set(Why) <= {code.value for code in Code}
