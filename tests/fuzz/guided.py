"""A long run over every parser: `python -m tests.fuzz.guided [SECONDS [NAME…]]`, which is `make fuzz`.

With atheris (`pip install atheris`) coverage guides it, in two ways: bytes as they are, and the choices from which
hypothesis makes inputs that come close to good ones. Without, the choices are random. Each harness has a process of
its own. Exit status 1: a parser did not keep what it promises; the input is shown, and kept where it says.
"""

from __future__ import annotations

import importlib.util
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fuzz.harness import Harness

SECONDS = 900
WAYS = ("bytes", "choices")
LONGEST = 4096
MEMORY_MIB = 1024
ONE_INPUT_SECONDS = 10


def main(arguments: list[str]) -> int:
    """Run all harnesses one after the other, and print what came of each."""
    from tests.fuzz.test_fuzz import HARNESSES

    seconds, names = int(arguments[0]) if arguments else SECONDS, arguments[1:] or list(HARNESSES)
    guided = importlib.util.find_spec("atheris") is not None
    print(
        f"{len(names)} parsers, {seconds} s in all, {'guided by coverage' if guided else 'at random: no atheris here'}"
    )
    each, failures = seconds / len(names) / len(WAYS), 0
    for name in names:
        for way in WAYS:
            failures += _one(name, way, each, HARNESSES[name].seeds, guided=guided)
    return 1 if failures else 0


def _one(name: str, way: str, seconds: float, seeds: tuple[bytes, ...], *, guided: bool) -> bool:
    """Run one harness in a process of its own; return whether it failed."""
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds if way == "bytes" else ()):
            (Path(corpus) / str(number)).write_bytes(seed)
        began = time.monotonic()
        child = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.guided", "--child", name, way, str(max(1, round(seconds))), corpus],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "THINGJOBS_FUZZ_GUIDED": "1" if guided else ""},
            check=False,
        )
    said = child.stdout.decode(errors="replace")
    runs = re.findall(r"(?:executed_units: |Done )(\d+)", said)
    result = "FAILED" if child.returncode else "kept"
    print(
        f"{name:14} {way:8} {runs[-1] if runs else '?':>9} runs {time.monotonic() - began:5.0f} s  {result}", flush=True
    )
    if child.returncode:
        print(said.partition(" === Uncaught")[2][-4000:] or said[-4000:])
    return child.returncode != 0


def child(name: str, way: str, seconds: str, corpus: str) -> None:
    """Run one harness for so long; ends the process."""
    if not os.environ.get("THINGJOBS_FUZZ_GUIDED"):
        _at_random(_target(name, way), float(seconds))
        return
    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

    with atheris.instrument_imports(include=["thingjobs", "fastjsonschema", "tomllib"]):
        target = _target(name, way)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        "-print_final_stats=1",
        f"-rss_limit_mb={MEMORY_MIB}",
    ]
    kept = f"-artifact_prefix={tempfile.gettempdir()}/thingjobs-fuzz-{name}-"
    atheris.Setup([sys.argv[0], *options, f"-timeout={ONE_INPUT_SECONDS}", kept, corpus], target)
    atheris.Fuzz()


def _target(name: str, way: str) -> Callable[[bytes], Any]:
    from hypothesis import HealthCheck, given, settings
    from tests.fuzz.test_fuzz import HARNESSES

    harness: Harness = HARNESSES[name]
    if way == "bytes":
        return harness.check

    @settings(suppress_health_check=list(HealthCheck), database=None, deadline=None)
    @given(harness.inputs)
    def shaped(data: bytes) -> None:
        harness.check(data)

    return shaped.hypothesis.fuzz_one_input  # type: ignore[attr-defined, no-any-return]


def _at_random(target: Callable[[bytes], Any], seconds: float) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance, until, runs = random.Random(seed), time.monotonic() + seconds, 0
    while time.monotonic() < until:
        target(chance.randbytes(chance.randrange(LONGEST)))
        runs += 1
    print(f"Done {runs} runs")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        sys.exit(main(sys.argv[1:]))
