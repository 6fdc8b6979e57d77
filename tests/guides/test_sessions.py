"""What our documents say to type is typed, in their order; what consoles show is what is printed.

AWS is ministack: the agents that a document starts connect to it by mutual TLS, with the certificates that the document
made, and do the jobs that it made. THINGJOBS_AWS_CLI=/path/to/aws takes the real AWS CLI for the commands, and
THINGJOBS_GUIDES=all follows the long documents too.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.guides import aws_cli
from tests.guides.blocks import DOCUMENTS, Block, Exchange, blocks_of, exchanges
from tests.guides.desk import Desk
from tests.guides.terminal import PATIENCE_SECONDS, Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Ministack, Require

FIRST_HOUR = "examples/first-hour/README.md"
REAL_AWS = os.environ.get("THINGJOBS_AWS_CLI", "")
#: Some 80 commands, and the real AWS CLI takes a second or two for each.
SECONDS = 1200 if REAL_AWS else 300


def nothing(desk: Desk) -> None:
    """Lay out nothing."""


def the_configuration(desk: Desk) -> None:
    """Lay out the configuration that the first hour leaves on a device."""
    (desk.folder / "config.toml").write_text(
        '[thing]\nname = "pump-1"\n[connection]\nendpoint = "abc-ats.iot.us-east-1.amazonaws.com"\n'
        'certificate = "device.pem"\nprivate_key = "device.key"\nca = "AmazonRootCA1.pem"\n'
    )


def the_examples(desk: Desk) -> None:
    """Lay out the folder of the examples."""
    desk.copy(".", "examples")


def one_example(name: str) -> Callable[[Desk], None]:
    """Lay out one example, in the folder itself."""

    def lay_out(desk: Desk) -> None:
        for entry in desk.copy(name).iterdir():
            entry.rename(desk.folder / entry.name)

    return lay_out


@dataclass(frozen=True)
class Session:
    """How a document is followed.

    Attributes:
        lay_out: puts there what the document takes for granted.
        activated: it says that it wants the environment of thingjobs, and not how to get it.
        cloud: it speaks to AWS.
        long: takes some ten seconds of processor.
        elsewhere: places under /tmp that it names; they are in the desk's folder instead, so that nothing meets there.
        before: what was typed before, in another document.
        after: undoes that, and what it makes in AWS.
    """

    lay_out: Callable[[Desk], None] = nothing
    activated: bool = True
    cloud: bool = False
    long: bool = False
    elsewhere: tuple[str, ...] = ()
    before: str = "true"
    after: str = "true"


SESSIONS = {
    "README.md": Session(activated=False),
    FIRST_HOUR: Session(activated=False, cloud=True),
    "handlers/README.md": Session(),
    "packaging/README.md": Session(
        the_configuration,
        cloud=True,
        before="""
            thingjobs policy iot --config config.toml --account 000000000000 >iot.json
            aws iot create-policy --policy-name thingjobs --policy-document file://iot.json
        """,
        after="""
            aws iot delete-policy-version --policy-name thingjobs --policy-version-id 1
            aws iot delete-policy --policy-name thingjobs
        """,
    ),
    "examples/README.md": Session(the_examples, activated=False, long=True, elsewhere=("/tmp/pump.conf",)),
    "examples/ab-firmware/README.md": Session(one_example("ab-firmware"), long=True, elsewhere=("/tmp/ab-firmware",)),
    "examples/cloud-jobs/README.md": Session(one_example("cloud-jobs"), long=True, elsewhere=("/tmp/outbox",)),
}


def test_every_document_that_says_what_to_run_is_followed() -> None:
    saying = {document for document in DOCUMENTS if any(block.how is not None for block in blocks_of(document))}

    assert saying == SESSIONS.keys()


@pytest.fixture
def desk(tmp_path: Path, require: Require) -> Desk:
    """The machine of somebody who follows a document."""
    for module in ("pip", "hatchling", "editables"):
        require(module)
    return Desk(tmp_path)


#: In front of the real AWS CLI; {real}, {endpoint} and {lacks} are filled in. What the emulator has not got is judged
#: by the CLI alone; where devices connect is not where ministack says.
REAL_WRAPPER = """
case "$1 $2" in
"iot describe-endpoint") {real} "$@" >/dev/null && echo {endpoint} ;;
{lacks}) {real} "$@" --generate-cli-skeleton output >/dev/null ;;
*) exec {real} "$@" ;;
esac"""


@contextmanager
def the_cloud(desk: Desk, ministack: Ministack, lacks: list[str]) -> Iterator[dict[str, str]]:
    """Make `aws`, and `curl` for the one file that it fetches; give what they want in their environment."""
    # The root certificate of Amazon is what has a device believe the service; here that is the emulator's.
    desk.program(f'for url; do :; done\ncp {ministack.ca_path} "${{url##*/}}"', desk.tools / "curl")
    endpoint = f"localhost:{ministack.mqtt_port}"
    if not REAL_AWS:
        with aws_cli.installed(desk.tools / "aws", aws_cli.Emulator(ministack.boto, endpoint, frozenset(lacks))):
            yield {}
        return
    lacking = "|".join(f'"{operation}"' for operation in lacks) or '""'
    desk.program(REAL_WRAPPER.format(real=REAL_AWS, endpoint=endpoint, lacks=lacking), desk.tools / "aws")
    (desk.home / ".aws").mkdir()
    (desk.home / ".aws/config").write_text(f"[default]\nregion = {aws_cli.REGION}\n")
    yield {"AWS_ENDPOINT_URL": ministack.url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


class Follower:
    """Types a document."""

    def __init__(self, desk: Desk, session: Session, more: dict[str, str], stack: ExitStack) -> None:
        self._desk = desk
        self._session = session
        self._stack = stack
        self._opened = 0
        self._more = more
        self._others: list[Terminal] = []
        self._terminal = self._open(activated=session.activated)
        self._terminal.run(session.before)

    def _open(self, *, activated: bool) -> Terminal:
        self._opened += 1
        environment = {**self._desk.environment(activated=activated), **self._more}
        terminal = Terminal(self._desk.tools / f"terminal-{self._opened}", self._desk.folder, environment)
        self._stack.callback(terminal.end)
        return terminal

    def follow(self, block: Block) -> None:
        """Type one block."""
        if block.how == "in another terminal":
            self._others.append(self._open(activated=True))
            self._others[-1].start(self._here(block.text))
            return
        if block.how == "when the other terminals are closed":
            for terminal in self._others:
                terminal.end()
        if block.language == "console":
            for exchange in exchanges(block):
                self._hold_against(block, exchange)
        else:
            self._terminal.run(self._here(block.text))

    def end(self) -> None:
        """Undo what stays beyond the test."""
        self._terminal.run(self._session.after)

    def _hold_against(self, block: Block, exchange: Exchange) -> None:
        until = time.monotonic() + (PATIENCE_SECONDS if block.how == "until it is so" else 0)
        while not exchange.fits(printed := self._back(self._terminal.ask(self._here(exchange.command)))):
            assert time.monotonic() < until, f"{block}: $ {exchange.command}\n{printed}\nand not\n{exchange.shown}"
            time.sleep(0.1)

    def _here(self, text: str) -> str:
        for place in self._session.elsewhere:
            text = text.replace(place, str(self._desk.folder / Path(place).name))
        return text

    def _back(self, text: str) -> str:
        for place in self._session.elsewhere:
            text = text.replace(str(self._desk.folder / Path(place).name), place)
        return text.replace(str(self._desk.home), "/home/you")


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize(
    "document",
    [pytest.param(name, marks=[pytest.mark.server] if session.cloud else []) for name, session in SESSIONS.items()],
)
def test_what_a_document_says_to_type_does_what_it_shows(
    document: str, desk: Desk, request: pytest.FixtureRequest
) -> None:
    session = SESSIONS[document]
    if session.long and os.environ.get("THINGJOBS_GUIDES") != "all":
        pytest.skip(f"NOT RUN: {document} takes long; THINGJOBS_GUIDES=all follows it, as .ci/run does")
    blocks = [block for block in blocks_of(document) if block.how is not None]
    session.lay_out(desk)
    for place in session.elsewhere:
        for file in (*desk.folder.glob("[!.]*.*"), *desk.folder.glob("examples/**/*.toml")):
            if file.is_file():
                file.write_text(file.read_text().replace(place, str(desk.folder / Path(place).name)))

    with ExitStack() as stack:
        more: dict[str, str] = {}
        if session.cloud:
            lacks = [operation for block in blocks for operation in block.by_shape]
            ministack: Ministack = request.getfixturevalue("ministack")
            more = stack.enter_context(the_cloud(desk, ministack, lacks))
        follower = Follower(desk, session, more, stack)
        for block in blocks:
            try:
                follower.follow(block)
            except AssertionError as error:
                raise AssertionError(f"{block}: {error}") from None
        follower.end()
