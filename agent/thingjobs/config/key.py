"""One setting: its name, what it may hold, what it does; and the sections that settings stand in."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING

from thingjobs.config.kinds import text
from thingjobs.config.settings import (
    Authorizer,
    Cloud,
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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingjobs.config.kinds import Kind

#: The sections in the order of the file. [facts] is one free table and has no class of its own. One with a dot in its
#: name lies in another section, and means nothing where nobody writes it.
SECTIONS: Mapping[str, type] = MappingProxyType(
    {
        "thing": Thing,
        "connection": Connection,
        "connection.authorizer": Authorizer,
        "connection.pkcs11": Pkcs11,
        "jobs": Jobs,
        "handlers": Handlers,
        "gates": Gates,
        "cloud": Cloud,
        "signed": Signed,
        "system": System,
        "state": State,
        "report": Report,
    }
)

_PORT = r"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
HOST = rf"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::{_PORT})?"
#: Of custom authorizers and role aliases: CreateAuthorizer, CreateRoleAlias.
AWS_NAME = r"[A-Za-z0-9_=,@-]{0,128}"
ENDPOINT = "a host name without https://, with :port behind it if it needs one"

REGION = text("an AWS region, or empty", r"(?:[a-z]+(?:-[a-z]+)+-[0-9]+)?")
ACCOUNT = text("the 12 digits of an AWS account, or empty", r"(?:[0-9]{12})?")
URL = text("an address with http:// or https://", rf"https?://{HOST}(?:/[^\x00-\x20\x7f]*)?")


@dataclass(frozen=True, slots=True)
class Key:
    """One setting.

    Attributes:
        name: section and key, with a dot between.
        does: one sentence for whoever sets it.
        example: what messages propose; the default where that is a good proposal.
        secret: its value never stands in a message.
    """

    name: str
    kind: Kind
    does: str
    example: object
    secret: bool = False

    @property
    def default(self) -> object:
        """The default as TOML holds it; None if the key has none."""
        section, _, name = self.name.rpartition(".")
        if not section:
            return {}
        field = next(field for field in fields(SECTIONS[section]) if field.name == name)
        value = field.default if field.default is not MISSING else None
        if field.default_factory is not MISSING:
            value = field.default_factory()
        plain = _plain(value)
        return None if self.kind.wrong(plain) else plain


def _plain(value: object) -> object:
    match value:
        case None:
            return ""
        case PurePath():
            return str(value)
        case tuple():
            return [_plain(entry) for entry in value]
        case MappingProxyType():
            return dict(value)
        case _:
            return value
