"""The AWS IoT credentials provider over real mutual TLS: what it gives, and what each of its refusals means."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from thingjobs.cloud.credentials import Keeper
from thingjobs.cloud.errors import CloudError, Fate, Trouble
from thingjobs.cloud.role_alias import RoleAlias, ask, source

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Pki
    from tests.integration.cloud.conftest import Provider


@pytest.fixture
def role(provider: Provider, pki: Pki) -> RoleAlias:
    certificate, key = pki.device("pump-7")
    return RoleAlias(provider.endpoint, "device-role", certificate, key, "pump-7", pki.ca)


def answer_of(token: object = "t", expiration: str = "2099-01-01T00:00:00Z") -> bytes:
    keys = {"accessKeyId": "A", "secretAccessKey": "hush", "sessionToken": token, "expiration": expiration}
    return json.dumps({"credentials": keys}).encode()


def changed(role: RoleAlias, **fields: Any) -> RoleAlias:
    import dataclasses

    return dataclasses.replace(role, **fields)


def test_a_device_gets_credentials_for_its_certificate(provider: Provider, role: RoleAlias) -> None:
    issued = ask(role)

    assert provider.seen == [("/role-aliases/device-role/credentials", "pump-7", "pump-7")]
    assert issued.credentials.access_key_id == "ASIA1"
    assert (issued.credentials.secret_access_key, issued.credentials.session_token) == ("hush", "hush/token")
    assert issued.credentials.expires
    assert issued.life == pytest.approx(3600, abs=5)
    assert "hush" not in repr(issued)


def test_the_thing_is_named_only_if_there_is_a_name(provider: Provider, role: RoleAlias) -> None:
    ask(changed(role, thing_name="", alias="Role_=,@-1"))

    assert provider.seen == [("/role-aliases/Role_=,@-1/credentials", None, "pump-7")]


@pytest.mark.parametrize("ahead", [-86400, 86400])
def test_how_long_they_live_is_counted_by_the_clock_of_the_service(
    provider: Provider, role: RoleAlias, ahead: int
) -> None:
    provider.ahead = ahead

    assert ask(role).life == pytest.approx(3600, abs=5)


def test_without_a_date_our_clock_must_do(provider: Provider, role: RoleAlias) -> None:
    provider.ahead = None
    assert ask(role).life == pytest.approx(3600, abs=5)

    provider.life = -10
    with pytest.raises(CloudError, match="expired already by this device's clock: set the clock") as e:
        ask(role)
    assert e.value.trouble is Trouble.CLOCK


@pytest.mark.parametrize(
    ("status", "message", "trouble", "fix"),
    [
        (403, "Invalid thing name passed", Trouble.DENIED, "attach the thing to this certificate"),
        (403, "Access Denied", Trouble.DENIED, "allows iot:AssumeRoleWithCertificate .* ACTIVE .* attached"),
        (403, "Certificate is invalid on this endpoint", Trouble.DENIED, "describe-endpoint .*CredentialProvider"),
        (404, "Role alias does not exist", Trouble.NOT_FOUND, "capitals count: set cloud.role_alias"),
        (400, "Unable to assume the role", Trouble.REJECTED, "trust credentials.iot.amazonaws.com"),
        (
            400,
            "CredentialDurationSeconds exceeds the MaxSessionDuration",
            Trouble.REJECTED,
            "lower the role alias's credentialDurationSeconds",
        ),
        (418, "short and stout", Trouble.REJECTED, "short and stout; see what it says"),
        (429, "Rate exceeded", Trouble.THROTTLED, "it is tried again"),
        (503, "", Trouble.UNAVAILABLE, "AWS IoT answers 503; it is tried again"),
    ],
)
def test_each_refusal_says_what_to_do(
    provider: Provider, role: RoleAlias, status: int, message: str, trouble: Trouble, fix: str
) -> None:
    provider.says.append((status, json.dumps({"message": message}).encode() if message else b""))

    with pytest.raises(CloudError, match=f"cannot get credentials for the role alias device-role: .*{fix}") as e:
        ask(role)

    assert (e.value.trouble, e.value.status, e.value.fate) == (trouble, status, Fate.NOT_SENT)
    assert message in str(e.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"credentials": null}',
        answer_of(token=7),
        answer_of(expiration="soon"),
        answer_of(token="hush\r\n", expiration="2099-01-01"),
        b"[" * 100_000,
    ],
)
def test_nonsense_is_called_that(provider: Provider, role: RoleAlias, body: bytes) -> None:
    provider.says.append((200, body))

    with pytest.raises(CloudError, match="brings no credentials; is that the host of the credentials provider") as e:
        ask(role)

    assert e.value.trouble is Trouble.NONSENSE
    assert "hush" not in str(e.value)


def test_a_certificate_that_the_service_does_not_know_is_refused(
    provider: Provider, role: RoleAlias, tmp_path_factory: pytest.TempPathFactory, pki: Pki
) -> None:
    certificate, key = type(pki)(tmp_path_factory.mktemp("another")).device("pump-7")

    with pytest.raises(CloudError, match=r"TLS failed: .*does the service know this device.s certificate") as e:
        ask(changed(role, certificate=certificate, private_key=key))

    assert (e.value.trouble, e.value.fate, provider.seen) == (Trouble.UNREACHABLE, Fate.NOT_SENT, [])


def test_a_server_that_we_do_not_trust_gets_nothing(provider: Provider, role: RoleAlias) -> None:
    with pytest.raises(CloudError, match=r"certificate is refused: .*connection.ca") as e:
        ask(changed(role, ca=None))

    assert (e.value.fate, provider.seen) == (Fate.NOT_SENT, [])


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"alias": "a/b"}, "no name of a role alias; set cloud.role_alias"),
        ({"endpoint": "ex ample"}, "set cloud.credentials_endpoint|cannot be used"),
        ({"thing_name": "pump\r\n7"}, "the thing's name is none"),
    ],
)
def test_what_cannot_be_asked_is_not(provider: Provider, role: RoleAlias, fields: dict[str, str], why: str) -> None:
    with pytest.raises(CloudError, match=why) as e:
        ask(changed(role, **fields))

    assert (e.value.trouble, provider.seen) == (Trouble.INPUT, [])


def test_a_missing_certificate_is_named(role: RoleAlias, tmp_path: Path) -> None:
    with pytest.raises(CloudError, match=r"cannot get credentials .*gone.pem"):
        ask(changed(role, certificate=tmp_path / "gone.pem"))


def test_many_threads_ask_once(provider: Provider, role: RoleAlias) -> None:
    keeper = Keeper(source(role))
    provider.gate.clear()
    got: list[str] = []
    threads = [threading.Thread(target=lambda: got.append(keeper.current().access_key_id)) for _ in range(8)]

    for thread in threads:
        thread.start()
    provider.gate.set()
    for thread in threads:
        thread.join(10)

    assert got == ["ASIA1"] * 8
    assert len(provider.seen) == 1
