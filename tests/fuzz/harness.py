"""What a harness is, and how inputs are made that come close to what a parser takes."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hypothesis.strategies import DrawFn, SearchStrategy


@dataclass(frozen=True)
class Harness:
    """One parser.

    Attributes:
        name: for people and for `make fuzz`.
        check: gives it an input, and raises for whatever the parser does not promise.
        seeds: good inputs, to start from.
        inputs: inputs that come close to good ones.
    """

    name: str
    check: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    inputs: SearchStrategy[bytes]

    def __str__(self) -> str:
        return self.name


def of_bytes(name: str, check: Callable[[bytes], None], *seeds: bytes) -> Harness:
    """Return a harness whose inputs are damaged seeds."""
    return Harness(name, check, seeds, damaged(st.sampled_from(seeds)))


def of_json(name: str, check: Callable[[bytes], None], *seeds: object) -> Harness:
    """Return a harness whose inputs are seeds in which some parts are others, and sometimes damaged bytes."""
    near = changed(seeds).map(written)
    return Harness(name, check, tuple(map(written, seeds)), st.one_of(near, near, near, damaged(near)))


def of_lines(name: str, check: Callable[[bytes], None], *seeds: tuple[str, object]) -> Harness:
    """Return a harness whose inputs are a line and a JSON value, each of which may be another, or damaged."""

    def joined(line: bytes, body: bytes) -> bytes:
        return line + b"\n" + body

    lines = st.sampled_from([line.encode() for line, _ in seeds])
    near = st.sampled_from(seeds).flatmap(
        lambda seed: st.builds(joined, st.just(seed[0].encode()), changed((seed[1],)).map(written))
    )
    other = st.builds(joined, damaged(lines), changed([body for _, body in seeds]).map(written))
    whole = tuple(joined(line.encode(), written(body)) for line, body in seeds)
    return Harness(name, check, whole, st.one_of(near, near, other, damaged(near)))


# --- bytes --------------------------------------------------------------------------------------------------------

#: What means something to one parser or another.
PIECES = [
    *(
        b"\0",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b'"',
        b"\\",
        b"\\ud800",
        b"{",
        b"}",
        b"[",
        b"]",
    ),
    *(b"<", b">", b"</", b"&lt;", b"&#0;", b"<![CDATA[", b"<!DOCTYPE a>", b":", b",", b"=", b"'''", b"-", b"9" * 30),
    *(b"1e999", b"NaN", b"-0", b"0x", b"null", b"true", b"inf", b"2025-01-01T00:00:00Z", b"../", b"$", b"%00", b"@"),
    *(b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----", b"\x7f", b"\x80", b"\x81", b"\x89\0", b"\x88\2"),
]


@st.composite
def damaged(draw: DrawFn, whole: SearchStrategy[bytes]) -> bytes:
    """Draw bytes of which a few were cut out, doubled, or replaced."""
    data = draw(whole)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 0, 1, 2, 4, 20])))
        new = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=3), st.just(data[start:end] * 2)))
        data = data[:start] + new + data[end:]
    return data


# --- JSON ---------------------------------------------------------------------------------------------------------

#: Numbers that a JSON text can hold and Python cannot write: stand-ins, and what `written` makes of them.
RAW = {"«inf»": "1e999", "«long»": "9" * 5000, "«nan»": "NaN", "«deep»": "[" * 3000 + "]" * 3000, "«float»": "1e15"}
JUNK: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, 1e-320, [], {}, [[]], [{}]),
    *(
        "",
        " ",
        "a",
        "0",
        "-1",
        "9" * 20,
        "9" * 5000,
        "x" * 2000,
        "a" * 254,
        "é" * 200,
        "../a",
        "/etc/passwd",
        ".",
        "..",
        "a\0b",
        "\ud800",
    ),
    *("\udcff", "\u202e", "\u2028", "ÿ", "é", "²", "$ref", "#", "${aws:iot:parameter:x}", "true", "2025-01-01", *RAW),
    *("http://user:secret@host/path?query", "a\nb", "-rf", "%s", "{0}", "arn:aws:s3:::b", [None], ["a", 1], {"": ""}),
]
#: What means something inside a text.
SIGNS = [
    "\0",
    "\n",
    "\x1b",
    "\x7f",
    "\ud800",
    "\udcff",
    "\u2028",
    "\u202e",
    "²",
    "/",
    "../",
    "-",
    " ",
    ",",
    "\\",
    "*",
    "%",
    ":",
]


def values() -> SearchStrategy[Any]:
    """Return JSON values of all kinds, none of them large: those grow by being changed more than once."""
    return st.one_of(st.sampled_from(JUNK).map(copy.deepcopy), st.integers(), st.floats(), st.text(max_size=8))


@st.composite
def changed(draw: DrawFn, seeds: Iterable[object]) -> Any:
    """Draw a seed in which up to four parts were replaced, left out, named otherwise or added."""
    value: Any = {"": copy.deepcopy(draw(st.sampled_from(list(seeds))))}
    for _ in range(draw(st.integers(0, 4))):
        places = list(_places(value))
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        if isinstance(holder[key], str) and draw(st.booleans()):
            at = draw(st.integers(0, len(holder[key])))
            holder[key] = holder[key][:at] + draw(st.sampled_from(SIGNS)) + holder[key][at:]
            continue
        match draw(st.integers(0, 5)):
            case 0 if isinstance(holder, dict) and holder is not value:
                holder[draw(st.text(max_size=6))] = holder.pop(key)
            case 1 if holder is not value:
                del holder[key]
            case 2 if isinstance(holder[key], dict):
                holder[key][draw(st.text(max_size=6))] = draw(values())
            case 3 if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            case _:
                holder[key] = draw(values())
    return value[""]


def _places(value: Any) -> Iterable[tuple[Any, Any]]:
    """Yield all parts of a JSON value, each as what it is in and its key there."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


def written(value: object) -> bytes:
    """Return a value as JSON, the stand-ins replaced."""
    text = json.dumps(value, ensure_ascii=False)
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode("utf-8", "surrogatepass")


# --- what every parser has to do ----------------------------------------------------------------------------------

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def sentence(text: str, *, most: int = 4000) -> None:
    """Hold that a message for people is one line, of bearable length, that any terminal and file can take."""
    assert text, "a message is empty"
    assert len(text) <= most, f"a message has {len(text)} characters"
    assert not _CONTROL.search(text), f"a message has control characters: {text!r}"
    text.encode()


def hold(fact: object, broken: object) -> None:
    """Hold that something is so."""
    assert fact, broken


def depth_of(value: object) -> int:
    """Return how deep a JSON value nests: 0 of a plain one."""
    depth, level = 0, [value]
    while inner := [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]:
        depth, level = depth + 1, [part for parts in inner for part in parts]
    return depth
