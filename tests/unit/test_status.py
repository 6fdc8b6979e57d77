"""What the status says, and how people see it, on small screens as well."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import status
from thingjobs.cli.paint import Paint, fold
from thingjobs.cli.status import MAX_TEXT, _shown
from thingjobs.machine.state import Heard, Job, State, Stopping, Timer
from thingjobs.model import Code, Execution, Identity, JobId, Phase, Plan, Record, Result, Status
from thingjobs.policy import Settings
from thingjobs.status import Told

if TYPE_CHECKING:
    from thingjobs.model import Json

WHY = "broker:8883 does not answer within 6 s; is the port blocked?"
ALONE = State(Settings(agent="thingjobs/test"), nonce="n")


def told(state: State, lost: str) -> Json:
    """Return the status of an agent that lost its connection before, if it had one."""
    return status.of_agent(state, [], Told(lost), thing="pump-7", clock=100.0)


def shown(found: Json) -> list[str]:
    """Return what people see."""
    out = io.StringIO()
    paint = Paint(out)
    paint.lines(list(_shown(paint, found)))
    return out.getvalue().splitlines()


def test_why_there_is_no_connection_is_said_with_where_to_go_on() -> None:
    assert told(ALONE, WHY)["unconnected"] == WHY
    assert shown(told(ALONE, WHY))[:3] == [
        "thing pump-7: the agent runs, without a connection",
        f"  why   {WHY}",
        "        `thingjobs check` looks for what is wrong",
    ]


def test_an_old_reason_is_not_shown_beside_a_connection() -> None:
    found = told(replace(ALONE, connected_at=90.0), WHY)
    assert (found["connected"], found["unconnected"]) == (True, "")
    assert shown(found)[:2] == ["thing pump-7: the agent runs, connected for 10 s", "  now   nothing"]


def test_where_nobody_knows_why_the_log_is_named() -> None:
    silent = told(ALONE, "")
    for found in (silent, {name: value for name, value in silent.items() if name != "unconnected"}):
        assert shown(found)[0] == "thing pump-7: the agent runs, without a connection; its log says why"


def test_without_an_agent_there_is_nothing_to_explain() -> None:
    found = status.of_journal([], thing="pump-7")
    assert found["unconnected"] == ""
    assert shown(found)[0] == "thing pump-7: no agent runs"


def job(**more: Any) -> Job:
    """Return a job that waits for a gate."""
    identity = Identity(JobId("fw-7"), 1, 1_700_000_000)
    record = Record(identity, Phase.DEFERRED, "", 1, Plan("firmware", ()), {}, note="gate battery: 44 % left")
    return Job(record=record).with_(**more)


def with_job(found: Job) -> State:
    """Return the state of an agent that is busy with one job."""
    return replace(ALONE, connected_at=90.0, jobs={found.identity: found})


def test_what_waits_is_shown_with_what_it_waits_before_and_when_it_is_asked_again() -> None:
    found = told(with_job(job(gate="apply").at(Timer.DEFER, 160.0)), "")
    assert (found["jobs"][0]["before"], found["jobs"][0]["waits"]) == ("apply", "gate battery: 44 % left")
    line = "  now   fw-7#1  deferred (firmware)  waits before apply: gate battery: 44 % left, again in 1 min"
    assert shown(found)[1] == line
    del found["jobs"][0]["before"]  # An agent of an earlier version does not tell.
    assert shown(found)[1] == line.replace(" before apply", "")


def test_what_is_not_ours_is_shown_and_that_the_agent_is_ending() -> None:
    other = Identity(JobId("theirs"), 3, 1_700_000_000)
    found = told(replace(ALONE, connected_at=90.0, foreign=frozenset({other}), stopping=Stopping.WAIT), "")
    assert (found["foreign"], found["stopping"]) == ([{"jobId": "theirs", "executionNumber": 3}], True)
    assert shown(found)[0] == "thing pump-7: the agent is ending, connected for 10 s"
    assert "  other theirs#3: not this agent's, left alone" in shown(found)


def test_what_handlers_and_gates_say_is_shown_without_credentials() -> None:
    secret = "https://u:hunter2@bucket/fw.bin?X-Amz-Signature=c0ffee"
    result = Result(Status.FAILED, Code.HANDLER_EXIT, f"cannot fetch {secret}")
    details = {"from": secret, secret: "a name may hold one as well"}
    done = job(note=f"see {secret}", result=result, details=details, heard=Heard(message=secret))
    record = replace(done.record, phase=Phase.DONE, late=f"late {secret}")
    for found in (
        status.of_agent(with_job(done), [record], Told(secret, trouble=[secret]), thing="pump-7", clock=100.0),
        status.of_journal([done.record, record], thing="pump-7"),
    ):
        told_of = json.dumps(found)
        assert "https://" in told_of
        assert not re.search("hunter2|c0ffee", told_of)


def identity(job_id: str) -> Identity:
    return Identity(JobId(job_id), 1, 1_700_000_000)


def test_what_was_refused_is_among_the_last_although_no_journal_holds_it() -> None:
    finished = Record(identity("fw-6"), Phase.DONE, "", 1, Plan("firmware", ()), {}, finished_at=10.0)
    refusal = Result(Status.REJECTED, Code.HANDLER_UNKNOWN, "there is no handler firmwear")
    refused = replace(finished, identity=identity("fw-7"), result=refusal, finished_at=5.0)
    found = status.of_agent(ALONE, [finished], Told(refused=[refused]), thing="pump-7", clock=100.0)
    assert [(one["jobId"], one["status"]) for one in found["last"]] == [("fw-6", None), ("fw-7", "REJECTED")]
    assert shown(found)[-1] == "          handler.unknown: there is no handler firmwear"


def test_what_waits_its_turn_is_shown_without_what_is_known_to_be_something_else() -> None:
    busy = job()
    other, over = identity("theirs"), identity("over")
    state = replace(with_job(busy), foreign=frozenset({other}), remembered=(over,))
    state = replace(state, offer=Execution(identity("next"), Status.QUEUED, 1))
    queued = [busy.identity, over, other, identity("next"), identity("later")]
    found = status.of_agent(state, [], Told(queued=queued), thing="pump-7", clock=100.0)
    assert [one["jobId"] for one in found["queued"]] == ["next", "later"]
    assert "  next  next#1, later#1" in shown(found)
    del found["queued"]  # An agent of an earlier version does not tell.
    assert not [line for line in shown(found) if line.startswith("  next")]


def test_whatever_waits_says_for_what() -> None:
    for phase, words in ((Phase.CLAIMING, "for the service"), (Phase.REBOOTING, "for the reboot")):
        assert shown(told(with_job(job(phase=phase, note="")), ""))[-3].endswith(f"waits: {words}")


HOSTILE = "first\nsecond\x1b[2J\x9b31m\u202e\ud800 https://h/?X-Amz-Signature=c0ffee " + "long " * 20_000


@pytest.mark.parametrize("columns", [30, 80])
def test_on_a_small_screen_nothing_is_wider_than_it_and_what_matters_most_is_at_the_top(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "24")
    late = replace(job().record, phase=Phase.DONE, late=HOSTILE, finished_at=1.7e9)
    running = job(phase=Phase.APPLYING, note=HOSTILE, heard=Heard(40.0, HOSTILE))
    found = status.of_agent(with_job(running), [late] * 9, Told(trouble=[HOSTILE]), thing="pump-7", clock=100.0)
    screen = Screen()
    paint = Paint(screen)
    paint.page(list(_shown(paint, found)))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue().removeprefix("\x1b[H\x1b[2J")).split("\n")
    assert len(lines) == 24
    assert lines[-2:] == ["…", ""]
    assert lines[0].startswith("thing pump-7")
    assert lines[2 if columns < 40 else 1].startswith("  wrong first")
    assert max(map(len, lines)) <= columns
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800]|c0ffee", "\n".join(lines))


class Screen(io.StringIO):
    """A terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_text_is_folded_at_blanks_and_a_word_that_is_too_long_by_columns() -> None:
    assert fold("one two three", 7) == ["one two", "three"]
    assert fold("一二三四 x", 5) == ["一二", "三四", "x"]
    assert fold("a" * 7, 3) == ["aaa", "aaa", "a"]
    assert fold("", 3) == [""]


def test_of_a_long_text_people_see_the_beginning() -> None:
    found = told(ALONE, "x" * 100_000)
    assert len(found["unconnected"]) == 100_000
    assert len(shown(found)[1]) < MAX_TEXT + 20
