"""The agent's side of `ctx.cloud`: gets credentials for the handlers that ask, beside the loop, one asking at a time.

A handler asks by `{"refresh": "cloud"}`, and job.json answers. Nothing here decides about jobs, so the core knows
nothing of it. `thingjobs.cloud` is imported with the first question: it brings requests along, which an idle agent does
without.

However often handlers ask, AWS is asked when the credentials at hand grow old, and after a failure at most every few
seconds. A failure is an answer like any other: nobody waits for a time-out.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from thingjobs import boot
from thingjobs.errors import StateError
from thingjobs.manifest import forbidden_cloud
from thingjobs.policy import backoff
from thingjobs.runner.events import Wanted
from thingjobs.runner.given import CLOUD

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from thingjobs.cloud.credentials import Credentials, Issued, Keeper
    from thingjobs.config import Config
    from thingjobs.machine.state import Job
    from thingjobs.model import Identity, Json, Record

    Source = Callable[[], Issued]

log = logging.getLogger("thingjobs")

#: Seconds. A failure is the answer to whoever asks within twice that; twice as long after each further one.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
#: Seconds. What is younger is not given up for a handler that says that it is refused.
YOUNGEST_REFUSED = 30.0
#: Seconds. At its end the agent waits so long for an answer of AWS, which is of no use any more.
STOP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of asking for credentials: `credentials`, or `problem` and `trouble`, as job.json has them."""

    answer: Json = field(repr=False)


class Desk:
    """Answers handlers that ask for credentials. All but the asking itself is done by the agent's own thread.

    Args:
        handlers: patterns of the handlers that may have credentials.
        source: makes what gives credentials; is called once, when they are first wanted, in a thread of its own.
        put: takes Answered, from that thread.
        clock: seconds that only go forward, also while the machine sleeps.
    """

    def __init__(
        self,
        handlers: Sequence[str],
        source: Callable[[], Source],
        put: Callable[[Answered], None],
        *,
        clock: Callable[[], float] = boot.clock,
    ) -> None:
        self._handlers = handlers
        self._drawer = _Drawer(source, clock)
        self._put = put
        self._waiting: set[Identity] = set()
        self._thread: threading.Thread | None = None

    def take(
        self, event: Wanted | Answered, jobs: Mapping[Identity, Job], give: Callable[[Record, Json], None]
    ) -> None:
        """Take a question of a handler, or what came of asking AWS.

        Args:
            event: which.
            jobs: those that the agent works on.
            give: gives an answer to the handler that runs for a record; raises StateError.
        """
        if isinstance(event, Wanted):
            job = jobs.get(event.identity)
            if job is not None and CLOUD in job.record.plan.needs:
                self._wanted(job.record, event.refused, give)
            return
        if self._thread is not None:
            self._thread.join()  # It said its last word.
            self._thread = None
        waiting, self._waiting = self._waiting, set()
        for identity in waiting:
            if identity in jobs:
                _give(give, jobs[identity].record, event.answer)

    def stop(self) -> None:
        """Wait a moment for the thread that asks; one that is stuck ends with the process."""
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def _wanted(self, record: Record, refused: str, give: Callable[[Record, Json], None]) -> None:
        if why := forbidden_cloud(record.plan.handler, record.plan.needs, self._handlers):
            _give(give, record, _problem(why, "denied"))
            return
        self._waiting.add(record.identity)
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._ask, args=(refused,), name="cloud credentials", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # No more threads.
            self._waiting.discard(record.identity)
            why = "cannot get credentials: this machine has no thread left for it"
            _give(give, record, _problem(why, "unavailable"))
            return
        self._thread = thread

    def _ask(self, refused: str) -> None:
        self._put(Answered(self._drawer.answer(refused)))


def _give(give: Callable[[Record, Json], None], record: Record, answer: Json) -> None:
    try:
        give(record, answer)
    except StateError as error:  # The handler asks again.
        log.error("%s: %s", record.identity, error)  # noqa: TRY400 - a full disk is no bug


def _problem(text: str, trouble: str) -> Json:
    return {"problem": text, "trouble": trouble}


class _Drawer:
    """The credentials at hand, or why there are none; used by one thread at a time."""

    def __init__(self, source: Callable[[], Source], clock: Callable[[], float]) -> None:
        self._make_source = source
        self._clock = clock
        self._source: Source | None = None
        self._keeper: Keeper | None = None
        self._issued: Issued | None = None
        self._issued_at = self._silent_until = 0.0
        self._failures = 0
        self._failure: Json = {}

    def answer(self, refused: str) -> Json:
        """Return what a handler is answered; never raises."""
        if self._failures and self._clock() < self._silent_until:
            return self._failure
        try:
            credentials = self._current(refused)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for an answer
            return self._failed(error)
        if self._failures:
            log.info("there are AWS credentials for handlers again")
        self._failures = 0
        return {"credentials": self._shown(credentials)}

    def _current(self, refused: str) -> Credentials:
        if self._keeper is None:
            from thingjobs.cloud.credentials import Keeper  # noqa: PLC0415 - see above

            self._source = self._make_source()
            self._keeper = Keeper(self._ask, clock=self._clock)
        old = self._issued.credentials if self._issued else None
        is_refused = old is not None and old.access_key_id == refused
        if old and is_refused and self._clock() >= self._issued_at + YOUNGEST_REFUSED:
            self._keeper.forget(old)
        return self._keeper.current()

    def _ask(self) -> Issued:
        assert self._source is not None  # noqa: S101 - made before the keeper
        self._issued = self._source()
        self._issued_at = self._clock()
        return self._issued

    def _failed(self, error: Exception) -> Json:
        text, trouble = _explained(error)
        if self._failure.get("problem") != text or not self._failures:
            log.warning("no AWS credentials for handlers: %s", text)
        self._failures += 1
        self._silent_until = self._clock() + backoff(self._failures, 1.0, first=FIRST_PAUSE, cap=LONGEST_PAUSE)
        self._failure = _problem(text, trouble)
        return self._failure

    def _shown(self, credentials: Credentials) -> Json:
        life = self._issued.life if self._issued else None
        return {
            "accessKeyId": credentials.access_key_id,
            "secretAccessKey": credentials.secret_access_key,
            "sessionToken": credentials.session_token,
            "expiration": credentials.expires.strftime("%Y-%m-%dT%H:%M:%SZ") if credentials.expires else "",
            # By no wall clock: a device's may be wrong by years.
            "lifeSeconds": None if life is None else max(0.0, life - (self._clock() - self._issued_at)),
        }


def _explained(error: Exception) -> tuple[str, str]:
    """Return why there are no credentials, for people, and `thingjobs.cloud.errors.Trouble` for programs."""
    trouble = getattr(error, "trouble", None)
    if trouble is not None:
        return str(error), str(trouble)
    return f"cannot get credentials: {type(error).__name__}: {error}", "unavailable"


# --- as configured ------------------------------------------------------------------------------------------------


def told(config: Config) -> Json:
    """Return what handlers that need the cloud are told of it in job.json."""
    cloud = config.cloud
    return {
        "region": cloud.region,
        "account": cloud.account,
        "s3ControlUrl": cloud.s3_control_url,
        "batchUrl": cloud.batch_url,
        "fips": cloud.fips,
        "dualstack": cloud.dualstack,
        "caBundle": str(cloud.ca_bundle or ""),
        "allowS3Jobs": list(cloud.allow_s3_jobs),
        "allowBatchJobs": list(cloud.allow_batch_jobs),
        "proxy": config.connection.proxy,
    }


def source_of(config: Config, environment: Mapping[str, str]) -> Source:
    """Return what gives credentials: the role alias if one is configured, else the standard AWS environment."""
    from thingjobs.cloud import environment as standard  # noqa: PLC0415 - see above
    from thingjobs.cloud import role_alias  # noqa: PLC0415

    cloud, connection = config.cloud, config.connection
    if not (cloud.role_alias and connection.certificate and connection.private_key):
        return standard.source(environment, now=time.time)
    role = role_alias.RoleAlias(
        endpoint=cloud.credentials_endpoint,
        alias=cloud.role_alias,
        certificate=connection.certificate,
        private_key=connection.private_key,
        thing_name=config.thing.name,
        ca=connection.ca,
        proxy=connection.proxy,
    )
    return role_alias.source(role)
