"""Documents that somebody got wrong, two hundred of them in one run: each ends with a status and a reason."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thingjobs.model import Code

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.conftest import Cli, Local

MUTATIONS = 200
#: The only programs that a step can find; each is a stub that does nothing.
PROGRAMS = ("cat", "df", "echo", "false", "ls", "true", "uname")

#: Half of a surrogate pair is no JSON; a file with one is left out before it is a job.
ALPHABET = st.characters(exclude_categories=["Cs"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(ALPHABET, max_size=30),
    st.sampled_from(
        [
            *("", "1.0", "true", "false", "hello", "echo,x", "ls,/", "true", "runCommand", "runHandler"),
            *("download-file.sh", "${aws:iot:parameter:x}", "${AWS_ACCESS_KEY_ID}", "../../x", "nobody", "ѕteps"),
        ]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
)
KEYS = st.one_of(
    st.sampled_from(
        [
            *("version", "steps", "action", "name", "type", "input", "command", "handler", "args", "path", "operation"),
            *("finalStep", "conditions", "params", "mode", "includeStdOut", "ignoreStepFailure", "allowStdErr"),
        ]
    ),
    st.text(ALPHABET, max_size=10),
)

#: Where something is in a document: keys and indexes.
Place = tuple[str | int, ...]
#: What is done to the value at a place; None takes it away.
Change = Callable[[Any], Any] | None


def truncated(share: float, old: Any) -> Any:
    """Return the beginning of a value."""
    if isinstance(old, (str, list)):
        return old[: int(len(old) * share)]
    return dict(list(old.items())[: int(len(old) * share)]) if isinstance(old, dict) else old


def nested(depth: int, old: Any) -> Any:
    """Return a value deep inside lists and objects."""
    for level in range(depth):
        old = [old] if level % 2 else {"steps": old}
    return old


def repeated(old: Any) -> Any:
    """Return three times the value."""
    return old * 3 if isinstance(old, (str, list)) else old


def renamed(key: str, old: Any) -> Any:
    """Return an object with another name for its first key."""
    return {key if index == 0 else name: old[name] for index, name in enumerate(old)} if isinstance(old, dict) else old


def added(pair: tuple[str, Any], old: Any) -> Any:
    """Return an object with one more key."""
    return {**old, pair[0]: pair[1]} if isinstance(old, dict) else old


def replaced(new: Any, old: Any) -> Any:
    """Return the new value."""
    return new


CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.none(),
    st.just(json.dumps),
    st.just(repeated),
    VALUES.map(lambda new: partial(replaced, new)),
    st.floats(0, 1).map(lambda share: partial(truncated, share)),
    st.sampled_from([1, 2, 25]).map(lambda depth: partial(nested, depth)),
    KEYS.map(lambda key: partial(renamed, key)),
    st.tuples(KEYS, VALUES).map(lambda pair: partial(added, pair)),
)


def places(value: Any, at: Place = ()) -> list[Place]:
    """Return every place in a document, its root too."""
    children: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    return [at, *(place for key, child in children for place in places(child, (*at, key)))]


def changed(document: Any, place: Place, change: Change) -> Any:
    """Return the document with the change made at a place."""
    if not place:
        return change(document) if change else document
    parent = document
    for key in place[:-1]:
        parent = parent[key]
    if change is None:
        del parent[place[-1]]
    else:
        parent[place[-1]] = change(parent[place[-1]])
    return document


@st.composite
def mutated(draw: st.DrawFn, documents: list[Any]) -> Any:
    """Return one of the documents with one to three mistakes in it."""
    document = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 3))):
        document = changed(document, draw(st.sampled_from(places(document))), draw(CHANGES))
    return document


@pytest.fixture
def documents(local: Local, examples: Path) -> list[Any]:
    """The example documents, and a few of the other kinds; what they download is nowhere."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((examples / "jobs").glob("*.json"))]
    safe = [text.replace("files.demo.invalid", "127.0.0.1:9").replace("/srv/demo", str(local.out)) for text in texts]
    return [
        *map(json.loads, safe),
        {"handler": "hello", "params": {"name": "pump-7"}, "version": ">=1", "mode": "check"},
        {"operation": "hello", "name": "pump-7"},
        {
            "version": "1.0",
            "conditions": [{"key": "operatingSystem", "value": ["Linux"], "type": "stringEqual"}],
            "steps": [{"action": {"name": "x", "type": "runCommand", "input": {"command": "true"}, "runAsUser": ""}}],
        },
    ]


@pytest.fixture
def harmless(local: Local, examples: Path) -> Local:
    """A folder whose steps find nothing but stubs, and the example handler."""
    stubs = local.folder.parent / "bin"
    stubs.mkdir()
    for name in PROGRAMS:
        (stubs / name).write_text(f"#!/bin/sh\nexit {int(name == 'false')}\n")
        (stubs / name).chmod(0o755)
    local.handler("hello", (examples / "handlers" / "hello").read_text().replace("sleep 0.7", ":"))
    local.config.write_text(local.config.read_text().replace("{ OUT", f'{{ PATH = "{stubs}", OUT'))
    return local


@pytest.mark.timeout(180)
def test_every_mutated_document_ends_with_a_status_a_code_and_a_reason(
    harmless: Local, cli: Cli, documents: list[Any]
) -> None:
    made: list[Any] = []

    @settings(max_examples=MUTATIONS, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(mutated(documents))
    def collect(document: Any) -> None:
        made.append(document)

    collect()
    for index, document in enumerate(made):
        harmless.job(f"m{index:03}", document)

    told = harmless.run()

    assert told.code in (0, 1)
    assert told.err == ""
    assert "left out" not in told.out
    executions = harmless.status()["executions"]
    assert len(executions) == len(made) >= MUTATIONS
    for execution, document in zip(executions, made, strict=True):
        about = json.dumps({"document": document, "execution": execution}, indent=1)
        if execution["status"] == "SUCCEEDED":
            assert execution["code"] is None, about
            continue
        assert execution["status"] in ("FAILED", "REJECTED"), about
        assert execution["code"] in set(Code) - {Code.AGENT_DEFECT}, about
        assert execution["reason"].strip(), about
    # What the service changes on the way cannot be foretold: it leaves out null, and a string may hold a document.
    as_is = [
        it for it, text in zip(executions, map(json.dumps, made), strict=True) if "null" not in text and text[0] != '"'
    ]
    check_foretold(harmless, cli, as_is)


def check_foretold(local: Local, cli: Cli, executions: list[Any]) -> None:
    """What `validate` and `dry-run` say of the documents is what came."""
    assert executions
    paths = [local.folder / f"{execution['jobId']}.json" for execution in executions]
    verdicts = map(json.loads, cli("validate", "--json", *local.words, *paths).out.splitlines())
    foreseen = map(json.loads, cli("dry-run", "--json", *local.words, *paths).out.splitlines())

    for execution, verdict, seen in zip(executions, verdicts, foreseen, strict=True):
        refused = execution["status"] == "REJECTED"
        assert verdict["valid"] is not refused, (execution, verdict)
        assert (seen["would"] == "reject") is refused, (execution, seen)
        if refused:
            assert (verdict["code"], seen["code"]) == (execution["code"],) * 2, (execution, verdict, seen)
