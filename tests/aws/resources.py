"""Each kind of thing that is made in the account: how it is made, found again and deleted.

Everything has a name that begins with PREFIX, and carries TAG: things as an attribute, certificates, which can have
neither, as the common name in their subject. So a run that was killed can be cleaned up after.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from tests.aws.made import Made, said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from thingjobs.model import Json

PREFIX = "thingjobs-check-"
TAG = "thingjobs-check"
#: IAM finds roles by their path.
ROLE_PATH = f"/{TAG}/"
#: Certificates that are not attached to anything are looked for among so many of the newest.
_NEWEST = 100
#: The name of the inline policy of the role.
_INLINE = "thingjobs"
_CERTIFICATE_BY_HAND = (
    "for arn in $(aws iot list-thing-principals --thing-name {name} --query principals --output text); do "
    "aws iot update-certificate --certificate-id ${{arn##*/}} --new-status INACTIVE; "
    "aws iot detach-thing-principal --thing-name {name} --principal $arn; "
    "aws iot delete-certificate --force-delete --certificate-id ${{arn##*/}}; done"
)


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources of one run, or of all of them.

    Attributes:
        iot: the control plane.
        iam: for roles.
        run: tells this run from others.
    """

    iot: Any
    iam: Any
    run: str

    @property
    def name(self) -> str:
        """What everything of this run is called, or its name begins with."""
        return PREFIX + self.run

    @property
    def _tags(self) -> list[dict[str, str]]:
        return [{"Key": TAG, "Value": self.run}]

    # --- things ---------------------------------------------------------------------------------------------------

    def thing(self, name: str) -> Made:
        """Return how a thing is deleted."""
        return Made(
            f"thing {name}",
            lambda: self.iot.delete_thing(thingName=name),
            f"aws iot delete-thing --thing-name {name}",
        )

    def make_thing(self, name: str) -> str:
        """Make a thing; return its ARN."""
        made = self.iot.create_thing(thingName=name, attributePayload={"attributes": {TAG: self.run}})
        return str(made["thingArn"])

    # --- jobs -----------------------------------------------------------------------------------------------------

    def job(self, job_id: str) -> Made:
        """Return how a job is deleted, with its executions."""
        return Made(
            f"job {job_id}",
            lambda: self.iot.delete_job(jobId=job_id, force=True),
            f"aws iot delete-job --force --job-id {job_id}",
        )

    def make_job(self, job_id: str, target: str, **what: Any) -> None:
        """Make a job for one thing; `what`: its document, or its template and parameters."""
        self.iot.create_job(jobId=job_id, targets=[target], targetSelection="SNAPSHOT", tags=self._tags, **what)

    # --- policies -------------------------------------------------------------------------------------------------

    def policy(self, name: str) -> Made:
        """Return how an AWS IoT policy is deleted."""
        return Made(
            f"policy {name}",
            lambda: self._delete_policy(name),
            f"aws iot delete-policy --policy-name {name}  # after `aws iot detach-policy` from all of `aws iot "
            f"list-targets-for-policy --policy-name {name}`",
        )

    def make_policy(self, name: str, document: Json) -> None:
        """Make an AWS IoT policy."""
        self.iot.create_policy(policyName=name, policyDocument=json.dumps(document), tags=self._tags)

    def _delete_policy(self, name: str) -> None:
        for target in self.iot.list_targets_for_policy(policyName=name)["targets"]:
            self.iot.detach_policy(policyName=name, target=target)
        self.iot.delete_policy(policyName=name)

    # --- certificates ---------------------------------------------------------------------------------------------

    def certificate(self, name: str, known: list[str]) -> Made:
        """Return how a certificate is deleted.

        Args:
            name: of the thing, and in the subject of the certificate.
            known: ids of certificates; whoever makes one puts its id in here.
        """
        return Made(
            f"certificate of {name}",
            lambda: self._delete_certificates(name, known),
            _CERTIFICATE_BY_HAND.format(name=name),
        )

    def make_certificate(self, name: str, folder: Path, known: list[str]) -> tuple[str, Path, Path]:
        """Have a certificate made for a key of ours, inactive; return its ARN and the paths of both."""
        request, key_pem = certificate_request(name)
        made = self.iot.create_certificate_from_csr(certificateSigningRequest=request, setAsActive=False)
        known.append(made["certificateId"])
        certificate, key = folder / "device.pem", folder / "device.key"
        for path, text in ((certificate, made["certificatePem"]), (key, key_pem)):
            path.touch(mode=0o600)
            path.write_text(text)
        return str(made["certificateArn"]), certificate, key

    def activate(self, name: str, arn: str, policies: Sequence[str]) -> None:
        """Attach a certificate to its thing and to policies, and only then make it good for anything."""
        self.iot.attach_thing_principal(thingName=name, principal=arn)
        for policy in policies:
            self.iot.attach_policy(policyName=policy, target=arn)
        self.iot.update_certificate(certificateId=arn.rpartition("/")[2], newStatus="ACTIVE")

    def _delete_certificates(self, name: str, known: Sequence[str]) -> None:
        for certificate in dict.fromkeys([*known, *self._certificates_of(name)]):
            self._delete_certificate(certificate)

    def _delete_certificate(self, certificate: str) -> None:
        described = self.iot.describe_certificate(certificateId=certificate)["certificateDescription"]
        arn = described["certificateArn"]
        if described["status"] == "ACTIVE":
            self.iot.update_certificate(certificateId=certificate, newStatus="INACTIVE")
        for policy in self.iot.list_attached_policies(target=arn)["policies"]:
            self.iot.detach_policy(policyName=policy["policyName"], target=arn)
        for thing in self.iot.list_principal_things(principal=arn)["things"]:
            self.iot.detach_thing_principal(thingName=thing, principal=arn)
        self.iot.delete_certificate(certificateId=certificate, forceDelete=True)

    def _certificates_of(self, name: str) -> Iterator[str]:
        """Yield the ids of the certificates of a thing, and of those that were never attached to it."""
        for thing in self._named("list_things", "things", "thingName", attributeName=TAG, attributeValue=self.run):
            if thing == name:
                for principal in self.iot.list_thing_principals(thingName=name)["principals"]:
                    id_ = principal.rpartition("/")[2]
                    if self._subject(id_) == name:
                        yield id_
        yield from (id_ for id_, subject in self._unattached() if subject == name)

    def _unattached(self) -> Iterator[tuple[str, str]]:
        """Yield id and common name of certificates of any run that came no further than being made."""
        listed = self.iot.list_certificates(pageSize=_NEWEST, ascendingOrder=False)["certificates"]
        for entry in listed:
            id_ = entry["certificateId"]
            if entry["status"] == "INACTIVE" and (subject := self._subject(id_)).startswith(PREFIX):
                yield id_, subject

    def _subject(self, certificate: str) -> str:
        described = self.iot.describe_certificate(certificateId=certificate)["certificateDescription"]
        return common_name(described["certificatePem"])

    # --- roles ----------------------------------------------------------------------------------------------------

    def role(self, name: str) -> Made:
        """Return how an IAM role is deleted."""
        return Made(
            f"IAM role {name}",
            lambda: self._delete_role(name),
            f"aws iam delete-role-policy --role-name {name} --policy-name {_INLINE} ; "
            f"aws iam delete-role --role-name {name}",
        )

    def make_role(self, name: str, trust: Json) -> str:
        """Make an IAM role; return its ARN."""
        made = self.iam.create_role(
            RoleName=name, Path=ROLE_PATH, AssumeRolePolicyDocument=json.dumps(trust), Tags=self._tags
        )
        return str(made["Role"]["Arn"])

    def allow_role(self, name: str, allowed: Json) -> None:
        """Give a role its policy."""
        self.iam.put_role_policy(RoleName=name, PolicyName=_INLINE, PolicyDocument=json.dumps(allowed))

    def _delete_role(self, name: str) -> None:
        for policy in self.iam.list_role_policies(RoleName=name)["PolicyNames"]:
            self.iam.delete_role_policy(RoleName=name, PolicyName=policy)
        self.iam.delete_role(RoleName=name)

    def role_alias(self, name: str) -> Made:
        """Return how a role alias is deleted."""
        return Made(
            f"role alias {name}",
            lambda: self.iot.delete_role_alias(roleAlias=name),
            f"aws iot delete-role-alias --role-alias {name}",
        )

    def make_role_alias(self, name: str, role_arn: str) -> None:
        """Make a role alias."""
        self.iot.create_role_alias(roleAlias=name, roleArn=role_arn, credentialDurationSeconds=900, tags=self._tags)

    # --- what earlier runs left -------------------------------------------------------------------------------------

    def left_by_all(self, tell: Callable[[str], None]) -> list[Made]:
        """Return what any run has left, in the order in which it was made.

        Args:
            tell: is told where it cannot look for roles: who may not list them could not make them either.
        """
        things = list(self._named("list_things", "things", "thingName"))
        certificates = dict.fromkeys([*things, *(subject for _, subject in self._unattached())])
        roles = {"IAM roles": self._roles_left, "role aliases": self._role_aliases_left}
        return [
            *map(self.thing, things),
            *(made for what, look in roles.items() for made in _looked(what, look, tell)),
            *map(self.policy, self._named("list_policies", "policies", "policyName")),
            *(Resources(self.iot, self.iam, name.removeprefix(PREFIX)).certificate(name, []) for name in certificates),
            *map(self.job, self._named("list_jobs", "jobs", "jobId")),
        ]

    def _roles_left(self) -> list[Made]:
        pages = self.iam.get_paginator("list_roles").paginate(PathPrefix=ROLE_PATH)
        return [self.role(role["RoleName"]) for page in pages for role in page["Roles"]]

    def _role_aliases_left(self) -> list[Made]:
        return [self.role_alias(name) for name in self._named("list_role_aliases", "roleAliases", "")]

    def _named(self, operation: str, member: str, key: str, **more: Any) -> Iterator[str]:
        """Yield all names that begin with PREFIX from a list of AWS IoT; `key`: "" where these are names alone."""
        for page in self.iot.get_paginator(operation).paginate(**more):
            names = (entry[key] if key else entry for entry in page[member])
            yield from (name for name in names if name.startswith(PREFIX))


def _looked(what: str, look: Callable[[], list[Made]], tell: Callable[[str], None]) -> list[Made]:
    try:
        return look()
    except ClientError as error:
        tell(f"cannot look for {what}: {said(error)}")
        return []


# --- keys -----------------------------------------------------------------------------------------------------------


def certificate_request(name: str) -> tuple[str, str]:
    """Make a key; return the request for a certificate for it, and the key. Both are PEM; the key stays here."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return request.public_bytes(Encoding.PEM).decode(), pem.decode()


def common_name(certificate_pem: str) -> str:
    """Return the common name of a certificate; "" if it has none."""
    from cryptography import x509

    subject = x509.load_pem_x509_certificate(certificate_pem.encode()).subject
    return next((str(found.value) for found in subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)), "")
