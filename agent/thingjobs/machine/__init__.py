"""The core: one transition table, and `step(state, event, now) -> (state, effects)`.

Pure: no I/O, no clock, no threads, no logging, no randomness; all of that comes in as events and goes out as
effects. `table` is the place to begin reading.
"""

from thingjobs.machine.agent import step
from thingjobs.machine.state import Job, Now, State, Stopping

__all__ = ["Job", "Now", "State", "Stopping", "step"]
