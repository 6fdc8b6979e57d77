"""A long run over every parser: `python -m tests.fuzz.guided [SECONDS [NAME…]]`, which is `make fuzz`.

With atheris (`pip install atheris`) coverage guides it, in two ways: bytes as they are, and the choices from which
hypothesis makes inputs that come close to good ones. Without, there are random choices alone. All take short turns,
each in a child of this process, and go on in the next round with what they found: so a run that is cut off has given
each its share. Exit status 1: a parser did not keep what it promises; the input is shown, and kept where it says.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import logging
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fuzz.harness import Harness

SECONDS = 900
TURN_SECONDS = 5
WAYS = ("bytes", "choices")
LONGEST = 4096
MEMORY_MIB = 1024
ONE_INPUT_SECONDS = 10
MODULES = ["thingjobs", "thingjobs_handlers", "fastjsonschema", "tomllib", "paho"]


@dataclass
class Account:
    """What became of one parser in one way, in all its turns."""

    harness: Harness
    way: str
    corpus: Path
    runs: int = 0
    seconds: float = 0.0
    failed: bool = False

    def __str__(self) -> str:
        result = "FAILED" if self.failed else "kept"
        return f"{self.harness.name:14} {self.way:8} {self.runs:>9} runs {self.seconds:5.0f} s  {result}"


def main(arguments: list[str]) -> int:
    """Give all harnesses turns until the time is over, and print what came of each."""
    guided = importlib.util.find_spec("atheris") is not None
    logging.getLogger("thingjobs").addHandler(logging.NullHandler())
    harnesses = _harnesses(guided=guided)
    seconds, names = int(arguments[0]) if arguments else SECONDS, arguments[1:] or list(harnesses)
    how = "guided by coverage" if guided else "at random: no atheris here"
    print(f"{len(names)} parsers, {seconds} s in all, {how}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ways, corpora = WAYS if guided else WAYS[1:], Path(tempfile.mkdtemp(prefix="thingjobs-fuzz-"))
    accounts = [Account(harnesses[name], way, corpora / name / way) for name in names for way in ways]
    for account in accounts:
        account.corpus.mkdir(parents=True)
        for number, seed in enumerate(account.harness.seeds if account.way == "bytes" else ()):
            (account.corpus / str(number)).write_bytes(seed)
    with contextlib.suppress(KeyboardInterrupt):
        _take_turns(accounts, time.monotonic() + seconds, guided=guided)
    rmtree(corpora)
    print(*accounts, sep="\n")
    runs, failures = sum(account.runs for account in accounts), sum(account.failed for account in accounts)
    print(f"{runs} runs in all, {failures} failures", flush=True)
    return 1 if failures else 0


def _harnesses(*, guided: bool) -> dict[str, Harness]:
    """Return all harnesses by name, each of which has made once what it makes for all its inputs."""
    watched: Any = contextlib.nullcontext()
    if guided:
        import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

        watched = atheris.instrument_imports(include=MODULES)
    with watched:
        from tests.fuzz.test_fuzz import HARNESSES

        for harness in HARNESSES.values():
            for seed in harness.seeds:
                harness.check(seed)
    return HARNESSES


def _take_turns(accounts: list[Account], until: float, *, guided: bool) -> None:
    """Go round until the time is over, the last rounds in shorter turns; whoever failed has no more of them."""
    while (left := until - time.monotonic()) > 0 and (kept := [one for one in accounts if not one.failed]):
        turn = max(1, min(TURN_SECONDS, round(left / len(kept))))
        for account in kept:
            if time.monotonic() < until or not account.runs:
                _turn(account, turn, guided=guided)


def _turn(account: Account, seconds: int, *, guided: bool) -> None:
    """Run one harness in a child."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            _fuzz(account, seconds, guided=guided)
        try:
            status = os.waitpid(child, 0)[1]
        except KeyboardInterrupt:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        output.seek(0)
        said = output.read().decode(errors="replace")
    runs = re.findall(r"(?:executed_units: |Done )(\d+)", said)
    account.runs += int(runs[-1]) if runs else 0
    account.seconds += time.monotonic() - began
    if status:
        account.failed = True
        print(account)
        print(said.partition(" === Uncaught")[2][-4000:] or said[-4000:], flush=True)


def _fuzz(account: Account, seconds: int, *, guided: bool) -> None:
    """Run a harness for so long; ends the process."""
    atexit.unregister(rmtree)  # the folders are the parent's
    target = _target(account.harness, account.way)
    if not guided:
        _at_random(target, float(seconds))
    import atheris

    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-rss_limit_mb={MEMORY_MIB}"]
    options += ["-print_final_stats=1", f"-timeout={ONE_INPUT_SECONDS}"]
    kept = f"-artifact_prefix={tempfile.gettempdir()}/thingjobs-fuzz-{account.harness.name}-"
    atheris.Setup([sys.argv[0], *options, kept, str(account.corpus)], target)
    atheris.Fuzz()


def _target(harness: Harness, way: str) -> Callable[[bytes], Any]:
    from hypothesis import HealthCheck, given, settings

    if way == "bytes":
        return harness.check

    @settings(suppress_health_check=list(HealthCheck), database=None, deadline=None)
    @given(harness.inputs)
    def shaped(data: bytes) -> None:
        harness.check(data)

    return shaped.hypothesis.fuzz_one_input  # type: ignore[attr-defined, no-any-return]


def _at_random(target: Callable[[bytes], Any], seconds: float) -> None:
    """Call it with random bytes for so long; ends the process."""
    seed = random.randrange(2**32)
    chance, until, runs, status = random.Random(seed), time.monotonic() + seconds, 0, 0
    try:
        while time.monotonic() < until:
            target(chance.randbytes(chance.randrange(LONGEST)))
            runs += 1
    except BaseException:  # noqa: BLE001 - whatever it is: the parser did not promise it
        status = 1
        traceback.print_exc()
    print(f"seed {seed}\nDone {runs} runs", flush=True)
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
