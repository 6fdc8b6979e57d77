"""What the agent tells the built-in handlers of itself and of its policy: in job.json, beside the job."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from thingjobs.handler import Reject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingjobs.handler import Context


def downloads(ctx: Context) -> Mapping[str, Any]:
    """Return the local policy of downloads, for what cannot use `ctx.download`; empty if the agent has none."""
    return _told(ctx, "downloads")


def settings(ctx: Context) -> Mapping[str, Any]:
    """Return what this agent says of itself.

    The keys are `handlers`, the folder that handlers are installed in; `state`, the agent's own folder; `config`, its
    configuration file; and `collect`, patterns of the files that may be collected. Each may be missing.
    """
    return _told(ctx, "settings")


def needed(ctx: Context, key: str) -> str:
    """Return one of the settings.

    Raises:
        Reject: the agent does not say.
    """
    found = settings(ctx).get(key)
    if not isinstance(found, str) or not found:
        raise Reject(f"this agent does not tell its handlers where its {key} are: it is too old for this job")
    return found


def _told(ctx: Context, key: str) -> Mapping[str, Any]:
    try:
        job = json.loads((ctx.dir / "job.json").read_text(encoding="utf-8"))
    except FileNotFoundError:  # a test without an agent
        return {}
    said: dict[str, Any] = job.get(key) or {}
    return said
