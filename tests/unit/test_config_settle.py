"""Files together: later ones override, contradictions and gaps are found, and everything is told at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thingjobs.config.judge import Source
from thingjobs.config.keys import KEYS, SECTIONS
from thingjobs.config.names import local_name, thing_name
from thingjobs.config.settings import Cloud, Config, Connection, Handlers, Jobs, State, System, Thing
from thingjobs.config.settle import Host, settle
from thingjobs.errors import ConfigError
from thingjobs.model import ThingName

if TYPE_CHECKING:
    from collections.abc import Mapping

MAIN, EXTRA = Path("/etc/thingjobs/config.toml"), Path("/etc/thingjobs/conf.d/10-site.toml")
NEEDED: dict[str, Any] = {"thing": {"name": "pump"}, "connection": {"endpoint": "localhost"}}


def merge(*tables: dict[str, Any], environment: Mapping[str, str] | None = None) -> Config:
    """Settle tables as if they stood in config.toml and then in files of conf.d."""
    sources = [Source(MAIN if not rank else EXTRA, table) for rank, table in enumerate(tables)]
    return settle(sources, Host("the-host", environment or {}))


def problems(*tables: dict[str, Any], environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return what is wrong with the tables; they must not load."""
    with pytest.raises(ConfigError) as caught:
        merge(*tables, environment=environment)
    return caught.value.problems


def problem(*tables: dict[str, Any], environment: Mapping[str, str] | None = None) -> str:
    """Return the one thing that is wrong."""
    (only,) = problems(*tables, environment=environment)
    return only


def connected(**settings: object) -> dict[str, Any]:
    """Return a complete file with these settings of the connection."""
    return {**NEEDED, "connection": {"endpoint": "localhost", **settings}}


def test_what_was_probably_meant_by_a_wrong_name_is_not_missing_as_well() -> None:
    for table in (
        {"thing": {"name": "pump"}, "connection": {"endpont": "h"}},
        {"thing": {"nam": "pump"}, "connection": {"endpoint": "h"}},
        {"thing": {"name": "pump", "endpoint": "h"}, "connection": {}},
        {"thing": {"name": "pump"}, "endpoint": "h"},
        {"thing": {"name": "pump"}, "connetion": {"endpoint": "h"}},
        {"thing": {"name": "pump"}, "connection": {"endpoint": "h", "certificat": "/a", "private_key": "/b"}},
    ):
        assert "; did you mean " in problem(table)


# --- Defaults and overriding ------------------------------------------------------------------------------


def test_a_file_with_only_what_is_needed_gets_the_defaults_of_the_classes() -> None:
    assert merge(NEEDED) == Config(
        thing=Thing(ThingName("pump")),
        connection=Connection("localhost", client_id="pump"),
        jobs=Jobs(),
        handlers=Handlers(),
        cloud=Cloud(),
        system=System(),
        state=State(),
        facts={},
    )


def test_a_later_file_overrides_single_settings_and_leaves_the_others() -> None:
    config = merge({**NEEDED, "jobs": {"only": ["a"], "max_download_kib_s": 5}}, {"jobs": {"only": ["b", "c"]}})
    assert config.jobs == Jobs(only=("b", "c"), max_download_kib_s=5)


def test_a_later_file_overrides_single_entries_of_free_tables() -> None:
    first = {**NEEDED, "facts": {"site": "north", "line": "1"}, "handlers": {"environment": {"A": "1", "B": "1"}}}
    config = merge(first, {"facts": {"line": "2"}, "handlers": {"environment": {"B": "2"}}})
    assert config.facts == {"site": "north", "line": "2"}
    assert config.handlers.environment == {"A": "1", "B": "2"}


def test_the_name_of_a_later_file_wins_over_where_to_find_it() -> None:
    found = merge({**NEEDED, "thing": {"name_from": "hostname"}}, {"thing": {"name": "valve"}})
    assert found.thing == Thing(ThingName("valve"))
    looked_up = merge(NEEDED, {"thing": {"name_from": "hostname"}})
    assert looked_up.thing == Thing(ThingName("the-host"), "hostname")


def test_relative_paths_start_at_the_folder_of_their_file() -> None:
    config = merge({**NEEDED, "handlers": {"scripts": "s", "directory": ["h", "/abs"]}}, {"state": {"directory": "d"}})
    assert config.handlers.scripts == MAIN.parent / "s"
    assert config.handlers.directory == (MAIN.parent / "h", Path("/abs"))
    assert config.state.directory == EXTRA.parent / "d"


def test_one_handler_folder_may_be_written_as_a_string() -> None:
    assert merge({**NEEDED, "handlers": {"directory": "/h"}}).handlers.directory == (Path("/h"),)


def test_empty_certificate_key_and_ca_mean_none() -> None:
    connection = merge(connected(certificate="", private_key="", ca="")).connection
    assert (connection.certificate, connection.private_key, connection.ca) == (None, None, None)


def test_the_free_tables_cannot_be_changed_afterwards() -> None:
    config = merge({**NEEDED, "facts": {"site": "north"}})
    with pytest.raises(TypeError):
        config.facts["site"] = "south"  # type: ignore[index]


numbers = {
    "step_timeout_minutes": st.integers(1, 10080),
    "progress_interval_seconds": st.integers(5, 86400),
    "poll_interval_seconds": st.integers(1, 86400),
}
some_numbers = st.fixed_dictionaries({}, optional=numbers)


@given(st.lists(some_numbers, max_size=4))
def test_of_many_files_the_last_that_gives_a_setting_counts(sections: list[dict[str, int]]) -> None:
    expected: dict[str, Any] = {}
    for section in sections:
        expected.update(section)
    merged = merge(NEEDED, *({"jobs": section} for section in sections))
    assert merged.jobs == replace(Jobs(), **expected)


# --- The connection ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "host", "port"),
    [
        ({}, "localhost", 8883),
        ({"port": 443}, "localhost", 443),
        ({"endpoint": "broker:1883"}, "broker", 1883),
        ({"endpoint": "broker:1883", "port": 1883}, "broker", 1883),
        ({"endpoint": "[::1]:1883"}, "::1", 1883),
        ({"endpoint": "[::1]"}, "::1", 8883),
        ({"transport": "https"}, "localhost", 8443),
        ({"transport": "https", "port": 443}, "localhost", 443),
        ({"transport": "https", "endpoint": "jobs:9000"}, "jobs", 9000),
        ({"transport": "awsiot"}, "localhost", 8883),
    ],
)
def test_the_port_is_the_one_written_or_the_usual_one(settings: dict[str, object], host: str, port: int) -> None:
    connection = merge(connected(**settings)).connection
    assert (connection.endpoint, connection.port) == (host, port)


def test_two_different_ports_are_a_problem() -> None:
    said = problem(connected(endpoint="broker:1883"), {"connection": {"port": 443}})
    assert said == (f"connection.port = 443 (in {EXTRA}): connection.endpoint already says :1883; keep one of the two")


def test_the_client_id_holds_the_things_name() -> None:
    assert merge(connected(client_id="agent-{thing}/{thing}")).connection.client_id == "agent-pump/pump"


def test_the_length_of_the_client_id_is_counted_in_bytes_with_the_name_in_it() -> None:
    longest = {**connected(client_id="ä" + "{thing}"), "thing": {"name": "x" * 126}}
    assert len(merge(longest).connection.client_id.encode()) == 128
    said = problem({**longest, "thing": {"name": "x" * 127}})
    assert "connection.client_id" in said
    assert "129 bytes" in said


def test_a_client_id_that_is_too_long_is_found_even_without_a_name() -> None:
    said = problems({"connection": {"endpoint": "h", "client_id": "x" * 129}})
    assert [line.partition(" ")[0] for line in said] == ["thing.name", "connection.client_id"]


@pytest.mark.parametrize(
    ("section", "settings", "empty"),
    [
        ("connection", {"endpoint": "h", "certificate": ""}, "connection.certificate"),
        ("connection", {"endpoint": "h", "private_key": ""}, "connection.private_key"),
        ("cloud", {"role_alias": "r"}, "cloud.credentials_endpoint"),
        ("cloud", {"credentials_endpoint": "h"}, "cloud.role_alias"),
    ],
)
def test_two_settings_that_need_each_other_must_both_be_there(
    section: str, settings: dict[str, object], empty: str
) -> None:
    said = problem({**NEEDED, section: settings})
    assert f"is of no use without {empty}; write both, for example {empty} = " in said
    assert f"(in {MAIN})" in said


# --- The thing's name -------------------------------------------------------------------------------------


def test_a_missing_name_is_told_with_both_ways_to_give_it() -> None:
    assert problem({"connection": {"endpoint": "h"}}) == (
        f'thing.name is missing (in {MAIN}); write name = "pump-7" or name_from = "certificate-cn" '
        "in the section [thing]"
    )


def test_a_missing_endpoint_is_told_with_an_example() -> None:
    assert problem({"thing": {"name": "pump"}}) == (
        f'connection.endpoint is missing (in {MAIN}); write endpoint = "abc-ats.iot.eu-west-1.amazonaws.com" '
        "in the section [connection]"
    )


def test_name_and_name_from_in_one_file_are_a_problem() -> None:
    said = problem({**NEEDED, "thing": {"name": "pump", "name_from": "hostname"}})
    assert said.startswith(f'thing.name_from = "hostname" (in {MAIN}): ')
    assert said.endswith("keep one of the two")


def test_a_name_that_was_given_wrongly_is_not_called_missing_as_well() -> None:
    assert problem({**NEEDED, "thing": {"name": "a b"}}).startswith('thing.name = "a b"')


def test_a_host_name_that_no_thing_can_have_is_a_problem() -> None:
    with pytest.raises(ConfigError, match=r"the host's name is 'pump\.example\.com', and a thing name has") as caught:
        settle([Source(MAIN, {**NEEDED, "thing": {"name_from": "hostname"}})], Host("pump.example.com", {}))
    assert len(caught.value.problems) == 1


def test_the_name_cannot_come_from_a_certificate_that_is_not_set() -> None:
    table = {**connected(certificate="", private_key=""), "thing": {"name_from": "certificate-cn"}}
    assert "connection.certificate is empty" in problem(table)


def test_a_certificate_that_was_given_wrongly_is_told_only_once() -> None:
    table = {**connected(certificate=3), "thing": {"name_from": "certificate-cn"}}
    assert problem(table).startswith("connection.certificate = 3")


@pytest.mark.parametrize(
    ("hostname", "name"),
    [
        ("pump-7", "pump-7"),
        ("pump-7.example.com", "pump-7"),
        ("my pump", "my-pump"),
        ("büro", "b-ro"),
        ("x" * 200, "x" * 128),
        ("", "local"),
        ("...", "local"),
        ("ü", "local"),
    ],
)
def test_a_local_run_makes_a_name_of_the_hosts(hostname: str, name: str) -> None:
    assert local_name(hostname) == name


@given(st.text())
def test_a_local_run_always_finds_a_legal_name(hostname: str) -> None:
    made = local_name(hostname)
    assert thing_name("hostname", folder=Path("/"), certificate=None, hostname=made) == made


# --- The environment --------------------------------------------------------------------------------------


def test_the_region_falls_back_to_the_environment() -> None:
    both = {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-east-1"}
    assert merge({**NEEDED, "cloud": {"region": "eu-north-1"}}, environment=both).cloud.region == "eu-north-1"
    assert merge(NEEDED, environment=both).cloud.region == "eu-west-1"
    assert merge(NEEDED, environment={**both, "AWS_REGION": ""}).cloud.region == "us-east-1"


def test_an_endpoint_for_one_service_wins_over_the_one_for_all() -> None:
    cloud = merge(
        NEEDED,
        environment={"AWS_ENDPOINT_URL": "http://all:1", "AWS_ENDPOINT_URL_BATCH": "https://batch/x"},
    ).cloud
    assert (cloud.s3_control_url, cloud.batch_url) == ("http://all:1", "https://batch/x")


def test_the_bundle_of_the_environment_is_taken() -> None:
    assert merge(NEEDED, environment={"AWS_CA_BUNDLE": "/b.pem"}).cloud.ca_bundle == Path("/b.pem")


def test_fips_and_dual_stack_endpoints_are_asked_for_as_the_sdks_are() -> None:
    cloud = merge(NEEDED, environment={"AWS_USE_FIPS_ENDPOINT": "True", "AWS_USE_DUALSTACK_ENDPOINT": "false"}).cloud
    assert (cloud.fips, cloud.dualstack) == (True, False)


def test_a_wrong_variable_is_told_once_and_by_its_name() -> None:
    said = problem(NEEDED, environment={"AWS_ENDPOINT_URL": "localhost:5000"})
    assert said.startswith('AWS_ENDPOINT_URL = "localhost:5000" (in the environment): must be')


def test_a_wrong_region_of_the_environment_does_not_matter_where_the_file_has_one() -> None:
    merge({**NEEDED, "cloud": {"region": "eu-west-1"}}, environment={"AWS_REGION": "nowhere"})
    assert problem(NEEDED, environment={"AWS_REGION": "nowhere"}).startswith("AWS_REGION")


# --- Messages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            {"connection": {"endpoint": "h", "keep_alive_seconds": 5}},
            f"connection.keep_alive_seconds = 5 (in {MAIN}): must be 30..1200 seconds, for example 300",
        ),
        (
            {"connection": {"endpoint": "h", "port": "443"}},
            f'connection.port = "443" (in {MAIN}): must be a whole number without quotes, 1..65535, for example 8883',
        ),
        (
            {"connection": {"endpoint": "h", "mqtt_version": "5"}},
            f'connection.mqtt_version = "5" (in {MAIN}): must be 5 or "3.1.1", for example 5',
        ),
        (
            {"connection": {"endpoint": "h", "keepalive_seconds": 5}},
            f"connection.keepalive_seconds (in {MAIN}) is not a setting; did you mean connection.keep_alive_seconds?",
        ),
        (
            {"jobs": {"directory": "x"}},
            f"jobs.directory (in {MAIN}) is not a setting; did you mean handlers.directory?",
        ),
        (
            {"state": {"zzzz": 1}},
            f"state.zzzz (in {MAIN}) is not a setting; the settings of [state] are directory",
        ),
        ({"handler": {}}, f"[handler] (in {MAIN}) is not a section; did you mean [handlers]?"),
        (
            {"qqq": {}},
            f"[qqq] (in {MAIN}) is not a section; the sections are thing, connection, jobs, ",
        ),
        ({"port": 443}, f"port (in {MAIN}) is not a setting; did you mean connection.port?"),
        ({"qqq": 3}, f"qqq (in {MAIN}) is not a setting; every setting belongs into a section"),
        ({"jobs": 3}, f"jobs = 3 (in {MAIN}): must be a section: write [jobs], once, and its keys below it"),
        ({"jobs": {"a b\n": 3}}, f'jobs."a b\\n" (in {MAIN}) is not a setting; '),
        (
            {"facts": {"n": 3}},
            f'facts.n = 3 (in {MAIN}): must be a string in quotes: text without NUL, for example "3"',
        ),
        ({"facts": {"": "x"}}, f'facts."" (in {MAIN}): the name behind facts must be a name'),
    ],
)
def test_a_problem_is_one_sentence_with_key_file_and_remedy(table: dict[str, Any], said: str) -> None:
    assert problem({**NEEDED, **table}).startswith(said)


def test_a_section_that_is_none_is_not_followed_by_its_keys_being_missing() -> None:
    said = problems({"thing": "pump", "connection": [{"endpoint": "h"}]})
    assert [line.partition(" ")[0] for line in said] == ["thing", "connection"]


def test_secrets_stay_out_of_messages() -> None:
    table = {**connected(proxy="http://user:hunter2@"), "handlers": {"environment": {"TOKEN": 271828}}}
    said = "\n".join(problems(table))
    assert "connection.proxy" in said
    assert "handlers.environment.TOKEN" in said
    assert "hunter2" not in said
    assert "271828" not in said


def test_secrets_stay_out_of_the_text_of_a_configuration() -> None:
    table = {**connected(proxy="http://user:hunter2@proxy:1"), "handlers": {"environment": {"TOKEN": "271828"}}}
    assert "hunter2" not in repr(merge(table))
    assert "271828" not in repr(merge(table))


def test_values_that_are_too_long_to_help_are_cut() -> None:
    assert len(problem({**NEEDED, "thing": {"name": "x" * 5000}})) < 300
    assert len(problem({**NEEDED, "jobs": {"only": [1] * 5000}})) < 300


def test_all_problems_of_all_files_are_told_at_once_in_file_order_and_each_once() -> None:
    said = problems(
        {"state": {"directory": 1}, "thing": {"zzz": "x"}, "jobs": {"only": "*"}},
        {"connection": {"port": 0, "client_id": "x" * 200}, "top": {}},
        environment={"AWS_REGION": "nowhere", "AWS_ENDPOINT_URL": "nowhere"},
    )
    assert [line.partition(" ")[0] for line in said] == [
        "state.directory",
        "thing.zzz",
        "jobs.only",
        "connection.port",
        "[top]",
        "thing.name",
        "connection.endpoint",
        "connection.client_id",
        "AWS_REGION",
        "AWS_ENDPOINT_URL",
    ]


def test_a_wrong_value_is_told_even_where_a_later_file_overrides_it() -> None:
    assert problem(connected(port=0), {"connection": {"port": 443}}).startswith("connection.port = 0")


def test_nothing_is_called_missing_while_a_file_could_not_be_read() -> None:
    sources = [Source(MAIN, {}, "cannot be read"), Source(EXTRA, {"jobs": {"only": 1}})]
    with pytest.raises(ConfigError) as caught:
        settle(sources, Host("h", {}))
    assert caught.value.problems[0] == "cannot be read"
    assert len(caught.value.problems) == 2


# --- Anything at all --------------------------------------------------------------------------------------

leaves = st.one_of(
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**4000, max_value=10**4001),
    st.floats(),
    st.text(max_size=20),
    st.dates(),
    st.sampled_from([date(2024, 2, 29), *(key.example for key in KEYS.values())]),
)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
names = st.sampled_from(sorted(key.partition(".")[2] for key in KEYS)) | st.text(max_size=12)
sections = st.sampled_from([*SECTIONS, "facts"]) | st.text(max_size=12)
tables = st.dictionaries(sections, st.dictionaries(names, anything, max_size=5) | anything, max_size=5)


def problems_or_none(*tables: dict[str, Any]) -> tuple[str, ...] | None:
    """Return what is wrong with the tables, or None if they load, and then are complete."""
    try:
        config = merge(*tables)
    except ConfigError as error:
        return error.problems
    assert config.thing.name
    assert config.connection.endpoint
    return None


@settings(max_examples=60)
@given(st.lists(tables, max_size=3), st.booleans())
def test_any_files_either_load_or_are_refused_with_sentences(files: list[dict[str, Any]], complete: bool) -> None:
    said = problems_or_none(*([NEEDED] if complete else []), *files)
    if said is not None:
        assert len(said) == len(set(said)) > 0
        assert all(len(sentence.splitlines()) == 1 for sentence in said)


@given(st.sampled_from(sorted(KEYS.keys() - {"facts"})), anything)
def test_a_setting_that_loads_is_one_that_its_kind_takes(name: str, value: object) -> None:
    section, _, last = name.partition(".")
    table = {**NEEDED, section: {**NEEDED.get(section, {}), last: value}}
    if problems_or_none(table) is None:
        assert KEYS[name].kind.wrong(value) == ""
