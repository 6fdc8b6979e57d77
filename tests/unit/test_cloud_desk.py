"""The agent's side of `ctx.cloud`: who is answered, with what, and how often AWS is asked."""

from __future__ import annotations

import queue
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.unit.plans import PLAN

from thingjobs import cloud_desk
from thingjobs.cloud.credentials import Credentials, Issued
from thingjobs.cloud.errors import CloudError, Fate, Trouble
from thingjobs.cloud_desk import Answered, Desk
from thingjobs.errors import StateError
from thingjobs.model import Identity, JobId, Phase, Record
from thingjobs.runner.events import Wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.machine.state import Job

ONE, TWO = Identity(JobId("one"), 1, 0), Identity(JobId("two"), 1, 0)
MOST_SECONDS = 10


class Office:
    """A desk with its queue, AWS behind it, and the handlers before it."""

    def __init__(self, *, handlers: tuple[str, ...] = ("*",)) -> None:
        self.inbox: queue.SimpleQueue[Answered] = queue.SimpleQueue()
        self.now = 1000.0
        self.aws: list[Issued | Exception] = []
        self.asked = 0
        self.gate = threading.Event()
        self.gate.set()
        self.given: list[tuple[Identity, Any]] = []
        self.broken = False
        self.desk = Desk(handlers, lambda: self.source, self.inbox.put, clock=lambda: self.now)
        plan = replace(PLAN, needs=frozenset({"cloud"}))
        self.jobs = {identity: self.job(identity, plan) for identity in (ONE, TWO)}

    @staticmethod
    def job(identity: Identity, plan: Any) -> Job:
        return cast("Job", SimpleNamespace(record=Record(identity, Phase.APPLYING, "", 1, plan, {})))

    def source(self) -> Issued:
        self.asked += 1
        assert self.gate.wait(MOST_SECONDS)
        found = self.aws.pop(0) if self.aws else issued(f"ASIA{self.asked}")
        if isinstance(found, Exception):
            raise found
        return found

    def want(self, identity: Identity = ONE, refused: str = "") -> None:
        """A handler asks."""
        self.desk.take(Wanted(identity, refused), self.jobs, self.give)

    def settle(self) -> list[tuple[Identity, Any]]:
        """Take what comes of asking; return what was given since."""
        self.desk.take(self.inbox.get(timeout=MOST_SECONDS), self.jobs, self.give)
        given, self.given = self.given, []
        return given

    def answer(self, identity: Identity = ONE, refused: str = "") -> Any:
        """Ask, and return the one answer."""
        self.want(identity, refused)
        ((whose, answer),) = self.settle()
        assert whose == identity
        return answer

    def give(self, record: Record, answer: Any) -> None:
        if self.broken:
            raise StateError("cannot write job.json anew: no space left on device")
        self.given.append((record.identity, answer))


def issued(key: str = "ASIA1", life: float | None = 3600.0) -> Issued:
    return Issued(Credentials(key, "hush", "hush/token"), life)


def denied(text: str = "cannot get credentials for the role alias x: AWS IoT answers 403") -> CloudError:
    return CloudError(text, Trouble.DENIED, Fate.NOT_SENT, status=403)


@pytest.fixture
def office() -> Office:
    return Office()


def test_a_handler_gets_credentials_and_how_long_they_live(office: Office) -> None:
    answer = office.answer()

    assert answer == {
        "credentials": {
            "accessKeyId": "ASIA1",
            "secretAccessKey": "hush",
            "sessionToken": "hush/token",
            "expiration": "",
            "lifeSeconds": 3600.0,
        }
    }


def test_their_life_is_counted_from_when_they_came(office: Office) -> None:
    office.answer()
    office.now += 100

    assert office.answer(TWO)["credentials"]["lifeSeconds"] == 3500
    assert office.asked == 1


def test_credentials_that_never_die_have_no_end(office: Office) -> None:
    office.aws = [issued(life=None)]

    assert office.answer()["credentials"]["lifeSeconds"] is None


def test_many_questions_at_once_are_one_question_of_one_thread(office: Office) -> None:
    office.gate.clear()
    for _ in range(50):
        office.want(ONE)
        office.want(TWO)
    office.gate.set()

    given = office.settle()

    assert {identity for identity, _ in given} == {ONE, TWO}
    assert (len(given), office.asked, office.inbox.empty()) == (2, 1, True)


def test_old_credentials_are_renewed_before_they_die(office: Office) -> None:
    office.answer()
    office.now += 3595

    assert office.answer()["credentials"]["accessKeyId"] == "ASIA2"


def test_why_there_are_none_is_an_answer_too(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    office.aws = [denied()]

    answer = office.answer()

    assert answer == {"problem": str(denied()), "trouble": "denied"}
    assert [line.getMessage() for line in caplog.records] == [f"no AWS credentials for handlers: {denied()}"]


def test_a_handler_that_asks_in_a_loop_makes_aws_no_loop(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    office.aws = [denied() for _ in range(100)]
    for _ in range(120):
        assert office.answer()["problem"] == str(denied())
        office.now += 1

    assert 4 <= office.asked <= 10
    assert len(caplog.records) == 1


def test_after_a_failure_there_are_credentials_as_soon_as_aws_gives_some(office: Office) -> None:
    office.aws = [denied(), denied("cannot get credentials: no route to host")]
    office.answer()
    office.now += 2
    assert office.answer()["problem"] == "cannot get credentials: no route to host"
    office.now += 4

    assert office.answer()["credentials"]["accessKeyId"] == "ASIA3"
    office.now += 1
    assert "credentials" in office.answer()


def test_a_bug_is_an_answer_too(office: Office) -> None:
    office.aws = [ZeroDivisionError("division by zero")]

    assert office.answer() == {
        "problem": "cannot get credentials: ZeroDivisionError: division by zero",
        "trouble": "unavailable",
    }


def test_what_a_service_refuses_is_given_up_but_not_when_it_is_young(office: Office) -> None:
    office.answer()
    assert office.answer(refused="ASIA1")["credentials"]["accessKeyId"] == "ASIA1"
    office.now += cloud_desk.YOUNGEST_REFUSED

    assert office.answer(refused="ASIA0")["credentials"]["accessKeyId"] == "ASIA1"
    assert office.answer(refused="ASIA1")["credentials"]["accessKeyId"] == "ASIA2"
    assert office.answer(refused="ASIA1")["credentials"]["accessKeyId"] == "ASIA2"


def test_a_handler_that_does_not_need_the_cloud_gets_nothing(office: Office) -> None:
    office.jobs[ONE] = office.job(ONE, PLAN)

    office.want(ONE)
    office.want(Identity(JobId("gone"), 1, 0))

    assert (office.given, office.asked, office.desk._thread) == ([], 0, None)


def test_a_handler_that_may_not_have_credentials_any_more_is_told_so_at_once() -> None:
    office = Office(handlers=("another",))

    office.want()

    ((_, answer),) = office.given
    assert answer["problem"].endswith("is not listed in [cloud] handlers on this device")
    assert (answer["trouble"], office.asked) == ("denied", 0)


def test_a_job_that_is_over_is_not_answered(office: Office) -> None:
    office.want()
    del office.jobs[ONE]

    assert office.settle() == []


def test_an_answer_that_cannot_be_written_does_not_keep_others_from_theirs(office: Office) -> None:
    office.broken = True
    office.want()
    assert office.settle() == []
    office.broken = False

    assert "credentials" in office.answer(TWO)


def test_a_machine_without_a_thread_to_spare_says_so(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        office.want()

    ((_, answer),) = office.given
    assert "no thread left" in answer["problem"]
    office.given = []
    assert "credentials" in office.answer()


def test_no_thread_stays_when_the_agent_ends(office: Office, eventually_ends: Callable[[str], bool]) -> None:
    office.want()
    office.desk.stop()

    assert eventually_ends("cloud credentials")


def test_an_agent_that_ends_does_not_wait_for_aws(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_desk, "STOP_SECONDS", 0.01)
    office.gate.clear()
    office.want()

    office.desk.stop()

    assert office.desk._thread
    assert office.desk._thread.daemon
    assert office.desk._thread.is_alive()
    office.gate.set()
    office.desk._thread.join(MOST_SECONDS)


@pytest.fixture
def eventually_ends() -> Callable[[str], bool]:
    def ended(name: str) -> bool:
        for thread in threading.enumerate():
            if thread.name == name:
                thread.join(MOST_SECONDS)
        return name not in {thread.name for thread in threading.enumerate()}

    return ended


def test_what_came_of_asking_shows_no_secret() -> None:
    assert "hush" not in repr(Answered({"credentials": {"secretAccessKey": "hush"}}))
