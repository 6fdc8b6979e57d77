"""The keys of [connection] and of the sections in it: how the Jobs service is reached, and who the device is."""

from __future__ import annotations

from thingjobs.config.key import AWS_NAME, ENDPOINT, HOST, REGION, Key
from thingjobs.config.kinds import LINE, choice, number, path, switch, text


def connecting() -> tuple[Key, ...]:
    """Return the keys in the order of the file."""
    return (*_connection(), *_identity(), *_authorizer(), *_pkcs11())


def _connection() -> tuple[Key, ...]:
    client_id = text(
        "a client id without $ in front and without * ? or braces, but for {thing}, the thing's name",
        # Policies give * and ? a meaning of their own, so that none could name just this client.
        r"(?!\$)(?:\{thing\}|[^{}*?\x00-\x1f\x7f])+",
    )
    proxy = text(
        "http://[user:password@]host:port, the same with socks5://, or empty",
        rf"(?:(?:http|socks5)://(?:[^\x00-\x20\x7f@/]+@)?{HOST})?",
    )
    return (
        Key(
            "connection.transport",
            choice("paho", "awsiot", "https"),
            "How the Jobs service is reached.",
            "paho",
        ),
        Key(
            "connection.endpoint",
            text(ENDPOINT, HOST),
            "The account's data endpoint: aws iot describe-endpoint --endpoint-type iot:Data-ATS.",
            "abc-ats.iot.eu-west-1.amazonaws.com",
        ),
        Key(
            "connection.port",
            number(1, 65535),
            "The port; the default is 8443 with transport https, and 443 where nothing but 443 will do.",
            8883,
        ),
        Key("connection.client_id", client_id, "The MQTT client id, at most 128 bytes.", "{thing}"),
        Key(
            "connection.keep_alive_seconds",
            number(30, 1200, "seconds"),  # AWS IoT Core quotas: other values are silently changed to these
            "How often an idle connection is tried out.",
            300,
        ),
        Key("connection.mqtt_version", choice(5, "3.1.1"), "The version of MQTT to speak.", 5),
        Key(
            "connection.websocket",
            switch(),
            "MQTT over WebSocket; to AWS signed with credentials of the standard AWS environment.",
            False,  # noqa: FBT003 - an example
        ),
        Key(
            "connection.proxy",
            proxy,
            "The proxy to go through.",
            "http://proxy.example.com:3128",
            secret=True,
        ),
        Key("connection.tls_min", choice("1.2", "1.3"), "The oldest version of TLS that is good enough.", "1.2"),
        Key(
            "connection.region",
            REGION,
            "The region to sign for, without a certificate; empty: that of the endpoint.",
            "eu-west-1",
        ),
    )


def _identity() -> tuple[Key, ...]:
    return (
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
            "connection.private_key_password_file",
            path("a file with the password of the private key", optional=True),
            "The file that holds the password of the private key; empty: it has none.",
            "/etc/thingjobs/device.password",
        ),
        Key(
            "connection.ca",
            path("the certificates to trust (PEM)", optional=True),
            "The certificate that the service must be signed with; empty: those that the system trusts.",
            "/etc/thingjobs/AmazonRootCA1.pem",
        ),
    )


def _authorizer() -> tuple[Key, ...]:
    name = text("the name of a custom authorizer, 1 to 128 of a-z A-Z 0-9 _ = , @ -, or empty", AWS_NAME)
    what = "The file that holds {}; empty: none."
    return (
        Key("connection.authorizer.name", name, "The custom authorizer; empty: the endpoint's default.", "by-token"),
        Key(
            "connection.authorizer.username",
            text("a user name, or empty", f"(?:{LINE})?"),
            "The user name that the authorizer is told.",
            "pump-7",
        ),
        Key(
            "connection.authorizer.password_file",
            path("a file with a password", optional=True),
            what.format("the password that the authorizer is told"),
            "/etc/thingjobs/authorizer.password",
        ),
        Key(
            "connection.authorizer.token_key",
            text("the name of a parameter, or empty", r"[A-Za-z0-9_-]{0,128}"),
            "The name under which the authorizer wants its token, if it wants a signed one.",
            "token",
        ),
        Key(
            "connection.authorizer.token_file",
            path("a file with a token", optional=True),
            what.format("the token"),
            "/etc/thingjobs/authorizer.token",
        ),
        Key(
            "connection.authorizer.signature_file",
            path("a file with a signature", optional=True),
            what.format("the signature of the token, in base64"),
            "/etc/thingjobs/authorizer.signature",
        ),
    )


def _pkcs11() -> tuple[Key, ...]:
    label = text("a label, or empty", f"(?:{LINE})?")
    return (
        Key(
            "connection.pkcs11.module",
            path("a PKCS#11 library"),
            "The library that speaks PKCS#11 for the token that has the private key.",
            "/usr/lib/pkcs11/libtpm2_pkcs11.so",
        ),
        Key(
            "connection.pkcs11.pin_file",
            path("a file with a PIN", optional=True),
            "The file that holds the PIN; empty: the token wants none.",
            "/etc/thingjobs/token.pin",
        ),
        Key("connection.pkcs11.token", label, "The label of the token; empty: there is only one.", "thingjobs"),
        Key("connection.pkcs11.key", label, "The label of the key; empty: there is only one.", "device"),
    )
