"""The AWS account that all of it happens in: whose credentials, which region, which endpoints.

The credentials are the standard ones, found by boto3 as the AWS CLI finds them.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from tests.aws.made import said

from thingjobs.cloud.credentials import Credentials

if TYPE_CHECKING:
    from pathlib import Path

    from tests.aws.transcript import Transcript

#: Answers within half a minute, or not at all.
_PATIENCE = Config(connect_timeout=5, read_timeout=15, retries={"max_attempts": 3, "mode": "standard"})


class CannotBeginError(Exception):
    """Something is missing without which nothing can be asked; the message says what, and how to get it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line says of the account.

    Attributes:
        endpoint_url: of an emulator that has all services; "": AWS.
        mqtt: HOST:PORT of its MQTT over mutual TLS; "": as the service says.
        ca: what to trust; None: what the system trusts.
    """

    region: str = ""
    endpoint_url: str = ""
    mqtt: str = ""
    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """An account in a region.

    Attributes:
        credentials: as they were at the beginning.
        number: the 12 digits.
        data: the host of MQTT and HTTPS for devices (iot:Data-ATS).
        mqtt: the host and port of MQTT over mutual TLS.
        endpoint_url: of an emulator; "": it is AWS.
    """

    session: Any
    credentials: Credentials
    region: str
    number: str
    data: str
    mqtt: tuple[str, int]
    endpoint_url: str
    ca: Path | None

    @property
    def emulated(self) -> bool:
        return bool(self.endpoint_url)

    def client(self, service: str, transcript: Transcript) -> Any:
        """Return a client of a service; the transcript is told of each operation."""
        made = self.session.client(
            service, region_name=self.region, endpoint_url=self.endpoint_url or None, config=_PATIENCE
        )

        def note(http_response: Any, parsed: Any, model: Any, **_: Any) -> None:
            error = parsed.get("Error", {}) if isinstance(parsed, dict) else {}
            more = " ".join(filter(None, (str(error.get("Code", "")), str(error.get("Message", "")))))
            transcript.note(f"  {service} {model.name}: {http_response.status_code} {more}".rstrip())

        made.meta.events.register("after-call.*", note)
        return made

    def tls(self, certificate: Path, key: Path, alpn: str = "") -> ssl.SSLContext:
        """Return how to speak TLS as a device."""
        context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        context.load_cert_chain(certificate, key)
        if alpn:
            context.set_alpn_protocols([alpn])
        return context


def open_account(wanted: Wanted, transcript: Transcript) -> Account:
    """Find credentials, region, account and endpoints; the transcript learns what to hide.

    Raises:
        CannotBeginError: one of them is missing, or AWS does not take the credentials.
    """
    host, colon, port = wanted.mqtt.rpartition(":")
    if wanted.mqtt and not (host and colon and port.isdecimal()):
        raise CannotBeginError(f"--mqtt {wanted.mqtt} is no HOST:PORT")
    if wanted.ca is not None and not wanted.ca.is_file():
        raise CannotBeginError(f"--ca {wanted.ca}: there is no such file")
    try:
        session = boto3.session.Session()
        found = session.get_credentials()
        region = wanted.region or session.region_name
        frozen = found.get_frozen_credentials() if found else None
    except BotoCoreError as error:
        raise CannotBeginError(f"cannot find AWS credentials: {said(error)}") from None
    if frozen is None:
        raise CannotBeginError(
            "cannot find AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run "
            "`aws configure`"
        )
    if not region:
        raise CannotBeginError("no region is known: give --region, or set AWS_REGION, for example to eu-west-1")
    credentials = Credentials(frozen.access_key, frozen.secret_key, frozen.token or "")
    transcript.hide(credentials.access_key_id, "<key id>")
    transcript.hide(credentials.secret_access_key, "<secret key>")
    transcript.hide(credentials.session_token, "<session token>")
    return _asked(wanted, session, region, credentials, transcript)


def _asked(wanted: Wanted, session: Any, region: str, credentials: Credentials, transcript: Transcript) -> Account:
    bare = Account(session, credentials, region, "", "", ("", 0), wanted.endpoint_url, wanted.ca)
    try:
        number = bare.client("sts", transcript).get_caller_identity()["Account"]
        transcript.hide(number, "<account>")
        data = bare.client("iot", transcript).describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
    except (BotoCoreError, ClientError) as error:
        raise CannotBeginError(f"cannot use the AWS credentials: {said(error)}") from None
    transcript.hide(data, "<endpoint>")
    transcript.hide(data.partition(".")[0], "<endpoint>")
    transcript.hide(data.partition("-ats.")[0], "<endpoint>")
    host, _, port = wanted.mqtt.rpartition(":")
    mqtt = (host, int(port)) if wanted.mqtt else (data, 8883)
    return Account(session, credentials, region, number, data, mqtt, wanted.endpoint_url, wanted.ca)
