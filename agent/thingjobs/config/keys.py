"""The table of keys: every setting, what it may hold, and one sentence on what it does.

The loader, the JSON Schema and the tests are driven by it. Defaults are those of the classes in `settings`; the keys
of [connection] are in `connecting`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from thingjobs.config.connecting import connecting
from thingjobs.config.key import ACCOUNT, AWS_NAME, ENDPOINT, HOST, REGION, SECTIONS, Key
from thingjobs.config.kinds import LINE, choice, number, path, paths, switch, table, text, texts
from thingjobs.config.windows import windows
from thingjobs.model import THING_NAME_PATTERN

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KEYS", "SECTIONS", "THING_NAME", "Key"]

_ACCOUNT = text("the name of an account", r"[A-Za-z_][A-Za-z0-9_.@-]{0,254}\$?")
_PATTERN = text("a name that may hold * and ?")

THING_NAME = text("a thing name, 1 to 128 of a-z A-Z 0-9 : _ -", THING_NAME_PATTERN.pattern)


def _table() -> tuple[Key, ...]:
    return (*_thing(), *connecting(), *_jobs(), *_handlers(), *_gates(), *_cloud(), *_signed(), *_machine())


def _thing() -> tuple[Key, ...]:
    how = text('"certificate-cn", "hostname" or "file:PATH"', rf"certificate-cn|hostname|file:{LINE}")
    return (
        Key("thing.name", THING_NAME, "The name of the thing that this device is.", "pump-7"),
        Key("thing.name_from", how, "Where to find that name instead of writing it down.", "certificate-cn"),
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
            ACCOUNT,
            "The account that owns the cloud jobs.",
            "123456789012",
        ),
        Key(
            "cloud.role_alias",
            text(
                "the name of a role alias, 1 to 128 of a-z A-Z 0-9 _ = , @ -, or empty",
                AWS_NAME,
            ),
            "The role alias that gives the device credentials; empty: those of the standard AWS environment.",
            "device-role",
        ),
        Key(
            "cloud.credentials_endpoint",
            text(f"{ENDPOINT}, or empty", f"(?:{HOST})?"),
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
        Key(
            "cloud.handlers",
            texts("a list of patterns of handler names", _PATTERN),
            "Patterns of the handlers that may have AWS credentials.",
            ["s3-batch-job", "batch-job"],
        ),
    )


def _signed() -> tuple[Key, ...]:
    return (
        Key(
            "signed.keys",
            path("a folder"),
            "The folder of the public keys that vouch for signed job documents, NAME.pem each.",
            "/etc/thingjobs/keys",
        ),
        Key("signed.require", switch(), "Whether a job document must be signed.", True),  # noqa: FBT003
        Key(
            "signed.unsigned",
            texts("a list of patterns of handler names", _PATTERN),
            "Patterns of the handlers whose documents need not be signed, even where others must.",
            ["collect"],
        ),
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
        *_report(),
        Key("facts", facts, "What conditions in job documents are compared with.", {"site": "north"}),
    )


def _report() -> tuple[Key, ...]:
    # UpdateThingShadow also takes names that begin with $: those are reserved for AWS.
    shadow = text("the name of a shadow, 1 to 64 of a-z A-Z 0-9 : _ -, or empty", r"[a-zA-Z0-9:_-]{0,64}")
    return (
        Key("report.log_format", choice("text", "json"), "How the log is written, one line a fact.", "json"),
        Key(
            "report.textfile",
            path("a file whose name ends in .prom", optional=True, ending=".prom"),  # node_exporter reads no other
            "The file for the metrics of the agent, which node_exporter reads; empty: none.",
            "/run/node-exporter/thingjobs.prom",
        ),
        Key(
            "report.shadow",
            shadow,
            "The named shadow of the thing that says how the agent is, for fleet indexing; empty: none.",
            "thingjobs",
        ),
    )


KEYS: Mapping[str, Key] = MappingProxyType({key.name: key for key in _table()})
