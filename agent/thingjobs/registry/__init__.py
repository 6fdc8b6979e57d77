"""Which handlers there are on this device, and what each declares.

Two sources: classes that installed packages name in the entry point group `thingjobs.handlers.v1`, and executables
in the folders of `[handlers] directory`. Team code is never imported here. A handler that cannot be used is listed
with its reason; two of one name are refused, naming both. An executable is pinned when a job is judged: it runs from
a copy (`pinning`); of a class, the digest of its distribution is compared.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs import schema
from thingjobs.errors import HandlerError
from thingjobs.model import Code
from thingjobs.registry import classes, tree
from thingjobs.registry.asking import AskError, ask
from thingjobs.registry.classes import Classes, Point, quiet, runs_class
from thingjobs.registry.executables import Executables
from thingjobs.registry.handler import DECLARED, Handler, Listed, unusable
from thingjobs.registry.pinning import Copies
from thingjobs.registry.remembered import Remembered
from thingjobs.registry.trust import program_problem
from thingjobs.schema import SchemaError
from thingjobs.schema.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from thingjobs.model import Json, Plan

__all__ = ["DECLARED", "Handler", "Listed", "Registry", "program_problem", "quiet"]

#: Evaluating the schema of a handler's params takes no longer, or the handler is broken.
VALIDATE_SECONDS = 5.0


class Registry:
    """Finds handlers by name.

    Args:
        directories: folders with executables; one that is missing holds none.
        state: the agent's state folder, for handlers.json and the pinned copies; None: neither is kept.
        path: the PATH that handlers will have.
        account: the user to run children as that work with a handler, by its name; None: the agent's own.
        read_only: nothing is written.
    """

    def __init__(
        self,
        directories: Sequence[Path],
        state: Path | None = None,
        *,
        path: str = os.defpath,
        account: Callable[[str], str | None] = lambda _: None,
        read_only: bool = False,
    ) -> None:
        self._account = account
        self._executables = Executables(directories, path)
        self._classes = Classes(Remembered(state and state / "handlers.json", read_only=read_only), account)
        self._copies = Copies(state and state / "pinned", read_only=read_only)

    # --- finding --------------------------------------------------------------------------------------------------

    def names(self) -> tuple[str, ...]:
        """Return the names of all handlers, usable or not, in order."""
        found = {point.name for point in self._classes.points()} | {path.name for path in self._executables.all()}
        return tuple(sorted(found))

    def has(self, name: str) -> bool:
        """Return whether there is a handler of that name, usable or not."""
        return bool(self._named(name))

    def get(self, name: str) -> Handler:
        """Return the handler `name`.

        Raises:
            HandlerError: there is none, there are two, or it cannot be used; the reason says which and why.
        """
        found = self._named(name)
        if not found:
            raise self._unknown(name)
        if len(found) > 1:
            raise HandlerError(Code.HANDLER_BROKEN, _twice(name, found))
        one = found[0]
        return self._executables.handler(one) if isinstance(one, Path) else self._classes.handler(one)

    def everything(self) -> tuple[Listed, ...]:
        """Return all handlers by name, each usable, or with the reason why it is not."""
        return tuple(self._listed(name) for name in self.names())

    def problems(self, name: str) -> list[str]:
        """Return all that is wrong with a handler, each as a sentence with what to do; none: it can be used.

        Raises:
            HandlerError: there is none of that name.
        """
        found = self._named(name)
        if not found:
            raise self._unknown(name)
        twice = [_twice(name, found)] if len(found) > 1 else []
        each = [self._executables if isinstance(one, Path) else self._classes for one in found]
        own = [problem for one, kind in zip(found, each, strict=True) for problem in kind.problems(one)]  # type: ignore[arg-type]
        return [*twice, *own, *([] if twice or own else self._schema_problems(self.get(name)))]

    def _schema_problems(self, handler: Handler) -> list[str]:
        """Return why params could not be checked: what only trying it tells."""
        try:
            self.check(handler, {})
        except HandlerError as error:
            return [error.reason]
        return []

    def _named(self, name: str) -> list[Path | Point]:
        return [*(one for one in self._classes.points() if one.name == name), *self._executables.named(name)]

    def _listed(self, name: str) -> Listed:
        source = " and ".join(_source(one) for one in self._named(name))
        try:
            return Listed(name, source, self.get(name))
        except HandlerError as error:
            return Listed(name, source, self._declared(name), error.reason)

    def _declared(self, name: str) -> Handler | None:
        """Return what a program declares that may lack nothing but what runs it; None: that cannot be known."""
        found = self._named(name)
        one = found[0] if len(found) == 1 else None
        return self._executables.declared(one) if isinstance(one, Path) else None

    def _unknown(self, name: str) -> HandlerError:
        if self._classes.problem:
            return HandlerError(Code.HANDLER_BROKEN, f"handler {shown(name)} cannot be found: {self._classes.problem}")
        known = ", ".join(self.names()) or "none"
        reason = f"there is no handler {shown(name)} on this device; there are: {known}"
        nearly = self._executables.nearly(name)
        return HandlerError(Code.HANDLER_UNKNOWN, f"{reason} ({nearly})" if nearly else reason)

    # --- params ---------------------------------------------------------------------------------------------------

    def check(self, handler: Handler, params: Json) -> str:
        """Return what is wrong with params, a sentence that names the place; "" if they fit the handler's schema.

        Raises:
            HandlerError: that could not be found out.
        """
        if handler.params is None:
            return ""
        try:
            if not schema.needs_child(handler.params):
                return schema.check(handler.params, params)
            question = schema.question(handler.params, params)
            user = self._account(handler.name)
            return schema.understood(
                ask(classes.question("--validate"), seconds=VALIDATE_SECONDS, user=user, question=question)
            )
        except AskError as error:
            reason = f"params could not be checked by its schema within {VALIDATE_SECONDS:g} s: {shown(str(error))}"
            raise unusable(handler.name, handler.source, [reason]) from None
        except SchemaError as error:
            raise unusable(handler.name, handler.source, [f"the schema of its params {error}"]) from None

    # --- pinning --------------------------------------------------------------------------------------------------

    def pin(self, handler: Handler) -> Handler:
        """Return `handler` so that later changes don't matter to it: it runs from a copy of its files.

        Without a state folder, and where no copy can be made because the disk is full or read-only, it stays where it
        is; then `changed` compares what is there. A class stays as well.

        Raises:
            HandlerError: it was changed meanwhile; look it up again.
        """
        if handler.path is None or self._copies.at(handler.digest) is None:
            return handler
        if not self._copies.intact(handler.digest):
            self._copy(handler)
        return self._moved(handler) if self._copies.intact(handler.digest) else handler

    def changed(self, plan: Plan) -> str:
        """Return why the code is not what was pinned when the job was judged, a sentence; "" if it is.

        By stat alone, unless something was touched. A copy that was damaged is made anew if that is possible.
        """
        if runs_class(plan.argv):
            return self._class_changed(plan)
        pinned = self._copies.holds(plan.argv)
        if pinned and self._copies.intact(plan.digest):
            return ""
        try:
            handler = self._as_it_is(plan.handler)
            if handler.digest != plan.digest:
                return f"handler {plan.handler} was changed since the job was claimed"
            if pinned:
                self._copy(handler)
        except HandlerError as error:
            return f"handler {plan.handler} was changed since the job was claimed: {error.reason}"
        if pinned and not self._copies.intact(plan.digest):
            return f"the copy of handler {plan.handler} was changed since the job was claimed, and cannot be made anew"
        return ""

    def program(self, plan: Plan) -> tuple[str, ...]:
        """Return the program of a plan as this agent starts it.

        A class is run by the agent's own interpreter, from where the agent itself is: after an upgrade that is another
        one than when the job was judged, and that one may be gone.
        """
        return (*classes.PYTHON, plan.argv[-1]) if runs_class(plan.argv) else plan.argv

    def prune(self, keep: Iterable[str]) -> None:
        """Remove pinned copies that nobody needs.

        Args:
            keep: the digests that are needed; the newest few others stay as well.
        """
        self._copies.prune(keep)

    def _as_it_is(self, name: str) -> Handler:
        """Return a handler for its digest: it did not change with what runs it.

        Raises:
            HandlerError: there is none, there are two, or that cannot be known.
        """
        return self._declared(name) or self.get(name)

    def _moved(self, handler: Handler) -> Handler:
        """Return a handler that runs from its copy."""
        place, path = self._copies.at(handler.digest), handler.path
        if place is None or path is None:
            return handler
        root = path if Path(handler.argv[0]) != path else path.parent
        program = place / Path(handler.argv[0]).relative_to(root)
        return replace(handler, argv=(str(program), *handler.argv[1:]))

    def _copy(self, handler: Handler) -> None:
        """Make the copy, if that is possible.

        Raises:
            HandlerError: the handler was changed.
        """
        if handler.path is None or self._made(handler.path, handler.digest):
            return
        if self._as_it_is(handler.name).digest != handler.digest:
            reason = f"handler {handler.name} was changed while it was looked at"
            raise HandlerError(Code.HANDLER_CHANGED, reason)

    def _made(self, path: Path, digest: str) -> bool:
        try:
            return self._copies.make(tree.look(path), digest)
        except OSError:
            return False

    def _class_changed(self, plan: Plan) -> str:
        points = [one for one in self._named(plan.handler) if isinstance(one, Point)]
        same = [one for one in points if one.target == plan.argv[-1]]
        if any(one.digest == plan.digest or plan.resumes_across_versions for one in same):
            return ""
        try:
            now = self.get(plan.handler).version
        except HandlerError as error:
            return f"handler {plan.handler} was {plan.version} when the job was claimed; now: {error.reason}"
        if now == plan.version:
            return f"handler {plan.handler} {now} was installed anew, with other content, since the job was claimed"
        return f"handler {plan.handler} was {plan.version} when the job was claimed and is {now} now"


def _source(one: Path | Point) -> str:
    return str(one) if isinstance(one, Path) else one.source


def _twice(name: str, found: Sequence[Path | Point]) -> str:
    return f"handler {shown(name)} exists more than once: {' and '.join(map(_source, found))}; remove one"
