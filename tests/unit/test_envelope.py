"""Signed documents: what is let in, and that nothing else is."""

from __future__ import annotations

import base64
import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingjobs.envelope import PAYLOAD_TYPE, Claims, Here, opened, pae, sealed
from thingjobs.envelope.claims import moment, seconds_of, written
from thingjobs.envelope.keys import new_pair, signer, verifier
from thingjobs.errors import DocumentError, StateError
from thingjobs.model import Code

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip("cryptography")

NOW = 1_800_000_000.0
DAY = 86_400.0
DIGEST = f"sha256:{'ab' * 32}"
IMAGE = "https://bucket.s3.amazonaws.com/fw.bin?X-Amz-Signature=1"
DOCUMENT = {"handler": "firmware", "params": {"image": {"$url": "image", "digest": DIGEST}, "slot": "b"}}
HERE = Here("pump-7", "fw-42", NOW)

PRIVATE, PUBLIC = new_pair()
SIGN, _ = signer(PRIVATE)
ED_PRIVATE, ED_PUBLIC = new_pair(ed25519=True)
KEYS = {"release": verifier(PUBLIC), "other": verifier(new_pair()[1])}


def claims(**changes: Any) -> Claims:
    return Claims(**{"document": DOCUMENT, "not_after": NOW + DAY, "things": ("pump-*",), **changes})


def signed(made: Claims | None = None, **urls: str) -> dict[str, Any]:
    return sealed(made or claims(), urls or {"image": IMAGE}, "release", SIGN)


def of_payload(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> dict[str, Any]:
    """Return a document whose payload is signed as it is, whatever it says."""
    signature = base64.b64encode(SIGN(pae(payload_type, payload))).decode()
    made = {"payloadType": payload_type, "payload": base64.b64encode(payload).decode()}
    return {"signed": {**made, "signatures": [{"keyid": "release", "sig": signature}]}}


def refusal(document: dict[str, Any], here: Here = HERE, keys: Any = KEYS) -> tuple[Code, str]:
    with pytest.raises(DocumentError) as refused:
        opened(document, keys, here)
    return refused.value.code, refused.value.reason


def changed(document: dict[str, Any], change: Callable[[Any], object]) -> dict[str, Any]:
    other = copy.deepcopy(document)
    change(other)
    return other


def test_what_was_signed_comes_out_with_the_urls_held_to_their_digests() -> None:
    found = opened(signed(), KEYS, HERE)
    assert found.key == "release"
    assert found.document["params"] == {"image": f"{IMAGE}#sha256={'ab' * 32}", "slot": "b"}
    assert found.not_after == NOW + DAY


def test_a_key_verifies_by_its_own_algorithm_and_by_no_other() -> None:
    """The envelope names no algorithm, so there is nothing to lie about; a key's name is a hint and no more."""
    edwards = {"release": verifier(ED_PUBLIC)}
    other = sealed(claims(), {"image": IMAGE}, "release", signer(ED_PRIVATE)[0])
    assert refusal(other)[0] is refusal(signed(), keys=edwards)[0] is Code.DOCUMENT_SIGNATURE
    assert opened(other, edwards, HERE).key == "release"
    as_numbers = base64.b64encode(b"".join(number.to_bytes(32, "big") for number in _numbers_of(signed())))
    raw = changed(signed(), lambda it: it["signed"]["signatures"][0].update(sig=as_numbers.decode()))
    assert refusal(raw)[0] is Code.DOCUMENT_SIGNATURE


def _numbers_of(document: dict[str, Any]) -> tuple[int, int]:
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    return decode_dss_signature(base64.b64decode(document["signed"]["signatures"][0]["sig"]))


def test_an_ed25519_key_will_do_as_well() -> None:
    sign, _ = signer(ED_PRIVATE)
    document = sealed(claims(), {"image": IMAGE}, "edwards", sign)
    assert opened(document, {"edwards": verifier(ED_PUBLIC)}, HERE).key == "edwards"


def test_one_right_signature_among_several_is_enough_and_is_the_one_that_is_named() -> None:
    wrong = {"keyid": "other", "sig": base64.b64encode(b"x" * 70).decode()}
    document = changed(signed(), lambda it: it["signed"]["signatures"].insert(0, wrong))
    assert opened(document, KEYS, HERE).key == "release"


def test_a_signature_without_a_key_id_is_tried_with_every_key() -> None:
    document = changed(signed(), lambda it: it["signed"]["signatures"][0].pop("keyid"))
    assert opened(document, KEYS, HERE).key == "release"


def test_both_alphabets_of_base64_are_read_and_fields_that_dsse_does_not_know_are_passed_over() -> None:
    document = signed(claims(document={**DOCUMENT, "_": ">>>>>?????"}))
    envelope = document["signed"]
    assert {"+", "/"} <= set(envelope["payload"])
    for holder, part in ((envelope, "payload"), (envelope["signatures"][0], "sig")):
        holder[part] = holder[part].replace("+", "-").replace("/", "_")
    envelope["signatures"][0]["cert"] = "…"
    assert opened(document, KEYS, HERE).key == "release"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda it: it["signed"].pop("payload"), "signed.payload must be base64, not null"),
        (lambda it: it["signed"].update(payload="e30"), "signed.payload is not base64"),
        (lambda it: it["signed"].update(payload=""), "signed.payload is not base64, or is empty"),
        (lambda it: it["signed"].update(payload="ü==="), "signed.payload is not base64"),
        (lambda it: it["signed"].update(payload="A" * 120_000), "must not have more than 65536 bytes"),
        (lambda it: it["signed"].update(payloadType="text/plain"), "signed.payloadType must be"),
        (lambda it: it["signed"].update(payloadType=7), "which this agent understands, not a number"),
        (lambda it: it["signed"].update(signatures=[]), "must be a list of 1 to 8"),
        (lambda it: it["signed"].update(signatures=it["signed"]["signatures"] * 9), "must be a list of 1 to 8"),
        (lambda it: it["signed"].update(signatures=["x"]), "signatures[0] must be a JSON object"),
        (lambda it: it["signed"]["signatures"][0].update(keyid=1), "keyid must be a string"),
        (lambda it: it["signed"]["signatures"][0].update(sig=""), "signatures[0].sig is not base64"),
        (lambda it: it["signed"]["signatures"][0].update(keyid="other"), 'the signature by "other" is wrong'),
        (lambda it: it["signed"]["signatures"][0].update(keyid="x"), 'signed by "x", and the keys that this device'),
        (lambda it: it.update(signed="x"), "signed must be a DSSE envelope, not a string"),
    ],
)
def test_an_envelope_that_proves_nothing_is_refused_with_the_reason(change: Any, part: str) -> None:
    code, reason = refusal(changed(signed(), change))
    assert code is Code.DOCUMENT_SIGNATURE
    assert part in reason


def test_a_device_without_keys_says_so() -> None:
    assert "this device trusts no key" in refusal(signed(), keys={})[1]


def test_nothing_that_nobody_signed_may_stand_beside_the_signed_part() -> None:
    assert refusal({**signed(), "handler": "evil"})[0] is Code.DOCUMENT_INVALID


def test_another_thing_and_another_job_are_refused() -> None:
    assert refusal(signed(), Here("lamp-1", "fw-42", NOW)) == (
        Code.DOCUMENT_MISDIRECTED,
        "the document was signed for pump-*, and this thing is lamp-1",
    )
    bound = signed(claims(things=(), job="fw-42"))
    assert opened(bound, KEYS, HERE).key == "release"
    assert opened(bound, KEYS, Here("pump-7", None, NOW)).key == "release", "who does not know the job does not judge"
    assert refusal(bound, Here("pump-7", "fw-43", NOW)) == (
        Code.DOCUMENT_MISDIRECTED,
        "the document was signed for job fw-42, and this job is fw-43",
    )
    both = signed(claims(job="fw-42"))
    assert refusal(both, Here("lamp-1", "fw-42", NOW))[0] is Code.DOCUMENT_MISDIRECTED


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("pump-?", ["pump-7", "pump-:"], ["pump-", "pump-77", "Pump-7", "pump-7\n", "pump-é/"]),
        ("*", ["a", "hall:3_b-1"], []),
        ("pump", ["pump"], ["pump-7", "xpump", "PUMP"]),
        ("?*:a", ["x:a", "xy:z:a"], [":a", "x:ab"]),
        ("*" * 128, ["x" * 128], []),
    ],
)
def test_a_pattern_is_for_the_whole_name_and_each_letter_counts_as_it_is(
    pattern: str, yes: list[str], no: list[str]
) -> None:
    document = signed(claims(things=("lamp-1", pattern)))
    for thing in yes:
        assert opened(document, KEYS, Here(thing, None, NOW))
    for thing in no:
        assert refusal(document, Here(thing, None, NOW))[0] is Code.DOCUMENT_MISDIRECTED


def at(when: float) -> Here:
    return Here("pump-7", "fw-42", when)


def test_it_is_good_from_its_beginning_to_its_end_and_clocks_that_are_behind_are_borne_with() -> None:
    document = signed(claims(not_before=NOW))
    assert opened(document, KEYS, at(NOW - 299)).key == "release"
    assert refusal(document, at(NOW - 301))[0] is Code.DOCUMENT_EARLY
    assert opened(document, KEYS, at(NOW + DAY - 1)).key == "release"
    code, reason = refusal(document, at(NOW + DAY))
    assert code is Code.DOCUMENT_EXPIRED
    assert reason == f"the signature was good until {moment(NOW + DAY)}; sign the document anew"


def test_while_nobody_has_set_the_clock_a_good_document_waits_and_a_bad_one_is_refused_at_once() -> None:
    with pytest.raises(StateError, match="the clock is not synchronised yet"):
        opened(signed(), KEYS, Here("pump-7", "fw-42", None))
    assert refusal(signed(), Here("lamp-1", "fw-42", None))[0] is Code.DOCUMENT_MISDIRECTED


@pytest.mark.parametrize(
    ("payload", "part"),
    [
        (b"x", "the signed payload cannot be used"),
        (b"\xff", "the signed payload cannot be used"),
        (b"[]", "it must be a JSON object, not a list"),
        (b'{"document":{},"document":{},"things":["*"],"notAfter":"2099-01-01T00:00:00Z"}', '"document" twice'),
        (b'{"document":{"a":1,"a":2},"things":["*"],"notAfter":"2099-01-01T00:00:00Z"}', '"a" twice'),
        (b'{"document":{"a":NaN},"things":["*"],"notAfter":"2099-01-01T00:00:00Z"}', "NaN is not JSON"),
        (b'{"document":{"a":1e999},"things":["*"],"notAfter":"2099-01-01T00:00:00Z"}', "larger than any number"),
        (b'{"document":' + b"[" * 9999 + b"]" * 9999 + b"}", "nested too deeply"),
        (b'{"document":' + b'{"a":' * 101 + b"{}" + b"}" * 101 + b"}", "nested more than 100 levels deep"),
        (b'{"document":{"a":' + b"9" * 5000 + b"}}", "the signed payload cannot be used"),
        (b'\xef\xbb\xbf{"document":{}}', "the signed payload cannot be used"),
        (b'{"document":{},"things":["*"],"notAfter":"2099-01-01T00:00:00Z","site":"x"}', '"site" is not a key of it'),
        (b'{"things":["*"],"notAfter":"2099-01-01T00:00:00Z"}', "document must be a JSON object, not null"),
        (b'{"document":{},"notAfter":"2099-01-01T00:00:00Z"}', "for which things or for which job"),
        (b'{"document":{},"things":[],"job":"x","notAfter":"2099-01-01T00:00:00Z"}', "things must be a list of 1"),
        (b'{"document":{},"things":["p[a]"],"notAfter":"2099-01-01T00:00:00Z"}', "is no name of a thing"),
        (b'{"document":{},"job":"a b","notAfter":"2099-01-01T00:00:00Z"}', "is not a job id"),
        (b'{"document":{},"job":"","notAfter":"2099-01-01T00:00:00Z"}', "job must be a job id"),
        (b'{"document":{},"things":["*"]}', "notAfter: a time is written as 2027-01-01T00:00:00Z, and not as null"),
        (b'{"document":{},"things":["*"],"notAfter":"2099-02-30T00:00:00Z"}', "there is no time 2099-02-30"),
        (b'{"document":{},"things":["*"],"notAfter":"2099-01-01T00:00:00+01:00"}', "a time is written as"),
        (
            b'{"document":{},"things":["*"],"notBefore":"2099-01-01T00:00:00Z","notAfter":"2098-01-01T00:00:00Z"}',
            "notBefore must lie before notAfter",
        ),
    ],
)
def test_a_payload_that_can_be_read_in_two_ways_or_says_too_little_or_too_much_is_refused(
    payload: bytes, part: str
) -> None:
    code, reason = refusal(of_payload(payload))
    assert code is Code.DOCUMENT_INVALID
    assert part in reason


def test_a_signature_over_another_type_of_payload_is_none_for_this_one() -> None:
    document = of_payload(written(claims()), "application/json")
    document["signed"]["payloadType"] = PAYLOAD_TYPE
    assert refusal(document)[0] is Code.DOCUMENT_SIGNATURE


def test_json_need_not_be_canonical_because_bytes_are_signed() -> None:
    loose = json.dumps({"notAfter": moment(NOW + DAY), "things": ["*"], "document": {"handler": "x"}}, indent=3)
    assert opened(of_payload(loose.encode()), KEYS, HERE).document == {"handler": "x"}


@pytest.mark.parametrize(
    ("urls", "part"),
    [
        ({}, 'refers to the URL "image"'),
        ({"image": IMAGE, "more": IMAGE}, 'nothing that is signed refers to "more"'),
        ({"image": f"{IMAGE}#sha256={'cd' * 32}"}, "without #"),
        ({"image": f"{IMAGE} x"}, "without spaces"),
        ({"image": f"{IMAGE}\u2028"}, "without spaces"),
        ({"image": "https://ü.example/"}, "must be a URL"),
        ({"image": 'https://s3/"$(id)`x`'}, "must be a URL"),
        ({"image": "HTTPS://s3/x"}, "must be a URL"),
        ({"image": "https://"}, "must be a URL"),
        ({"image": "${aws:iot:s3-presigned-url:https://s3/x}#sha256=00"}, "without #"),
        ({"image": "file:///etc/shadow"}, "begins with https://"),
        ({"image": 7}, "must be an object of URLs by name"),
        ([], "must be an object of URLs by name"),
    ],
)
def test_urls_that_do_not_fit_what_is_signed_are_refused(urls: object, part: str) -> None:
    code, reason = refusal({**signed(), "urls": urls})
    assert code is Code.DOCUMENT_INVALID
    assert part in reason


@pytest.mark.parametrize(
    "reference",
    [
        {"$url": "image"},
        {"$url": "image", "digest": "sha256:AB"},
        {"$url": "image", "digest": DIGEST.upper()},
        {"$url": "image", "digest": f"{DIGEST}\n"},
        {"$url": "image", "digest": DIGEST, "else": 1},
        {"$url": "a b", "digest": DIGEST},
        {"$url": None, "digest": DIGEST},
    ],
)
def test_a_reference_to_a_url_without_a_whole_digest_is_neither_signed_nor_taken(reference: object) -> None:
    bad = claims(document={"handler": "x", "params": {"u": [reference]}})
    with pytest.raises(DocumentError):
        signed(bad)
    assert refusal({**of_payload(written(bad)), "urls": {"image": IMAGE}})[0] is Code.DOCUMENT_INVALID


def test_a_placeholder_in_what_is_signed_is_not_signed_because_nobody_would_replace_it() -> None:
    with pytest.raises(DocumentError, match=r"cannot replace the placeholder .* in params.u, because that is signed"):
        signed(claims(document={"handler": "x", "params": {"u": "${aws:iot:s3-presigned-url:https://s3/x}"}}))


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"handlr": "x"}, Code.DOCUMENT_UNKNOWN),
        ({"handler": "x", "parms": {}}, Code.DOCUMENT_INVALID),
        ({"version": "1.0", "steps": []}, Code.DOCUMENT_INVALID),
    ],
)
def test_what_no_device_would_understand_is_not_signed(document: dict[str, Any], code: Code) -> None:
    with pytest.raises(DocumentError) as refused:
        sealed(claims(document=document), {}, "release", SIGN)
    assert refused.value.code is code
    assert sealed(claims(document={"operation": "x", "anything": 1}), {}, "release", SIGN)


#: Made once: no two signatures of ECDSA are alike, and what an example draws from must be.
WHOLE = signed()


@given(st.data())
def test_a_change_anywhere_in_the_text_is_refused_or_says_the_very_same(data: st.DataObject) -> None:
    text = json.dumps(WHOLE["signed"])
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(codec="ascii"))
    try:
        document = {"signed": json.loads(text[:place] + letter + text[place + 1 :]), "urls": {"image": IMAGE}}
    except ValueError:
        return
    try:
        found = opened(document, KEYS, HERE)
    except DocumentError:
        return
    assert found == opened(WHOLE, KEYS, HERE)


def test_each_byte_of_payload_and_signature_counts() -> None:
    document = signed()
    for part in ("payload", "sig"):
        holder = document["signed"] if part == "payload" else document["signed"]["signatures"][0]
        whole = base64.b64decode(holder[part])
        for place in range(len(whole)):
            other = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
            holder[part] = base64.b64encode(other).decode()
            assert refusal(document)[0] is Code.DOCUMENT_SIGNATURE, (part, place)
        holder[part] = base64.b64encode(whole).decode()
    assert opened(document, KEYS, HERE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, JSON)
def test_whatever_stands_there_it_is_refused_with_a_code_and_no_other_exception(envelope: object, urls: object) -> None:
    refusal({"signed": envelope, "urls": urls})


@given(JSON)
def test_whatever_a_trusted_key_signed_it_is_opened_or_refused(payload: object) -> None:
    try:
        opened({**of_payload(json.dumps(payload).encode()), "urls": {}}, KEYS, HERE)
    except DocumentError:
        pass
    else:
        raise AssertionError


@given(st.integers(-62_135_596_800, 253_402_300_799))
def test_a_time_is_read_as_it_was_written(seconds: int) -> None:
    assert seconds_of(moment(seconds)) == seconds


@pytest.mark.parametrize(
    "pem",
    [b"", b"x", PRIVATE, PUBLIC[:60], PUBLIC * 2, PUBLIC + ED_PUBLIC, PUBLIC.replace(b"PUBLIC KEY", b"CERTIFICATE")],
)
def test_what_is_no_public_key_is_none(pem: bytes) -> None:
    with pytest.raises(ValueError, match="it holds"):
        verifier(pem)


def test_a_key_that_came_by_another_system_is_one() -> None:
    sign, _ = signer(PRIVATE.replace(b"\n", b"\r\n"))
    for pem in (PUBLIC.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf# release 2027\n" + PUBLIC):
        assert verifier(pem)(sign(b"x"), b"x")


def test_keys_of_other_kinds_are_refused() -> None:
    from cryptography.hazmat.primitives import serialization as to
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    for made in (ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)):
        public = made.public_key().public_bytes(to.Encoding.PEM, to.PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(ValueError, match="ECDSA on P-256, or Ed25519"):
            verifier(public)
