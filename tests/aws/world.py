"""What points and ways work with: the account, the one thing that was made in it, and jobs for that."""

from __future__ import annotations

import contextlib
import json
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.auth import SigV4Auth
from botocore.credentials import Credentials as BotocoreCredentials
from botocore.exceptions import BotoCoreError, ClientError
from tests.aws.asking import Broker, Device, NoAnswerError, Web
from tests.aws.made import said
from tests.aws.stop import StoppedError

from thingjobs.cloud.errors import CloudError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.aws.account import Account
    from tests.aws.asking import Heard
    from tests.aws.made import Heap
    from tests.aws.resources import Resources
    from tests.aws.stop import Stop
    from tests.aws.transcript import Transcript

    from thingjobs.model import Json

#: How long AWS may take until a new job is on the device's list.
ROLLOUT_SECONDS = 60.0


class NotHereError(Exception):
    """This cannot be answered here; the message says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen.

    Attributes:
        fits: whether the agent's code is right about it; None: it was not answered here.
    """

    seen: str
    fits: bool | None = True


@dataclass(slots=True)
class World:
    """All that there is while this runs.

    Attributes:
        thing: name of the thing, and of everything else.
        role_alias: whether one is to be made.
        target: the ARN of the thing.
        folder: for keys, certificates and agents; goes when this ends.
        jobs: how many were made.
    """

    account: Account
    resources: Resources
    heap: Heap
    stop: Stop
    transcript: Transcript
    folder: Path
    thing: str
    role_alias: bool = False
    target: str = ""
    certificate: Path = field(init=False)
    key: Path = field(init=False)
    jobs: int = 0

    @property
    def iot(self) -> Any:
        return self.resources.iot

    @contextlib.contextmanager
    def job(self, document: Json | None = None, **what: Any) -> Iterator[str]:
        """Make a job for the thing and give its id; it is deleted at once when nobody needs it any longer."""
        self.stop.check()
        self.jobs += 1
        job_id = f"{self.thing}-{self.jobs}"
        made = self.resources.job(job_id)
        with self.heap.making(made):
            self.resources.make_job(job_id, self.target, **(what or {"document": json.dumps(document)}))
        try:
            yield job_id
        finally:
            self.heap.delete(made)

    def execution(self, job_id: str) -> Json:
        """Return an execution as the control plane shows it; {} while it does not exist."""
        try:
            found = self.iot.describe_job_execution(jobId=job_id, thingName=self.thing)["execution"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return {}
            raise
        return dict(found)

    def rolled_out(self, job_id: str) -> None:
        """Wait until the job is on the thing's list.

        Raises:
            NoAnswerError: it is not, in time.
        """
        if not self.stop.until(lambda: self.execution(job_id), ROLLOUT_SECONDS):
            raise NoAnswerError(f"the job {job_id} did not get to the thing within {ROLLOUT_SECONDS:.0f} s")

    def device(self, version: int = 5) -> Device:
        """Return a connection with MQTT, to be entered."""
        host, port = self.account.mqtt
        return Device(
            Broker(
                host,
                port,
                self.thing,
                lambda: self.account.tls(self.certificate, self.key),
                self.transcript,
                self.stop.check,
            ),
            version,
        )

    def queued(self, device: Device, job_id: str) -> Heard:
        """Wait until the device can see a job; return that answer.

        Raises:
            NoAnswerError: it does not, in time.
        """
        self.rolled_out(job_id)

        def seen() -> Heard | None:
            return heard if (heard := device.ask(f"{job_id}/get", {})).accepted else None

        if (found := self.stop.until(seen, ROLLOUT_SECONDS)) is None:
            raise NoAnswerError(f"the device does not see the job {job_id}")
        return found

    def web(self) -> Web:
        """Return HTTPS with the device's certificate; with signatures where an emulator has nothing else."""
        if self.account.emulated:
            return self.signed_web()
        tls = self.account.tls(self.certificate, self.key)
        return Web(f"https://{self.account.data}:8443", self.transcript, tls=tls)

    def signed_web(self) -> Web:
        """Return HTTPS signed with the credentials of this run."""
        held = self.account.credentials
        keys = BotocoreCredentials(held.access_key_id, held.secret_access_key, held.session_token or None)
        base = self.account.endpoint_url or f"https://{self.account.data}"
        return Web(base, self.transcript, signer=SigV4Auth(keys, "iot-jobs-data", self.account.region))


def asked(ask: Callable[[World], Finding], world: World) -> Finding:
    """Ask something and return what was seen, whatever it was.

    Raises:
        StoppedError: this run ends.
    """
    world.stop.check()
    try:
        return ask(world)
    except NotHereError as why:
        return Finding(f"not answered here: {why}", None)
    except (NoAnswerError, CloudError) as error:
        return Finding(f"no answer: {error}", fits=False)
    except (ClientError, BotoCoreError) as error:
        return Finding(f"no answer: {said(error)}", fits=False)
    except StoppedError:
        raise
    except Exception as error:  # noqa: BLE001 - an answer that nobody thought of must not keep the others from us
        world.transcript.note(traceback.format_exc())
        return Finding(f"an answer that this program cannot read: {type(error).__name__} {error}", fits=False)
