"""Makes the thing, its certificate and its policies; and a role with a role alias, where that is wanted and allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError
from tests.aws.made import is_forbidden, said
from tests.aws.ways import WAYS, config_of
from tests.aws.world import Finding, NotHereError

from thingjobs import iam
from thingjobs.cloud import role_alias
from thingjobs.cloud.errors import CloudError
from thingjobs.cloud.role_alias import RoleAlias
from thingjobs.iam import Name, Place

if TYPE_CHECKING:
    from tests.aws.world import World

    from thingjobs.model import Json

_PUSHED = next(way for way in WAYS if way.pushed)
_POLLED = next(way for way in WAYS if not way.pushed)


def set_up(world: World) -> None:
    """Make what everything else needs.

    Raises:
        ClientError, BotoCoreError: that is not possible.
        StoppedError: this run ends.
    """
    make, name = world.resources, world.thing
    with world.heap.making(make.thing(name)):
        world.target = make.make_thing(name)
    policies = []
    for suffix, document in _policies(world).items():
        world.stop.check()
        policies.append(f"{name}-{suffix}")
        with world.heap.making(make.policy(policies[-1])):
            make.make_policy(policies[-1], document)
    world.stop.check()
    known: list[str] = []
    with world.heap.making(make.certificate(name, known)):
        arn, world.certificate, world.key = make.make_certificate(name, world.folder, known)
    world.stop.check()
    make.activate(name, arn, policies)


def _policies(world: World) -> dict[str, Json]:
    """Return what the certificate may do, by the end of its name: what `thingjobs policy iot` prints, and one more.

    A policy for MQTT says nothing of HTTPS and the other way round, so that each is tried out on its own.
    """
    place = Place(world.account.region, world.account.number)
    found = {
        "mqtt": iam.document(Name.IOT, config_of(world, _PUSHED, _alias(world)), place),
        "https": iam.document(Name.IOT, config_of(world, _POLLED), place),
        "start-next": _start_next(world, place),
    }
    return {suffix: document for suffix, document in found.items() if document is not None}


def _start_next(world: World, place: Place) -> Json:
    """Return what the agent has no use for, and point n asks about."""
    topic = f"$aws/things/{world.thing}/jobs/start-next"
    allowed = {
        "iot:Publish": place.arn("iot", f"topic/{topic}"),
        "iot:Subscribe": place.arn("iot", f"topicfilter/{topic}/*"),
        "iot:Receive": place.arn("iot", f"topic/{topic}/*"),
    }
    statements = [{"Effect": "Allow", "Action": action, "Resource": arn} for action, arn in allowed.items()]
    return {"Version": "2012-10-17", "Statement": statements}


def _alias(world: World) -> str:
    """Return what the configuration says of a role alias, "" without one; who is asked is of no concern to policies."""
    if not world.role_alias:
        return ""
    return f"""[cloud]
role_alias = "{world.thing}"
credentials_endpoint = "credentials.invalid"
"""


def credentials_by_role_alias(world: World) -> Finding:
    """Make a role and a role alias, and get credentials for them with the device's certificate.

    The policy of the certificate names the alias already: so does what `thingjobs policy` prints.
    """
    make, name = world.resources, world.thing
    place, config = Place(world.account.region, world.account.number), config_of(world, _PUSHED, _alias(world))
    trust, allowed = iam.document(Name.TRUST, config, place), iam.document(Name.ROLE, config, place)
    try:
        with world.heap.making(make.role(name)):
            role = make.make_role(name, trust or {})
        make.allow_role(name, allowed or {})
        with world.heap.making(make.role_alias(name)):
            make.make_role_alias(name, role)
        host = world.iot.describe_endpoint(endpointType="iot:CredentialProvider")["endpointAddress"]
    except ClientError as error:
        if is_forbidden(error):
            raise NotHereError(f"the caller may not make IAM roles or role aliases: {said(error)}") from None
        if world.account.emulated:
            raise NotHereError(f"the emulator has no role aliases: {said(error)}") from None
        raise
    if world.account.emulated:
        raise NotHereError("the emulator has no credentials provider with certificates")
    world.transcript.hide(host, "<endpoint>")
    world.transcript.hide(host.partition(".")[0], "<endpoint>")
    return _asked(world, host)


def _asked(world: World, host: str) -> Finding:
    """Ask until the new role is known everywhere, for a while."""
    asked = RoleAlias(host, world.thing, world.certificate, world.key, world.thing, world.account.ca)
    last: list[Exception] = []

    def came() -> str:
        try:
            issued = role_alias.ask(asked)
        except CloudError as error:
            last[:] = [error]
            return ""
        world.transcript.hide(issued.credentials.secret_access_key, "<secret key>")
        world.transcript.hide(issued.credentials.session_token, "<session token>")
        return f"credentials for {issued.life or 0:.0f} s"

    found = world.stop.until(came, 60.0)
    return Finding(found) if found else Finding(f"no credentials: {last[0]}", fits=False)
