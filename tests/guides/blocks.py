"""The blocks of code in our documents: what each is, and the marker above it that says what a test does with it.

Each block is fenced and names its language. Above each that holds commands (`sh`, `console`) stands one of

    <!-- run -->                            run here, in the order of the document, in one shell
    <!-- run in another terminal -->        started in a shell of its own, and ended after the last block
    <!-- run when the other terminals are closed -->
    <!-- run until it is so -->             a console block: run again and again until it prints what stands there
    <!-- run by FILE -->                    FILE, a script of CI, runs the same commands
    <!-- not run: REASON -->                the test report shows the reason

and behind the first of them may stand `; by shape alone: SERVICE OPERATION`, for what the emulator has not got.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
#: The changelog shows nothing to type.
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for places in ("*.md", "[a-z]*/*.md", "examples/*/README.md", "tests/*/README.md")
    for path in ROOT.glob(places)
    if path.name != "CHANGELOG.md"
)
COMMANDS = ("sh", "console")
_FENCE = re.compile(r"^( *)(`{3,}|~{3,})(\w*)$")
_MARKER = re.compile(r"^ *<!-- (.+) -->$")
_HOW = "in another terminal|when the other terminals are closed|until it is so"
_RUN = re.compile(rf"run(?: (?P<how>{_HOW}|by (?P<file>[\w./-]+)))?(?:; by shape alone: (?P<shape>.+))?")


@dataclass(frozen=True)
class Block:
    """One block of code.

    Attributes:
        document: the file that it stands in, from the root of the repository.
        line: where it begins there.
        language: what stands behind the fence; empty: nothing does.
        marker: what stands above it; empty: nothing does.
        text: its lines, without those of the fence.
    """

    document: str
    line: int
    language: str
    marker: str
    text: str

    def __str__(self) -> str:
        """Where it is, as editors take it."""
        return f"{self.document}:{self.line}"

    @property
    def commands(self) -> bool:
        """Whether it is something to type; a program to be kept in a file is not."""
        return self.language in COMMANDS and not self.text.startswith("#!")

    @property
    def how(self) -> str | None:
        """How it is run here: "", or the words behind `run`; None: it is not."""
        found = _RUN.fullmatch(self.marker)
        return (found["how"] or "") if found and not found["file"] else None

    @property
    def elsewhere(self) -> str:
        """The file that runs its commands; "": none does."""
        found = _RUN.fullmatch(self.marker)
        return (found["file"] or "") if found else ""

    @property
    def by_shape(self) -> list[str]:
        """The operations of AWS that the emulator has not got: `SERVICE OPERATION`."""
        found = _RUN.fullmatch(self.marker)
        return (found["shape"] or "").split(", ") if found and found["shape"] else []

    @property
    def reason(self) -> str:
        """Why it is not run; "": it is."""
        return self.marker.removeprefix("not run: ") if self.marker.startswith("not run: ") else ""


def blocks_of(document: str) -> list[Block]:
    """Return the blocks of a document, in order.

    Raises:
        ValueError: a fence is not closed.
    """
    found: list[Block] = []
    lines = iter(enumerate((ROOT / document).read_text(encoding="utf-8").splitlines(), 1))
    before = ""
    for number, line in lines:
        if fence := _FENCE.match(line):
            marker = _MARKER.match(before)
            text = "".join(f"{inner}\n" for inner in _inside(lines, fence[1], fence[2], f"{document}:{number}"))
            found.append(Block(document, number, fence[3], marker[1] if marker else "", text))
        before = line
    return found


def _inside(lines: Iterator[tuple[int, str]], indent: str, fence: str, place: str) -> Iterator[str]:
    for _, line in lines:
        if line.strip() == fence:
            return
        yield line.removeprefix(indent)
    raise ValueError(f"{place}: the block is never closed")


def outside(document: str) -> list[tuple[int, str]]:
    """Return the lines of a document that are in no block, numbered."""
    found, fence = [], ""
    for number, line in enumerate((ROOT / document).read_text(encoding="utf-8").splitlines(), 1):
        if opened := _FENCE.match(line):
            fence = "" if fence else opened[2]
        elif not fence:
            found.append((number, line))
    return found


@dataclass(frozen=True)
class Exchange:
    """A command on a console, and what it is shown to print; `…` stands for what varies, alone for whole lines."""

    command: str
    shown: str

    def fits(self, printed: str) -> bool:
        """Return whether it printed that."""
        pattern = "".join(
            r"(?:.*\n)*?" if line.strip() == "…" else re.escape(line.rstrip()).replace("…", ".*") + r" *\n"
            for line in self.shown.splitlines()
        )
        return re.fullmatch(pattern, f"{printed.rstrip()}\n" if printed.strip() else "") is not None


def exchanges(block: Block) -> list[Exchange]:
    """Return what is typed and shown in a console block.

    Raises:
        ValueError: it does not begin with a command.
    """
    found: list[tuple[list[str], list[str]]] = []
    goes_on = False
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(([line[2:]], []))
        elif not found:
            raise ValueError(f"{block}: a console block begins with a command, `$ …`")
        else:
            found[-1][0 if goes_on else 1].append(line)
        goes_on = line.endswith("\\") and not found[-1][1]
    return [Exchange("\n".join(typed), "\n".join(shown)) for typed, shown in found]
