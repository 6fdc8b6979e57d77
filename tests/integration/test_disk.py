"""The disk is full, read-only, broken or gone under the real agent, at every step of a job; then it is well again.

Without a journal no `apply` begins; what runs goes on to its end, and its result is reported all the same, once. What
is wrong is said once, and nothing is tried in a hurry. When the disk is back, what is owed is written and the next job
runs.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.web import taking

from thingjobs import statusbox
from thingjobs.generations import read_only
from thingjobs.journal import NEXT, OLD
from thingjobs.model import Phase
from thingjobs.testing import JobsService
from thingjobs.testing.broker import BrokerJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Mosquitto, Pki
    from tests.integration.conftest import Agent, Disk

THING = "pump-7"
#: The agent of service, but for how long it waits, and for what the journal's disk does while a file says so.
BRITTLE = """
import errno, os, sys
from pathlib import Path
from thingjobs import policy
policy.SAVE_RETRY_CAP, policy.ASIDE_AFTER = 1.0, 0.5
from thingjobs import journal
from thingjobs.cli import main

fault = Path(sys.argv.pop(1))

class Brittle:
    def __getattr__(self, name):
        return getattr(os, name)

    def _fail(self, what):
        try:
            error, operation = fault.read_text().split()
        except FileNotFoundError:
            return
        if operation == what:
            raise OSError(getattr(errno, error), os.strerror(getattr(errno, error)))

    def open(self, path, flags, *more, **where):
        if str(path).endswith(".tmp"):
            self._fail("open")
        return os.open(path, flags, *more, **where)

    def write(self, fd, data):
        self._fail("write")
        return os.write(fd, data)

    def fsync(self, fd):
        self._fail("fsync")
        os.fsync(fd)

journal.os = Brittle()
sys.exit(main())
"""


class Fault:
    """Something that is wrong with the state folder's disk, until it ends.

    Attributes:
        says: what is said about it; "" where it is mended at once.
    """

    def __init__(self, says: str, begin: Callable[[], object], end: Callable[[], object] = lambda: None) -> None:
        self.says = says
        self.begin = begin
        self.end = end


class Site:
    """The agent with a disk of its own, the cloud on the other side, and a handler that waits where it is told to."""

    def __init__(
        self, service: JobsService, agent: Agent, disk: Disk, broker: Mosquitto, eventually: Callable[..., Any]
    ) -> None:
        self.service = service
        self.agent = agent
        self.disk = disk
        self.broker = broker
        self.eventually = eventually
        self.ran = agent.folder / "ran"
        agent.state = disk.path / "state"
        text = agent.config.read_text()
        agent.config.write_text(text.replace(f"{agent.folder}/state", str(agent.state)))
        self.verbs("firmware", "prepare", "apply", "verify")
        self.verbs("look", "apply", observe=True)

    def verbs(self, name: str, *verbs: str, **manifest: Any) -> None:
        """Put a handler there that writes down what it does; firmware waits while there is a file `hold-VERB`."""
        folder = self.agent.folder / "handlers" / name
        folder.mkdir()
        program = folder / "run.sh"
        here = self.agent.folder
        lines = [
            "#!/bin/sh",
            f'echo "$JOB_VERB $(basename "$(dirname "$JOB_DIR")" | cut -d. -f1)" >>{here}/ran',
            f"while [ {name} = firmware ] && [ -e {here}/hold-$JOB_VERB ]; do sleep 0.05; done",
            "",
        ]
        program.write_text("\n".join(lines))
        program.chmod(0o755)
        said = {"contract": 1, "exec": "run.sh", "verbs": list(verbs), **manifest}
        (folder / "manifest.json").write_text(json.dumps(said))

    def start(self, *, wait: bool = True) -> None:
        """Start the agent."""
        agent = self.agent
        argv = [sys.executable, "-c", BRITTLE, str(agent.folder / "fault"), "run", "--config", str(agent.config)]
        with agent.log.open("ab") as log:
            agent.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if wait:
            self.eventually(lambda: agent.state.exists() and statusbox.ask(agent.state))

    def hold(self, verb: str) -> None:
        """Have the handler wait in a verb."""
        (self.agent.folder / f"hold-{verb}").touch()

    def let_go(self, verb: str) -> None:
        """Have it go on."""
        (self.agent.folder / f"hold-{verb}").unlink()

    def ask(self, job: str, handler: str = "firmware", **params: Any) -> None:
        """Queue a job."""
        self.service.create_job(job, {"handler": handler, "params": params}, [THING])

    def history(self, job: str) -> list[str]:
        """Return the statuses that a job had, each change once."""
        return [change.status for change in self.service.execution(THING, job).history]

    def ended(self, job: str) -> Any:
        """Return the execution once it is over."""

        def over() -> Any:
            view = self.service.execution(THING, job)
            return view if view.status not in ("QUEUED", "IN_PROGRESS") else None

        return self.eventually(over, 30)

    def runs(self, job: str) -> list[str]:
        """Return the verbs that ran for a job, in order."""
        lines = self.ran.read_text().splitlines() if self.ran.exists() else []
        return [line.split()[0] for line in lines if line.split()[1] == job]

    def said(self, words: str) -> int:
        """Return how many lines of the log have these words."""
        return sum(words in line for line in self.agent.log_text().splitlines())

    def journalled(self, job: str) -> Phase | None:
        """Return the phase that the journal holds of a job."""
        found = {record.identity.job_id: record.phase for record in read_only(self.agent.state)}
        return found.get(job)  # type: ignore[call-overload, no-any-return]

    def cpu(self) -> float:
        """Return the seconds of processor that the agent used so far."""
        fields = Path(f"/proc/{self.agent.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def fault(self, name: str) -> Fault:
        """Return one of the faults by its name."""
        told, state = self.agent.folder / "fault", self.agent.state
        match name:
            case "full":
                return Fault("No space left on device; free some space there", self.fill, self.disk.drain)
            case "read-only":
                return Fault("Read-only file system; see in `dmesg`", self.disk.read_only, self.disk.writable)
            case "deleted" | "journal deleted":
                return Fault("", lambda: shutil.rmtree(state / "journal" if "journal" in name else state))
            case _:
                says = "Input/output error; the disk fails" if name.startswith("EIO") else "Read-only file system"
                return Fault(says, lambda: told.write_text(name), told.unlink)

    def fill(self) -> None:
        """Fill the disk, with all that the agent keeps in reserve."""
        (self.agent.state / "reserve").unlink(missing_ok=True)
        self.disk.fill()


@pytest.fixture
def site(
    mosquitto: Mosquitto,
    pki: Pki,
    new_agent: Callable[..., Agent],
    new_disk: Callable[..., Disk],
    eventually: Callable[..., Any],
) -> Iterator[Site]:
    """A site whose agent is not started yet."""
    service = JobsService()
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.load_cert_chain(*pki.device("cloud"))
    agent = new_agent(THING, port=mosquitto.port, pair=pki.device(THING), ca=pki.ca)
    with BrokerJobsService(service, "localhost", mosquitto.port, tls=context):
        made = Site(service, agent, new_disk(), mosquitto, eventually)
        yield made
        if agent.process is not None:
            assert agent.stop() == 0, "the agent did not end well"
            assert "Traceback" not in agent.log_text()


#: All of them at every step: make test ARGS="tests/integration/test_disk.py" with this set to "all".
EVERY = os.environ.get("THINGJOBS_DISK_FAULTS") == "all"


def faults(usual: str, *more: str) -> pytest.MarkDecorator:
    """Try one fault, or all when that is wanted."""
    names = ("full", "EIO fsync", "EIO write", "EROFS open", *more)
    return pytest.mark.parametrize("name", [name for name in names if EVERY or name in usual.split(", ")])


def check_it_goes_on(site: Site, fault: Fault) -> None:
    """Whatever was wrong: the end of the job is written, the next one runs, and nothing is wrong any more."""
    site.eventually(lambda: site.journalled("fw-1") is Phase.DONE)
    site.ask("fw-2")
    assert site.ended("fw-2").status == "SUCCEEDED"
    assert site.runs("fw-2") == ["prepare", "apply", "verify"]
    site.eventually(lambda: site.journalled("fw-2") is Phase.DONE)
    assert site.history("fw-1").count("SUCCEEDED") == 1
    assert site.history("fw-1")[-1] == "SUCCEEDED"
    assert "trouble" not in site.agent.status()
    if fault.says:
        assert site.said("the journal: works again") >= 1


def check_it_is_said(site: Site, fault: Fault) -> None:
    """What is wrong is shown by the status and in one line of the log, and it takes next to no processor."""
    (line,) = site.eventually(lambda: site.agent.status().get("trouble"))
    assert fault.says in line
    before, began = site.cpu(), time.monotonic()
    lines = site.agent.log_text().count("\n")
    site.eventually(lambda: time.monotonic() > began + 1.5)  # Some tries more.
    assert site.agent.log_text().count("\n") - lines <= 2
    assert site.cpu() - before < 0.4
    # Once as it is, once for each job that waits for it; an end that needs no sync can be written in between.
    assert site.said(line) <= 4


# --- a fault at each step -------------------------------------------------------------------------------------------


@faults("full, read-only", "read-only", "journal deleted", "deleted")
def test_without_a_journal_a_queued_job_stays_queued_until_there_is_one(site: Site, name: str) -> None:
    site.start()
    fault = site.fault(name)
    fault.begin()

    site.ask("fw-1")
    if fault.says:
        check_it_is_said(site, fault)
        assert site.history("fw-1") == ["QUEUED"]
        assert site.runs("fw-1") == []
    fault.end()

    assert site.ended("fw-1").status == "SUCCEEDED"
    assert site.runs("fw-1") == ["prepare", "apply", "verify"]
    check_it_goes_on(site, fault)


@faults("EROFS open", "journal deleted", "deleted")
def test_without_a_journal_no_apply_begins_until_there_is_one(site: Site, name: str) -> None:
    site.start()
    site.hold("prepare")
    site.ask("fw-1")
    site.eventually(lambda: site.runs("fw-1"))
    fault = site.fault(name)
    fault.begin()

    site.let_go("prepare")
    if fault.says:
        check_it_is_said(site, fault)
        assert site.runs("fw-1") == ["prepare"]
        assert site.service.execution(THING, "fw-1").status == "IN_PROGRESS"
    fault.end()

    assert site.ended("fw-1").status == "SUCCEEDED"
    assert site.runs("fw-1") == ["prepare", "apply", "verify"]
    check_it_goes_on(site, fault)


@faults("full", "journal deleted", "deleted")
def test_what_runs_goes_on_without_a_journal_and_is_verified_and_reported_once(site: Site, name: str) -> None:
    site.start()
    site.hold("apply")
    site.ask("fw-1")
    site.eventually(lambda: "apply" in site.runs("fw-1"))
    fault = site.fault(name)
    fault.begin()

    site.let_go("apply")
    assert site.ended("fw-1").status == "SUCCEEDED", site.service.execution(THING, "fw-1").details
    assert site.runs("fw-1") == ["prepare", "apply", "verify"]
    if fault.says:
        site.ask("fw-2x")
        check_it_is_said(site, fault)
        assert site.history("fw-2x") == ["QUEUED"], "an end that is not written holds up what is next"
    fault.end()

    check_it_goes_on(site, fault)


@faults("EIO fsync")
def test_a_result_that_could_neither_be_written_nor_sent_is_written_when_the_disk_is_back(
    site: Site, name: str
) -> None:
    site.start()
    site.hold("apply")
    site.ask("fw-1")
    site.eventually(lambda: "apply" in site.runs("fw-1"))
    fault = site.fault(name)
    fault.begin()
    site.broker.pause()

    site.let_go("apply")
    site.eventually(lambda: site.agent.status()["owed"])
    fault.end()
    site.eventually(lambda: site.journalled("fw-1") is Phase.REPORTING)
    site.agent.kill()
    site.broker.resume()
    site.start()

    assert site.ended("fw-1").status == "SUCCEEDED"
    site.eventually(lambda: site.journalled("fw-1") is Phase.DONE)
    assert site.runs("fw-1") == ["prepare", "apply", "verify"]
    assert site.history("fw-1").count("SUCCEEDED") == 1


@faults("full")
def test_an_agent_that_was_killed_while_its_apply_waits_for_a_journal_has_not_begun_it(site: Site, name: str) -> None:
    site.start()
    site.hold("prepare")
    site.ask("fw-1")
    site.eventually(lambda: site.runs("fw-1"))
    fault = site.fault(name)
    fault.begin()
    site.let_go("prepare")
    site.eventually(lambda: site.agent.status().get("trouble"))

    site.agent.kill()
    site.start()
    site.eventually(lambda: site.agent.status().get("trouble"))
    assert "apply" not in site.runs("fw-1")
    fault.end()

    assert site.ended("fw-1").status == "SUCCEEDED"
    assert site.runs("fw-1").count("apply") == 1


# --- at the start ---------------------------------------------------------------------------------------------------


@faults("read-only", "read-only")
def test_an_agent_that_starts_without_a_journal_waits_for_it_and_takes_nothing(site: Site, name: str) -> None:
    site.start()
    assert site.agent.stop() == 0
    fault = site.fault(name)
    fault.begin()

    # On a read-only disk there is no socket for the status either.
    site.start(wait=name != "read-only")
    site.ask("fw-1")
    site.eventually(lambda: site.said(fault.says))
    assert site.history("fw-1") == ["QUEUED"]
    fault.end()

    assert site.ended("fw-1").status == "SUCCEEDED"
    assert site.runs("fw-1") == ["prepare", "apply", "verify"]
    site.ask("fw-2")
    assert site.ended("fw-2").status == "SUCCEEDED"


def test_the_file_of_the_next_save_is_made_while_the_handler_works(site: Site) -> None:
    site.start()
    site.hold("apply")
    site.ask("fw-1")
    site.eventually(lambda: "apply" in site.runs("fw-1"))
    folder = site.agent.state / "journal"

    site.eventually(lambda: (folder / NEXT).exists() and not (folder / OLD).exists())

    assert (folder / NEXT).read_bytes() == b""  # There is nothing to save: it stays so.
    site.let_go("apply")
    assert site.ended("fw-1").status == "SUCCEEDED"


def test_a_state_folder_that_cannot_be_reached_ends_the_agent_with_a_line_that_says_so(site: Site) -> None:
    site.agent.state.write_text("a file in its place")

    site.start(wait=False)
    assert site.agent.process is not None
    assert site.agent.process.wait(30) == 2

    (line,) = site.agent.log_text().splitlines()
    place = "move it away, or set state.directory to another place"
    assert line == f"thingjobs: state.directory: {site.agent.state} is not a folder; {place}"
    site.agent.state.unlink()
    site.start()
    site.ask("fw-1")
    assert site.ended("fw-1").status == "SUCCEEDED"


# --- what needs no journal ------------------------------------------------------------------------------------------


def test_with_a_full_disk_and_a_firmware_job_that_runs_a_collect_job_still_succeeds(site: Site) -> None:
    site.start()
    site.hold("apply")
    site.ask("fw-1")
    site.eventually(lambda: "apply" in site.runs("fw-1"))
    fault = site.fault("full")
    fault.begin()

    with taking() as (address, taken):
        site.ask("why", "collect", url=f"{address}/bundle")
        view = site.ended("why")

    assert view.status == "SUCCEEDED", view.details
    assert len(taken) == 1
    assert site.service.execution(THING, "fw-1").status == "IN_PROGRESS"
    site.let_go("apply")
    assert site.ended("fw-1").status == "SUCCEEDED"
    fault.end()
    site.eventually(lambda: site.journalled("fw-1") is Phase.DONE)


def test_the_reserve_lets_one_job_through_on_a_full_disk_which_is_said_and_is_made_again(site: Site) -> None:
    site.start()
    site.disk.fill()

    site.ask("fw-1")

    assert site.ended("fw-1").status == "SUCCEEDED", site.service.execution(THING, "fw-1").details
    site.eventually(lambda: site.journalled("fw-1") is Phase.DONE)
    line = f"the journal in {site.agent.state} lives on its reserve: No space left on device; free some space there"
    assert site.agent.status()["trouble"] == [line]
    assert site.said(line) == 1
    site.disk.drain()
    # Whoever asks hears how it is now, though no job came.
    assert "trouble" not in site.agent.status()
    assert site.said("the journal: works again") == 1
    site.ask("fw-2")
    assert site.ended("fw-2").status == "SUCCEEDED"
    site.eventually((site.agent.state / "reserve").exists)


# --- beside the journal ---------------------------------------------------------------------------------------------


def test_a_folder_that_was_deleted_during_apply_gets_all_back_and_the_exit_status_is_the_handlers(site: Site) -> None:
    site.start()
    site.hold("apply")
    site.ask("before")
    site.eventually(lambda: "apply" in site.runs("before"))
    shutil.rmtree(site.agent.state)
    site.ask("why", "look")
    assert site.ended("why").status == "SUCCEEDED"

    # The journal was needed for the other job; the one that runs is in it again, and its agent is found again.
    site.eventually(lambda: site.journalled("before") is Phase.APPLYING)
    assert site.agent.status()["running"]
    assert site.said("was deleted; it was made anew") == 1
    site.let_go("apply")
    assert site.ended("before").status == "SUCCEEDED", site.service.execution(THING, "before").details
    assert site.runs("before").count("apply") == 1


def test_when_another_agent_takes_the_deleted_folder_this_one_ends_and_says_so(site: Site) -> None:
    site.start()
    shutil.rmtree(site.agent.state)
    argv = [sys.executable, "-c", "import sys; from pathlib import Path; from thingjobs.journal import Journal\n"]
    argv[-1] += "Journal(Path(sys.argv[1])).open() or print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([*argv, str(site.agent.state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        site.ask("fw-1")

        assert site.agent.process is not None
        assert site.agent.process.wait(30) == 3
        assert "another agent runs on it" in site.agent.log_text().splitlines()[-1]
        assert site.history("fw-1") == ["QUEUED"]
        other.communicate()
    site.start()
    assert site.ended("fw-1").status == "SUCCEEDED"


def test_a_job_whose_own_folder_cannot_be_made_waits_for_that_and_runs_once(site: Site) -> None:
    site.start()
    jobs = site.agent.state / "jobs"
    shutil.rmtree(jobs, ignore_errors=True)
    shutil.rmtree(site.agent.state / "spare", ignore_errors=True)
    jobs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(jobs)], check=True)
    try:
        site.ask("fw-1")
        (line,) = site.eventually(lambda: site.agent.status().get("trouble"))
        assert "Read-only file system; this is tried again" in line
        assert site.runs("fw-1") == []
        site.ask("why", "look")
        assert site.ended("why").status == "SUCCEEDED"
    finally:
        subprocess.run(["umount", "-l", str(jobs)], check=True)

    assert site.ended("fw-1").status == "SUCCEEDED"
    assert site.runs("fw-1") == ["prepare", "apply", "verify"]
    assert site.said("this is tried again") == 1


def test_a_log_that_cannot_be_written_costs_the_log_alone(site: Site) -> None:
    site.start()
    (site.agent.state / "logs").write_text("not a folder")

    site.ask("fw-1")

    assert site.ended("fw-1").status == "SUCCEEDED"
    site.eventually(lambda: site.journalled("fw-1") is Phase.DONE)
    site.ask("fw-2")
    assert site.ended("fw-2").status == "SUCCEEDED"
