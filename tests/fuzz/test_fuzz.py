"""Every parser of something that others wrote keeps what it promises, whatever it is given."""

from __future__ import annotations

import os
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from tests.fuzz import device, machine, network, service, signed, transfer
from tests.fuzz.harness import RAW

if TYPE_CHECKING:
    from tests.fuzz.harness import Harness

MODULES = (service, device, network, transfer, machine, signed)
HARNESSES = {one.name: one for module in MODULES for one in module.HARNESSES}
EXAMPLES = int(os.environ.get("THINGJOBS_FUZZ_EXAMPLES", "60"))
LONG = EXAMPLES > 1000
#: In a long run as much as a message of AWS IoT may have.
BOMB_BYTES = 128 * 1024 if LONG else 8 * 1024
DEAR_SECONDS = 0.02
CPU_SECONDS = 2.0
MEMORY_BYTES = 64 << 20
#: Small pieces that are dear to parsers when they come in great numbers.
FUSES = {
    "brackets": b"[",
    "objects": b'{"a":',
    "closed": b"[],",
    "digits": b"9",
    "quotes": b'"',
    "backslashes": b"\\",
    "escapes": b'"\\ud800",',
    "documents": b'"jobDocument":{',
    "colons": b'"jobDocument"  ',
    "pairs": b'"a":1,',
    "tags": b"<a>",
    "attributes": b"<a b='c' ",
    "entities": b"&a;",
    "certificates": b"-----BEGIN CERTIFICATE-----",
    "lines": b"\n",
    "ends": b"\r\n\r\n",
    "headers": b"a:b\r\n",
    "spaces": b" ",
    "zeros": b"\0",
    "frames": b"\x89\x01x",
    "empty frames": b"\x02\x00",
    "sequences": b"\x30\x80",
    "empty elements": b"\x30\x00",
    "dots": b"a.",
    "tables": b"[a]\n",
    "urls": b"http://",
    "ats": b"@",
    "wide": "é".encode(),
}


@pytest.mark.parametrize("harness", HARNESSES.values(), ids=str)
def test_a_parser_takes_its_good_inputs(harness: Harness) -> None:
    for seed in harness.seeds:
        harness.check(seed)


@pytest.mark.parametrize("harness", HARNESSES.values(), ids=str)
def test_a_parser_raises_nothing_else_than_it_promises(harness: Harness) -> None:
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(harness.inputs)
    def fuzz(data: bytes) -> None:
        harness.check(data)

    fuzz()


@pytest.mark.parametrize("harness", HARNESSES.values(), ids=str)
def test_a_bomb_costs_a_parser_neither_time_nor_memory(harness: Harness) -> None:
    dear = {}
    for name, piece in FUSES.items():
        whole = (piece * (BOMB_BYTES // len(piece) + 1))[:BOMB_BYTES]
        for bomb in (whole, harness.seeds[0][:-1] + whole):
            seconds, size = _cost(harness, bomb)
            if seconds > CPU_SECONDS or size > MEMORY_BYTES:
                dear[name] = (seconds, size)
    assert not dear


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
@pytest.mark.parametrize("harness", HARNESSES.values(), ids=str)
def test_what_json_allows_and_python_does_not_is_no_way_out(harness: Harness, raw: str) -> None:
    for text in (raw, f'{{"a": {raw}}}', f'{{"execution": {{"jobDocument": {raw}}}, "jobs": {raw}}}'):
        harness.check(text.encode())


def _cost(harness: Harness, data: bytes) -> tuple[float, int]:
    """Return the processor's seconds that an input takes, and how many bytes at most."""
    start = time.thread_time()
    harness.check(data)
    seconds = time.thread_time() - start
    if seconds > DEAR_SECONDS and not LONG:  # To watch over memory takes ten times that.
        return seconds, 0
    tracemalloc.start()
    try:
        harness.check(data)
        return seconds, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
