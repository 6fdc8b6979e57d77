"""All checks together, each with those that it needs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from thingjobs.doctor import rules, service
from thingjobs.doctor.findings import Check, Finding, Mark, carried_out, failed, ok, parted, skipped
from thingjobs.doctor.local import Local
from thingjobs.doctor.network import Network
from thingjobs.doctor.rules import Stage, Talk, Times
from thingjobs.doctor.surroundings import Surroundings, deadline, within
from thingjobs.errors import ThingjobsError
from thingjobs.transport import configured

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from thingjobs.config import Config
    from thingjobs.doctor.findings import Verdict

#: Connections this long show that nobody else comes with our client id.
QUIET_SECONDS = 60
#: At most so long: AWS IoT Core, "MQTT", limits of the message broker.
_CLIENT_ID_BYTES = 128


def unusable(problems: Sequence[str]) -> Iterator[Finding]:
    """Return the findings for a configuration that cannot be used."""
    for problem in problems:
        yield Finding("config", Mark.FAILED, *parted(problem))
    yield from (Finding(name, Mark.SKIPPED, "because of config") for name in _NAMES)


def examine(config: Config, sources: Sequence[Path], surroundings: Surroundings | None = None) -> Iterator[Finding]:
    """Carry out all checks, each finding as soon as it is there.

    Args:
        config: has an endpoint.
        sources: the files and folders that it was read from.
        surroundings: what is looked at; None: this device, now.

    Raises:
        ConfigError: the connection cannot be as the configuration wants it.
    """
    around = surroundings or Surroundings()
    yield from _Examination(config, sources, around).findings()


_WHERE = (
    "see that cloud.credentials_endpoint is right (`aws iot describe-endpoint --endpoint-type iot:CredentialProvider` "
    "prints it), and that this device may reach it on port 443"
)
#: The checks that are always listed.
_NAMES = (
    *("agent", "files", "certificate", "clock", "name", "port", "tls", "connect", "subscribe", "jobs", "client id"),
    *("handlers", "space", "state"),
)


class _Examination:
    def __init__(self, config: Config, sources: Sequence[Path], around: Surroundings) -> None:
        self._config = config
        self._sources = sources
        self._around = around
        self._link = configured.link_of(config, patience=around.patience.session)
        self._local = Local(config, sources, around)
        self._network = Network(config, self._link, around.patience)
        self._times: Times | None = None
        self._talk = Talk(Stage.BEGUN)

    def findings(self) -> Iterator[Finding]:
        return carried_out(list(self._checks()), deadline(self._around.patience.whole))

    def _checks(self) -> Iterator[Check]:
        local, network = self._local, self._network
        yield Check("config", self._about_config)
        yield Check("agent", local.agent)
        yield Check("files", local.files)
        yield Check("certificate", lambda: local.certificate(self._dated()))
        yield Check("clock", lambda: [rules.of_clock(self._dated())])
        yield Check("name", network.name)
        yield Check("port", network.port, ("name",))
        if self._link.proxy is not None:
            yield Check("proxy", network.proxy, ("port",))
        way = ("port", "proxy", "certificate", "clock")
        yield Check("tls", lambda: network.tls(self._dated()), way)
        yield Check("connect", self._connect, ("tls",))
        yield Check("subscribe", self._subscribe, ("connect",))
        yield Check("jobs", self._jobs, ("subscribe",))
        yield Check("client id", self._client_id, ("connect",))
        if self._config.cloud.role_alias:
            yield Check("credentials", self._credentials, ("certificate", "clock"))
        yield Check("handlers", local.handlers)
        yield Check("space", local.space)
        yield Check("state", local.state)

    def _about_config(self) -> list[Verdict]:
        return [ok(", ".join(str(path) for path in self._sources))]

    def _dated(self) -> Times:
        """Return what says what time it is; the service is asked only if something does not fit."""
        if self._times is None:
            times = Times(self._around.read_clock(), self._local.our_span(), self._network.server_span())
            if times.in_doubt:
                times = replace(times, said=self._network.said())
            self._times = times
        return self._times

    # --- the service ----------------------------------------------------------------------------------------------

    @property
    def _has_client_id(self) -> bool:
        """Whether only one connection can be ours at a time."""
        return self._config.connection.transport != "https"

    @property
    def _held_by_agent(self) -> int | None:
        """For how many seconds the agent that runs here has had our client id; None: it has not."""
        found = self._local.status
        if not self._has_client_id or found is None:
            return None
        ours = found["connected"] and found["thing"] == self._config.thing.name
        return int(found["connectedSeconds"]) if ours else None

    def _connect(self) -> list[Verdict]:
        held, link = self._held_by_agent, self._link
        if self._local.unheard and self._has_client_id:
            said = f"an agent may run here as {link.client_id}, and does not say so: to try it could end its connection"
            return [skipped(said, "check as the account that runs the agent, or stop it first")]
        if held is not None:
            said = f"the agent that runs here has been connected as {link.client_id} for {rules.lasted(held)}"
            return [ok(f"{said}; trying it as well would end that connection")]
        self._talk = service.talk(self._config, link, self._around.patience)
        refused = self._talk.stage is Stage.BEGUN and self._has_client_id
        return [rules.of_connect(self._talk, link, web=refused and self._network.answers_http())]

    def _subscribe(self) -> list[Verdict]:
        if self._held_by_agent is not None:
            return [ok("the subscriptions of the agent that runs here are granted")]
        return [rules.of_subscribe(self._talk, self._link)]

    def _jobs(self) -> list[Verdict]:
        if self._held_by_agent is None:
            return [rules.of_jobs(self._talk, self._link)]
        other = replace(self._link, client_id=_beside(self._link.client_id))
        found = service.talk(self._config, other, replace(self._around.patience, rival=0.0))
        if found.stage is Stage.ANSWERED:
            return [rules.of_jobs(found, other)]
        why = found.reason or found.refused or "there was no answer"
        said = f"{other.client_id}, tried in its place, may be allowed less ({why.partition('; ')[0]})"
        return [
            skipped(
                f"not to be found out: {self._link.client_id} belongs to the agent that runs here, and {said}",
                "nothing is wrong with that; to have all checked, stop the agent and check again",
            )
        ]

    def _client_id(self) -> list[Verdict]:
        held = self._held_by_agent
        if not self._has_client_id:
            return [ok("HTTPS has none")]
        if held is None:
            ended = self._talk.rival or self._talk.again
            came = ended and bool((self._local.look_again() or {}).get("connected"))
            return [rules.of_rival(self._talk, self._link, self._around.patience.rival, agent_came=came)]
        if held >= QUIET_SECONDS:
            said = f"nobody has taken {self._link.client_id} from the agent that runs here for {rules.lasted(held)}"
            return [ok(said)]
        said = "the agent that runs here has not been connected for a minute yet"
        return [skipped(said, "check again later")]

    def _credentials(self) -> list[Verdict]:
        from thingjobs.cloud import role_alias  # noqa: PLC0415 - it brings requests

        cloud, connection = self._config.cloud, self._config.connection
        if connection.certificate is None or connection.private_key is None:
            return [skipped("the credentials provider wants a certificate with its key, and there is none")]
        role = role_alias.RoleAlias(
            endpoint=cloud.credentials_endpoint,
            alias=cloud.role_alias,
            certificate=connection.certificate,
            private_key=connection.private_key,
            thing_name=self._config.thing.name,
            ca=connection.ca,
            proxy=connection.proxy,
        )
        seconds = self._around.patience.cloud
        try:
            issued = within(seconds, lambda: role_alias.ask(role))
        except TimeoutError:
            return [failed(f"{cloud.credentials_endpoint} does not give credentials within {seconds:.0f} s", _WHERE)]
        except (OSError, ThingjobsError) as error:
            text, todo = parted(str(error))
            return [failed(text if todo else f"{text} ({cloud.credentials_endpoint})", todo or _WHERE)]
        life = f", good for {issued.life:.0f} s" if issued.life is not None else ""
        return [ok(f"{cloud.credentials_endpoint} gives credentials for {cloud.role_alias}{life}")]


def _beside(client_id: str) -> str:
    """Return a client id beside one that is in use."""
    beginning = client_id.encode()[: _CLIENT_ID_BYTES - len("-check")].decode(errors="ignore")
    return f"{beginning}-check"
