"""Credentials from the AWS IoT credentials provider: the device's certificate in, a role's credentials out.

Source: "Authorizing direct calls to AWS services using AWS IoT Core credential provider" in the AWS IoT Core developer
guide: `GET https://ENDPOINT/role-aliases/ALIAS/credentials` over mutual TLS.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from thingjobs.cloud.credentials import Credentials, Issued
from thingjobs.cloud.errors import CloudError, Fate, Trouble, unusable
from thingjobs.cloud.replies import by_status
from thingjobs.cloud.words import plain, seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from thingjobs.cloud.calls import Reply

_PURPOSE = "get credentials for the role alias {}"
_ALIAS = re.compile(r"[A-Za-z0-9_=,@-]{1,128}")
#: What people must do, by status and by words in the service's message; the documentation lists no codes for these.
_FIXES = (
    (403, "thing name", "attach the thing to this certificate (aws iot attach-thing-principal), or correct thing.name"),
    (403, "endpoint", "the certificate is of another account or region: set cloud.credentials_endpoint to {endpoint}"),
    (403, "", "{policy}; see that the certificate is ACTIVE and that the thing that is named is attached to it"),
    (404, "", "that account has no role alias of this name in that region, and capitals count: set cloud.role_alias"),
    (400, "duration", "lower the role alias's credentialDurationSeconds, or raise the role's MaxSessionDuration"),
    (400, "", "the role of the role alias must exist and trust credentials.iot.amazonaws.com"),
)
_LATER = (429, *range(500, 600))
_ENDPOINT = "what `aws iot describe-endpoint --endpoint-type iot:CredentialProvider` prints there"
_POLICY = "attach a policy to this certificate that allows iot:AssumeRoleWithCertificate on the role alias"


@dataclass(frozen=True, slots=True)
class RoleAlias:
    """Who asks whom for what.

    Attributes:
        endpoint: the host, with `:PORT` if it is not 443.
        alias: the name of the role alias.
        certificate: the device's.
        private_key: its key.
        thing_name: is sent along if it is not empty; the service then wants it to be attached to the certificate, and
            gives it to policies as `credentials-iot:ThingName`.
        ca: what to trust; None: what requests brings.
        proxy: a URL; "": what the environment says.
    """

    endpoint: str
    alias: str
    certificate: Path
    private_key: Path
    thing_name: str = ""
    ca: Path | None = None
    proxy: str = field(default="", repr=False)

    @property
    def purpose(self) -> str:
        """What is asked for, as the rest of a sentence that begins with "cannot"."""
        return _PURPOSE.format(self.alias)


def source(role: RoleAlias) -> Callable[[], Issued]:
    """Return what `credentials.Keeper` asks.

    It raises CloudError: the service cannot be reached or refuses; the message says what to do.
    """
    return lambda: ask(role)


def ask(role: RoleAlias) -> Issued:
    """Ask once.

    Raises:
        CloudError: the service cannot be reached or refuses; fate is not-sent, as nothing that needs them was.
    """
    import requests  # noqa: PLC0415 - the rest of this module is read by those that send nothing

    from thingjobs.cloud.web import Line, send  # noqa: PLC0415

    if not _ALIAS.fullmatch(role.alias):
        raise unusable(role.purpose, "that is no name of a role alias; set cloud.role_alias")
    url = f"https://{role.endpoint}/role-aliases/{role.alias}/credentials"
    headers = {"x-amzn-iot-thingname": role.thing_name} if role.thing_name else {}
    line = Line(ca=role.ca, identity=(role.certificate, role.private_key), proxy=role.proxy)
    try:
        reply = send(requests.Request("GET", url, headers=headers).prepare(), line, role.purpose)
    except (requests.RequestException, UnicodeError):
        wrong = f"{role.endpoint!r} is no host, or the thing's name is none; set cloud.credentials_endpoint"
        raise unusable(role.purpose, wrong) from None
    except CloudError as error:
        why = str(error).removesuffix("; it may have been carried out all the same")
        raise CloudError(why, error.trouble, Fate.NOT_SENT) from None
    return read(reply, role)


def read(reply: Reply, role: RoleAlias) -> Issued:
    """Read an answer. Pure.

    How long they live is counted by the service's clock, if its answer says what time it is there; by ours else.

    Raises:
        CloudError: it brings no credentials.
    """
    if reply.status != 200:
        raise _refusal(reply, role)
    try:
        found = json.loads(reply.body)["credentials"]
        key, secret, token = (_text(found, name) for name in ("accessKeyId", "secretAccessKey", "sessionToken"))
        expires = datetime.fromisoformat(_text(found, "expiration"))
        expires = expires.replace(tzinfo=UTC) if expires.tzinfo is None else expires
        credentials = Credentials(key, secret, token, expires)
    except (ValueError, TypeError, KeyError, RecursionError):
        wrong = "the answer brings no credentials; is that the host of the credentials provider?"
        raise _error(role, wrong, Trouble.NONSENSE, reply) from None
    theirs = seconds_of(reply.headers.get("date", ""))
    life = expires.timestamp() - (reply.received if theirs is None else theirs)
    if life > 0:
        return Issued(credentials, life)
    if theirs is None:
        wrong = "what it gives has expired already by this device's clock: set the clock"
        raise _error(role, wrong, Trouble.CLOCK, reply)
    raise _error(role, "what it gives has expired already by its own clock; see what it says", Trouble.NONSENSE, reply)


def _text(found: Any, name: str) -> str:
    value = found[name]
    if not isinstance(value, str) or not value:
        raise ValueError(name)
    return value


def _refusal(reply: Reply, role: RoleAlias) -> CloudError:
    said = plain(_message(reply.body))
    known = (fix for status, words, fix in _FIXES if status == reply.status and words in said.lower())
    fix = next(known, "it is tried again" if reply.status in _LATER else "see what it says")
    fix = fix.format(endpoint=_ENDPOINT, policy=_POLICY)
    return _error(role, f"AWS IoT answers {reply.status}{said and ': '}{said}; {fix}", by_status(reply.status), reply)


def _message(body: bytes) -> str:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    message = said.get("message") or said.get("Message") if isinstance(said, dict) else None
    return message if isinstance(message, str) else ""


def _error(role: RoleAlias, why: str, trouble: Trouble, reply: Reply) -> CloudError:
    return CloudError(f"cannot {role.purpose}: {why}", trouble, Fate.NOT_SENT, status=reply.status)
