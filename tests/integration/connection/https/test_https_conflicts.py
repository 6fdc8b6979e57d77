"""Conflicts over HTTPS, for which the API has several words: what is stored is asked for, and told as MQTT would."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from thingjobs.jobs import (
    Refusal,
    Refused,
    State,
    Update,
)
from thingjobs.model import Status, ThingName
from thingjobs.testing.web import Answer, WebJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Pki
    from tests.integration.connection.conftest import Device
    from tests.integration.connection.https.conftest import Asker

    from thingjobs.testing import JobsService
    from thingjobs.transport.https import HttpsTransport, Site

    Connect = Callable[..., Device[HttpsTransport]]

THING = ThingName("plant:a_7-b")
DOCUMENT = {"handler": "greet", "text": 'Grüße "aus" 東京 \\ 🚀'}
PATIENCE_SECONDS = 20.0


@pytest.fixture(
    params=[
        (400, "InvalidRequestException"),
        (409, "InvalidStateTransitionException"),
        (409, "VersionMismatchException"),
        (409, "ConflictException"),
        (409, "SomethingNew"),
    ]
)
def conflicting(
    request: pytest.FixtureRequest, service: JobsService, new_site: Callable[[int], Site], pki: Pki
) -> Iterator[Site]:
    """A server that says of a stale version that it is this."""
    with WebJobsService(service, tls=pki.server_tls(), conflict=request.param) as serving:
        yield new_site(serving.port)


def test_a_conflict_tells_what_is_stored_as_mqtt_would(
    service: JobsService, conflicting: Site, new_asker: Callable[[Site], Asker], update: Callable[..., Update]
) -> None:
    asker = new_asker(conflicting)
    service.create_job("greet", DOCUMENT, [THING])
    asker.ask(update("t", "greet", details={"claim": "mine"}))

    stale = asker.ask(update("t", "greet", 1, details={"claim": "mine"}))
    assert isinstance(stale, Refused)
    assert (stale.code, stale.state) == (Refusal.VERSION_MISMATCH, State(Status.IN_PROGRESS, 2, {"claim": "mine"}))

    asker.ask(update("t", "greet", 2, Status.SUCCEEDED))
    over = asker.ask(update("t", "greet", 2, Status.SUCCEEDED))
    assert isinstance(over, Refused)
    assert (over.code, over.state) == (Refusal.TERMINAL_STATE_REACHED, None)

    service.create_job("other", DOCUMENT, [THING])
    asker.ask(update("t", "other"))
    service.delete_job("other", force=True)
    gone = asker.ask(update("t", "other", 2))
    assert isinstance(gone, Refused)
    assert gone.code is Refusal.RESOURCE_NOT_FOUND


@pytest.mark.parametrize(
    ("status", "name", "code"),
    [
        (503, "ServiceUnavailableException", Refusal.INTERNAL_ERROR),
        (429, "ThrottlingException", Refusal.REQUEST_THROTTLED),
    ],
)
def test_a_conflict_that_nobody_can_explain_now_is_to_be_tried_again(
    web: WebJobsService,
    asker: Asker,
    refusal: Callable[[int, str], Answer],
    status: int,
    name: str,
    code: Refusal,
    update: Callable[..., Update],
) -> None:
    denial, instead = refusal(409, "InvalidStateTransitionException"), refusal(status, name)
    web.interpose(lambda call: denial if call.method == "POST" else instead)
    refused = asker.ask(update("t", "greet"))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.state) == (code, None)


def test_an_update_that_is_wrong_in_itself_is_told_from_one_that_came_too_late(
    service: JobsService, asker: Asker, update: Callable[..., Update]
) -> None:
    service.create_job("greet", DOCUMENT, [THING])
    refused = asker.ask(update("t", "greet", details={"a b": "c"}))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.state) == (Refusal.INVALID_REQUEST, None)
