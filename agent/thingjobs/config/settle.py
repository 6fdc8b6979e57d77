"""All configuration files together: what is missing, what contradicts, and the finished `Config`.

Files are already read. All that is looked up here is the thing's name, where a setting says how to find it, and
whether there is a time zone of the name given.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from thingjobs.config.clashes import ClashError, region_of, usual_port
from thingjobs.config.judge import Draft, judge
from thingjobs.config.key import REGION, SECTIONS, URL
from thingjobs.config.keys import KEYS
from thingjobs.config.kinds import shown
from thingjobs.config.names import thing_name
from thingjobs.config.settings import (
    Authorizer,
    Cloud,
    Config,
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
from thingjobs.config.zones import LOCAL, zone
from thingjobs.errors import ConfigError
from thingjobs.model import ThingName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from thingjobs.config.clashes import Clash
    from thingjobs.config.judge import Given, Source
    from thingjobs.config.kinds import Kind

_CLIENT_ID_BYTES = 128  # AWS IoT Core quotas


@dataclass(frozen=True, slots=True)
class Host:
    """What the configuration takes from the machine and the command rather than from files.

    Attributes:
        hostname: of the machine.
        environment: of the process.
        defaults: stand in for settings that no file gives, by key.
        connected: whether an endpoint is needed, and wanted.
    """

    hostname: str
    environment: Mapping[str, str]
    defaults: Mapping[str, object] = field(default_factory=dict)
    connected: bool = True


def settle(sources: Sequence[Source], host: Host) -> Config:
    """Judge all files, let later ones override earlier ones, and build the configuration.

    Raises:
        ConfigError: with every problem of every file in file order, then those of all files together.
    """
    draft = Draft()
    for rank, source in enumerate(sources):
        judge(source, rank, draft)
    merged = _merged(draft, host)
    _check_present(draft, host, merged, sources)
    thing = _thing(draft, host, merged)
    connection = _connection(draft, host, merged, thing)
    cloud = _cloud(draft, host, merged)
    gates = _gates(draft, host, merged)
    made = None
    if thing and connection:
        try:
            made = _config(thing, connection, cloud, gates, merged)
        except ClashError as error:
            _say(draft, error)
    if draft.problems or made is None:
        raise ConfigError(tuple(dict.fromkeys(draft.problems)))
    return made


def _config(thing: Thing, connection: Connection, cloud: Cloud, gates: Gates, merged: Mapping[str, Any]) -> Config:
    return Config(
        thing=thing,
        connection=connection,
        jobs=Jobs(**_section(merged, "jobs")),
        handlers=Handlers(**_section(merged, "handlers")),
        gates=gates,
        cloud=cloud,
        signed=Signed(**_section(merged, "signed")),
        system=System(**_section(merged, "system")),
        state=State(**_section(merged, "state")),
        report=Report(**_section(merged, "report")),
        facts=merged["facts"],
    )


def _say(draft: Draft, error: ClashError) -> None:
    """Note contradictions, but for those with a setting that was refused: nobody knows what was meant by it."""
    for clash in error.clashes:
        if not any(_is_refused(draft, name) for name in clash.keys):
            _blame(draft, clash)


def _is_refused(draft: Draft, name: str) -> bool:
    return any(refused == name or refused.startswith(f"{name}.") for refused in draft.refused)


def _blame(draft: Draft, clash: Clash) -> None:
    written = (name for name in clash.keys if name in draft.values or name in draft.sections)
    name = next(written, clash.keys[0])
    if name in SECTIONS:
        draft.problems.append(f"{name} (in {draft.sections[name]}): {clash.wrong}")
    elif name in draft.values:
        draft.refuse(name, draft.values[name].raw, draft.values[name].path, clash.wrong)
    else:
        draft.problems.append(f"{name}: {clash.wrong}")


def _merged(draft: Draft, host: Host) -> dict[str, Any]:
    """Return the value of every key: from the files, else from the command, else the default, else None."""
    merged: dict[str, Any] = {}
    for name, key in KEYS.items():
        if key.kind.entries:
            merged[name] = MappingProxyType(dict(draft.tables.get(name, {})))
        elif name in draft.values:
            merged[name] = draft.values[name].value
        elif name in host.defaults:
            merged[name] = host.defaults[name]
        else:
            merged[name] = None if key.default is None else key.kind.make(key.default, Path("/"))
    return merged


def _section(merged: Mapping[str, Any], section: str) -> dict[str, Any]:
    inside = ((name.rpartition("."), value) for name, value in merged.items())
    return {name: value for (where, _, name), value in inside if where == section}


def _check_present(draft: Draft, host: Host, merged: Mapping[str, Any], sources: Sequence[Source]) -> None:
    if draft.broken:
        return  # what is missing may well stand in the file that could not be read
    where = f" (in {sources[0].path})" if sources else ""
    names = {"thing.name", "thing.name_from"}
    if not any(merged[name] for name in names) and not names & draft.refused:
        how = 'write name = "pump-7" or name_from = "certificate-cn" in the section [thing]'
        draft.problems.append(f"thing.name is missing{where}; {how}")
    name = "connection.endpoint"
    if host.connected and not merged[name] and name not in draft.refused:
        how = f"write endpoint = {shown(KEYS[name].example)} in the section [connection]"
        draft.problems.append(f"{name} is missing{where}; {how}")


def _thing(draft: Draft, host: Host, merged: Mapping[str, Any]) -> Thing | None:
    if {"thing.name", "thing.name_from"} & draft.refused:
        return None
    chosen = _chosen(draft)
    if chosen is not None and chosen is draft.values.get("thing.name_from"):
        return _looked_up(draft, host, merged, chosen)
    name = merged["thing.name"]
    return Thing(ThingName(name)) if name else None


def _chosen(draft: Draft) -> Given | None:
    """Return the one of name and name_from that counts: the later file's; both in one file are a problem."""
    name, name_from = draft.values.get("thing.name"), draft.values.get("thing.name_from")
    if name is None or name_from is None:
        return name or name_from
    if name.rank == name_from.rank:
        wrong = "thing.name is set in the same file; keep one of the two"
        draft.refuse("thing.name_from", name_from.raw, name_from.path, wrong)
    return max(name, name_from, key=lambda given: given.rank)


def _looked_up(draft: Draft, host: Host, merged: Mapping[str, Any], how: Given) -> Thing | None:
    if how.value == "certificate-cn" and "connection.certificate" in draft.refused:
        return None
    try:
        name = thing_name(
            how.value,
            folder=how.path.parent,
            certificate=merged["connection.certificate"],
            hostname=host.hostname,
        )
    except ValueError as error:
        wrong = f'{error}; put that right, or write name = "pump-7" instead'
        draft.refuse("thing.name_from", how.raw, how.path, wrong)
        return None
    return Thing(name, how.value)


def _connection(draft: Draft, host: Host, merged: Mapping[str, Any], thing: Thing | None) -> Connection | None:
    values = _section(merged, "connection")
    values["authorizer"] = _authorizer(draft, merged)
    values["pkcs11"] = _pkcs11(draft, merged)
    endpoint, port = _endpoint(draft, merged)
    region = values["region"] or region_of(endpoint)
    values.update(dict.fromkeys(_unmeant(draft, merged, values, region)))
    https = values["transport"] == "https"
    signs = not values["certificate"] if https else _signs_socket(values, region)
    values["region"] = region if signs else ""
    special = values["websocket"] or values["authorizer"]
    values["port"] = port or usual_port(https=https, special=signs if https else bool(special))
    values["endpoint"] = endpoint if host.connected else ""
    values["client_id"] = _client_id(draft, merged["connection.client_id"], thing)
    try:
        return Connection(**values)
    except ClashError as error:
        _say(draft, error)
        return None


def _authorizer(draft: Draft, merged: Mapping[str, Any]) -> Authorizer | None:
    section = "connection.authorizer"
    return Authorizer(**_section(merged, section)) if section in draft.sections else None


def _pkcs11(draft: Draft, merged: Mapping[str, Any]) -> Pkcs11 | None:
    section = "connection.pkcs11"
    if section not in draft.sections:
        return None
    name = f"{section}.module"
    if not merged[name]:
        if name not in draft.refused:
            how = f"write module = {shown(KEYS[name].example)} in the section [{section}]"
            draft.problems.append(f"{name} is missing (in {draft.sections[section]}); {how}")
        return None
    return Pkcs11(**_section(merged, section))


def _unmeant(draft: Draft, merged: Mapping[str, Any], values: Mapping[str, Any], region: str) -> list[str]:
    """Return which of the usual files are not meant: nobody wrote them, and something else says who the device is."""
    names: tuple[str, ...] = ()
    alias = merged["cloud.role_alias"]  # needs them for itself
    if values["pkcs11"]:
        names = ("private_key",)
    elif not alias and (values["authorizer"] or _signs_socket(values, region)):
        names = ("certificate", "private_key")
    return [name for name in names if f"connection.{name}" not in draft.values]


def _signs_socket(values: Mapping[str, Any], region: str) -> bool:
    """Return whether a WebSocket is signed: that of AWS is, and that of another broker only if a region is written."""
    known = values["transport"] == "awsiot" or (values["transport"] == "paho" and region)
    return bool(values["websocket"] and not values["authorizer"] and known)


def _endpoint(draft: Draft, merged: Mapping[str, Any]) -> tuple[str, int]:
    """Return host and port: as written behind the host, or as set; 0 where neither is."""
    bracketed, _, rest = (merged["connection.endpoint"] or "").rpartition("]")
    name, _, written = rest.partition(":")
    name = bracketed.removeprefix("[") + name
    port = draft.values.get("connection.port")
    if port is None:
        return name, int(written or 0)
    if written and int(written) != port.value:
        wrong = f"connection.endpoint already says :{written}; keep one of the two"
        draft.refuse("connection.port", port.raw, port.path, wrong)
    return name, port.value


def _client_id(draft: Draft, template: str, thing: Thing | None) -> str:
    client_id = template.replace("{thing}", thing.name if thing else "")
    if (size := len(client_id.encode())) > _CLIENT_ID_BYTES:
        given = draft.values["connection.client_id"]
        wrong = f"is {size} bytes long, and AWS IoT takes at most {_CLIENT_ID_BYTES}; write a shorter one"
        draft.refuse("connection.client_id", given.raw, given.path, wrong)
    return client_id


def _cloud(draft: Draft, host: Host, merged: Mapping[str, Any]) -> Cloud:
    _check_pair(draft, merged, "cloud.role_alias", "cloud.credentials_endpoint")
    values = _section(merged, "cloud")
    if not values["region"]:
        values["region"] = _variable(draft, host, REGION, "eu-west-1", "AWS_REGION", "AWS_DEFAULT_REGION")
    for name, service in (("s3_control_url", "S3_CONTROL"), ("batch_url", "BATCH")):
        names = (f"AWS_ENDPOINT_URL_{service}", "AWS_ENDPOINT_URL")
        values[name] = _variable(draft, host, URL, "http://127.0.0.1:5000", *names)
    bundle = host.environment.get("AWS_CA_BUNDLE")
    fips, dualstack = (
        host.environment.get(f"AWS_USE_{which}_ENDPOINT", "").lower() == "true" for which in ("FIPS", "DUALSTACK")
    )
    return Cloud(**values, ca_bundle=Path(bundle).absolute() if bundle else None, fips=fips, dualstack=dualstack)


def _gates(draft: Draft, host: Host, merged: Mapping[str, Any]) -> Gates:
    """Return the gates; their time zone is the one written, else that of the environment, else the device's own."""
    gates = Gates(**_section(merged, "gates"))
    name, value, where = "gates.time_zone", gates.time_zone, ""
    if name in draft.values:
        where = str(draft.values[name].path)
    elif gates.windows:  # TZ is how a container is told its zone; without windows it means nothing here.
        name, value, where = "TZ", host.environment.get("TZ", "").removeprefix(":"), "the environment"
    if not value or value == str(LOCAL):
        return gates
    try:
        zone(value)
    except ValueError as error:
        draft.refuse(name, value, where, str(error))
    return replace(gates, time_zone=value)


def _variable(draft: Draft, host: Host, kind: Kind, example: str, *names: str) -> str:
    """Return the first of these environment variables that is set and not empty."""
    name = next((name for name in names if host.environment.get(name)), None)
    if name is None:
        return ""
    value = host.environment[name]
    if wrong := kind.wrong(value):
        draft.refuse(name, value, "the environment", f"{wrong}, for example {example}")
    return value


def _check_pair(draft: Draft, merged: Mapping[str, Any], one: str, other: str) -> None:
    """Note a problem if only one of two settings that need each other is set."""
    full, empty = (one, other) if merged[one] else (other, one)
    if {one, other} & draft.refused or not merged[full] or merged[empty]:
        return
    said = empty if empty in draft.values else full
    given = draft.values[said]
    wrong = f"{full} is of no use without {empty}; write both, for example {empty} = {shown(KEYS[empty].example)}"
    draft.refuse(said, given.raw, given.path, wrong)
