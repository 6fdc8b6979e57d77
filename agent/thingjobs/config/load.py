"""Reading configuration files. What they mean is decided by `judge` and `settle`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs.config.judge import Source
from thingjobs.config.names import local_name
from thingjobs.config.settle import Host, settle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from thingjobs.config.settings import Config

#: Where a package installs the configuration.
FOLDER = Path("/etc/thingjobs")

_LEAVE = "let the account that runs the agent read it"


def load(paths: Sequence[Path] | None = None, *, environment: Mapping[str, str]) -> Config:
    """Read the configuration.

    Args:
        paths: files, or folders whose `*.toml` are read in the order of their names; later files
            override earlier ones key by key. None: those of the system, see `default_paths`,
            and where there is none that is the problem.
        environment: of the process; the SDK-standard AWS variables are taken from it.

    Raises:
        ConfigError: with every problem in every file at once.
    """
    if paths is None:
        paths = default_paths() or (FOLDER / "config.toml",)
    return settle(list(_sources(paths)), Host(os.uname().nodename, environment))


def local(folder: Path, base: Sequence[Path] = (), *, environment: Mapping[str, str] | None = None) -> Config:
    """Make the configuration of `thingjobs run --local FOLDER`: no connection, the state inside the folder.

    Args:
        folder: holds the job documents.
        base: configuration files to start from; what they set counts.
        environment: of the process; None stands for an empty one.

    Raises:
        ConfigError: with every problem in every file at once.
    """
    hostname = os.uname().nodename
    defaults: dict[str, object] = {
        "thing.name": local_name(hostname),
        "state.directory": folder.absolute() / ".thingjobs",
        "handlers.user": None,
        # Nobody who tries a job on a laptop wants the laptop rebooted.
        "system.reboot": (),
    }
    return settle(list(_sources(base)), Host(hostname, environment or {}, defaults, connected=False))


def default_paths(folder: Path = FOLDER) -> tuple[Path, ...]:
    """Return the configuration of the system: `config.toml`, then `conf.d`; nothing if neither is there."""
    main, drop_ins = folder / "config.toml", folder / "conf.d"
    if _is_there(drop_ins):
        return (main, drop_ins)
    return (main,) if _is_there(main) else ()


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # something is, and why it cannot be read will be said
    return True


def _sources(paths: Sequence[Path]) -> Iterator[Source]:
    for path in paths:
        at = path.absolute()
        try:
            found = _files(at)
        except OSError as error:
            yield Source(at, {}, f"{at}: cannot be read ({error.strerror}); {_LEAVE}")
        else:
            yield from map(_source, found)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    # Editors leave hidden files beside the one being edited.
    return sorted(entry for entry in path.iterdir() if entry.suffix == ".toml" and not entry.name.startswith("."))


def _source(path: Path) -> Source:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Source(path, {}, f"{path}: there is no such file; write it, or name another one with --config")
    except OSError as error:
        return Source(path, {}, f"{path}: cannot be read ({error.strerror}); {_LEAVE}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Source(path, {}, f"{path}, line {line}: is not UTF-8; save the file as UTF-8")
    return _parsed(path, text)


def _parsed(path: Path, text: str) -> Source:
    import tomllib  # noqa: PLC0415 - not wanted in an agent that is idle for years

    try:
        return Source(path, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        return Source(path, {}, _syntax(path, str(error)))
    except RecursionError:
        return Source(path, {}, f"{path}: is not TOML that can be read: it is nested too deeply")
    except ValueError as error:  # a number with thousands of digits
        return Source(path, {}, f"{path}: is not TOML that can be read: {error}")


def _syntax(path: Path, message: str) -> str:
    what, _, where = message.rpartition(" (at ")
    place = where.rstrip(")").replace("end of document", "at its end")
    return f"{path}, {place}: is not TOML: {what[:1].lower()}{what[1:]}; put that place right"
