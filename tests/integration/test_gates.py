"""Gates as they lie on a device: real programs, locks, files and clocks."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.clock import synchronised
from thingjobs.config import Gates as Settings
from thingjobs.config.windows import window
from thingjobs.config.zones import zone
from thingjobs.errors import ScarceError
from thingjobs.gates import Gates, programs
from thingjobs.machine.events import Gated
from thingjobs.model import Identity, JobId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Require

JOB = Identity(JobId("firmware-7"), 1, 1_700_000_000)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC).timestamp()  # a Monday


class Device:
    """The folders of one device, and the gates in them.

    Attributes:
        answers: what the gates put.
    """

    def __init__(self, folder: Path) -> None:
        self.gates = folder / "gates"
        self.inhibit = folder / "inhibit"
        self.answers: queue.SimpleQueue[Gated] = queue.SimpleQueue()
        self._made: list[Gates] = []

    def gate(self, name: str, script: str, mode: int = 0o755) -> Path:
        """Write a gate in shell."""
        self.gates.mkdir(exist_ok=True)
        path = self.gates / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(mode)
        return path

    def inhibited(self, name: str, text: str = "") -> Path:
        """Write an inhibit file."""
        self.inhibit.mkdir(exist_ok=True)
        path = self.inhibit / name
        path.write_text(text)
        return path

    def make(self, **options: Any) -> Gates:
        """Make the gates; by default there is no window, and it is noon."""
        settings = Settings(self.gates, options.pop("windows", ()), options.pop("time_zone", "UTC"), self.inhibit)
        made = Gates(settings, self.answers.put, **{"wall": lambda: NOON, "synchronised": lambda: True, **options})
        self._made.append(made)
        return made

    def ask(self, **options: Any) -> Gated:
        """Ask once, and wait for the answer."""
        return self.make(**options).ask(JOB, "claim", "firmware") or self.answers.get(timeout=20)

    def stop(self) -> None:
        """End all that was made."""
        for gates in self._made:
            gates.stop()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """Give a device without gates."""
    device = Device(tmp_path)
    yield device
    device.stop()


@contextlib.contextmanager
def locked(path: Path, how: int) -> Iterator[None]:
    """Hold a lock on a file."""
    with path.open("rb") as file:
        fcntl.flock(file, how)
        yield


# --- Programs ---------------------------------------------------------------------------------------------


def test_a_device_without_gates_is_open_and_nothing_is_started(device: Device) -> None:
    assert device.make().ask(JOB, "claim") == Gated(JOB)
    assert device.answers.empty()


def test_gates_that_cannot_be_asked_for_want_of_a_thread_are_asked_again(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.gate("battery", "exit 0")
    gates = device.make()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more_threads)
        with pytest.raises(ScarceError, match="cannot ask the gates"):
            gates.ask(JOB, "claim", "firmware")

    assert gates.ask(JOB, "claim", "firmware") is None
    assert device.answers.get(timeout=20) == Gated(JOB)


def no_more_threads(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_programs_that_all_succeed_are_open_gates(device: Device) -> None:
    device.gate("battery", "exit 0")
    device.gate("line", "echo all well")
    assert device.ask() == Gated(JOB)


def test_a_program_that_must_run_answers_later(device: Device) -> None:
    device.gate("battery", "exit 0")
    assert device.make().ask(JOB, "claim") is None
    assert device.answers.get(timeout=20) == Gated(JOB)


def test_the_first_closed_gate_in_the_order_of_names_is_the_reason_and_no_later_one_is_run(
    device: Device, tmp_path: Path
) -> None:
    device.gate("30-never", f"touch {tmp_path}/ran")
    device.gate("10-open", "exit 0")
    device.gate("20-battery", "echo 12 % left; echo and more; exit 75")
    assert device.ask() == Gated(JOB, "gate 20-battery: 12 % left")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 75", "gate battery: closed"),
        ("printf '\\n  12\\033[31m %%\\t\\n'; exit 75", "gate battery: 12[31m %"),
        ("exit 3", "gate battery failed: exited with status 3"),
        ("echo one >&2; echo no such sensor >&2; exit 1", "gate battery failed: exited with status 1: no such sensor"),
        ("kill -9 $$", "gate battery failed: ended by SIGKILL"),
        ("exec /does/not/exist", "gate battery failed: exited with status 127: "),
    ],
)
def test_any_end_but_success_is_a_closed_gate_that_says_why(device: Device, script: str, reason: str) -> None:
    device.gate("battery", script)
    assert device.ask().reason.startswith(reason)


def test_a_gate_that_floods_its_output_is_drained_and_its_first_line_cut(device: Device) -> None:
    device.gate("loud", "head -c 3000000 /dev/zero | tr '\\0' x; head -c 3000000 /dev/zero | tr '\\0' y >&2; exit 75")
    reason = device.ask().reason
    assert reason.startswith("gate loud: xxx")
    assert len(reason) < 500


def test_a_gate_gets_a_bare_environment_that_says_what_is_to_come(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    device.gate("show", f"env | sort > {tmp_path}/env; pwd > {tmp_path}/pwd; cat > {tmp_path}/stdin")
    gates = device.make()
    assert gates.ask(JOB, "reboot", "firmware") is None
    assert device.answers.get(timeout=20) == Gated(JOB)
    lines = (tmp_path / "env").read_text().splitlines()
    shown = dict(line.split("=", 1) for line in lines)
    assert shown.keys() - {"PWD", "SHLVL", "_", "OLDPWD"} == {
        *("PATH", "LANG", "HOME", "GATE_BEFORE", "JOB_ID", "JOB_HANDLER"),
    }
    assert (shown["GATE_BEFORE"], shown["JOB_ID"], shown["JOB_HANDLER"]) == ("reboot", "firmware-7", "firmware")
    assert (tmp_path / "pwd").read_text() == "/\n"
    assert (tmp_path / "stdin").read_bytes() == b""


def test_a_gate_leads_a_session_of_its_own(device: Device) -> None:
    device.gate("session", 'read -r _ _ _ _ _ session _ < /proc/$$/stat; echo "$((session - $$))"; exit 75')
    assert device.ask().reason == "gate session: 0"


def test_what_a_gate_wrote_last_counts_when_it_ended_before_anybody_looked() -> None:
    child = subprocess.Popen(["echo", "12 % left"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert is_gone(child.pid)
    stop = os.eventfd(0)
    watched = programs._Watched(child)
    assert watched.ended(stop, 5)
    watched.end()
    os.close(stop)
    assert (watched.head, child.returncode) == (b"12 % left\n", 0)


def test_what_editors_and_packages_leave_behind_and_folders_are_no_gates(device: Device) -> None:
    for name in (".hidden", "battery~", "battery.dpkg-old", "battery.rpmsave"):
        device.gate(name, "exit 75")
    (device.gates / "lib").mkdir()
    assert device.make().ask(JOB, "claim") == Gated(JOB)


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_gate_that_others_may_write_is_closed_and_not_run(device: Device, tmp_path: Path, mode: int) -> None:
    path = device.gate("open", f"touch {tmp_path}/ran", mode)
    assert device.ask().reason == f"gate open cannot be trusted: {path} may be written by others; run chmod go-w {path}"
    assert not (tmp_path / "ran").exists()


def test_a_gate_of_another_account_is_closed(device: Device) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path = device.gate("strange", "exit 0")
    os.chown(path, 65534, -1)
    assert device.ask().reason.startswith(
        f"gate strange cannot be trusted: {path} belongs to user 65534, not to root; "
    )


def test_a_gate_that_lost_its_executable_bit_is_closed(device: Device) -> None:
    path = device.gate("battery", "exit 0", 0o644)
    wanted = f"it is not executable; run chmod +x {path}, or move it away"
    assert device.ask().reason == f"gate battery cannot be trusted: {wanted}"


def test_a_gate_that_leads_nowhere_or_cannot_be_started_is_closed(device: Device, tmp_path: Path) -> None:
    device.gates.mkdir()
    (device.gates / "link").symlink_to(tmp_path / "nothing")
    assert device.ask().reason == "gate link cannot be run: No such file or directory"
    (device.gates / "link").unlink()
    (device.gates / "pipe").write_bytes(b"not a program\n")
    (device.gates / "pipe").chmod(0o755)
    assert device.ask().reason == "gate pipe cannot be run: Exec format error"


def test_a_folder_of_gates_that_cannot_be_listed_is_closed(device: Device) -> None:
    device.gates.write_text("")
    assert device.ask().reason == f"the gates in {device.gates} cannot be listed: Not a directory"


def test_a_gate_that_gives_no_answer_is_killed_with_all_that_it_started(device: Device, tmp_path: Path) -> None:
    stop = os.eventfd(0)
    gate = device.gate("slow", f"sleep 600 & echo $! > {tmp_path}/pid; echo later; wait")
    try:
        environ = programs.environment("claim", "job", "firmware")
        assert programs.ask(gate, environ, stop=stop, seconds=0.5) == "gate slow gave no answer within 0.5 s"
    finally:
        os.close(stop)
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_what_a_gate_leaves_running_neither_holds_up_its_answer_nor_outlives_it(device: Device, tmp_path: Path) -> None:
    device.gate("careless", f"sleep 600 & echo $! > {tmp_path}/pid; echo busy; exit 75")
    assert device.ask() == Gated(JOB, "gate careless: busy")
    assert is_gone(int((tmp_path / "pid").read_text()))


def is_gone(pid: int) -> bool:
    """Return whether a process ends within a moment; init may take its time to bury it."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - as short as it gets
                if file.read().rpartition(b")")[2].split()[0] == b"Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


def test_questions_that_come_together_are_answered_one_after_another(device: Device) -> None:
    device.gate("echo", 'echo "$JOB_ID before $GATE_BEFORE"; exit 75')
    gates = device.make()
    others = [Identity(JobId(f"job-{number}"), 1, 1) for number in range(4)]
    for identity in others:
        assert gates.ask(identity, "apply") is None
    answers = [device.answers.get(timeout=20) for _ in others]
    assert answers == [Gated(one, f"gate echo: {one.job_id} before apply") for one in others]


def test_a_stop_ends_the_gate_that_runs_at_once_and_nothing_is_put_after_it(
    device: Device, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    device.gate("slow", f"echo $$ > {tmp_path}/pid; exec sleep 600")
    gates = device.make()
    for _ in range(3):
        assert gates.ask(JOB, "claim") is None
    pid = int(eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    began = time.monotonic()
    gates.stop()
    assert time.monotonic() - began < 2
    assert is_gone(pid)
    gates.stop()
    assert gates.ask(JOB, "claim") is None
    assert device.answers.empty()


# --- Inhibit files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [fcntl.LOCK_EX, fcntl.LOCK_SH], ids=["exclusive", "shared"])
def test_a_locked_file_holds_jobs_back_until_it_is_let_go(device: Device, how: int) -> None:
    path = device.inhibited("deploy", "new recipe\nsecond line")
    with locked(path, how):
        assert device.make().ask(JOB, "claim") == Gated(JOB, "inhibited by deploy: new recipe")
    assert device.make().ask(JOB, "claim") == Gated(JOB)


def test_the_command_of_the_guide_holds_jobs_back(
    device: Device, require: Require, eventually: Callable[..., Any]
) -> None:
    require("flock")
    device.inhibit.mkdir()
    work = subprocess.Popen(["flock", device.inhibit / "deploy", "cat"], stdin=subprocess.PIPE)
    gates = device.make()
    eventually(lambda: gates.ask(JOB, "claim") == Gated(JOB, "inhibited by deploy"))
    work.communicate()
    assert gates.ask(JOB, "claim") == Gated(JOB)


@pytest.mark.parametrize(
    ("text", "reason", "opens_in"),
    [
        ("2026-03-02T13:00Z", "until 2026-03-02T13:00Z", 3600),
        ("until 2026-03-02T13:00:00+00:00 new recipe\n", "until 2026-03-02T13:00:00+00:00: new recipe", 3600),
        ("2026-03-02T15:00+02:00 x", "until 2026-03-02T15:00+02:00: x", 3600),
        ("2026-03-02 14:30 by hand", "until 2026-03-02 14:30: by hand", 5400),
        ("until 2026-03-03", "until 2026-03-03", 11 * 3600),
    ],
)
def test_a_file_with_a_time_holds_jobs_back_until_then(device: Device, text: str, reason: str, opens_in: float) -> None:
    device.inhibited("deploy", text)
    answer = device.make(time_zone="Europe/Berlin").ask(JOB, "claim")  # an hour before UTC
    assert answer == Gated(JOB, f"inhibited by deploy {reason}", opens_in)


def test_a_file_whose_time_is_over_holds_nothing_back(device: Device) -> None:
    device.inhibited("deploy", "until 2026-03-02T12:00Z new recipe")
    assert device.ask() == Gated(JOB)


@pytest.mark.parametrize("text", ["until tomorrow", "2026-13-40 new recipe", "until 2026-03-02T25:00", "2026-3-2"])
def test_a_file_that_means_a_time_and_gives_none_holds_jobs_back_and_says_what_is_wrong(
    device: Device, text: str
) -> None:
    device.inhibited("deploy", text)
    reason = device.ask().reason
    assert reason.startswith("inhibited by deploy: ")
    assert reason.endswith(" is no time; write one like 2026-03-01T04:00+01:00, or remove the file")


def test_a_file_with_text_that_nobody_locked_holds_nothing_back_which_is_said_once(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    path = device.inhibited("deploy", "working on it")
    device.inhibited("empty")
    gates = device.make()
    with caplog.at_level(logging.WARNING, "thingjobs"):
        for _ in range(3):
            assert gates.ask(JOB, "claim") == Gated(JOB)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path} holds nothing back: ")


def test_an_inhibit_file_that_cannot_be_read_holds_jobs_back(device: Device) -> None:
    path = device.inhibited("deploy")
    path.unlink()
    path.symlink_to(path)
    reason = "inhibited by deploy, which cannot be read: Too many levels of symbolic links"
    assert device.ask() == Gated(JOB, reason)


def test_an_inhibit_folder_that_is_none_holds_jobs_back(device: Device) -> None:
    device.inhibit.write_text("")
    assert device.ask().reason == f"the inhibit files in {device.inhibit} cannot be listed: Not a directory"


# --- Maintenance windows ----------------------------------------------------------------------------------


def test_outside_the_windows_the_gate_says_when_one_opens(device: Device) -> None:
    night = (window("Mon-Fri 22:00-04:00"),)
    answer = device.make(windows=night, time_zone="Europe/Berlin").ask(JOB, "claim")
    assert answer == Gated(JOB, "gate maintenance: closed until Mon 22:00 (Europe/Berlin)", 9 * 3600)


def test_inside_a_window_the_gate_is_open(device: Device) -> None:
    assert device.make(windows=(window("Mon 11:00-13:00"), window("Sat"))).ask(JOB, "claim") == Gated(JOB)


def test_windows_stay_closed_until_the_clock_was_set_and_then_trust_it(device: Device) -> None:
    answers = iter([False, True])
    gates = device.make(windows=(window("Mon 11:00-13:00"),), synchronised=lambda: next(answers))
    assert gates.ask(JOB, "claim") == Gated(JOB, "gate maintenance: the clock is not synchronised yet")
    for _ in range(3):
        assert gates.ask(JOB, "claim") == Gated(JOB)


def test_a_time_zone_that_went_away_keeps_the_windows_closed_and_is_named(device: Device) -> None:
    reason = device.ask(windows=(window("Mon"),), time_zone="Atlantis/Poseidonis").reason
    assert reason.startswith("gate maintenance: Atlantis/Poseidonis is no time zone that this device knows; ")


def test_a_time_service_is_known_by_its_file_or_by_the_kernel(tmp_path: Path) -> None:
    assert synchronised(tmp_path / "not-there") in (True, False)
    (tmp_path / "synchronized").touch()
    assert synchronised(tmp_path / "synchronized")


def test_the_zone_of_the_device_is_where_its_link_leads_and_utc_without_one(tmp_path: Path) -> None:
    link = tmp_path / "localtime"
    assert zone("", link) is UTC
    assert zone("UTC") is UTC  # even where there is no tzdata
    rules = tmp_path / "zoneinfo" / "Here" / "There"
    rules.parent.mkdir(parents=True)
    header = b"TZif2" + bytes(15) + bytes(16) + b"\0\0\0\1\0\0\0\4" + bytes(6) + b"LMT\0"
    rules.write_bytes(header + header + b"\n<+05>-5\n")
    link.symlink_to(rules)
    assert str(zone("", link)) == "Here/There"
    assert datetime.fromtimestamp(NOON, zone("", link)).hour == 17
    rules.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="holds no time zone; install tzdata"):
        zone("", link)


# --- Together ---------------------------------------------------------------------------------------------


def test_inhibit_files_come_before_windows_and_windows_before_programs(device: Device, tmp_path: Path) -> None:
    device.gate("battery", f"touch {tmp_path}/ran; echo 12 % left; exit 75")
    path = device.inhibited("deploy")
    closed, opened = (window("Sat"),), (window("Mon"),)
    with locked(path, fcntl.LOCK_EX):
        assert device.ask(windows=closed).reason == "inhibited by deploy"
    assert device.ask(windows=closed).reason == "gate maintenance: closed until Sat 00:00 (UTC)"
    assert not (tmp_path / "ran").exists()
    assert device.ask(windows=opened).reason == "gate battery: 12 % left"


def test_a_device_without_windows_loads_no_time_zones_and_no_c_interface() -> None:
    program = (
        "import sys; from pathlib import Path; from thingjobs.config import Gates as Settings; "
        "from thingjobs.gates import Gates; from thingjobs.model import Identity; "
        "print(Gates(Settings(Path('/nowhere'), inhibit=Path('/nowhere')), print).ask(Identity('a', 1, 1), 'claim')); "
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert {"ctypes", "zoneinfo"}.intersection(loaded) == set()
