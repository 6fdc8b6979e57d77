"""What the doctor makes of what it sees: dates and clocks, disks, conversations, and the order of checks."""

from __future__ import annotations

import pytest

from thingjobs.clock import Reading
from thingjobs.doctor import rules
from thingjobs.doctor.findings import Check, Mark, carried_out, failed, of_problem, ok, skipped, warning
from thingjobs.doctor.rules import Span, Stage, Talk, Times
from thingjobs.model import ThingName
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
    found = of_problem("connection.ca: there is no file /x; put it there, or set connection.ca; see the guide")
    assert found.text == "connection.ca: there is no file /x"
    assert found.todo == "put it there, or set connection.ca; see the guide"


def test_our_own_agent_that_came_meanwhile_is_no_rival() -> None:
    taken = Talk(Stage.SUBSCRIBED, "taken over", Cause.TAKEN)
    assert rules.of_rival(taken, LINK, 3, agent_came=False).mark is Mark.FAILED
    assert rules.of_rival(taken, LINK, 3, agent_came=True).mark is Mark.WARNING
    assert rules.of_connect(taken, LINK).mark is Mark.OK
    assert rules.of_jobs(taken, LINK).mark is Mark.SKIPPED


def test_one_connection_that_ends_is_a_warning_and_two_are_a_rival() -> None:
    once = Talk(Stage.ANSWERED, "closed", Cause.LOST)
    assert rules.of_rival(once, LINK, 3, agent_came=False).mark is Mark.WARNING
    twice = Talk(Stage.ANSWERED, "closed", Cause.LOST, again=True)
    assert rules.of_rival(twice, LINK, 3, agent_came=False).mark is Mark.FAILED
