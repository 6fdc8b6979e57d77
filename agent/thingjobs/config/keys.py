"""The table of keys: every setting, what it may hold, and one sentence on what it does.

The loader, the JSON Schema and the tests are driven by it. Defaults are those of the classes in `settings`.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING

from thingjobs.config.kinds import LINE, Kind, choice, number, path, paths, table, text, texts
from thingjobs.config.settings import Cloud, Connection, Gates, Handlers, Jobs, State, System, Thing
from thingjobs.config.windows import windows
from thingjobs.model import THING_NAME_PATTERN

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The sections in the order of the file. [facts] is one free table and has no class of its own.
SECTIONS: Mapping[str, type] = MappingProxyType(
    {
        "thing": Thing,
        "connection": Connection,
        "jobs": Jobs,
        "handlers": Handlers,
        "gates": Gates,
        "cloud": Cloud,
        "system": System,
        "state": State,
    }
)

_PORT = r"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HOST = rf"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::{_PORT})?"
_ENDPOINT = "a host name without https://, with :port behind it if it needs one"
_ACCOUNT = text("the name of an account", r"[A-Za-z_][A-Za-z0-9_.@-]{0,254}\$?")
_PATTERN = text("a name that may hold * and ?")

THING_NAME = text("a thing name, 1 to 128 of a-z A-Z 0-9 : _ -", THING_NAME_PATTERN.pattern)
REGION = text("an AWS region, or empty", r"(?:[a-z]+(?:-[a-z]+)+-[0-9]+)?")
URL = text("an address with http:// or https://", rf"https?://{_HOST}(?:/[^\x00-\x20\x7f]*)?")


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
        section, _, name = self.name.partition(".")
        if not name:
            return {}
        field = next(field for field in fields(SECTIONS[section]) if field.name == name)
        value = field.default if field.default is not MISSING else None
        if field.default_factory is not MISSING:
            value = field.default_factory()
        plain = _plain(value)
        return None if self.kind.wrong(plain) else plain


def _plain(value: object) -> object:
    match value:
        case PurePath():
            return str(value)
        case tuple():
            return [_plain(entry) for entry in value]
        case MappingProxyType():
            return dict(value)
        case _:
            return value


def _table() -> tuple[Key, ...]:
    return (*_thing(), *_connection(), *_jobs(), *_handlers(), *_gates(), *_cloud(), *_machine())


def _thing() -> tuple[Key, ...]:
    how = text('"certificate-cn", "hostname" or "file:PATH"', rf"certificate-cn|hostname|file:{LINE}")
    return (
        Key("thing.name", THING_NAME, "The name of the thing that this device is.", "pump-7"),
        Key("thing.name_from", how, "Where to find that name instead of writing it down.", "certificate-cn"),
    )


def _connection() -> tuple[Key, ...]:
    client_id = text(
        "a client id without $ in front and without braces, but for {thing}, the thing's name",
        r"(?!\$)(?:\{thing\}|[^{}\x00-\x1f\x7f])+",
    )
    proxy = text("http://[user:password@]host:port, or empty", rf"(?:http://(?:[^\x00-\x20\x7f@/]+@)?{_HOST})?")
    return (
        Key(
            "connection.transport",
            choice("paho", "awsiot", "https"),
            "How the Jobs service is reached.",
            "paho",
        ),
        Key(
            "connection.endpoint",
            text(_ENDPOINT, _HOST),
            "The account's data endpoint: aws iot describe-endpoint --endpoint-type iot:Data-ATS.",
            "abc-ats.iot.eu-west-1.amazonaws.com",
        ),
        Key("connection.port", number(1, 65535), "The port; with transport https the default is 8443.", 8883),
        Key("connection.client_id", client_id, "The MQTT client id, at most 128 bytes.", "{thing}"),
        Key(
            "connection.keep_alive_seconds",
            number(30, 1200, "seconds"),  # AWS IoT Core quotas: other values are silently changed to these
            "How often an idle connection is tried out.",
            300,
        ),
        Key("connection.mqtt_version", choice(5, "3.1.1"), "The version of MQTT to speak.", 5),
        Key(
            "connection.proxy",
            proxy,
            "The HTTP proxy to go through.",
            "http://proxy.example.com:3128",
            secret=True,
        ),
        Key(
            "connection.certificate",
            path("the device certificate (PEM)", optional=True),
            "The device certificate; empty, together with private_key: connect without one.",
            "/etc/thingjobs/device.pem",
        ),
        Key(
            "connection.private_key",
            path("the private key (PEM)", optional=True),
            "The private key of the device certificate; nobody but the agent may read it.",
            "/etc/thingjobs/device.key",
        ),
        Key(
            "connection.ca",
            path("the certificates to trust (PEM)", optional=True),
            "The certificate that the service must be signed with; empty: those that the system trusts.",
            "/etc/thingjobs/AmazonRootCA1.pem",
        ),
    )


def _jobs() -> tuple[Key, ...]:
    ids = texts("a list of patterns of job ids", _PATTERN)
    return (
        Key("jobs.only", ids, "Patterns of the job ids that are ours; all others are left alone.", ["*"]),
        Key(
            "jobs.step_timeout_minutes",
            number(1, 10080, "minutes"),  # stepTimeoutInMinutes, UpdateJobExecution
            "How long the service waits for a sign of life before it calls a job timed out.",
            1440,
        ),
        Key(
            "jobs.progress_interval_seconds",
            number(5, 86400, "seconds"),
            "The longest distance between two reports of progress.",
            300,
        ),
        Key(
            "jobs.poll_interval_seconds",
            number(1, 86400, "seconds"),
            "How often transport https asks for jobs; the others are told.",
            900,
        ),
        Key(
            "jobs.max_download_kib_s",
            number(0, 10_000_000, "KiB/s"),
            "The most that downloads may take of the line; 0: no limit.",
            0,
        ),
        Key(
            "jobs.max_defer_minutes",
            number(0, 525_600, "minutes"),
            "How long a job may be put off by closed gates or its handler before it fails; 0: as long as it takes.",
            0,
        ),
    )


def _handlers() -> tuple[Key, ...]:
    environment = table(
        text(
            "the name of a variable: letters, digits and _, not beginning with a digit or JOB_",
            r"(?!JOB_)[A-Za-z_][A-Za-z0-9_]*",
        ),
        text("text without NUL", r"[^\x00]*"),
    )
    return (
        Key(
            "handlers.directory",
            paths("a folder"),
            "The folders that hold handlers: a folder NAME with a manifest.json, or a program NAME.",
            ["/etc/thingjobs/handlers"],
        ),
        Key(
            "handlers.scripts",
            path("a folder"),
            "The folder with the scripts that AWS steps documents name.",
            "/etc/thingjobs/scripts",
        ),
        Key(
            "handlers.allow",
            texts("a list of patterns of handler names", _PATTERN),
            "Patterns of the handlers that jobs may use.",
            ["*"],
        ),
        Key(
            "handlers.allow_root",
            texts("a list of handler names", text("a name")),
            "The handlers that may run as root.",
            ["firmware"],
        ),
        Key(
            "handlers.run_as",
            texts("a list of accounts", _ACCOUNT),
            "The accounts that a document may choose to run as.",
            ["operator"],
        ),
        Key("handlers.user", _ACCOUNT, "The account that handlers run as when the agent is root.", "thingjobs"),
        Key(
            "handlers.environment",
            environment,
            "Environment variables that every handler gets.",
            {"TZ": "UTC"},
            secret=True,
        ),
        Key(
            "handlers.download_without_digest",
            texts("a list of patterns of handler names", _PATTERN),
            "Patterns of the handlers that may download files whose digest the job does not say.",
            ["aws-steps"],
        ),
        Key(
            "handlers.collect",
            texts("a list of patterns of files", text("an absolute path that may hold * and ?", rf"/{LINE}")),
            "Patterns of the files that a job may have collected besides logs and state; * does not cross a /.",
            ["/var/log/*.log"],
        ),
    )


def _gates() -> tuple[Key, ...]:
    zone = text("the IANA name of a time zone, or empty", r"(?:[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*)?")
    return (
        Key(
            "gates.directory",
            path("a folder"),
            "The folder of the programs that say whether the device may be changed now.",
            "/etc/thingjobs/gates",
        ),
        Key(
            "gates.windows",
            windows(),
            "The maintenance windows: when the device may be changed; none: always.",
            ["Mon-Fri 22:00-04:00", "Sat,Sun"],
        ),
        Key("gates.time_zone", zone, "The time zone of the windows; empty: that of the device.", "Europe/Berlin"),
        Key(
            "gates.inhibit",
            path("a folder"),
            "The folder of the files that hold jobs back while they are locked, or until a time that they say.",
            "/run/thingjobs/inhibit",
        ),
    )


def _cloud() -> tuple[Key, ...]:
    ids = texts("a list of patterns of job ids", _PATTERN)
    return (
        Key("cloud.region", REGION, "The region; empty: AWS_REGION or AWS_DEFAULT_REGION.", "eu-west-1"),
        Key(
            "cloud.account",
            text("the 12 digits of an AWS account, or empty", r"(?:[0-9]{12})?"),
            "The account that owns the cloud jobs.",
            "123456789012",
        ),
        Key(
            "cloud.role_alias",
            text(
                "the name of a role alias, 1 to 128 of a-z A-Z 0-9 _ = , @ -, or empty",
                r"[A-Za-z0-9_=,@-]{0,128}",
            ),
            "The role alias that gives the device credentials; empty: those of the standard AWS environment.",
            "device-role",
        ),
        Key(
            "cloud.credentials_endpoint",
            text(f"{_ENDPOINT}, or empty", f"(?:{_HOST})?"),
            "Where: aws iot describe-endpoint --endpoint-type iot:CredentialProvider.",
            "abc.credentials.iot.eu-west-1.amazonaws.com",
        ),
        Key(
            "cloud.allow_s3_jobs",
            ids,
            "Patterns of the S3 Batch Operations jobs that a document may touch.",
            ["*"],
        ),
        Key("cloud.allow_batch_jobs", ids, "Patterns of the AWS Batch jobs that a document may touch.", ["*"]),
    )


def _machine() -> tuple[Key, ...]:
    argv = texts("a list: the program and its arguments, or [] for never", text("a string that is not empty"))
    facts = table(text("a name"), text("text without NUL", r"[^\x00]*"))
    return (
        Key(
            "system.reboot",
            argv,
            "The program that reboots the machine, with its arguments; [] forbids reboots.",
            ["systemctl", "reboot"],
        ),
        Key(
            "system.boot_id_file",
            path("a file"),
            "A file whose content is another one after every boot.",
            "/proc/sys/kernel/random/boot_id",
        ),
        Key(
            "state.directory",
            path("a folder"),
            "The folder of the journal; it must survive a reboot.",
            "/var/lib/thingjobs",
        ),
        Key("facts", facts, "What conditions in job documents are compared with.", {"site": "north"}),
    )


KEYS: Mapping[str, Key] = MappingProxyType({key.name: key for key in _table()})
