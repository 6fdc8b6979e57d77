"""Signatures for the Jobs service where no certificate says who we are: the credentials of the AWS environment."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from thingjobs.cloud import environment, signing
from thingjobs.cloud.credentials import Credentials, Keeper

if TYPE_CHECKING:
    from requests import PreparedRequest


class JobsSigner:
    """Signs requests for `iot-jobs-data`; the credentials are fetched when they are needed.

    Args:
        region: such as `eu-west-1`.
    """

    def __init__(self, region: str) -> None:
        self._region = region
        self._keeper = Keeper(environment.source(os.environ, now=time.time))
        self._used: Credentials | None = None

    def sign(self, request: PreparedRequest) -> None:
        """Add the headers that sign a request.

        Raises:
            CloudError: there are no credentials; the message says why.
        """
        self._used = self._keeper.current()
        # Device Shadow is another service behind the same host; no request of the Jobs service has such a query.
        service = "iotdata" if "/shadow?name=" in (request.url or "") else "iot-jobs-data"
        signing.sign(request, self._used, region=self._region, service=service, at=datetime.now(UTC))

    def refused(self) -> None:
        """Look for other credentials next time."""
        if self._used is not None:
            self._keeper.forget(self._used)
