"""What fuzzing has found, each once more and by its name."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
from tests.fuzz import device, machine, network, service, transfer
from urllib3 import HTTPResponse
from urllib3.exceptions import IncompleteRead

from thingjobs import config, records, wire
from thingjobs.certificate import cn_of, dates_of
from thingjobs.child.context import read_job
from thingjobs.cloud import web
from thingjobs.cloud.words import plain
from thingjobs.doctor import rules
from thingjobs.doctor.issuer import issuer_of
from thingjobs.errors import HandlerError, StateError, WireError
from thingjobs.judging import Judge, registry_for
from thingjobs.model import Code, Identity, JobId, Result, Status
from thingjobs.registry import Registry
from thingjobs.runner import cgroup, given
from thingjobs.runner.events import MAX_LINE_BYTES, Lines
from thingjobs.statusbox import NAME, ask
from thingjobs.transport import https_line
from thingjobs.transport.proxy import Proxy
from thingjobs.transport.websocket import upgrade

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """The judge of a device with an empty folder of scripts."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "c.toml").write_text(f'[handlers]\nscripts = "{tmp_path}/scripts"\n')
    found = config.local(tmp_path, [tmp_path / "c.toml"])
    return Judge(found, registry_for(found))


@pytest.mark.parametrize(
    "document",
    [
        {"operation": "a" * 254},
        {
            "version": "1.0",
            "steps": [{"action": {"name": "a", "type": "runHandler", "input": {"handler": "é" * 200, "args": []}}}],
        },
    ],
)
def test_a_script_whose_name_no_file_can_have_is_refused_and_holds_up_nothing(judge: Judge, document: Any) -> None:
    found = judge.judge(document)

    assert isinstance(found, Result)
    assert (found.status, found.code) == (Status.REJECTED, Code.HANDLER_UNKNOWN)


@pytest.mark.parametrize("program", ["\ud800", ["run.sh", "\udcff\ud800"]])
def test_a_program_that_no_file_can_be_called_breaks_its_handler_alone(tmp_path: Path, program: Any) -> None:
    for name, exec_ in (("good", "run.sh"), ("bad", program)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "run.sh").write_text("#!/bin/sh\n")
        (folder / "run.sh").chmod(0o755)
        (folder / "manifest.json").write_text(json.dumps({"contract": 1, "exec": exec_, "verbs": ["apply"]}))
    registry = Registry([tmp_path])

    assert registry.get("good").name == "good"
    with pytest.raises(HandlerError, match="exec"):
        registry.get("bad")


@pytest.mark.parametrize("number", [1e308, "1", True, 2**63, None, {"": {}}])
@pytest.mark.parametrize("key", ["executionNumber", "queuedAt"])
def test_a_record_whose_identity_is_no_name_of_a_file_is_damaged(key: str, number: Any) -> None:
    body = json.loads(records.dump(device._record()).splitlines()[1])

    with pytest.raises(records.CorruptError):
        records.load(device.sealed(json.dumps({**body, key: number}).encode()))


def test_an_identity_is_made_of_whole_numbers() -> None:
    with pytest.raises(ValueError, match="number"):
        Identity(JobId("j"), 2**63, 0)


@pytest.mark.parametrize("date", [b"20600101000000", b"20600101000000+0100", b"00010101T000000+2359"])
def test_a_certificate_with_a_date_in_no_time_zone_is_damaged(date: bytes) -> None:
    made = network._certificate(network.der(0x0C, b"n"), network.UTC_TIME, network.der(0x18, date))
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(made) + b"\n-----END CERTIFICATE-----\n"

    with pytest.raises(ValueError, match="a date is none"):
        dates_of(pem)


def test_a_file_of_beginnings_of_certificates_is_read_once() -> None:
    began = time.thread_time()

    with pytest.raises(ValueError, match="no PEM certificate"):
        cn_of(b"-----BEGIN CERTIFICATE-----" * 40_000)

    assert time.thread_time() - began < 1


def test_a_length_of_thousands_of_digits_is_no_way_out_of_a_dialogue() -> None:
    dialogue = upgrade("h", "/mqtt", "h:443", signed=False)
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n"

    assert next(dialogue).missing(head) > 0


@pytest.mark.parametrize("host", ["[::s3cret]", "ho\u2100st", "h:99999", "[v1.x"])
def test_a_proxy_that_is_none_never_shows_its_password(host: str) -> None:
    with pytest.raises(ValueError, match="a proxy is written") as caught:
        Proxy.parse(f"http://user:s3cret@{host}:3128")

    assert "s3cret" not in str(caught.value)


def test_half_a_character_from_a_service_can_be_printed() -> None:
    assert plain("no \ud800 job") == "no job"


def test_a_line_of_events_that_is_too_long_is_skipped_in_however_many_pieces_it_comes() -> None:
    line = b'{"reason": "' + b"x" * MAX_LINE_BYTES + b'"}\n'

    assert Lines().feed(line) == [b"too long"]


def test_a_revision_that_a_handler_made_up_never_goes_below_the_first() -> None:
    old = {"revision": 0.5, "cloud": {"answers": 1e9}}
    job = given.job_again(old, device._record(), thing="t", now=5.0, told={"cloud": given.cloud({})})

    assert (job["revision"], job["cloud"]["answers"]) == (5, 4)


def test_a_job_json_that_nests_without_end_is_no_job_json(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("[" * 100_000)

    with pytest.raises(ValueError, match="no JSON object"):
        read_job(str(tmp_path))


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[list[bytes]]:
    """What somebody answers who listens where an agent should."""
    answers: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / NAME))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(answers[0])

        thread = threading.Thread(target=serve)
        thread.start()
        yield answers
        thread.join()


@pytest.mark.parametrize("answer", [b"[" * 50_000, b"null", b"[]", b"5"], ids=["deep", "null", "list", "number"])
def test_an_answer_that_is_no_status_is_none(tmp_path: Path, answering: list[bytes], answer: bytes) -> None:
    answering.append(answer)

    with pytest.raises(StateError, match="it did not answer"):
        ask(tmp_path)


def test_the_answer_of_another_release_is_named_as_that(tmp_path: Path, answering: list[bytes]) -> None:
    answering.append(b'{"thing": "pump-7", "running": true}')

    with pytest.raises(StateError, match="of another release"):
        ask(tmp_path)


@pytest.mark.parametrize("key", ["jobId", "status"])
def test_what_a_service_made_up_does_not_fill_the_log(key: str) -> None:
    execution = {**service.EXECUTION, key: "x" * 100_000}

    with pytest.raises(WireError) as caught:
        wire.decode_next({"execution": execution})

    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("read", "error"), [(https_line._body, ConnectionAbortedError), (web._body, IncompleteRead)], ids=["jobs", "cloud"]
)
def test_an_answer_of_a_length_of_thousands_of_digits_is_one_that_broke_off(
    read: Callable[..., bytes], error: type[Exception]
) -> None:
    response = requests.Response()
    headers = {"Content-Length": "9" * 5000}
    response.raw = HTTPResponse(io.BytesIO(b"{}"), headers=headers, preload_content=False)
    response.headers.update(headers)

    with pytest.raises(error):
        read(response, time.monotonic() + 60)


@pytest.mark.parametrize("version", [b"\4", b"\5"], ids=["mqtt311", "mqtt5"])
def test_a_second_answer_to_connect_ends_the_connection_with_a_reason(version: bytes) -> None:
    answer = {b"\4": b"\0\0", b"\5": b"\0\0\0"}[version]

    transfer.check_packets(version + transfer.packet(0x20, answer) * 2)


def test_a_certificate_whose_issuer_is_cut_short_is_damaged() -> None:
    issuer = network.der(0x30, network.der(0x31, network.der(0x30, b"\x06\x03\x55")))
    signed = network.der(0x30, network.der(2, b"\1"), network.der(0x30), issuer, network.der(0x30), network.der(0x30))
    body = base64.b64encode(network.der(0x30, signed)).decode()

    with pytest.raises(ValueError, match="damaged certificate"):
        issuer_of(f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")


@pytest.mark.parametrize(
    "wrong", [{"total": "10"}, {"synced": -1}, {"synced": 2**63}, {"total": 1.5}, {"total": True}], ids=str
)
def test_a_note_beside_a_download_that_counts_no_bytes_is_none(wrong: dict[str, Any]) -> None:
    transfer.check_partial(json.dumps({**transfer.NOTE, **wrong}).encode())


def test_a_note_beside_a_download_that_nests_without_end_is_none() -> None:
    transfer.check_partial(b"[" * 100_000)


@pytest.mark.parametrize(
    "name", [b"/media/\xff", b"/media/a\x0bb", b"/media/a\rb", b"/media/a\xe2\x80\xa8b", b"/media/-"]
)
def test_a_mount_of_whatever_name_does_not_hide_the_cgroup(tmp_path: Path, name: bytes) -> None:
    table = b"30 22 8:1 / " + name + b" rw - vfat /dev/sdb1 rw\n24 22 0:6 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    (tmp_path / "cgroup").write_bytes(b"0::/system.slice/x\n")
    (tmp_path / "mountinfo").write_bytes(table)

    found = cgroup.own_cgroup(tmp_path)

    assert str(found) == "/sys/fs/cgroup/system.slice/x"
    point = os.fsdecode(name)
    assert rules.mount_of(f"{point}/state", table.decode(errors="surrogateescape")) == (point, "vfat")


def test_jobs_that_were_kept_and_do_not_belong_together_are_damaged() -> None:
    kept = machine._kept()
    kept["executions"][0]["job_id"] = "another"

    machine.check_kept(json.dumps(kept).encode())


@pytest.mark.parametrize("at", [100, 108, 124, 136], ids=["mode", "owner", "size", "time"])
def test_an_archive_with_numbers_below_zero_is_damaged(at: int) -> None:
    whole = machine._tar()

    machine.check_archives(whole[:at] + b"\xff" * 8 + whole[at + 8 :])
