"""`aws SERVICE OPERATION --option value…` for the guide's test, on boto3: what botocore does not know, it refuses.

Not the AWS CLI, whose package pins a botocore of its own; but options, their types and `--query` come of the same
models. The command is a client of this server: to import boto3 anew for each would take longer than all the rest.
"""

from __future__ import annotations

import json
import socketserver
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The command; {python} and {socket} are filled in.
CLIENT = """\
#!{python} -ISB
import json, os, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({socket!r})
with link.makefile("rw") as file:
    print(json.dumps([os.getcwd(), sys.argv[1:]]), file=file, flush=True)
    status, text = json.loads(file.readline())
print(text, file=sys.stderr if status else sys.stdout)
sys.exit(status)
"""
#: Files that the AWS CLI writes, and what of the answer.
FILES = {"certificate-pem-outfile": "certificatePem", "private-key-outfile": "keyPair.PrivateKey"}


@contextmanager
def installed(command: Path, boto: Callable[[str], Any]) -> Iterator[None]:
    """Make the program `command`, which works as long as this lasts; `boto` gives the client of a service."""
    address = str(command.with_name("aws.sock"))

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            folder, words = json.loads(self.rfile.readline())
            try:
                told: tuple[int, str] = (0, call(boto, Path(folder), words))
            except Exception as error:  # noqa: BLE001 - the caller is a shell, and shows it
                told = (1, f"aws {' '.join(words)}: {error!r}")
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


def call(boto: Callable[[str], Any], folder: Path, words: list[str]) -> str:
    """Call one operation and return what is asked of its answer.

    Raises:
        ValueError: there is no such option.
    """
    import jmespath
    from botocore import xform_name

    service, operation, *rest = words
    if words == ["configure", "get", "region"]:
        return "us-east-1"
    client = boto(service)
    method = operation.replace("-", "_")
    model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method])
    members = model.input_shape.members if model.input_shape else {}
    named = {xform_name(name, "-"): (name, shape) for name, shape in members.items()}
    given: dict[str, Any] = {}
    extra: dict[str, str] = {}
    while rest:
        option = rest.pop(0).removeprefix("--")
        if option in named:
            name, shape = named[option]
            given[name] = True if shape.type_name == "boolean" else value_of(shape, rest.pop(0), folder)
        elif option in ("query", "output", *FILES):
            extra[option] = rest.pop(0)
        else:
            raise ValueError(f"there is no option --{option}")
    answer = getattr(client, method)(**given)
    answer.pop("ResponseMetadata", None)
    for option, path in FILES.items():
        if option in extra:
            (folder / extra[option]).write_text(jmespath.search(path, answer))
    found = jmespath.search(extra["query"], answer) if "query" in extra else answer
    return str(found) if extra.get("output") == "text" else json.dumps(found, default=str)


def value_of(shape: Any, word: str, folder: Path) -> Any:
    """Return what an option says, as its operation wants it."""
    text = (folder / word.removeprefix("file://")).read_text() if word.startswith("file://") else word
    match shape.type_name:
        case "list":
            return [text]
        case "structure" if text.lstrip().startswith("{"):
            return json.loads(text)
        case "structure":
            name, _, value = text.partition("=")
            return {name: value_of(shape.members[name], value, folder)}
        case "integer" | "long":
            return int(text)
        case _:
            return text
