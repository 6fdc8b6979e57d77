"""Polling, which finds over HTTPS what MQTT would notify of: when, for what, and what a refusal does to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from thingjobs.jobs import (
    Connected,
    Describe,
    Disconnected,
    GetPending,
    ListChanged,
    NextChanged,
    Pending,
    Refusal,
    Refused,
    Update,
    Updated,
)
from thingjobs.model import JobId, Status, ThingName
from thingjobs.transport.https import HttpsTransport, Polls

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.connection.conftest import Device

    from thingjobs.testing import JobsService
    from thingjobs.testing.web import Answer, Call, WebJobsService

    Connect = Callable[..., Device[HttpsTransport]]

THING = ThingName("plant:a_7-b")
DOCUMENT = {"handler": "greet", "text": 'Grüße "aus" 東京 \\ 🚀'}
PATIENCE_SECONDS = 20.0


def test_polls_come_early_rather_than_late_and_at_growing_distances_when_refused() -> None:
    polls = Polls(idle=900.0, busy=300.0)
    assert (polls.after(busy=False, refused=0, roll=0.0), polls.after(busy=False, refused=0, roll=1.0)) == (600, 900)
    assert (polls.after(busy=True, refused=0, roll=0.0), polls.after(busy=True, refused=0, roll=1.0)) == (200, 300)
    assert [polls.after(busy=False, refused=tries, roll=1.0) for tries in (1, 2, 3, 9)] == [30, 60, 120, 900]
    assert Polls(idle=60.0, busy=300.0).after(busy=True, refused=0, roll=1.0) == 60


def asked(web: WebJobsService) -> list[str]:
    """Return what was asked, without the beginning that all have in common."""
    return [f"{call.method} {call.path.partition('/jobs')[2]}" for call in web.calls]


SOON = Polls(idle=0.3, busy=0.3)


def test_a_new_job_is_found_by_a_poll_and_told_as_a_notification(service: JobsService, connect: Connect) -> None:
    device = connect(polls=SOON)
    device.next(Connected)
    assert device.next(NextChanged).execution is None
    service.create_job("greet", DOCUMENT, [THING])
    while (execution := device.next(NextChanged).execution) is None:
        pass
    assert (execution.identity.job_id, execution.document) == ("greet", DOCUMENT)


def test_while_something_is_in_progress_the_list_is_polled_and_shows_that_it_was_cancelled(
    web: WebJobsService, service: JobsService, connect: Connect, update: Callable[..., Update]
) -> None:
    service.create_job("greet", DOCUMENT, [THING])
    device = connect(polls=Polls(idle=3600.0, busy=0.3))
    device.next(Connected)
    device.send(update("t1", "greet"))
    device.skip_to(Updated)
    before = len(web.calls)
    changed = device.next(ListChanged)
    assert [summary.identity.job_id for summary in changed.in_progress] == ["greet"]
    assert asked(web)[before:] == ["GET "]
    service.cancel_job("greet", force=True)
    while device.next(ListChanged).in_progress:
        pass
    device.send(Describe("t2", JobId("greet"), 1))
    assert device.skip_to(Refused).code is Refusal.TERMINAL_STATE_REACHED
    before = len(web.calls)
    time.sleep(0.5)  # polls that do not come cannot be waited for; they would come every 0.3 s
    assert len(web.calls) == before, "nothing is in progress any more"


def test_after_a_terminal_update_the_head_is_asked_for_at_once_and_requests_go_first(
    web: WebJobsService, service: JobsService, connect: Connect, update: Callable[..., Update]
) -> None:
    for job_id in ("a", "b"):
        service.create_job(job_id, DOCUMENT, [THING])
    device = connect()
    device.next(Connected)
    device.send(update("t1", "a"))
    device.send(update("t2", "a", 2, Status.SUCCEEDED))
    device.send(GetPending("t3"))
    assert [device.next(Updated).token, device.next(Updated).token, device.next(Pending).token] == ["t1", "t2", "t3"]
    head = device.next(NextChanged).execution
    assert head is not None
    assert head.identity.job_id == "b"
    assert asked(web) == ["GET ", "POST /a", "POST /a", "GET ", "GET /%24next"]


def test_a_poll_that_is_refused_is_tried_again_soon_and_then_later(
    web: WebJobsService,
    service: JobsService,
    connect: Connect,
    refusal: Callable[[int, str], Answer],
    update: Callable[..., Update],
    eventually: Callable[..., object],
) -> None:
    service.create_job("greet", DOCUMENT, [THING])
    device = connect(polls=Polls(idle=3600.0, busy=3600.0), roll=0.005)
    device.next(Connected)
    polls: list[float] = []

    def throttle(call: Call) -> Answer | None:
        if not call.path.endswith("next"):
            return None
        polls.append(time.monotonic())
        return refusal(429, "ThrottlingException")

    remove = web.interpose(throttle)
    device.send(update("t1", "greet", status=Status.SUCCEEDED))
    device.next(Updated)
    eventually(lambda: len(polls) == 3)
    remove()
    device.next(NextChanged)
    # With this roll it waits 0.15 s, and then 0.3 s; never an hour.
    assert polls[1] - polls[0] > 0.14
    assert polls[2] - polls[1] > 0.29


def test_a_poll_that_is_denied_ends_the_connection(
    web: WebJobsService, connect: Connect, refusal: Callable[[int, str], Answer]
) -> None:
    device = connect(polls=SOON)
    device.next(Connected)
    web.interpose(lambda _call: refusal(403, "ForbiddenException"))
    assert "denies DescribeJobExecution" in device.skip_to(Disconnected).reason
