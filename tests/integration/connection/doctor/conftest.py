"""The doctor on a device that works, and on one with a single thing wrong: what it says is wrong is that, and no more.

Real certificates, a Mosquitto with mutual TLS, and `PolicyBroker` where Mosquitto is too kind. The configuration is a
file; the clock and the table of mounts are given, as no test may set the one, and others do not have our disks.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from thingjobs import doctor
from thingjobs.clock import Reading
from thingjobs.config import load
from thingjobs.doctor import Finding, Mark, Patience, Surroundings
from thingjobs.testing.web import WebJobsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Mosquitto, Pki
    from tests.integration.conftest import Agent

    from thingjobs.testing import JobsService

THING = "pump-7"
#: Only a failure reaches these, but for the last one: it is waited for a rival in each conversation that works.
BRISK = Patience(name=20, reach=20, handshake=20, session=20, reply=20, talk=60, whole=120, rival=0.1)
MOUNTS = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"


class Report:
    """What the doctor found."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        print("\n".join(f"{one.mark:9}{one.check:13}{one.text} | {one.todo}" for one in findings))
        for one in findings:
            assert one.text, one
            assert "\n" not in one.text + one.todo, one
            assert one.mark is not Mark.FAILED or one.todo, "a failure says what to do"

    def marked(self, *marks: Mark) -> set[str]:
        """Return the names of the checks that have one of these marks."""
        return {one.check for one in self.findings if one.mark in marks}

    def of(self, check: str) -> Finding:
        """Return what the check found; it must be one thing."""
        (found,) = [one for one in self.findings if one.check == check]
        return found

    def only(self, check: str, words: str, *, skipped: set[str] | None = None) -> Finding:
        """Return the first failure: it is of that check, has those words, and is the only one."""
        assert self.marked(Mark.FAILED) == {check}
        assert self.marked(Mark.SKIPPED) == (skipped or set())
        assert self.marked(Mark.WARNING) == set()
        found = next(one for one in self.findings if one.mark is Mark.FAILED)
        assert words in found.text
        return found


class Patient:
    """The files of a device, and what the doctor says of it.

    Attributes:
        agent: its agent, which does not run.
    """

    def __init__(self, agent: Agent, pki: Pki, folder: Path) -> None:
        self.agent = agent
        self.folder, self.config, self.state = agent.folder, agent.config, agent.state
        self._pki = pki
        self._mounts = folder / "mounts"

    def rewrite(self, old: str, new: str) -> None:
        """Change the configuration."""
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def set(self, key: str, value: object) -> None:
        """Change one key, which is there once."""
        (line,) = [line for line in self.config.read_text().splitlines() if line.startswith(f"{key} = ")]
        self.rewrite(line, f"{key} = {value}")

    def point_at(self, port: int, more: str = "") -> None:
        """Have it connect to another port, and set more."""
        self.set("port", f"{port}\n{more}")

    def install(self, days: tuple[float, float]) -> None:
        """Give it a certificate of its own that is valid between two days, counted from now."""
        for path, suffix, key in zip(
            self._pki.dated(THING, days), ("pem", "key"), ("certificate", "private_key"), strict=True
        ):
            own = self.folder / f"own.{suffix}"
            own.touch(mode=0o600)
            own.write_bytes(path.read_bytes())
            self.set(key, f'"{own}"')

    def examine(
        self,
        *,
        offset: float = 0.0,
        synchronised: bool = True,
        mounts: str | None = MOUNTS,
        everything: bool = False,
        **patience: float,
    ) -> Report:
        """Examine it; but for `everything`, only up to what the service says: asking handlers takes longer.

        Args:
            offset: how far its clock is off, seconds.
            synchronised: whether a time service has set it.
            mounts: its mounts; None: those of this machine.
            everything: carry out all checks.
            patience: how long a step may take, seconds.
        """
        config = load([self.config], environment={})
        reading = Reading(time.time() + offset, 1000.0, synchronised=synchronised)
        around = Surroundings(replace(BRISK, **patience), lambda: reading)
        if mounts is not None:
            self._mounts.write_text(mounts)
            around = replace(around, mounts=self._mounts)
        last = "credentials" if config.cloud.role_alias else "client id"
        findings = []
        for found in doctor.examine(config, [self.config], around):
            findings.append(found)
            if found.check == last and not everything:
                break
        return Report(findings)


@pytest.fixture
def new_patient(new_agent: Callable[..., Agent], pki: Pki, tmp_path: Path) -> Callable[..., Patient]:
    """Makes devices that connect to a port."""

    def make(port: int, **more: str) -> Patient:
        return Patient(new_agent(THING, port=port, pair=pki.device(THING), ca=pki.ca, **more), pki, tmp_path)

    return make


@pytest.fixture
def patient(new_patient: Callable[..., Patient], mosquitto: Mosquitto) -> Patient:
    """A good device."""
    made = new_patient(mosquitto.port)
    made.rewrite('run_as = ["nobody"]', 'run_as = ["nobody"]\nuser = "nobody"')
    return made


@pytest.fixture
def web(service: JobsService, pki: Pki) -> Iterator[WebJobsService]:
    """The Jobs service as an HTTPS server that wants a certificate."""
    with WebJobsService(service, tls=pki.server_tls()) as serving:
        yield serving
