"""The configuration as values: one frozen dataclass per section of the file; their defaults are the defaults.

They hold what `load` has judged and completed: paths are absolute, the client id is final. What contradicts itself
cannot be built (see `clashes`); whether each value is right by itself is for `keys`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from thingjobs.config.clashes import ClashError, clashes, clashes_between

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
class Authorizer:
    """A custom authorizer, and what is shown to it in place of a certificate.

    Source: AWS IoT Core, "Connecting to AWS IoT Core by using custom authentication".

    Attributes:
        name: of the authorizer; empty: the endpoint's default one.
        username: what comes before the parameters in the user name of CONNECT.
        password_file: holds the password of CONNECT.
        token_key: the name of the token's parameter, where the authorizer wants signed tokens.
        token_file: holds the token.
        signature_file: holds its signature in base64.
    """

    name: str = ""
    username: str = ""
    password_file: Path | None = None
    token_key: str = ""
    token_file: Path | None = None
    signature_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Pkcs11:
    """A private key that cannot leave its token (a TPM, a secure element); its certificate is a file all the same.

    Attributes:
        module: the library that speaks PKCS#11 for the token.
        pin_file: holds the user's PIN; None: the token asks for none.
        token: the label of the token; empty: there is only one.
        key: the label of the key; empty: there is only one.
    """

    module: Path
    pin_file: Path | None = None
    token: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Connection:
    """How the Jobs service is reached.

    Attributes:
        endpoint: the host alone; a port written behind it is in `port`. Empty: no connection (`run --local`).
        port: final after `load`: what the file says, else what is usual for transport, WebSocket and identity.
        client_id: final after `load`: `{thing}` is replaced.
        websocket: MQTT over WebSocket; signed if there is a region and no authorizer.
        proxy: `http://[user:password@]host:port`, the same with `socks5://`, or empty.
        certificate: None together with `private_key`: connect without a client certificate.
        private_key_password_file: holds the password of the private key; None: it has none.
        ca: the certificates to trust; None: those of the system.
        region: what to sign for, final after `load`: as written, else as the endpoint says; empty where nothing is.
        authorizer: None: no custom authorizer.
        pkcs11: None: the private key is a file.

    Raises:
        ClashError: the settings contradict each other.
    """

    endpoint: str
    transport: Literal["paho", "awsiot", "https"] = "paho"
    port: int = 8883
    client_id: str = "{thing}"
    keep_alive_seconds: int = 300
    mqtt_version: Literal[5, "3.1.1"] = 5
    websocket: bool = False
    proxy: str = field(default="", repr=False)
    certificate: Path | None = Path("/etc/thingjobs/device.pem")
    private_key: Path | None = Path("/etc/thingjobs/device.key")
    private_key_password_file: Path | None = None
    ca: Path | None = Path("/etc/thingjobs/AmazonRootCA1.pem")
    tls_min: Literal["1.2", "1.3"] = "1.2"
    region: str = ""
    authorizer: Authorizer | None = None
    pkcs11: Pkcs11 | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if found := clashes(self):
            raise ClashError(found)

    @property
    def signs(self) -> bool:
        """Whether AWS credentials say who we are, by Signature Version 4: no certificate is shown then."""
        if self.transport == "https":
            return self.certificate is None
        return self.websocket and self.authorizer is None and (self.transport == "awsiot" or bool(self.region))

    @property
    def shows_certificate(self) -> bool:
        """Whether the certificate says who we are; else it may still be for the role alias."""
        return self.certificate is not None and self.authorizer is None and not self.signs


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
    """What the cloud bridge may reach; the last five come from the environment alone.

    Attributes:
        region: as written, else AWS_REGION, else AWS_DEFAULT_REGION, else empty.
        handlers: patterns of the handlers that may have AWS credentials; by default those that come with the agent.
        s3_control_url: AWS_ENDPOINT_URL_S3_CONTROL, else AWS_ENDPOINT_URL; used as it is. Empty: AWS's own.
        batch_url: AWS_ENDPOINT_URL_BATCH, else AWS_ENDPOINT_URL.
        ca_bundle: AWS_CA_BUNDLE.
        fips: AWS_USE_FIPS_ENDPOINT: AWS's own endpoints are those with validated cryptography.
        dualstack: AWS_USE_DUALSTACK_ENDPOINT: AWS's own endpoints are those that answer over IPv6, too.
    """

    region: str = ""
    account: str = ""
    role_alias: str = ""
    credentials_endpoint: str = ""
    allow_s3_jobs: tuple[str, ...] = ("*",)
    allow_batch_jobs: tuple[str, ...] = ()
    handlers: tuple[str, ...] = ("s3-batch-job", "batch-job")
    s3_control_url: str = ""
    batch_url: str = ""
    ca_bundle: Path | None = None
    fips: bool = False
    dualstack: bool = False


@dataclass(frozen=True, slots=True)
class Signed:
    """Which signed job documents are trusted, and what may come unsigned.

    Attributes:
        keys: a folder of public keys, NAME.pem each; see `thingjobs.trusted`.
        require: job documents must be signed.
        unsigned: patterns of the handlers whose documents need not be, all the same.
    """

    keys: Path = Path("/etc/thingjobs/keys")
    require: bool = False
    unsigned: tuple[str, ...] = ()


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
class Report:
    """What the agent tells of itself beside its jobs.

    Attributes:
        textfile: metrics for the textfile collector of node_exporter; None: none are written.
        shadow: the named shadow that says how the agent is; empty: none does.
    """

    log_format: Literal["text", "json"] = "text"
    textfile: Path | None = None
    shadow: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that an operator can set; see examples/config.toml for the meaning of each key.

    Attributes:
        facts: what conditions in job documents are compared with, on top of the agent's own facts.
        file: the file that was named instead of the default ones.

    Raises:
        ClashError: two sections contradict each other.
    """

    thing: Thing
    connection: Connection
    jobs: Jobs = Jobs()
    handlers: Handlers = field(default_factory=Handlers)
    gates: Gates = Gates()
    cloud: Cloud = Cloud()
    signed: Signed = Signed()
    system: System = System()
    state: State = State()
    report: Report = Report()
    facts: Mapping[str, str] = field(default_factory=_nothing)
    file: Path | None = None

    def __post_init__(self) -> None:
        """Refuse sections that contradict each other."""
        if found := clashes_between(self.connection, self.cloud):
            raise ClashError(found)
