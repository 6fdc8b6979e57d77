"""What the named shadow says: true, small, made for an index, and nothing in it that is secret."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from thingjobs.seeing import shadow
from thingjobs.seeing.shadow import Device

#: Any text that a gate, a handler's folder or a version may hold, what JSON escapes and long ones included.
ANY = st.characters(exclude_categories=())
TEXT = st.builds(lambda text, times: text * times, st.text(ANY, max_size=6), st.sampled_from([1, 1, 2, 30, 900]))
MANY = st.integers(1, 40)
JOB = st.fixed_dictionaries({"jobId": TEXT, "waits": TEXT, "before": st.sampled_from(["", "claim", "apply", "reboot"])})
STATUS = st.fixed_dictionaries(
    {"jobs": st.lists(JOB, max_size=5), "owed": st.lists(JOB, max_size=3), "late": st.lists(JOB, max_size=3)},
    optional={"trouble": st.lists(TEXT, min_size=1, max_size=3)},
)
DEVICE = st.builds(
    Device,
    handlers=st.builds(lambda handlers, times: handlers * times, st.lists(st.tuples(TEXT, TEXT), max_size=3), MANY),
    broken=st.builds(lambda names, times: names * times, st.lists(TEXT, max_size=3), MANY),
    expires=st.none() | st.floats(0, 1e12),
    synchronised=st.booleans(),
    free=st.none() | st.floats(0, 1),
    free_bytes=st.none() | st.integers(0, 1 << 60),
)
IDLE: dict[str, Any] = {"jobs": [], "owed": [], "late": []}


def waiting(reason: str, before: str = "apply") -> dict[str, Any]:
    """Return the status of an agent with a job that waits."""
    return {**IDLE, "jobs": [{"jobId": "fw-7", "waits": reason, "before": before}]}


def said(status: dict[str, Any], device: Device | None = None) -> dict[str, Any]:
    """Return what the shadow reports."""
    found: dict[str, Any] = json.loads(shadow.document("1.0", status, device or Device()))
    return dict(found["state"]["reported"])


def members(value: object, path: str = "") -> set[str]:
    """Return the paths of all members of an object."""
    if not isinstance(value, dict):
        return {path}
    return {below for name, inner in value.items() for below in members(inner, f"{path}.{name}")}


@given(TEXT, STATUS, DEVICE)
def test_whatever_is_the_matter_the_request_is_json_of_at_most_4_kib(
    version: str, status: dict[str, Any], device: Device
) -> None:
    request = shadow.document(version, status, device)
    assert len(request) <= shadow.MAX_BYTES
    assert members(json.loads(request)["state"]["reported"]) == members(said(IDLE))


@given(STATUS, DEVICE)
def test_an_index_finds_numbers_switches_and_texts_but_no_lists_and_no_empty_texts(
    status: dict[str, Any], device: Device
) -> None:
    def check(value: object) -> None:
        if isinstance(value, dict):
            for inner in value.values():
                check(inner)
        else:
            assert value is None or (isinstance(value, str | int | bool) and value != "")

    check(said(status, device))


@given(st.lists(st.from_regex(r"[a-z]{1,12}", fullmatch=True), max_size=300))
def test_handlers_are_whole_words_as_many_as_there_is_room_for(names: list[str]) -> None:
    words = (said(IDLE, Device(handlers=[(name, "1.0") for name in names]))["handlers"] or "").split(" ")
    whole = [word for word in words if word not in ("", "…")]
    assert whole == [f"{name}-1.0" for name in names][: len(whole)]
    assert ("…" in words) is (len(whole) < len(names))


def test_a_text_is_cut_only_when_it_is_long() -> None:
    assert said(waiting("the pump is running"))["waiting"]["reason"] == "the pump is running"
    cut = said(waiting("ö" * 2000))["waiting"]["reason"]
    assert 250 < len(cut) < 300
    assert cut.endswith("ö…")


def test_what_steers_a_terminal_or_is_no_character_is_left_out() -> None:
    hostile = "first\nsecond \x1b[2J\x9b31m\u202e\ud800\x00end"
    assert said(waiting(hostile))["waiting"]["reason"] == "first second [2J31mend"
    assert said(IDLE, Device(broken=["a b\n\x1bc", "d"]))["broken"] == "a-b-c d"


def test_of_200_handlers_as_many_are_named_as_there_is_room_for() -> None:
    device = Device(handlers=[(f"handler-{number:03}", "1.0.0") for number in range(200)], broken=["x" * 60] * 200)
    request = shadow.document("1.0", {**waiting("ö" * 100_000), "trouble": ["\x00" * 100_000]}, device)
    words = json.loads(request)["state"]["reported"]["handlers"].split(" ")
    assert len(request) <= shadow.MAX_BYTES
    assert words[0] == "handler-000-1.0.0"
    assert words[-1] == "…"
    assert len(words) > 40


def test_what_is_not_so_is_taken_out_of_the_shadow() -> None:
    found = said(IDLE)
    assert found["waiting"] == {"count": 0, "job": None, "before": None, "gate": None, "reason": None}
    assert found["owed"] == found["late"] == {"count": 0, "job": None}


def test_a_job_that_waits_is_told_with_its_gate() -> None:
    reasons = {
        "gate battery: 44 % left": "battery",
        "gate battery failed: exit status 3": "battery",
        "gate maintenance: closed until Fri 22:00": "maintenance",
        "inhibited by deploy: sleep 600": "inhibit",
        "the pump is running": None,
    }
    for reason, gate in reasons.items():
        expected = {"count": 1, "job": "fw-7", "before": "apply", "gate": gate, "reason": reason}
        assert said(waiting(reason))["waiting"] == expected


def test_the_newest_late_truth_is_named_and_the_first_that_is_owed() -> None:
    jobs = [{"jobId": "old", "waits": ""}, {"jobId": "new", "waits": ""}]
    found = said({"jobs": [], "owed": jobs, "late": jobs})
    assert found["owed"] == {"count": 2, "job": "old"}
    assert found["late"] == {"count": 2, "job": "new"}


def test_the_device_is_told_of_in_numbers_that_can_be_compared() -> None:
    device = Device(
        [("collect", "0.1"), ("lamp", "")], ["fan"], 1.8e9 + 0.7, synchronised=True, free=0.434, free_bytes=3 << 30
    )
    found = said(IDLE, device)
    assert found["handlers"] == "collect-0.1 lamp"
    assert found["broken"] == "fan"
    assert found["certificate"] == {"expires": 1_800_000_000}
    assert found["clock"] == {"synchronised": True}
    assert found["disk"] == {"freePercent": 40, "freeMiB": 3072}


def test_what_gates_and_troubles_say_is_told_without_credentials() -> None:
    secret = "https://u:hunter2@bucket/x?X-Amz-Signature=c0ffee"
    request = shadow.document("1.0", {**waiting(f"see {secret}"), "trouble": [secret]}, Device())
    for word in (b"hunter2", b"c0ffee"):
        assert word not in request
    assert b"https://" in request


def test_numbers_in_reasons_and_free_space_are_no_reason_for_a_message() -> None:
    def essence(reason: str, free: float = 0.5) -> str:
        return shadow.essence(shadow.document("1.0", waiting(reason), Device(free=free)))

    assert essence("44 % left") == essence("9 % left", free=0.1)
    assert essence("44 % left") != essence("44 % of it")
    assert essence("44 % left") != shadow.essence(shadow.document("1.0", IDLE, Device(free=0.5)))
    assert essence("44 % left") != shadow.essence(shadow.document("1.1", waiting("44 % left"), Device(free=0.5)))
