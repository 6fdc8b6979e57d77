"""Downloading one file: a program of its own, so that it can run as another account, and imported by nobody.

It reads `{"url": …, "path": …}` on stdin, because a presigned URL is a secret and an argv is public; writes JSON
lines with `progress` and `message` on stdout; and says on stderr why it failed, without the URL's query. The target
is replaced in one move by a complete file, or left as it was.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import stat
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import unquote, urlsplit

import requests
from urllib3.exceptions import HTTPError, ReadTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

#: Exit statuses; `steps` knows what they mean. Neither sudo nor Python ends with one of these.
FETCH_FAILED, NO_SPACE = 20, 21

_CONNECT_S, _READ_S = 10, 60
_CHUNK_BYTES = 262144
_REPORT_S = 1.0
_MIB = 1048576
_NO_SPACE_ERRORS = (errno.ENOSPC, errno.EDQUOT)


class DownloadError(Exception):
    """The file was not downloaded; the message says why."""

    def __init__(self, reason: str, status: int = FETCH_FAILED) -> None:
        super().__init__(reason)
        self.status = status


def main() -> int:
    """Download what stdin asks for and return the exit status."""
    signal.signal(signal.SIGTERM, _stop)
    asked = json.load(sys.stdin)
    try:
        download(asked["url"], Path(asked["path"]))
    except DownloadError as error:
        sys.stderr.write(f"{error}\n")
        return error.status
    return 0


def download(url: str, path: Path) -> None:
    """Download a file.

    Args:
        url: where it is.
        path: what to save it as; a folder: under the last part of the URL's path.

    Raises:
        DownloadError: it could not be fetched or written; the target is as it was.
    """
    with _telling(url, path):
        target = _target(url, path)
        # identity: what is stored is what was asked for; its length can be compared.
        headers = {"Accept-Encoding": "identity"}
        with requests.get(url, headers=headers, stream=True, timeout=(_CONNECT_S, _READ_S)) as response:
            if response.status_code != requests.codes.ok:
                raise DownloadError(f"cannot fetch {_public(url)}: {_refusal(response.status_code)}")
            _save(response, target)


def _stop(_number: int, _frame: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _target(url: str, path: Path) -> Path:
    if path.is_dir():
        name = PurePosixPath(unquote(urlsplit(url).path)).name
        if name in ("", ".."):
            raise DownloadError(f"{_public(url)} has no file name at its end: give the path a file name")
        path /= name
    if not path.parent.is_dir():
        raise DownloadError(f"cannot save {path}: there is no folder {path.parent}")
    if path.exists() and not path.is_file():
        raise DownloadError(f"cannot save {path}: it is no regular file")
    return path


def _save(response: requests.Response, target: Path) -> None:
    # The same name each time, so that a power cut leaves one unfinished file at most.
    mark = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    part = target.with_name(f".thingjobs-{mark}.part")
    part.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(part, flags, 0o666), "wb") as file:  # noqa: PTH123 - pathlib opens no descriptor
            _copy(response, file, target.parent)
            file.flush()
            _be_like(target, file.fileno())
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    # A folder that one may write but not read cannot be opened; the file itself is on the disk.
    with suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _copy(response: requests.Response, file: IO[bytes], folder: Path) -> None:
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    if total is not None and total > shutil.disk_usage(folder).free:
        raise DownloadError(f"there is no space in {folder} for {total} bytes", NO_SPACE)
    # How much is missing is for us to tell; urllib3 does so from its version 2 on.
    response.raw.enforce_content_length = False
    received, reported = 0, 0.0
    _report(0, total)
    try:
        for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=False):
            received += file.write(chunk)
            if time.monotonic() - reported >= _REPORT_S:
                _report(received, total)
                reported = time.monotonic()
    except ReadTimeoutError:
        raise
    except HTTPError as error:
        raise DownloadError(_cut(response, received, total)) from error
    if total is not None and received != total:
        raise DownloadError(_cut(response, received, total))
    _report(received, total)


def _cut(response: requests.Response, received: int, total: int | None) -> str:
    return f"cannot fetch {_public(response.url)}: the connection ended after {received} of {total or '?'} bytes"


def _report(received: int, total: int | None) -> None:
    line: dict[str, object] = {"message": f"{received / _MIB:.1f} MiB"}
    if total:
        line = {"progress": 100 * received / total, "message": f"{received / _MIB:.1f} of {total / _MIB:.1f} MiB"}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _be_like(target: Path, descriptor: int) -> None:
    """Take over owner and mode of the file that is replaced, as writing into it would have kept them."""
    with suppress(FileNotFoundError):
        old = target.stat()
        with suppress(PermissionError):
            os.fchown(descriptor, old.st_uid, old.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


@contextmanager
def _telling(url: str, path: Path) -> Iterator[None]:
    """Turn what libraries raise into sentences; their own have the whole URL in them."""
    try:
        yield
    except (requests.RequestException, HTTPError, ValueError) as error:
        raise DownloadError(f"cannot fetch {_public(url)}: {_why(error)}") from error
    except OSError as error:
        if error.errno in _NO_SPACE_ERRORS:
            raise DownloadError(f"there is no space left for {path}", NO_SPACE) from error
        raise DownloadError(f"cannot save {path}: {error.strerror}") from error


def _public(url: str) -> str:
    """Return a URL without what may be secret in it: the query, and a password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _refusal(status: int) -> str:
    match status:
        case 403:
            return "the server refuses it (403); a presigned URL may have expired"
        case 404:
            return "there is no such file (404)"
        case _:
            return f"the server answered {status}"


def _why(error: Exception) -> str:
    match error:
        case requests.ConnectTimeout():
            return f"no connection within {_CONNECT_S} s"
        case requests.ReadTimeout() | ReadTimeoutError():
            return f"no data for {_READ_S} s"
        case requests.TooManyRedirects():
            return "it is redirected without end"
        case ValueError():
            return "the URL, or one it is redirected to, cannot be used"
        case _:
            return _cause(error) or "the connection broke"


def _cause(error: BaseException) -> str:
    """Return what the operating system, the resolver or TLS said at the bottom of it."""
    said = ""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.strerror:
            said = below.strerror
        below = below.__cause__ or below.__context__
    return said


if __name__ == "__main__":
    sys.exit(main())
