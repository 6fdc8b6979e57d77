"""What the runner is told once, when the agent starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from thingjobs.model import Json

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
#: What a handler inherits from the agent's own environment, if it is set there; nothing else, and nothing of the job.
INHERITED = ("PATH", "LANG", *_PROXIES, *(name.lower() for name in _PROXIES), *_TRUST)


@dataclass(frozen=True, slots=True)
class Settings:
    """What does not change while the agent runs.

    Attributes:
        state: the state folder.
        environment: what every handler gets, from [handlers.environment] and the agent's own environment.
        max_kib_s: what downloads may take of the network, KiB a second; 0: as much as there is.
        digest_optional: patterns of handlers that may download without a digest.
        told: what every handler is told of the agent as `settings` in job.json; nothing secret.
        cloud: what a handler that needs the cloud is told of it in job.json, credentials left out.
        cloud_handlers: patterns of the handlers that may have it.
        grace: seconds between SIGTERM and SIGKILL.
        runtime: a folder in memory that the service manager made for the agent, None without.
        cgroup: the part of the cgroup v2 tree that is the agent's; None: it finds out by itself.
    """

    state: Path
    thing: str
    boot: str
    environment: Mapping[str, str] = field(default_factory=dict)
    max_kib_s: int = 0
    digest_optional: tuple[str, ...] = ()
    told: Json = field(default_factory=dict)
    cloud: Json = field(default_factory=dict, repr=False)
    cloud_handlers: tuple[str, ...] = ()
    grace: float = 30.0
    runtime: Path | None = None
    cgroup: Path | None = None
