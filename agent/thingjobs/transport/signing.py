"""The URL that opens a WebSocket to AWS IoT: signed with Signature Version 4, in the query.

Sources: AWS IoT Core, "Device communication protocols" (MQTT over the WebSocket protocol), and "Signature Version 4
signing process" in the IAM user guide. The session token of temporary credentials is added after signing: this
service is one of those that do not count it in. A test compares the rest with botocore.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from thingjobs.cloud import environment

if TYPE_CHECKING:
    from thingjobs.cloud.credentials import Credentials

SERVICE = "iotdevicegateway"
PATH = "/mqtt"
#: The service ends such a connection after a day at the latest.
LIFE_SECONDS = 86_400


def from_environment(host: str, region: str, now: float) -> str:
    """Return path and query that open a WebSocket, signed by the standard AWS environment, which is read anew.

    Args:
        host: as it is written in the header Host.
        region: whose endpoint it is.
        now: seconds since the epoch.

    Raises:
        CloudError: there are no credentials.
    """
    found = environment.find(os.environ, now).credentials
    return signed(found, host, region, datetime.fromtimestamp(now, UTC))


def signed(credentials: Credentials, host: str, region: str, at: datetime) -> str:
    """Return path and query that open a WebSocket.

    Args:
        credentials: whose signature.
        host: as it is written in the header Host.
        region: whose endpoint it is.
        at: the time to sign with, aware, in UTC; the service takes it if it is within 5 minutes of its own.
    """
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{region}/{SERVICE}/aws4_request"
    query = "&".join(
        [
            "X-Amz-Algorithm=AWS4-HMAC-SHA256",
            f"X-Amz-Credential={quote(f'{credentials.access_key_id}/{scope}', safe='-_.~')}",
            f"X-Amz-Date={stamp}",
            f"X-Amz-Expires={LIFE_SECONDS}",
            "X-Amz-SignedHeaders=host",
        ]
    )
    request = "\n".join(["GET", PATH, query, f"host:{host}", "", "host", hashlib.sha256().hexdigest()])
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    token = credentials.session_token
    more = f"&X-Amz-Security-Token={quote(token, safe='-_.~')}" if token else ""
    return f"{PATH}?{query}&X-Amz-Signature={hmac.digest(key, text.encode(), 'sha256').hex()}{more}"
