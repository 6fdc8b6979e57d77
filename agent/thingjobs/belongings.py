"""Whether what an agent in service believes, shows and remembers is its own and root's alone to change.

Modes of the files themselves are looked at by `thingjobs.config`, with what is in them. Here it is who they belong to,
and the folders and links that lead to them: whoever can put another file there need not change this one.
"""

from __future__ import annotations

import os
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs.registry.trust import owners, problem_of, way_problems

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from thingjobs.config import Config


def problems(config: Config, sources: Sequence[Path]) -> list[str]:
    """Return what somebody else could change: one sentence each, with what to do, and each thing once.

    Args:
        config: what the agent is to use.
        sources: the configuration's own files, and folders whose `*.toml` are read.
    """
    inside = [entry for path in sources if path.is_dir() for entry in sorted(path.glob("*.toml"))]
    named = [*((str(path), path) for path in (*sources, *inside)), *_named(config)]
    found: dict[str, str] = {}
    for name, path in named:
        for problem in _of(path):
            found.setdefault(problem, name)
    return [f"{name}: {problem}" for problem, name in found.items()]


def _named(config: Config) -> Iterator[tuple[str, Path]]:
    yield from _paths("connection", config.connection)
    if config.cloud.ca_bundle is not None:
        yield "AWS_CA_BUNDLE", config.cloud.ca_bundle
    yield "state.directory", config.state.directory


def _paths(name: str, section: object) -> Iterator[tuple[str, Path]]:
    """Yield all files that a section of the configuration names, each with its key."""
    if isinstance(section, Path):
        yield name, section
    elif is_dataclass(section):
        for field in fields(section):
            yield from _paths(f"{name}.{field.name}", getattr(section, field.name))


def _of(path: Path) -> list[str]:
    try:
        status = path.stat()
        way = way_problems(os.path.abspath(path))  # noqa: PTH100 - links count
    except OSError:
        return []  # that it is not there, or not to be read, is said with what it is for
    return [*way, *([problem_of(str(path), status)] if status.st_uid not in owners() else [])]
