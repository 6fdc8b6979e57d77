"""What the checks find, as values, and the order in which they are carried out. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


class Mark(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "FAILED"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one look found.

    Attributes:
        text: one line for a person.
        todo: what to do about it, another line; "": nothing.
    """

    mark: Mark
    text: str
    todo: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict with the name of its check; a check that finds several problems has several findings."""

    check: str
    mark: Mark
    text: str
    todo: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        look: finds out.
        needs: the checks without which this one would only say the same once more.
    """

    name: str
    look: Callable[[], Iterable[Verdict]]
    needs: tuple[str, ...] = ()


def ok(text: str) -> Verdict:
    """Return that something is as it should be."""
    return Verdict(Mark.OK, text)


def warning(text: str, todo: str = "") -> Verdict:
    """Return that something works and should be looked at all the same."""
    return Verdict(Mark.WARNING, text, todo)


def failed(text: str, todo: str = "") -> Verdict:
    """Return that something keeps the agent, or jobs, from working."""
    return Verdict(Mark.FAILED, text, todo)


def skipped(text: str, todo: str = "") -> Verdict:
    """Return that something could not be found out."""
    return Verdict(Mark.SKIPPED, text, todo)


def parted(sentence: str) -> tuple[str, str]:
    """Return the halves of a sentence: what is wrong; what to do about it."""
    text, _, todo = sentence.partition("; ")
    return text, todo


def carried_out(checks: Sequence[Check], time_left: Callable[[], bool]) -> Iterator[Finding]:
    """Carry out checks in their order, each finding as soon as it is there.

    Args:
        checks: those that one needs come before it.
        time_left: whether there is time for another one.
    """
    #: The checks that did not end well, and which one is to blame for each.
    blamed: dict[str, str] = {}
    for check in checks:
        culprit = next((blamed[name] for name in check.needs if name in blamed), "")
        if culprit:
            blamed[check.name] = culprit
            verdicts = [skipped(f"because of {culprit}")]
        elif not time_left():
            verdicts = [skipped("the checks before it took too long")]
            blamed[check.name] = check.name
        else:
            verdicts = list(check.look())
            if any(verdict.mark in (Mark.FAILED, Mark.SKIPPED) for verdict in verdicts):
                blamed[check.name] = check.name
        yield from (Finding(check.name, verdict.mark, verdict.text, verdict.todo) for verdict in verdicts)
