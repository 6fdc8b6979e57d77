"""What observations mean: dates and clocks, disks, and how far a conversation with the service came. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING

from thingjobs.doctor.findings import failed, ok, skipped, warning
from thingjobs.jobs import Described, Refused
from thingjobs.transport.patience import Cause

if TYPE_CHECKING:
    from thingjobs.clock import Reading
    from thingjobs.doctor.findings import Verdict
    from thingjobs.transport.dial import Link

DAY_SECONDS = 86_400.0
#: A certificate that ends within this many days is spoken of, as by the agent.
SOON_DAYS = 30
#: Signatures (Signature Version 4) are refused when the clock is off by more than this.
SLIGHT_SECONDS = 300.0

# --- dates and the clock ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Span:
    """From when and until when a certificate is valid, seconds since the epoch."""

    since: float
    until: float

    def has(self, now: float) -> bool:
        """Return whether it is valid."""
        return self.since <= now <= self.until

    def __str__(self) -> str:
        return f"{day(self.since)} to {day(self.until)}"


@dataclass(frozen=True, slots=True)
class Times:
    """All that says what time it is.

    Attributes:
        reading: our clock.
        ours: the device certificate's dates; None: there is none.
        theirs: the server certificate's, if its authority is the one that we trust; None: not known.
        said: what the service says that the time is, seconds since the epoch; None: it was not asked or does not.
    """

    reading: Reading
    ours: Span | None = None
    theirs: Span | None = None
    said: float | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether some certificate is out of date by our clock."""
        now = self.reading.wall
        return any(span is not None and not span.has(now) for span in (self.ours, self.theirs))

    @property
    def off(self) -> float:
        """By how many seconds our clock is ahead of the service's, as far as that is known."""
        return 0.0 if self.said is None else self.reading.wall - self.said

    @property
    def clock_is_wrong(self) -> bool:
        """Whether the clock is to blame for dates that do not fit, and not a certificate.

        The service's own word counts most, then that a time service has set the clock. Without either, two
        certificates of different makers are not out of date at once, and none is used before it is made.
        """
        if self.said is not None:
            return abs(self.off) > DAY_SECONDS
        if self.reading.synchronised:
            return False
        spans, now = [span for span in (self.ours, self.theirs) if span is not None], self.reading.wall
        return any(now < span.since for span in spans) or (len(spans) > 1 and not any(span.has(now) for span in spans))


SET_CLOCK = "set the clock, by systemd-timesyncd or chrony for instance; `timedatectl` shows what it does"


def of_clock(times: Times) -> Verdict:
    """Judge the clock."""
    here = f"this device says {minute(times.reading.wall)}"
    if times.clock_is_wrong:
        return failed(f"{here}, {_against(times)}", SET_CLOCK)
    if abs(times.off) > SLIGHT_SECONDS:
        return warning(f"{here}, {_against(times)}: AWS refuses signatures by such a clock", SET_CLOCK)
    if times.reading.synchronised:
        return ok(f"{here}, and a time service keeps it right")
    if times.said is not None:
        return ok(f"{here}, and so does the service")
    return warning(f"{here}, and no time service has set it", SET_CLOCK)


def _against(times: Times) -> str:
    now = times.reading.wall
    if times.said is not None:
        return f"the service says {minute(times.said)}"
    which = (("the server's certificate", times.theirs), ("our certificate", times.ours))
    wrong = [f"{name} is valid from {span}" for name, span in which if span is not None and not span.has(now)]
    return f"no time service has set it, and {', and '.join(wrong)}"


def of_dates(times: Times) -> tuple[Verdict | None, str]:
    """Judge the dates of our certificate: what is wrong, None if nothing; and what to say of them."""
    span, now = times.ours, times.reading.wall
    if span is None:
        return None, "without dates"
    if times.clock_is_wrong:
        return None, f"valid from {span}; by which clock, see there"
    set_by = "" if times.reading.synchronised or times.said is not None else ", if the clock is right"
    new = "put a new one and its key in its place; a running agent takes them up by itself"
    if now > span.until:
        return failed(f"expired on {minute(span.until)}{set_by}", new), ""
    if now < span.since:
        return failed(f"is valid only from {minute(span.since)} on", new), ""
    if span.until - now < SOON_DAYS * DAY_SECONDS:
        return warning(f"expires on {minute(span.until)}", new), ""
    return None, f"valid until {day(span.until)}"


def minute(seconds: float) -> str:
    """Return a time for people, to the minute."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f} s after 1970"


def day(seconds: float) -> str:
    """Return a day for people."""
    return minute(seconds).partition(" ")[0]


# --- the disk -----------------------------------------------------------------------------------------------------

MIB = 1024 * 1024
#: The journal's reserve, and as much again for the records of one job.
LEAST_BYTES = 2 * MIB
FEW_BYTES = 64 * MIB
LEAST_FILES = 64

MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})


def mount_of(path: str, mountinfo: str) -> tuple[str, str]:
    """Return mount point and type of the file system that a resolved path is on; "" if the table does not say.

    Args:
        path: absolute, without links.
        mountinfo: the text of the table, proc_pid_mountinfo(5): of those at one place, the last is on top.
    """
    best = ("", "")
    for line in mountinfo.split("\n"):  # and nothing else ends one: a mount may have any name
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = _unescaped(fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, after.split(" ")[0])
    return best


def _unescaped(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def of_mount(folder: str, point: str, kind: str) -> Verdict | None:
    """Judge the file system of the state folder; None: it is good."""
    if kind in MEMORY:
        return failed(
            f"{folder} is on {point}, which is in memory ({kind}): a reboot would forget all jobs",
            "set state.directory to a folder on a disk, or mount one there",
        )
    if kind == "overlay":
        return warning(
            f"{folder} is on {point}, an overlay: where that is a container's, it goes away with the container",
            "in a container, mount a volume there",
        )
    return None


def of_space(folder: str, free: int, ours: int, files: int | None) -> Verdict:
    """Judge the room for the state folder.

    Args:
        folder: its path.
        free: bytes that everybody may still use.
        ours: bytes that we may, which are more for root.
        files: how many more files can be made; None: there is no such limit.
    """
    size, unit = (free / MIB, "MiB") if free < 1024 * MIB else (free / MIB / 1024, "GiB")
    shown = f"{size:.1f} {unit} free for {folder}"
    if ours < LEAST_BYTES:
        return failed(f"{shown}: too little to keep the journal", "free some space there; the agent takes no jobs")
    if files is not None and files < LEAST_FILES:
        return failed(f"room for {files} more files only for {folder}", "remove files there: it has run out of inodes")
    if free < FEW_BYTES:
        return warning(f"{shown}: downloads will hardly fit", "free some space there")
    return ok(shown)


def lasted(seconds: float) -> str:
    """Return a length of time for people: days, and hours:minutes:seconds."""
    return str(timedelta(seconds=round(seconds)))


# --- a conversation with the service ------------------------------------------------------------------------------


class Stage(IntEnum):
    """How far a conversation came."""

    BEGUN = 0
    LET_IN = 1
    SUBSCRIBED = 2
    ANSWERED = 3


@dataclass(frozen=True, slots=True)
class Talk:
    """What came of a conversation: connect, subscribe, ask for the next job, wait whether somebody takes our place.

    Attributes:
        stage: the last one that was reached.
        reason: why the connection ended; "": it did not.
        cause: the same for programs.
        refused: what the broker said to our request instead of taking it; "": nothing.
        reply: to our request.
        again: whether a second conversation ended by itself as well.
    """

    stage: Stage
    reason: str = ""
    cause: Cause | None = None
    refused: str = ""
    reply: Described | Refused | None = None
    again: bool = False

    @property
    def rival(self) -> bool:
        """Whether somebody came with our client id."""
        return self.cause is Cause.TAKEN


def of_connect(talk: Talk, link: Link, *, web: bool = False) -> Verdict:
    """Judge whether we were let in.

    Args:
        talk: what came of the conversation.
        link: where and as whom.
        web: whether the other end answers HTTP where MQTT was wanted.
    """
    if talk.stage >= Stage.LET_IN or talk.rival:
        return ok(f"{link.address} lets us in as {link.client_id}")
    if web:
        said = f"{link.address} is a web server, and no broker: {talk.reason.partition(': ')[2].partition('; ')[0]}"
        right = "see that connection.endpoint and connection.port are those of AWS IoT Core, or of an MQTT broker"
        return failed(said.removesuffix(": "), right)
    todo = (
        f"see that the certificate is ACTIVE and registered in the account of {link.host}, and that a policy attached "
        f"to it allows iot:Connect on client/{link.client_id} (`thingjobs policy` prints one)"
    )
    return failed(talk.reason, todo)


def of_subscribe(talk: Talk, link: Link) -> Verdict:
    """Judge whether our subscriptions were granted."""
    if talk.stage >= Stage.SUBSCRIBED:
        return ok(f"subscribed to what is told of {link.thing}")
    if talk.rival:
        return skipped("because another client took our place")
    todo = (
        f"allow iot:Subscribe on topicfilter/$aws/things/{link.thing}/jobs/* (topicfilter, not topic); "
        "`thingjobs policy` prints what is needed"
    )
    return failed(talk.reason, todo)


def of_jobs(talk: Talk, link: Link) -> Verdict:
    """Judge whether the Jobs service answers."""
    topic = f"$aws/things/{link.thing}/jobs/$next/get"
    publish = f"allow iot:Publish on topic/{topic}; `thingjobs policy` prints what is needed"
    if talk.reply is not None:
        return _of_reply(talk.reply, link)
    if talk.rival:
        return skipped("because another client took our place")
    if talk.refused:
        return failed(f"{link.address} does not take a message to {topic}: {talk.refused}", publish)
    if talk.reason:
        return failed(talk.reason, publish)
    return failed(
        f"{topic} was taken, and nothing came back",
        f"either the policy lacks iot:Receive on topic/$aws/things/{link.thing}/jobs/*, which nothing else shows; or "
        f"{link.thing} is not the thing's name, which {_thing(link)} tells: if that prints the thing, it is the "
        "policy; on a broker that is not AWS IoT, the Jobs service may not be running",
    )


def _of_reply(reply: Described | Refused, link: Link) -> Verdict:
    if isinstance(reply, Refused):
        said = f"{reply.text or reply.code} {reply.message}".strip()
        return failed(f"the Jobs service refuses to tell the next job of {link.thing}: {said}", f"try {_thing(link)}")
    if reply.execution is None:
        return ok(f"the Jobs service answers: nothing waits for {link.thing}")
    found = reply.execution.identity
    return ok(f"the Jobs service answers: {found.job_id}#{found.number} waits for {link.thing}, and was left alone")


def _thing(link: Link) -> str:
    return f"`aws iot describe-thing --thing-name {link.thing}` in the account of {link.host}"


def of_rival(talk: Talk, link: Link, seconds: float, *, agent_came: bool) -> Verdict:
    """Judge whether we are the only one with our client id.

    Args:
        talk: what came of the conversation.
        link: as whom.
        seconds: how long we looked.
        agent_came: whether our connection ended, and the agent that runs here has one now.
    """
    if agent_came:
        return warning(f"the agent that runs here came meanwhile as {link.client_id}: that ended our connection")
    own = (
        "give each device its own connection.client_id and thing; is there another agent on this device, with another "
        "state folder, or a second device made from the same image?"
    )
    if talk.rival:
        said = f"another client came as {link.client_id} while we were connected, and took our place"
        return failed(said, own)
    if talk.again:
        said = f"twice {link.address} closed the connection while nothing was asked"
        return failed(f"{said}: most probably another client came as {link.client_id}", own)
    if talk.stage < Stage.ANSWERED:
        return skipped("because of jobs")
    if talk.reason:
        return warning(f"the connection ended by itself: {talk.reason}", "check again; look whether that comes back")
    return ok(f"within {seconds:.0f} s nobody else came as {link.client_id}")
