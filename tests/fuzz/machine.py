"""What lies beside the agent: the operator's gates and windows, tables of the kernel, archives, what was remembered."""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import io
import json
import os
import re
import stat
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from types import SimpleNamespace
from typing import Any

from tests.fuzz.device import FOLDER, MANIFEST
from tests.fuzz.harness import hold, of_bytes, of_json, sentence

from thingjobs import config, schema
from thingjobs.config import Authorizer, Connection, Pkcs11, check_files
from thingjobs.config.windows import DAY, WEEK, window
from thingjobs.config.zones import zone
from thingjobs.doctor import rules
from thingjobs.errors import StateError
from thingjobs.gates import programs, windows
from thingjobs.gates.closed import first_line
from thingjobs.gates.inhibit import Inhibit
from thingjobs.handler import Failed, Reject
from thingjobs.model import ThingName
from thingjobs.registry import classes
from thingjobs.registry.handler import Handler
from thingjobs.registry.remembered import Remembered
from thingjobs.runner import cgroup
from thingjobs.runner.joblog import Tail
from thingjobs.transport.local import LocalTransport
from thingjobs_handlers import archives, upgrade_agent

# --- gates --------------------------------------------------------------------------------------------------------

NOW = 1735689600.0


def check_inhibit(data: bytes) -> None:
    """Whatever stands in an inhibit file, it holds jobs back for a reason, and not for ever without one."""
    folder = FOLDER / "inhibit"
    folder.mkdir(exist_ok=True)
    (folder / "backup").write_bytes(data)
    for name in ("UTC", "Europe/Berlin"):
        closed = Inhibit(folder, name).closed(NOW)
        if closed is not None:
            sentence(closed.reason)
            assert closed.opens_in is None or 0 < closed.opens_in < 1e12


def check_windows(data: bytes) -> None:
    """Whatever stands in the configuration as a window comes every week, or is none."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(ValueError):
        where = zone(text)
        assert not re.search(r"\.\.|\0|^/", text), f"{where} came from elsewhere"
    try:
        found = window(text)
    except ValueError as error:
        sentence(str(error))
        return
    assert 1 <= found.minutes <= DAY
    assert all(0 <= start < WEEK for start in found.starts)
    closed = windows.closed([found], "Europe/Berlin", NOW)
    if closed is not None:
        sentence(closed.reason)
        assert closed.opens_in is not None
        assert 0 < closed.opens_in <= 15 * 86400
        assert windows.closed([found], "Europe/Berlin", NOW + closed.opens_in) is None


def check_gates(data: bytes) -> None:
    """Whatever a gate writes, and however it ends, it is open, or closed for one line."""
    tail = Tail()
    tail.append(data)
    for code in (0, 75, 1, -9, -64, data[0] if data else 2):
        said = programs._verdict("battery", code, first_line(data[: programs._HEAD_BYTES]), tail.last_line())
        assert bool(said) == (code != 0)
        if said:
            assert "\n" not in said


# --- tables of the kernel -----------------------------------------------------------------------------------------

MOUNTS = (
    (
        b"0::/system.slice/thingjobs.service\n\0"
        b"22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        b"23 22 0:5 / /media/a\\040b rw shared:1 - vfat /dev/sdb1 rw\n"
        b"24 22 0:6 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
    ),
    b"1:name=systemd:/a\n0::/a\xff/b\n\x0024 22 0:6 /a\xff /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
)


def check_mounts(data: bytes) -> None:
    """Whatever is mounted, our cgroup is one below a mount point, or none; no name of a mount is in the way."""
    folder = FOLDER / "proc"
    folder.mkdir(exist_ok=True)
    groups, _, mounts = data.partition(b"\0")
    (folder / "cgroup").write_bytes(groups)
    (folder / "mountinfo").write_bytes(mounts)
    cgroup.own_cgroup(folder)
    point, _ = rules.mount_of("/media/a b/state", mounts.decode("utf-8", "replace"))
    assert "/media/a b/state".startswith(point.rstrip("/"))


# --- archives -----------------------------------------------------------------------------------------------------


def _tar() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in (("h/run.sh", b"#!/bin/sh\n"), ("h/manifest.json", b"{}")):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("h/link")
        link.type, link.linkname = tarfile.SYMTYPE, "run.sh"
        tar.addfile(link)
        out = tarfile.TarInfo("../out")
        out.type, out.linkname, out.mode = tarfile.SYMTYPE, "../../out", 0o4755
        tar.addfile(out)
    return made.getvalue()[:3584]


def _summed(data: bytes) -> bytes:
    """Return a tar whose headers have the sums that fit: as whoever made it would."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    for number, block in enumerate(blocks):
        if block[257:262] == b"ustar" and len(block) == 512:
            total = sum(block[:148]) + sum(block[156:]) + 8 * 32
            blocks[number] = block[:148] + b"%06o\0 " % total + block[156:]
    return b"".join(blocks)


def _zip() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("h/run.sh", "#!/bin/sh\n")
        link = zipfile.ZipInfo("h/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "run.sh")
        archive.writestr("d/", "")
    return made.getvalue()


def check_archives(data: bytes) -> None:
    """Whatever an archive holds stays in its folder, is a plain file, folder or link, and of bounded size."""
    place = FOLDER / "archive"
    rmtree(place, ignore_errors=True)
    place.mkdir()
    file, into = place / "a", place / "into"
    file.write_bytes(data if data.startswith(b"PK") else gzip.compress(_summed(data), 1))
    try:
        archives.unpack(file, into)
    except archives.ArchiveError as error:
        sentence(str(error))
    except OSError as error:  # a path that is too long, say: told with the disk's own words
        hold(error.strerror, error)
    assert {path.name for path in place.iterdir()} <= {"a", "into"}
    for path in into.rglob("*") if into.exists() else ():
        mode = path.lstat().st_mode
        assert stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)
        assert not mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX)
        if stat.S_ISLNK(mode):
            target = os.path.normpath(path.parent / path.readlink())
            assert Path(target).is_relative_to(into), f"{path} leads to {target}"


# --- versions of the agent ----------------------------------------------------------------------------------------

KEY = "ab" * 16
VERSIONS = (
    {"link": f".versions/current/{KEY}", "trial": f"{KEY} - 900\n"},
    {"link": "elsewhere", "trial": "", "failed": f"{KEY}\n", "reason": "it ended 3 times\n"},
)


def check_versions(data: bytes) -> None:
    """Whatever the guard and an interrupted upgrade left, the handler goes on, or fails with a sentence."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(data)
        if isinstance(found, dict):
            _look_at_versions({name: value for name, value in found.items() if isinstance(value, str)})


def _look_at_versions(found: dict[str, str]) -> None:
    guard, work = FOLDER / "guard", FOLDER / "upgrade"
    for folder in (guard, work):
        rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for name in ("trial", "failed", "reason"):
        if name in found:
            (guard / name).write_bytes(found[name].encode("utf-8", "surrogatepass"))
    with contextlib.suppress(OSError, ValueError):
        (guard / "current").symlink_to(found.get("link", ""))
    (work / "job.json").write_text(json.dumps({"settings": {"guard": {"folder": str(guard), "version": "-"}}}))
    params = upgrade_agent.Params("https://h/a", f"sha256:{KEY * 2}", "1.2")
    context: Any = SimpleNamespace(dir=work, cancelled=False, details=lambda **_: None)
    handler = upgrade_agent.UpgradeAgent()
    for verb in (handler.check, handler.verify, handler.commit, handler.rollback):
        with contextlib.suppress(Failed, Reject):
            verb(context, params)
    assert {path.name for path in guard.iterdir()} <= {"trial", "failed", "reason", "current"}


# --- what children answer, and what is remembered of it -----------------------------------------------------------

POINT = {"name": "firmware", "target": "m:C", "distribution": "d", "version": "1", "digest": "x", "editable": False}


def check_described(data: bytes) -> None:
    """Whatever a child printed, or the file with earlier answers holds, is a handler, or all that is wrong with it."""
    file = FOLDER / "handlers.json"
    file.write_bytes(data)
    known = Remembered(file)
    for key in ("points", *known.all_keys()):
        _take_answer(known.get(key))
    with contextlib.suppress(ValueError, RecursionError):
        _take_answer(json.loads(data))
    with contextlib.suppress(schema.SchemaError):
        assert isinstance(schema.understood(data), str)


def _take_answer(answer: object) -> None:
    for point in classes._points(answer) or ():
        assert isinstance(point.name, str)
    found = classes._judge(classes.Point(**POINT), answer)  # type: ignore[arg-type]
    if isinstance(found, Handler):
        assert found.name == "firmware"
    else:
        for problem in found:
            sentence(problem)


def _kept() -> Any:
    """Return what the embedded service keeps from run to run."""
    folder = FOLDER / "jobs"
    folder.mkdir(exist_ok=True)
    (folder / "job-1.json").write_text('{"handler": "x"}')
    file = FOLDER / "kept-seed.json"
    LocalTransport(folder, file, ThingName("t")).stop()
    return json.loads(file.read_bytes())


def check_kept(data: bytes) -> None:
    """Whatever the embedded service kept, its jobs are there again, or it is told to be damaged."""
    file = FOLDER / "kept.json"
    file.write_bytes(data)
    try:
        LocalTransport(FOLDER / "jobs", file, ThingName("t")).service.executions("t")
    except StateError as error:
        sentence(str(error))


# --- schemas and the params that they are for ---------------------------------------------------------------------

TEXTS: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 9, "pattern": "^[a-z]", "format": "uri"}
NUMBERS: dict[str, Any] = {"type": ["integer", "null"], "minimum": 1, "exclusiveMaximum": 9, "multipleOf": 2}
LISTS: dict[str, Any] = {"type": "array", "items": [NUMBERS, TEXTS], "additionalItems": False, "uniqueItems": True}
SCHEMAS = (
    {"schema": {"properties": {"a": TEXTS, "b": NUMBERS}, "required": ["a"]}, "params": {"a": "b", "b": 2}},
    {"schema": {"properties": {"l": {**LISTS, "maxItems": 2, "contains": {}}}}, "params": {"l": [2, "x"]}},
    {
        "schema": {
            "anyOf": [{"type": "object"}, {"type": "null"}],
            "oneOf": [{"required": ["a"]}, {"not": {"const": {"c": [1]}}}],
            "if": {"propertyNames": {"enum": ["a", 1]}},
            "then": {"minProperties": 1},
            "patternProperties": {"^x-": {"$ref": "#/definitions/n"}},
            "dependencies": {"a": ["b"], "b": {"maxProperties": 3}},
            "additionalProperties": {"type": "number"},
            "definitions": {"n": NUMBERS},
        },
        "params": {"a": 1, "b": 2.5, "x-c": 4},
    },
)


def check_schemas(data: bytes) -> None:
    """Whatever is declared of params, and whatever a job says, they fit, do not in one sentence, or never can."""
    try:
        asked = json.loads(data)
        declared, params = asked["schema"], asked["params"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return
    problems = schema.problems(declared)
    for problem in problems:
        sentence(problem)
    if problems or schema.needs_child(declared):  # which is killed when it takes its time
        return
    with contextlib.suppress(schema.SchemaError):
        if said := schema.check(declared, params):
            sentence(said)
        hold(schema.understood(schema.answer(schema.question(declared, params)).encode()) == said, said)


# --- files that the configuration names ---------------------------------------------------------------------------


def _pair() -> bytes:
    """Return a certificate of its own authority, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    since, until = (dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in (2025, 2055))
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, since, until)
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    certificate = made.sign(key, hashes.SHA256()).public_bytes(pem)
    return certificate + b"\0" + key.private_bytes(pem, form, serialization.NoEncryption()) + b"\0"


PEMS = (
    (
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n\0-----BEGIN PRIVATE KEY-----\nAAAA\n"
        b"-----END PRIVATE KEY-----\n\0s3cret\n"
    ),
    (
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\0-----BEGIN RSA PRIVATE KEY-----\nProc-Type: "
        b"4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n\0s3cret\xc3\xa9"
    ),
    _pair() + b"x" * 2000,
)


def check_secrets(data: bytes) -> None:
    """Whatever lies where a certificate, a key and its password should be, all that is wrong is told, and no secret."""
    paths = [FOLDER / name for name in ("device.pem", "device.key", "password")]
    for path, content in zip(paths, [*data.split(b"\0", 2), b"", b""], strict=False):
        path.write_bytes(content)
        path.chmod(0o600)
    sound = config.local(FOLDER)
    connection = Connection("h", certificate=paths[0], private_key=paths[1], ca=paths[0])
    module = Pkcs11(Path("/bin/sh"), pin_file=paths[2])
    shown = Authorizer(username="u", password_file=paths[2])
    ways = (
        connection,
        replace(connection, private_key_password_file=paths[2]),
        replace(connection, transport="awsiot", private_key=None, pkcs11=module),
        replace(connection, transport="awsiot", certificate=None, private_key=None, authorizer=shown),
    )
    for way in ways:
        for problem in check_files(replace(sound, connection=way)):
            sentence(problem)
            hold("s3cret" not in problem, problem)


HARNESSES = (
    of_bytes("inhibit", check_inhibit, b"until 2026-03-01T04:00+01:00 backup\n", b"2026-03-01 04:00", b"an update\n"),
    of_bytes("windows", check_windows, b"Mon-Fri 22:00-04:00", b"sat, Sun-Tue", b"03:00-24:00", b"Europe/Berlin"),
    of_bytes("gates", check_gates, b"the battery is at 20 %\n", b"\r\n\ndown\n\nTraceback:\nKeyError: 1\n"),
    of_bytes("mounts", check_mounts, *MOUNTS),
    of_bytes("archives", check_archives, _tar(), _zip()),
    of_json("versions", check_versions, *VERSIONS),
    of_json("described", check_described, MANIFEST, [POINT], {"format": 1, "points": [POINT]}, {"problem": "no"}),
    of_json("kept", check_kept, _kept()),
    of_json("schemas", check_schemas, *SCHEMAS),
    of_bytes("secrets", check_secrets, *PEMS),
)
