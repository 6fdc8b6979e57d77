"""Signals that ask the agent to end are events, and none is missed."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys

from thingjobs.cli import signals

#: Waits for each signal as the agent does, on a queue without a time-out, and asks for the next one right before.
LOOP = """
import os, queue, signal, sys, threading
from thingjobs.cli import signals

inbox = queue.SimpleQueue()
ready = os.fdopen(1, "wb", 0)
with signals.told_of(inbox.put):
    for number in range(int(sys.argv[1])):
        ready.write(b".")
        inbox.get()
"""
COUNT = 20_000
PATIENCE_SECONDS = 60


def test_no_signal_is_missed_whenever_it_comes() -> None:
    # With handlers in Python instead, one in ten thousand was.
    argv = [sys.executable, "-c", LOOP, str(COUNT)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, bufsize=0) as program:
        assert program.stdout is not None
        while program.stdout.read(1):
            program.send_signal(signal.SIGTERM)
        assert program.wait(PATIENCE_SECONDS) in (0, -signal.SIGTERM)  # the last one may come after the end


def test_signals_are_counted_and_do_afterwards_what_they_did_before() -> None:
    heard: queue.SimpleQueue[int] = queue.SimpleQueue()
    before = signal.getsignal(signal.SIGTERM)
    with signals.told_of(heard.put):
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard.get(timeout=PATIENCE_SECONDS) == 1
        os.kill(os.getpid(), signal.SIGINT)
        assert heard.get(timeout=PATIENCE_SECONDS) == 2
    assert signal.getsignal(signal.SIGTERM) is before
