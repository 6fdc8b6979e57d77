"""What lies on the device, and what handlers say: manifests, the journal, events, job.json, the configuration."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import queue
import re
import socket
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Any

from tests.fuzz.harness import hold, of_bytes, of_json, sentence, written
from tests.fuzz.service import DOCUMENTS, PLAIN_NAME

from thingjobs import config, manifest, records, schema, status, statusbox
from thingjobs.child.context import read_job
from thingjobs.errors import ConfigError, StateError
from thingjobs.judging import Judge, registry_for
from thingjobs.model import Code, Identity, JobId, Limits, Phase, Plan, Process, Record, Result, Status, Verb
from thingjobs.registry import executables
from thingjobs.runner import exits, given
from thingjobs.runner.events import MAX_CHARACTERS, MAX_DETAILS, MAX_LINE_BYTES, Lines, Said, fold, kept
from thingjobs.runner.place import Place
from thingjobs.wire import document_of


def _folder() -> Path:
    """Return a folder of this process, in memory where there is one."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="thingjobs-fuzz-", dir=memory if memory.is_dir() else None))
    atexit.register(rmtree, made, ignore_errors=True)
    return made


FOLDER = _folder()

# --- documents, on a device with files --------------------------------------------------------------------------


def _judge() -> Judge:
    """Return the judge of a device with one script and one handler of ours."""
    scripts, handler = FOLDER / "scripts", FOLDER / "handlers" / "firmware"
    scripts.mkdir()
    handler.mkdir(parents=True)
    (handler / "manifest.json").write_bytes(written({**FAST, "version": "1.5", "params": PARAMS}))
    for program in (scripts / "mine.sh", handler / "run.sh"):
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    text = f'[handlers]\nscripts = "{scripts}"\ndirectory = "{FOLDER / "handlers"}"\n'
    (FOLDER / "local.toml").write_text(text)
    found = config.local(FOLDER, [FOLDER / "local.toml"])
    return Judge(found, registry_for(found))


JUDGES: list[Judge] = []


def check_judged(data: bytes) -> None:
    """Whatever a document says, this device has a plan for it or refuses it; it never keeps others waiting."""
    JUDGES[:] = JUDGES or [_judge()]
    try:
        document = document_of(data.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        return
    found = JUDGES[0].judge(document)
    if isinstance(found, Result):
        assert found.status is Status.REJECTED
        sentence(found.reason)
    else:
        assert Path(found.argv[0]).is_absolute()
        records.load(records.dump(_record(plan=found, document=document)))


# --- manifests ----------------------------------------------------------------------------------------------------

PARAMS = {
    "type": "object",
    "required": ["slot"],
    "properties": {"slot": {"enum": ["a", "b"]}, "image": {"$ref": "#/definitions/url"}, "n": {"minimum": 1}},
    "additionalProperties": False,
    "definitions": {"url": {"type": "string", "minLength": 1, "pattern": "^https://"}},
}
MANIFEST: dict[str, Any] = {
    "contract": 1,
    "name": "firmware",
    "version": "1.2",
    "description": "writes a slot",
    "exec": ["run.sh", "--flag"],
    "verbs": ["check", "apply", "verify"],
    "params": PARAMS,
    "timeouts": {"apply": 600, "reach": 5.5},
    "stall": 60,
    "max_defer": 3600,
    "limits": {"memory": "64M", "processes": 32, "cpu": 0.5},
    "needs": ["cloud"],
    "user": "operator",
    "daemons": "keep",
    "apply_rerun": True,
}
FAST = {"contract": 1, "exec": "run.sh", "verbs": ["apply"], "params": {"allOf": [{"type": "object"}, {"not": {}}]}}


def check_manifest(data: bytes) -> None:
    """Whatever lies beside a program is a manifest within its limits, or all that is wrong with it."""
    try:
        found = manifest.parse(executables._json(data), program=True)
    except manifest.ManifestError as error:
        for problem in error.problems:
            sentence(problem)
        return
    program = found.exec[0]
    assert not program.startswith("/")
    assert not {".", ".."} & set(program.split("/"))
    for text in (*found.exec, found.name, found.version, found.description, found.user):
        assert b"\0" not in os.fsencode(text)
    times = [getattr(found.limits, verb.value) for verb in Verb]
    assert all(0 < seconds <= manifest.MAX_SECONDS for seconds in times)
    assert found.resources.memory is None or found.resources.memory >= manifest.MIN_MEMORY
    if found.params is not None and not schema.needs_child(found.params):
        for params in ({}, {"slot": "b"}, {"slot": ["b"]}):
            with contextlib.suppress(schema.SchemaError):
                schema.check(found.params, params)


# --- the journal --------------------------------------------------------------------------------------------------


def _record(**changes: Any) -> Record:
    plan = Plan("firmware", ("/x/run.sh",), frozenset(Verb), "sha256:00", "1.2", {"slot": "b"}, limits=Limits(stall=5))
    record = Record(Identity(JobId("j"), 1, 1735689600), Phase.APPLYING, "c", 3, plan, dict(DOCUMENTS[0]))
    return replace(record, **{"verb": Verb.APPLY, "attempts": {Verb.APPLY: 1}, "details": {"slot": "b"}, **changes})


def _bodies() -> list[Any]:
    done = Result(Status.FAILED, Code.INTERRUPTED, "power")
    found = [_record(), _record(process=Process(1, 2, "b")), _record(phase=Phase.DONE, result=done, finished_at=5.0)]
    return [json.loads(records.dump(record).splitlines()[1]) for record in found]


def sealed(body: bytes) -> bytes:
    """Return a record's file with this body and the checksum that fits: as whoever can write the disk can make it."""
    line = body.replace(b"\n", b" ")
    digest = hashlib.sha256(b"%d\n%b" % (records.FORMAT, line)).hexdigest()
    return json.dumps({"format": records.FORMAT, "sha256": digest}).encode() + b"\n" + line + b"\n"


def check_record(data: bytes) -> None:
    """Whatever lies in the journal is a record, or is told as damaged or as newer."""
    for file in (data, sealed(data)):
        try:
            record = records.load(file)
        except (records.CorruptError, records.NewerError) as error:
            sentence(str(error))
            continue
        assert PLAIN_NAME.fullmatch(record.identity.key), record.identity.key
        again = records.load(records.dump(record))
        if record.phase is not Phase.DONE:
            assert records.dump(again) == records.dump(record)


# --- what a handler says ------------------------------------------------------------------------------------------

EVENTS = (
    {"progress": 40, "message": "writing slot b", "details": {"slot": "b", "stdout": "x\ny", "n": 5}},
    {"reason": "the valve is stuck", "code": "valve", "reject": True, "after": 60},
    {"refresh": "cloud", "refused": "AKIA"},
    {"refresh": "params"},
)


def check_events(data: bytes) -> None:
    """Whatever a handler writes is folded within bounds, however the bytes are cut, and outlives the agent."""
    said = _fold([data])
    assert said == _fold([data[at : at + 7] for at in range(0, min(len(data), 2000), 7)] + [data[2002:]])
    assert len(said.details) <= MAX_DETAILS
    for key, value in said.details.items():
        assert max(len(key), len(value)) <= MAX_CHARACTERS
    assert max(map(len, (said.message, said.reason, said.code))) <= MAX_CHARACTERS
    assert said.percent is None or 0 <= said.percent <= 100
    assert said.after is None or 0 <= said.after <= 30 * 86400
    known = fold(Said(), kept(said))
    assert (known.reason, known.code, known.reject, known.after) == (said.reason, said.code, said.reject, said.after)
    assert known.details == said.details


def _fold(pieces: list[bytes]) -> Said:
    lines, said = Lines(), Said()
    for piece in [*pieces, b"\n"]:
        for line in lines.feed(piece):
            assert len(line) <= MAX_LINE_BYTES
            said = fold(said, line)
    return said


def check_exit(data: bytes) -> None:
    """Whatever stands in an exit file is a status or none."""
    path = FOLDER / "exit"
    path.write_bytes(data)
    found = exits.stored(path)
    exits.ending(found.code, Said(), "")
    assert found.complete == data.endswith(b"\n")


# --- job.json -----------------------------------------------------------------------------------------------------

JOB = {
    "contract": 1,
    "jobId": "j",
    "execution": 1,
    "thing": "t",
    "params": {"slot": "b"},
    "verb": "apply",
    "attempt": 1,
    "resumed": False,
    "rebooted": False,
    "dryRun": False,
    "deadline": 1735689600.5,
    "cloud": {"region": "eu-west-1", "answers": 2, "credentials": {"accessKeyId": "AKIA"}},
    "revision": 3,
}


def check_job(data: bytes) -> None:
    """Whatever a handler made of its job.json, the next revision is one that it can read."""
    place = Place(FOLDER)
    place.work.mkdir(exist_ok=True)
    file = place.work / "job.json"
    file.write_bytes(data)
    with contextlib.suppress(ValueError):
        read_job(str(place.work))
    old = place.read_job()
    told = {"cloud": given.cloud({"region": "r"})}
    job = given.job_again(old, _record(), thing="t", now=1735689600.0, told=told)
    assert 0 <= job["cloud"]["answers"] < job["revision"] <= 2**53
    place.write_job(given.anew(job, {"slot": "\ud800"}), None)
    assert read_job(str(place.work))["revision"] == job["revision"] + 1
    place.write_job(given.answered(job, {"credentials": {}}), None)
    assert read_job(str(place.work))["cloud"]["answers"] == job["cloud"]["answers"] + 1


# --- the status socket --------------------------------------------------------------------------------------------

STATUS = {**status.of_journal((), thing="t"), "jobs": [{"jobId": "j", "phase": "applying"}], "running": True}


class _Agent:
    """Something that answers on a status socket with what it is given."""

    def __init__(self) -> None:
        self.folder = FOLDER / "state"
        self.folder.mkdir()
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / statusbox.NAME))
        self._listener.listen()
        atexit.register(self._listener.close)

    def ask(self, answer: bytes) -> object:
        """Return what is made of an answer."""
        thread = threading.Thread(target=self._serve, args=(answer,))
        thread.start()
        try:
            return statusbox.ask(self.folder)
        finally:
            thread.join()

    def _serve(self, answer: bytes) -> None:
        client, _ = self._listener.accept()
        with client, contextlib.suppress(OSError):
            client.sendall(answer)


AGENTS: list[_Agent] = []


def check_status(data: bytes) -> None:
    """Whatever answers on the socket is a status, or somebody who does not answer."""
    agent = AGENTS[0] if AGENTS else _Agent()
    AGENTS[:] = [agent]
    try:
        assert isinstance(agent.ask(data), dict)
    except StateError as error:
        sentence(str(error))


# --- the configuration --------------------------------------------------------------------------------------------

CONFIG = b"""
[thing]
name = "pump-7"
[connection]
endpoint = "abc-ats.iot.eu-west-1.amazonaws.com:8883"
port = 443
proxy = "http://user:secret@proxy:3128"
client_id = "{thing}"
keep_alive_seconds = 300
transport = "https"
certificate = ""
private_key = ""
[connection.authorizer]
name = "a"
[jobs]
only = ["*"]
max_defer_minutes = 5
[handlers]
directory = ["/srv/a", "b"]
allow = ["*"]
environment = { TZ = "UTC" }
[gates]
windows = ["Mon-Fri 22:00-04:00", "Sat,Sun"]
time_zone = "Europe/Berlin"
[cloud]
region = "eu-west-1"
account = "123456789012"
[system]
reboot = ["systemctl", "reboot"]
[facts]
site = "north"
"""
#: Each setting that there is, with its default.
EVERYTHING = re.sub(rb"(?m)^#(?=\w+ = |\[)", b"", (Path(__file__).parents[2] / "examples/config.toml").read_bytes())
SMALL = b'[thing]\nname = "a"\n[connection]\nendpoint = "h"\n'


def check_config(data: bytes) -> None:
    """Whatever stands in the file is a configuration, or every problem with it, without its secrets."""
    path = FOLDER / "config.toml"
    path.write_bytes(data)
    try:
        found = config.load([path], environment={})
    except ConfigError as error:
        hold(error.problems, "there is no problem")
        for problem in error.problems:
            sentence(problem)
            hold(not (problem.startswith("connection.proxy") and ":secret" in problem), problem)
        return
    assert "secret" not in repr(found)
    assert found.state.directory.is_absolute()


HARNESSES = (
    of_json("judging", check_judged, *DOCUMENTS),
    of_json("manifests", check_manifest, MANIFEST, FAST),
    of_json("journal", check_record, *_bodies()),
    of_json("events", check_events, *EVENTS),
    of_bytes("exits", check_exit, b"0\n", b"137\n", b"never\n"),
    of_json("job.json", check_job, JOB),
    of_json("status", check_status, STATUS),
    of_bytes("config", check_config, CONFIG, SMALL, EVERYTHING),
)
