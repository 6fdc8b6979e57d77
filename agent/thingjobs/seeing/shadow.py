"""What a named shadow says of the agent, as the request that updates it. Pure.

Made for fleet indexing, which decides the shape: numbers, switches and words at fixed places, no lists. Words that
belong together stand in one string with blanks between, because a search is for words, and because a shadow keeps the
members of an object until each is set to null: a handler that was removed would stay for ever.

What is not so now is null, which takes it out of the shadow. So each update is the whole truth, whatever was told
before, and one that is lost does no harm.

Sources: AWS IoT Core developer guide, "Device Shadow service documents" (an update merges; null removes), "Query
syntax" of fleet indexing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thingjobs.redact import discreet
from thingjobs.wire import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from thingjobs.model import Json

#: Of the whole request. The service takes 8 KB of state (AWS IoT Core quotas, "Device Shadow"), and bills 1 KB steps.
MAX_BYTES = 4096
#: What each text may take in JSON, where a character takes up to 6 bytes: so all of them fit, with room for the rest.
_REASON_BYTES, _WORDS_BYTES, _NAME_BYTES, _JOB_BYTES = 600, 800, 128, 64
#: Steps in which free space is told: it is never quite the same.
_STEP_PERCENT = 5
#: How the reasons of gates begin (`thingjobs.gates`); programs and the maintenance window name themselves.
_GATE = re.compile(r"gate ([^\s:]+)|inhibited by ")
_DIGITS = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class Device:
    """What a look at the device found.

    Attributes:
        handlers: name and version of each that can be used; a version may be "".
        broken: the names of those that cannot.
        expires: the end of the device certificate, seconds since the epoch; None: it shows none, or an unreadable one.
        synchronised: whether a time service has set the clock.
        free: the free share of the file system with the state, 0..1; None: nobody knows.
        free_bytes: the same in bytes.
    """

    handlers: Sequence[tuple[str, str]] = ()
    broken: Sequence[str] = ()
    expires: float | None = None
    synchronised: bool = False
    free: float | None = None
    free_bytes: int | None = None


def document(version: str, status: Json, device: Device) -> bytes:
    """Return the request that has the shadow say how the agent is: JSON of no more than `MAX_BYTES`.

    Args:
        version: the agent's.
        status: as `status.of_agent` tells it.
        device: what the last look found.
    """
    return _packed({"state": {"reported": reported(version, status, device)}})


def essence(request: bytes) -> str:
    """Return what is another when a change is worth a message: numbers in texts, and free space, are not."""
    said: Json = json.loads(request)["state"]["reported"]
    texts = {"waiting": said["waiting"], "trouble": said["trouble"], "disk": None}
    return _DIGITS.sub("0", json.dumps(texts)) + json.dumps({**said, **dict.fromkeys(texts)})


def reported(version: str, status: Json, device: Device) -> Json:
    """Return the members of the shadow, all of them."""
    waiting = [job for job in status["jobs"] if job["waits"]]
    trouble = status.get("trouble", [])
    return {
        "agent": _text(version, _NAME_BYTES),
        "handlers": _words(f"{name}-{of}" if of else name for name, of in device.handlers),
        "broken": _words(device.broken),
        "certificate": {"expires": None if device.expires is None else int(device.expires)},
        "clock": {"synchronised": device.synchronised},
        "disk": _disk(device),
        "jobs": len(status["jobs"]),
        "waiting": _waiting(waiting),
        "owed": _named(status["owed"]),
        "late": _named(status["late"][::-1]),
        "trouble": {"count": len(trouble), "first": _text(trouble[0], _REASON_BYTES) if trouble else None},
    }


def _disk(device: Device) -> Json:
    percent = None if device.free is None else int(device.free * 100) // _STEP_PERCENT * _STEP_PERCENT
    return {"freePercent": percent, "freeMiB": None if device.free_bytes is None else device.free_bytes >> 20}


def _waiting(jobs: Sequence[Json]) -> Json:
    """Return the job that waits first, before what, and for which gate, where it is one: a handler may wait as well."""
    first: Json = jobs[0] if jobs else {}
    gate = _GATE.match(first.get("waits", ""))
    return {
        "count": len(jobs),
        "job": _text(first["jobId"], _JOB_BYTES) if jobs else None,
        "before": first.get("before") or None,
        "gate": _text(gate[1] or "inhibit", _NAME_BYTES) if gate else None,
        "reason": _text(first["waits"], _REASON_BYTES) if jobs else None,
    }


def _named(jobs: Sequence[Json]) -> Json:
    return {"count": len(jobs), "job": _text(jobs[0]["jobId"], _JOB_BYTES) if jobs else None}


# --- no more than there is room for -------------------------------------------------------------------------------


def _packed(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")


def _text(text: str, limit: int) -> str | None:
    """Return what others wrote, cut, without credentials and what steers a terminal; None for nothing at all.

    Indexes do not know empty texts.
    """
    return _cut(clean(" ".join(discreet(text).split())), limit) or None


def _cut(text: str, limit: int) -> str:
    """Return as much of the beginning of a text as takes no more than `limit` bytes in JSON."""
    if _size(text) <= limit:
        return text
    room = limit - _size("…")
    kept = 0
    for at, character in enumerate(text):
        room -= _size(character)
        if room < 0:
            break
        kept = at + 1
    return text[:kept] + "…"


def _words(words: Iterable[str]) -> str | None:
    """Return words with a blank between, whole ones, as many as there is room for; "…" stands for the others."""
    kept: list[str] = []
    room = _WORDS_BYTES - _size(" …")
    for word in (clean("-".join(word.split())) for word in words):
        room -= _size(word) + 1
        if room < 0:
            kept.append("…")
            break
        kept.append(word)
    return " ".join(kept) or None


def _size(text: str) -> int:
    return len(_packed(text)) - 2
