"""A verb that wanted a reboot, and a power cut before anybody heard of that: the machine has booted already."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from thingjobs.machine.events import Ending, Evidence, Finished, Resumed
from thingjobs.model import Plan, Verb

if TYPE_CHECKING:
    from tests.unit.conftest import World

PLAN = Plan(handler="h", argv=("/h",), verbs=frozenset({Verb.APPLY, Verb.VERIFY}))


@pytest.mark.parametrize(("code", "verb"), [(195, Verb.VERIFY), (194, Verb.APPLY)])
def test_a_reboot_that_a_power_cut_made_already_is_not_made_again(
    new_world: type[World], code: int, verb: Verb
) -> None:
    world = new_world(PLAN).begun()

    after_power_cut(world, code)

    assert world.reboots == 0
    assert world.runs[-1] == (verb, True)
    world.online().ends(verb)
    if verb is Verb.APPLY:
        world.ends(Verb.VERIFY)
    assert world.status == "SUCCEEDED"


def test_a_reboot_that_a_power_cut_made_already_needs_nobody_who_may_reboot(new_world: type[World]) -> None:
    world = new_world(PLAN).begun()
    world.settings = replace(world.settings, may_reboot=False)

    after_power_cut(world, 195)

    assert world.verb is Verb.VERIFY


def test_in_the_same_boot_the_machine_is_rebooted(new_world: type[World]) -> None:
    world = new_world(PLAN).begun()

    world.ends(Verb.APPLY, 195)

    assert world.reboots == 1


def after_power_cut(world: World, code: int) -> None:
    """Cut the power; `apply` had just ended, and only the file with its exit status knows."""
    run, world.running = world.running, None
    assert run is not None
    record = world.record
    world.boot += 1
    world.disk, disk = {}, world.disk
    world.start()
    world.disk = disk
    world.give(Resumed(record, Evidence.ADOPTED))
    world.give(Finished(record.identity, run.verb, run.attempt, Ending(code)))
    world.drain()
