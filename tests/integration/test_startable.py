"""What is said of a program before it is started, held against what the kernel and `env` then do."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from thingjobs.startable import problems_of

if TYPE_CHECKING:
    from pathlib import Path

PATH = "/usr/bin:/bin"

GOOD = [
    b"#!/bin/sh\n",
    b"#!/bin/sh",
    b"#! /bin/sh -e\n",
    b"#!\t/bin/sh \t-e \t\n",
    b"#!/bin/sh\0 is where the kernel stops reading\n",
    b"#!/bin/sh\0" + b"x" * 300,
    b"#!/bin/sh -e" + b" " * 300 + b"\n",
    b"#!" + b" " * 240 + b"/bin/sh " + b" " * 60 + b"\n",
    b"#!/usr/bin/env sh\n",
    b"#!/usr/bin/env /bin/sh\n",
    b"#!/usr/bin/env -S sh -e\n",
    b"#!/usr/bin/env -Ssh -e\n",
    b"#!/usr/bin/env -S sh\r\n",
    b"#!/usr/bin/env -S LEVEL=1 sh -e\n",
    b"#!/usr/bin/env -S LEVEL='1 2' sh -e\n",
    b"#!/usr/bin/env -S 'sh' -e\n",
    b"#!/usr/bin/env -S sh\\_-e\n",
    b"#!/usr/bin/env -S ${SHELL_OF_OURS} -e\n",
    b"#!/usr/bin/env -S -u LEVEL sh\n",
    b"#!/usr/bin/env -S PATH=/bin sh\n",
    b"#!/usr/bin/env -S sh" + b" " * 300 + b"\n",
]
BAD = [
    (b"#!/bin/sh\r\n", "sed -i 's/\\r$//'"),
    (b"#!/bin/sh -e\r\n", "CR LF"),
    (b"#!/usr/bin/env sh\r\n", "CR LF"),
    (b"#!/no/such/sh\n", "is to be run by /no/such/sh, which is not on this device"),
    (b"#!/bin\n", "is to be run by /bin, which cannot be run here"),
    (b"#!/etc/passwd\n", "is to be run by /etc/passwd, which cannot be run here"),
    (b"#!/no/\xff\xfesuch/\x1b[31msh\n", "is to be run by /no/??such/?[31msh, which"),
    (b"#!\xc2\xa0/bin/sh\n", "which is not on this device"),
    (b"#!" + b"/a" * 200 + b"\n", "too long"),
    (b"#!/usr/bin/env no-such-sh\n", "is to be run by no-such-sh, which is not on the PATH of handlers"),
    (b"#!/usr/bin/env /no/such/sh\n", "is to be run by /no/such/sh, which is not on this device"),
    (b"#!/usr/bin/env -S no-such-sh -e\n", "is to be run by no-such-sh, which"),
    (b"#!/usr/bin/env sh -e\n", "has sh -e behind env, which takes it for one name"),
]
#: What the kernel refuses, and a shell that was asked to start it would take for a script of its own.
NO_PROGRAM = [
    (b"", "does not begin with #!"),
    (b"exit 0\n", "does not begin with #!"),
    (b"#!\n", "names no program"),
    (b"#!\0/bin/sh\n", "names no program"),
    (b"\xef\xbb\xbf#!/bin/sh\n", "byte order mark"),
]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A file that may be run; the content is the test's."""
    path = tmp_path / "program"
    path.touch(0o755)
    return path


def starts(program: Path) -> bool:
    """Return whether it really runs: each of the programs here does nothing, well."""
    try:
        environment = {"PATH": PATH, "SHELL_OF_OURS": "/bin/sh"}
        done = subprocess.run([program], env=environment, capture_output=True, timeout=60, check=False)
    except OSError:
        return False
    return done.returncode == 0


@pytest.mark.parametrize("content", GOOD)
def test_a_program_that_starts_has_no_problem(program: Path, content: bytes) -> None:
    program.write_bytes(content)

    assert problems_of(program, PATH) == []
    assert starts(program)


@pytest.mark.parametrize(("content", "problem"), [*BAD, *NO_PROGRAM])
def test_a_program_that_does_not_start_has_one_that_says_why(program: Path, content: bytes, problem: str) -> None:
    program.write_bytes(content)

    (found,) = problems_of(program, PATH)

    assert found.startswith(f"{program} ")
    assert problem in found
    assert found.isprintable()
    assert not starts(program)


@pytest.mark.parametrize("line", ["#!/usr/bin/env", "#!/usr/bin/env LEVEL=1"])
def test_a_first_line_with_which_env_starts_the_same_program_again_is_found(program: Path, line: str) -> None:
    program.write_text(f"{line}\n")

    assert "would start itself for ever" in problems_of(program, PATH)[0]
    limit = ["prlimit", "--cpu=1", str(program)]  # Each start is another program in the same process, which so ends.
    done = subprocess.run(limit, env={"PATH": PATH}, capture_output=True, timeout=60, check=False)
    assert done.returncode in (-signal.SIGXCPU, -signal.SIGKILL)


def test_env_does_as_little_with_a_variable_and_a_name_that_are_one_word_to_it(program: Path) -> None:
    program.write_text("#!/usr/bin/env LEVEL=1 sh\n")

    assert "has LEVEL=1 sh behind env, which takes it for one name" in problems_of(program, PATH)[0]


def test_of_a_format_that_somebody_may_have_registered_with_the_kernel_nothing_is_said(program: Path) -> None:
    program.write_bytes(b"PK\3\4\0\0")

    assert problems_of(program, PATH) == []


def test_a_program_that_cannot_be_read_is_one_that_cannot_be_started(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "gone", PATH) == [f"{tmp_path}/gone cannot be read: No such file or directory"]


def test_it_is_called_as_its_caller_calls_it(program: Path) -> None:
    program.write_bytes(b"#!/bin/sh\r\n")

    (found,) = problems_of(program, PATH, "a b.sh")

    assert found.startswith("a b.sh ends its lines")
    assert found.endswith("sed -i 's/\\r$//' 'a b.sh'")
