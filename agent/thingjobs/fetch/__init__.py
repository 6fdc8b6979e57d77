"""Fetching a file so that it arrives whole and is what was promised: the public API for handler authors.

    from thingjobs.fetch import fetch

    fetch("https://example.com/fw.bin", Path("/data/fw.bin"), digest="sha256:…")

It runs in the handler's process, never in the agent. In a handler, `ctx.download` calls it with the local policy and
asks the agent for a fresh URL when one has expired.

- The target is replaced in one move by a complete file whose digest is right, or it is as it was.
- What has come is kept beside it, and gone on with: after a broken connection, in a later call, after a reboot. The
  server must prove that it is still the same version (ETag, length); one that cannot go on is asked for all of it.
- A URL's query, user and password never stand in an exception, in a log or in a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingjobs.fetch.rules import Caller, FetchError, Rules, Wanted, promised

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["FetchError", "Rules", "fetch", "upload"]


def fetch(  # noqa: PLR0913 - each is a fact of its own, and all but two have a default
    url: str,
    target: Path,
    *,
    digest: str = "",
    size: int | None = None,
    max_bytes: int | None = None,
    rules: Rules = Rules(),  # noqa: B008 - frozen
    report: Callable[[int, int | None], None] = lambda *_: None,
    fresh_url: Callable[[], str] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Path:
    """Fetch a file, going on with what an earlier call began, and return where it is.

    Args:
        url: https, or http where a digest or the rules make up for it. A digest may stand behind it, as in
            `https://…#sha256=HEX`: that counts, whatever else is said.
        target: the file to make or to replace; its folder must exist. A file that is replaced hands on mode and owner.
        digest: `sha256:HEX`, `sha384:HEX` or `sha512:HEX`; the name may be left out.
        size: bytes that it must have.
        max_bytes: bytes that it may have at most.
        rules: the local policy.
        report: is told the bytes so far and the bytes in all (None: not known), about once a second.
        fresh_url: gives another URL of the same file once this one has expired.
        cancelled: whether to stop; asked several times a second.

    Raises:
        FetchError: `fetch.digest`: it is not what was promised, or nothing was; `fetch.space`: the disk is full;
            `cancelled`; `fetch.failed`: everything else.
    """
    # The libraries that talk to web servers cost more than the start of a process, and not every verb wants them.
    from thingjobs.fetch.download import download  # noqa: PLC0415

    return download(
        url,
        target,
        Wanted(promised(url, digest), size, max_bytes),
        rules,
        Caller(report, fresh_url, cancelled),
    )


def upload(
    url: str,
    data: bytes,
    *,
    rules: Rules = Rules(),  # noqa: B008 - frozen
    fresh_url: Callable[[], str] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Put bytes where a presigned URL says.

    Args:
        url: https, or http on this machine.
        data: all of it; its length is sent along.
        rules: how patient to be.
        fresh_url: gives another URL of the same place, asked for once, when this one has expired.
        cancelled: whether to stop; asked while it is sent and between attempts.

    Raises:
        FetchError: `cancelled`, or `fetch.failed`: they were not taken.
    """
    from thingjobs.fetch.sending import send  # noqa: PLC0415

    send(url, data, rules, Caller(fresh_url=fresh_url, cancelled=cancelled))
