"""The configuration: TOML files in, one frozen `Config` out, or every problem at once.

    settings     the frozen dataclasses, and the defaults
    clashes      settings that contradict each other
    keys         the table of keys: what each may hold (`key`, `kinds`); those of [connection] are in `connecting`
    judge        one file against the table
    settle       all files together: overriding, what is missing, what contradicts
    load         reading files; `load` and `local`
    files        `check_files`: certificates, keys and folders that the configuration names; `check_sources`
    windows      maintenance windows as text
    zones        time zones by name, and the device's own
    names        the thing's name from the host, a file or the certificate
    schema       the JSON Schema, generated from the table: `python -m thingjobs.config.schema`

Nothing outside this package reads configuration or the process environment, which is always an argument.
"""

from thingjobs.config.files import check_files, check_sources
from thingjobs.config.load import default_paths, load, local
from thingjobs.config.settings import (
    Authorizer,
    Cloud,
    Config,
    Connection,
    Gates,
    Handlers,
    Jobs,
    Pkcs11,
    Report,
    Signed,
    State,
    System,
    Thing,
)

__all__ = [
    "Authorizer",
    "Cloud",
    "Config",
    "Connection",
    "Gates",
    "Handlers",
    "Jobs",
    "Pkcs11",
    "Report",
    "Signed",
    "State",
    "System",
    "Thing",
    "check_files",
    "check_sources",
    "default_paths",
    "load",
    "local",
]
