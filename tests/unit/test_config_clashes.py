"""Settings that contradict each other are refused, with what to write instead, from files and when built by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from thingjobs.config import Authorizer, Cloud, Config, Connection, Pkcs11, Thing
from thingjobs.config.clashes import region_of
from thingjobs.config.judge import Source
from thingjobs.config.settle import Host, settle
from thingjobs.errors import ConfigError
from thingjobs.model import ThingName

FILE = Path("/etc/thingjobs/config.toml")
AWS = "abc-ats.iot.eu-west-1.amazonaws.com"
NONE: dict[str, Any] = {"certificate": "", "private_key": ""}
TOKEN: dict[str, Any] = {"transport": "awsiot", "pkcs11": {"module": "/m.so"}}
ALIAS: dict[str, Any] = {"role_alias": "device", "credentials_endpoint": "c.credentials.iot.eu-west-1.amazonaws.com"}


def settled(*sections: dict[str, Any], cloud: dict[str, Any] | None = None, **environment: str) -> Config:
    """Settle files with these sections [connection], the first with an endpoint where it has none."""
    first, *others = sections
    table = {"thing": {"name": "pump"}, "connection": {"endpoint": "localhost", **first}, "cloud": cloud or {}}
    sources = [Source(FILE, table), *(Source(FILE.parent / "conf.d/1.toml", {"connection": more}) for more in others)]
    return settle(sources, Host("host", environment))


def problems(*sections: dict[str, Any], cloud: dict[str, Any] | None = None) -> tuple[str, ...]:
    """Return what is wrong with files of which something must be."""
    with pytest.raises(ConfigError) as caught:
        settled(*sections, cloud=cloud)
    return caught.value.problems


@pytest.mark.parametrize(
    ("section", "what", "wrong"),
    [
        (
            {"transport": "https", "websocket": True},
            "connection.websocket = true",
            'transport "https" has no WebSocket; leave it out, or write transport = "paho"',
        ),
        (
            {"pkcs11": {"module": "/m.so"}},
            "connection.pkcs11",
            'only transport "awsiot" uses keys in tokens; write transport = "awsiot", or leave the section out',
        ),
        (
            {"authorizer": {}},
            "connection.authorizer",
            (
                'only transport "awsiot" shows tokens to authorizers; write transport = "awsiot", or leave '
                "the section out"
            ),
        ),
        (
            {"transport": "awsiot", "proxy": "socks5://user:hunter2@proxy:1080"},
            "connection.proxy",
            'transport "awsiot" goes through HTTP proxies only; write "http://host:port", or transport = "paho"',
        ),
        (
            {"transport": "awsiot", "mqtt_version": "3.1.1"},
            'connection.mqtt_version = "3.1.1"',
            'transport "awsiot" speaks MQTT 5 only; write 5, or transport = "paho"',
        ),
        (
            {"transport": "awsiot", "private_key_password_file": "/p"},
            'connection.private_key_password_file = "/p"',
            'transport "awsiot" takes no key with a password; write the key without one, or transport = "paho"',
        ),
        (
            {**TOKEN, "private_key": "/k"},
            'connection.private_key = "/k"',
            "the token has the key; leave private_key out",
        ),
        (
            {**TOKEN, "authorizer": {"name": "a"}},
            "connection.authorizer",
            "they say in two ways who this device is; keep one of the two",
        ),
        (
            {**TOKEN, "websocket": True, "region": "eu-west-1"},
            "connection.websocket = true",
            "AWS credentials sign a WebSocket, and no key of a token does; keep one of the two",
        ),
        (
            {**TOKEN, "certificate": ""},
            'connection.certificate = ""',
            'a key in a token needs its certificate; write certificate = "/etc/thingjobs/device.pem"',
        ),
        (
            {**NONE, "private_key_password_file": "/p"},
            'connection.private_key_password_file = "/p"',
            "there is no private key that needs it; leave it out, or write private_key",
        ),
        (
            {"transport": "awsiot", "authorizer": {"token_key": "t"}},
            'connection.authorizer.token_key = "t"',
            "a token has a name and a file; write both, or neither",
        ),
        (
            {"transport": "awsiot", "authorizer": {"token_file": "/t"}},
            'connection.authorizer.token_file = "/t"',
            "a token has a name and a file; write both, or neither",
        ),
        (
            {"transport": "awsiot", "authorizer": {"signature_file": "/s"}},
            'connection.authorizer.signature_file = "/s"',
            "a signature is that of a token; write token_key and token_file, too",
        ),
        (
            {"websocket": True, "transport": "awsiot"},
            'connection.endpoint = "localhost"',
            'it does not say for which region is to be signed; write region = "eu-west-1" below it',
        ),
        (
            {**NONE, "transport": "https"},
            'connection.endpoint = "localhost"',
            'it does not say for which region is to be signed; write region = "eu-west-1" below it',
        ),
        (
            {**NONE, "endpoint": AWS},
            'connection.certificate = ""',
            "AWS IoT wants a certificate here; write certificate and private_key, or websocket = true",
        ),
        (
            {"endpoint": AWS, "port": 8443},
            "connection.port = 8443",
            "AWS IoT has MQTT with a certificate on port 8883 or 443; write port = 8883",
        ),
        (
            {"endpoint": f"{AWS}:8883", "transport": "https"},
            f'connection.endpoint = "{AWS}:8883"',
            "AWS IoT has HTTPS with a certificate on port 8443 or 443; write port = 8443",
        ),
        (
            {**NONE, "endpoint": AWS, "port": 8443, "transport": "https"},
            "connection.port = 8443",
            "AWS IoT has signed HTTPS on port 443; write port = 443",
        ),
        (
            {"endpoint": AWS, "port": 8883, "websocket": True},
            "connection.port = 8883",
            "AWS IoT has MQTT over WebSocket on port 443; write port = 443",
        ),
        (
            {"endpoint": AWS, "port": 8883, "transport": "awsiot", "authorizer": {}},
            "connection.port = 8883",
            "AWS IoT has MQTT with a custom authorizer on port 443; write port = 443",
        ),
    ],
)
def test_what_makes_no_sense_together_is_told_with_what_to_write_instead(
    section: dict[str, Any], what: str, wrong: str
) -> None:
    assert problems(section) == (f"{what} (in {FILE}): {wrong}",)


def test_a_token_without_its_library_is_told_with_an_example() -> None:
    (said,) = problems({"transport": "awsiot", "pkcs11": {"pin_file": "/p"}})
    assert said == (
        f"connection.pkcs11.module is missing (in {FILE}); write module = "
        '"/usr/lib/pkcs11/libtpm2_pkcs11.so" in the section [connection.pkcs11]'
    )


@pytest.mark.parametrize(
    ("section", "port", "signs"),
    [
        ({}, 8883, False),
        ({"transport": "awsiot"}, 8883, False),
        ({"transport": "https"}, 8443, False),
        ({"transport": "https", **NONE}, 443, True),
        ({"websocket": True}, 443, True),
        ({"websocket": True, "transport": "awsiot", "authorizer": {"username": "u"}}, 443, False),
        ({"transport": "awsiot", "authorizer": {}}, 443, False),
        (TOKEN, 8883, False),
        ({**TOKEN, "port": 443}, 443, False),
        ({"transport": "https", "port": 443}, 443, False),
        ({"proxy": "socks5://proxy:1080"}, 8883, False),
        ({"private_key_password_file": "/p", "tls_min": "1.3"}, 8883, False),
    ],
)
def test_each_way_to_aws_has_its_usual_port(section: dict[str, Any], port: int, signs: bool) -> None:
    connection = settled({"endpoint": AWS, **section}).connection
    assert (connection.port, connection.signs, connection.region) == (port, signs, "eu-west-1" if signs else "")


def test_the_usual_certificate_is_not_meant_where_something_else_says_who_the_device_is() -> None:
    files = {name: Path(f"/etc/thingjobs/device.{name}") for name in ("pem", "key")}

    def shown(*sections: dict[str, Any], cloud: dict[str, Any] | None = None) -> tuple[Path | None, Path | None]:
        connection = settled({"endpoint": AWS, **sections[0]}, *sections[1:], cloud=cloud).connection
        return connection.certificate, connection.private_key

    assert shown({}) == (files["pem"], files["key"])
    assert shown({"websocket": True}) == (None, None)
    assert shown({"transport": "awsiot", "authorizer": {}}) == (None, None)
    assert shown(TOKEN) == (files["pem"], None)
    own = {"endpoint": "broker.example.com", "websocket": True}
    assert shown(own) == (files["pem"], files["key"]), "a broker of one's own is shown it"
    assert shown({**own, "region": "eu-west-1"}) == (None, None)
    assert shown({"websocket": True}, cloud=ALIAS) == (files["pem"], files["key"]), "the role alias needs them"


def test_a_role_alias_needs_a_certificate_and_a_key_in_files() -> None:
    for section in ({"endpoint": AWS, **TOKEN}, {"endpoint": "localhost", **NONE}):
        (said,) = problems(section, cloud=ALIAS)
        assert said.startswith(f'cloud.role_alias = "device" (in {FILE}): it gives credentials to a certificate and ')


def test_a_role_alias_needs_a_key_without_a_password() -> None:
    (said,) = problems({"endpoint": AWS, "private_key_password_file": "/p"}, cloud=ALIAS)
    assert said.startswith(f'connection.private_key_password_file = "/p" (in {FILE}): the credentials of a role alias')


def test_the_name_of_an_authorizer_has_no_letters_but_those_of_ascii() -> None:
    (said,) = problems({"endpoint": AWS, "transport": "awsiot", "authorizer": {"name": "übung"}})
    assert "must be the name of a custom authorizer, 1 to 128 of a-z A-Z 0-9" in said


def test_a_certificate_that_is_shown_to_nobody_is_told() -> None:
    for section in ({"websocket": True}, {"transport": "awsiot", "authorizer": {}}):
        (said,) = problems({"endpoint": AWS, "certificate": "/c", "private_key": "/k", **section})
        assert said.startswith(f'connection.certificate = "/c" (in {FILE}): nobody is shown a certificate on this way')


def test_the_region_is_that_to_sign_for_the_one_written_or_that_of_the_endpoint() -> None:
    signed = {"websocket": True}
    assert settled({"endpoint": AWS, "region": "us-east-1", **signed}).connection.region == "us-east-1"
    assert settled({"endpoint": AWS, **signed}, cloud={"region": "us-east-1"}).connection.region == "eu-west-1"
    assert settled({"region": "us-east-1", **signed}).connection.signs
    others = settled(signed, cloud={"region": "us-east-1"}, AWS_REGION="us-east-1").connection
    assert (others.region, others.signs, others.shows_certificate) == ("", False, True)
    assert settled({"endpoint": AWS, "region": "us-east-1"}).connection.region == "", "nothing is signed"


@pytest.mark.parametrize(
    ("endpoint", "region"),
    [
        (AWS, "eu-west-1"),
        (AWS.upper(), "eu-west-1"),
        ("abc.iot-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("abc.ats.iot.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("vpce-1-abc.iot.eu-west-1.vpce.amazonaws.com", "eu-west-1"),
        ("abc-ats.iot.us-isob-east-1.sc2s.sgov.gov", "us-isob-east-1"),
        ("abc-ats.iot.eu-west-1.api.aws", "eu-west-1"),
        ("iot.example.com", ""),
        ("broker.iot.my-company-1.example.com", ""),
        ("abc.iot.eu-west-1.amazonaws.com.example.com", ""),
        ("localhost", ""),
        ("", ""),
    ],
)
def test_the_endpoint_of_an_account_says_its_region(endpoint: str, region: str) -> None:
    assert region_of(endpoint) == region


def test_a_contradiction_between_two_files_is_told_with_the_one_that_wrote_it() -> None:
    (said,) = problems({"websocket": True, "region": "eu-west-1"}, {"transport": "https"})
    assert said.startswith(f"connection.websocket = true (in {FILE}): ")
    (said,) = problems({"transport": "https"}, {"pkcs11": {"module": "/m.so"}})
    assert said.startswith(f"connection.pkcs11 (in {FILE.parent}/conf.d/1.toml): ")


def test_nothing_is_said_to_contradict_a_setting_that_was_refused() -> None:
    for wrong in ({"transport": "awsIoT", "pkcs11": {"module": "/m"}}, {"transport": "https", "websocket": 1}):
        (said,) = problems(wrong)
        assert ": must be " in said


def test_all_contradictions_are_told_at_once() -> None:
    said = problems({**TOKEN, "transport": "https", "websocket": True, "private_key_password_file": "/p"})
    assert [line.partition(" ")[0] for line in said] == [
        "connection.websocket",
        "connection.pkcs11",
        "connection.private_key_password_file",
    ]


def test_a_section_within_a_section_is_one_and_no_other_name_for_it_is_taken() -> None:
    (said,) = problems({"pkcs11": "/m.so"})
    assert said.startswith('connection.pkcs11 = "/m.so"')
    assert "write [connection.pkcs11], once, and its keys below it" in said
    (said,) = problems({**TOKEN, "pkcs11": {"module": "/m", "zzz": "1234"}})
    assert said == (
        f"connection.pkcs11.zzz (in {FILE}) is not a setting; "
        "the settings of [connection.pkcs11] are module, pin_file, token, key"
    )
    with pytest.raises(ConfigError, match=r"is not a section"):
        settle([Source(FILE, {"connection.pkcs11": {"module": "/m"}})], Host("host", {}, connected=False))


def test_what_contradicts_itself_cannot_be_built_by_hand_either() -> None:
    good = Connection(AWS)
    with pytest.raises(ConfigError, match=r"^connection\.pkcs11: only transport"):
        replace(good, private_key=None, pkcs11=Pkcs11(Path("/m.so")))
    with pytest.raises(ConfigError, match=r"^connection\.authorizer: only transport"):
        replace(good, port=443, authorizer=Authorizer())
    with pytest.raises(ConfigError, match=r"^cloud\.role_alias: it gives"):
        Config(Thing(ThingName("p")), Connection("localhost", certificate=None, private_key=None), cloud=Cloud(**ALIAS))
