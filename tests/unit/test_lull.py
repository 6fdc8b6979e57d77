"""What can wait waits for a moment, comes in order, and comes at once when its execution comes back."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs import boot
from thingjobs.doer import Doer
from thingjobs.errors import StateError
from thingjobs.lull import LULL_SECONDS, Lull
from thingjobs.machine.effects import Clean, GetReady, Run, Save
from thingjobs.machine.events import NotSaved
from thingjobs.model import Identity, JobId, Phase, Plan, Record, Result, Status, Verb
from thingjobs.troubles import Troubles

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingjobs.lull import Act

ONE, OTHER = (Identity(JobId(name), 1, 1_790_000_000) for name in ("one", "other"))
NOW = 1000.0


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time."""

    def set_to(now: float) -> None:
        monkeypatch.setattr(boot, "clock", lambda: now)

    set_to(NOW)
    return set_to


@pytest.fixture
def lull(at: Callable[[float], None]) -> Lull:
    return Lull()


def act(name: str, done: list[str]) -> Act:
    def note() -> tuple[()]:
        done.append(name)
        return ()

    return note


def carry_out(acts: list[Act]) -> None:
    for one in acts:
        one()


def test_nothing_is_due_where_nothing_waits(lull: Lull) -> None:
    assert lull.next_due() is None
    assert lull.take(NOW + 1) == lull.take_all() == lull.take_of(ONE) == []


def test_an_act_waits_for_a_lull_and_is_taken_once(lull: Lull) -> None:
    done: list[str] = []
    lull.put_off(ONE, act("one", done))
    due = lull.next_due()

    assert due == NOW + LULL_SECONDS
    assert lull.take(due - 0.001) == []
    carry_out(lull.take(due))
    assert done == ["one"]
    assert lull.take_all() == []


def test_what_waits_for_an_execution_waits_together_and_in_order(lull: Lull, at: Callable[[float], None]) -> None:
    done: list[str] = []
    lull.put_off(ONE, act("first", done))
    at(NOW + LULL_SECONDS / 2)
    lull.put_off(OTHER, act("other", done))
    lull.put_off(ONE, act("second", done))

    assert lull.take(NOW + LULL_SECONDS) == []
    carry_out(lull.take_all())

    assert done == ["first", "second", "other"]


def test_an_execution_that_comes_back_takes_what_waits_for_it_and_nothing_else(lull: Lull) -> None:
    done: list[str] = []
    lull.put_off(ONE, act("one", done))
    lull.put_off(OTHER, act("other", done))

    carry_out(lull.take_of(ONE))

    assert done == ["one"]
    assert len(lull.take_all()) == 1


# --- the loop's hands ---------------------------------------------------------------------------------------------


class Hands:
    """A Doer whose parts write down what is asked of them."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails: Exception | None = None
        self.little = True
        self.journal = SimpleNamespace(reserve_lost="", save=self.save, emptied=lambda: False, folder="/state")
        parts: Any = SimpleNamespace(
            journal=self.journal,
            reboot=(),
            runner=SimpleNamespace(
                clean=self.clean,
                get_ready=lambda _: self.asked.append("get ready"),
                left_little=lambda _: self.little,
            ),
            handlers=SimpleNamespace(
                prune=lambda _: self.asked.append("prune"), program=lambda plan: plan.argv, changed=lambda _: "changed"
            ),
        )
        self.troubles = Troubles()
        self.doer = Doer(parts, self.troubles, dict)

    def save(self, record: Record, later: Callable[[Callable[[], None]], None]) -> bool:
        self.asked.append(f"save {record.phase}")
        later(self.settle)
        return False

    def settle(self) -> None:
        self.asked.append("settle")
        if self.fails:
            raise self.fails

    def clean(self, identity: Identity) -> None:
        self.asked.append(f"clean {identity.job_id}")
        if self.fails:
            raise self.fails


@pytest.fixture
def hands(at: Callable[[float], None]) -> Hands:
    return Hands()


END = Record(ONE, Phase.DONE, "c0ffee", 1, Plan("h", ("/h",)), {}, result=Result(Status.SUCCEEDED), finished_at=5.0)


def run_of(identity: Identity) -> Run:
    record = Record(identity, Phase.APPLYING, "c0ffee", 1, Plan("h", ("/h",)), {})
    return Run(record, Verb.APPLY, 1)


def test_what_an_execution_left_is_put_away_in_a_lull(hands: Hands) -> None:
    hands.doer.carry_out([Clean(ONE)])
    assert hands.asked == []

    hands.doer.act(hands.doer.lull.take_all())

    assert hands.asked == ["clean one", "prune"]


@pytest.mark.parametrize("effect", [run_of(ONE), GetReady(run_of(ONE))], ids=["run", "get ready"])
def test_what_an_execution_left_is_put_away_before_it_begins_again(hands: Hands, effect: Run | GetReady) -> None:
    hands.doer.carry_out([Clean(ONE), Clean(OTHER), effect])

    assert hands.asked[:2] == ["clean one", "prune"]
    assert "clean other" not in hands.asked


def test_what_an_execution_left_is_put_away_at_once_where_it_takes_room(hands: Hands) -> None:
    hands.little = False

    hands.doer.carry_out([Clean(ONE)])

    assert hands.asked == ["clean one", "prune"]


def test_what_an_execution_left_is_put_away_at_once_where_room_is_short(hands: Hands) -> None:
    hands.journal.reserve_lost = "No space left on device"

    hands.doer.carry_out([Clean(ONE)])

    assert hands.asked == ["clean one", "prune"]


def test_an_end_takes_its_place_before_its_folder_is_put_away(hands: Hands) -> None:
    hands.doer.carry_out([Save(END), Clean(ONE)])
    assert hands.asked == ["save done"]

    hands.doer.act(hands.doer.lull.take_all())

    assert hands.asked == ["save done", "settle", "clean one", "prune"]
    assert not hands.doer.events


def test_an_end_that_cannot_take_its_place_is_trouble_and_not_saved(hands: Hands) -> None:
    hands.fails = StateError("the disk fails")
    hands.doer.carry_out([Save(END)])

    hands.doer.act(hands.doer.lull.take_all())

    assert list(hands.doer.events) == [NotSaved(END, "the disk fails")]
    assert hands.troubles.lines() == ["the disk fails"]


def test_an_end_that_is_saved_again_is_shown_once(hands: Hands) -> None:
    hands.fails = StateError("the disk fails")
    hands.doer.carry_out([Save(END)])
    hands.doer.act(hands.doer.lull.take_all())
    hands.fails = None

    hands.doer.carry_out([Save(END), Save(replace(END, identity=OTHER))])
    hands.doer.act(hands.doer.lull.take_all())

    assert [record.identity for record in hands.doer.finished] == [ONE, OTHER]


def test_that_the_journal_works_again_is_said_when_an_end_is_written_and_not_when_it_is_put_off(hands: Hands) -> None:
    hands.fails = StateError("the disk fails")
    hands.doer.carry_out([Save(END)])
    hands.doer.act(hands.doer.lull.take_all())
    hands.fails = None

    hands.doer.carry_out([Save(END)])
    assert hands.troubles.lines() == ["the disk fails"]
    hands.doer.act(hands.doer.lull.take_all())

    assert hands.troubles.lines() == []


def test_a_reserve_that_is_used_up_in_a_lull_is_told_then(hands: Hands) -> None:
    hands.doer.carry_out([Save(END)])
    hands.journal.reserve_lost = "No space left on device"

    hands.doer.act(hands.doer.lull.take_all())

    assert hands.troubles.lines() == ["the journal in /state lives on its reserve: No space left on device"]


def test_what_cannot_be_put_away_is_told_and_holds_up_nothing(hands: Hands, caplog: pytest.LogCaptureFixture) -> None:
    hands.fails = StateError("the disk fails")
    hands.doer.carry_out([Clean(ONE), Clean(OTHER)])

    with caplog.at_level(logging.ERROR, "thingjobs"):
        hands.doer.act(hands.doer.lull.take_all())

    assert hands.asked == ["clean one", "clean other"]
    assert caplog.messages == ["one#1: the disk fails", "other#1: the disk fails"]
