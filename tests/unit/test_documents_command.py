"""`documents.command`: splitting a command as the AWS IoT Device Client does."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thingjobs.documents.command import split
from thingjobs.errors import DocumentError
from thingjobs.model import Code


def reference(command: str) -> list[str]:
    """What the AWS IoT Device Client does, as its own regular expression has it."""
    found = re.finditer(r"(?:\\,|[^,])+", command)
    return [match.group(0).replace("\\,", ",").strip(" \t\n\v\f\r") for match in found]


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("mkdir,newDir", ["mkdir", "newDir"]),
        (r"echo,Hello\, I am X.", ["echo", "Hello, I am X."]),
        ("a,, b ,", ["a", "b"]),
        (",a", ["a"]),
        ("sh,-c,ls | wc", ["sh", "-c", "ls | wc"]),
        (r"a\\,b", [r"a\,b"]),
        (r"a,b\,", ["a", "b,"]),
        ("a,b\\", ["a", "b\\"]),
        ("echo,'one two',\"$HOME\",*,`id`", ["echo", "'one two'", '"$HOME"', "*", "`id`"]),
        (" \n/bin/ls\t,\v-l\f\r", ["/bin/ls", "-l"]),
        ("printf, ,x", ["printf", "", "x"]),
    ],
)
def test_a_command_is_split_at_commas_and_nothing_else(command: str, argv: list[str]) -> None:
    assert split("command", command) == argv


@pytest.mark.parametrize("command", ["", ",", ",,,", " ", " ,ls", "\t,\n"])
def test_a_command_without_a_program_is_refused(command: str) -> None:
    with pytest.raises(DocumentError, match="steps command names no program to run") as caught:
        split("steps command", command)

    assert caught.value.code is Code.DOCUMENT_INVALID


@pytest.mark.parametrize("command", ["ls -l", "echo Hello,world", "a\tb", "a\u000bb,c"])
def test_white_space_in_the_program_is_refused_with_a_hint_at_commas(command: str) -> None:
    with pytest.raises(DocumentError, match="must have commas between") as caught:
        split("command", command)

    assert caught.value.code is Code.DOCUMENT_INVALID


@given(st.text(alphabet="ab\\, \t\u00a0"))
def test_the_parts_are_those_of_the_reference(command: str) -> None:
    try:
        argv = split("command", command)
    except DocumentError:
        parts = reference(command)
        assert not parts or not parts[0] or re.search(r"[ \t\n\v\f\r]", parts[0])
    else:
        assert argv == reference(command)


@given(st.lists(st.text(min_size=1).filter(lambda word: word == word.strip() and not word.endswith("\\"))))
def test_words_that_were_escaped_come_back_as_they_were(words: list[str]) -> None:
    command = ",".join(["program", *(word.replace(",", "\\,") for word in words)])

    assert split("command", command) == ["program", *words]
