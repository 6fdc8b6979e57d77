"""The XML that S3 Control speaks, read without what makes XML dangerous. Pure.

No document type is taken: without one there are no entities to expand, and none to fetch. Namespaces are dropped,
S3 Control puts one on some answers and not on others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.parsers import expat

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEPEST = 50


class MarkupError(Exception):
    """It is no XML, or none that is taken; the message says why."""


@dataclass(slots=True)
class Node:
    """An element.

    Attributes:
        name: without its namespace.
        text: what it holds itself.
        children: in their order.
    """

    name: str
    text: str = ""
    children: list[Node] = field(default_factory=list)

    def at(self, *path: str) -> Node | None:
        """Return the first element down this path of names."""
        found: Node | None = self
        for name in path:
            found = next((child for child in found.children if child.name == name), None) if found else None
        return found

    def said(self, *path: str) -> str:
        """Return the text of the first element down this path, "" if there is none."""
        found = self.at(*path)
        return found.text if found else ""

    def every(self, *path: str) -> Iterator[Node]:
        """Give all the children of the first element down this path, whatever their names."""
        found = self.at(*path)
        yield from found.children if found else ()


class _Builder:
    """Takes what the parser finds."""

    def __init__(self) -> None:
        self.root = Node("")
        self._open = [self.root]
        self._texts: list[list[str]] = [[]]

    def start(self, name: str, _attributes: object) -> None:
        """Open an element."""
        if len(self._open) > _DEEPEST:
            raise MarkupError(f"it is nested deeper than {_DEEPEST} levels")
        node = Node(name.rpartition(" ")[2])
        self._open[-1].children.append(node)
        self._open.append(node)
        self._texts.append([])

    def end(self, _name: str) -> None:
        """Close it."""
        self._open.pop().text = "".join(self._texts.pop())

    def said(self, text: str) -> None:
        """Add to the text of the element that is open."""
        self._texts[-1].append(text)

    def refuse(self, *_: object) -> None:
        """Refuse a document type."""
        raise MarkupError("it declares a document type, which may hide entities without end; no AWS service does")


def parse(data: bytes) -> Node:
    """Return the root element.

    Raises:
        MarkupError: it is no XML, breaks off, or declares a document type.
    """
    builder = _Builder()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.said
    parser.StartDoctypeDeclHandler = builder.refuse
    try:
        parser.Parse(data, True)  # noqa: FBT003 - all of it at once
    except expat.ExpatError as error:
        raise MarkupError(f"it is no XML: {expat.ErrorString(error.code)} in line {error.lineno}") from None
    except (ValueError, LookupError):
        raise MarkupError("it is no XML: its encoding is not known") from None
    return builder.root.children[0]
