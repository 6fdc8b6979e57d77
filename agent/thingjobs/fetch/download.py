"""One download, from the first question to the file in its place."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs.fetch import partial as partials
from thingjobs.fetch.line import Broken, End, Line
from thingjobs.fetch.pace import Pace
from thingjobs.fetch.patience import AgainError, Patience
from thingjobs.fetch.replies import Anew, Body, Expired, Head, Later, Refused, Whole, conditions, judge
from thingjobs.fetch.rules import Caller, FetchError, Rules, Wanted, objection, public
from thingjobs.fetch.session import Quiet
from thingjobs.model import Code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thingjobs.fetch.line import Item
    from thingjobs.fetch.partial import Partial

_REPORT_S = 1.0
_MAX_FRESH_URLS = 100
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def download(url: str, target: Path, wanted: Wanted, rules: Rules, caller: Caller) -> Path:
    """Do what `thingjobs.fetch.fetch` promises.

    Raises:
        FetchError: the file was not fetched.
    """
    if rules.digest_required and not wanted.digest.name:
        raise FetchError(
            Code.FETCH_DIGEST,
            f"cannot fetch {public(url)}: downloads on this device need a digest; "
            "give one, or list the handler in [handlers] download_without_digest",
        )
    target = Path(target)
    _check_place(target)
    try:
        with Quiet():
            _Download(url, target, wanted, rules, caller).run()
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise FetchError(Code.FETCH_SPACE, f"there is no space left for {target}") from error
        raise FetchError(Code.FETCH_FAILED, f"cannot save {target}: {error.strerror}") from error
    return target


def _check_place(target: Path) -> None:
    try:
        if not target.parent.is_dir():
            raise FetchError(Code.FETCH_FAILED, f"cannot save {target}: there is no folder {target.parent}")
        if target.exists() and not target.is_file():
            raise FetchError(Code.FETCH_FAILED, f"cannot save {target}: it is no regular file")
    except OSError as error:
        raise FetchError(Code.FETCH_FAILED, f"cannot save {target}: {error.strerror}") from None


class _Download:
    """One call of `fetch`."""

    def __init__(self, url: str, target: Path, wanted: Wanted, rules: Rules, caller: Caller) -> None:
        self._url = url
        self._target = target
        self._wanted = wanted
        self._rules = rules
        self._caller = caller
        self._pace = Pace(rules.max_kib_s)
        self._patience = Patience(rules, self._poll)
        #: The most bytes that there ever were: what counts as progress, whatever has to be fetched again.
        self._most = 0
        self._fresh_at: list[int] = []
        self._reported = 0.0

    def run(self) -> None:
        """Fetch it.

        Raises:
            FetchError: it could not be fetched.
            OSError: it could not be written.
        """
        self._accept(self._url)
        if self._wanted.digest.name and partials.holds(
            self._target, self._wanted.digest, self._wanted.size, self._poll
        ):
            return
        with partials.opened(self._target, self._wanted.digest) as partial:
            try:
                self._obtain(partial)
                partial.publish()
            except (FetchError, OSError) as error:
                if not (isinstance(error, FetchError) and error.resumable and partial.length):
                    partial.remove()
                raise

    def _accept(self, url: str) -> None:
        reason = objection(url, digest=self._wanted.digest, rules=self._rules)
        if reason:
            raise self._failed(reason)
        self._url = url

    def _obtain(self, partial: Partial) -> None:
        """Bring all bytes in; if they are not the right ones, once more without those that were there before."""
        partial.take_up(public(self._url), self._poll)
        self._bring(partial)
        if self._wrong(partial) and partial.resumed:
            partial.clear()
            self._bring(partial)
        if self._wrong(partial):
            raise FetchError(
                Code.FETCH_DIGEST,
                f"{public(self._url)} is not the file that was promised: it hashes to "
                f"{self._wanted.digest.name}:{partial.digest}, not to {self._wanted.digest.value}",
            )

    def _wrong(self, partial: Partial) -> bool:
        return bool(self._wanted.digest.name) and partial.digest != self._wanted.digest.value

    def _bring(self, partial: Partial) -> None:
        try:
            self._patience.exercise(lambda: self._attempt(partial), lambda: self._most)
        except AgainError as error:
            raise self._failed(str(error), resumable=True) from None

    def _attempt(self, partial: Partial) -> None:
        while not partial.complete and not self._ask(partial):
            pass
        self._tell(partial, force=True)

    def _ask(self, partial: Partial) -> bool:
        """Ask for what is missing; return whether all of it came, False: another question must be asked at once."""
        offset = partial.length if partial.stamp.validator or self._wanted.digest.name else 0
        line = Line(
            self._url,
            conditions(offset, partial.stamp),
            digest=self._wanted.digest,
            rules=self._rules,
            pace=self._pace,
        )
        line.start()
        try:
            items = line.items(self._poll)
            head = self._known(next(items), partial)
            assert isinstance(head, Head)  # noqa: S101 - narrows the type; the first of all that is not broken
            return self._obey(head, offset, partial, items)
        finally:
            line.stop()

    def _obey(self, head: Head, offset: int, partial: Partial, items: Iterator[Item]) -> bool:
        match judge(head, offset, partial.stamp, now=time.time()):
            case Body(offset, stamp):
                self._check(stamp.total, whole=True)
                partial.begin(offset, stamp)
                self._tell(partial, force=True)
                self._receive(items, partial)
                return True
            case Whole():
                partial.end()
                return True
            case Anew():
                partial.clear()
                return False
            case Expired(reason):
                self._renew(reason)
                return False
            case Later(reason, after):
                raise AgainError(reason, after)
            case Refused(reason):
                raise self._failed(reason)

    def _receive(self, items: Iterator[Item], partial: Partial) -> None:
        total = partial.stamp.total
        for item in items:
            chunk = self._known(item, partial)
            if isinstance(chunk, bytes):
                partial.append(chunk)
                self._most = max(self._most, partial.length)
                self._check(partial.length, whole=False)
                self._tell(partial)
        if total is not None and partial.length != total:
            self._ended(partial)
        partial.end()
        self._check(partial.length, whole=True)

    def _known(self, item: Item, partial: Partial) -> Head | bytes | End:
        """Return an item that is no broken connection.

        Raises:
            AgainError: it is one.
            FetchError: it is one that cannot be mended.
        """
        match item:
            case Broken(reason, True):
                raise self._failed(reason)
            case Broken(""):
                return self._ended(partial)
            case Broken(reason):
                raise AgainError(reason)
            case _:
                return item

    def _ended(self, partial: Partial) -> End:
        length, total = partial.length, partial.stamp.total
        if total is not None and length > total:
            partial.clear()  # A server that miscounts: nothing of it is to be trusted.
        raise AgainError(f"the connection ended after {length} of {'?' if total is None else total} bytes")

    def _check(self, length: int | None, *, whole: bool) -> None:
        reason = "" if length is None else self._wanted.objection(length, whole=whole)
        if reason:
            raise self._failed(reason)

    def _renew(self, reason: str) -> None:
        """Get a fresh URL, unless the last one did not bring a byte either."""
        useless = self._most in self._fresh_at or len(self._fresh_at) >= _MAX_FRESH_URLS
        if self._caller.fresh_url is None or useless:
            raise self._failed(reason, resumable=True)
        self._fresh_at.append(self._most)
        self._accept(self._caller.fresh_url())

    def _poll(self) -> None:
        if self._caller.cancelled():
            raise FetchError(Code.CANCELLED, f"the download of {public(self._url)} was stopped", resumable=True)

    def _tell(self, partial: Partial, *, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self._reported >= _REPORT_S:
            self._reported = now
            self._caller.report(partial.length, partial.stamp.total)

    def _failed(self, reason: str, *, resumable: bool = False) -> FetchError:
        return FetchError(Code.FETCH_FAILED, f"cannot fetch {public(self._url)}: {reason}", resumable=resumable)
