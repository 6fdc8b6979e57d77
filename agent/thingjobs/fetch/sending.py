"""Sending a few bytes to a presigned URL: one PUT, tried again like a download, and never told with its query."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

from thingjobs.fetch.patience import AgainError, Patience
from thingjobs.fetch.replies import Expired, Head, Later, refusal
from thingjobs.fetch.rules import Digest, FetchError, objection, public
from thingjobs.fetch.session import Quiet, RefusedError, Session, why
from thingjobs.model import Code

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

    from thingjobs.fetch.rules import Caller, Rules

_TAKEN = (200, 201, 204)
_BODY_BYTES = 4096


def send(url: str, data: bytes, rules: Rules, caller: Caller) -> None:
    """Do what `thingjobs.fetch.upload` promises.

    Raises:
        FetchError: the bytes were not taken.
    """
    with Quiet():
        _Upload(url, data, rules, caller).run()


class _Body(io.BytesIO):
    """What is sent; `poll` is called for each piece."""

    def __init__(self, data: bytes, poll: Callable[[], None]) -> None:
        super().__init__(data)
        self._poll = poll

    def read(self, size: int | None = -1, /) -> bytes:
        self._poll()
        return super().read(size)


class _Upload:
    """One call of `upload`."""

    def __init__(self, url: str, data: bytes, rules: Rules, caller: Caller) -> None:
        self._url = url
        self._data = data
        self._rules = rules
        self._fresh_url = caller.fresh_url
        self._cancelled = caller.cancelled

    def run(self) -> None:
        self._accept(self._url)
        try:
            Patience(self._rules, self._poll).exercise(self._attempt)
        except AgainError as error:
            raise self._failed(str(error)) from None

    def _attempt(self) -> None:
        self._poll()
        head = self._send()
        if head.status in _TAKEN:
            return
        verdict = refusal(head, time.time())
        if isinstance(verdict, Expired) and self._fresh_url is not None:
            fresh_url, self._fresh_url = self._fresh_url, None
            self._accept(fresh_url())
            raise AgainError(verdict.reason, 0.0)
        if isinstance(verdict, Later):
            raise AgainError(verdict.reason, verdict.after)
        raise self._failed(verdict.reason)

    def _send(self) -> Head:
        try:
            with Session(Digest(), self._rules) as session, self._put(session) as response:
                return Head(response.status_code, response.headers, response.raw.read(_BODY_BYTES))
        except FetchError:
            raise
        except RefusedError as error:
            reason, final = str(error), True
        except Exception as error:  # noqa: BLE001 - whatever a library raises, with the whole URL in it
            reason, final = why(error, self._rules) or "the connection broke", False
        # Out here, so that nothing of what was raised above hangs on to what is raised now.
        raise self._failed(reason) if final else AgainError(reason)

    def _put(self, session: Session) -> requests.Response:
        # Without headers of our own: a presigned URL allows only those that were signed.
        return session.ask("PUT", self._url, {}, lambda: _Body(self._data, self._poll))

    def _accept(self, url: str) -> None:
        self._url = url
        reason = objection(url, digest=Digest(), rules=self._rules)
        if reason:
            raise self._failed(reason)

    def _poll(self) -> None:
        if self._cancelled():
            raise FetchError(Code.CANCELLED, f"the upload to {public(self._url)} was stopped")

    def _failed(self, reason: str) -> FetchError:
        return FetchError(Code.FETCH_FAILED, f"cannot upload to {public(self._url)}: {reason}")
