"""Credentials shared by threads: one asks, nobody waits longer than need be, and a failure is told to all who wait."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from thingjobs.cloud.credentials import Credentials, Issued, Keeper
from thingjobs.cloud.errors import CloudError, Fate, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable


class Source:
    """Gives numbered credentials that live 100 s, when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.fails = False
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self) -> Issued:
        self.asked += 1
        self.entered.set()
        assert self.gate.wait(10)
        if self.fails:
            raise CloudError("cannot: no", Trouble.UNREACHABLE, Fate.NOT_SENT)
        return Issued(Credentials(f"key-{self.asked}", "s"), 100)


class Looks:
    """A clock that stands still and counts who looks at it."""

    def __init__(self) -> None:
        self._seen = threading.Semaphore(0)

    def __call__(self) -> float:
        self._seen.release()
        return 0.0

    def reached(self, count: int) -> bool:
        return all(self._seen.acquire(timeout=10) for _ in range(count))


class Together:
    """Threads that all ask, of which the others wait while the first is held up."""

    def __init__(self, ask: Callable[[], object], count: int) -> None:
        self.got: list[object] = []
        self._threads = [threading.Thread(target=self._one, args=(ask,)) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _one(self, ask: Callable[[], object]) -> None:
        try:
            self.got.append(ask())
        except CloudError as error:
            self.got.append(error)

    def join(self) -> list[object]:
        for thread in self._threads:
            thread.join(10)
        return self.got


def keeper_of(source: Source, now: list[float]) -> Keeper:
    return Keeper(source, clock=lambda: now[0], roll=lambda: 0.999)


def test_a_failure_is_told_to_all_who_wait_and_asked_for_once() -> None:
    source, looks = Source(), Looks()
    source.fails = True
    source.gate.clear()
    keeper = Keeper(source, clock=looks, roll=lambda: 0.5)

    waiting = Together(keeper.current, 6)
    assert looks.reached(6)  # each has seen that there is nothing, and one is asking
    source.gate.set()

    told = waiting.join()
    assert [str(one) for one in told] == ["cannot: no"] * 6
    assert source.asked == 1


def test_while_one_refreshes_the_others_use_what_there_is() -> None:
    source, now = Source(), [0.0]
    keeper = keeper_of(source, now)
    keeper.current()
    now[0] = 90.0
    source.entered.clear()
    source.gate.clear()

    refreshing = Together(keeper.current, 1)
    assert source.entered.wait(10)
    assert keeper.current().access_key_id == "key-1"
    source.gate.set()

    assert [one.access_key_id for one in refreshing.join() if isinstance(one, Credentials)] == ["key-2"]
    assert keeper.current().access_key_id == "key-2"
    assert source.asked == 2


def test_old_ones_are_used_until_they_die() -> None:
    source, now = Source(), [0.0]
    keeper = keeper_of(source, now)
    keeper.current()
    source.fails = True

    for second in range(80, 95):
        now[0] = float(second)
        assert keeper.current().access_key_id == "key-1"
    assert 2 <= source.asked <= 7
    now[0] = 95.0
    with pytest.raises(CloudError):
        keeper.current()

    source.fails = False
    assert keeper.current().access_key_id.startswith("key-")


def test_what_the_service_refuses_is_asked_for_anew_once() -> None:
    source = Source()
    keeper = keeper_of(source, [0.0])
    first = keeper.current()

    keeper.forget(first)
    keeper.forget(first)
    second = keeper.current()
    keeper.forget(first)

    assert keeper.current() is second
    assert source.asked == 2


def test_what_another_got_and_gave_up_while_one_waited_is_asked_for_anew() -> None:
    source, keepers = Source(), list[Keeper]()

    def others_come_and_go() -> float:
        if keepers:  # between a look at what there is and the wait for one's turn
            keeper = keepers.pop()
            keeper.forget(keeper.current())
        return 0.0

    keeper = Keeper(source, clock=others_come_and_go, roll=lambda: 0.5)
    keepers.append(keeper)

    assert keeper.current().access_key_id == "key-2"
