"""Options that several commands share, and the configuration that they lead to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from thingjobs import config as configuration
from thingjobs.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from thingjobs.config import Config


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add --config and --local."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="the configuration; without it /etc/thingjobs/config.toml, then /etc/thingjobs/conf.d/*.toml",
    )
    parser.add_argument(
        "--local",
        metavar="FOLDER",
        type=Path,
        help="no cloud: each *.json in FOLDER is a job; state and outcomes are kept in FOLDER/.thingjobs",
    )


def load(chosen: argparse.Namespace) -> Config:
    """Return the configuration that the options ask for.

    Raises:
        ConfigError: it cannot be used; all problems at once.
    """
    if chosen.local is not None:
        if not chosen.local.is_dir():
            raise ConfigError([f"--local {chosen.local}: there is no such folder"])
        return configuration.local(chosen.local.resolve(), [chosen.config] if chosen.config else [], environment=os.environ)
    return configuration.load([chosen.config] if chosen.config else None, environment=os.environ)


def load_or_local(chosen: argparse.Namespace) -> Config:
    """Return the configuration for a command that needs no connection: the present folder will do where none is.

    Raises:
        ConfigError: a configuration is there and cannot be used.
    """
    if chosen.config is None and chosen.local is None and not configuration.default_paths():
        chosen.local = Path.cwd()
    return load(chosen)
