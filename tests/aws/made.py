"""What was made in the account, and its deletion in reverse order.

Whoever makes something says so before, together with how it is deleted: so nothing can be made and not be on the list.
Deleting what never came to be, or is gone, is no failure.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: Error codes: there is no such thing.
_GONE = frozenset({"ResourceNotFoundException", "NoSuchEntity", "NotFoundException"})
#: Trying again does not help.
_FORBIDDEN = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedException", "ForbiddenException"})
#: One deletion may have to wait for another to be noticed everywhere: this part of the time for all of them.
_SHARE = 0.2
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class Made:
    """One thing in the account.

    Attributes:
        what: kind and name, for people.
        delete: deletes it, whatever state it is in; raises what boto3 raises.
        by_hand: commands that do the same.
    """

    what: str
    delete: Callable[[], None]
    by_hand: str


@dataclass(frozen=True, slots=True)
class Left:
    """What could not be deleted, and why."""

    made: Made
    why: str


class Heap:
    """The things made, the latest on top."""

    def __init__(self, *things: Made) -> None:
        self._things = list(things)

    def __len__(self) -> int:
        return len(self._things)

    @contextlib.contextmanager
    def making(self, thing: Made) -> Iterator[None]:
        """Take note of what is made inside. Only a plain refusal says that it was not made.

        "It exists already" is none: names are random, so it is ours, and the answer to an earlier try was lost.
        """
        self._things.append(thing)
        try:
            yield
        except ClientError as error:
            if _is_refusal(error):
                self._things.remove(thing)
            raise

    def delete(self, thing: Made) -> None:
        """Delete one before its turn; if that fails, it stays on the heap for later."""
        try:
            thing.delete()
        except (ClientError, BotoCoreError) as error:
            if not is_gone(error):
                return
        self._things.remove(thing)

    def delete_all(self, *, seconds: float, sleep: Callable[[float], None] = time.sleep) -> tuple[Left, ...]:
        """Delete everything, the latest first, and return what is left; each is tried once at least.

        Args:
            seconds: for all of them.
            sleep: waits between two tries.
        """
        end = time.monotonic() + seconds
        left = []
        while self._things:
            thing = self._things.pop()
            why = _deleted(thing, min(end, time.monotonic() + _SHARE * seconds), sleep)
            if why:
                left.append(Left(thing, why))
        return tuple(left)


def _deleted(thing: Made, end: float, sleep: Callable[[float], None]) -> str:
    """Delete something; return why that is not possible, "" if it is done."""
    wait = 0.25
    while True:
        try:
            thing.delete()
        except (ClientError, BotoCoreError) as error:
            if is_gone(error):
                return ""
            if is_forbidden(error) or time.monotonic() + wait > end:
                return said(error)
        else:
            return ""
        sleep(wait)
        wait = min(2 * wait, _LONGEST_PAUSE)


def _is_refusal(error: ClientError) -> bool:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return 400 <= status < 500 and "AlreadyExists" not in code_of(error)


def code_of(error: Exception) -> str:
    """Return the service's code in an error of boto3; "" if it has none."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def is_gone(error: Exception) -> bool:
    """Whether there is no such thing."""
    return code_of(error) in _GONE


def is_forbidden(error: Exception) -> bool:
    """Whether the caller may not do this."""
    return code_of(error) in _FORBIDDEN


def said(error: Exception) -> str:
    """Return what boto3 says of an error, in one line."""
    return " ".join(str(error).split())


def commands(left: Iterable[Left]) -> str:
    """Return what is left and how to delete it by hand."""
    return "\n".join(f"  {each.made.what}: {each.why}\n    {each.made.by_hand}" for each in left)
