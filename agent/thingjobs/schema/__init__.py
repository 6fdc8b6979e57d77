"""Schemas of parameters: what a handler may write, and whether a document's params fit. Pure.

JSON Schema draft-07 with the keywords that `reading` knows; `$ref` leads only to `#` and to the definitions at the
top, and nothing is ever fetched. Defaults are documentation, they are not filled in. The evaluation is
fastjsonschema's, which makes Python of a schema: so it is given a copy of nothing but what was checked. Handlers are
less trusted than the agent: a schema whose evaluation may take long (patterns, recursion, alternatives that multiply)
is for a child process, see `needs_child`.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from thingjobs.schema.reading import MAX_BYTES, read
from thingjobs.schema.sentences import sentence
from thingjobs.schema.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAX_BYTES", "SchemaError", "answer", "check", "needs_child", "problems", "question", "shown", "understood"]


class SchemaError(ValueError):
    """A schema that cannot be evaluated; the message says why, as the rest of a sentence."""


def problems(schema: object) -> list[str]:
    """Return all that is wrong with a schema, each a sentence that starts with the place; none: it can be used.

    One that is for a child is not tried out here: only `check` in that child finds that it nests too deeply for
    Python, or contradicts itself.
    """
    found = read(_text(schema))
    if found.problems or found.slow:
        return list(found.problems)
    try:
        _compiled(_text(schema))
    except SchemaError as error:
        return [f"params {error}"]
    return []


def needs_child(schema: object) -> bool:
    """Return whether evaluating a schema may take longer than the agent can wait for."""
    return read(_text(schema)).slow


def check(schema: object, params: object) -> str:
    """Return what is wrong with `params`, as one sentence that names the place and quotes no text of theirs; or "".

    Raises:
        SchemaError: the schema cannot be evaluated.
    """
    from fastjsonschema import JsonSchemaValueException  # noqa: PLC0415 - an idle agent does not load it

    evaluate = _compiled(_text(schema))
    try:
        evaluate(params)
    except JsonSchemaValueException as error:
        return sentence(str(error.name), str(error.rule), error.value, error.definition)
    except RecursionError:
        return "params is nested too deeply"
    except Exception as error:  # noqa: BLE001 - code that was made of a schema can raise anything
        raise SchemaError(f"cannot be evaluated: {type(error).__name__}") from None
    return ""


def _text(schema: object) -> str:
    try:
        return json.dumps(schema)
    except (TypeError, ValueError, RecursionError):
        return ""


class _Nowhere(dict[str, Any]):
    """Takes the place of the functions that fetch schemas, by URL scheme: there is one for each, and none does."""

    def __contains__(self, scheme: object) -> bool:
        return True

    def __getitem__(self, scheme: str) -> Any:
        raise SchemaError("refers elsewhere, and nothing is fetched")


@lru_cache(maxsize=8)
def _compiled(text: str) -> Callable[[object], object]:
    import fastjsonschema  # noqa: PLC0415 - an idle agent does not load it

    found = read(text)
    if found.problems:
        raise SchemaError("; ".join(found.problems))
    # A copy: it writes into what it is given.
    clean = json.loads(json.dumps(found.clean))
    try:
        evaluate: Callable[[object], object] = fastjsonschema.compile(clean, handlers=_Nowhere(), use_default=False)
    except Exception as error:  # noqa: BLE001 - the syntax of what is made, its depth, a rule that contradicts another
        raise SchemaError(f"cannot be evaluated: {shown(str(error))}") from None
    return evaluate


# --- in a child ---------------------------------------------------------------------------------------------------


def question(schema: object, params: object) -> bytes:
    """Return what a child is asked whether `params` fit."""
    return json.dumps({"schema": schema, "params": params}).encode()


def answer(asked: bytes) -> str:
    """Return the answer of a child to a `question`: JSON, for `understood`."""
    found = json.loads(asked)
    try:
        return json.dumps({"problem": check(found["schema"], found["params"])})
    except SchemaError as error:
        return json.dumps({"broken": str(error)})


def understood(answered: bytes) -> str:
    """Return what `check` returned in a child.

    Raises:
        SchemaError: the schema cannot be evaluated, or that was no answer.
    """
    try:
        said = json.loads(answered)
    except (ValueError, RecursionError):
        said = None
    match said:
        case {"problem": str(problem)}:
            return problem
        case {"broken": str(why)}:
            raise SchemaError(shown(why))
        case _:
            raise SchemaError("cannot be evaluated: the child gave no answer")
