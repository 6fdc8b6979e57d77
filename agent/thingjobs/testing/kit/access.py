"""The cloud that a handler under test reaches: a server of the test, and credentials that it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thingjobs.testing.kit.outcome import Json

_NONE = "this test gives no cloud: pass cloud=CloudAccess(URL) with the URL of a server, such as moto's"


@dataclass(frozen=True, slots=True)
class CloudAccess:
    """What a handler that declares `needs = ("cloud",)` is given; no test ever reaches AWS by it.

    Attributes:
        url: of a server that speaks S3 Control and AWS Batch, such as moto's; "": there is none to reach.
        region: of the device.
        account: whose cloud jobs they are; moto's has this one.
        allow_s3_jobs: patterns, as [cloud] allow_s3_jobs.
        allow_batch_jobs: patterns, as [cloud] allow_batch_jobs; a device allows none unless its operator does.
        access_key_id: of the credentials.
        secret_access_key: of the credentials.
        session_token: of the credentials.
        ca_bundle: the file of whom the server's certificate is trusted by; "": the usual ones.
        problem: why there are no credentials; "": there are.
    """

    url: str = ""
    region: str = "eu-west-1"
    account: str = "123456789012"
    allow_s3_jobs: Sequence[str] = ("*",)
    allow_batch_jobs: Sequence[str] = ("*",)
    access_key_id: str = "AKIDTEST"
    secret_access_key: str = field(default="test", repr=False)
    session_token: str = field(default="", repr=False)
    ca_bundle: str = ""
    problem: str = ""


def told_of(access: CloudAccess | None) -> Json:
    """Return what job.json says of the cloud from its first revision on."""
    found = access or CloudAccess()
    # Nobody listens there: without a URL of its own, a client would go to AWS.
    url = found.url or "http://127.0.0.1:9"
    return {
        "region": found.region,
        "account": found.account,
        "s3ControlUrl": url,
        "batchUrl": url,
        "caBundle": found.ca_bundle,
        "allowS3Jobs": list(found.allow_s3_jobs),
        "allowBatchJobs": list(found.allow_batch_jobs),
        "proxy": "",
    }


def answer_of(access: CloudAccess | None) -> Json:
    """Return what the agent answers to a question for credentials."""
    if access is None or access.problem:
        return {"problem": access.problem if access else _NONE, "trouble": "credentials"}
    return {
        "credentials": {
            "accessKeyId": access.access_key_id,
            "secretAccessKey": access.secret_access_key,
            "sessionToken": access.session_token,
            "expiration": "",
            "lifeSeconds": None,
        }
    }
