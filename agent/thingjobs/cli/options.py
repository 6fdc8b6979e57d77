"""Options that several commands share, and the configuration that they lead to."""

from __future__ import annotations

import os
from argparse import ArgumentTypeError
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thingjobs import config as configuration
from thingjobs import guard
from thingjobs.cloud_desk import told as cloud_told
from thingjobs.errors import ConfigError
from thingjobs.judging import handler_environment
from thingjobs.runner import Settings

if TYPE_CHECKING:
    import argparse

    from thingjobs.config import Config
    from thingjobs.model import Json


def new_parser(commands: Any, name: str, summary: str, text: str | None) -> argparse.ArgumentParser:
    """Add the command `name` to `commands`; the first paragraph of `text` introduces its help, the rest ends it."""
    introduction, _, rest = (text or "").partition("\n\n")
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=introduction, epilog=rest, allow_abbrev=False
    )
    parser.set_defaults(parser=parser)
    return parser


def _named(text: str) -> Path:
    if not text:  # "$UNSET": Path("") would be the current folder.
        raise ArgumentTypeError("it is empty: name one")
    return Path(text)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add --config and --local."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=_named,
        help="the configuration; otherwise /etc/thingjobs/config.toml, then /etc/thingjobs/conf.d/*.toml",
    )
    parser.add_argument(
        "--local",
        metavar="FOLDER",
        type=_named,
        help="no cloud: each *.json in FOLDER is a job; state and outcomes are kept in FOLDER/.thingjobs",
    )


def load(chosen: argparse.Namespace) -> Config:
    """Return the configuration that the options ask for.

    Raises:
        ConfigError: it cannot be used; all problems at once.
    """
    local = getattr(chosen, "local", None)
    if local is not None:
        try:
            next(local.iterdir(), None)
        except OSError as error:
            problem = f"--local {local}: {error.strerror}; name a folder that holds job documents (*.json)"
            raise ConfigError([problem]) from None
        config = configuration.local(local.resolve(), [chosen.config] if chosen.config else [], environment=os.environ)
        # Whatever the configuration says: the state of a device's own agent is not to be tried things on.
        return replace(config, state=replace(config.state, directory=local.resolve() / ".thingjobs"))
    if chosen.config is None and not configuration.default_paths():
        ways = "write it, or name another one with --config"
        if hasattr(chosen, "local"):
            ways = "write it, name another one with --config, or do without a cloud with --local FOLDER"
        raise ConfigError([f"there is no /etc/thingjobs/config.toml; {ways}"])
    config = configuration.load([chosen.config] if chosen.config else None, environment=os.environ)
    return replace(config, file=chosen.config.resolve()) if chosen.config else config


def sources(chosen: argparse.Namespace) -> list[Path]:
    """Return the files and folders that the configuration of a connected agent is read from."""
    return [chosen.config] if chosen.config else list(configuration.default_paths())


def load_or_local(chosen: argparse.Namespace) -> Config:
    """Return the configuration for a command that needs no connection: what only that lacks is good enough.

    Raises:
        ConfigError: a configuration is there and cannot be used.
    """
    base = (chosen.config,) if chosen.config else configuration.default_paths()
    if getattr(chosen, "local", None) is not None:
        return load(chosen)
    try:
        return configuration.load(base, environment=os.environ)
    except ConfigError as error:
        try:
            return configuration.local(Path.cwd(), base, environment=os.environ)
        except ConfigError as still:
            raise (error if base else still) from None


def runner_settings(config: Config, state: Path, boot_id: str) -> Settings:
    """Return what the runner needs to know; handlers of a dry run are told the same as those of the agent.

    Args:
        config: the configuration.
        state: the folder for the jobs' own folders.
        boot_id: the id of this boot.
    """
    return Settings(
        state=state,
        thing=config.thing.name,
        boot=boot_id,
        environment=handler_environment(config),
        max_kib_s=config.jobs.max_download_kib_s,
        digest_optional=config.handlers.download_without_digest,
        told=_told(config),
        cloud=cloud_told(config),
        cloud_handlers=config.cloud.handlers,
        runtime=_runtime_folder(),
    )


def _told(config: Config) -> Json:
    """Return what handlers are told of the agent, as `settings` in job.json: where things are, and what is allowed."""
    return {
        "handlers": str(config.handlers.directory[0]) if config.handlers.directory else "",
        "state": str(config.state.directory),
        "collect": list(config.handlers.collect),
        **({"config": str(config.file)} if config.file else {}),
        **({"guard": guarded.told()} if (guarded := guard.found(os.environ)) else {}),
    }


def _runtime_folder() -> Path | None:
    """Return the folder in memory that the service manager made for the agent (systemd: RuntimeDirectory=)."""
    first = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(first) if first else None
