"""The transition table as a drawing: `python -m thingjobs.machine.diagram` prints what agent/README.md shows.

A test compares the two, so the drawing is never older than the table.
"""

from __future__ import annotations

from collections import defaultdict

from thingjobs.machine.table import TABLE
from thingjobs.model import Phase


def drawn() -> str:
    """Return the phases and the ways between them as a Mermaid state diagram."""
    ways: dict[tuple[Phase, Phase | None], list[str]] = defaultdict(list)
    for phase, rows in TABLE.items():
        for event, row in rows.items():
            for target in row.to - {phase}:
                ways[phase, target].append(event.__name__)
            if row.gone:
                ways[phase, None].append(event.__name__)
    lines = ["stateDiagram-v2", "    [*] --> offered: an offer is taken"]
    for source in Phase:
        for target in (*Phase, None):
            events = ways.get((source, target))
            if events:
                lines.append(f"    {source} --> {target or '[*]'}: {', '.join(sorted(events))}")
    return "\n".join([*lines, "    done --> [*]: remembered", ""])


if __name__ == "__main__":
    print(drawn(), end="")  # noqa: T201 - this is the answer
