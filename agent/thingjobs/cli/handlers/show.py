"""Shows all that is known of a handler: where it is from, its verbs and their times, its limits and its parameters.

--schema prints the JSON Schema of its parameters alone, for the people who write job templates.

Exit code: 0; 1 there is no such handler, or it cannot be used.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from thingjobs.cli import FAILED, complain, options
from thingjobs.cli.handlers.known import FLAGS, Known, known, registry_of, timeouts_of, verbs_of
from thingjobs.cli.paint import Paint
from thingjobs.errors import HandlerError
from thingjobs.model import Code
from thingjobs.registry import Listed

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from thingjobs.model import Json
    from thingjobs.registry import Handler, Registry

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))
_SIZES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
#: Rules of a schema that say something to a person who reads one line.
_RULES = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
    "pattern": "like {}",
}


def add_to(actions: Any) -> None:
    """Add this action."""
    parser = options.new_parser(actions, "show", "show all that is known of a handler", __doc__)
    parser.add_argument("name", metavar="NAME", help="the handler's name")
    options.add_config(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--schema", action="store_true", help="print the JSON Schema of its parameters, nothing else")
    what.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=command)


def command(chosen: argparse.Namespace) -> int:
    """Show a handler; exit 1 if there is none, or it cannot be used.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    config = options.load_or_local(chosen)
    try:
        found = known(config, _listed(registry_of(config), chosen.name))
    except HandlerError as error:
        other = f"; thingjobs handlers check {chosen.name} looks at one that is not installed"
        complain(f"cannot show {chosen.name}: {error.reason}{other if os.path.lexists(chosen.name) else ''}")
        return FAILED
    paint = Paint(sys.stdout)
    if chosen.schema:
        return _print_schema(found)
    if chosen.json:
        paint.line(json.dumps(found.as_json()))
    else:
        for line in lines(paint, found):
            paint.line(line)
    return FAILED if found.reason else 0


def _listed(registry: Registry, name: str) -> Listed:
    """Return what the registry has of that name.

    Raises:
        HandlerError: it has nothing.
    """
    try:
        handler = registry.get(name)
    except HandlerError as error:
        if error.code is Code.HANDLER_UNKNOWN:
            raise
        return next(one for one in registry.everything() if one.name == name)
    return Listed(name, handler.source, handler)


def _print_schema(found: Known) -> int:
    if found.handler is None:
        complain(found.reason)
        return FAILED
    # Without a schema anything will do, which is what {} says.
    print(json.dumps(found.handler.params or {}, indent=2, ensure_ascii=False))
    return 0


# --- for people ---------------------------------------------------------------------------------------------------


def lines(paint: Paint, found: Known) -> Iterator[str]:
    """Return what is shown of a handler to a person."""
    handler = found.handler
    title = " ".join(filter(None, [paint.style(found.name, "bold"), handler.version if handler else ""]))
    mark = paint.mark("FAILED" if found.reason else "QUEUED" if found.refused else "SUCCEEDED")
    yield f"{mark} {title}{f': {handler.description}' if handler and handler.description else ''}"
    rows = [("trouble", found.trouble)] if found.trouble else []
    rows += [("source", found.source), ("kind", found.kind), ("runs as", found.user)]
    rows += list(_declared(handler)) if handler else []
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        yield from _wrapped(paint, key.ljust(width), value)
    if handler:
        yield from _params(paint, handler.params, width)


def _wrapped(paint: Paint, key: str, value: str) -> Iterator[str]:
    room = max(20, paint.width - len(key) - 7)
    first, *rest = textwrap.wrap(value, room, break_on_hyphens=False, break_long_words=False) or [""]
    yield f"    {paint.style(key, 'dim')}  {first}"
    yield from (" " * (len(key) + 6) + line for line in rest)


def _declared(handler: Handler) -> Iterator[tuple[str, str]]:
    seconds = timeouts_of(handler.limits)
    yield "digest", handler.digest
    yield "verbs", ", ".join(f"{verb} ({_duration(seconds[verb])})" for verb in verbs_of(handler))
    if "commit" in verbs_of(handler):
        yield "reach", f"commit waits {_duration(seconds['reach'])} for the service"
    if handler.limits.stall is not None:
        yield "stall", f"stuck after {_duration(handler.limits.stall)} without a sign of life"
    if handler.max_defer is not None:
        yield "max_defer", f"FAILED after it was put off for {_duration(handler.max_defer)}"
    yield from ((flag, says) for flag, says in FLAGS.items() if getattr(handler, flag))
    if limits := _limits(handler):
        yield "limits", limits
    if handler.needs:
        yield "needs", ", ".join(sorted(handler.needs))
    if handler.user:
        yield "asks for", f"user {handler.user}; allow_root and run_as in [handlers] decide"


def _limits(handler: Handler) -> str:
    found = handler.resources
    memory = _size(found.memory) + " of memory" if found.memory is not None else ""
    processes = f"{found.processes} processes" if found.processes is not None else ""
    cpu = f"{found.cpu:g} processors" if found.cpu is not None else ""
    return ", ".join(filter(None, [memory, processes, cpu]))


def _duration(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size:g} {unit}"
    return f"{seconds:g} s"


def _size(number: int) -> str:
    for size, unit in _SIZES:
        if number >= size and number % size == 0:
            return f"{number // size} {unit}"
    return f"{number} bytes"


# --- parameters ---------------------------------------------------------------------------------------------------


def _params(paint: Paint, schema: Json | None, width: int) -> Iterator[str]:
    """Return a line for each parameter; what a line cannot say, --schema does."""
    properties = schema.get("properties") if schema else None
    if not isinstance(properties, dict) or not properties:
        yield from _wrapped(paint, "params".ljust(width), "by a schema: see --schema" if schema else "anything")
        return
    yield f"    {paint.style('params', 'dim')}"
    required = schema.get("required", []) if schema else []
    width = max(map(len, properties))
    for name, wanted in properties.items():
        yield from _wrapped(paint, f"  {name.ljust(width)}", _parameter(wanted, required=name in required))


def _parameter(wanted: Any, *, required: bool) -> str:
    if not isinstance(wanted, dict):
        return "required" if required else ""
    rules = [says.format(wanted[rule]) for rule, says in _RULES.items() if rule in wanted]
    default = [f"default {json.dumps(wanted['default'], ensure_ascii=False)}"] if "default" in wanted else []
    facts = ", ".join([_type(wanted), *rules, *default, *(["required"] if required else [])])
    description = str(wanted.get("description", ""))
    return f"{description} ({facts})" if description else facts


def _type(wanted: Json) -> str:
    if "enum" in wanted or "const" in wanted:
        values = wanted.get("enum", [wanted.get("const")])
        return " or ".join(json.dumps(value, ensure_ascii=False) for value in values)
    named = wanted.get("type", "")
    names = [_of_what(str(name), wanted) for name in (named if isinstance(named, list) else [named])]
    return " or ".join(names) or "see --schema"


def _of_what(name: str, wanted: Json) -> str:
    """Return a type with what is in it, as far as a line can say that."""
    inside = {"array": wanted.get("items"), "object": wanted.get("additionalProperties")}.get(name)
    if isinstance(inside, dict) and (isinstance(inside.get("type"), str) or "enum" in inside):
        return f"{name} of {_type(inside)}"
    properties = wanted.get("properties")
    if name == "object" and isinstance(properties, dict) and properties:
        return f"object with {', '.join(properties)}"
    return name
