"""`aws SERVICE OPERATION --option value…` as the documents write it: understood by botocore's models of the services.

Not the AWS CLI, which takes a second of processor a command; but options, their types, what is required and `--query`
come of the models that it has too. `judged` needs no service. `installed` makes a program of it that asks an emulator;
that is a client of this process: to import boto3 anew for each command would take longer than all the rest.
"""

from __future__ import annotations

import functools
import json
import socketserver
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

#: The command; {python} and {socket} are filled in.
CLIENT = """\
#!{python} -ISB
import json, os, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({socket!r})
with link.makefile("rw") as file:
    print(json.dumps([os.getcwd(), sys.argv[1:]]), file=file, flush=True)
    status, text = json.loads(file.readline())
if text:
    print(text, file=sys.stderr if status else sys.stdout)
sys.exit(status)
"""
#: Files that the AWS CLI writes, and what of the answer.
FILES = {"certificate-pem-outfile": "certificatePem", "private-key-outfile": "keyPair.PrivateKey"}
REGION = "us-east-1"


@dataclass(frozen=True)
class Call:
    """What a command asks for: the operation as botocore calls it, its parameters, and the CLI's own options."""

    service: str
    operation: str
    given: dict[str, Any]
    own: dict[str, str]


@dataclass(frozen=True)
class Emulator:
    """What stands for AWS.

    Attributes:
        boto: gives the client of a service.
        endpoint: where devices connect; `describe-endpoint` says it.
        lacks: operations (`SERVICE OPERATION`) that it has not got: they are judged, and answer nothing.
    """

    boto: Callable[[str], Any]
    endpoint: str = ""
    lacks: Collection[str] = field(default_factory=frozenset)


@functools.cache
def _model(service: str) -> Any:
    import botocore.session

    return botocore.session.get_session().get_service_model(service)


def judged(words: list[str], folder: Path) -> Call:
    """Return what the words behind `aws` ask for.

    Args:
        words: service, operation, options.
        folder: where `file://` starts.

    Raises:
        ValueError: there is no such service, operation or option, something required lacks, or a value does not fit.
    """
    from botocore import xform_name
    from botocore.exceptions import UnknownServiceError
    from botocore.validate import ParamValidator

    service, operation, *rest = words
    if service == "s3":
        raise ValueError("the CLI has commands of its own as `s3`, which nobody can judge here; take s3api")
    service = "s3" if service == "s3api" else service
    try:
        model = _model(service)
    except UnknownServiceError:
        raise ValueError(f"there is no service {service}") from None
    name = {xform_name(known, "-"): known for known in model.operation_names}.get(operation)
    if name is None:
        raise ValueError(f"{service} has no operation {operation}")
    shape = model.operation_model(name).input_shape
    given, own = _options(rest, shape.members if shape else {}, folder)
    if shape and (problems := ParamValidator().validate(given, shape)).has_errors():
        raise ValueError(problems.generate_report())
    return Call(service, xform_name(name), given, own)


def _options(words: list[str], members: Any, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from botocore import xform_name

    named = {xform_name(name, "-"): (name, shape) for name, shape in members.items()}
    given: dict[str, Any] = {}
    own: dict[str, str] = {}
    rest = list(words)
    while rest:
        option = rest.pop(0)
        if not option.startswith("--"):
            raise ValueError(f"{option!r} belongs to no option")
        values: list[str] = []
        while rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        key = option.removeprefix("--")
        if key in named:
            name, shape = named[key]
            given[name] = _value(shape, values, folder)
        elif key.removeprefix("no-") in named and not values:
            given[named[key.removeprefix("no-")][0]] = False
        elif key in ("query", "output", *FILES):
            (own[key],) = values
        else:
            raise ValueError(f"there is no option {option}")
    return given, own


def _value(shape: Any, words: list[str], folder: Path) -> Any:
    """Return what an option says, as its operation wants it; shorthand as far as the documents use it: `a=1,b=2`."""
    if shape.type_name == "boolean":
        return {"": True, "true": True, "false": False}[" ".join(words)]
    texts = [
        (folder / word.removeprefix("file://")).read_text(encoding="utf-8") if word.startswith("file://") else word
        for word in words
    ]
    if shape.type_name in ("structure", "list", "map") and texts and texts[0].lstrip()[:1] in ("{", "["):
        (text,) = texts
        return json.loads(text)
    if shape.type_name == "list":
        return [_value(shape.member, [text], folder) for text in texts]
    (text,) = texts
    if shape.type_name == "structure":
        pairs = dict(pair.split("=", 1) for pair in text.split(","))
        if unknown := pairs.keys() - shape.members.keys():
            raise ValueError(f"there is no {', '.join(sorted(unknown))}; there is {', '.join(shape.members)}")
        return {name: _value(shape.members[name], [value], folder) for name, value in pairs.items()}
    return int(text) if shape.type_name in ("integer", "long") else text


def asked(emulator: Emulator, words: list[str], folder: Path) -> str:
    """Carry a command out and return what it prints.

    Raises:
        ValueError: it is wrong.
    """
    import jmespath

    if words == ["configure", "get", "region"]:
        return REGION
    call = judged(words, folder)
    if " ".join(words[:2]) in emulator.lacks:
        return ""
    answer = getattr(emulator.boto(call.service), call.operation)(**call.given)
    answer.pop("ResponseMetadata", None)
    if call.given.get("endpointType") == "iot:Data-ATS":
        answer["endpointAddress"] = emulator.endpoint
    for option, path in FILES.items():
        if option in call.own:
            (folder / call.own[option]).write_text(jmespath.search(path, answer))
    if not answer:
        return ""
    found = jmespath.search(call.own["query"], answer) if "query" in call.own else answer
    return _as_text(found) if call.own.get("output") == "text" else json.dumps(found, default=str, indent=4)


def _as_text(found: Any) -> str:
    if isinstance(found, dict):
        raise TypeError("--output text of an object is not imitated here: ask for its values with --query")
    if isinstance(found, list) and any(isinstance(row, list) for row in found):
        return "\n".join(map(_as_text, found))
    return "\t".join(map(str, found)) if isinstance(found, list) else str(found)


@contextmanager
def installed(command: Path, emulator: Emulator) -> Iterator[None]:
    """Make the program `command`, which works as long as this lasts."""
    address = str(command.with_name("aws.sock"))

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            folder, words = json.loads(self.rfile.readline())
            try:
                told: tuple[int, str] = (0, asked(emulator, words, Path(folder)))
            except Exception as error:  # noqa: BLE001 - the caller is a shell, and shows it
                told = (1, f"aws {' '.join(words)}: {error}")
            self.wfile.write(json.dumps(told).encode() + b"\n")

    command.write_text(CLIENT.format(python=sys.executable, socket=address))
    command.chmod(0o755)
    with socketserver.UnixStreamServer(address, Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
