"""SIGTERM and SIGINT as events on the agent's queue; none is ever missed.

Python runs its own signal handlers only when the main thread wakes, and one that arrives just before that thread goes
to sleep does not wake it: about one in ten thousand, and then a service manager waits in vain. So the interpreter
writes the number of each signal into a pipe, from where a thread takes it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENDING = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def told_of(heard: Callable[[int], None]) -> Iterator[None]:
    """Have `heard` called, by a thread of its own, with how many signals to end came so far: 1 for the first.

    Only in the main thread. What the signals did before they do again afterwards.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    thread = threading.Thread(target=_listen, args=(reader, heard), name="signals", daemon=True)
    thread.start()
    fd_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = [(number, signal.signal(number, _nothing)) for number in ENDING]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
        signal.set_wakeup_fd(fd_before)
        os.close(writer)
        thread.join()
        os.close(reader)


def _listen(reader: int, heard: Callable[[int], None]) -> None:
    count = 0
    while found := os.read(reader, 1):
        if found[0] in ENDING:
            count += 1
            heard(count)


def _nothing(number: int, frame: object) -> None:
    """Stand in for the default, which would end the process; the thread hears of it."""
