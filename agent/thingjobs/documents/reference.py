"""The scripts of the AWS IoT Device Client that the managed templates name, as built-ins of ours.

Their arguments are untrusted: whatever could be an option, a path, a pattern or a URL to a package manager or
a service manager is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from types import MappingProxyType
from urllib.parse import urlsplit

from thingjobs.documents.shape import invalid, shown
from thingjobs.errors import DocumentError
from thingjobs.model import Code

REBOOT = "reboot.sh"

#: Debian (foo=1:2.0~rc1, foo:armhf), RPM (foo-1.0-2.x86_64), Alpine (foo=1.0-r1, foo@edge). No `/`: apt-get
#: may take that for a file, dnf for a URL. No `-` at the end: `apt-get install foo-` removes foo.
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._:=~@-]{0,254}(?<!-)")
#: systemd (getty@tty1.service, dev\x2dsda) and init scripts. No patterns: `systemctl stop *` stops all.
_SERVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@\\-]{0,254}")

_Clean = Callable[[str, Sequence[str]], list[str]]


def _packages(place: str, args: Sequence[str]) -> list[str]:
    return _names(place, args, _PACKAGE, "package")


def _services(place: str, args: Sequence[str]) -> list[str]:
    return _names(place, args, _SERVICE, "service")


def _names(place: str, args: Sequence[str], allowed: re.Pattern[str], what: str) -> list[str]:
    """Split each argument: a managed template sends one string with spaces, people write a list."""
    names = [name for arg in args for name in arg.split()]
    if not names:
        raise invalid(f"{place} must name at least one {what}")
    for name in names:
        if not allowed.fullmatch(name):
            raise DocumentError(Code.NAME_FORBIDDEN, f"{place} has {shown(name)}, which no {what} is called")
    return names


def _download(place: str, args: Sequence[str]) -> list[str]:
    if len(args) != 2:
        raise invalid(f"{place} must be two strings, the URL and the path to save it as, not {len(args)}")
    url, path = args[0].strip(), args[1]
    if not _is_web(url):
        raise invalid(f"{place}[0] must be an http:// or https:// URL")
    if not path.startswith("/") or ".." in path.split("/"):
        raise invalid(f"{place}[1] must be an absolute path without .., not {shown(path)}")
    return [url, path]


def _is_web(url: str) -> bool:
    if not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


#: File name of the reference script -> kind of step, and what makes its arguments safe.
BUILT_INS: MappingProxyType[str, tuple[str, _Clean]] = MappingProxyType(
    {
        "download-file.sh": ("download-file", _download),
        "install-packages.sh": ("install-packages", _packages),
        "remove-packages.sh": ("remove-packages", _packages),
        "start-services.sh": ("start-services", _services),
        "stop-services.sh": ("stop-services", _services),
        "restart-services.sh": ("restart-services", _services),
    }
)
