"""Every setting takes what it should and refuses what it should, and the JSON Schema says the same."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

from thingjobs.config.judge import Source
from thingjobs.config.keys import KEYS, SECTIONS, Key
from thingjobs.config.schema import schema, text
from thingjobs.config.settle import Host, settle
from thingjobs.errors import ConfigError

FILE = Path("/etc/thingjobs/config.toml")

#: By key: what is right, and what is wrong although its type is right.
TEXTS: dict[str, tuple[list[str], list[str]]] = {
    "thing.name": (["a", "pump-7", "a:b_C-9", "x" * 128], ["", "x" * 129, "a b", "pümpe", "a/b", "a\n", "#"]),
    "thing.name_from": (["hostname", "file:/etc/machine-id"], ["", "host", "file:", "certificate-cn ", "file:\n"]),
    "connection.endpoint": (
        ["localhost", "a-ats.iot.eu-west-1.amazonaws.com", "h:1", "h:65535", "10.0.0.1:8883", "[::1]:8883", "mqtt_1"],
        ["", "https://a.b", "a.b/c", "a b", "h:0", "h:65536", "h:", "::1", "-a", "a.", "u@h", "h:8883\n"],
    ),
    "connection.client_id": (
        ["{thing}", "agent-{thing}", "jobs/{thing}", "ä"],
        ["", "$agent", "{host}", "{thing", "a}", "{}", "a\x00", "a\nb", "pump-*", "pump-?"],
    ),
    "connection.proxy": (
        ["", "http://proxy:3128", "http://u:p@proxy.example.com:3128", "http://[::1]:1", "socks5://u:p@proxy:1080"],
        ["proxy:3128", "https://proxy", "socks4://proxy", "http://", "http://u:p@", "http://proxy/path", "socks5:p"],
    ),
    "connection.certificate": (["", "device.pem", "/a b/c.pem"], ["a\x00", "a\nb"]),
    "connection.private_key": (["", "device.key"], ["a\x00"]),
    "connection.private_key_password_file": (["", "device.password"], ["a\x00"]),
    "connection.ca": (["", "ca.pem"], ["a\x00"]),
    "connection.region": (["", "eu-west-1", "us-gov-west-1"], ["eu", "EU-WEST-1", "eu-west-1a"]),
    "connection.authorizer.name": (["", "by-token", "a=,@-_", "x" * 128], ["x" * 129, "a/b", "a b", "a\n"]),
    "connection.authorizer.username": (["", "pump 7", "a?b=c"], ["a\nb", "\x00"]),
    "connection.authorizer.password_file": (["", "password"], ["a\x00"]),
    "connection.authorizer.token_key": (["", "token", "X-Amz_1"], ["a b", "a=b", "a&b", "x" * 129]),
    "connection.authorizer.token_file": (["", "token"], ["a\x00"]),
    "connection.authorizer.signature_file": (["", "signature"], ["a\x00"]),
    "connection.pkcs11.module": (["/usr/lib/x.so", "x.so"], ["", "a\x00"]),
    "connection.pkcs11.pin_file": (["", "pin"], ["a\x00"]),
    "connection.pkcs11.token": (["", "my token"], ["a\nb"]),
    "connection.pkcs11.key": (["", "device"], ["a\nb"]),
    "handlers.scripts": (["/s", "s"], ["", "\x00"]),
    "handlers.user": (["nobody", "_x", "Handler.one", "host$"], ["", "0", "a b", "-x", "a:b", "root\n"]),
    "gates.directory": (["/g"], ["", "\x00"]),
    "gates.time_zone": (
        ["", "UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+1"],
        ["Europe/", "/etc/localtime", "../UTC", "Europe/Köln", "CET-1CEST,M3.5.0", "UTC\n"],
    ),
    "gates.inhibit": (["/i"], ["", "\x00"]),
    "cloud.region": (
        ["", "eu-west-1", "us-gov-west-1", "eusc-de-east-1", "us-iso-east-1"],
        ["eu", "eu-west", "EU-WEST-1", "eu-west-1a", "-west-1"],
    ),
    "cloud.account": (["", "123456789012"], ["12345678901", "1234567890123", "1234-5678-9012"]),
    "cloud.role_alias": (["", "device-role", "a=,@-_", "x" * 128], ["x" * 129, "a/b", "a b"]),
    "cloud.credentials_endpoint": (["", "c.credentials.iot.eu-west-1.amazonaws.com", "h:443"], ["https://h", "h:x"]),
    "signed.keys": (["/k", "k"], ["", "\x00"]),
    "system.boot_id_file": (["/b"], ["", "\x00"]),
    "state.directory": (["/var/lib/x", "state"], ["", "\x00"]),
    "report.textfile": (["", "/run/t.prom", "t.prom"], ["a\x00", "a\nb", "/run/t.txt"]),
    "report.shadow": (["", "thingjobs", "a:b_C-9", "x" * 64], ["x" * 65, "$package", "a b", "a/b", "a\n"]),
}
LISTS: dict[str, tuple[list[object], list[object]]] = {
    "jobs.only": ([[], ["*"], ["fw-*", "x"]], ["*", [""], [3], [["*"]], ["a\n"]]),
    "handlers.directory": (["/h", ["/h"], ["/h", "i"], []], ["", [""], [3], [["/h"]], ["\x00"]]),
    "handlers.allow": ([[], ["*"]], ["*", [""], [True]]),
    "handlers.allow_root": ([[], ["firmware"]], ["firmware", [""], [0]]),
    "handlers.run_as": ([[], ["operator"]], ["operator", ["a b"], [0]]),
    "handlers.environment": ([{}, {"TZ": "UTC", "_a1": "two\nlines"}], ["TZ=UTC", ["TZ"]]),
    "handlers.collect": ([[], ["/var/log/*.log"]], ["/a", [""], ["a.log"], [1]]),
    "handlers.download_without_digest": ([[], ["*"]], ["*", [""], [1]]),
    "gates.windows": (
        [[], ["Mon-Fri 22:00-04:00"], ["sat,Sun"], ["03:00-05:00", "Fri-Mon, Wed 00:00-24:00"], ["04:00-03:59"]],
        [
            *("Sat", [""], [3], [["Sat"]], ["Sat,"], ["Mo"], ["Monday"], ["SAT"], ["Sat-"], ["Sat\n"], ["Sat;Sun"]),
            *(["3:00-5:00"], ["25:00-26:00"], ["04:60-05:00"], ["24:00-03:00"], ["03:00"], ["03:00-05:00 Sat"]),
            *(["04:00-04:00"], ["Mon 00:00-00:00"], ["03:00 - 05:00"], ["Mon  03:00-05:00"], ["Sat", "x"]),
        ],
    ),
    "cloud.allow_s3_jobs": ([[], ["*"]], ["*", [""]]),
    "cloud.allow_batch_jobs": ([[], ["*"]], ["*", [""]]),
    "cloud.handlers": ([[], ["lamp-*"]], ["*", [""]]),
    "signed.unsigned": ([[], ["collect"]], ["*", [""], [1]]),
    "system.reboot": ([["reboot"], ["systemctl", "reboot"], []], ["reboot", [""], ["reboot", 1]]),
    "facts": ([{}, {"site": "north", "a.b": ""}], ["site", ["site"]]),
}
#: Wrong for every key, but for the type in which it would be right.
FOREIGN: list[object] = [True, 2.5, 7, date(2024, 2, 29), [{}], {"a": {"b": 1}}, "\x00", 16**5000]


def values(key: Key) -> tuple[list[Any], list[Any]]:
    """Return what the key must take and what it must refuse."""
    if key.name in TEXTS:
        right, wrong = TEXTS[key.name]
        return [*right], [*wrong, *FOREIGN, []]
    if key.name in LISTS:
        return LISTS[key.name][0], [*LISTS[key.name][1], *(value for value in FOREIGN if not isinstance(value, dict))]
    described = key.kind.schema
    if described == {"type": "boolean"}:
        return [True, False], [*(value for value in FOREIGN if value is not True), "true", 0, 1, []]
    if "enum" in described:
        return described["enum"], [*FOREIGN, "", "PAHO", "5", 4, 3.1, []]
    low, high = described["minimum"], described["maximum"]
    outside = [low - 1, high + 1, -1, str(low), float(high) + 0.5]
    return [low, low + 1, high], [*outside, *(value for value in FOREIGN if value != 7), [], ""]


def table(name: str, value: object) -> dict[str, Any]:
    """Return a complete file in which one setting has this value."""
    made: dict[str, Any] = {"thing": {"name": "pump"}, "connection": {"endpoint": "localhost"}}
    if name == "thing.name_from":
        made["thing"] = {}
    *sections, last = name.split(".")
    inner = made
    for section in sections:
        inner = inner.setdefault(section, {"module": "m.so"} if section == "pkcs11" else {})
    inner[last] = value
    return made


def problems(content: dict[str, Any]) -> tuple[str, ...]:
    """Return what is wrong with a file, nothing if it loads."""
    try:
        settle([Source(FILE, content)], Host("host", {}))
    except ConfigError as error:
        return error.problems
    return ()


EVERY_KEY = pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
#: Settings that are nothing without another one, and with what that one is right.
PARTNERS = {
    "connection.certificate": "connection.private_key",
    "connection.private_key": "connection.certificate",
    "cloud.role_alias": "cloud.credentials_endpoint",
    "cloud.credentials_endpoint": "cloud.role_alias",
    "connection.authorizer.token_key": "connection.authorizer.token_file",
    "connection.authorizer.token_file": "connection.authorizer.token_key",
}


def surrounded(name: str, value: object) -> dict[str, Any]:
    """Return a complete file with this value, and with all that it cannot be without."""
    content = table(name, value)
    connection = content["connection"]
    if {"authorizer", "pkcs11"} & connection.keys():
        connection["transport"] = "awsiot"
    if name == "connection.authorizer.signature_file" and value:
        connection["authorizer"] |= {"token_key": "x", "token_file": "x"}
    if name == "connection.websocket":
        connection["region"] = "eu-west-1"
    if name in PARTNERS:
        *sections, last = PARTNERS[name].split(".")
        inner = content
        for section in sections:
            inner = inner[section]
        inner[last] = "x" if value else ""
    return content


@EVERY_KEY
def test_right_values_are_taken(key: Key) -> None:
    for value in values(key)[0]:
        content = surrounded(key.name, value)
        if value == "file:/etc/machine-id":
            assert key.kind.wrong(value) == ""  # whether the file is there is another question
        else:
            assert problems(content) == (), value


@EVERY_KEY
def test_a_wrong_value_gives_one_sentence_with_the_key_the_file_and_what_would_be_right(key: Key) -> None:
    for value in values(key)[1]:
        (problem,) = problems(table(key.name, value))
        assert problem.startswith(key.name)
        assert f"(in {FILE}): must be " in problem
        assert len(problem.splitlines()) == 1
        proposed = problem.rpartition(", for example ")[2]
        assert key.kind.wrong(tomllib.loads(f"x = {proposed}")["x"]) == ""


@EVERY_KEY
def test_the_schema_of_a_setting_agrees_with_what_the_agent_takes(key: Key) -> None:
    right, wrong = values(key)
    check = fastjsonschema.compile(key.kind.schema)
    for value in right:
        check(value)
    for value in wrong:
        with pytest.raises(fastjsonschema.JsonSchemaValueException):
            check(value)


def test_the_schema_takes_a_complete_file_and_refuses_what_is_missing_doubled_or_unknown() -> None:
    check = fastjsonschema.compile(schema())
    good = {"thing": {"name": "pump"}, "connection": {"endpoint": "localhost"}, "facts": {"site": "north"}}
    check(good)
    for bad in (
        {**good, "thing": {}},
        {**good, "thing": {"name": "pump", "name_from": "hostname"}},
        {**good, "connection": {}},
        {**good, "jobs": {"onyl": ["*"]}},
        {**good, "unknown": {}},
        {"thing": {"name": "pump"}},
    ):
        with pytest.raises(fastjsonschema.JsonSchemaValueException):
            check(bad)


def test_the_schema_in_the_package_is_the_one_that_the_table_makes() -> None:
    kept = files("thingjobs") / "schemas" / "config.json"
    assert kept.read_text() == text(), "run python -m thingjobs.config.schema > its file"


def test_the_sample_values_cover_every_setting_that_is_text_or_a_list() -> None:
    described = {
        key.name
        for key in KEYS.values()
        if not {"minimum", "enum"}.intersection(key.kind.schema) and key.kind.schema != {"type": "boolean"}
    }
    assert described == TEXTS.keys() | LISTS.keys()


def test_every_field_of_the_configuration_is_a_setting_unless_it_comes_from_the_environment() -> None:
    in_classes = {f"{section}.{field.name}" for section, made in SECTIONS.items() for field in fields(made)}
    from_environment = {f"cloud.{name}" for name in ("s3_control_url", "batch_url", "ca_bundle", "fips", "dualstack")}
    assert in_classes - from_environment - SECTIONS.keys() == KEYS.keys() - {"facts"}
