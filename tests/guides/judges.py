"""What can be said of a command, or of text in another language, without running it."""

from __future__ import annotations

import argparse
import ast
import functools
import json
import re
import shlex
import subprocess
import tomllib
from typing import TYPE_CHECKING

from tests.guides import aws_cli
from tests.guides.blocks import ROOT

from thingjobs.cli import parser
from thingjobs.config.keys import KEYS, SECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: What stands between two commands, and what leads their output elsewhere.
_BETWEEN = re.compile(r"[;|&()\n]+")
_REDIRECTION = re.compile(r"[<>]+")
#: What somebody types and no text begins with.
_TYPED = re.compile(r"(\$ )?(thingjobs|aws|make|pip|python3?|pytest|apt|systemctl|journalctl|curl|cd|\.) [a-z./-]")


def simple_commands(text: str) -> Iterator[list[str]]:
    """Return the commands of a block, each as its words.

    Raises:
        ValueError: it is more than a plain list of commands.
    """
    if "$(" in text or "<<" in text:
        raise ValueError("what is not run must be a plain list of commands")
    plain = re.sub(r"(?m)(^|[ ])#[^'\"\n]*$", "", text.replace("\\\n", " "))
    lexer = shlex.shlex(plain, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace_split, lexer.whitespace, lexer.commenters = True, " \t", ""
    words: list[str] = []
    for word in [*lexer, ";"]:
        if _BETWEEN.fullmatch(word):
            if words:
                yield _without_redirections(words)
            words = []
        else:
            words.append(word)


def _without_redirections(words: list[str]) -> list[str]:
    return [
        word
        for before, word in zip(["", *words], words, strict=False)
        if not _REDIRECTION.fullmatch(word) and not _REDIRECTION.fullmatch(before)
    ]


def judge(words: list[str], folder: Path) -> str:
    """Return what is wrong with a command as far as its grammar goes, "" if nothing is.

    Args:
        words: the command.
        folder: where the document stands, for the files that it names.
    """
    match words:
        case ["thingjobs", *rest]:
            return judge_thingjobs(rest)
        case ["aws", *rest]:
            try:
                aws_cli.judged(rest, folder)
            except (ValueError, OSError) as error:
                return f"{error}"
        case ["make", target, *_] if not re.search(rf"^{re.escape(target)}:", _makefile(), re.MULTILINE):
            return f"there is no target {target}"
        case [program, *_] if re.match(r"\.?\w[\w.-]*/", program) and not (ROOT / program).exists():
            return f"there is no {program}"
    return ""


def _makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")


def judge_thingjobs(words: list[str]) -> str:
    """Return which command or option of ours does not exist, "" if all do; `a|b` and `[--option]` are all of them."""
    known = _parser()
    for word in (bare.strip("[]…") for bare in words):
        actions = [action for action in known._actions if isinstance(action, argparse._SubParsersAction)]
        if word.startswith("--"):
            if word.partition("=")[0] not in known._option_string_actions:
                return f"{known.prog} has no option {word}"
        elif actions and word and not word.isupper():
            names = word.split("|")
            if unknown := [name for name in names if name not in actions[0].choices]:
                return f"{known.prog} has no command {', '.join(unknown)}"
            known = actions[0].choices[names[0]]
    return ""


@functools.cache
def _parser() -> argparse.ArgumentParser:
    return parser()


def judge_text(language: str, text: str) -> str:
    """Return what is wrong with text of a language that is no command, "" if nothing is or nobody can say."""
    try:
        match language:
            case "sh":
                subprocess.run(["/bin/sh", "-n"], input=text, check=True, capture_output=True, text=True)
            case "toml":
                return _judge_toml(tomllib.loads(text))
            case "json" if "…" not in text:
                json.loads(text)
            case "python":
                ast.parse(text)
            case _:
                typed = [line for line in text.splitlines() if _TYPED.match(line)]
                return f"this looks like a command: {typed[0]}" if typed else ""
    except (ValueError, SyntaxError, subprocess.CalledProcessError) as error:
        return str(getattr(error, "stderr", "") or error)
    return ""


def _judge_toml(tables: dict[str, object]) -> str:
    for table, content in tables.items():
        if table in SECTIONS and isinstance(content, dict):
            for key, value in content.items():
                name = f"{table}.{key}"
                if name not in KEYS and not (isinstance(value, dict) or table == "facts"):
                    return f"there is no setting {name}"
    return ""
