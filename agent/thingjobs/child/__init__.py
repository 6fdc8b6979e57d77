"""The program that runs a Python handler class: `python -I -m thingjobs.child MODULE:CLASS`, one verb a process.

It is the other side of the contract in `thingjobs.handler`: reads job.json, calls the method that it names, writes
events to $JOB_EVENTS, and turns what the method returned or raised into an exit status. Team code is imported here and
nowhere else. With an option it answers a question instead: see `thingjobs.child.answers`.

Each verb of each job pays for what is imported here, and most of the standard library costs more than the start of the
interpreter leaves: enum a third of it, json two thirds, typing and pathlib still more. Hence what is wanted seldom is
imported where it is wanted; annotations are quoted, because `__future__` is a module too; and the agent starts
`-c START`, because -m brings a machinery of its own along.
"""

import gc
import os
import sys

from thingjobs.child.context import JobContext, read_job
from thingjobs.handler import Failed, HandlerSignal, Outcome, Reject, Retry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

#: What `python -I -c` runs: the same as `-m thingjobs.child`, sooner.
START = "import sys; from thingjobs.child import end, main; end(main(sys.argv[1:]))"
#: Names the descriptor of the exit file while the process waits for its go; where it is not set, nobody says go.
GATE = "JOB_GATE"
#: By this word it is let go; behind it, what job.json says may follow, as `marshal` writes it.
GO = b"go\n"
#: Names the exit file itself, to which the process may write how it is about to end; where it is not set, nobody asks.
EXIT = "JOB_EXIT"
#: The exit status of a verb that failed; why is in its events.
RAISED = 1
#: The exit status of `Retry`.
LATER = 75
#: Modules in C that leave nothing to the end of the interpreter. Others may: a C library's stdio, a data base.
# fmt: off
_INNOCENT = frozenset({
    "_bisect", "_blake2", "_bz2", "_contextvars", "_csv", "_datetime", "_hashlib", "_heapq", "_json", "_lzma", "_md5",
    "_opcode", "_pickle", "_posixsubprocess", "_queue", "_random", "_sha1", "_sha2", "_sha256", "_sha3", "_sha512",
    "_socket", "_ssl", "_statistics", "_struct", "_typing", "_uuid", "_zoneinfo", "array", "binascii", "fcntl", "grp",
    "math", "select", "termios", "unicodedata", "zlib",
})
# fmt: on
#: What tells the agent with which status this process is about to end; none where nobody asks.
_LAST_WORD: "list[Callable[[int], None]]" = []
#: Annotations of params that mean a dict even where their parts are only known to type checkers.
_PLAIN = frozenset({"dict", "Dict", "Mapping", "MutableMapping", "Json", "JSON", "Any", "object"})


def load(target: str) -> type:
    """Return the class that `MODULE:CLASS` names.

    Raises:
        ImportError: there is no such module or class.
    """
    module, _, name = target.partition(":")
    __import__(module)
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise ImportError(f"{target} is not a class")
    return found


# --- parameters ---------------------------------------------------------------------------------------------------


def params_type(handler: type) -> type | None:
    """Return the dataclass that the methods take as params; None: they take the JSON object.

    It is the attribute `Params` of the class, or what the params of `apply` are annotated with.

    Raises:
        TypeError: nobody knows at run time what the annotation means.
    """
    for found in (getattr(handler, "Params", None), _annotated(handler)):
        if isinstance(found, type) and hasattr(found, "__dataclass_fields__"):
            return found
    return None


def _annotated(handler: type) -> object:
    function: Any = getattr(handler, "apply", None)
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    if not hasattr(function, "__code__"):
        return None
    taken = function.__code__.co_varnames[: function.__code__.co_argcount]
    last = taken[-1] if taken else ""
    names = dict(vars(handler))
    try:
        wanted: Any = function.__annotations__.get(last, "")  # This alone may raise, where annotations are no strings.
        while isinstance(wanted, str):  # twice, where one was written as a string
            if wanted.partition("[")[0].rpartition(".")[2] in {"", *_PLAIN}:
                return None
            wanted = eval(wanted, function.__globals__, names)  # noqa: S307 - their code, in their process
    except Exception as error:
        reason = f"what {last} of apply is annotated with is not known at run time: {error}"
        raise TypeError(f"{reason}; import it outside of TYPE_CHECKING, or name it as the attribute Params") from error
    return wanted


def parsed(handler: type, params: "dict[str, Any]") -> "Any":
    """Return `params` as the methods of the handler take them.

    Raises:
        Reject: they do not fit the type.
        TypeError: the type cannot be used.
    """
    wanted = params_type(handler)
    if wanted is None:
        return params
    from thingjobs.params import ParamsError, parse  # noqa: PLC0415

    try:
        return parse(wanted, params)
    except ParamsError as error:
        raise Reject(str(error), code="params.invalid") from None


# --- a verb -------------------------------------------------------------------------------------------------------


def run(handler: type, context: JobContext, params: "dict[str, Any]") -> int:
    """Call the method for the verb and return the exit status."""
    context.parse = lambda anew: parsed(handler, anew)
    try:
        outcome = getattr(handler(), context.verb)(context, context.parse(params))
    except HandlerSignal as said:
        return _said(context, said)
    except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as error:  # noqa: BLE001 - a bug in a handler
        if (end := _of_cloud(error)) is not None:
            return _said(context, end) if isinstance(end, HandlerSignal) else end.value
        return _failed(context, error, _bug(context.verb, error), "handler.failed")
    return _exit_of(context, outcome)


def _of_cloud(error: BaseException) -> HandlerSignal | Outcome | None:
    """Return what a call to the cloud that a method let through means; None: it was none."""
    session = sys.modules.get("thingjobs.cloud.session")
    if session is None or not isinstance(error, session.CloudError):
        return None
    if isinstance(error, session.Rehearsed):
        return Outcome.DONE
    from thingjobs.cloud.outcomes import why  # noqa: PLC0415 - seldom wanted

    return Failed(str(error), code=why(error))


def _said(context: JobContext, said: HandlerSignal) -> int:
    # A subclass may have forgotten to call our __init__, and given anything where a text belongs.
    reason = str(getattr(said, "reason", said)) or type(said).__name__
    event: dict[str, object] = {"reason": reason, "details": getattr(said, "details", {})}
    if isinstance(said, Retry):
        after = getattr(said, "after", None)
        context.tell({**event, "after": after} if after is not None else event)
        return LATER
    reject = isinstance(said, Reject)
    code = str(getattr(said, "code", "")) or ("handler.rejected" if reject else "handler.failed")
    context.tell({**event, "code": code, "reject": reject})
    return RAISED


def _bug(verb: str, error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"{verb} called sys.exit({error.code!r}): it must return, or raise Failed, Reject or Retry"
    return _words(error)


def _words(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}".removesuffix(": ")
    except Exception:  # noqa: BLE001 - an error that cannot even be written
        return type(error).__name__


def _failed(context: JobContext, error: BaseException, reason: str, code: str) -> int:
    """Say why in the events, and where in the log: its author wants to see that."""
    sys.__excepthook__(type(error), error, error.__traceback__)
    context.tell({"reason": reason, "code": code})
    return RAISED


def _exit_of(context: JobContext, outcome: object) -> int:
    if outcome is None:
        return Outcome.DONE.value
    reason = _objection(context.verb, outcome)
    if isinstance(outcome, Outcome) and not reason:
        return outcome.value
    context.tell({"reason": reason, "code": "handler.failed"})
    return RAISED


def _objection(verb: str, outcome: object) -> str:
    """Return why a method may not return `outcome`, "" if it may."""
    if isinstance(outcome, Outcome):
        known = verb == "check" if outcome is Outcome.ALREADY else verb != "check" or outcome is Outcome.DONE
        return "" if known else f"{verb} returned {outcome!r}, which means nothing there"
    if hasattr(outcome, "send") and hasattr(outcome, "close"):
        outcome.close()
        return f"{verb} returned a {type(outcome).__name__} and did nothing: it may be neither async nor a generator"
    try:
        shown = repr(outcome)
    except Exception:  # noqa: BLE001 - whatever a class of theirs does
        shown = f"a {type(outcome).__name__}"
    shown = shown if len(shown) <= 100 else f"{shown[:99]}…"
    return f"{verb} returned {shown}, which means nothing"


# --- the program --------------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """Run one verb of a handler, or answer a question; return the exit status."""
    if len(arguments) == 1 and not arguments[0].startswith("-"):
        return _verb(arguments[0])
    from thingjobs.child.answers import answer  # noqa: PLC0415

    return answer(arguments)


def _wait_for_go() -> "dict[str, Any] | None":
    """Wait until the agent says go on standard input, and end here, and the shim too, if it died before it did.

    Nothing of the handler's was imported until then, nor job.json read: the agent may still change its mind.

    Returns:
        What job.json says, if the agent said that as well.
    """
    exit_file = os.environ.pop(GATE, "")
    if not exit_file:
        return None
    said = b""
    while more := os.read(0, 65536):
        said += more
    if not said.startswith(GO):
        os.write(int(exit_file), b"never\n")
        os.killpg(0, 9)
    os.close(int(exit_file))
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.close(nothing)
    return _told_with(said)


def _told_with(go: bytes) -> "dict[str, Any] | None":
    """Return the job that came with the go; None: job.json has to be read, for which a library is loaded."""
    import marshal  # noqa: PLC0415 - here it is this agent's own words that are read

    try:
        job = marshal.loads(go[len(GO) :])  # noqa: S302
    except (EOFError, ValueError, TypeError):  # None came, or not all of it.
        return None
    return job if isinstance(job, dict) else None


def _verb(target: str) -> int:
    exit_file = os.environ.pop(EXIT, "")
    job = _wait_for_go()
    try:
        folder, events = os.environ["JOB_DIR"], os.environ["JOB_EVENTS"]
        context = JobContext(job or read_job(folder), folder, os.open(events, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
    except (KeyError, OSError, ValueError) as error:
        print(f"thingjobs.child: cannot run {target}: {_words(error)}; the agent makes all that", file=sys.stderr)  # noqa: T201
        return RAISED
    context.listen()
    if exit_file:
        _LAST_WORD.append(_last_word(exit_file, events))
    gc.freeze()  # What is here by now is Python's and ours: `end` need not look at it.
    if sys.stdout:  # No text may fail a job because the log cannot show it, and each line is a sign of life.
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    try:
        handler = load(target)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a team's module raises at import
        # An import that ends the process would end it with the status of a verb that is done.
        return _failed(context, error, f"cannot import {target}: {error}", "handler.broken")
    return run(handler, context, context.job["params"])


# --- the end ------------------------------------------------------------------------------------------------------


def end(status: int) -> "NoReturn":
    """End the process with `status`: at once, where nothing is left that an interpreter would still do.

    To take itself apart takes it longer than most verbs do. That is for threads that go on, for functions registered
    with atexit, for what has a finalizer, as open files have, and for modules in C: where there is any of them, this
    process ends as every other does.
    """
    try:
        if _nothing_left():
            for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
                if stream is not None:
                    stream.flush()
            for say in _LAST_WORD:
                say(status)
            os._exit(status)
    except BaseException:  # noqa: BLE001, S110 - what others made may raise anything when it is looked at
        pass
    sys.exit(status)


def _last_word(exit_file: str, events: str) -> "Callable[[int], None]":
    """Return what stores how this process, and no copy of it, is about to end, and wakes the agent.

    For the kernel to take an interpreter apart takes longer than most verbs do. What a shim stores has no leading
    zeros. Both files are opened at the end: a handler may have closed whatever was open, and opened files of its own
    under the same numbers.
    """
    own = os.getpid()

    def say(status: int) -> None:
        if os.getpid() == own:
            flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW
            store, wake = os.open(exit_file, flags), os.open(events, flags)
            os.write(store, b"%04d\n" % (status & 0xFF))
            os.write(wake, b"\n")

    return say


def _nothing_left() -> bool:
    import atexit  # noqa: PLC0415 - only here

    threading = sys.modules.get("threading")
    if threading is not None and (threading.active_count() > 1 or threading._threading_atexits):  # noqa: SLF001
        return False
    for name, module in list(sys.modules.items()):
        # Not getattr: a lazy module would be imported by that.
        file = None if module is None else object.__getattribute__(module, "__dict__").get("__file__")
        if str(file).endswith(".so") and name not in _INNOCENT:
            return False
    finalized = any(hasattr(kind, "__del__") for kind in set(map(type, gc.get_objects())))
    return not finalized and not atexit._ncallbacks()  # noqa: SLF001
