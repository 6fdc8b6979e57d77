"""One configuration file against the table of keys: what is right is kept, what is wrong becomes a sentence.

Pure: the file is read by `load`; what only all files together can tell is decided by `settle`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from thingjobs.config.keys import KEYS, SECTIONS
from thingjobs.config.kinds import shown, shown_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from thingjobs.config.keys import Key
    from thingjobs.config.kinds import Kind


@dataclass(frozen=True, slots=True)
class Source:
    """One configuration file.

    Attributes:
        path: absolute.
        table: what it holds, as TOML gives it.
        broken: why it could not be read, a sentence; then `table` is empty.
    """

    path: Path
    table: Mapping[str, Any]
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Given:
    """A setting that somebody wrote, judged right and converted.

    Attributes:
        raw: as it was written.
        path: the file it came from.
        rank: the file's place in the order; a higher one overrides.
    """

    value: Any
    raw: object
    path: Path
    rank: int


@dataclass(slots=True)
class Draft:
    """What the files said so far.

    Attributes:
        values: the plain settings by key; the latest file's.
        tables: the entries of the free tables by key.
        sections: the sections that somebody wrote, and where; the latest file's.
        refused: the keys that some file gives wrongly, or probably means by a name that there is not: they are not
            missing.
        broken: a file could not be read at all, so nothing can be called missing.
        problems: one sentence each, in file order.
    """

    values: dict[str, Given] = field(default_factory=dict)
    tables: dict[str, dict[str, str]] = field(default_factory=dict)
    sections: dict[str, Path] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    broken: bool = False
    problems: list[str] = field(default_factory=list)

    def refuse(self, name: str, value: object, where: object, wrong: str) -> None:
        """Note a problem with one setting, with its value unless that is secret."""
        key = KEYS.get(name)
        said = name if key and key.secret else f"{name} = {shown(value)}"
        self.refused.add(name)
        self.problems.append(f"{said} (in {where}): {wrong}")

    def refuse_all(self, section: str) -> None:
        """Note that what stands in a section is lost, and so not missing."""
        self.refused.update(name for name in KEYS if name.startswith(f"{section}."))


def judge(source: Source, rank: int, draft: Draft) -> None:
    """Add one file's settings and problems to the draft."""
    if source.broken:
        draft.broken = True
        draft.problems.append(source.broken)
    for section, content in source.table.items():
        if section in KEYS:
            _judge_value(KEYS[section], content, source, rank, draft)
        elif section in SECTIONS and "." not in section:
            _judge_section(section, content, source, rank, draft)
        else:
            _unknown_section(section, content, source, draft)


def _judge_section(section: str, content: Any, source: Source, rank: int, draft: Draft) -> None:
    if not isinstance(content, dict):
        wrong = f"must be a section: write [{section}], once, and its keys below it"
        draft.refuse(section, content, source.path, wrong)
        draft.refuse_all(section)
        return
    draft.sections[section] = source.path
    for name, value in content.items():
        full = f"{section}.{name}"
        if full in SECTIONS:
            _judge_section(full, value, source, rank, draft)
        elif full in KEYS:
            _judge_value(KEYS[full], value, source, rank, draft)
        else:
            _unknown_key(section, name, source, draft)


def _judge_value(key: Key, value: Any, source: Source, rank: int, draft: Draft) -> None:
    if wrong := key.kind.wrong(value):
        draft.refuse(key.name, value, source.path, f"{wrong}, for example {shown(key.example)}")
    elif key.kind.entries:
        _judge_entries(key, key.kind.entries, value, source, draft)
    else:
        made = key.kind.make(value, source.path.parent)
        draft.values[key.name] = Given(made, value, source.path, rank)


def _judge_entries(
    key: Key, kinds: tuple[Kind, Kind], content: Mapping[str, Any], source: Source, draft: Draft
) -> None:
    names, values = kinds
    entries = draft.tables.setdefault(key.name, {})
    for name, value in content.items():
        entry = f"{key.name}.{shown_name(name)}"
        if wrong := names.wrong(name):
            draft.problems.append(f"{entry} (in {source.path}): the name behind {key.name} {wrong}")
        elif wrong := values.wrong(value):
            said = entry if key.secret else f"{entry} = {shown(value)}"
            draft.problems.append(f"{said} (in {source.path}): {wrong}, for example {_example(key, value)}")
        else:
            entries[name] = value


def _example(key: Key, value: object) -> str:
    """Return what was probably meant where a number stands without quotes."""
    return shown(shown(value)) if isinstance(value, int | float) and not key.secret else '"text"'


def _unknown_section(section: str, content: object, source: Source, draft: Draft) -> None:
    if isinstance(content, dict):
        near = _nearest(section, [*SECTIONS, "facts"])
        known = ", ".join(name for name in [*SECTIONS, "facts"] if "." not in name)
        hint = f"did you mean [{near}]?" if near else f"the sections are {known}"
        draft.problems.append(f"[{shown_name(section)}] (in {source.path}) is not a section; {hint}")
        draft.refuse_all(near)
        return
    near = _elsewhere(section)
    hint = f"did you mean {near}?" if near else "every setting belongs into a section"
    draft.problems.append(f"{shown_name(section)} (in {source.path}) is not a setting; {hint}")
    draft.refused.add(near)


def _unknown_key(section: str, name: str, source: Source, draft: Draft) -> None:
    full = f"{section}.{shown_name(name)}"
    inside = [key.removeprefix(f"{section}.") for key in KEYS if key.startswith(f"{section}.")]
    close = _nearest(name, inside)
    near = _elsewhere(name) or (close and f"{section}.{close}")
    known = ", ".join(dict.fromkeys(key.partition(".")[0] for key in inside))
    hint = f"did you mean {near}?" if near else f"the settings of [{section}] are {known}"
    draft.problems.append(f"{full} (in {source.path}) is not a setting; {hint}")
    draft.refused.add(near)


def _elsewhere(name: str) -> str:
    """Return the key of this very name in another section, or nothing."""
    return next((key for key in KEYS if "." in key and key.rpartition(".")[2] == name), "")


def _nearest(name: str, candidates: list[str]) -> str:
    import difflib  # noqa: PLC0415 - needed only when something is wrong

    # Long names are cut: the comparison takes quadratic time.
    return next(iter(difflib.get_close_matches(name[:100], candidates, n=1, cutoff=0.75)), "")
