"""What the handlers of these tests declare."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from thingjobs.model import Plan, Verb

PLAN = Plan(handler="h", argv=("/h",))
ALL = replace(PLAN, verbs=frozenset(Verb) - {Verb.CHECK})
#: The verbs that ended before one of `ALL` runs.
BEFORE = {
    Verb.PREPARE: (),
    Verb.APPLY: (Verb.PREPARE,),
    Verb.VERIFY: (Verb.PREPARE, Verb.APPLY),
    Verb.COMMIT: (Verb.PREPARE, Verb.APPLY, Verb.VERIFY),
}


def verbs(*names: Verb, **more: Any) -> Plan:
    """Return a plan whose handler declares `apply` and these."""
    return replace(PLAN, verbs=frozenset({Verb.APPLY, *names}), **more)
