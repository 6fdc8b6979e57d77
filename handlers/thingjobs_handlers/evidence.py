"""What can be told of a device without changing it: each a few bytes, none that waits for long."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: For a program to answer; and for its output, of which the end is kept.
_PROGRAM_S = 10.0
_OUTPUT_BYTES = 1 << 20
_PIECE_BYTES = 65536
#: File systems with space to run out of, beside those of a device in /dev; one of the network may hang for ever.
_DISKS = ("tmpfs", "overlay", "ubifs", "zfs")
_MAX_MOUNTS = 100


class MissingError(Exception):
    """Something cannot be told; the message says why."""


def device() -> bytes:
    """Tell of the machine and its software; of the network only what is no address."""
    told = {
        "thingjobs": version("thingjobs"),
        "python": sys.version,
        "time": time.time(),
        "uname": platform.uname()._asdict(),
        "uptime_seconds": time.clock_gettime(time.CLOCK_BOOTTIME),
        "boot_id": _line("/proc/sys/kernel/random/boot_id"),
        "load": os.getloadavg(),
        "memory": _memory(),
        "disks": _disks(),
        "interfaces": _interfaces(),
    }
    return json.dumps(told, indent=1).encode()


def _memory() -> dict[str, str]:
    lines = _text("/proc/meminfo").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _disks() -> list[dict[str, object]]:
    found = []
    for line in _text("/proc/self/mounts").splitlines()[:_MAX_MOUNTS]:
        source, place, kind, options, *_ = line.split(" ")
        if kind not in _DISKS and not source.startswith("/dev/"):
            continue
        with suppress(OSError):
            disk = os.statvfs(place.encode().decode("unicode_escape"))
            found.append(
                {
                    "place": place,
                    "kind": kind,
                    "read_only": "ro" in options.split(","),
                    "bytes": disk.f_blocks * disk.f_frsize,
                    "free": disk.f_bavail * disk.f_frsize,
                    "files": disk.f_files,
                    "free_files": disk.f_favail,
                }
            )
    return found


def _interfaces() -> list[dict[str, str]]:
    facts = ("operstate", "mtu", "speed", "statistics/rx_bytes", "statistics/tx_bytes", "statistics/rx_errors")
    return [
        {"name": path.name} | {fact.rpartition("/")[2]: _line(path / fact) for fact in facts}
        for path in sorted(Path("/sys/class/net").glob("*"))
    ]


def journal(state: Path) -> bytes:
    """Tell which executions the agent's journal holds, and where each of them stands; nothing of what they are about.

    Raises:
        MissingError: it cannot be read.
    """
    try:
        paths = sorted((state / "journal").iterdir())
    except OSError as error:
        raise MissingError(f"{error.strerror}") from None
    return json.dumps([{"file": path.name, **_standing(path)} for path in paths], indent=1).encode()


def _standing(path: Path) -> dict[str, object]:
    """Return a few facts of a record: a line with its checksum, and one with itself."""
    try:
        found = path.lstat()
        record = json.loads(path.read_bytes().partition(b"\n")[2])
        told = {key: record.get(key) for key in ("phase", "verb", "owed", "late", "finishedAt")}
        result = record.get("result") or {}
        told |= {"handler": record["plan"]["handler"], "status": result.get("status"), "code": result.get("code")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"phase": "cannot be read"}
    return {"bytes": found.st_size, "changed": found.st_mtime, **told}


def tail(file: IO[bytes], limit: int) -> bytes:
    """Return the last whole lines of a file, `limit` bytes at most."""
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - limit - 1))
    return whole_lines(file.read(limit + 1), limit)


def whole_lines(data: bytes, limit: int) -> bytes:
    """Return the last whole lines of what is longer than `limit`: of half a URL nobody could tell what is secret."""
    return data if len(data) <= limit else data[-limit - 1 :].partition(b"\n")[2]


def output(argv: Sequence[str], limit: int = _OUTPUT_BYTES) -> bytes:
    """Return the last lines that a program prints.

    Raises:
        MissingError: it is not there, fails, or takes too long.
    """
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
    except OSError as error:
        raise MissingError(f"{argv[0]}: {error.strerror}") from None
    with process:
        said = _drained(process, limit)
    if process.returncode:
        words = said.decode(errors="replace").strip().splitlines()
        raise MissingError(f"{argv[0]} failed: {words[-1][:300] if words else process.returncode}")
    return said


def _drained(process: subprocess.Popen[bytes], limit: int) -> bytes:
    assert process.stdout is not None  # noqa: S101 - asked for above
    os.set_blocking(process.stdout.fileno(), False)
    end, said = time.monotonic() + _PROGRAM_S, b""
    while True:
        piece = process.stdout.read(_PIECE_BYTES)
        if piece:
            said = (said + piece)[-limit - 1 :]
        elif piece == b"":
            break
        elif time.monotonic() > end:
            process.kill()
            raise MissingError(f"{process.args[0]!s} did not answer within {_PROGRAM_S:g} s")
        else:
            time.sleep(0.02)
    return whole_lines(said, limit)


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _line(path: str | Path) -> str:
    return _text(path).strip()
