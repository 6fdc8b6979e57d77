"""Finds out what is wrong: with the configuration, the certificate, the clock, the network, the policy, the handlers.

Goes the way that the agent goes, step by step, and says what to do about a step that fails. It changes nothing, takes
no job, and leaves an agent that runs alone. Run it as the account that runs the agent. It takes a few seconds, and a
minute at most.

Exit code: 0 nothing failed, warnings allowed; 1 something failed; 2 the configuration cannot be used.
"""

from __future__ import annotations

import json
import logging
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thingjobs.cli import FAILED, USAGE, options
from thingjobs.cli.paint import Paint
from thingjobs.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator

    from thingjobs.doctor import Finding

_COLOURS = {"ok": "green", "warning": "yellow", "FAILED": "red", "skipped": "dim"}
#: Columns for the mark and for the name of the check.
_MARK, _NAME = 9, 13


def add_to(commands: Any) -> None:
    """Add this command."""
    parser = options.new_parser(commands, "check", "find out what keeps the agent from working", __doc__)
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="the configuration; otherwise /etc/thingjobs/config.toml, then /etc/thingjobs/conf.d/*.toml",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=command)


def command(chosen: argparse.Namespace) -> int:
    """Carry out all checks and show what they find."""
    show = _as_json if chosen.json else _for_people
    # What the agent would log on its way is among the findings.
    logging.getLogger("thingjobs").addHandler(logging.NullHandler())
    try:
        config = options.load(chosen)
    except ConfigError as error:
        from thingjobs.doctor import unusable  # noqa: PLC0415 - the help needs no doctor

        show(unusable(error.problems), {})
        return USAGE
    from thingjobs.doctor import examine  # noqa: PLC0415

    connection = config.connection
    about = {
        "thing": str(config.thing.name),
        "endpoint": f"{connection.endpoint}:{connection.port}",
        "transport": connection.transport,
    }
    return show(examine(config, options.sources(chosen)), about)


def _as_json(findings: Iterable[Finding], about: dict[str, str]) -> int:
    listed = [{"check": one.check, "mark": str(one.mark), "text": one.text, "todo": one.todo} for one in findings]
    good = all(one["mark"] != "FAILED" for one in listed)
    nothing = dict.fromkeys(("thing", "endpoint", "transport"), "")
    Paint(sys.stdout).line(json.dumps({**nothing, **about, "ok": good, "findings": listed}))
    return 0 if good else FAILED


def _for_people(findings: Iterable[Finding], about: dict[str, str]) -> int:
    paint = Paint(sys.stdout)
    if about:
        thing, where = paint.style(about["thing"], "bold"), about["endpoint"]
        paint.line(f"thing {thing} at {where}, by {about['transport']}")
    marks: list[str] = []
    for one in _announced(_folded(_noted(findings, marks)), paint.draw):
        for line in _lines(paint, one):
            paint.line(line)
    paint.line(_sum(paint, marks))
    return FAILED if "FAILED" in marks else 0


def _noted(findings: Iterable[Finding], marks: list[str]) -> Iterator[Finding]:
    """Yield the findings, and note how each ended."""
    for one in findings:
        marks.append(str(one.mark))
        yield one


def _announced(findings: Iterable[Finding], draw: Callable[[str], None]) -> Iterator[Finding]:
    """Yield the findings, with a word on a terminal while the next is looked for."""
    draw("checking …")
    for one in findings:
        yield one
        draw("checking …")


def _folded(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the findings, with one for all in a row that were skipped for the same reason."""
    first, others = None, list[str]()
    for one in findings:
        if first is not None and (one.mark, one.text, one.todo) == (first.mark, first.text, first.todo):
            others.append(one.check)
            continue
        if first is not None:
            yield _with_others(first, others)
        first, others = (one, []) if one.mark == "skipped" else (None, [])
        if first is None:
            yield one
    if first is not None:
        yield _with_others(first, others)


def _with_others(first: Finding, others: list[str]) -> Finding:
    if not others:
        return first
    *most, last = others
    named = f"are {', '.join(most)} and {last}" if most else f"is {last}"
    return replace(first, text=f"{first.text}, and so {named}")


def _lines(paint: Paint, one: Finding) -> Iterator[str]:
    room = paint.width - _MARK - _NAME - 1
    styled = paint.style(str(one.mark), _COLOURS[one.mark]) + " " * (_MARK - len(one.mark))
    before, dull = styled + one.check.ljust(_NAME), one.mark == "skipped"
    for line in _wrapped(one.text, room):
        yield before + (paint.style(line, "dim") if dull else line)
        before = " " * (_MARK + _NAME)
    for index, line in enumerate(_wrapped(one.todo, room - 3)):
        yield before + ("→ " if index == 0 else "  ") + line


def _wrapped(text: str, room: int) -> list[str]:
    return textwrap.wrap(text, max(30, room), break_on_hyphens=False, break_long_words=False)


def _sum(paint: Paint, marks: list[str]) -> str:
    bad, doubtful, unknown = (marks.count(mark) for mark in ("FAILED", "warning", "skipped"))
    if bad:
        return paint.style(f"{bad} failed: begin with the first", "red")
    warned = f", with {doubtful} warning{'s' * (doubtful != 1)}" if doubtful else ""
    if unknown:
        return paint.style(f"nothing failed, and {unknown} could not be found out{warned}", "yellow")
    return paint.style(f"all is well{warned}", "green")
