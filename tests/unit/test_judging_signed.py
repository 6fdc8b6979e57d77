"""What the policy of a device makes of signed documents, and of those that are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.clock import once_right
from thingjobs.config.settings import Config, Connection, Handlers, Signed, Thing
from thingjobs.envelope import PAYLOAD_TYPE, Claims, Envelope, Signature, pae, sealed
from thingjobs.envelope.claims import written
from thingjobs.envelope.dsse import as_json
from thingjobs.envelope.keys import new_pair, signer, verifier
from thingjobs.errors import HandlerError
from thingjobs.fetch.rules import FetchError, parse_digest, promised
from thingjobs.judging import Judge
from thingjobs.model import Code, Plan, Result, ThingName
from thingjobs.registry import Handler, Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

pytest.importorskip("cryptography")

NOW = 1_800_000_000.0
PRIVATE, PUBLIC = new_pair()
SIGN, _ = signer(PRIVATE)
DIGEST = f"sha256:{'ab' * 32}"


class Shelf(Registry):
    """A registry with two handlers that take anything."""

    def __init__(self) -> None:
        super().__init__(())

    def get(self, name: str) -> Handler:
        if name not in ("firmware", "collect"):
            raise HandlerError(Code.HANDLER_UNKNOWN, f"there is no handler {name}")
        return Handler(name, "test", ("/bin/true",), "sha256:abc")


def judge(
    document: object, *, require: bool = True, unsigned: Sequence[str] = (), trusts: bool = True, now: float = NOW
) -> Any:
    config = Config(
        Thing(ThingName("pump-7")),
        Connection(""),
        handlers=Handlers(user=None),
        signed=Signed(require=require, unsigned=tuple(unsigned)),
    )
    keys = {"release": verifier(PUBLIC)} if trusts else {}
    return Judge(config, Shelf(), keys=keys, now=lambda: now).judge(document, "job-1")


def signed(document: dict[str, Any], **urls: str) -> dict[str, Any]:
    return sealed(Claims(document, NOW + 60, ("*",)), urls, "release", SIGN)


def code(verdict: object) -> object:
    return verdict.code if isinstance(verdict, Result) else verdict


FIRMWARE = {"handler": "firmware"}
COLLECT = {"handler": "collect"}


def test_a_device_that_demands_signatures_rejects_what_has_none_and_runs_what_has_one() -> None:
    refused = judge(FIRMWARE)
    assert code(refused) is Code.DOCUMENT_UNSIGNED
    assert refused.reason == "the job document is not signed, as this device demands; sign it with `thingjobs sign`"
    assert isinstance(judge(signed(FIRMWARE)), Plan)


COMMAND = {"action": {"name": "x", "type": "runCommand", "input": {"command": "id"}}}


@pytest.mark.parametrize("unsigned", [[], ["coll*"]])
@pytest.mark.parametrize(
    "document",
    [
        *({}, [], {"handler": 7}, {"handler": None}, {"version": "1.0", "steps": []}, {"operation": "x"}),
        *({"operation": 7}, {"handler": "Collect"}, {"handler": "COLLECT"}, {"handler": "firmware", "mode": "check"}),
        {"version": "1.0", "steps": [{"action": {**COMMAND["action"], "runAsUser": "nobody-of-that-name"}}]},
        {"version": "1.0", "steps": [COMMAND], "conditions": [{"key": "site", "value": ["north"]}]},
        {"handler": "firmware", "version": "1.0", "steps": [COMMAND], "operation": "collect"},
        {"steps": 7, "operation": "collect"},
        {"Signed": {}, "operation": "x"},
    ],
)
def test_what_nobody_vouches_for_is_not_looked_into_and_its_author_learns_nothing_of_the_device(
    document: object, unsigned: list[str]
) -> None:
    refused = judge(document, unsigned=unsigned)
    assert code(refused) is Code.DOCUMENT_UNSIGNED
    assert refused.reason == judge(FIRMWARE).reason


def test_of_what_may_come_without_a_signature_its_author_is_told_what_is_wrong() -> None:
    assert code(judge({"handler": "collect", "parms": {}}, unsigned=["collect"])) is Code.DOCUMENT_INVALID
    assert code(judge({"version": "1.0", "steps": []}, unsigned=["aws-steps"])) is Code.DOCUMENT_INVALID
    assert code(judge({"operation": "x"}, unsigned=["aws-steps"])) is Code.HANDLER_UNKNOWN
    assert code(judge({}, unsigned=["*"])) is Code.DOCUMENT_UNKNOWN


def test_the_operator_may_let_some_handlers_be_used_without_a_signature() -> None:
    assert isinstance(judge(COLLECT, unsigned=["coll*"]), Plan)
    assert code(judge(FIRMWARE, unsigned=["coll*"])) is Code.DOCUMENT_UNSIGNED
    steps = {"version": "1.0", "steps": [{"action": {"name": "x", "type": "runCommand", "input": {"command": "id"}}}]}
    assert code(judge(steps, unsigned=["coll*"])) is Code.DOCUMENT_UNSIGNED


def test_without_that_demand_both_will_do_but_a_signature_must_be_right_wherever_there_is_one() -> None:
    assert isinstance(judge(FIRMWARE, require=False), Plan)
    assert isinstance(judge(signed(FIRMWARE), require=False), Plan)
    assert code(judge(signed(FIRMWARE), require=False, trusts=False)) is Code.DOCUMENT_SIGNATURE
    assert code(judge({**signed(FIRMWARE), "handler": "collect"}, require=False)) is Code.DOCUMENT_INVALID
    assert code(judge({"signed": None, **COLLECT}, unsigned=["*"])) is Code.DOCUMENT_INVALID
    assert code(judge({"signed": None}, unsigned=["*"])) is Code.DOCUMENT_SIGNATURE


def test_a_signature_is_held_against_this_thing_this_job_and_the_time() -> None:
    assert code(judge(signed(FIRMWARE), now=NOW + 60)) is Code.DOCUMENT_EXPIRED
    for claims in (Claims(FIRMWARE, NOW + 60, ("lamp-*",)), Claims(FIRMWARE, NOW + 60, job="job-2")):
        assert code(judge(sealed(claims, {}, "release", SIGN))) is Code.DOCUMENT_MISDIRECTED


def test_a_signed_document_within_a_signed_one_is_no_document() -> None:
    payload = written(Claims(signed(FIRMWARE), NOW + 60, ("*",)))
    signature = Signature("release", SIGN(pae(PAYLOAD_TYPE, payload)))
    document = {"signed": as_json(Envelope(PAYLOAD_TYPE, payload, (signature,)))}
    assert code(judge(document)) is Code.DOCUMENT_UNKNOWN


def test_a_placeholder_that_aws_did_not_replace_is_told_as_ever_and_no_reason_shows_a_query() -> None:
    document = {"handler": "firmware", "params": {"image": {"$url": "image", "digest": DIGEST}}}
    left = signed(document, image="${aws:iot:s3-presigned-url:https://s3.amazonaws.com/b/k}")
    assert code(judge(left)) is Code.DOCUMENT_PLACEHOLDER
    wrong = judge({**signed(document, image="https://s3/x"), "urls": {"image": "https://s3/x?secret=1", "n": "y"}})
    assert "secret" not in wrong.reason


def test_a_url_with_a_digest_behind_it_is_held_to_that_and_to_no_other() -> None:
    url, hexadecimals = "https://s3/x?y=z", "ab" * 32
    assert promised(url, "") == parse_digest("")
    assert promised(url, DIGEST) == parse_digest(DIGEST)
    assert promised(f"{url}#sha256={hexadecimals}", "") == parse_digest(DIGEST)
    assert promised(f"{url}#sha256={hexadecimals}", DIGEST) == parse_digest(DIGEST)
    with pytest.raises(FetchError, match=r"the job document says sha256:ab.* of the file at https://s3/x, and"):
        promised(f"{url}#sha256={hexadecimals}", f"sha256:{'cd' * 32}")
    for wrong in ("", hexadecimals[1:], f"{hexadecimals}#sha256={'cd' * 32}", hexadecimals + "\n"):
        with pytest.raises(FetchError, match="the digest cannot be used"):
            promised(f"{url}#sha256={wrong}\0", "")


def test_a_clock_that_was_right_once_is_trusted_from_then_on() -> None:
    answers = iter([False, True, False])
    now = once_right(lambda: next(answers))
    assert now() is None
    assert now() is not None
    assert now() is not None
    assert next(answers) is False, "nobody asked again"
