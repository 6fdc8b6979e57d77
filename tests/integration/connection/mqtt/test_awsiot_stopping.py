"""What the transport awsiot loads, holds and leaves behind: threads, descriptors, and the library itself."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.errors import ConfigError
from thingjobs.jobs import Connected, Disconnected, Incoming
from thingjobs.model import ThingName
from thingjobs.transport.awsiot import AwsIotTransport
from thingjobs.transport.link import Link

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Pki, Require
    from tests.integration.connection.conftest import Device

    Connect = Callable[..., Device[AwsIotTransport]]

THING = ThingName("pump-7")
PATIENCE_SECONDS = 20.0
#: A process that waits for a thread of the library's ends never.
AT_ONCE_SECONDS = 10.0


def held() -> set[str]:
    """Return the native threads and the open descriptors; awscrt opens /dev/urandom once for ever."""
    found = {str(entry) for entry in Path("/proc/self/task").iterdir()}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that listed them
            found.add(str(entry.readlink()))
    return found - {"/dev/urandom"}


def test_20_starts_and_stops_leave_no_thread_and_no_descriptor(
    awsiot: Connect, link: Link, eventually: Callable[..., Any]
) -> None:
    before = held()
    for _ in range(20):
        device = awsiot(link)
        device.skip_to(Connected)
        device.stop()
    eventually(lambda: held() <= before)


def test_a_failure_of_tls_leaves_no_thread_and_no_descriptor(
    awsiot: Connect, link: Link, eventually: Callable[..., Any], other_pki: Pki
) -> None:
    certificate, key = other_pki.device(THING)
    before = held()
    device = awsiot(replace(link, certificate=certificate, private_key=key))
    for _ in range(5):
        device.reason()
    device.stop()
    eventually(lambda: held() <= before)


RUN = """
import os, sys
from pathlib import Path
from thingjobs.transport.link import Link
from thingjobs.transport.awsiot import AwsIotTransport
host, port, certificate, key, ca = sys.argv[1:]
transport = AwsIotTransport(Link(host, int(port), "t", "t", 30, Path(certificate), Path(key), Path(ca)), lambda: 0.0)
# Without a buffer, whose lock a thread could hold when the interpreter ends.
transport.start(lambda incoming: os.write(1, f"{type(incoming).__name__}\\n".encode()))
sys.stdin.readline()
"""


def test_a_process_that_forgets_to_stop_it_ends_all_the_same(link: Link, require: Require) -> None:
    require("awscrt")
    where = [link.host, str(link.port), str(link.certificate), str(link.private_key), str(link.ca)]
    with subprocess.Popen(
        [sys.executable, "-c", RUN, *where], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "Connected\n"
        began = time.monotonic()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(PATIENCE_SECONDS) == 0
        assert time.monotonic() - began < AT_ONCE_SECONDS


WITHOUT = """
import sys
sys.modules["awscrt"] = None
from thingjobs.errors import ConfigError
from thingjobs.transport.link import Link
from thingjobs.transport.awsiot import AwsIotTransport
try:
    AwsIotTransport(Link("localhost", 8883, "t", "t"), lambda: 0.0)
except ConfigError as error:
    print(error)
"""


LOADED = """
import sys
import thingjobs.cli.run, thingjobs.transport.awsiot, thingjobs.transport.awsiot_settings
print([name for name in ("awscrt", "_awscrt", "awsiot", "paho", "requests", "tenacity") if name in sys.modules])
"""


def printed(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_without_the_extra_it_is_said_what_to_install() -> None:
    said = printed(WITHOUT)
    assert said.startswith('connection.transport = "awsiot" needs thingjobs[awsiot], which is not installed: pip inst')
    assert "32-bit Arm" in said
    assert len(said.splitlines()) == 1


def test_the_library_is_loaded_only_when_a_transport_is_made() -> None:
    assert printed(LOADED) == "[]"


def test_an_exception_of_whoever_is_told_passes_no_seam(awsiot: Connect, link: Link) -> None:
    transport = AwsIotTransport(link, lambda: 0.0)
    came: queue.SimpleQueue[Incoming] = queue.SimpleQueue()
    bugs = iter(["a bug of ours"])

    def put(incoming: Incoming) -> None:
        came.put(incoming)
        if isinstance(incoming, Connected) and (bug := next(bugs, None)):
            raise RuntimeError(bug)

    transport.start(put)
    try:
        kinds = [type(came.get(timeout=PATIENCE_SECONDS)) for _ in range(3)]
        assert kinds == [Connected, Disconnected, Connected]
    finally:
        transport.stop()


def test_mqtt_311_is_refused_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match="speaks MQTT 5 only"):
        AwsIotTransport(Link("localhost", 8883, THING, THING, version=4), lambda: 0.0)
