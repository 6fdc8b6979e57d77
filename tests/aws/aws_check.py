"""Asks the real AWS IoT Jobs what the documents leave open, and runs the main job over every transport.

It makes a thing, a certificate, policies and some jobs in your account, and deletes them again, whatever happens. It
asks before it begins. What it makes and costs is in README.md beside this file.

Exit code: 0 everything is as the agent's code assumes it (what cannot be answered here is named, and no failure);
1 something is not, or was interrupted before it was answered; 2 it cannot begin, or nobody said yes; 3 something could
not be deleted, and how to do that by hand is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

#: `python tests/aws/aws_check.py` finds what is beside it as the tests find it.
sys.path.append(str(Path(__file__).resolve().parents[2]))

try:
    import boto3  # noqa: F401 - to say so in time
    import cryptography  # noqa: F401
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError as missing:
    sys.stderr.write(f"aws-check: cannot begin: {missing.name} is not installed; `make setup` installs it, or pip\n")
    sys.exit(2)

from tests.aws.account import CannotBeginError, Wanted, open_account
from tests.aws.cloud_points import CLOUD_POINTS
from tests.aws.made import Heap, Made, commands, said
from tests.aws.points import POINTS
from tests.aws.resources import PREFIX, Resources
from tests.aws.setting_up import credentials_by_role_alias, set_up
from tests.aws.stop import Stop, StoppedError
from tests.aws.transcript import Transcript
from tests.aws.ways import WAYS, main_job
from tests.aws.world import Finding, World, asked

from thingjobs.cli.signals import told_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.aws.account import Account

AS_ASSUMED, NOT_AS_ASSUMED, CANNOT_BEGIN, NOT_DELETED = range(4)
_COSTS = """\
It costs: a few dozen job executions and a few hundred messages of AWS IoT, well below one US dollar; see the prices of
AWS IoT Core and AWS IoT Device Management for your region. No job is made in S3 Batch Operations or AWS Batch."""


def main(words: list[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    chosen = _parser().parse_args(words)
    try:
        transcript = Transcript(_path_for(chosen.transcript), lambda text: print(text, flush=True))
    except OSError as error:
        return _cannot(f"cannot write the transcript: {error}")
    try:
        account = open_account(Wanted(chosen.region, chosen.endpoint_url, chosen.mqtt, chosen.ca), transcript)
        resources = Resources(account.client("iot", transcript), account.client("iam", transcript), os.urandom(4).hex())
        code = _clean(resources, chosen, transcript) if chosen.clean else _run(account, resources, chosen, transcript)
    except (CannotBeginError, KeyboardInterrupt) as error:
        why = str(error) or "interrupted before anything was made"
        transcript.note(why)
        code = _cannot(why)
    transcript.say(f"transcript, with account, endpoints, keys and certificates left out: {transcript.path}")
    return code


def _cannot(why: str) -> int:
    sys.stderr.write(f"aws-check: {why}\n")
    return CANNOT_BEGIN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aws_check.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before anything is made or deleted")
    parser.add_argument("--clean", action="store_true", help="delete what earlier runs that were killed have left")
    parser.add_argument("--role-alias", action="store_true", help="make an IAM role and a role alias, too")
    parser.add_argument("--region", default="", help="the AWS region; else what the AWS environment says")
    parser.add_argument("--minutes", type=float, default=25.0, help="end after so long, and delete everything (25)")
    parser.add_argument("--delete-minutes", type=float, default=5.0, help="how long deleting may take (5)")
    parser.add_argument("--transcript", type=Path, metavar="FILE", help="where to write it; a new file")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="what to trust; else what the system trusts")
    parser.add_argument("--endpoint-url", default="", metavar="URL", help="of an emulator of AWS")
    parser.add_argument("--mqtt", default="", metavar="HOST:PORT", help="its MQTT with certificates")
    return parser


def _path_for(wanted: Path | None) -> Path:
    if wanted is not None:
        return wanted
    return Path(tempfile.gettempdir()) / f"thingjobs-aws-check-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"


def _agreed(chosen: argparse.Namespace, question: str) -> None:
    """Ask a person.

    Raises:
        CannotBeginError: nobody says yes.
    """
    if chosen.yes:
        return
    try:
        answer = input(f"{question} [y/N] ")
    except (EOFError, KeyboardInterrupt):
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise CannotBeginError("nothing was made or deleted: nobody said yes (--yes says so beforehand)")


# --- the run --------------------------------------------------------------------------------------------------------


def _run(account: Account, resources: Resources, chosen: argparse.Namespace, transcript: Transcript) -> int:
    transcript.say(
        f"In the account of these credentials, in {account.region}: a thing {resources.name}, a certificate, three "
        f"policies and about {2 * len(WAYS) + len(POINTS)} jobs for that thing"
        f"{', an IAM role and a role alias' * chosen.role_alias}; all of it is deleted at the end.\n{_COSTS}"
    )
    _agreed(chosen, "Go on?")
    stop, heap = Stop(chosen.minutes * 60.0), Heap()
    with _undisturbed(stop.heard):
        folder = Path(tempfile.mkdtemp(prefix=f"{resources.name}-"))
        world = World(account, resources, heap, stop, transcript, folder, resources.name, chosen.role_alias)
        try:
            code = _asked_and_told(world)
        except Exception as error:  # noqa: BLE001 - what was made is deleted, and a person told
            transcript.note(traceback.format_exc())
            transcript.say(f"ended by a mistake in this program: {type(error).__name__} {error}")
            code = NOT_AS_ASSUMED
        finally:
            deleted = _delete(heap, chosen, transcript)
            shutil.rmtree(folder, ignore_errors=True)
    return code if deleted else NOT_DELETED


@contextlib.contextmanager
def _undisturbed(heard: Callable[[int], None]) -> Iterator[None]:
    """Let signals to end be heard, and end nothing by themselves; a terminal that is closed ends nothing either."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with told_of(heard):
            yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _asked_and_told(world: World) -> int:
    """Set up and ask everything; return the exit code, should all be deleted."""
    try:
        set_up(world)
    except (ClientError, BotoCoreError) as error:
        world.transcript.say(f"cannot begin: {said(error)}")
        return CANNOT_BEGIN
    except StoppedError as why:
        world.transcript.say(f"{why}; deleting what was made")
        return NOT_AS_ASSUMED
    findings: dict[str, Finding] = {}
    try:
        for title, ask in _questions(world):
            world.transcript.note(f"--- {title}")
            findings[title] = asked(ask, world)
            world.transcript.say(_line(title, findings[title]))
    except StoppedError as why:
        world.transcript.say(f"{why}; deleting what was made")
        _tell(world.transcript, findings)
        return NOT_AS_ASSUMED
    return _tell(world.transcript, findings)


def _questions(world: World) -> Iterator[tuple[str, Callable[[World], Finding]]]:
    """Yield what is asked: the ways first, so that no job of a point is in the way of their agents."""
    for way in WAYS:
        yield f"WAY {way.name}", main_job(way)
    if world.role_alias:
        yield "ROLE ALIAS", credentials_by_role_alias
    for letter, about, ask in sorted([*POINTS, *CLOUD_POINTS]):
        yield f"POINT {letter} {about}", ask


def _line(title: str, finding: Finding) -> str:
    return f"{title}: {finding.seen}{' (NOT as the agent assumes)' * (finding.fits is False)}"


def _tell(transcript: Transcript, findings: dict[str, Finding]) -> int:
    """Say what it comes to; return the exit code."""
    wrong = [title for title, finding in findings.items() if finding.fits is False]
    unanswered = sum(finding.fits is None for finding in findings.values())
    good = len(findings) - unanswered - len(wrong)
    transcript.say(f"{good} as assumed, {unanswered} not answered here, {len(wrong)} not as assumed")
    for title in wrong:
        transcript.say(f"  not as assumed: {title}")
    return NOT_AS_ASSUMED if wrong else AS_ASSUMED


# --- deleting -------------------------------------------------------------------------------------------------------


def _delete(heap: Heap, chosen: argparse.Namespace, transcript: Transcript) -> bool:
    """Delete everything on the heap, and say so; return whether nothing is left. Signals do not disturb it."""
    count = len(heap)
    transcript.note("--- deleting")
    left = heap.delete_all(seconds=60.0 * chosen.delete_minutes)
    if left:
        transcript.say(f"could not delete, do it by hand or with --clean:\n{commands(left)}")
    else:
        transcript.say(f"deleted: {count} things, nothing of this run is left")
    return not left


def _folder(path: Path) -> Made:
    """Return how the folder with keys and agents of a run is deleted."""
    return Made(f"folder {path}", lambda: shutil.rmtree(path, ignore_errors=True), f"rm -r {path}")


def _clean(resources: Resources, chosen: argparse.Namespace, transcript: Transcript) -> int:
    folders = Path(tempfile.gettempdir())
    try:
        found = [*map(_folder, folders.glob(f"{PREFIX}*")), *resources.left_by_all(transcript.say)]
    except (ClientError, BotoCoreError) as error:
        raise CannotBeginError(f"cannot look for what is left: {said(error)}") from None
    if not found:
        transcript.say("nothing of any run is left")
        return AS_ASSUMED
    transcript.say("left by earlier runs, or belonging to one that goes on now:")
    for made in found:
        transcript.say(f"  {made.what}")
    _agreed(chosen, "Delete all of it?")
    with _undisturbed(lambda _: None):
        return AS_ASSUMED if _delete(Heap(*found), chosen, transcript) else NOT_DELETED


if __name__ == "__main__":
    sys.exit(main())
