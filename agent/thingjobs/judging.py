"""Holding a job document against this device: which handler, with what, as whom; or why not.

The routing itself is `documents`, which is pure; this module knows the device for it, and makes the plan that the
core then follows.
"""

from __future__ import annotations

import logging
import os
import platform
import pwd
import re
import shutil
from fnmatch import fnmatchcase
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from thingjobs import clock
from thingjobs.documents import AWS_STEPS, Asked, called, route
from thingjobs.envelope import SIGNED, Here, Opened, opened
from thingjobs.envelope.claims import moment
from thingjobs.errors import DocumentError, HandlerError
from thingjobs.manifest import forbidden_cloud, lacking
from thingjobs.model import Code, Plan, Result, Status
from thingjobs.redact import redacted
from thingjobs.registry import DECLARED, Registry, program_problem
from thingjobs.runner import INHERITED
from thingjobs.runner.given import DEFAULT_PATH, with_own_commands

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from thingjobs.config import Config
    from thingjobs.envelope.keys import Verify
    from thingjobs.registry import Handler

log = logging.getLogger("thingjobs")

#: Longer numbers are none: Python refuses to read those of thousands of digits.
_NUMBER = r"[0-9]{1,18}(?![0-9])"
#: Without possessive quantifiers: of a group that fails in the middle, Python 3.11.2 keeps the beginning.
_NUMBERS = rf"{_NUMBER}(?:\.{_NUMBER})*"
_VERSION = re.compile(rf"{_NUMBERS}(?!\.[0-9])")
#: A handler may be replaced while it is looked at; then it is looked at again.
LOOKS = 3
_CONSTRAINT = re.compile(rf"\s*(==|>=|<=|!=|>|<)?\s*({_NUMBERS})\s*")


_NO_KEYS: Mapping[str, Verify] = MappingProxyType({})


class ThisDevice:
    """What routing needs to know of this device (thingjobs.documents.Device)."""

    def __init__(self, config: Config, registry: Registry) -> None:
        self._config = config
        self._registry = registry

    @property
    def thing(self) -> str:
        """The thing's name."""
        return self._config.thing.name

    @property
    def facts(self) -> Mapping[str, str]:
        """What conditions are judged by: the agent's own facts, then those of the configuration."""
        own = {"operatingSystem": _distribution(), "architecture": platform.machine(), "thingName": self.thing}
        return {**own, **self._config.facts}

    @property
    def scripts_shown(self) -> str:
        """The scripts folder, for messages."""
        return str(self._config.handlers.scripts)

    def has_handler(self, name: str) -> bool:
        """Return whether there is a handler of that name."""
        return self._registry.has(name)

    def script(self, name: str) -> str | None:
        """Return the path of the executable script `name` in the scripts folder, None if there is none."""
        path: Path = self._config.handlers.scripts / name
        # Unlike those of a Path it never raises, for a name that is too long for instance.
        there = os.path.isfile(path)  # noqa: PTH113
        if path.parent != self._config.handlers.scripts or not there or not os.access(path, os.X_OK):
            return None
        if problem := program_problem(path):
            raise DocumentError(Code.HANDLER_BROKEN, f"the script {path} cannot be trusted: {problem}")
        return str(path)

    def check_user(self, user: str) -> None:
        """Let a document name only users that exist and that the operator listed.

        Raises:
            DocumentError: it may not, or there is no such user.
        """
        handlers = self._config.handlers
        try:
            pwd.getpwnam(user)
        except (KeyError, ValueError):  # The latter: it has characters that no name can have.
            raise DocumentError(Code.USER_UNKNOWN, f"runAsUser: there is no user {user} on this device") from None
        if user == effective_user(self._config, AWS_STEPS):
            return
        if user not in handlers.run_as:
            reason = f"runAsUser: {user} is not listed in [handlers] run_as on this device"
            raise DocumentError(Code.USER_FORBIDDEN, reason)
        if os.geteuid() == 0 and not may_be_root(self._config, AWS_STEPS):
            reason = f"runAsUser: to become {user}, {AWS_STEPS} must be listed in [handlers] allow_root on this device"
            raise DocumentError(Code.USER_FORBIDDEN, reason)
        if os.geteuid() != 0 and shutil.which("sudo") is None:
            reason = f"runAsUser: the agent is not root and there is no sudo, so it cannot become {user}"
            raise DocumentError(Code.USER_FORBIDDEN, reason)


def _distribution() -> str:
    """Return what AWS's examples call the operating system: `ubuntu`, `debian`, `rhel`…; ID of os-release."""
    try:
        return platform.freedesktop_os_release()["ID"]
    except OSError:
        return platform.system().lower()


def effective_user(config: Config, handler: str) -> str:
    """Return the name of the user that `handler` runs as on this device."""
    try:
        return account(config, handler) or pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # A container may run as a number that has no name.
        return str(os.geteuid())


def account(config: Config, handler: str) -> str | None:
    """Return the user to become for `handler`, None to stay who the agent is."""
    if os.geteuid() != 0 or may_be_root(config, handler):
        return None
    return config.handlers.user


def missing_user(config: Config) -> str:
    """Return what to do about a handlers' user that does not exist, "" if there is nothing to do."""
    user = config.handlers.user
    if os.geteuid() != 0 or user is None:
        return ""
    try:
        pwd.getpwnam(user)
    except KeyError:
        return (
            f"handlers.user = {user}: there is no such user, so only handlers in allow_root can run;"
            f" run useradd --system {user}, or set handlers.user"
        )
    return ""


def may_be_root(config: Config, handler: str) -> bool:
    """Return whether the operator listed `handler` among those that may run as root."""
    return any(fnmatchcase(handler, pattern) for pattern in config.handlers.allow_root)


def user_for(config: Config, handler: Handler) -> str | None:
    """Return the user to become for `handler`, None to stay who the agent is: its wish, as far as it is allowed.

    Raises:
        DocumentError: it may not be that user here, or there is none.
    """
    wish, own = handler.user, account(config, handler.name)
    user = wish or own
    if user is None:
        return None
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        todo = f"change user in the manifest of {handler.name}" if wish else "set [handlers] user"
        reason = f"there is no user {user} on this device; create it, or {todo}"
        raise DocumentError(Code.USER_UNKNOWN, reason) from None
    if uid == os.geteuid() and (uid != 0 or may_be_root(config, handler.name)):
        return None
    if reason := _forbidden(config, handler, user, uid):
        raise DocumentError(Code.USER_FORBIDDEN, reason)
    return user


def _forbidden(config: Config, handler: Handler, user: str, uid: int) -> str:
    """Return why a handler may not run as an account that is not the agent's own, or ""."""
    if uid == 0 and os.geteuid() == 0:
        return f"only handlers in [handlers] allow_root may run as root; list {handler.name} there"
    if os.geteuid() != 0:
        return f"handler {handler.name} wants to run as {user}, and only an agent that is root can become another user"
    if user != config.handlers.user and user not in config.handlers.run_as:
        return f"handler {handler.name} wants to run as {user}, which is not listed in [handlers] run_as on this device"
    return ""


def without_cloud(config: Config, handler: Handler) -> str:
    """Return that a handler needs AWS credentials and the operator gives it none, a sentence; "" if it is not so."""
    return forbidden_cloud(handler.name, handler.needs, config.cloud.handlers)


def registry_for(config: Config, state: Path | None = None, *, read_only: bool = False) -> Registry:
    """Return the handlers of this device.

    Args:
        config: says where they are, and as whom they run.
        state: the agent's state folder, where copies of handlers are pinned; None: nothing is kept.
        read_only: what is kept there is used, and nothing is written.
    """
    path = handler_environment(config)["PATH"]
    return Registry(config.handlers.directory, state, path=path, account=partial(account, config), read_only=read_only)


def handler_environment(config: Config) -> dict[str, str]:
    """Return what handlers get of the agent's own environment and of the configuration."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**inherited, "PATH": with_own_commands(inherited.get("PATH", DEFAULT_PATH)), **config.handlers.environment}


class Judge:
    """Makes a plan of a job document, or says why this device refuses it.

    A handler is pinned by that as far as the registry has a state folder that it may write.

    Args:
        config: what is allowed on this device.
        registry: its handlers.
        keys: those that vouch for signed documents, by name.
        now: tells the time, seconds since the epoch; None: nobody has set the clock.
    """

    def __init__(
        self,
        config: Config,
        registry: Registry,
        *,
        keys: Mapping[str, Verify] = _NO_KEYS,
        now: Callable[[], float | None] = clock.once_right(),  # noqa: B008 - one clock for all
    ) -> None:
        self._config = config
        self._registry = registry
        self._device = ThisDevice(config, registry)
        self._keys = keys
        self._now = now

    def judge(self, document: object, job: str | None = None) -> Plan | Result:
        """Return the plan for a document, or the result to refuse it with.

        Args:
            document: as it was delivered; None stands for one that is no object.
            job: the id of its job; None: not known.

        Raises:
            StateError: it is signed for a time, and nobody has set the clock yet.
        """
        if document is None:
            return Result(Status.REJECTED, Code.DOCUMENT_INVALID, "the job document must be a JSON object")
        try:
            return self._steady_plan(self._asked(document, job))
        except DocumentError as refusal:
            # Reasons quote what was found, and that may be a presigned URL.
            return Result(Status.REJECTED, refusal.code, redacted(refusal.reason))

    def opened(self, document: object, job: str | None = None) -> Opened | None:
        """Return what is in a signed document and who vouches for it, None if the document is not signed.

        Raises:
            DocumentError: it is signed, and nobody who is trusted vouches for it, here and now.
            StateError: it is signed for a time, and nobody has set the clock yet.
        """
        if not isinstance(document, dict) or SIGNED not in document:
            return None
        return opened(document, self._keys, Here(self._config.thing.name, job, self._now()))

    def _asked(self, document: object, job: str | None) -> Asked:
        """Return what a document asks for, if it is signed where it must be."""
        found = self.opened(document, job)
        if found is not None:
            if job is not None:
                log.info("%s: signed by %s, good until %s", job, found.key, moment(found.not_after))
            return route(found.document, self._device)
        if not self._config.signed.require:
            return route(document, self._device)
        # Nobody need look further into what nobody vouches for, nor tell its author what there is on this device.
        self._check_unsigned(called(document, self._device))
        asked = route(document, self._device)
        self._check_unsigned(asked.handler)
        return asked

    def _check_unsigned(self, handler: str) -> None:
        if not any(fnmatchcase(handler, pattern) for pattern in self._config.signed.unsigned):
            reason = "the job document is not signed, as this device demands; sign it with `thingjobs sign`"
            raise DocumentError(Code.DOCUMENT_UNSIGNED, reason)

    def handler(self, asked: Asked) -> Handler:
        """Return the handler for what a document asks.

        Raises:
            DocumentError: it is unknown, broken, not allowed here, or of the wrong version.
        """
        if not any(fnmatchcase(asked.handler, pattern) for pattern in self._config.handlers.allow):
            reason = f"handler {asked.handler} is not listed in [handlers] allow on this device"
            raise DocumentError(Code.HANDLER_FORBIDDEN, reason)
        handler = self._registry.get(asked.handler)
        if asked.version and not fits(handler.version, asked.version):
            shown = handler.version or "without a version"
            reason = f"handler {handler.name} is {shown} here, and the document wants {asked.version}"
            raise DocumentError(Code.HANDLER_VERSION, reason)
        if lacks := lacking(handler.needs):
            raise HandlerError(Code.HANDLER_BROKEN, f"handler {handler.name} {lacks}")
        if reason := without_cloud(self._config, handler):
            raise DocumentError(Code.HANDLER_FORBIDDEN, reason)
        return handler

    def _steady_plan(self, asked: Asked) -> Plan:
        for _ in range(LOOKS - 1):
            try:
                return self._plan(asked, self.handler(asked))
            except HandlerError as error:
                if error.code is not Code.HANDLER_CHANGED:
                    raise
        return self._plan(asked, self.handler(asked))

    def _plan(self, asked: Asked, handler: Handler) -> Plan:
        user = user_for(self._config, handler)
        if problem := self._registry.check(handler, asked.params):
            raise DocumentError(Code.PARAMS_INVALID, problem)
        declared = {key: getattr(handler, key) for key in DECLARED}
        pinned = self._registry.pin(handler)
        return Plan(
            handler=handler.name,
            argv=pinned.argv,
            digest=handler.digest,
            version=handler.version,
            params=asked.params,
            user=user,
            check_only=asked.check_only,
            **{**declared, "max_defer": self._max_defer(handler)},
        )

    def _max_defer(self, handler: Handler) -> float | None:
        """Return how long the claim may be put off: the shorter of what the handler and the operator say."""
        operators = 60.0 * self._config.jobs.max_defer_minutes
        said = [seconds for seconds in (handler.max_defer, operators) if seconds]
        return min(said, default=None)


def fits(version: str, constraint: str) -> bool:
    """Return whether `version` satisfies `constraint`, comparisons joined by commas: `>=1.2,<2`; a bare one is ==.

    Raises:
        DocumentError: the constraint cannot be read.
    """
    found = _numbers(version)
    wanted = [_CONSTRAINT.fullmatch(part) for part in constraint.split(",")]
    if None in wanted:
        reason = f'version: {constraint!r} is no constraint; write for example ">=1.2,<2"'
        raise DocumentError(Code.DOCUMENT_INVALID, reason)
    return found is not None and all(_holds(found, one[1] or "==", _numbers(one[2]) or ()) for one in wanted if one)


def _numbers(version: str) -> tuple[int, ...] | None:
    match = _VERSION.match(version)
    return tuple(int(part) for part in match[0].split(".")) if match else None


def _holds(left: tuple[int, ...], operator: str, right: tuple[int, ...]) -> bool:
    size = max(len(left), len(right))
    a, b = (tuple(side) + (0,) * (size - len(side)) for side in (left, right))
    return {"==": a == b, "!=": a != b, ">=": a >= b, "<=": a <= b, ">": a > b, "<": a < b}[operator]
