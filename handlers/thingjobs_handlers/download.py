"""Downloading one file: a program of its own, so that it can run as another account, and imported by nobody.

It reads `{"url": …, "path": …, "rules": {…}}` on stdin, because a presigned URL is a secret and an argv is public (the
rules are the fields of `thingjobs.fetch.Rules`); writes JSON lines with `progress` and `message` on stdout; and says on
stderr why it failed, without the URL's query. The target is replaced in one move by a complete file, or left as it was;
what came of it is kept for the next try.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from thingjobs.fetch import FetchError, Rules, fetch
from thingjobs.fetch.rules import promised
from thingjobs.model import Code

#: Exit statuses; `steps` knows what they mean. Neither sudo nor Python ends with one of these.
_STATUSES = {Code.FETCH_FAILED: 20, Code.FETCH_SPACE: 21, Code.FETCH_DIGEST: 22}
_MIB = 1048576


class _Stop:
    """Whether somebody sent SIGTERM."""

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, _number: int, _frame: object) -> None:
        self._asked = True

    def __call__(self) -> bool:
        return self._asked


def main() -> int:
    """Download what stdin asks for and return the exit status."""
    stop = _Stop()
    asked = json.load(sys.stdin)
    try:
        target = _target(asked["url"], Path(asked["path"]))
        fetch(asked["url"], target, rules=Rules(**asked["rules"]), report=_report, cancelled=stop)
    except FetchError as error:
        sys.stderr.write(f"{error.reason}\n")
        return 128 + signal.SIGTERM if error.code == Code.CANCELLED else _STATUSES[Code(error.code)]
    return 0


def _target(url: str, path: Path) -> Path:
    """Return what to save it as: in a folder, under the last part of the URL's path.

    A URL that is held to a digest stands beside what somebody signed, and nobody signed what it ends in.

    Raises:
        FetchError: the URL ends in no name, or in one that nobody vouches for.
    """
    if not _is_folder(path):
        return path
    if promised(url, "").name:
        raise FetchError(
            Code.FETCH_FAILED,
            f"nobody signed the name that the URL has for a file in {path}: give the path a file name",
        )
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if name in ("", "..") or "\0" in name:
        raise FetchError(
            Code.FETCH_FAILED, f"the URL has no file name at its end to be used in {path}: give the path a file name"
        )
    return path / name


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # fetch says it better
        return False


def _report(received: int, total: int | None) -> None:
    line: dict[str, object] = {"message": f"{received / _MIB:.1f} MiB"}
    if total:
        line = {"progress": 100 * received / total, "message": f"{received / _MIB:.1f} of {total / _MIB:.1f} MiB"}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
