"""What the doctor makes of what it sees: dates and clocks, disks, conversations, and the order of checks."""

from __future__ import annotations

import queue
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from thingjobs.clock import Reading
from thingjobs.doctor import rules
from thingjobs.doctor.findings import Check, Mark, carried_out, failed, ok, parted, skipped, warning
from thingjobs.doctor.local import _of_broken
from thingjobs.doctor.network import _about_trust, _explained, _of_proxy
from thingjobs.doctor.rules import Span, Stage, Talk, Times
from thingjobs.doctor.service import _NOT_SUBSCRIBED, _Ear
from thingjobs.jobs import Disconnected
from thingjobs.model import ThingName
from thingjobs.registry.handler import Handler, Listed
from thingjobs.transport.course import Course
from thingjobs.transport.link import Link
from thingjobs.transport.patience import Cause

NOW = 1_800_000_000.0
DAY = 86_400.0
YEAR = 365 * DAY
GOOD, PAST, FUTURE = Span(NOW - DAY, NOW + YEAR), Span(NOW - YEAR, NOW - DAY), Span(NOW + DAY, NOW + YEAR)
LINK = Link("iot.example", 8883, "pump-7", ThingName("pump-7"))


def times(ours: Span | None, theirs: Span | None, *, synchronised: bool = False, said: float | None = None) -> Times:
    return Times(Reading(NOW, 1000.0, synchronised=synchronised), ours, theirs, said)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (times(GOOD, GOOD), False),
        (times(PAST, GOOD), False),
        (times(GOOD, PAST), False),
        (times(PAST, PAST), True),
        (times(FUTURE, GOOD), True),
        (times(GOOD, FUTURE), True),
        (times(None, FUTURE), True),
        (times(PAST, None), False),
        (times(None, None), False),
        (times(FUTURE, FUTURE, synchronised=True), False),
        (times(FUTURE, FUTURE, synchronised=True, said=NOW + YEAR), True),
        (times(PAST, PAST, said=NOW + 60), False),
        (times(GOOD, GOOD, said=NOW - 2 * DAY), True),
    ],
)
def test_a_clock_is_wrong_by_the_services_word_or_where_certificates_cannot_be(given: Times, wrong: bool) -> None:
    assert given.clock_is_wrong is wrong
    assert (rules.of_clock(given).mark is Mark.FAILED) is wrong


def test_a_certificate_is_not_called_wrong_beside_a_clock_that_is() -> None:
    assert rules.of_dates(times(FUTURE, GOOD))[0] is None
    expired, _ = rules.of_dates(times(PAST, GOOD))
    assert expired is not None
    assert expired.mark is Mark.FAILED
    assert expired.text.endswith("UTC, if the clock is right")
    early, _ = rules.of_dates(times(FUTURE, GOOD, synchronised=True))
    assert early is not None
    assert "is valid only from " in early.text


def test_a_clock_that_is_some_minutes_off_is_a_warning_because_of_signatures() -> None:
    found = rules.of_clock(times(GOOD, GOOD, synchronised=True, said=NOW - 600))
    assert (found.mark, "AWS refuses signatures" in found.text) == (Mark.WARNING, True)


MOUNTS = r"""
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 21 0:25 / /run rw,nosuid - tmpfs tmpfs rw
31 21 0:26 / /var/lib rw - xfs /dev/vdb rw
32 31 0:27 / /var/lib/thing\040jobs rw - tmpfs none rw
33 21 0:28 / /var/lib rw master:2 - btrfs /dev/vdc rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", ("/", "ext4")),
        ("/home/x", ("/", "ext4")),
        ("/run", ("/run", "tmpfs")),
        ("/running", ("/", "ext4")),
        ("/var/lib/thingjobs", ("/var/lib", "btrfs")),
        ("/var/lib/thing jobs/state", ("/var/lib/thing jobs", "tmpfs")),
    ],
)
def test_the_file_system_of_a_path_is_the_last_one_mounted_nearest_to_it(path: str, found: tuple[str, str]) -> None:
    assert rules.mount_of(path, MOUNTS) == found


def test_a_state_folder_in_memory_is_wrong_and_one_in_a_container_a_warning() -> None:
    found = [rules.of_mount("/s", "/", kind) for kind in ("ext4", "tmpfs", "overlay")]
    assert [verdict and verdict.mark for verdict in found] == [None, Mark.FAILED, Mark.WARNING]


@pytest.mark.parametrize(
    ("free", "ours", "files", "mark"),
    [
        (1 << 40, 1 << 40, None, Mark.OK),
        (1 << 40, 1 << 40, 3, Mark.FAILED),
        (32 << 20, 32 << 20, 1000, Mark.WARNING),
        (0, 1 << 30, 1000, Mark.WARNING),
        (1 << 20, 1 << 20, 1000, Mark.FAILED),
    ],
)
def test_room_runs_out_in_bytes_and_in_files(free: int, ours: int, files: int | None, mark: Mark) -> None:
    assert rules.of_space("/s", free, ours, files).mark is mark


def test_what_depends_on_a_failure_is_skipped_with_the_first_cause_and_the_rest_goes_on() -> None:
    looked = []

    def look(name: str, *verdicts: object) -> Check:
        def looking() -> list[object]:
            looked.append(name)
            return list(verdicts)

        needs = {"tls": ("port", "clock"), "connect": ("tls",), "jobs": ("connect",)}.get(name, ())
        return Check(name, looking, needs)  # type: ignore[arg-type]

    checks = [
        look("clock", warning("slow")),
        look("port", failed("shut", "open it"), failed("and broken", "mend it")),
        *(look("tls", ok("x")), look("connect", ok("x")), look("jobs", ok("x")), look("state", skipped("who knows"))),
    ]
    found = [(one.check, one.mark, one.text) for one in carried_out(checks, lambda: True)]
    assert found == [
        ("clock", Mark.WARNING, "slow"),
        ("port", Mark.FAILED, "shut"),
        ("port", Mark.FAILED, "and broken"),
        *((name, Mark.SKIPPED, "because of port") for name in ("tls", "connect", "jobs")),
        ("state", Mark.SKIPPED, "who knows"),
    ]
    assert looked == ["clock", "port", "state"]


def test_a_problem_of_the_configuration_falls_apart_into_what_is_wrong_and_what_to_do() -> None:
    text, todo = parted("connection.ca: there is no file /x; put it there, or set connection.ca; see the guide")
    assert text == "connection.ca: there is no file /x"
    assert todo == "put it there, or set connection.ca; see the guide"


def test_our_own_agent_that_came_meanwhile_is_no_rival() -> None:
    taken = Talk(Stage.SUBSCRIBED, "taken over", Cause.TAKEN)
    assert rules.of_rival(taken, LINK, 3, agent_came=False).mark is Mark.FAILED
    assert rules.of_rival(taken, LINK, 3, agent_came=True).mark is Mark.WARNING
    lost = Talk(Stage.ANSWERED, "closed", Cause.LOST, again=True)  # Not every broker says that it is taken over.
    assert rules.of_rival(lost, LINK, 3, agent_came=True).mark is Mark.WARNING
    assert rules.of_connect(taken, LINK).mark is Mark.OK
    assert rules.of_jobs(taken, LINK).mark is Mark.SKIPPED


def test_whom_silence_kept_from_being_asked_is_not_told_of_the_connection() -> None:
    silent = Talk(Stage.SUBSCRIBED)
    assert rules.of_rival(silent, LINK, 3, agent_came=False) == skipped("because of jobs")
    assert "which `aws iot describe-thing --thing-name pump-7`" in rules.of_jobs(silent, LINK).todo


@pytest.mark.parametrize(
    ("said", "text", "todo"),
    [
        ("the proxy p:1 broke off: reset by peer; is it right?", " broke off: reset by peer", "see that kind"),
        ("the proxy p:1 cannot reach h:2 (502): check connection.endpoint", " h:2 (502)", "check connection.endpoint"),
    ],
)
def test_what_is_said_of_a_proxy_falls_apart_into_what_is_wrong_and_what_to_do(said: str, text: str, todo: str) -> None:
    found = _of_proxy(said)
    assert found.text.endswith(text)
    assert found.todo.startswith(todo)


@pytest.mark.parametrize(("ca", "said"), [(Path("/ca.pem"), "put the certificate"), (None, "set connection.ca to a")])
def test_an_authority_that_is_not_trusted_is_said_with_where_to_put_it(ca: Path | None, said: str) -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_message, error.verify_code = "self-signed certificate", 19
    link = replace(LINK, ca=ca)
    assert "None" not in _explained(error, link)
    assert _about_trust(error, link, times(None, None)).startswith(said)


def test_handlers_with_the_same_fault_are_named_together_and_others_by_themselves() -> None:
    python = "handler {0} cannot be used: x:{0} cannot be described: /bin/python cannot be started: Permission denied"
    listed = [Listed(name, "", None, python.format(name)) for name in ("a", "b")]
    listed += [Listed("c", "", None, "handler c cannot be used: manifest.json: no JSON; mend it")]
    known = Handler("d", "/h/d", ("/h/d",), "sha256:abc")
    listed += [Listed("d", "/h/d", known, "handler d cannot be used: what runs it is gone; install it")]
    listed += [Listed("e", "/h/d", known)]
    first, second, third = _of_broken(listed, "thingjobs")
    assert first.text == "none of a, b can be used: /bin/python cannot be started: Permission denied"
    assert first.todo.startswith("let the account thingjobs run that")
    assert (second.text, second.todo) == ("handler c cannot be used: manifest.json: no JSON", "mend it")
    assert (third.text, third.todo) == ("handler d cannot be used: what runs it is gone", "install it")


@pytest.mark.parametrize(("code", "cause"), [(0x8E, Cause.TAKEN), (0x8B, Cause.LOST)])
def test_a_rival_is_known_by_the_words_of_any_transport(code: int, cause: Cause) -> None:
    course, heard = Course(LINK), queue.SimpleQueue[object]()
    course.told_why(code, "as it is called")
    heard.put(Disconnected(course.reason))
    ear = _Ear(heard)
    assert ear.hear((), 5) is None
    assert ear.over is not None
    assert ear.over.cause is cause


def test_a_subscription_that_is_refused_is_known_by_the_words_of_any_transport() -> None:
    course = Course(LINK)
    course.asked = ["a", "b"]
    assert course.not_granted([1, 0x87])
    assert _NOT_SUBSCRIBED in course.reason


def test_one_connection_that_ends_is_a_warning_and_two_are_a_rival() -> None:
    once = Talk(Stage.ANSWERED, "closed", Cause.LOST)
    assert rules.of_rival(once, LINK, 3, agent_came=False).mark is Mark.WARNING
    twice = Talk(Stage.ANSWERED, "closed", Cause.LOST, again=True)
    assert rules.of_rival(twice, LINK, 3, agent_came=False).mark is Mark.FAILED
