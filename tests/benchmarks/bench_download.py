"""How fast a file is fetched, hashed, and put on the disk, beside `curl | sha256sum`, which writes nothing."""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Require

MIB = 1048576
SIZE_MIB = int(os.environ.get("THINGJOBS_BENCH_DOWNLOAD_MIB", "1024"))
ROUNDS = 3
#: A server that costs next to nothing: the kernel does the sending, of as many MiB as the path says.
SERVER = """
import os, socket, sys
file = os.open(sys.argv[1], os.O_RDONLY)
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    client, _ = listener.accept()
    size = int(client.recv(65536).split(b" ")[1][1:]) * 1048576
    client.sendall(b'HTTP/1.1 200 OK\\r\\nETag: "1"\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n' % size)
    sent = 0
    while sent < size:
        sent += os.sendfile(client.fileno(), file, sent, size - sent)
    client.close()
"""
#: As a handler's child does it; tells the most memory that it ever had, in KiB. (getrusage would count its parent's.)
FETCH = """
import re, sys
from pathlib import Path
from thingjobs.fetch import fetch
fetch(sys.argv[1], Path(sys.argv[2]), digest=sys.argv[3])
print(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.fixture
def content(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "content"
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for _ in range(SIZE_MIB):
            file.write(block)
        os.fsync(file.fileno())
    yield path
    path.unlink()


@pytest.fixture
def url(content: Path) -> Iterator[str]:
    argv = [sys.executable, "-c", SERVER, str(content)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.kill()


@pytest.mark.timeout(600)
def test_download(url: str, content: Path, require: Require, say: Callable[..., None]) -> None:
    curl = [require("curl"), "-s", "--noproxy", "*", f"{url}/{SIZE_MIB}"]
    require("sha256sum")
    _, floor = fetch(url, 1, content)
    ours, theirs, peaks = [], [], []
    for _ in range(ROUNDS):
        began = time.monotonic()
        with subprocess.Popen(curl, stdout=subprocess.PIPE) as source:
            subprocess.run(["sha256sum"], stdin=source.stdout, stdout=subprocess.DEVNULL, check=True)
        theirs.append(time.monotonic() - began)
        took, peak = fetch(url, SIZE_MIB, content)
        ours.append(took)
        peaks.append(peak)
    rates = [SIZE_MIB / statistics.median(times) for times in (ours, theirs)]
    say(f"{SIZE_MIB} MiB fetched (bare: curl | sha256sum)", *rates, "MiB/s", ">= 0.8 x")
    say("most memory of it (bare: that of 1 MiB)", max(peaks), floor, "MiB", "<= 1.2 x")


def fetch(url: str, mib: int, content: Path) -> tuple[float, float]:
    """Fetch so much in a process of its own; return the seconds that took, and its most memory in MiB."""
    with content.open("rb") as file:
        digest = hashlib.sha256()
        for _ in range(mib):
            digest.update(file.read(MIB))
    target = content.with_name("target")
    argv = [sys.executable, "-I", "-c", FETCH, f"{url}/{mib}", str(target), digest.hexdigest()]
    began = time.monotonic()
    ended = subprocess.run(argv, capture_output=True, text=True, check=True)
    took = time.monotonic() - began
    target.unlink()
    return took, int(ended.stdout) / 1024
