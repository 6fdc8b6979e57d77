"""What comes from the service or from somebody in its place: messages, answers over HTTPS, job documents."""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tests.fuzz.harness import depth_of, hold, of_json, of_lines, sentence

from thingjobs import wire
from thingjobs.documents import AWS_STEPS, Asked, route
from thingjobs.documents.reference import BUILT_INS
from thingjobs.errors import DocumentError, TransportError, WireError
from thingjobs.jobs import (
    Describe,
    Described,
    DescribeNext,
    GetPending,
    ListChanged,
    NextChanged,
    Pending,
    Refusal,
    Refused,
    Updated,
)
from thingjobs.jobs import Update as UpdateRequest
from thingjobs.judging import fits
from thingjobs.model import JOB_ID_PATTERN, Code, JobId, Status, ThingName
from thingjobs.transport import https_wire
from thingjobs.transport.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from thingjobs.jobs import Reply, Request
    from thingjobs.model import Execution, Identity, Json

#: A file name, in all file systems.
PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")
UPDATE = UpdateRequest("t", JobId("j"), 1, 3, Status.IN_PROGRESS, details={}, step_timeout_minutes=5)
REQUESTS: tuple[Request, ...] = (
    GetPending("t"),
    DescribeNext("t"),
    Describe("t", JobId("j"), 1, with_document=True),
    UPDATE,
)

DETAILS = {"agent": "thingjobs/0", "stdout": "line one\nline two", "slot": "b"}
EXECUTION = {
    "jobId": "update-7",
    "executionNumber": 1,
    "queuedAt": 1735689600,
    "versionNumber": 3,
    "status": "IN_PROGRESS",
    "statusDetails": DETAILS,
    "approximateSecondsBeforeTimedOut": 60,
    "jobDocument": {"handler": "firmware", "params": {"slot": "b"}},
}
STATE = {"status": "SUCCEEDED", "versionNumber": 4, "statusDetails": DETAILS}
SUMMARY = {"jobId": "a", "queuedAt": 1735689600, "lastUpdatedAt": 1735689600, "executionNumber": 1, "versionNumber": 1}
MESSAGES = (
    {"clientToken": "t", "timestamp": 1735689600, "execution": EXECUTION},
    {"clientToken": "t", "inProgressJobs": [SUMMARY], "queuedJobs": [SUMMARY, SUMMARY]},
    {"clientToken": "t", "executionState": STATE, "jobDocument": {"operation": "reboot"}, "timestamp": 1},
    {"clientToken": "t", "code": "VersionMismatch", "message": "stale", "executionState": STATE},
    {"timestamp": 1, "jobs": {"QUEUED": [SUMMARY], "IN_PROGRESS": []}},
    {"code": "InvalidJson", "message": "no", "Output": {"__type": "com.amazonaws#UnknownOperationException"}},
)


# --- over MQTT ----------------------------------------------------------------------------------------------------


def check_message(data: bytes) -> None:
    """Whatever a broker sends is a message of the service, or a WireError."""
    try:
        body = wire.parse(data)
    except WireError as error:
        sentence(str(error))
        return
    wire.token_of(body)
    wire.is_of_message(body)
    decoders: list[Callable[[Json], object]] = [wire.decode_next, wire.decode_list]
    for request in REQUESTS:
        decoders += [lambda body, r=request: wire.decode_accepted(r, body)]  # type: ignore[misc]
        decoders += [lambda body, r=request: wire.decode_refused(r, body)]  # type: ignore[misc]
    for decode in decoders:
        try:
            found = decode(body)
        except WireError as error:
            sentence(str(error))
        else:
            _hold(found)


def _hold(found: object) -> None:
    """Hold that what was understood is within its limits."""
    match found:
        case Described(_, execution):
            _hold_execution(execution)
        case Updated(_, state, document):
            _hold_document(document)
            _hold_details(state.details if state else {})
        case Refused(_, _, _, state, _):
            _hold_details(state.details if state else {})
        case NextChanged(execution):
            _hold_execution(execution)
        case Pending() | ListChanged():
            for summary in (*found.in_progress, *found.queued):
                _hold_identity(summary.identity)
        case _:
            raise AssertionError(found)


def _hold_execution(execution: Execution | None) -> None:
    if execution is not None:
        _hold_identity(execution.identity)
        _hold_document(execution.document)
        _hold_details(execution.details)
        assert type(execution.version) is int


def _hold_identity(identity: Identity) -> None:
    assert JOB_ID_PATTERN.fullmatch(identity.job_id)
    assert PLAIN_NAME.fullmatch(identity.key), identity.key
    assert not identity.key.startswith(".")


def _hold_document(document: Json | None) -> None:
    if document is not None:
        assert depth_of(document) <= wire.MAX_DOCUMENT_DEPTH
        json.dumps(document, allow_nan=False)


def _hold_details(details: Mapping[str, str]) -> None:
    """Hold that of any details some are made that the service stores, and that nothing else of a report is lost."""
    legal = wire.legal_details({"agent": "thingjobs", "reason": "x"}, details)
    assert len(legal) <= wire.MAX_PAIRS
    assert legal["agent"] == "thingjobs"
    for key, value in legal.items():
        assert re.fullmatch(r"[a-zA-Z0-9:_-]{1,128}", key)
        assert 1 <= len(value.encode()) <= wire.MAX_VALUE_BYTES
        assert not any(unicodedata.category(char).startswith("C") for char in value)
    sent = wire.encode(replace(UPDATE, details=legal))
    assert len(sent) <= wire.MAX_PAYLOAD_BYTES
    assert wire.parse(sent)["statusDetails"] == legal


TOPICS = (
    ("notify-next", MESSAGES[0]),
    ("$next/get/accepted", MESSAGES[0]),
    ("j/get/accepted", MESSAGES[0]),
    ("get/accepted", MESSAGES[1]),
    ("j/update/accepted", MESSAGES[2]),
    ("j/update/rejected", MESSAGES[3]),
    ("notify", MESSAGES[4]),
    ("get/rejected", MESSAGES[5]),
)


def check_topics(data: bytes) -> None:
    """Whatever comes on whatever topic, it answers what is open there, tells news, or is left out."""
    topic, _, payload = data.partition(b"\n")
    for request in REQUESTS:
        topics = Topics(ThingName("pump-7"))
        asked, _ = topics.outgoing(request)
        name = "$aws/things/pump-7/jobs/" + topic.decode("utf-8", "replace")
        try:
            found = topics.incoming(name, payload)
        except WireError as error:
            sentence(str(error))
            continue
        if found is None:
            continue
        _hold(found)
        if not isinstance(found, (NextChanged, ListChanged)):
            assert name in (f"{asked}/accepted", f"{asked}/rejected")
            assert topics.incoming(name, payload) is None, "one request is answered twice"


# --- over HTTPS ---------------------------------------------------------------------------------------------------

#: Statuses and headers, by the first byte of an input.
ANSWERS: tuple[tuple[int, Mapping[str, str]], ...] = (
    (200, {"content-type": "application/json"}),
    (200, {}),
    (400, {"x-amzn-errortype": "InvalidStateTransitionException:http://x"}),
    (409, {"x-amzn-requestid": "r"}),
    (403, {"content-type": "text/html"}),
    (500, {"x-amzn-errortype": "\ud800#InternalFailure"}),
    (302, {"location": "http://portal"}),
)


def check_https(data: bytes) -> None:
    """Whatever answers is the service with a reply, or an error that says who answered."""
    status, headers = ANSWERS[(data[-1] if data else 0) % len(ANSWERS)]
    for body in (data, data[:-1]):
        for request in REQUESTS:
            try:
                reply: Reply = https_wire.read(request, https_wire.Answer(status, headers, body))
            except (WireError, TransportError) as error:
                hold(str(error), "it does not say why")
                continue
            assert reply.token == "t"
            _hold(reply)
            if https_wire.doubt(request, reply) is not None and isinstance(reply, Refused):
                https_wire.settled(UPDATE, reply, reply)
            for found in (Refusal.INVALID_REQUEST, Refusal.VERSION_MISMATCH):
                _hold(https_wire.settled(UPDATE, Refused("t", found, ""), reply))


# --- documents ----------------------------------------------------------------------------------------------------


@dataclass
class OneDevice:
    """A device with one handler, two scripts and one account."""

    thing: str = "pump-7"
    facts: Mapping[str, str] = field(default_factory=lambda: {"thingName": "pump-7", "site": "north"})
    scripts_shown: str = "/srv/scripts"

    def has_handler(self, name: str) -> bool:
        return name == "firmware"

    def script(self, name: str) -> str | None:
        assert "/" not in name
        assert name not in ("", ".", "..")
        assert name.isprintable()
        return f"/srv/scripts/{name}" if name in ("mine.sh", "x" * 2000) else None

    def check_user(self, user: str) -> None:
        assert user.isprintable()
        if user != "operator":
            raise DocumentError(Code.USER_UNKNOWN, "there is no such user")


def _step(name: str, kind: str, given: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"action": {"name": name, "type": kind, "input": given, **more}}


DOCUMENTS: tuple[dict[str, Any], ...] = (
    {"handler": "firmware", "params": {"slot": "b"}, "version": ">=1.2,<2", "mode": "check"},
    {
        "version": "1.0",
        "includeStdOut": "true",
        "conditions": [{"key": "site", "value": ["north"], "type": "stringEqual"}],
        "steps": [
            _step(
                "a", "runHandler", {"handler": "mine.sh", "args": ["b", "c"], "path": "default"}, runAsUser="operator"
            ),
            _step("b", "runHandler", {"handler": "install-packages.sh", "args": ["curl jq"]}, ignoreStepFailure="true"),
            _step("c", "runHandler", {"handler": "download-file.sh", "args": ["https://h/f?q", "/tmp/f"]}),
            _step("d", "runCommand", {"command": "echo,a\\,b, c"}, allowStdErr=3),
            _step("e", "runHandler", {"handler": "reboot.sh"}),
        ],
        "finalStep": _step("f", "runHandler", {"handler": "stop-services.sh", "args": ["nginx"]}),
        "_comment": "x",
    },
    {"operation": "mine", "args": ["a"], "path": "/srv/scripts", "includeStdOut": True},
    {"operation": "firmware", "slot": "b"},
)


def check_document(data: bytes) -> None:
    """Whatever a document says is a plan of checked names, or a refusal with a reason."""
    try:
        document = wire.document_of(data.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        return
    try:
        asked = route(document, OneDevice())
    except DocumentError as error:
        hold(isinstance(error.code, Code), error.code)
        sentence(error.reason)
        return
    assert isinstance(asked.handler, str)
    json.dumps(asked.params, allow_nan=False)
    if asked.handler == AWS_STEPS:
        _hold_plan(asked)
    if asked.version:
        with contextlib.suppress(DocumentError):
            fits("1.2", asked.version)


def _hold_plan(asked: Asked) -> None:
    kinds = {"run", "reboot", *(kind for kind, _ in BUILT_INS.values())}
    for step in asked.params["steps"]:
        assert step["kind"] in kinds, step
        assert step["user"] in (None, "operator")
        assert step["name"].isprintable()
        for text in step["argv"]:
            assert "\0" not in text
            text.encode()
        if step["kind"] not in ("run", "reboot", "download-file"):
            assert not any(text.startswith("-") or "/" in text or "*" in text for text in step["argv"])


HARNESSES = (
    of_json("wire", check_message, *MESSAGES),
    of_lines("topics", check_topics, *TOPICS),
    of_json("https", check_https, *MESSAGES),
    of_json("documents", check_document, *DOCUMENTS),
)
