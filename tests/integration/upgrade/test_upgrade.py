"""Another version of the agent: put there by a package, by a bootloader, or by a job of its own."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from tests.integration.upgrade.conftest import LATER_FORMAT, NEW, OLD, SELDOM, packed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.upgrade.conftest import Changes, Shop, Trees, Unit

SECONDS = 120
#: What is wrong with a new version: by file, what stands there and what is to stand.
IMPORT: Changes = {
    "thingjobs/transport/configured.py": (("from __future__ import annotations\n", "import not_there\n"),)
}
CONNECT: Changes = {"thingjobs/transport/configured.py": (("port=connection.port", "port=1"),)}
CRASH: Changes = {"thingjobs/beginning.py": (("            resume(event)\n", "            import os; os.abort()\n"),)}
DEAF: Changes = {
    "thingjobs/cli/run.py": (
        ("            pulse = ", "            import time; time.sleep(999)\n            pulse = "),
    )
}
STUCK: Changes = {
    "thingjobs/starter.py": (
        ("        boot.spare_files()\n", "        import time; time.sleep(999 if run.verb == 'commit' else 0)\n"),
    )
}
NO_IMPORT: Changes = {"thingjobs/daemon.py": (("import queue\n", "import no_queue\n"),)}
NO_AGENT: Changes = {"bin/thingjobs": (("sys.exit(main())", "sys.exit('no')"),)}


# --- by a package, or a bootloader --------------------------------------------------------------------------------


def test_another_version_takes_over_while_nothing_runs(unit: Unit, new: Path) -> None:
    unit.start()
    assert unit.works("before") == f"thingjobs/{OLD}"

    unit.stop()
    unit.turn(new)
    unit.start()

    assert unit.works("after") == f"thingjobs/{NEW}"
    assert (unit.record("before")[0], unit.record("after")[0]) == (1, 2)


def test_a_handler_that_runs_while_the_agent_is_replaced_runs_once_and_is_reported_once(unit: Unit, new: Path) -> None:
    unit.handler("slow", "hold apply", "apply")
    unit.start()
    unit.queue("job", "slow")
    unit.at("apply")

    unit.stop()
    unit.turn(new)
    unit.start()
    unit.go("apply")

    assert unit.over("job").status == "SUCCEEDED"
    assert unit.ran == ["apply"]
    assert [body["status"] for body in unit.updates("job")].count("SUCCEEDED") == 1


def test_a_class_goes_on_in_the_new_version_when_the_old_one_is_gone(
    unit: Unit, trees: Trees, new: Path, shop: Shop
) -> None:
    """The journal names an interpreter and a folder that are not there any more."""
    gates = unit.folder / "gates"
    gates.mkdir()
    # Open for the claim, and closed before `apply` until there is a file.
    claimed = f'ls "{unit.folder}/state/journal" | grep -q json'
    gate = f'[ -e "{unit.folder}/open" ] || ! {claimed} || {{ echo shut; exit 75; }}'
    (gates / "gate").write_text(f"#!/bin/sh\n{gate}\n")
    (gates / "gate").chmod(0o755)
    with unit.agent.config.open("a") as config:
        config.write(f'[gates]\ndirectory = "{gates}"\n')
    first = trees.make(OLD, name="first")
    unit.turn(first)
    unit.start()
    manifest = b'{"contract": 1, "name": "gift", "verbs": ["apply"], "exec": "run.sh"}'
    unit.queue("job", "install-handler", {"name": "gift", **shop.params(archive_of({"manifest.json": manifest}))})
    unit.eventually(lambda: "shut" in str(unit.agent.status()["jobs"]))
    assert unit.record("job")[1]["plan"]["argv"][-2].count("first")

    unit.stop()
    unit.turn(new)
    shutil.rmtree(unit.guarded / ".versions" / "current" / "first")
    (unit.folder / "open").touch()
    unit.start()

    assert unit.over("job").status == "SUCCEEDED"
    assert (unit.folder / "handlers" / "gift" / "run.sh").exists()


def archive_of(files: dict[str, bytes]) -> bytes:
    """Return a handler as an archive."""
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in {**files, "run.sh": b"#!/bin/sh\n"}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


# --- the formats of the journal -----------------------------------------------------------------------------------


def test_what_the_old_version_claimed_is_rolled_back_by_it_when_the_bootloader_falls_back(
    unit: Unit, new: Path
) -> None:
    """A/B firmware: the new slot has a new agent, it does not prove itself, and the old slot comes back."""
    script = f"""
case $JOB_VERB in
    apply) exit 195 ;;
    verify) [ -e "{unit.folder}/fell-back" ] && exit 1; hold verify ;;
esac
"""
    unit.handler("firmware", script, "apply", "verify", "rollback")
    unit.start()
    unit.queue("job", "firmware")
    unit.eventually((unit.folder / "rebooted").exists)

    unit.power_cut(boot="into-the-new-slot")
    unit.turn(new)
    unit.start()
    unit.at("verify")
    assert unit.record("job")[0] == 1
    unit.power_cut(boot="back-into-the-old-slot")
    (unit.guarded / "current").unlink()
    (unit.folder / "fell-back").touch()
    unit.start()

    found = unit.over("job")
    assert (found.status, found.details["code"]) == ("FAILED", "verify.failed")
    assert "rolled back" in found.details["reason"]
    assert unit.ran == ["apply", "verify", "verify", "rollback"]
    assert unit.works() == f"thingjobs/{OLD}"


def test_what_the_new_version_claimed_the_old_one_leaves_alone_and_works_on(unit: Unit, new: Path) -> None:
    unit.handler("slow", "hold apply", "apply")
    unit.turn(new)
    unit.start()
    unit.queue("newer", "slow")
    unit.at("apply")
    unit.stop()
    (unit.guarded / "current").unlink()
    (record,) = (unit.agent.state / "journal").glob("newer.*.json")
    before = record.read_bytes()

    unit.start()
    assert unit.works() == f"thingjobs/{OLD}"
    assert record.read_bytes() == before
    told = f"in a format of another release, and left alone for that: the journal of {record.stem}\n"
    assert told in unit.agent.log_text()
    unit.stop()
    unit.turn(new)
    unit.start()
    unit.go("apply")

    assert unit.over("newer").status == "SUCCEEDED"
    assert unit.ran.count("apply") == 2  # One of them is that of the job in between.


# --- by a job of its own ------------------------------------------------------------------------------------------


def upgrade(unit: Unit, tree: Path, shop: Shop, *, seconds: int = SECONDS) -> None:
    """Queue the job `upgrade`."""
    params = shop.params(packed(tree), version=NEW, trial_seconds=seconds)
    unit.queue("upgrade", "upgrade-agent", params)


def test_an_upgrade_succeeds_after_the_new_version_has_reached_the_service(unit: Unit, new: Path, shop: Shop) -> None:
    unit.start()
    before = unit.pid

    upgrade(unit, new, shop)

    found = unit.over("upgrade")
    assert found.status == "SUCCEEDED", found
    assert (found.details["agent"], found.details["agentVersion"]) == (f"thingjobs/{NEW}", NEW)
    assert unit.works() == f"thingjobs/{NEW}"
    assert unit.notes() == set()
    # It was claimed by the old version, and so the old version could still read it; what comes after is the new one's.
    assert (unit.record("upgrade")[0], unit.record("after")[0]) == (1, 2)
    # No service manager had to help.
    assert (unit.pid, unit.ended) == (before, [])


def test_the_same_upgrade_a_second_time_changes_nothing(unit: Unit, new: Path, shop: Shop) -> None:
    unit.turn(new)
    unit.start()

    upgrade(unit, new, shop)

    assert unit.over("upgrade").status == "SUCCEEDED"
    assert unit.notes() == set()


@pytest.mark.parametrize(
    ("changes", "seconds", "reason"),
    [
        pytest.param(IMPORT, SECONDS, "it ended 3 times", id="does-not-import"),
        pytest.param(CRASH, SECONDS, "it ended 3 times", id="crashes-on-its-first-job"),
        pytest.param(CONNECT, 8, "it did not reach the service in time", id="cannot-connect"),
        pytest.param(DEAF, 8, "it did not reach the service in time", id="hangs-at-the-start", marks=SELDOM),
        pytest.param(STUCK, 8, "it reached the service, and did not get on", id="hangs-in-the-end", marks=SELDOM),
    ],
)
def test_a_version_that_does_not_prove_itself_is_given_up(
    unit: Unit, trees: Trees, shop: Shop, changes: Changes, seconds: int, reason: str, request: pytest.FixtureRequest
) -> None:
    bad = trees.make(NEW, {**LATER_FORMAT, **changes}, name=request.node.callspec.id)
    unit.start()

    upgrade(unit, bad, shop, seconds=seconds)

    found = unit.over("upgrade")
    assert (found.status, found.details["code"]) == ("FAILED", "verify.failed"), found
    assert reason in found.details["reason"]
    assert found.details["agent"] == f"thingjobs/{OLD}"
    assert unit.works() == f"thingjobs/{OLD}"
    assert not (unit.guarded / "current").is_symlink()
    assert unit.notes() == set()
    assert list((unit.guarded / ".versions" / "current").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "reason"), [(NO_IMPORT, "No module named 'no_queue'"), (NO_AGENT, "ends with status 1: no")]
)
def test_what_does_not_even_start_here_is_never_put_on_trial(
    unit: Unit, trees: Trees, shop: Shop, changes: Changes, reason: str
) -> None:
    unit.start()

    upgrade(unit, trees.make(NEW, changes, name=f"no-{reason[:4]}"), shop)

    found = unit.over("upgrade")
    assert (found.status, found.details["code"]) == ("REJECTED", "handler.broken"), found
    assert reason in found.details["reason"]
    assert not (unit.guarded / ".versions").exists()


def test_an_upgrade_that_is_cancelled_on_trial_goes_back(unit: Unit, trees: Trees, shop: Shop) -> None:
    waits = {"thingjobs/machine/verbs.py": (("return _prove_reach(turn, job)", "return job"),)}
    unit.start()
    upgrade(unit, trees.make(NEW, waits, name="waits"), shop)
    unit.eventually(lambda: "committing" in str(unit.answer()), 60)

    unit.service.cancel_job("upgrade", force=True)

    assert unit.works() == f"thingjobs/{OLD}"
    assert unit.notes() == set()
    assert not (unit.guarded / "current").is_symlink()


def test_an_agent_that_no_guard_started_is_not_upgraded(unit: Unit, new: Path, shop: Shop) -> None:
    program = unit.original / "bin" / "thingjobs"
    unit.start_with(str(program))

    upgrade(unit, new, shop)

    found = unit.over("upgrade")
    assert found.status == "REJECTED"
    assert "no guard started it" in found.details["reason"]


# --- the power is cut ---------------------------------------------------------------------------------------------

#: The new version takes the power from the device at this moment, once.
CUT = """
        if record.phase == "{phase}" and not (self.folder / "was-cut").exists():
            (self.folder / "was-cut").touch()
            import os, signal; os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.mark.parametrize(
    "phase", [pytest.param("verifying", marks=SELDOM), "committing", pytest.param("reporting", marks=SELDOM)]
)
def test_a_power_cut_on_trial_ends_no_upgrade(unit: Unit, trees: Trees, shop: Shop, phase: str) -> None:
    cut = {
        "thingjobs/journal.py": (
            (
                "        key, done = record.identity.key, record.phase is Phase.DONE\n        self.look()\n",
                CUT.format(phase=phase).lstrip("\n")
                + "        key, done = record.identity.key, record.phase is Phase.DONE\n        self.look()\n",
            ),
        )
    }
    unit.start()
    upgrade(unit, trees.make(NEW, cut, name=f"cut-{phase}"), shop)
    unit.eventually((unit.agent.state / "was-cut").exists, 60)

    unit.power_cut(boot="another")
    unit.start()

    found = unit.over("upgrade")
    assert found.status == "SUCCEEDED", found
    assert unit.works() == f"thingjobs/{NEW}"
    assert unit.notes() == set()
