"""The firmware example, cut at every step: the real agent and handler on a fake device with two slots, over a broker.

A first update, with nothing cut, writes down every step that there is: those of the handler, which names each one after
it changed something, of the download, of the gates, and each request to the service. Then an update is made for each of
them and cut there: by a power cut, which ends the agent and the handler at once and lets the bootloader choose anew, or
by the death of the agent alone. One update follows the other on the same machine: each finds what the cut before left.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import pytest

from thingjobs.testing import Lost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.acceptance.firmware.conftest import Machine

    Chosen = Callable[[list["Cut"]], list["Cut"]]

PATIENCE_SECONDS = 60
BOARD = "pump-2"
VERBS = ("check", "prepare", "apply", "verify", "commit", "rollback")
#: `make test` cuts the power at each step, but only once where all stories are the same, and kills the agent at some.
ALL = bool(os.environ.get("THINGJOBS_ALL_CUTS"))


@dataclass(frozen=True)
class Cut:
    """One moment of an update, and what happens then.

    Attributes:
        where: "step": after that line of the ledger; "exit": the verb of that line has ended, and nobody heard of it;
            "request": the service does not get a request; "reply": it carries it out, and its reply is lost; "boot":
            after the bootloader chose, before the agent is there.
        name: the line, or the request.
        number: of the line, the boot, or the requests of that name, counted from 1.
        agent_only: the agent dies; the handler, and the machine, live on.
        back_first: the agent is back before the handler goes on.
    """

    where: str
    name: str
    number: int
    agent_only: bool = False
    back_first: bool = False

    @property
    def in_ledger(self) -> bool:
        """Whether what runs waits there."""
        return self.where in ("step", "exit")

    def __str__(self) -> str:
        who = "power" if not self.agent_only else "agent, back first," if self.back_first else "agent"
        return f"{who} cut at {self.where} {self.number}: {self.name}"


@dataclass(frozen=True)
class Update:
    """One update of the firmware."""

    version: str = "1.5"
    healthy: bool = True
    boots: bool = True
    cut: Cut | None = None


class Trial:
    """One update on one machine, with the cut on its way."""

    def __init__(self, machine: Machine, update: Update, job: str) -> None:
        self._machine = machine
        self._update = update
        self._job = job
        self._lost = False
        self._cut_was_on_trial = False
        self._waits = update.cut is not None

    def run(self, image: bytes) -> None:
        """Take it through to its end; then hold what is told against the truth."""
        machine, cut = self._machine, self._update.cut
        before, old = machine.booted, machine.version(machine.booted)
        machine.begin(image, cut.number if cut and cut.in_ledger else None)
        machine.lose = self._lose
        digest = hashlib.sha256(image).hexdigest()
        params = {"version": self._update.version, "board": BOARD, "url": machine.url, "sha256": digest}
        machine.service.create_job(self._job, {"handler": "ab-firmware", "params": params}, [machine.thing])
        self._to_its_end()
        self._judge(before, old)

    def _to_its_end(self) -> None:
        """Be the machine, until the job is over."""
        machine, end = self._machine, time.monotonic() + PATIENCE_SECONDS
        while self._waits or machine.service.execution(machine.thing, self._job).pending:
            assert time.monotonic() < end, f"no end, or no cut: {machine.ledger}, {machine.requests}"
            if self._reached():
                self._waits = False
                self._make_cut()
            elif machine.went_down:
                machine.boot()
            else:
                time.sleep(0.005)

    def _lose(self, name: str) -> Lost | None:
        cut = self._update.cut
        if cut is None or self._lost or (cut.name, cut.number) != (name, self._machine.requests.count(name)):
            return None
        self._lost = cut.where in ("request", "reply")
        return {"request": Lost.REQUEST, "reply": Lost.REPLY}.get(cut.where)

    def _reached(self) -> bool:
        cut = self._update.cut
        if cut is None or not self._waits:
            return False
        if cut.in_ledger:
            return len(self._machine.ledger) >= cut.number
        return self._lost or (cut.where == "boot" and self._machine.boots == cut.number)

    def _make_cut(self) -> None:
        machine, cut = self._machine, self._update.cut
        assert cut is not None
        if cut.where == "exit":
            machine.let_the_verb_end_unheard()
        self._cut_was_on_trial = machine.on_trial
        if not cut.agent_only:
            machine.cut_power()
            machine.boot()
            return
        machine.kill_agent()
        # A check that belongs to no job yet is ended by the next agent, and called again.
        back_first = cut.back_first and not cut.name.startswith("check")
        seen = len(machine.requests)
        if cut.where == "step" and not back_first:
            machine.go_on()
        machine.start_agent()
        if cut.where == "step" and back_first:
            if machine.asks_again(seen):
                machine.go_on()
            else:
                machine.cut_power()  # It went down without asking: with it goes what waits.

    def _judge(self, before: str, old: str) -> None:
        machine, update, cut = self._machine, self._update, self._update.cut
        view = machine.service.execution(machine.thing, self._job)
        states = [change.status for change in view.history]
        # What is told once is told for ever.
        assert [state for state in states if state not in ("QUEUED", "IN_PROGRESS")] == [view.status]
        assert not machine.on_trial
        assert not machine.env["trial"]
        # The one boot of the new firmware was used up before it was confirmed.
        fell_back = cut is not None and not cut.agent_only and self._cut_was_on_trial
        kept = update.healthy and update.boots and not fell_back
        assert view.status == ("SUCCEEDED" if kept else "FAILED"), view.details
        assert (machine.booted != before) is kept
        assert machine.version(machine.booted) == (update.version if kept else old)
        assert kept or view.details["reason"]
        if cut is not None and cut.name.startswith("download"):
            again = [line for line in machine.ledger if line.startswith("download")][1:]
            assert [line for line in again if line != cut.name] == again, "it began anew"
            assert bool(again) is not cut.agent_only


class Images(Protocol):
    """What the fixture `image_of` gives."""

    def __call__(self, version: str, *, healthy: bool = True, boots: bool = True) -> bytes:
        """Return firmware."""


@dataclass(frozen=True)
class Park:
    """The machines, and what they are updated with."""

    machines: list[Machine]
    image_of: Images

    def update(self, machine: Machine, update: Update, job: str) -> None:
        """Make one update on one machine."""
        image = self.image_of(update.version, healthy=update.healthy, boots=update.boots)
        try:
            Trial(machine, update, job).run(image)
        except AssertionError as error:
            raise AssertionError(f"{job}, {update}: {update.cut}: {error}") from error

    def cut_everywhere(self, stories: Iterable[tuple[Update, Chosen]]) -> None:
        """Find out which cuts each story has, deal those that are chosen out to the machines, and make them."""
        updates = [replace(update, cut=cut) for update, chosen in stories for cut in chosen(self._cuts_of(update))]
        with ThreadPoolExecutor(len(self.machines)) as pool:
            futures = [
                pool.submit(self._one_after_the_other, machine, updates[number :: len(self.machines)])
                for number, machine in enumerate(self.machines)
            ]
        wrong = [str(error) for future in futures if (error := future.exception())]
        assert not wrong, "\n".join(wrong)

    def _cuts_of(self, update: Update) -> list[Cut]:
        self.update(self.machines[0], update, f"uncut-{update.version.replace('.', '-')}")
        cuts = cuts_of(self.machines[0])
        assert len(cuts) > 30, cuts
        return cuts

    def _one_after_the_other(self, machine: Machine, updates: Iterable[Update]) -> None:
        for number, update in enumerate(updates, 2):
            self.update(machine, replace(update, version=f"{number}.0"), f"{machine.thing}-{number}")
        self.update(machine, replace(GOOD, version="1.9"), f"{machine.thing}-last")


# --- which cuts there are -----------------------------------------------------------------------------------------


def cuts_of(machine: Machine) -> list[Cut]:
    """Return every moment of the update that the machine has just made."""
    ledger = machine.ledger
    steps = [Cut("step", line, number) for number, line in enumerate(ledger, 1)]
    exits = [replace(cut, where="exit") for cut in steps if _is_last_of_its_verb(cut, ledger)]
    counted: Counter[str] = Counter()
    requests = []
    for name in machine.requests:
        counted[name] += 1
        # What is asked for as soon as there is a connection may belong to the update before; and how often progress is
        # told, beside the claim and the reboot, is a matter of how long it takes.
        most = 1 if "$next" in name else 2 if name.endswith("IN_PROGRESS") else counted[name]
        if counted[name] <= most:
            requests += [Cut(where, name, counted[name]) for where in ("request", "reply")]
    boots = [Cut("boot", "", number) for number in range(1, machine.boots + 1)]
    return [*steps, *exits, *requests, *boots]


def _is_last_of_its_verb(cut: Cut, ledger: list[str]) -> bool:
    """Whether the verb says nothing more in this run of it."""
    if not cut.name.startswith(VERBS):
        return False
    later = [line for line in ledger[cut.number :] if line.startswith(VERBS)]
    return not later or later[0].endswith(": begins")


def each(cuts: list[Cut]) -> list[Cut]:
    """Return all of them."""
    return cuts


def from_verify_on(cuts: list[Cut]) -> list[Cut]:
    """Return those that a good update does not have: until the new firmware boots, all is the same."""
    begin = next(cut.number for cut in cuts if cut.name == "verify: begins")
    return [cut for cut in cuts if cut.where == "boot" or (cut.in_ledger and cut.number >= begin)]


def some(cuts: list[Cut]) -> list[Cut]:
    """Return every other one of those."""
    return from_verify_on(cuts)[::2]


def agents_die(cuts: list[Cut]) -> list[Cut]:
    """Let only the agent die; at a step it comes back after the handler went on, or before."""
    alone = [replace(cut, agent_only=True) for cut in cuts if cut.where != "boot"]
    back_first = [replace(cut, back_first=True) for cut in alone if cut.where == "step"]
    return [*alone, *back_first] if ALL else [*alone[::5], *back_first[1::4]]


@pytest.fixture
def park(machines: list[Machine], image_of: Images) -> Park:
    """Machines with firmware 1.0, turned on."""
    return Park(machines, image_of)


GOOD, UNHEALTHY, DEAD = Update(), Update("1.6", healthy=False), Update("1.7", boots=False)


@pytest.mark.timeout(3600 if ALL else 900)
def test_after_a_power_cut_at_any_step_what_is_told_is_what_runs(park: Park) -> None:
    chosen = [(GOOD, each), (UNHEALTHY, from_verify_on), (DEAD, some)]
    park.cut_everywhere([(update, each) for update, _ in chosen] if ALL else chosen)


@pytest.mark.timeout(3600 if ALL else 900)
def test_the_death_of_the_agent_at_any_step_changes_nothing(park: Park) -> None:
    park.cut_everywhere([(GOOD, agents_die), (UNHEALTHY, agents_die)] if ALL else [(GOOD, agents_die)])
