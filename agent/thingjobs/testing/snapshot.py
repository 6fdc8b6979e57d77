"""The simulator's state as one JSON object and back, so that a program may keep it in a file between runs."""

from __future__ import annotations

import json
from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from thingjobs.testing.records import Change, ExecutionView, Job

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FORMAT = 1


def dumped(jobs: Iterable[Job], executions: Iterable[ExecutionView], hidden: Iterable[str]) -> dict[str, Any]:
    """Return everything as a JSON object of its own: later changes do not reach into it."""
    shape = {
        "format": FORMAT,
        "jobs": [_plain(job) for job in jobs],
        "executions": [
            {**_plain(execution), "history": [_plain(change) for change in execution.history]}
            for execution in executions
        ],
        "hidden": sorted(hidden),
    }
    copied: dict[str, Any] = json.loads(json.dumps(shape))
    return copied


def loaded(shape: Mapping[str, Any]) -> tuple[list[Job], list[ExecutionView], set[str]]:
    """Return what `dumped` was given.

    Raises:
        ValueError: `shape` is of another format, or damaged.
    """
    if shape.get("format") != FORMAT:
        raise ValueError(f"cannot load the jobs: their format is {shape.get('format')!r}, not {FORMAT}")
    try:
        copied = json.loads(json.dumps(dict(shape)))
        jobs = [Job(**job) for job in copied["jobs"]]
        executions = [_execution(**execution) for execution in copied["executions"]]
        return jobs, executions, set(copied["hidden"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"cannot load the jobs: they are damaged: {error!r}") from error


def _plain(record: Job | ExecutionView | Change) -> dict[str, Any]:
    values = ((field.name, getattr(record, field.name)) for field in fields(record))
    return {name: dict(value) if isinstance(value, MappingProxyType) else value for name, value in values}


def _execution(details: dict[str, str], history: list[dict[str, Any]], **rest: Any) -> ExecutionView:
    return ExecutionView(
        details=MappingProxyType(details), history=tuple(_change(**change) for change in history), **rest
    )


def _change(details: dict[str, str], **rest: Any) -> Change:
    return Change(details=MappingProxyType(details), **rest)
