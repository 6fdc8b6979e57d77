"""The log: one line a fact, as text or JSON, of bounded length, with nothing in it that must stay secret.

Under systemd each line begins with its priority (`<4>` for a warning), which the journal takes off again: sd-daemon(3).
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import traceback
from datetime import UTC, datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal, TextIO

from thingjobs.redact import discreet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: syslog(3): critical, error, warning, informational, debug.
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7
#: What ends a line, steers a terminal or turns the direction of text; and halves of characters, which no file takes.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: Characters of a longer message that are kept, of its beginning and its end: others write into it, as much as they
#: like, and the system's journal cuts lines of 48 KiB (journald.conf(5), LineMax=).
_HEAD, _TAIL = 3072, 1024

Format = Literal["text", "json"]


class LineFormatter(logging.Formatter):
    """Makes one line of a record.

    Args:
        form: text or JSON.
        journal: whether the system's journal reads it.
    """

    def __init__(self, form: Format, *, journal: bool) -> None:
        super().__init__()
        self._json = form == "json"
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message += f": {crash(record.exc_info[1])}"
        message = _bounded(discreet(message))
        line = self._as_json(record, message) if self._json else self._as_text(record, message)
        return f"<{_priority(record.levelno)}>{line}" if self._journal else line

    def _as_text(self, record: logging.LogRecord, message: str) -> str:
        return f"{record.levelname} {_CONTROL.sub(_escaped, message)}"

    def _as_json(self, record: logging.LogRecord, message: str) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fact = {"time": time, "level": record.levelname.lower(), "logger": record.name, "message": message}
        return json.dumps(fact)  # In ASCII: so nothing in it ends a line, and every encoding has it.


def set_up(level: int, form: Format, *, journal: bool, before: Callable[[], None] = lambda: None) -> None:
    """Log to stderr, and have what nobody catches end there as well, and what Python warns of, each as one line.

    Libraries are heard from warnings on, however much is wanted of us: some of them log addresses with what signs them.

    Args:
        level: the least that is logged.
        form: text or JSON.
        journal: whether the system's journal reads it.
        before: is called before each line.
    """

    def make_room(record: logging.LogRecord) -> bool:  # noqa: ARG001 - the signature is that of a filter
        before()
        return True

    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(make_room)
    handler.setFormatter(LineFormatter(form, journal=journal))
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler])
    logging.getLogger("thingjobs").setLevel(level)
    logging.raiseExceptions = False  # what cannot be logged is not worth a traceback
    log = logging.getLogger("thingjobs")
    logging.captureWarnings(capture=True)
    sys.excepthook = lambda _kind, error, _trace: log.critical("ended by a fault", exc_info=error)
    threading.excepthook = lambda told: log.critical(
        "a fault in the thread %s", told.thread.name if told.thread else "?", exc_info=told.exc_value
    )
    sys.unraisablehook = lambda told: log.error("a fault that nobody could be told of", exc_info=told.exc_value)


def read_by_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Return whether the system's journal reads what is written to `stream`.

    The variable is inherited by whoever is started by a service, also where its output goes elsewhere: so it names the
    stream that is meant (systemd.exec(5), $JOURNAL_STREAM).
    """
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM", "") == f"{found.st_dev}:{found.st_ino}"


def crash(error: BaseException) -> str:
    """Return what nobody caught, and where, the innermost last; of variables there is nothing in it.

    The message may hold a secret: that is for who shows it to leave out.
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = " > ".join(f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    return f"{type(error).__name__}: {error} (at {where or '?'}); please report it"


def _bounded(message: str) -> str:
    return message if len(message) <= _HEAD + _TAIL else f"{message[:_HEAD]} … {message[-_TAIL:]}"


def _escaped(control: re.Match[str]) -> str:
    return control[0].encode("unicode_escape").decode()


def _priority(level: int) -> int:
    return next((priority for least, priority in _PRIORITIES if level >= least), _DEBUG)
