"""The configuration as values: one frozen dataclass per section of the file; their defaults are the defaults.

They hold what `load` has judged and completed: paths are absolute, the client id is final. Building one by
hand checks nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thingjobs.config.windows import Window
    from thingjobs.model import ThingName


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Thing:
    """Who this device is.

    Attributes:
        name: the thing's name, already found if the file says only where to find it.
        name_from: where it was found: `certificate-cn`, `hostname` or `file:PATH`; empty: it was written.
    """

    name: ThingName
    name_from: str = ""


@dataclass(frozen=True, slots=True)
class Connection:
    """How the Jobs service is reached.

    Attributes:
        endpoint: the host alone; a port written behind it is in `port`. Empty: no connection (`run --local`).
        port: 8883, or 8443 with https, unless the file says otherwise.
        client_id: final after `load`: `{thing}` is replaced.
        proxy: `http://[user:password@]host:port`, or empty.
        certificate: None together with `private_key`: connect without a client certificate.
        ca: the certificates to trust; None: those of the system.
    """

    endpoint: str
    transport: Literal["paho", "awsiot", "https"] = "paho"
    port: int = 8883
    client_id: str = "{thing}"
    keep_alive_seconds: int = 300
    mqtt_version: Literal[5, "3.1.1"] = 5
    proxy: str = field(default="", repr=False)
    certificate: Path | None = Path("/etc/thingjobs/device.pem")
    private_key: Path | None = Path("/etc/thingjobs/device.key")
    ca: Path | None = Path("/etc/thingjobs/AmazonRootCA1.pem")


@dataclass(frozen=True, slots=True)
class Jobs:
    """Which jobs are ours, and how they are kept alive and reported.

    Attributes:
        only: patterns of job ids; jobs that match none are left alone.
        max_download_kib_s: 0: as fast as it goes.
        max_defer_minutes: how long a job may be put off before it is claimed and FAILED; 0: as long as it takes.
    """

    only: tuple[str, ...] = ("*",)
    step_timeout_minutes: int = 1440
    progress_interval_seconds: int = 300
    poll_interval_seconds: int = 900
    max_download_kib_s: int = 0
    max_defer_minutes: int = 0


@dataclass(frozen=True, slots=True)
class Handlers:
    """Where handlers are and what they may do.

    Attributes:
        directory: folders that hold a folder or a program for each handler.
        scripts: the scripts that AWS steps documents name.
        allow: patterns of handler names that may run at all.
        allow_root: handlers that may run as root.
        run_as: accounts that a document may name.
        user: the account for handlers when the agent is root; None: the agent's own.
        environment: what every handler gets on top of the contract's own variables.
        download_without_digest: patterns of the handlers that may download what no digest vouches for.
        collect: patterns of the files that the handler `collect` may send, besides logs and state.
    """

    directory: tuple[Path, ...] = (Path("/etc/thingjobs/handlers"),)
    scripts: Path = Path("/etc/thingjobs/scripts")
    allow: tuple[str, ...] = ("*",)
    allow_root: tuple[str, ...] = ()
    run_as: tuple[str, ...] = ()
    user: str | None = "thingjobs"
    environment: Mapping[str, str] = field(default_factory=_nothing, repr=False)
    download_without_digest: tuple[str, ...] = ("aws-steps",)
    collect: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Gates:
    """What may keep the agent from changing the device for now.

    Attributes:
        directory: programs that are asked; see `thingjobs.gates`.
        windows: when the device may be changed; none: always.
        time_zone: the IANA name of the zone that they are meant in; empty: the device's own.
        inhibit: the folder of the files that hold the agent back while they are locked or until a time in them.
    """

    directory: Path = Path("/etc/thingjobs/gates")
    windows: tuple[Window, ...] = ()
    time_zone: str = ""
    inhibit: Path = Path("/run/thingjobs/inhibit")


@dataclass(frozen=True, slots=True)
class Cloud:
    """What the cloud bridge may reach; the last three come from the environment alone.

    Attributes:
        region: as written, else AWS_REGION, else AWS_DEFAULT_REGION, else empty.
        s3_control_url: AWS_ENDPOINT_URL_S3_CONTROL, else AWS_ENDPOINT_URL; used as it is. Empty: AWS's own.
        batch_url: AWS_ENDPOINT_URL_BATCH, else AWS_ENDPOINT_URL.
        ca_bundle: AWS_CA_BUNDLE.
    """

    region: str = ""
    account: str = ""
    role_alias: str = ""
    credentials_endpoint: str = ""
    allow_s3_jobs: tuple[str, ...] = ("*",)
    allow_batch_jobs: tuple[str, ...] = ()
    s3_control_url: str = ""
    batch_url: str = ""
    ca_bundle: Path | None = None


@dataclass(frozen=True, slots=True)
class System:
    """What the agent needs of the machine.

    Attributes:
        reboot: the program that reboots, with its arguments; never a shell line.
        boot_id_file: a file whose content is another one after every boot.
    """

    reboot: tuple[str, ...] = ("systemctl", "reboot")
    boot_id_file: Path = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class State:
    """Where the journal lives."""

    directory: Path = Path("/var/lib/thingjobs")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that an operator can set; see examples/config.toml for the meaning of each key.

    Attributes:
        facts: what conditions in job documents are compared with, on top of the agent's own facts.
    """

    thing: Thing
    connection: Connection
    jobs: Jobs = Jobs()
    handlers: Handlers = field(default_factory=Handlers)
    gates: Gates = Gates()
    cloud: Cloud = Cloud()
    system: System = System()
    state: State = State()
    facts: Mapping[str, str] = field(default_factory=_nothing)
