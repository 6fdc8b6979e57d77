"""The handler send-manifest: tells S3 Batch Operations which pictures this camera has uploaded.

    {"handler": "send-manifest", "params": {
        "url": "${aws:iot:s3-presigned-url-upload:https://s3.eu-west-1.amazonaws.com/fleet-pictures/manifests/…}",
        "bucket": "fleet-pictures", "prefix": "pictures/camera-3/"}}

Each picture in the outbox is taken to be in the bucket under the prefix and its own name; what puts it there is not
this handler's business. The status details of the job say how many there are, and the ETag of the manifest, which
whoever creates the S3 batch job must give. Where the outbox is, the operator decides (`[handlers.environment] OUTBOX`).
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from thingjobs.fetch import FetchError, upload
from thingjobs.handler import Context, Failed, Outcome, Retry


@dataclass(frozen=True)
class Params:
    """What a job says. The schema that is made of this refuses the rest before anything starts."""

    url: Annotated[str, "where the manifest goes, presigned for PUT", {"minLength": 8}]
    bucket: Annotated[str, "where the pictures are", {"pattern": "^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"}]
    prefix: Annotated[str, "of their keys, with the / at its end", {"maxLength": 512}] = ""


class SendManifest:
    """Uploads the list of pictures as S3 Batch Operations reads it."""

    version = "1.0"
    description = "uploads a manifest of this camera's pictures"
    timeouts = {"apply": 600}
    #: A second upload of the same manifest replaces the first.
    apply_rerun = True
    cancel_apply = True

    def check(self, ctx: Context, params: Params) -> Outcome | None:
        """Say whether there is anything to tell. Changes nothing."""
        if not pictures():
            raise Retry(f"there is no picture in {outbox()} yet", after=300)
        return None

    def apply(self, ctx: Context, params: Params) -> None:
        """Write the manifest and put it where the URL says."""
        names = pictures()
        data = manifest(params.bucket, params.prefix, names)
        ctx.progress(10, f"sending the names of {len(names)} pictures")

        def fresh_url() -> str:
            anew: Params = ctx.refresh()
            return anew.url

        try:
            upload(params.url, data, fresh_url=fresh_url, cancelled=lambda: ctx.cancelled)
        except FetchError as error:
            raise Failed(error.reason, code=error.code) from None
        # S3 makes the ETag of an object that came in one PUT, and is not encrypted with KMS, from its MD5.
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        ctx.details(pictures=str(len(names)), manifestEtag=etag)


def outbox() -> Path:
    """Return the folder of the pictures."""
    return Path(os.environ.get("OUTBOX", "/var/lib/camera/outbox"))


def pictures() -> list[str]:
    """Return the names of the pictures, in order, so that the same pictures make the same manifest."""
    return sorted(path.name for path in outbox().glob("*.jpg") if path.is_file())


def manifest(bucket: str, prefix: str, names: list[str]) -> bytes:
    """Return a manifest in the format S3BatchOperations_CSV_20180820: bucket and key, the key URL-encoded."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([bucket, quote(f"{prefix}{name}")] for name in names)
    return text.getvalue().encode()
