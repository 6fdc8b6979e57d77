"""Asks for a change, looks what came of it, and waits on request; what it amounts to `cloud.outcomes` decides."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thingjobs.cli import FAILED, complain
from thingjobs.cli.cloud.tables import wrapped
from thingjobs.cli.cloud.values import as_json
from thingjobs.cli.paint import Paint
from thingjobs.cloud.errors import CloudError, Fate, Trouble
from thingjobs.cloud.outcomes import Done, Failed, Pending

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from thingjobs.cloud.outcomes import Outcome

#: Seconds between two looks: few at first, because much is over soon, and more with each look.
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 15.0


@dataclass(frozen=True, slots=True)
class Request:
    """A change that somebody asks for.

    Attributes:
        name: what the job is called in sentences.
        again: the command that looks at the job.
        send: asks for it; raises CloudError.
        look: returns the job as it is; raises CloudError.
        judge: says what a job amounts to after that was asked for.
        final: says what a job amounts to for who waits for its end.
        granted: whether a job shows that the service took this request, or another one for the same.
        follow_up: asks for more where the job as it is calls for it, and returns the job; raises CloudError.
    """

    name: str
    again: str
    send: Callable[[], object]
    look: Callable[[], Any]
    judge: Callable[[Any], Outcome]
    final: Callable[[Any], Outcome]
    granted: Callable[[Any], bool]
    follow_up: Callable[[Any], Any] = lambda job: job


def carry_out(request: Request, chosen: argparse.Namespace) -> int:
    """Ask for a change, say what came of it, and return the exit code.

    Raises:
        CloudError: it was refused, or nobody knows what became of it.
        KeyboardInterrupt: Ctrl-C; it was said what that leaves behind.
    """
    screen = Screen(request.name, as_json=chosen.json)
    asked = False
    try:
        with contextlib.closing(screen):
            job = _asked_for(request)
            asked, outcome = True, request.judge(job)
            if chosen.wait:
                job, outcome = _end_of(request, job, chosen.timeout, screen)
    except KeyboardInterrupt:
        left = "the job in the cloud goes on" if asked else "nobody knows whether the service was asked"
        complain(f"not waiting any longer, {left}; look at it with: {request.again}")
        raise
    return _tell(request, job, outcome, chosen)


def _asked_for(request: Request) -> Any:
    """Ask, and return the job as it is then. Where the answer is lost, or says that it is too late, the job tells.

    Raises:
        CloudError: it was refused, or nobody knows.
    """
    refused = _refusal(request.send)
    try:
        job = request.look()
    except CloudError as error:
        if error.trouble is Trouble.NOT_FOUND:
            raise
        took = CloudError(f"the service took the request, and nobody knows more: {error}", error.trouble, Fate.UNKNOWN)
        raise (refused or took) from None
    job = request.follow_up(job)
    if refused and not request.granted(job) and isinstance(request.judge(job), Pending):
        raise refused
    return job


def _refusal(send: Callable[[], object]) -> CloudError | None:
    """Send a request; return an error that may not be the last word.

    Raises:
        CloudError: it certainly did nothing.
    """
    try:
        send()
    except CloudError as error:
        if error.trouble is not Trouble.CONFLICT and error.fate is not Fate.UNKNOWN:
            raise
        return error
    return None


def _end_of(request: Request, job: Any, timeout: float | None, screen: Screen) -> tuple[Any, Outcome]:
    """Look at a job until it is over or the time is; return it as it was last, and what it amounts to."""
    until = time.monotonic() + (float("inf") if timeout is None else timeout)
    outcome, pause = request.final(job), _FIRST_PAUSE
    while isinstance(outcome, Pending) and (left := until - time.monotonic()) > 0:
        screen.show(outcome)
        time.sleep(min(pause, left))
        pause = min(_LONGEST_PAUSE, 1.5 * pause)
        try:
            job = request.look()
        except CloudError as error:
            if not error.passing:
                raise
            outcome = Pending(outcome.percent, f"{error}; it is looked at again")
        else:
            job = request.follow_up(job)
            outcome = request.final(job)
    return job, outcome


def _tell(request: Request, job: Any, outcome: Outcome, chosen: argparse.Namespace) -> int:
    late = chosen.wait and isinstance(outcome, Pending)
    good = not late and not isinstance(outcome, Failed)
    if chosen.json:
        print(json.dumps(_as_json(outcome, job)))
    if late:
        complain(f"after {chosen.timeout:g} s {outcome.sentence}; it goes on, look again with: {request.again}")
    elif isinstance(outcome, Failed):
        complain(outcome.sentence)
    elif not chosen.json:
        _say(Paint(sys.stdout), outcome)
    return 0 if good else FAILED


def _say(paint: Paint, outcome: Done | Pending) -> None:
    looks, more = ("SUCCEEDED", "") if isinstance(outcome, Done) else ("IN_PROGRESS", "; --wait waits for its end")
    before = f"{paint.mark(looks)} "
    for line in wrapped(f"{outcome.sentence}{more}", paint.width - 3):
        paint.line(before + line)
        before = "  "


def _as_json(outcome: Outcome, job: Any) -> dict[str, Any]:
    """Return what scripts get: `outcome` is done, failed or pending; `code` is one of `outcomes.Why`."""
    nothing = {"code": "", "percent": None}
    return {"outcome": type(outcome).__name__.lower(), **nothing, **as_json(outcome), "job": as_json(job)}


class Screen:
    """Shows how a job comes on: on a terminal a line that is drawn again, else a line for each change.

    Args:
        name: what the job is called; whoever looks at a drawn line knows it, and room is short there.
        as_json: standard output is for JSON, so it goes to standard error.
    """

    def __init__(self, name: str, *, as_json: bool) -> None:
        self._paint = Paint(sys.stderr if as_json else sys.stdout)
        self._name = name
        self._last = ""

    def show(self, outcome: Pending) -> None:
        """Show that it is not over."""
        paint = self._paint
        share = "" if outcome.percent is None else f"{outcome.percent:3.0f}%  "
        if paint.live:
            bar = f"{paint.bar(outcome.percent)} " if outcome.percent is not None else ""
            paint.draw(f"{paint.mark('IN_PROGRESS')} {bar}{share}{outcome.sentence.removeprefix(f'{self._name} is ')}")
        elif outcome.sentence != self._last:
            paint.line(f"{paint.mark('IN_PROGRESS')} {share}{outcome.sentence}")
        self._last = outcome.sentence

    def close(self) -> None:
        """Leave nothing behind on a terminal."""
        self._paint.erase()
