"""Settings that contradict each other: each is right by itself, and together they make no sense. Pure.

The rules are one table; `settings` applies it to whatever is built, and `settle` says it with the file's name.
Sources: AWS IoT Core, "Device communication protocols" (ports, ALPN, who may use which), and what each library can do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thingjobs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thingjobs.config.settings import Cloud, Connection

    #: The keys of [connection] that take part, with blanks between, and what is wrong.
    Found = Iterator[tuple[str, str]]

#: The account's data endpoint, which says its region; custom domains and other brokers do not look like it. The ends
#: are those of AWS's partitions, IPv4 and dual-stack, with what private links (VPC endpoints) put before them.
_AWS_HOST = re.compile(
    r"\.iot(?:-fips)?\.([a-z]+(?:-[a-z]+)+-[0-9]+)\.(?:vpce\.)?"
    r"(?:amazonaws\.(?:com(?:\.cn)?|eu)|api\.(?:aws|amazonwebservices)(?:\.[a-z.]+)?|"
    r"[a-z0-9.-]+\.(?:(?:ic|sgov)\.gov|adc-e\.uk))\Z"
)
_ONE = "they say in two ways who this device is; keep one of the two"


@dataclass(frozen=True, slots=True)
class Clash:
    """One contradiction.

    Attributes:
        keys: the settings that take part in it; the first one that somebody wrote is to blame.
        wrong: what is wrong and what to write instead, as the rest of a sentence.
    """

    keys: tuple[str, ...]
    wrong: str


class ClashError(ConfigError):
    """Settings contradict each other.

    Attributes:
        clashes: never empty.
    """

    def __init__(self, clashes: tuple[Clash, ...]) -> None:
        super().__init__([f"{clash.keys[0]}: {clash.wrong}" for clash in clashes])
        self.clashes = clashes


def region_of(endpoint: str) -> str:
    """Return the region of an endpoint of AWS IoT; "" where the host's name does not say it."""
    found = _AWS_HOST.search(endpoint.lower())
    return found[1] if found else ""


def usual_port(*, https: bool, special: bool) -> int:
    """Return the port that AWS IoT has for this way; which ALPN there is on 443 follows from it.

    Args:
        https: or MQTT.
        special: something else than a certificate says who the device is, or it is a WebSocket.
    """
    if special:
        return 443
    return 8443 if https else 8883


def clashes(connection: Connection) -> tuple[Clash, ...]:
    """Return what contradicts itself in how the service is reached."""
    found = (*_transports(connection), *_identities(connection), *_authorizers(connection), *_aws(connection))
    return tuple(Clash(tuple(f"connection.{key}" for key in keys.split()), wrong) for keys, wrong in found)


def clashes_between(connection: Connection, cloud: Cloud) -> tuple[Clash, ...]:
    """Return what of the connection and the cloud bridge does not go together."""
    if cloud.role_alias and not (connection.certificate and connection.private_key):
        wrong = (
            "it gives credentials to a certificate and a private key in files, and connection.certificate or "
            "connection.private_key is not set; set both, or leave role_alias and credentials_endpoint out and give "
            "credentials by the standard AWS environment"
        )
        return (Clash(("cloud.role_alias",), wrong),)
    if cloud.role_alias and connection.private_key_password_file:
        wrong = (
            "the credentials of a role alias are asked for with the private key, and for that it must have no "
            "password; write the key without one, or leave role_alias and credentials_endpoint out"
        )
        return (Clash(("connection.private_key_password_file", "cloud.role_alias"), wrong),)
    if connection.certificate and not connection.shows_certificate and not cloud.role_alias:
        wrong = "nobody is shown a certificate on this way: something else says who the device is; leave it out"
        keys = ("connection.certificate", "connection.private_key", "connection.websocket")
        return (Clash(keys, f"{wrong}, and private_key"),)
    return ()


def _transports(c: Connection) -> Found:
    """What a transport cannot do."""
    awsiot = c.transport == "awsiot"
    rules = (
        (
            c.websocket and c.transport == "https",
            *("websocket transport", 'transport "https" has no WebSocket; leave it out, or write transport = "paho"'),
        ),
        (
            c.pkcs11 and not awsiot,
            "pkcs11 transport",
            'only transport "awsiot" uses keys in tokens; write transport = "awsiot", or leave the section out',
        ),
        (
            c.authorizer and not awsiot,
            "authorizer transport",
            'only transport "awsiot" shows tokens to authorizers; write transport = "awsiot", or leave the section out',
        ),
        (
            awsiot and c.proxy.startswith("socks"),
            "proxy transport",
            'transport "awsiot" goes through HTTP proxies only; write "http://host:port", or transport = "paho"',
        ),
        (
            awsiot and c.mqtt_version != 5,
            *("mqtt_version transport", 'transport "awsiot" speaks MQTT 5 only; write 5, or transport = "paho"'),
        ),
        (
            awsiot and c.private_key_password_file,
            "private_key_password_file transport",
            'transport "awsiot" takes no key with a password; write the key without one, or transport = "paho"',
        ),
    )
    return ((keys, wrong) for applies, keys, wrong in rules if applies)


def _identities(c: Connection) -> Found:
    """What says twice, or by halves, who the device is."""
    both = 'write both, for example {} = "/etc/thingjobs/device.{}"'
    rules = (
        (c.pkcs11 and c.private_key, "private_key pkcs11", "the token has the key; leave private_key out"),
        (c.pkcs11 and c.authorizer, "authorizer pkcs11", _ONE),
        (
            c.pkcs11 and c.websocket,
            "websocket pkcs11",
            "AWS credentials sign a WebSocket, and no key of a token does; keep one of the two",
        ),
        (
            c.pkcs11 and not c.certificate,
            "certificate pkcs11",
            'a key in a token needs its certificate; write certificate = "/etc/thingjobs/device.pem"',
        ),
        (
            c.private_key and not c.certificate,
            "certificate private_key",
            "connection.private_key is of no use without connection.certificate; "
            + both.format("connection.certificate", "pem"),
        ),
        (
            c.certificate and not c.private_key and not c.pkcs11,
            "private_key certificate",
            "connection.certificate is of no use without connection.private_key; "
            + both.format("connection.private_key", "key"),
        ),
        (
            c.private_key_password_file and not c.private_key,
            "private_key_password_file private_key",
            "there is no private key that needs it; leave it out, or write private_key",
        ),
    )
    return ((keys, wrong) for applies, keys, wrong in rules if applies)


def _authorizers(c: Connection) -> Found:
    """What a custom authorizer is shown by halves."""
    if c.authorizer is None:
        return
    shown = c.authorizer
    if bool(shown.token_key) != bool(shown.token_file):
        yield "authorizer.token_key authorizer.token_file", "a token has a name and a file; write both, or neither"
    if shown.signature_file and not shown.token_file:
        yield "authorizer.signature_file", "a signature is that of a token; write token_key and token_file, too"


def _aws(c: Connection) -> Found:
    """What AWS IoT does not have on the way that is configured."""
    if c.endpoint and c.signs and not c.region:
        wrong = 'it does not say for which region is to be signed; write region = "eu-west-1" below it'
        yield "endpoint region", wrong
    if not region_of(c.endpoint):
        return
    if not (c.certificate or c.signs or c.authorizer):
        yield (
            "certificate endpoint",
            "AWS IoT wants a certificate here; write certificate and private_key, or websocket = true",
        )
    way, ports = _ports(c)
    if c.port not in ports:
        yield "port endpoint", f"AWS IoT has {way} on port {' or '.join(map(str, ports))}; write port = {ports[0]}"


def _ports(c: Connection) -> tuple[str, tuple[int, ...]]:
    """Return what this way is called and the ports that AWS IoT has for it, the usual one first."""
    if c.transport == "https":
        return ("signed HTTPS", (443,)) if c.signs else ("HTTPS with a certificate", (8443, 443))
    if c.websocket:
        return "MQTT over WebSocket", (443,)
    if c.authorizer is not None:
        return "MQTT with a custom authorizer", (443,)
    return "MQTT with a certificate", (8883, 443)
