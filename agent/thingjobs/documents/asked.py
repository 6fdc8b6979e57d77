"""What goes into routing and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingjobs.model import Json

#: The built-in handler that carries out documents with steps.
AWS_STEPS = "aws-steps"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a document asks for.

    Attributes:
        handler: the name of the handler to call; not known to exist.
        params: what to give it, not yet judged by its schema.
        version: which versions of the handler will do; "": any.
        check_only: only find out what would happen.
    """

    handler: str
    params: Json
    version: str = ""
    check_only: bool = False


class Device(Protocol):
    """What routing needs to know of this device."""

    @property
    def thing(self) -> str:
        """The thing's name."""

    @property
    def facts(self) -> Mapping[str, str]:
        """What conditions are judged by: [facts] of the config, operatingSystem, architecture, thingName."""

    @property
    def scripts_shown(self) -> str:
        """The scripts folder, as the operator wrote it."""

    def has_handler(self, name: str) -> bool:
        """Tell whether there is a handler of this name."""

    def script(self, name: str) -> str | None:
        """Return the absolute path of the executable script of this file name in the scripts folder."""

    def check_user(self, user: str) -> None:
        """Refuse an account that a document may not name.

        Raises:
            DocumentError: user.unknown or user.forbidden.
        """
