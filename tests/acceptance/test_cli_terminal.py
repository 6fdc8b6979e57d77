"""What a person sees: progress that is drawn in place on a terminal, and plain lines everywhere else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Cli, Local

ESCAPE = "\x1b"
TALKS = """
echo '{"progress": 40, "message": "writing slot b, which takes its time and a line that is too long"}' >> "$JOB_EVENTS"
sleep 0.2
"""


@pytest.fixture
def talking(local: Local) -> Local:
    """A folder with a job that reports progress, and one that is refused."""
    local.handler("talks", TALKS)
    local.job("1-talks", {"handler": "talks"})
    local.job("2-mistake", {"handler": "talk"})
    return local


def test_on_a_terminal_progress_is_drawn_in_place_and_gone_at_the_end(cli: Cli, talking: Local) -> None:
    # What is said is shown once a second.
    more = 'sleep 1; echo \'{"progress": 80, "message": "almost"}\' >> "$JOB_EVENTS"; sleep 0.1'
    talking.handler("talks", TALKS + more)

    terminal = cli.on_terminal("run", "--once", *talking.words, columns=80)

    assert terminal.end() == 1

    assert "██████\x1b[0m\x1b[2m░░░░░░░░░░\x1b[0m  40%  writing slot b" in terminal.shown
    assert re.search(r"█ *\x1b.* 80%  almost", terminal.shown)
    left = "\n".join(terminal.lines())
    assert "%" not in left
    assert "✓ 1-talks       QUEUED → IN_PROGRESS → SUCCEEDED " in left
    assert "✗ 2-mistake     QUEUED → REJECTED" in left
    assert "\x1b[32mSUCCEEDED" in terminal.shown
    assert "\x1b[33mREJECTED" in terminal.shown


def test_a_drawn_line_never_fills_a_narrow_terminal(cli: Cli, talking: Local) -> None:
    terminal = cli.on_terminal("run", "--once", *talking.words, columns=40)

    terminal.end()

    drawn = re.findall(r"\r\x1b\[2K(.*?)(?=\r)", terminal.shown)
    plain = [re.sub(r"\x1b\[[0-9;]*[mK]", "", text) for text in drawn]
    progress = [text for text in plain if text.startswith("●")]
    assert any(text.endswith("…") for text in progress)
    assert max(map(len, progress)) < 40
    reasons = [line for line in terminal.lines() if line.startswith("  ")]
    assert reasons
    assert max(map(len, reasons)) < 40


def test_no_color_leaves_progress_and_takes_the_colours(cli: Cli, talking: Local) -> None:
    terminal = cli.on_terminal("run", "--once", *talking.words, NO_COLOR="1")

    terminal.end()

    assert "██████░░░░░░░░░░  40%  writing slot b" in terminal.shown
    assert not re.search(r"\x1b\[[0-9;]*m", terminal.shown)


def test_a_dumb_terminal_gets_neither(cli: Cli, talking: Local) -> None:
    terminal = cli.on_terminal("run", "--once", *talking.words, TERM="dumb")

    terminal.end()

    assert ESCAPE not in terminal.shown
    assert "40%" not in terminal.shown
    assert "✓ 1-talks       QUEUED → IN_PROGRESS → SUCCEEDED " in terminal.shown


def test_into_a_pipe_go_plain_lines_none_of_them_wrapped(cli: Cli, talking: Local) -> None:
    talking.job("2-mistake", {"handler": "h" * 100})

    told = talking.run()

    assert ESCAPE not in told.all
    assert "\r" not in told.all
    assert "40%" not in told.all
    assert (
        f"handler.unknown: there is no handler {'h' * 100} on this device; "
        "there are: aws-steps, batch-job, collect, install-handler, s3-batch-job, talks, upgrade-agent\n" in told.out
    )


@pytest.mark.parametrize("variable", ["LANG", "LC_ALL"])
def test_in_the_c_locale_everything_is_ascii(cli: Cli, talking: Local, variable: str) -> None:
    talking.handler("talks", "printf 'gr\\303\\274n\\n' >&2; exit 1")

    told = cli("run", "--once", *talking.words, environment={"LANG": "", variable: "C"})

    assert told.all.isascii()
    assert "x 1-talks       QUEUED -> IN_PROGRESS -> FAILED " in told.out
    assert "handler.exit: apply exited with status 1: gr?n\n" in told.out


def test_ctrl_c_waits_for_the_step_and_again_stops_it(cli: Cli, local: Local) -> None:
    local.handler("long", 'echo \'{"message": "on it"}\' >> "$JOB_EVENTS"; sleep 60')
    local.job("one", {"handler": "long"})
    terminal = cli.on_terminal("run", *local.words)
    terminal.until("on it")

    terminal.press("\x03")
    terminal.until("ending as soon as the running step of one is done; Ctrl-C or SIGTERM again stops it now")
    terminal.press("\x03")

    assert terminal.end() == 0
    left = "\n".join(terminal.lines())
    assert "stopping one\n" in left
    assert "✗ one           QUEUED → IN_PROGRESS → FAILED " in left
    assert "cancelled: " in left


def test_what_a_handler_or_a_document_says_cannot_steer_the_terminal(cli: Cli, local: Local) -> None:
    evil = r"\u001b]0;owned\u0007\u001b[2J\u009b2J\u202egnp"
    local.handler("evil", f'printf \'%s\\n\' \'{{"message": "m{evil}"}}\' >> "$JOB_EVENTS"; sleep 0.2; exit 1')
    local.job("one", {"handler": "evil"})
    (local.folder / "two.json").write_text(f'{{"handler": "{evil}"}}')
    (local.folder / "thr\x1b[2Jee.json").write_text("{}")

    terminal = cli.on_terminal("run", "--once", *local.words)

    assert terminal.end() == 1
    assert "m?]0;owned??[2J?2J?gnp" in terminal.shown
    assert "thr?[2Jee.json is left out" in terminal.shown
    rest = re.sub(r"\x1b\[(2K|[0-9;]*m)", "", terminal.shown)
    assert not re.search(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]", rest)
