"""Every block of code in our documents says what becomes of it, and what is not run is at least no nonsense."""

from __future__ import annotations

import re
from itertools import groupby

import pytest
from tests.guides.blocks import COMMANDS, DOCUMENTS, ROOT, Block, blocks_of, exchanges, outside
from tests.guides.judges import judge, judge_text, judge_thingjobs, simple_commands

every_document = pytest.mark.parametrize("document", DOCUMENTS)

BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]
#: The blocks that nobody runs, by document and reason.
NOT_RUN = {
    (document, reason): list(blocks)
    for (document, reason), blocks in groupby(
        sorted((block for block in BLOCKS if block.reason), key=lambda block: (block.document, block.reason)),
        key=lambda block: (block.document, block.reason),
    )
}


def commands_of(block: Block) -> list[list[str]]:
    """Return the commands of a block that is not run here."""
    text = "\n".join(exchange.command for exchange in exchanges(block)) if block.language == "console" else block.text
    return list(simple_commands(text))


@every_document
def test_every_block_of_commands_is_run_or_says_why_not(document: str) -> None:
    unmarked = [
        str(block)
        for block in blocks_of(document)
        if block.commands and block.how is None and not block.elsewhere and not block.reason
    ]

    assert unmarked == [], "write a marker above: tests/guides/blocks.py says which there are"


@every_document
def test_no_code_hides_from_this_test(document: str) -> None:
    """Markdown makes code of lines that are only indented, too, and of fences without a language."""
    lines = outside(document)
    before = dict(lines)
    indented = [
        number for number, line in lines if line.startswith("    ") and not before.get(number - 1, "text").strip()
    ]

    assert indented == [], "fence it, with its language"
    for block in blocks_of(document):
        assert block.language, block
        if not block.commands:
            assert not block.marker, f"{block}: nothing here is run"
            assert judge_text(block.language, block.text) == "", block


@pytest.mark.parametrize(("document", "reason"), NOT_RUN)
def test_what_is_not_run_is_a_command_that_exists(document: str, reason: str) -> None:
    """The skip is for the report: it names what was judged by grammar alone, and why."""
    for block in NOT_RUN[document, reason]:
        for words in commands_of(block):
            assert judge(words, (ROOT / document).parent) == "", f"{block}: {' '.join(words)}"

    lines = ", ".join(str(block.line) for block in NOT_RUN[document, reason])
    pytest.skip(f"NOT RUN, and known to exist: {document}, line {lines}: {reason}")


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.elsewhere], ids=str)
def test_what_a_script_of_ci_is_said_to_run_stands_there(block: Block) -> None:
    script = (ROOT / block.elsewhere).read_text(encoding="utf-8")

    for words in commands_of(block):
        assert judge(words, ROOT) == ""
        assert re.search(r"(?: --\S+)* ".join(map(re.escape, words)) + r"\b", script), words


@every_document
def test_every_command_in_the_prose_exists(document: str) -> None:
    text = "\n".join(line for _, line in outside(document)).replace("\\|", "|")

    for span in re.findall(r"`((?:thingjobs|make|aws) [^`]+)`", text):
        program, *words = span.replace("\n", " ").replace("…", "").split()
        found = judge_thingjobs(words) if program == "thingjobs" else judge([program, *words], ROOT)
        assert found == "", span


@every_document
def test_every_link_leads_somewhere(document: str) -> None:
    text = "\n".join(line for _, line in outside(document))

    for path, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", text):
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), path
        if heading:
            assert heading in headings(str(target.resolve().relative_to(ROOT))), f"{path}#{heading}"


def headings(document: str) -> set[str]:
    """Return the names by which links know the headings of a document."""
    found = [line.lstrip("#").strip() for _, line in outside(document) if re.match(r"#{1,6} ", line)]
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_languages_are_those_that_somebody_judges() -> None:
    assert {block.language for block in BLOCKS} <= {*COMMANDS, "toml", "json", "python", "mermaid", "text"}
